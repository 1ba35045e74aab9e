"""What the alerts of an incident have in common: its labels, annotations, description and title follow from it, and are
kept up to date as alerts join, change and end. The timeline mentions alerts that joined.

It is about firing alerts, or those of the last run if none fires. What people set or removed stays that way.

An incident may have 10,000 alerts, and one that joins, changes or ends must not require looking at all of them: they are
compared with one of them and counted (models/shard/common.py). All of this is derived, and rebuilt when first needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import nlargest

import msgspec

from models.alerts.alert import Content
from models.alerts.grouping import counted_title, overflow_title, what_is_wrong
from models.alerts.room import pairs_bytes, said_bytes, width
from models.alerts.series import annotations_of
from models.incidents.incident import Incident, IncidentState
from models.incidents.lines import CHANGED, SYSTEM, Around, Description, Line, line_of, touched
from models.incidents.query import Summary
from models.partition.event import Event
from models.shard import clock
from models.shard.archiving import IncidentArchived
from models.shard.changes import Relabelled, SeriesFires, SeriesSaysElse
from models.shard.common import Shared, another, shared_of
from models.shard.component import Component, on
from models.shard.core import Core
from models.shard.events import ClockSetBack, SeriesResolved
from models.shard.slot_transfer import SlotLeft
from models.shard.splitting import IncidentSplit
from models.shard.state import ShardState


class IncidentDescribed(Event, frozen=True):
    """What its alerts have in common changed, because some joined, changed or ended. None: unchanged. `counted` is how many
    alerts its title says there are, 0 when it says no number."""

    incident_id: bytes
    title: str | None
    description: str | None
    labels: dict[str, str] | None
    annotations: dict[str, str] | None
    counted: int = 0


class AlertsJoined(Event, frozen=True):
    """`count` new alerts joined an open incident since its timeline last said so; `firing` fire now in all. `text` says
    what distinguishes them from the others."""

    incident_id: bytes
    count: int
    firing: int
    text: str


#: Least time between two changes of a title that only count anew, once several alerts fire: in a storm each alert that joins
#: would otherwise cost an event of its own, and nobody reads that fast.
COUNTED_EVERY_S = 1.0
#: Least time between two timeline lines about alerts that joined: a storm takes a few lines, and somebody watching sees
#: it while it matters.
JOINED_EVERY_S = 10.0
#: Lines about joined alerts kept in one timeline: pods that come and go for weeks must not push out the rest.
JOINED_LINES_MAX = 50
#: If more alerts joined at once, only the newest are examined for what distinguishes them: 2 ms.
JOINED_LOOKED_AT = 1000
#: Labels, or values of one label, named in such a line, and characters shown of each value: a line of 500 at most.
JOINED_NAMED = 5
JOINED_VALUE_CHARS = 80


def _relabelled(event: IncidentDescribed, around: Around) -> Line | None:
    if event.labels is None:
        return None
    known = {} if around.before is None else around.before.labels
    changes = [f"{name}={value}" for name, value in event.labels.items() if known.get(name) != value]
    changes += [f"without {name}" for name in known if name not in event.labels]
    return Line(CHANGED, SYSTEM, ", ".join(changes))


def _summary(summary: Summary, event: IncidentDescribed, now: float) -> Summary:
    return msgspec.structs.replace(
        summary,
        title=summary.title if event.title is None else event.title,
        description=summary.description if event.description is None else event.description,
        labels=summary.labels if event.labels is None else event.labels,
        updated_at=now,
    )


def _joined_line(event: AlertsJoined, _around: Around) -> Line:
    return line_of("AlertsJoined", SYSTEM, event.text, count=str(event.count), firing=str(event.firing))


class Sharing(Component):
    """What the alerts of a shard's incidents share, as far as it was needed, and which incidents this step touched."""

    name = "sharing"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        self._known: dict[bytes, Shared] = {}
        self.touched: dict[bytes, None] = {}
        # So that an alert that changes all the time is not the sample again and again: nothing that is told hangs on it.
        self._picked = 0

    def known(self, incident: Incident) -> tuple[dict[str, str], dict[str, str]] | None:
        """The labels and annotations that all firing alerts of an incident share, if they need not be looked up."""
        shared = self._known.get(incident.id)
        if shared is None or shared.doubtful:
            return None
        common = shared.common(incident.service)
        return common.labels, common.annotations

    # What a series said until now is still there when an event is about to be applied.

    def _ends(self, event: SeriesResolved) -> None:
        incident = self.state.series.incidents[event.number]
        if incident is None:
            return
        shared = self._less(incident.id, event.number)
        if shared is None and not event.body and len(self.state.members[incident.id]) == 1:
            return  # it goes on saying what its only alert said
        self._touch(incident, shared, self.state.now)

    def _splits(self, event: IncidentSplit) -> None:
        self._known.pop(event.incident_id, None)
        self.touched[event.incident_id] = self.touched[event.made] = None

    def _is_archived(self, event: IncidentArchived) -> None:
        self._known.pop(event.incident_id, None)

    def _slot_left(self, _event: SlotLeft, _now: float) -> None:
        # Numbers of its series may be others when they come back.
        self._known.clear()

    def _fires(self, change: SeriesFires, now: float) -> None:
        if change.opens:
            return  # its incident has its labels
        shared = self._known.get(change.incident.id)
        if shared is not None:
            content = change.content
            shared.add(self.state.series.content(change.number) if content is None else content)
        self._touch(change.incident, shared, now)

    def _says_else(self, change: SeriesSaysElse, now: float) -> None:
        identity = change.incident.id
        shared = self._known.get(identity)
        if shared is None:
            self.touched[identity] = None
        elif not shared.change(change.number, change.before, change.content):
            del self._known[identity]
            self.touched[identity] = None
        elif not shared.is_told:
            self.touched[identity] = None

    def settle(self, now: float) -> None:
        """Describe the incidents that the step touched as they are now, and report what joined."""
        while self.touched:
            touched, self.touched = self.touched, {}
            for identity in touched:
                incident = self.state.incidents.get(identity)
                if (
                    incident is None
                    or incident.state is IncidentState.CLOSED
                    or not self.state.members[identity]
                ):
                    continue
                self._describe(incident, now)
                if incident.joined and (not incident.is_open or now >= joined_due(incident)):
                    self._tell_joined(incident, now)

    def next_at(self, incident: Incident) -> float:
        if incident.state is IncidentState.CLOSED:
            return 0.0
        joined, counted = joined_due(incident), counted_due(incident)
        return min(joined, counted) if joined and counted else joined or counted

    def due(self, incident: Incident, now: float) -> None:
        if 0 < counted_due(incident) <= now:
            self._describe(incident, now)
        if 0 < joined_due(incident) <= now:
            self._tell_joined(incident, now)

    def title(self, incident: Incident) -> str:
        """The title of an incident with as many alerts as fire now, where its own is still to be counted anew."""
        shared = self._known.get(incident.id)
        if not counted_due(incident) or shared is None or shared.doubtful:
            return incident.title
        common = shared.common(incident.service)
        return counted_title(common.wrong, shared.count, common.called)

    def came(self, incident: Incident) -> None:
        """From a record that a version before 0.3.0 may have written."""
        handling = incident.handling
        if handling is not None and handling.labels is None:
            handling.labels = said_labels(self.state, incident)
            handling.title = incident.title if handling.split_from else ""

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        incident.joined_told_at = clock.then(incident.joined_told_at, event)
        incident.counted_at = clock.then(incident.counted_at, event)

    def _touch(self, incident: Incident, shared: Shared | None, now: float) -> None:
        """An alert more, or one fewer. If they still share what they did, its title is counted anew when that is due."""
        if shared is None or not shared.is_told or 0 < self.next_at(incident) <= now:
            self.touched[incident.id] = None

    def _less(self, identity: bytes, number: int) -> Shared | None:
        """An alert ends: what the others share, None when that must be looked up."""
        shared = self._known.get(identity)
        if shared is None:
            return None
        if shared.sample == number or shared.count <= 2:
            del self._known[identity]
            return None
        shared.leave(number, self.state.series.content(number))
        return shared

    def _is_settled(self, incident: Incident, shared: Shared) -> bool:
        """Whether it is sure again what its alerts share, by a look at two of them."""
        self._picked += 1
        other = another(self.state, incident, shared.sample, self._picked)
        if other is None:
            return False
        bodies = self.state.series.bodies
        return shared.tell_apart(other, annotations_of(bodies[shared.sample]), annotations_of(bodies[other]))

    def _describe(self, incident: Incident, now: float) -> None:
        shared = self._known.get(incident.id)
        if shared is None or (shared.doubtful and not self._is_settled(incident, shared)):
            self._picked += 1
            shared = shared_of(self.state, incident, self._picked)
            if incident.firing > 1:
                self._known[incident.id] = shared
            else:
                self._known.pop(incident.id, None)
        common = shared.common(incident.service)
        handling = incident.handling
        annotations = common.annotations
        labels = common.labels if handling is None else labelled(incident, common.labels)
        if (
            labels is not incident.labels and labels != incident.labels
        ) or annotations != incident.annotations:
            wanted = labels, annotations
            labels, annotations = _fitting(self.shard, incident, *wanted)
            shared.is_cut = (labels, annotations) != wanted
        description = annotations.get("description", "")
        counted = 0
        if incident.overflow is not None:
            title = overflow_title(incident.service)
        elif handling is not None and handling.title:
            title = handling.title
        else:
            wrong = common.wrong
            if annotations is not common.annotations:
                wrong = what_is_wrong(common.labels, annotations, incident.service)
            title = counted_title(wrong, shared.count, common.called)
            counted = shared.count if shared.count > 1 else 0
        event = IncidentDescribed(
            incident.id,
            None if title == incident.title else title,
            None if description == incident.description else description,
            None if labels is incident.labels or labels == incident.labels else labels,
            None if annotations == incident.annotations else annotations,
            counted,
        )
        if (
            event.title is not None
            or counted != incident.counted
            or event.description is not None
            or event.labels is not None
            or event.annotations is not None
        ):
            self.shard.do(event, now)
            if event.labels is not None:
                self.shard.report(Relabelled(incident), now)

    def _tell_joined(self, incident: Incident, now: float) -> None:
        """Add a timeline line about the alerts that joined since the last one."""
        series, members = self.state.series, self.state.members[incident.id]
        newest = nlargest(min(incident.joined, JOINED_LOOKED_AT), members, key=series.opened.__getitem__)
        contents = [series.content(number) for number in newest]
        many = f"{incident.joined} new alert{'s' if incident.joined > 1 else ''} joined"
        text = f"{many}, {incident.firing} fire now: {_told_apart(contents, incident)}"
        self.shard.do(AlertsJoined(incident.id, incident.joined, incident.firing, text), now)

    def _fold_described(self, event: IncidentDescribed, now: float) -> None:
        # No new version: nothing that people can change has changed.
        incident = self.state.changing(event.incident_id)
        incident.updated_at = now
        incident.counted, incident.counted_at = event.counted, now
        grows = 0
        if event.title is not None:
            grows += width(event.title) - width(incident.title)
            incident.title = event.title
        if event.description is not None:
            grows += width(event.description) - width(incident.description)
            incident.description = event.description
        if event.labels is not None:
            grows += pairs_bytes(event.labels) - pairs_bytes(incident.labels)
            incident.labels = event.labels
        if event.annotations is not None:
            grows += pairs_bytes(event.annotations) - pairs_bytes(incident.annotations)
            incident.annotations = event.annotations
        if grows:
            incident.held_bytes += grows
            self.state.series.room.take(incident.created_by, grows)

    def _fold_joined(self, event: AlertsJoined, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        incident.joined, incident.joined_told_at = 0, now
        incident.updated_at = now
        self.state.make_room(incident, "AlertsJoined", JOINED_LINES_MAX)

    events = (
        on(IncidentDescribed, _fold_described, Description((), _relabelled, summary=_summary, compares=True)),
        on(AlertsJoined, _fold_joined, Description(("AlertsJoined",), _joined_line, summary=touched)),
    )
    before = {
        SeriesResolved: _ends,
        IncidentSplit: _splits,
        IncidentArchived: _is_archived,
    }
    follows = {SlotLeft: _slot_left}
    reactions = {SeriesFires: _fires, SeriesSaysElse: _says_else}


def _fitting(
    shard: Core, incident: Incident, labels: dict[str, str], annotations: dict[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """What there is room for of the labels and annotations that an incident is to have: an alert with long ones is charged
    for itself alone, and when those that it shared less with have ended the incident would hold them once more. Where there
    is no room it says of what it said until now what is still true."""
    description = annotations.get("description", "")
    before = said_bytes(incident.title, incident.description, incident.labels, incident.annotations)
    grows = said_bytes(incident.title, description, labels, annotations) - before
    if grows <= 0 or has_room_to_say(shard, incident, grows):
        return labels, annotations
    return (
        {name: value for name, value in labels.items() if incident.labels.get(name) == value},
        {name: value for name, value in annotations.items() if incident.annotations.get(name) == value},
    )


def has_room_to_say(shard: Core, incident: Incident, size: int) -> bool:
    """Whether an incident may hold `size` bytes more of what its alerts say: whoever opened it is charged."""
    room, settings = shard.state.series.room, shard.settings
    held = room.by_sender.get(incident.created_by, 0)
    return room.held + size <= settings.max_bytes and held + size <= settings.sender_bytes


def joined_due(incident: Incident) -> float:
    """When the timeline should mention what joined, 0 if nothing did."""
    return incident.joined_told_at + JOINED_EVERY_S if incident.joined else 0.0


def counted_due(incident: Incident) -> float:
    """When the title of an incident should count its alerts anew, 0 if it says how many fire, or no number at all."""
    if not incident.counted or incident.firing < 2 or incident.firing == incident.counted:
        return 0.0
    return incident.counted_at + COUNTED_EVERY_S


def labelled(incident: Incident, shared: dict[str, str]) -> dict[str, str]:
    """The labels of an incident whose alerts share these: what people set and removed counts."""
    said = None if incident.handling is None else incident.handling.labels
    if not said:
        return shared
    kept = {name: value for name, value in shared.items() if name not in said}
    return {**kept, **{name: value for name, value in said.items() if value is not None}}


def first_alert(state: ShardState, incident: Incident) -> Content | None:
    """What the first alert of an incident says; None when it has none."""
    members = state.members[incident.id]
    return state.series.content(min(members, key=state.series.opened.__getitem__)) if members else None


def said_labels(state: ShardState, incident: Incident) -> dict[str, str | None]:
    """What people said of an incident's labels, from a record that does not tell: then its labels were those of its first
    alert, and where they are others people made them so."""
    first = first_alert(state, incident)
    if first is None:
        return {}
    said: dict[str, str | None] = {
        name: value for name, value in incident.labels.items() if first.labels.get(name) != value
    }
    said.update((name, None) for name in first.labels if name not in incident.labels)
    return said


def _told_apart(contents: Sequence[Content], incident: Incident) -> str:
    """What distinguishes these alerts from the others of an incident: labels that they share and the incident lacks,
    else the values of labels that it lacks."""
    own = [
        {name: value for name, value in each.labels.items() if incident.labels.get(name) != value}
        for each in contents
    ]
    common = {
        name: value for name, value in own[0].items() if all(each.get(name) == value for each in own[1:])
    }
    named = common or dict.fromkeys(_written(own))
    shown = list(_written([common]) if common else named)[:JOINED_NAMED]
    more = len(named) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _written(labels: Iterable[dict[str, str]]) -> Iterator[str]:
    for each in labels:
        for name, value in each.items():
            cut = value if len(value) <= JOINED_VALUE_CHARS else value[: JOINED_VALUE_CHARS - 3] + "..."
            yield f"{name}={cut}"
