"""What a live stream tells: each event of a log that is a line of an incident's timeline, in the timeline's words.

`about` says what an event may tell without looking at any state, so that the place of a telling in its frame never
changes; `line` says it, or says that there is nothing to tell after all.
"""

from __future__ import annotations

import msgspec

from models.events import (
    AcknowledgementEnded,
    ActionFailed,
    ActionSucceeded,
    AssignmentChanged,
    CommentAdded,
    Event,
    IncidentAcknowledged,
    IncidentClassified,
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
    NoticeDropped,
    PartLeft,
    StakeholdersUpdated,
    TargetPassed,
    UpdateMissed,
)
from models.incident import IncidentState
from models.query import Head

SYSTEM = "system"

#: The events that may be a line of a timeline. What they say is in `line`.
TOLD = (
    IncidentOpened,
    IncidentClassified,
    IncidentStateChanged,
    NoticeDropped,
    ActionSucceeded,
    ActionFailed,
    IncidentAcknowledged,
    AcknowledgementEnded,
    AssignmentChanged,
    CommentAdded,
    LabelsChanged,
    IncidentReclassified,
    StakeholdersUpdated,
    UpdateMissed,
    TargetPassed,
    IncidentLinked,
    IncidentUnlinked,
    IncidentMerged,
    PartLeft,
    IncidentPartOf,
    IncidentFreed,
    IncidentSplit,
)
#: Their names as a log has them.
TOLD_NAMES = frozenset(kind.__name__.encode() for kind in TOLD)
#: Every kind of line.
KINDS = (
    "Created",
    "StateChanged",
    "Resolved",
    "Classified",
    "SeverityChanged",
    "NotificationSent",
    "NotificationFailed",
    "NotificationDropped",
    "Acknowledged",
    "AcknowledgementEnded",
    "AssignmentChanged",
    "CommentAdded",
    "LabelsChanged",
    "Reclassified",
    "StakeholdersUpdated",
    "UpdateMissed",
    "TargetPassed",
    "Linked",
    "Unlinked",
    "Merged",
    "MergeRefused",
    "Unmerged",
    "Split",
)


class Line(msgspec.Struct, frozen=True):
    """One thing that happened to an incident. `details` holds what programs want."""

    kind: str
    actor: str
    text: str
    reason: str = ""
    details: dict[str, str] = {}


class Happening(msgspec.Struct, frozen=True, eq=False):
    """A line, where it stands in its log, and the incident around it.

    `place` counts the lines of the frame `seq`, those not told included. `before` is None when it is not known, or when
    there was nothing before. `sure`: `after` is the incident right after this event, not somewhat later.
    """

    seq: int
    place: int
    at: float
    trace_id: str | None
    line: Line
    before: Head | None
    after: Head
    sure: bool


def about(event: Event) -> tuple[bytes, ...]:
    """The incidents that an event may be a line of."""
    match event:
        case IncidentSplit():
            return (event.incident_id, event.made)
        case ActionFailed() if event.retry_at and event.attempt:
            # Neither the first failure nor the last one.
            return ()
        case _ if isinstance(event, TOLD):
            return (event.incident_id,)
    return ()


def line(event: Event, identity: bytes, before: Head | None, after: Head) -> Line | None:
    """What an event tells of one of the incidents it is about; None when it tells nothing of it."""
    match event:
        case IncidentOpened():
            return Line("Created", event.created_by, event.title)
        case IncidentClassified():
            text = f"{after.severity.name} {after.type}, by {event.by}"
            if before is None or not before.is_classified:
                return Line("Classified", SYSTEM, text)
            return None if before.severity == after.severity else Line("SeverityChanged", SYSTEM, text)
        case IncidentStateChanged() if event.after is IncidentState.RESOLVED:
            details = {"method": event.method, "root_cause": event.root_cause or ""}
            return _line("Resolved", event.actor, event.reason or "by hand", event.reason, **details)
        case IncidentStateChanged():
            text = f"{event.before} -> {event.after}: {event.reason}"
            details = {"before": event.before, "after": event.after}
            return _line("StateChanged", event.actor, text, event.reason, **details)
        case NoticeDropped():
            return _line("NotificationDropped", SYSTEM, event.why, event.why)
        case ActionSucceeded():
            return _line("NotificationSent", SYSTEM, f"{event.reason}: {event.detail}", event.reason)
        case ActionFailed():
            end = "will retry" if event.retry_at else f"given up after {event.attempt + 1} tries"
            text = f"{event.reason}: {event.detail}; {end}"
            return _line("NotificationFailed", SYSTEM, text, event.reason)
        case TargetPassed():
            text = f"{event.percent} % of the time to {event.target} has passed"
            return _line("TargetPassed", SYSTEM, text, "", target=event.target, percent=str(event.percent))
        case UpdateMissed():
            return Line("UpdateMissed", SYSTEM, "the promised update did not come")
    return _of_people(event, before, after) or _of_others(event, identity)


def _of_people(event: Event, before: Head | None, after: Head) -> Line | None:
    match event:
        case IncidentAcknowledged():
            return _line("Acknowledged", event.actor, event.reason or f"by {event.actor}", event.reason)
        case AcknowledgementEnded():
            text = "its time has passed" if event.expired else event.reason or f"taken back by {event.actor}"
            return _line("AcknowledgementEnded", event.actor, text, event.reason)
        case AssignmentChanged():
            return _line("AssignmentChanged", event.actor, event.text, event.reason)
        case CommentAdded():
            return Line("CommentAdded", event.actor, event.text)
        case LabelsChanged():
            changes = [f"{name}={value}" for name, value in event.set.items()]
            changes += [f"without {name}" for name in event.removed]
            return _line("LabelsChanged", event.actor, ", ".join(changes), event.reason)
        case IncidentReclassified():
            text = f"{after.severity.name} {after.type}"
            if before is not None:
                text = f"{before.severity.name} {before.type} -> {text}"
            return _line("Reclassified", event.actor, text, event.reason)
        case StakeholdersUpdated():
            return _line("StakeholdersUpdated", event.actor, event.text, "", audience=event.audience)
    return None


def _of_others(event: Event, identity: bytes) -> Line | None:
    match event:
        case IncidentLinked():
            return _with("Linked", event.actor, "linked with", event.other, event.reason)
        case IncidentUnlinked():
            return _with("Unlinked", event.actor, "no longer linked with", event.other, event.reason)
        case IncidentMerged():
            return _with("Merged", event.actor, "takes in", event.source, event.reason)
        case IncidentPartOf():
            return _with("Merged", event.actor, "is a part of", event.target, event.reason)
        case PartLeft() if event.refused:
            return _with("MergeRefused", event.actor, "does not take in", event.source, event.reason)
        case PartLeft():
            return _with("Unmerged", event.actor, "lets go of", event.source, event.reason)
        case IncidentFreed():
            return _with("Unmerged", event.actor, "is no part any more of", event.target, event.reason)
        case IncidentSplit() if identity == event.made:
            return _with("Created", event.actor, "split from", event.incident_id, event.reason)
        case IncidentSplit():
            return _with("Split", event.actor, "split off", event.made, event.reason)
    return None


def _with(kind: str, actor: str, words: str, other: bytes, reason: str) -> Line:
    shown = _shown(other)
    return _line(kind, actor, f"{words} {shown}", reason, incident=shown)


def _line(kind: str, actor: str, text: str, reason: str, **details: str) -> Line:
    return Line(kind, actor, text, reason, {name: value for name, value in details.items() if value})


def _shown(identity: bytes) -> str:
    text = identity.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
