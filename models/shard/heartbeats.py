"""The heartbeats of a shard's services: when each was heard last, and an alert for one that stays away. They are made in the control
partition; its actor tells the shard which there are (actors/heartbeats.py).

A missed heartbeat is an alert like any other, whose series this component begins and ends: whether one is missed is whether its series
fires. So the log has only which heartbeats there are, and when they were heard:

    beat --> BeatsHeard, but for one heartbeat at most every NOTED_EVERY_S; beats between are only in memory
    now > base + interval + grace, and somebody could be heard --> the series fires; a beat ends it

`base` is the last beat. Whoever could not be heard may have sent one: after a gap, or a recovery, a heartbeat that was heard so
long before its end gets as much time again, at most one interval (_renewed). What a crash forgets of beats in memory only makes that
longer. A gap is known to begin when the log last said that somebody listens, so that is said every LISTENS_EVERY_S.

When services move to another partition, what is known of their heartbeats goes with them: to be waited for anew, one would be missed
up to an interval late.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from models.alerts.alert import Content, alert_key, series_id
from models.alerts.series import FIRING
from models.control.heartbeats import Heartbeat, identity
from models.durations import duration_text
from models.incidents.notification import rfc3339
from models.partition.checkpoint import RecordKind
from models.partition.event import Event
from models.partition.sharding import slot_of
from models.partition.timers import Timers
from models.shard import clock
from models.shard.changes import AlertDue, SeriesOver
from models.shard.component import Component, RecordOf, on
from models.shard.core import Core, Whose
from models.shard.events import ClockSetBack, ShardStarted
from models.shard.messages import Done, Failed, Message, Reply, Tick
from models.shard.reception import ReceptionGap

#: Heartbeats come to a snapshot by the bucket: of 10,000 some 80 a record. The record after the last has the rest.
BUCKETS = 128
HEARTBEATS = RecordKind("heartbeats")
#: One heartbeat is noted at most so often, whatever its interval: 10,000 of them make 167 notes a second.
NOTED_EVERY_S = 60.0
#: So far back a recovery may believe that nobody was heard although somebody was.
LISTENS_EVERY_S = 300.0
#: Heartbeats looked at in one tick: of each that is missed an incident may be made, which takes 50 us.
DUE_MAX = 500
#: A missed one is looked at again after that: somebody else may have ended its alert, or there was no room for it.
LOOK_AGAIN_S = 60.0
ALERT_NAME = "HeartbeatMissed"
SOURCE = "heartbeat"
#: Characters of what a failed job says that its incident shows.
NOTE_CHARS_MAX = 4096


class Pulse(msgspec.Struct, array_like=True):
    """What a shard knows of a heartbeat; times in seconds since the epoch, 0 for never.

    labels   of the alert when it is missed
    last_at  when it was heard last, as far as the log says
    since    since when it is waited for: its last beat, or when it began to be watched; 0: nobody waits
    base     what its time runs from: `since`, or later after a gap
    deaf_s   how long of the time after `since` nobody could be heard
    """

    heartbeat: Heartbeat
    labels: dict[str, str]
    last_at: float = 0.0
    since: float = 0.0
    base: float = 0.0
    deaf_s: float = 0.0

    @property
    def due_at(self) -> float:
        """When it is missed, 0 for never."""
        return self.base + self.heartbeat.wait_s if self.since else 0.0

    def wait(self, since: float) -> None:
        """It is waited for anew; not at all from 0 on."""
        self.since = self.base = since
        self.deaf_s = 0.0


class HeartbeatsWatched(Event, frozen=True):
    """The shard hears of these heartbeats of its services, each with the labels of its alert. `whole`: there are no others. `gone`:
    by id, those that are another shard's by now."""

    heartbeats: list[tuple[Heartbeat, dict[str, str]]]
    whole: bool = False
    gone: list[str] = []


class BeatsHeard(Event, frozen=True):
    """These heartbeats (by id) were heard. None: the shard listens, and nothing else is to be noted."""

    ids: list[str]


class HeartbeatsChanged(Message, frozen=True):
    """What the control partition says of the heartbeats of a shard's services: those that changed, or with `whole` all. `elsewhere`:
    by id, what changed and is of other shards' services; it may have been of ours."""

    heartbeats: list[Heartbeat]
    whole: bool = False
    elsewhere: list[str] = []


class Beats(Message, frozen=True):
    """These heartbeats were heard. `failed`: what they stand for says that it failed, and `note` why. Safe to repeat. Failed as
    Busy when the shard does not know one of them yet; the others are heard."""

    tenant: str
    names: list[str]
    failed: bool = False
    note: str = ""


class HeartbeatsOfShard(Component):
    name = "heartbeats"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        #: By the heartbeat's id.
        self.pulses: dict[str, Pulse] = {}
        #: When somebody surely could be heard last.
        self.listened_at = 0.0
        #: Those of each slot, as far as somebody asked since they were others.
        self._by_slot: dict[int, list[str]] | None = None
        # Only live: beats that are not in the log, and when to look at each.
        self._beats: dict[str, float] = {}
        self._timers = Timers()

    # -- for those who look --------------------------------------------------------------------------------

    def last_at(self, pulse: Pulse) -> float:
        """When it was heard last, 0 for never; after a crash a minute less may be known."""
        return max(pulse.last_at, self._beats.get(pulse.heartbeat.id, 0.0))

    def due_at(self, pulse: Pulse) -> float:
        """When it is missed, 0 for never."""
        if not pulse.since:
            return 0.0
        return max(pulse.due_at, self._beats.get(pulse.heartbeat.id, 0.0) + pulse.heartbeat.wait_s)

    def missed(self, pulse: Pulse) -> int | None:
        """The series that fires because it is missed, or failed; None when none does."""
        series = self.state.series
        number = series.by_series.get(series_id(pulse.heartbeat.tenant, pulse.labels))
        return number if number is not None and series.status[number] == FIRING else None

    # -- what the control partition says -------------------------------------------------------------------

    def _changed(self, message: HeartbeatsChanged, now: float) -> Reply:
        said = {each.id: (each, self._labels_of(each)) for each in message.heartbeats}
        changed = [
            its
            for its, new in said.items()
            if (pulse := self.pulses.get(its)) is None or (pulse.heartbeat, pulse.labels) != new
        ]
        candidates = self.pulses if message.whole else message.elsewhere
        gone = [its for its in candidates if its in self.pulses and its not in said]
        over = [
            number
            for its in [*changed, *gone]
            if (pulse := self.pulses.get(its)) is not None
            and (its not in said or said[its][0].paused or said[its][1] != pulse.labels)
            and (number := self.missed(pulse)) is not None
        ]
        if changed or gone:
            wanted = said.values() if message.whole else [said[its] for its in changed]
            self.shard.do(HeartbeatsWatched([*wanted], message.whole, [] if message.whole else gone), now)
        for number in over:
            self.shard.report(SeriesOver(number), now)
        for its in changed:
            self._look_at(its)
        for its in gone:
            self._beats.pop(its, None)
            self._look_at(its)
        return Done()

    def _labels_of(self, heartbeat: Heartbeat) -> dict[str, str]:
        """Of its alert. The service stands first among what may name one, so that the alert belongs to this shard."""
        names = self.shard.settings.service_labels
        service = {names[0] if names else "service": heartbeat.service}
        return {"alertname": ALERT_NAME, "heartbeat": heartbeat.name, **heartbeat.labels, **service}

    # -- beats ---------------------------------------------------------------------------------------------

    def _heard(self, message: Beats, now: float) -> Reply:
        ids = [identity(message.tenant, name) for name in message.names]
        known = [its for its in dict.fromkeys(ids) if its in self.pulses]
        noted, over = [], []
        for its in known:
            pulse = self.pulses[its]
            number = self.missed(pulse)
            if number is not None and not message.failed:
                over.append(number)
            if number is not None or message.failed or now - pulse.last_at >= NOTED_EVERY_S:
                noted.append(its)
                self._beats.pop(its, None)
            else:
                self._beats[its] = now
        if noted:
            self.shard.do(BeatsHeard(noted), now)
        for number in over:
            self.shard.report(SeriesOver(number), now)
        for its in known:
            if message.failed:
                self._failed(self.pulses[its], message.note, now)
            if not self._timers.at(its.encode()):
                self._look_at(its)
        if len(known) < len(set(ids)):
            return Failed("Busy", f"{self.shard.partition} does not know all of these heartbeats yet", 1.0)
        return Done()

    def _failed(self, pulse: Pulse, note: str, now: float) -> None:
        if not pulse.heartbeat.paused:
            name = pulse.heartbeat.name
            self._fire(pulse, f"Heartbeat {name} reports a failure", note[:NOTE_CHARS_MAX], now)

    # -- time ----------------------------------------------------------------------------------------------

    def tick(self, tick: Tick, now: float) -> None:
        if not self.pulses or tick.in_gap:
            return
        if now - self.listened_at >= LISTENS_EVERY_S:
            self.shard.do(BeatsHeard([]), now)
        if now < self.state.no_expiry_before:
            return
        for its in self._timers.due(now, DUE_MAX):
            pulse = self.pulses.get(its.decode())
            if pulse is not None:
                self._due(pulse, now)

    def _due(self, pulse: Pulse, now: float) -> None:
        its, at = pulse.heartbeat.id.encode(), self.due_at(pulse)
        if not at or at > now:
            self._timers.set(its, at)
            return
        if self.missed(pulse) is None:
            heartbeat = pulse.heartbeat
            last = self.last_at(pulse)
            heard = f"No beat since {rfc3339(last)}" if last else "No beat was heard since it is watched"
            words = f"{heard}; one is expected every {duration_text(heartbeat.interval_s)}"
            if heartbeat.grace_s:
                words += f", and missed {duration_text(heartbeat.grace_s)} later"
            self._fire(pulse, f"Heartbeat {heartbeat.name} is missed", f"{words}.", now)
        self._timers.set(its, now + LOOK_AGAIN_S)

    def _fire(self, pulse: Pulse, summary: str, description: str, now: float) -> None:
        heartbeat = pulse.heartbeat
        said = {
            "summary": summary,
            "description": description,
            "severity": heartbeat.severity.name,
            "runbook_url": heartbeat.runbook,
        }
        content = Content(pulse.labels, {name: text for name, text in said.items() if text}, 0.0, "", SOURCE)
        key = alert_key(heartbeat.tenant, content, 0.0)
        number = self.missed(pulse)
        # What fires with the same words already has nothing new to say.
        if number is None or self.state.series.keys[number] != key:
            self.shard.report(AlertDue(heartbeat.tenant, key, content), now)

    def _look_at(self, its: str) -> None:
        """When to look at it may be another time than before."""
        pulse = self.pulses.get(its)
        self._timers.set(its.encode(), 0.0 if pulse is None else self.due_at(pulse))

    def started(self, now: float, is_set_back: bool) -> None:
        self._beats = {its: min(at, now) for its, at in self._beats.items()}
        self._timers.clear()
        for its in self.pulses:
            self._look_at(its)

    def _set_back(self, event: ClockSetBack) -> None:
        self.started(event.after, True)

    # -- live and in replay --------------------------------------------------------------------------------

    def _fold_watched(self, event: HeartbeatsWatched, now: float) -> None:
        after = (
            {} if event.whole else {its: each for its, each in self.pulses.items() if its not in event.gone}
        )
        for heartbeat, labels in event.heartbeats:
            before = self.pulses.get(heartbeat.id)
            if before is not None and (before.heartbeat, before.labels) == (heartbeat, labels):
                after[heartbeat.id] = before
                continue
            self._touch(heartbeat.id)
            pulse = Pulse(heartbeat, labels) if before is None else msgspec.structs.replace(before)
            pulse.heartbeat, pulse.labels = heartbeat, labels
            if heartbeat.paused:
                pulse.wait(0.0)
            elif not pulse.since and (heartbeat.began or pulse.last_at):
                pulse.wait(now)
            after[heartbeat.id] = pulse
        for its in self.pulses.keys() - after.keys():
            self._touch(its)
        self.pulses, self._by_slot = after, None
        self._listens(now)

    def _fold_heard(self, event: BeatsHeard, now: float) -> None:
        for its in event.ids:
            self._touch(its)
            pulse = self.pulses[its]
            pulse.last_at = now
            if not pulse.heartbeat.paused:
                pulse.wait(now)
        self._listens(now)

    def _fold_started(self, _event: ShardStarted, now: float) -> None:
        self._renew(self.listened_at or now, now)

    def _fold_gap(self, event: ReceptionGap, now: float) -> None:
        self._renew(event.gap_since, now)

    def _renew(self, gap_since: float, now: float) -> None:
        if not self.pulses:
            return
        for its, pulse in self.pulses.items():
            if pulse.since:
                self._touch(its)
                pulse.deaf_s += max(0.0, now - max(gap_since, pulse.since))
                pulse.base = _renewed(pulse, now)
        self._listens(now)

    def _fold_set_back(self, event: ClockSetBack, _now: float) -> None:
        for its, pulse in self.pulses.items():
            self._touch(its)
            pulse.last_at = clock.then(pulse.last_at, event)
            pulse.since = clock.then(pulse.since, event)
            pulse.base = clock.then(pulse.base, event)
        self.state.checkpoint.touch(HEARTBEATS, BUCKETS)
        self.listened_at = clock.then(self.listened_at, event)

    def _listens(self, now: float) -> None:
        self.state.checkpoint.touch(HEARTBEATS, BUCKETS)
        self.listened_at = now

    def _touch(self, its: str) -> None:
        self.state.checkpoint.touch(HEARTBEATS, _bucket(its))

    def _capture(self, bucket: int | bytes) -> bytes | None:
        if bucket == BUCKETS:
            return _encoder.encode(self.listened_at) if self.listened_at else None
        found = [each for its, each in self.pulses.items() if _bucket(its) == bucket]
        return _encoder.encode(found) if found else None

    def _load(self, bucket: int | bytes, record: bytes, _version: int) -> None:
        if bucket == BUCKETS:
            self.listened_at = _time_decoder.decode(record)
        else:
            self.pulses.update((each.heartbeat.id, each) for each in _pulses_decoder.decode(record))

    # -- with a slot to another partition ------------------------------------------------------------------

    def slots_held(self) -> Iterable[int]:
        if self._by_slot is None:
            self._by_slot = {}
            for its, pulse in self.pulses.items():
                slot = slot_of(pulse.heartbeat.tenant, pulse.heartbeat.service)
                self._by_slot.setdefault(slot, []).append(its)
        return self._by_slot.keys()

    def carries_slot(self, slot: int) -> bytes | None:
        if slot not in self.slots_held():
            return None
        assert self._by_slot is not None
        return _encoder.encode(_Carried([self.pulses[its] for its in self._by_slot[slot]], self.listened_at))

    def brings_slot(self, slot: int, record: bytes) -> None:
        carried = _carried_decoder.decode(record)
        # Where nobody listens to anything, nobody noted that anybody does.
        self._listens(min(self.listened_at, carried.listened_at) if self.pulses else carried.listened_at)
        for pulse in carried.pulses:
            self.pulses[pulse.heartbeat.id] = pulse
            self._touch(pulse.heartbeat.id)
        self._by_slot = None

    def drops_slot(self, slot: int) -> None:
        if slot in self.slots_held() and self._by_slot is not None:
            for its in self._by_slot.pop(slot):
                del self.pulses[its]
                self._touch(its)

    messages = {HeartbeatsChanged: _changed, Beats: _heard}
    after = {ClockSetBack: _set_back}
    follows = {ShardStarted: _fold_started, ReceptionGap: _fold_gap, ClockSetBack: _fold_set_back}
    records = (RecordOf(HEARTBEATS, _capture, _load),)
    events = (
        on(HeartbeatsWatched, _fold_watched, whose=Whose.SHARD),
        on(BeatsHeard, _fold_heard, whose=Whose.REQUEST),
    )


class _Carried(msgspec.Struct, array_like=True):
    """What goes with a slot: its pulses, and when they surely could be heard last."""

    pulses: list[Pulse]
    listened_at: float


def _renewed(pulse: Pulse, now: float) -> float:
    """What its time runs from after a gap that ended now.

    Whoever was heard at `since` and beats every so often has beaten since, or does so again as long after the gap as `since` lies
    before its end, and at most an interval after it. All gaps together give one interval more of time in which somebody could be
    heard: a shard that restarts all day still misses a heartbeat.
    """
    interval_s = pulse.heartbeat.interval_s
    again = now + min(interval_s, now - pulse.since) - interval_s
    return max(pulse.base, min(again, pulse.since + pulse.deaf_s + interval_s))


def _bucket(its: str) -> int:
    return sum(its.encode()) % BUCKETS


_encoder = msgspec.msgpack.Encoder()
_time_decoder = msgspec.msgpack.Decoder(float)
_carried_decoder = msgspec.msgpack.Decoder(_Carried)
_pulses_decoder = msgspec.msgpack.Decoder(list[Pulse])
