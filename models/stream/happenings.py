"""What a live stream tells: each event of a log that is a line of an incident's timeline, in the timeline's words.

`about` says what an event may tell without looking at any state, so that the place of a telling in its frame never
changes; `line` says it, or says that there is nothing to tell after all.
"""

from __future__ import annotations

import math

import msgspec

from models.incidents.incident import IncidentState
from models.incidents.notification import rfc3339
from models.incidents.query import Summary
from models.shard.children import written
from models.shard.events import (
    AcknowledgementEnded,
    ActionFailed,
    ActionSucceeded,
    AlertsJoined,
    AssignmentChanged,
    ChildChanged,
    ChildLeft,
    CommentAdded,
    Event,
    IncidentAcknowledged,
    IncidentClassified,
    IncidentDescribed,
    IncidentLinked,
    IncidentMerged,
    IncidentMergedInto,
    IncidentOpened,
    IncidentReclassified,
    IncidentSplit,
    IncidentStateChanged,
    IncidentUnlinked,
    IncidentUnmerged,
    LabelsChanged,
    NotificationDropped,
    StakeholdersUpdated,
    TargetPassed,
    UpdateMissed,
)
from models.shard.notifications import end_of
from models.wire import tag_of

SYSTEM = "system"
#: What is told of a change that is no line of a timeline: to all when the labels are others, since an incident may come
#: into a filter by that or leave it; of any other change to those who ask to hear of every one. No kind of line.
CHANGED = "Changed"

#: The events that may be a line of a timeline, or told as CHANGED. What they say is in `line`.
TOLD = (
    IncidentOpened,
    IncidentDescribed,
    AlertsJoined,
    IncidentClassified,
    IncidentStateChanged,
    NotificationDropped,
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
    ChildChanged,
    ChildLeft,
    IncidentMergedInto,
    IncidentUnmerged,
    IncidentSplit,
)
#: Their names as a log has them.
TOLD_NAMES = frozenset(tag_of(kind) for kind in TOLD)
#: Every kind of line.
KINDS = (
    "Created",
    "StateChanged",
    "Resolved",
    "AlertsJoined",
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
    before: Summary | None
    after: Summary
    sure: bool


def about(event: Event) -> tuple[bytes, ...]:
    """The incidents an event may tell of, one for each line that it may be."""
    match event:
        case IncidentSplit():
            return (event.incident_id, event.made, event.made)
        case ActionFailed() if event.retry_at and event.attempt:
            # Neither the first failure nor the last one.
            return ()
        case _ if isinstance(event, TOLD):
            return (event.incident_id,)
    return ()


def line(event: Event, nth: int, now: float, before: Summary | None, after: Summary) -> Line | None:
    """The `nth` line that an event of a frame made at `now` may be, None when it is none. `before` and `after` are the
    summaries of the incident; without `before` what would need it is left out."""
    match event:
        case IncidentOpened():
            return Line("Created", event.created_by, event.title)
        case IncidentDescribed():
            return None if event.labels is None else _relabelled(event.labels, before)
        case AlertsJoined():
            return _told("AlertsJoined", SYSTEM, event.text, count=str(event.count), firing=str(event.firing))
        case IncidentClassified():
            text = f"{after.counts.severity.name} {after.counts.type}, by {event.by}"
            if before is None or not before.is_classified:
                return Line("Classified", SYSTEM, text)
            is_same = before.counts.severity == after.counts.severity
            return None if is_same else Line("SeverityChanged", SYSTEM, text)
        case IncidentStateChanged() if event.after is IncidentState.RESOLVED:
            details = {"method": event.method, "root_cause": event.root_cause or ""}
            return _told("Resolved", event.actor, event.reason, event.reason, **details)
        case IncidentStateChanged():
            text = f"{event.before} -> {event.after}: {event.reason}"
            details = {"before": event.before, "after": event.after}
            return _told("StateChanged", event.actor, text, event.reason, **details)
        case TargetPassed():
            text = f"time to {event.target} has passed"
            if event.percent < 100:
                left_s = math.ceil(max(0.0, event.due_at - now))
                text = f"{event.percent} % of the {text}, {left_s} s are left"
            return _told("TargetPassed", SYSTEM, text, target=event.target, percent=str(event.percent))
        case UpdateMissed():
            return Line("UpdateMissed", SYSTEM, "the promised update did not come")
    return _of_notices(event) or _of_people(event, before, after) or _of_parts(event, nth, before, after)


def _relabelled(labels: dict[str, str], before: Summary | None) -> Line:
    known = {} if before is None else before.labels
    changes = [f"{name}={value}" for name, value in labels.items() if known.get(name) != value]
    changes += [f"without {name}" for name in known if name not in labels]
    return Line(CHANGED, SYSTEM, ", ".join(changes))


def _of_notices(event: Event) -> Line | None:
    match event:
        case NotificationDropped():
            return _told("NotificationDropped", SYSTEM, event.why, event.why)
        case ActionSucceeded():
            return _told("NotificationSent", SYSTEM, f"{event.reason}: {event.detail}", event.reason)
        case ActionFailed():
            text = f"{event.reason}: {event.detail}; {end_of(event)}"
            return _told("NotificationFailed", SYSTEM, text, event.reason)
    return None


def _of_people(event: Event, before: Summary | None, after: Summary) -> Line | None:
    match event:
        case IncidentAcknowledged():
            until = rfc3339(event.until) if event.until else ""
            text = event.reason or f"by {event.actor}"
            return _told("Acknowledged", event.actor, text, event.reason, until=until)
        case AcknowledgementEnded():
            text = "its time has passed" if event.expired else event.reason or f"taken back by {event.actor}"
            return _told("AcknowledgementEnded", event.actor, text, event.reason)
        case AssignmentChanged():
            return _told("AssignmentChanged", event.actor, event.text, event.reason)
        case CommentAdded():
            return Line("CommentAdded", event.actor, event.text)
        case LabelsChanged():
            changes = [f"{name}={value}" for name, value in event.set.items()]
            changes += [f"without {name}" for name in event.removed]
            return _told("LabelsChanged", event.actor, ", ".join(changes), event.reason)
        case IncidentReclassified():
            text = _judgement(after)
            if before is not None:
                text = f"{_judgement(before)} -> {text}"
            return _told("Reclassified", event.actor, text, event.reason)
        case StakeholdersUpdated():
            return _told("StakeholdersUpdated", event.actor, event.text, audience=event.audience)
    return None


def _of_parts(event: Event, nth: int, before: Summary | None, after: Summary) -> Line | None:
    match event:
        case IncidentLinked():
            return _with("Linked", event.actor, event.other, event.reason)
        case IncidentUnlinked():
            return _with("Unlinked", event.actor, event.other, event.reason)
        case IncidentMerged():
            return _with("Merged", event.actor, event.source, event.reason, "in")
        case IncidentMergedInto():
            return _with("Merged", event.actor, event.target, event.reason, "into")
        case ChildLeft():
            kind = "MergeRefused" if event.refused else "Unmerged"
            return _with(kind, event.actor, event.source, event.reason)
        case IncidentUnmerged():
            return _with("Unmerged", event.actor, event.target, event.reason)
        case ChildChanged() if before is None or before.counts.severity != after.counts.severity:
            text = f"{after.counts.severity.name}, by its parts"
            if before is not None:
                text = f"{before.counts.severity.name} -> {text}"
            return Line("SeverityChanged", SYSTEM, text)
        case IncidentSplit() if nth == 1:
            return Line("Created", event.actor, event.title, event.reason)
        case IncidentSplit():
            number = len(event.numbers) // 4
            many = f"{number} alert{'s' if number > 1 else ''}"
            other, way = (event.made, "into") if nth == 0 else (event.incident_id, "out of")
            return _with("Split", event.actor, other, event.reason, f"{many} {way}")
    return None


def _with(kind: str, actor: str, other: bytes, reason: str, direction: str = "") -> Line:
    identity = written(other)
    text = f"{direction} {identity}".strip() + (f": {reason}" if reason else "")
    return _told(kind, actor, text, reason, incident=identity, direction=direction)


def _told(kind: str, actor: str, text: str, reason: str = "", **details: str) -> Line:
    return Line(kind, actor, text, reason, {name: value for name, value in details.items() if value})


def _judgement(summary: Summary) -> str:
    counts = summary.counts
    return f"{counts.severity.name} {counts.type}" + (f" {counts.impact}" if counts.impact else "")
