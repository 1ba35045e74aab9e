"""The heads of incidents as somebody sees them who follows a log: what is shown of an incident beside an event of it.

A head is folded from the events alone, as the shard folds the incident. Only who begins in the middle of a log must ask
the shard once for each incident that was there before, and gets it as it is now: later than the event, perhaps.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from models.alerts.room import text_bytes
from models.incidents.incident import (
    OPEN_STATES,
    Acknowledgement,
    Incident,
    IncidentState,
    IncidentType,
    Judgement,
    PartOf,
    Said,
    Severity,
    settled,
)
from models.incidents.query import Head
from models.shard import clock
from models.shard.events import (
    AcknowledgementEnded,
    ActionFailed,
    ActionSucceeded,
    AlertsJoined,
    AssignmentChanged,
    ClockSetBack,
    CommentAdded,
    Event,
    IncidentAcknowledged,
    IncidentClassified,
    IncidentDescribed,
    IncidentFreed,
    IncidentLinked,
    IncidentMerged,
    IncidentOpened,
    IncidentPartOf,
    IncidentReclassified,
    IncidentSplit,
    IncidentStateChanged,
    IncidentUnlinked,
    LabelsChanged,
    PartChanged,
    PartLeft,
    StakeholdersUpdated,
)

#: What an incident counts as before anybody judged it.
UNJUDGED = Judgement(Severity.P2, IncidentType.UNKNOWN, "")


def head_of(incident: Incident) -> Head:
    """The head of an incident as its shard keeps it."""
    counts = Judgement(incident.severity, incident.type, incident.impact)
    handling = incident.handling
    return Head(
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
        counts if handling is None else handling.judged,
        Said() if handling is None else handling.said,
        {} if handling is None else dict(handling.parts),
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


def opened(event: IncidentOpened, now: float) -> Head:
    """The head of an incident that has just opened."""
    return Head(
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


def split_off(event: IncidentSplit, source: Head, now: float) -> Head:
    """The head of an incident that was split off another."""
    return msgspec.structs.replace(
        source,
        id=event.made,
        title=event.title,
        version=0,
        updated_at=now,
        judged=source.counts,
        said=Said(),
        parts={},
        created_at=now,
        created_by=event.actor,
        resolved_at=0.0,
        closed_at=0.0,
        reopened=0,
        acknowledged=None,
        merged_into=b"",
    )


def fold(head: Head, event: Event, now: float) -> Head:
    """The head after an event about it, of a frame made at `now`."""
    match event:
        case IncidentClassified():
            judged = Judgement(event.severity, event.type, event.impact)
            return _settled(_changed(head, now, judged=judged, is_classified=True))
        case IncidentStateChanged() if event.after is IncidentState.RESOLVED:
            return _changed(head, now, state=event.after, resolved_at=now)
        case IncidentStateChanged() if event.after is IncidentState.CLOSED:
            return _changed(head, now, state=event.after, closed_at=now)
        case IncidentStateChanged() if head.state not in OPEN_STATES:
            reopened = head.reopened + 1
            return _changed(head, now, state=event.after, resolved_at=0.0, closed_at=0.0, reopened=reopened)
        case IncidentStateChanged():
            return _changed(head, now, state=event.after)
        case IncidentAcknowledged():
            mark = Acknowledgement(event.actor, now, event.until)
            return _changed(head, now, acknowledged=mark)
        case AcknowledgementEnded():
            return _changed(head, now, acknowledged=None)
        case IncidentPartOf():
            return _changed(head, now, merged_into=event.target)
        case IncidentFreed():
            return _changed(head, now, merged_into=b"")
        case AssignmentChanged():
            return _changed(head, now, assignees=event.assignees)
        case LabelsChanged():
            kept = {name: value for name, value in head.labels.items() if name not in event.removed}
            return _changed(head, now, labels={**kept, **event.set})
        case IncidentReclassified():
            return _settled(_changed(head, now, said=event.said))
        case IncidentMerged():
            return _changed(head, now, parts={**head.parts, event.source: PartOf(pending="merge")})
        case PartChanged():
            part = PartOf(event.is_open, event.severity, event.pending, event.ended_by)
            return _settled(_changed(head, now, parts={**head.parts, event.source: part}))
        case PartLeft():
            left = {source: part for source, part in head.parts.items() if source != event.source}
            return _settled(_changed(head, now, parts=left))
        case CommentAdded() | StakeholdersUpdated() | IncidentLinked() | IncidentUnlinked() | IncidentSplit():
            return _changed(head, now)
        case IncidentDescribed():
            return msgspec.structs.replace(
                head,
                title=head.title if event.title is None else event.title,
                description=head.description if event.description is None else event.description,
                labels=head.labels if event.labels is None else event.labels,
                updated_at=now,
            )
        case AlertsJoined():
            return msgspec.structs.replace(head, updated_at=now)
        case ActionSucceeded() | ActionFailed() if not (isinstance(event, ActionFailed) and event.retry_at):
            return msgspec.structs.replace(head, updated_at=now)
    return head


def set_back(head: Head, event: ClockSetBack) -> Head:
    """The head after the shard's clock was set back: none of its times is later than now (models/shard/clock.py)."""
    after, mark = event.after, head.acknowledged
    return msgspec.structs.replace(
        head,
        created_at=min(head.created_at, after),
        updated_at=min(head.updated_at, after),
        resolved_at=min(head.resolved_at, after),
        closed_at=min(head.closed_at, after),
        acknowledged=None if mark is None else clock.acknowledged(mark, event),
    )


def _changed(head: Head, now: float, **fields: object) -> Head:
    return msgspec.structs.replace(head, version=head.version + 1, updated_at=now, **fields)


def _settled(head: Head) -> Head:
    return msgspec.structs.replace(head, counts=settled(head.judged, head.said, head.parts))


#: A place in a log: a frame, and an event in it.
Place = tuple[int, int]
#: Behind all events of a frame.
FRAME_END = 2**63


#: What a head is reckoned at where a number of them bounds memory: a common one has 600 bytes of text.
HEAD_BYTES = 1024


def bytes_of(head: Head) -> int:
    """About what a head's text holds."""
    return text_bytes([head.title, head.description, *head.labels, *head.labels.values()])


class Known:
    """The heads met last, each with the event it is true after: `most` of them, and fewer of large ones."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heads: OrderedDict[bytes, tuple[Place, Head]] = OrderedDict()
        self._bytes = 0

    def get(self, identity: bytes) -> tuple[Place, Head] | None:
        """The head, and the event it is true after."""
        found = self._heads.get(identity)
        if found is not None:
            self._heads.move_to_end(identity)
        return found

    def set_back(self, event: ClockSetBack) -> None:
        """The clock of all of them was set back. Safe for those that are true after that event already."""
        for identity, (place, head) in self._heads.items():
            self._heads[identity] = place, set_back(head, event)

    def put(self, place: Place, head: Head) -> None:
        """Remember a head."""
        if (before := self._heads.get(head.id)) is not None:
            self._bytes -= bytes_of(before[1])
        self._bytes += bytes_of(head)
        self._heads[head.id] = (place, head)
        self._heads.move_to_end(head.id)

    def trim(self) -> None:
        """Past `most` the ones not met for longest are forgotten."""
        while len(self._heads) > self._most or self._bytes > self._most * HEAD_BYTES:
            _identity, (_place, head) = self._heads.popitem(last=False)
            self._bytes -= bytes_of(head)
