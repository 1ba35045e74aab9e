"""Verb split: some of an incident's series leave for a new one, in the same shard. New series of the group join the old one."""

from __future__ import annotations

from array import array

from models.alerts.alert import OLD_KEY_BYTES, series_id
from models.alerts.series import FIRING
from models.errors import Conflict, Malformed, NotFound, TooLarge
from models.incidents.incident import Incident, Override, incident_id
from models.incidents.lines import Around, Description, Line, about_another, noted
from models.incidents.verbs import SPLIT_MAX, TITLE_MAX, Split
from models.partition.event import Event
from models.shard import lifecycle
from models.shard.changes import SplitOff
from models.shard.commands import check_text
from models.shard.component import Component, on
from models.shard.messages import Command, Decision


class IncidentSplit(Event, frozen=True):
    """The series `numbers` (little-endian u32s) moved from this incident to `made`, which is new and otherwise like
    it."""

    incident_id: bytes
    made: bytes
    group_key: str
    numbers: bytes
    title: str
    actor: str
    reason: str


#: Separates a group's key from the id of an incident that was split off.
_SPLIT = "\nsplit "


def _line(event: IncidentSplit, around: Around) -> Line:
    if around.nth == 1:
        return Line("Created", event.actor, event.title, event.reason)
    number = len(event.numbers) // 4
    many = f"{number} alert{'s' if number > 1 else ''}"
    other, way = (event.made, "into") if around.nth == 0 else (event.incident_id, "out of")
    return about_another("Split", event.actor, other, event.reason, f"{many} {way}")


class Splitting(Component):
    name = "splitting"

    def _split(self, incident: Incident, verb: Split, command: Command, now: float) -> Incident:
        shard, state = self.shard, self.state
        check_text("title", verb.title, TITLE_MAX)
        if not incident.is_open:
            raise Conflict(f"it is {incident.state}: reopen it first")
        if len(verb.series) > SPLIT_MAX:
            raise TooLarge(f"alerts: at most {SPLIT_MAX} can be split off at once")
        numbers = array("I")
        for identity in dict.fromkeys(verb.series):
            number = state.series.by_series.get(identity)
            if number is None and state.series.old_keys:
                number = self._with_old_key(incident, identity)
            if number is None or state.series.incidents[number] is not incident:
                raise NotFound(f"alerts: series {identity.hex()} is not in this incident")
            numbers.append(number)
        if not numbers:
            raise Malformed("alerts: expected at least one")
        if len(numbers) == len(state.members[incident.id]):
            raise Conflict("alerts: these are all its alerts; leave at least one")
        if state.open_count >= shard.settings.max_open:
            raise Conflict("max_concurrent_incidents is reached: resolve others first")
        made = incident_id(incident.slot, now, shard.epoch, shard.seq, f"{incident.group_key}#split")
        title = verb.title or incident.title
        # No two open incidents share a group key, and no alert needs to find this one: its series already belong to it.
        group_key = f"{incident.group_key.partition(_SPLIT)[0]}{_SPLIT}{made.hex()}"
        actor, reason = command.actor, command.reason
        shard.do(IncidentSplit(incident.id, made, group_key, numbers.tobytes(), title, actor, reason), now)
        lifecycle.ended(shard, incident, "the alerts that still fired were split off", now)
        found = state.incidents[made]
        lifecycle.ended(shard, found, "none of its alerts fired when they were split off", now)
        if found.is_open:
            shard.report(SplitOff(found), now)
        return found

    def _with_old_key(self, incident: Incident, identity: bytes) -> int | None:
        """The series of an incident that would have this id, had it not begun with 0.2.0 or older."""
        series = self.state.series
        for number in self.state.members[incident.id]:
            if len(series.keys[number]) == OLD_KEY_BYTES:
                if series_id(incident.tenant, series.content(number).labels) == identity:
                    return number
        return None

    # -- live and in replay ----------------------------------------------------------------------------------

    def _fold(self, event: IncidentSplit, now: float) -> None:
        state = self.state
        incident, _handling = state.edited(event.incident_id, now)
        made = _made_of(incident, event, now)
        self.shard.enter(made)
        numbers = array("I", event.numbers)
        leaving = set(numbers)
        for number in numbers:
            state.touch_series(number)
            state.series.incidents[number] = made
            state.series.note(number, Decision.SPLIT_OFF, now)
        firing = sum(1 for number in numbers if state.series.status[number] == FIRING)
        kept = array("I", [number for number in state.members[incident.id] if number not in leaving])
        state.members[incident.id], state.members[made.id] = kept, numbers
        incident.firing -= firing
        made.firing, made.series_seen = firing, len(numbers)

    verbs = {Split: _split}
    events = (
        on(
            IncidentSplit,
            _fold,
            Description(("Split", "Created"), _line, lambda e: (e.incident_id, e.made, e.made), noted),
        ),
    )


def _made_of(incident: Incident, event: IncidentSplit, now: float) -> Incident:
    """The new incident, like the old one in all but its series."""
    # The new one keeps the overrides of the old one and is not classified again.
    is_said = incident.handling is not None and incident.handling.override != Override()
    made = Incident(
        id=event.made,
        slot=incident.slot,
        tenant=incident.tenant,
        service=incident.service,
        group_key=event.group_key,
        group_labels=dict(incident.group_labels),
        title=event.title,
        description=incident.description,
        source=incident.source,
        labels=dict(incident.labels),
        annotations=dict(incident.annotations),
        created_at=now,
        updated_at=now,
        state=incident.state,
        severity=incident.severity,
        type=incident.type,
        impact=incident.impact,
        classified_by=incident.classified_by,
        confidence=incident.confidence,
        signals=list(incident.signals),
        signals_asked=incident.signals_asked,
        classify_owed=incident.classify_owed and not is_said,
        assignees=list(incident.assignees),
        created_by=event.actor,
        opened_at=now,
        notifications={},
        discarded="",
    )
    handling = made.handled()
    handling.split_from = incident.id
    if event.title != incident.title:
        handling.title = event.title
    if incident.handling is not None:
        handling.labels = dict(incident.handling.labels or {})
    return made
