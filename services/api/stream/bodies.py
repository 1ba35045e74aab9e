"""What the stream of incidents sends: its JSON objects, which are the same as server-sent events and by WebSocket."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated
from uuid import UUID

import msgspec
from pydantic import Field

from models.incidents.incident import IncidentState, IncidentType
from models.incidents.summaries import bytes_of
from models.stream.happenings import Happening
from services.api.v1.fields import says
from services.feed.watch import StreamedHappening, StreamStatus
from services.times import timestamp

#: Events of an incident with more text than this are encoded for each client separately, so that little has to be cached.
REMEMBERED_BYTES = 8192

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


@dataclass(frozen=True, slots=True)
class StreamIncidentBody:
    """The incident right after the event. If `updated_at` is later than the message's `at`, it shows something newer:
    the client was away, or the gateway saw the incident for the first time."""

    id: Annotated[UUID, says("Its id.")]
    service: Annotated[str, says("The service it belongs to.")]
    title: Annotated[str, says("Its title.")]
    severity: Annotated[str, says("P0 to P4, P0 is the worst.")]
    state: Annotated[IncidentState, says("Its state.")]
    incident_type: Annotated[IncidentType, says("Its type: what kind of problem it is.")]
    labels: Annotated[dict[str, str], says("Its labels.")]
    assignees: Annotated[list[str], says("Who works on it.")]
    version: Annotated[int, says("Increases with every change that people can make; also its ETag.")]
    updated_at: Annotated[Time, says("When it last changed.")]


@dataclass(frozen=True, slots=True)
class HappeningBody:
    """`event` is "incident": something happened to an incident. `kind` is the event_type of its line in the timeline."""

    event: Annotated[str, says('Always "incident".')]
    cursor: Annotated[str, says("The position after this message: to continue here, send it as `cursor`.")]
    at: Annotated[Time, says("When it happened.")]
    kind: Annotated[str, says("What happened: an event_type, as in the timeline.")]
    incident: Annotated[StreamIncidentBody, says("The incident after the change.")]
    actor: Annotated[str, says("Who did it.")]
    text: Annotated[str, says("What happened, in words.")]
    reason: Annotated[str, says("Why; may be empty.")]
    details: Annotated[dict[str, str], says("Details for programs.")]
    trace_id: Annotated[str | None, says("The trace it belongs to, if any.")]


@dataclass(frozen=True, slots=True)
class WordBody:
    """A message about the stream itself. `event` is one of

    ready      the first message: what happens from now on comes after it
    heartbeat  nothing was to be told for a while. `stalled` names partitions that can't be followed now, and why;
               `behind` counts frames of the logs that are still to be looked at
    reset      something was missed, `reason` says why: slots, unknown, truncated or behind. List the incidents again
    dropped    the last message: slow, leaving, token or matchers is the `reason`, or, of an event stream that could not even
               begin, busy or unavailable. Connect again with `cursor`
    """

    event: Annotated[str, says("ready, heartbeat, reset or dropped.")]
    cursor: Annotated[str, says("The position of the stream.")]
    at: Annotated[Time, says("When this message was sent.")]
    reason: Annotated[str, says("Why, in a word; empty for ready and heartbeat.")]
    detail: Annotated[str, says("Why, in a sentence.")]
    stalled: Annotated[dict[str, str], says("Partitions that can't be followed now, and why.")]
    behind: Annotated[int, says("How many frames of the logs have not been read yet.")]


_encoder = msgspec.json.Encoder()
_HEAD = b'{"event":"incident","cursor":"'


def body_of(message: StreamedHappening | StreamStatus) -> bytes:
    """A message as JSON."""
    if isinstance(message, StreamedHappening):
        return _HEAD + message.cursor.encode() + rest_of(message.happening)
    return _encoder.encode(
        WordBody(
            message.event,
            message.cursor,
            timestamp(message.at),
            message.reason,
            message.detail,
            message.stalled,
            message.behind,
        )
    )


def rest_of(happening: Happening) -> bytes:
    """What follows the cursor, from the quote that ends it."""
    is_long = bytes_of(happening.after) > REMEMBERED_BYTES
    return _rest.__wrapped__(happening) if is_long else _rest(happening)


@lru_cache(maxsize=512)  # clients that keep up get the same bytes
def _rest(happening: Happening) -> bytes:
    """Everything after the cursor, which differs for each client."""
    summary, line = happening.after, happening.line
    incident = StreamIncidentBody(
        UUID(bytes=summary.id),
        summary.service,
        summary.title,
        summary.counts.severity.name,
        summary.state,
        summary.counts.type,
        summary.labels,
        summary.assignees,
        summary.version,
        timestamp(summary.updated_at),
    )
    body = HappeningBody(
        "incident",
        "",
        timestamp(happening.at),
        line.kind,
        incident,
        line.actor,
        line.text,
        line.reason,
        line.details,
        happening.trace_id,
    )
    return _encoder.encode(body)[len(_HEAD) :]
