"""Summaries of incidents for followers of a log: what is shown of an incident beside each of its events. A summary is
folded from the events alone, as the shard folds the incident. A follower that starts in the middle of a log must ask
the shard once for each incident that existed before, and gets its present state, which may be later than the event.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from models.alerts.room import text_bytes
from models.incidents.incident import (
    Incident,
    IncidentState,
    IncidentType,
    Override,
    Severity,
    Verdict,
)
from models.incidents.query import Summary
from models.partition.event import Event
from models.shard import clock
from models.shard.assembly import ASSEMBLY, Assembly
from models.shard.events import ClockSetBack, IncidentOpened
from models.shard.splitting import IncidentSplit

#: What an incident counts as before it was classified.
UNJUDGED = Verdict(Severity.P2, IncidentType.UNKNOWN, "")


def summary_of(incident: Incident) -> Summary:
    """The summary of an incident as its shard keeps it."""
    counts = Verdict(incident.severity, incident.type, incident.impact)
    handling = incident.handling
    return Summary(
        incident.id,
        incident.service,
        incident.title,
        incident.state,
        dict(incident.labels),
        list(incident.assignees),
        incident.version,
        incident.updated_at,
        bool(incident.classified_by),
        counts,
        counts if handling is None else handling.verdict,
        Override() if handling is None else handling.override,
        {} if handling is None else dict(handling.children),
        incident.created_at,
        incident.created_by,
        incident.source,
        incident.description,
        incident.resolved_at,
        incident.closed_at,
        incident.reopened,
        None if handling is None else handling.acknowledged,
        incident.merged_into,
    )


def opened(event: IncidentOpened, now: float) -> Summary:
    """The summary of an incident that has just opened."""
    return Summary(
        event.incident_id,
        event.service,
        event.title,
        IncidentState.DETECTED,
        event.labels,
        [],
        0,
        now,
        False,
        UNJUDGED,
        UNJUDGED,
        created_at=now,
        created_by=event.created_by,
        source=event.source,
        description=event.description,
    )


def split_off(event: IncidentSplit, source: Summary, now: float) -> Summary:
    """The summary of an incident that was split off another."""
    return msgspec.structs.replace(
        source,
        id=event.made,
        title=event.title,
        version=0,
        updated_at=now,
        verdict=source.counts,
        override=Override(),
        children={},
        created_at=now,
        created_by=event.actor,
        resolved_at=0.0,
        closed_at=0.0,
        reopened=0,
        acknowledged=None,
        merged_into=b"",
    )


def fold(summary: Summary, event: Event, now: float, assembly: Assembly = ASSEMBLY) -> Summary:
    """The summary after an event about it, of a frame made at `now`, as the component that owns the event says."""
    description = assembly.descriptions.get(type(event))
    return (
        summary
        if description is None or description.summary is None
        else description.summary(summary, event, now)
    )


def set_back(summary: Summary, event: ClockSetBack) -> Summary:
    """The summary after the shard's clock was set back: none of its times is later than now (models/shard/clock.py)."""
    after, mark = event.after, summary.acknowledged
    return msgspec.structs.replace(
        summary,
        created_at=min(summary.created_at, after),
        updated_at=min(summary.updated_at, after),
        resolved_at=min(summary.resolved_at, after),
        closed_at=min(summary.closed_at, after),
        acknowledged=None if mark is None else clock.acknowledged(mark, event),
    )


#: A place in a log: a frame, and an event in it.
LogPosition = tuple[int, int]
#: Behind all events of a frame.
FRAME_END = 2**63


#: What a summary is reckoned at where a number of them bounds memory: a common one has 600 bytes of text.
SUMMARY_BYTES = 1024


def bytes_of(summary: Summary) -> int:
    """About what a summary's text holds."""
    return text_bytes([summary.title, summary.description, *summary.labels, *summary.labels.values()])


class Summaries:
    """The summaries met last, each with the event it is true after: `most` of them, and fewer of large ones."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, tuple[LogPosition, Summary]] = OrderedDict()
        self._bytes = 0

    def get(self, identity: bytes) -> tuple[LogPosition, Summary] | None:
        """The summary, and the event it is true after."""
        found = self._kept.get(identity)
        if found is not None:
            self._kept.move_to_end(identity)
        return found

    def set_back(self, event: ClockSetBack) -> None:
        """The clock was set back for all of them. Safe for those that are already later than that event."""
        for identity, (place, summary) in self._kept.items():
            self._kept[identity] = place, set_back(summary, event)

    def put(self, place: LogPosition, summary: Summary) -> None:
        """Remember a summary."""
        if (before := self._kept.get(summary.id)) is not None:
            self._bytes -= bytes_of(before[1])
        self._bytes += bytes_of(summary)
        self._kept[summary.id] = (place, summary)
        self._kept.move_to_end(summary.id)

    def trim(self) -> None:
        """Beyond `most`, drop those not seen for longest."""
        while len(self._kept) > self._most or self._bytes > self._most * SUMMARY_BYTES:
            _identity, (_place, summary) = self._kept.popitem(last=False)
            self._bytes -= bytes_of(summary)
