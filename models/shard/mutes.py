"""What is muted: which series, by which silences (models/shard/known_silences.py) and by which alert that inhibits it
(models/shard/inhibitors.py).

Being muted is a state of a series. Events say when it changes, so replay asks no matcher. A series is looked at when it begins
or fires again, and when what mutes may be otherwise; a repeat costs nothing. A silence that begins may concern every series:
those are looked at in stretches, one each tick. Until all were, withholds() looks at an incident's own before anybody is told of
it: no notification of what is muted leaves meanwhile.

An incident is muted when all that fires of it is. Then models/shard/notifications.py withholds what it would tell, and tells it
when the mute ends.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping

from models.alerts.muted import NOTHING, IncidentMutes, MutedBy
from models.alerts.series import FIRING
from models.incidents.incident import Incident
from models.incidents.lines import SYSTEM, Around, Description, Line, line_of
from models.partition.checkpoint import RecordKind
from models.partition.event import Event
from models.shard.changes import Muted, MutersChanged, SeriesFires, SilenceOver, Unmuted
from models.shard.children import ChildChanged, ChildLeft, IncidentMerged
from models.shard.component import Component, RecordOf, on
from models.shard.core import Core
from models.shard.events import SeriesResolved
from models.shard.inhibitors import Inhibitors
from models.shard.known_silences import KnownSilences
from models.shard.messages import Tick
from models.shard.mute_words import shown, words, words_of
from models.shard.muted_series import MutedSeries
from models.shard.splitting import IncidentSplit

#: Series looked at in one step because what mutes changed: 25 ms.
STRETCH = 5000
#: Series that a silence which ended lets go in one step: each costs a fifth.
FREED_STRETCH = 20_000
#: Series of one incident that are looked at before it is told of: 100 ms. Of a larger one they stand for the rest.
FIRST_LOOKED_AT = 20_000
#: Lines of each kind about mutes kept in one timeline: pods that come and go under a silence must not push out the rest.
LINES_MAX = 50
#: What is muted of an incident, by its id.
MUTED = RecordKind("muted", has_ids=True)


class SeriesMuted(Event, frozen=True):
    """Firing series `numbers` (little-endian u32s) of an incident are muted, or muted by something else than before."""

    incident_id: bytes
    numbers: bytes
    by: MutedBy
    text: str


class SeriesUnmuted(Event, frozen=True):
    """They are not any more."""

    incident_id: bytes
    numbers: bytes
    text: str


def _muted_line(event: SeriesMuted, _around: Around) -> Line:
    return line_of("AlertsMuted", SYSTEM, event.text, count=str(len(event.numbers) // 4))


def _unmuted_line(event: SeriesUnmuted, _around: Around) -> Line:
    return line_of("AlertsUnmuted", SYSTEM, event.text, count=str(len(event.numbers) // 4))


class Mutes(Component):
    name = "mutes"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        self.muted = MutedSeries()
        # To be looked at in this step: series that fire or may be muted by something else since, with their labels where they
        # are at hand. In stretches: others of which that is so, those that a silence which is over let go, and of all series
        # how many, from where on.
        self._fired: dict[int, Mapping[str, str] | None] = {}
        self._todo: dict[int, None] = {}
        self._freed: dict[int, None] = {}
        self._left = self._at = 0
        #: A stretch is looked at in this step: not in one that is about a tenant's alerts, since it may be of any tenant.
        self._is_fresh = False
        #: Incidents that may be muted, or not any more, since this step.
        self._stirred: dict[bytes, None] = {}

    # -- what others ask -----------------------------------------------------------------------------------

    def by(self, number: int) -> MutedBy:
        """By what a series is muted."""
        incident = self.state.series.incidents[number]
        return NOTHING if incident is None else self.muted.by(incident.id, number)

    def is_muted(self, incident: Incident) -> bool:
        """Whether all that fires of it is muted. What goes on in its children fires too."""
        return (
            incident.firing > 0
            and len(self.muted.of(incident.id)) == incident.firing
            and not _goes_on_in_children(incident)
        )

    def shown(self, incident: Incident) -> IncidentMutes | None:
        """What mutes alerts of an incident, as its timeline has it; None when nothing does."""
        muted, withheld = self.muted.of(incident.id), incident.withheld
        if not muted and not withheld:
            return None
        by = shown(muted.values(), self.shard.of(KnownSilences).all)
        return IncidentMutes(len(muted), self.is_muted(incident), withheld, by)

    def withholds(self, incident: Incident) -> str | None:
        silences = self.shard.of(KnownSilences)
        if self.is_muted(incident):
            return words_of(self.muted.of(incident.id).values(), silences.all)
        if not silences.is_told:
            return ""
        if not (self._todo or self._left) or not incident.firing or _goes_on_in_children(incident):
            return None
        status = self.state.series.status
        firing = [each for each in self.state.members[incident.id] if status[each] == FIRING]
        first = firing[:FIRST_LOOKED_AT]
        if not all(self._wanted(number, incident) for number in first):
            return None
        # It is looked at before others.
        self._todo = {**dict.fromkeys(first), **self._todo}
        return ""

    # -- what becomes of series and of what mutes ------------------------------------------------------------

    def _fires(self, change: SeriesFires, now: float) -> None:
        self._fired[change.number] = None if change.content is None else change.content.labels

    def _muters_changed(self, change: MutersChanged, now: float) -> None:
        if change.numbers is None:
            self._is_fresh = True
            self._look_at_all()
            return
        for number in change.numbers:
            if len(self._fired) < STRETCH:
                self._fired.setdefault(number, None)
            else:
                self._todo[number] = None

    def _silence_over(self, change: SilenceOver, now: float) -> None:
        self._is_fresh = True
        self._freed.update(dict.fromkeys(self.muted.silenced_by(change.silence)))

    def _look_at_all(self) -> None:
        self._left = self.state.series.used

    def _concerns(self, incident: Incident) -> bool:
        """Whether an incident may have been muted until now."""
        return incident.id in self.muted or bool(incident.withheld)

    def _stir(self, event: ChildChanged | ChildLeft | IncidentMerged) -> None:
        self._stirred[event.incident_id] = None

    # -- its times -----------------------------------------------------------------------------------------

    def started(self, now: float, is_set_back: bool) -> None:
        """What was muted may not be any more, and the other way round; and what is held back of an incident that is not muted
        any more was to be told when a process ended before it was."""
        self._look_at_all()
        self._is_fresh = True
        self._stirred = {each.id: None for each in self.state.incidents.values() if self._concerns(each)}

    def tick(self, tick: Tick, now: float) -> None:
        self._is_fresh = True

    def settle(self, now: float) -> None:
        """The step is decided: look at the series that fire since, and at the incidents that are muted since or no more."""
        if self._fired:
            fired, self._fired = self._fired, {}
            for incident in map(self._incident, fired) if self.muted else ():
                if incident is not None and self._concerns(incident):
                    self._stirred[incident.id] = None
            self._look(fired, now)
        if self._is_fresh:
            self._is_fresh = False
            self._look_at_some(now)
        if self._stirred:
            stirred, self._stirred = self._stirred, {}
            for incident in map(self.state.incidents.get, stirred):
                if incident is not None:
                    self.shard.report((Muted if self.is_muted(incident) else Unmuted)(incident), now)

    # -- looking -------------------------------------------------------------------------------------------

    def _look_at_some(self, now: float) -> None:
        """One stretch of what is to be looked at."""
        if self._freed:
            self._let_go(now)
        if not self._may_mute:
            self._todo.clear()
            self._left = 0
        numbers: dict[int, None] = {}
        while self._todo and len(numbers) < STRETCH:
            number = next(iter(self._todo))
            del self._todo[number]
            numbers[number] = None
        more, used = min(STRETCH - len(numbers), self._left), self.state.series.used
        for _ in range(more):
            if self._at >= used:
                self._at = 0
            numbers[self._at] = None
            self._at += 1
        self._left -= more
        self._look(numbers, now)

    def _look(self, numbers: Mapping[int, Mapping[str, str] | None], now: float) -> None:
        """Look at these series, of some of which the labels are at hand."""
        if not self._may_mute:
            return
        series, muted, has_rules = self.state.series, self.muted, self.shard.of(Inhibitors).has_rules
        incidents, status, matching = series.incidents, series.status, self.shard.of(KnownSilences).matching
        groups: dict[tuple[bytes, MutedBy], list[int]] = {}
        for number, labels in numbers.items():
            incident = incidents[number]
            if incident is None or status[number] != FIRING:
                continue
            if labels is None:
                labels = series.labels(number)
            if not has_rules and incident.id not in muted and not matching(labels, incident.tenant):
                continue  # nearly all that is new: nothing mutes it
            wanted = self._wanted(number, incident, labels)
            if wanted != muted.by(incident.id, number):
                groups.setdefault((incident.id, wanted), []).append(number)
        self._say(groups, now)

    @property
    def _may_mute(self) -> bool:
        """Whether anything is muted, or may be."""
        return bool(
            self.muted or self.shard.of(KnownSilences).in_force or self.shard.of(Inhibitors).has_rules
        )

    def _wanted(self, number: int, incident: Incident, labels: Mapping[str, str] | None = None) -> MutedBy:
        """By what a firing series is to be muted."""
        inhibitors = self.shard.of(Inhibitors)
        if labels is None:
            labels = self.state.series.labels(number)
        silences = self.shard.of(KnownSilences).matching(labels, incident.tenant)
        found = inhibitors.inhibitor(number)
        if found is not None:
            return MutedBy(silences, found.rule, found.fingerprint, found.title)
        if not inhibitors.is_complete:
            # What it was muted by may be there still: not all that fires was looked at.
            before = self.muted.by(incident.id, number)
            if before.rule:
                return MutedBy(silences, before.rule, before.fingerprint, before.title)
        return MutedBy(silences) if silences else NOTHING

    def _let_go(self, now: float) -> None:
        """One stretch of the series that a silence muted which is over."""
        in_force = self.shard.of(KnownSilences).in_force
        groups: dict[tuple[bytes, MutedBy], list[int]] = {}
        for _ in range(min(FREED_STRETCH, len(self._freed))):
            number = next(iter(self._freed))
            del self._freed[number]
            incident, before = self._incident(number), self.by(number)
            left = tuple([each for each in before.silences if each in in_force])
            if incident is not None and left != before.silences:
                after = MutedBy(left, before.rule, before.fingerprint, before.title)
                groups.setdefault((incident.id, after), []).append(number)
        self._say(groups, now)

    def _say(self, groups: Mapping[tuple[bytes, MutedBy], Collection[int]], now: float) -> None:
        silences = self.shard.of(KnownSilences).all
        for (identity, by), numbers in groups.items():
            packed = array("I", numbers).tobytes()
            many = f"{len(numbers)} alerts" if len(numbers) > 1 else "1 alert"
            if by:
                self.shard.do(SeriesMuted(identity, packed, by, f"{many} {words(by, silences)}"), now)
            else:
                self.shard.do(SeriesUnmuted(identity, packed, f"{many} not muted any more"), now)

    def _incident(self, number: int) -> Incident | None:
        return self.state.series.incidents[number]

    # -- live and in replay --------------------------------------------------------------------------------

    def _fold_muted(self, event: SeriesMuted | SeriesUnmuted, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        is_muted = isinstance(event, SeriesMuted)
        self._put(
            incident.id, array("I", event.numbers), event.by if isinstance(event, SeriesMuted) else NOTHING
        )
        self.state.make_room(incident, "AlertsMuted" if is_muted else "AlertsUnmuted", LINES_MAX)

    def _fold_ended(self, event: SeriesResolved, now: float) -> None:
        """A series that fires no more is muted no more."""
        incident = self._incident(event.number)
        assert incident is not None
        if self._concerns(incident):
            self._stirred[incident.id] = None
        if self.muted.by(incident.id, event.number):
            self._put(incident.id, (event.number,), NOTHING)

    def _fold_split(self, event: IncidentSplit, now: float) -> None:
        """Series are another incident's from now on."""
        self._stirred[event.incident_id] = self._stirred[event.made] = None
        for number in array("I", event.numbers):
            if by := self.muted.by(event.incident_id, number):
                self._put(event.incident_id, (number,), NOTHING)
                self._put(event.made, (number,), by)

    def _put(self, identity: bytes, numbers: Iterable[int], by: MutedBy) -> None:
        self.state.checkpoint.touch(MUTED, identity)
        self._stirred[identity] = None
        for number in numbers:
            self.muted.put(identity, number, by)

    def left(self, incident: Incident) -> None:
        if incident.id in self.muted:
            self.state.checkpoint.touch(MUTED, incident.id)
            self.muted.drop(incident.id)

    def _capture(self, identity: int | bytes) -> bytes | None:
        return self.muted.record(identity) if isinstance(identity, bytes) else None

    def _load(self, identity: int | bytes, record: bytes, _version: int) -> None:
        assert isinstance(identity, bytes)
        self.muted.load(identity, record)

    reactions = {SeriesFires: _fires, MutersChanged: _muters_changed, SilenceOver: _silence_over}
    follows = {SeriesResolved: _fold_ended, IncidentSplit: _fold_split}
    after = {ChildChanged: _stir, ChildLeft: _stir, IncidentMerged: _stir}
    records = (RecordOf(MUTED, _capture, _load),)
    events = (
        on(SeriesMuted, _fold_muted, Description(("AlertsMuted",), _muted_line)),
        on(SeriesUnmuted, _fold_muted, Description(("AlertsUnmuted",), _unmuted_line)),
    )


def _goes_on_in_children(incident: Incident) -> bool:
    return any(child.is_open for child in incident.children.values())
