"""What the feed in Redis contains of an incident and of a change: with the names of GET /v1/incidents/{id} and the live
stream. Made by services/feed/publish_shard.py; docs/redis-feed.md is for its readers."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

import msgspec

from models.incidents.incident import IncidentState
from models.incidents.query import Summary
from models.stream.happenings import Happening
from services.times import timestamp

#: Where an incident is listed; children of merged incidents are in no list.
Listed = Literal["open", "resolved", "closed", "part"]


class Entry(msgspec.Struct, frozen=True):
    """An incident on its way into the feed: its record, what it is listed by, and the message about it (none if it is
    only written)."""

    id: str
    listed: Listed
    #: What its list is sorted by, in seconds since the epoch: when it was created, resolved or closed.
    at: float
    service: str
    severity: str
    record: bytes
    message: bytes = b""


class _Acknowledged(msgspec.Struct, frozen=True):
    by: str
    at: str
    until: str | None


class _Record(msgspec.Struct, frozen=True):
    id: str
    created_at: str
    updated_at: str
    state: str
    severity: str
    incident_type: str
    source: str
    title: str
    description: str
    labels: dict[str, str]
    assignees: list[str]
    service: str
    impact: str
    reopened: int
    resolved_at: str | None
    closed_at: str | None
    version: int
    created_by: str
    acknowledged: _Acknowledged | None
    merged_into: str | None


#: What a record holds: fields of GET /v1/incidents/{id}.
FIELDS = _Record.__struct_fields__


class _Change(msgspec.Struct, frozen=True):
    event: str
    at: str
    kind: str
    incident: msgspec.Raw
    actor: str
    text: str
    reason: str
    details: dict[str, str]
    trace_id: str | None


class _Reset(msgspec.Struct, frozen=True):
    event: str
    at: str
    partition: str
    reason: str
    detail: str


def entry_of(summary: Summary) -> Entry:
    """An incident as it is written to the feed, without a message."""
    identity = str(UUID(bytes=summary.id))
    severity = summary.counts.severity.name
    mark = summary.acknowledged
    record = _Record(
        identity,
        timestamp(summary.created_at),
        timestamp(summary.updated_at),
        summary.state,
        severity,
        summary.counts.type,
        summary.source,
        summary.title,
        summary.description,
        summary.labels,
        summary.assignees,
        summary.service,
        summary.counts.impact,
        summary.reopened,
        _time_or_none(summary.resolved_at),
        _time_or_none(summary.closed_at),
        summary.version,
        summary.created_by,
        None if mark is None else _Acknowledged(mark.by, timestamp(mark.at), _time_or_none(mark.until)),
        str(UUID(bytes=summary.merged_into)) if summary.merged_into else None,
    )
    listed, at = _listed(summary)
    return Entry(identity, listed, at, summary.service, severity, _encoder.encode(record))


def entry_of_change(happening: Happening) -> Entry:
    """An incident as it is written to the feed, with the message about the change."""
    entry, line = entry_of(happening.after), happening.line
    change = _Change(
        "incident",
        timestamp(happening.at),
        line.kind,
        msgspec.Raw(entry.record),
        line.actor,
        line.text,
        line.reason,
        line.details,
        happening.trace_id,
    )
    return msgspec.structs.replace(entry, message=_encoder.encode(change))


def reset_message(at: float, partition: str, reason: str) -> bytes:
    """The message that the incidents of a partition were written to the feed again, and earlier messages may have a
    gap."""
    detail = "changes may have been missed: list the incidents again"
    return _encoder.encode(_Reset("reset", timestamp(at), partition, reason, detail))


def _listed(summary: Summary) -> tuple[Listed, float]:
    if summary.state is IncidentState.CLOSED:
        return "closed", summary.closed_at
    if summary.merged_into:
        return "part", summary.created_at
    if summary.state is IncidentState.RESOLVED:
        return "resolved", summary.resolved_at
    return "open", summary.created_at


def _time_or_none(at: float) -> str | None:
    return timestamp(at) if at else None


_encoder = msgspec.json.Encoder()
