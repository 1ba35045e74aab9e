"""The heads of incidents as somebody sees them who follows a log: what is shown of an incident beside an event of it.

The follower folds what it can from the events. What follows from more than the events (what people did, and parts)
it asks the shard, whose answer says the frame it is true at: an event of that frame or an earlier one is in it already.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from models.events import (
    ActionFailed,
    ActionSucceeded,
    Event,
    IncidentClassified,
    IncidentOpened,
    IncidentStateChanged,
    NoticeDropped,
    TargetPassed,
)
from models.incident import Incident, IncidentState, IncidentType, Severity
from models.query import Head


def head_of(incident: Incident) -> Head:
    """The head of an incident as its shard keeps it."""
    return Head(
        incident.id,
        incident.service,
        incident.title,
        incident.severity,
        incident.state,
        incident.type,
        dict(incident.labels),
        list(incident.assignees),
        incident.version,
        incident.updated_at,
        bool(incident.classified_by),
        incident.handling is not None,
    )


def opened(event: IncidentOpened, now: float) -> Head:
    """The head of an incident that has just opened."""
    return Head(
        event.incident_id,
        event.service,
        event.title,
        Severity.P2,
        IncidentState.DETECTED,
        IncidentType.UNKNOWN,
        event.labels,
        [],
        0,
        now,
        False,
        False,
    )


def fold(head: Head, event: Event, now: float) -> Head | None:
    """The head after an event of a frame made at `now`; None when that can't be told from the two of them."""
    match event:
        case IncidentClassified() if not head.is_handled:
            return msgspec.structs.replace(
                head,
                severity=event.severity,
                type=event.type,
                version=head.version + 1,
                updated_at=now,
                is_classified=True,
            )
        case IncidentStateChanged():
            return msgspec.structs.replace(head, state=event.after, version=head.version + 1, updated_at=now)
        case NoticeDropped() | ActionSucceeded() | ActionFailed() | TargetPassed():
            return head
    return None


#: A place in a log: a frame, and an event in it.
Place = tuple[int, int]
#: Behind all events of a frame.
FRAME_END = 2**63


class Known:
    """The heads met last, each with the event it is true after. Past `most` the ones not met for longest are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heads: OrderedDict[bytes, tuple[Place, Head]] = OrderedDict()

    def get(self, identity: bytes) -> tuple[Place, Head] | None:
        found = self._heads.get(identity)
        if found is not None:
            self._heads.move_to_end(identity)
        return found

    def put(self, place: Place, head: Head) -> None:
        self._heads[head.id] = (place, head)
        self._heads.move_to_end(head.id)
        if len(self._heads) > self._most:
            self._heads.popitem(last=False)
