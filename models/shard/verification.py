"""Whether a repair held. An incident that a run resolved is watched for a while: the checks of the run are asked again, by the same
worker; its alerts are its own, and new incidents of the same service are side effects of the repair. One that regresses reopens, with
the reason; otherwise it goes on to its close. What came of each repair is counted by playbook.

While nobody could be heard no check fails and no watch ends: it may be us who are cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from models.durations import duration_text
from models.errors import Broken
from models.incidents.incident import AUTOMATED, OPEN_STATES, Incident, IncidentState, id_text
from models.incidents.lines import SYSTEM, Around, Description, Line, line_of
from models.partition.event import Event
from models.playbook.work import FAILED, SUCCEEDED, WAIT, Do, encode_work
from models.shard import clock, lifecycle
from models.shard.changes import Merging, Moved, Opened, RunOver
from models.shard.component import Component, RecordOf, on
from models.shard.core import Core
from models.shard.effects import Effect
from models.shard.events import ClockSetBack, IncidentStateChanged
from models.shard.messages import Done as Taken
from models.shard.messages import Message, Reply, Tick
from models.shard.rechecks import changed_something, checks_of, context_again, is_other, key_of
from models.shard.run_lines import by
from models.shard.runs import Runs, read_done
from models.shard.verification_state import (
    CHECKS_MAX,
    REPAIRED,
    REPAIRS_MAX,
    SIDE_EFFECTS_MAX,
    WATCHES,
    Check,
    Repair,
    Watch,
    WatchStore,
)

#: Answers in a row that must say that something is wrong: one can be bad luck.
FAILS_MAX = 3
#: Time until a check that failed is asked again, unless checks are asked more often anyway.
AGAIN_S = 10.0
#: How much longer than its time a watch goes on for a check that failed and may yet succeed.
IN_DOUBT_S = 300.0
#: Characters of a detail in a reason.
DETAIL_MAX = 300
#: What an answer may be counted as, beside SUCCEEDED and FAILED: it could not be checked.
UNKNOWN = "unknown"


class RepairOver(Event, frozen=True):
    """A run is over that changed something (`changed`), or did checks, which are asked again, the first time at `first_at`, once its
    incident is watched."""

    incident_id: bytes
    run: bytes
    playbook: str
    version: str
    status: str
    started_at: float
    changed: bool
    checks: list[Check]
    first_at: float


class WatchBegan(Event, frozen=True):
    """An incident was resolved, and is watched for regression until `until`. Its checks are asked at `first_at`."""

    incident_id: bytes
    until: float
    first_at: float


class CheckAnswered(Event, frozen=True):
    """A check was asked for the `round`th time: succeeded, failed or unknown. It is asked again at `at`."""

    incident_id: bytes
    number: int
    round: int
    status: str
    detail: str
    at: float


class SideEffectSeen(Event, frozen=True):
    """Another incident (`other`) of the same service opened after a repair began, or while the incident is watched."""

    incident_id: bytes
    other: bytes
    title: str


class WatchEnded(Event, frozen=True):
    """The watch is over, and nothing regressed. `why`: it ended before its time."""

    incident_id: bytes
    watched_s: float
    passed: int
    unknown: int
    why: str = ""


class Recheck(Effect, frozen=True):
    """Asks the responder for a check again (`work`: playbook.work.Do, encoded). Answered by message Rechecked. It changes nothing, so
    it may be asked twice. The smaller `urgency`, the sooner its turn."""

    incident_id: bytes
    number: int
    key: str
    work: bytes
    urgency: int = 2
    trace: str | None = None


class Rechecked(Message, frozen=True):
    """What came of effect Recheck: `done` is an encoded playbook.work.Done."""

    incident_id: bytes
    number: int
    key: str
    done: bytes


def _ended_line(event: WatchEnded, _around: Around) -> Line:
    text = event.why or f"no regression within {_about(event.watched_s)}"
    if not event.why and event.unknown:
        text += f"; {event.unknown} of its checks could not be asked"
    return line_of("WatchEnded", SYSTEM, text, checks_passed=str(event.passed))


def _side_effect_line(event: SideEffectSeen, _around: Around) -> Line:
    text = f"{id_text(event.other)} opened for the same service: {event.title}"
    return line_of("SideEffect", SYSTEM, text, incident=id_text(event.other))


def _began_line(event: WatchBegan, around: Around) -> Line:
    return line_of("WatchBegan", SYSTEM, f"watched for regression for {_about(event.until - around.now)}")


class Verification(Component):
    name = "verification"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        self.store = WatchStore(shard.state)
        #: Keys of checks that this process asked for, and what is to be asked again or for the first time.
        self._asked: set[str] = set()
        self._unasked: dict[tuple[bytes, int], None] = {}
        self._in_gap = False

    # -- what happens to incidents -------------------------------------------------------------------------

    def _run_over(self, change: RunOver, now: float) -> None:
        incident, run, book = change.incident, change.run, change.book
        if run.dry:
            return
        changed = not run.parent and changed_something(self.shard, incident, run)
        checks = checks_of(book, run)
        if not changed and not checks:
            return
        over = RepairOver(
            incident.id,
            run.id,
            run.playbook,
            run.version,
            run.status,
            run.started_at,
            changed,
            checks,
            now + self.shard.settings.verify_every_s,
        )
        self.shard.do(over, now)
        if changed:
            for other in self._opened_since(incident, run.started_at):
                self._side_effect(incident, other, now)

    def _moved(self, change: Moved, now: float) -> None:
        incident = change.incident
        if incident.state is not IncidentState.RESOLVED or not change.ends or incident.merged_into:
            return
        settings = self.shard.settings
        if settings.verify_watch_s and self._is_to_be_watched(incident):
            every_s = settings.verify_every_s
            self.shard.do(WatchBegan(incident.id, now + settings.verify_watch_s, now + every_s), now)

    def _is_to_be_watched(self, incident: Incident) -> bool:
        how = incident.resolution
        mine = self.store.watches.get(incident.id)
        repaired = mine is not None and bool(mine.repairs)
        if how is not None and how.method != AUTOMATED:
            return self.shard.settings.verify_people
        active = [each for each in self.shard.of(Runs).store.of(incident.id).active if not each.dry]
        return repaired or any(
            each.changed or (how is not None and how.by == by(each.playbook)) for each in active
        )

    def _opened(self, change: Opened, now: float) -> None:
        if not self.store.watches:
            return
        other = change.incident
        for identity in self.store.neighbours(other):
            mine = self.store.watches[identity]
            if mine.repairs or mine.until:
                self._side_effect(self.state.incidents[identity], other, now)

    def _side_effect(self, incident: Incident, other: Incident, now: float) -> None:
        mine = self.store.watches.get(incident.id)
        if mine is None or other.id in mine.side_effects or len(mine.side_effects) >= SIDE_EFFECTS_MAX:
            return
        self.shard.do(SideEffectSeen(incident.id, other.id, other.title), now)

    def _opened_since(self, incident: Incident, since: float) -> list[Incident]:
        """Other incidents of its service that opened since then."""
        incidents = self.state.incidents
        found = (incidents[each] for each in self.state.by_label.get(("service", incident.service), ()))
        later = [
            each
            for each in found
            if each.created_at >= since and each.id != incident.id and each.tenant == incident.tenant
        ]
        return sorted(later, key=lambda each: (each.created_at, each.id))[:SIDE_EFFECTS_MAX]

    def _merging(self, change: Merging, now: float) -> None:
        self._end(change.incident, now, "its watch ends: it is merged into another incident")

    def _end(self, incident: Incident, now: float, why: str = "") -> None:
        mine = self.store.watches.get(incident.id)
        if mine is None or not mine.until:
            return
        passed = sum(each.passed for each in mine.checks)
        unknown = sum(not each.passed for each in mine.checks)
        self.shard.do(WatchEnded(incident.id, mine.until - mine.began_at, passed, unknown, why), now)

    # -- time ----------------------------------------------------------------------------------------------

    def next_at(self, incident: Incident) -> float:
        mine = self.store.watches.get(incident.id)
        if mine is None or not mine.until:
            return 0.0
        times = [] if incident.firing else [self._over_at(mine)]
        if self.shard.settings.playbooks:
            times += [each.at for each in mine.checks if key_of(incident, mine, each) not in self._asked]
        return min(times, default=0.0)

    def _over_at(self, mine: Watch) -> float:
        return mine.until + (IN_DOUBT_S if any(each.failures for each in mine.checks) else 0.0)

    def tick(self, tick: Tick, now: float) -> None:
        self._in_gap = tick.in_gap

    def due(self, incident: Incident, now: float) -> None:
        mine = self.store.watches[incident.id]
        if not incident.firing and now >= self._over_at(mine):
            # Not while an alert may fire that could not be heard, nor until it would have been sent again.
            if not self._in_gap and now >= self.state.no_expiry_before:
                self._end(incident, now)
            return
        if self.shard.settings.playbooks:
            for number, each in enumerate(mine.checks):
                key = key_of(incident, mine, each)
                if each.at <= now and key not in self._asked:
                    self._asked.add(key)
                    self._unasked[incident.id, number] = None

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        if incident.id not in self.store.watches:
            return
        mine = self.store.changing(incident)
        mine.until = clock.due(mine.until, event) if mine.began_at > event.after else mine.until
        mine.began_at = clock.then(mine.began_at, event)
        mine.repairs = [
            msgspec.structs.replace(each, started_at=clock.then(each.started_at, event))
            for each in mine.repairs
        ]
        for each in mine.checks:
            each.at = clock.due(each.at, event)

    # -- checks --------------------------------------------------------------------------------------------

    def started(self, now: float, is_set_back: bool) -> None:
        self._asked.clear()
        self._unasked.clear()

    def owed(self, now: float) -> Iterable[Effect]:
        return self._asks() if self._unasked else ()

    def _asks(self) -> Iterator[Effect]:
        unasked, self._unasked = self._unasked, {}
        for identity, number in unasked:
            incident, mine = self.state.incidents.get(identity), self.store.watches.get(identity)
            if incident is None or mine is None or not mine.until or number >= len(mine.checks):
                continue
            check = mine.checks[number]
            key = key_of(incident, mine, check)
            run = self.shard.of(Runs).store.find(check.run)
            work = Do(key, check.step, number, 0, check.action, context_again(incident, check, run))
            yield Recheck(identity, number, key, encode_work(work), int(incident.severity))

    def ask_again(self, effect: Recheck) -> None:
        self._unasked[effect.incident_id, effect.number] = None

    def _rechecked(self, said: Rechecked, now: float) -> Reply:
        self._asked.discard(said.key)
        incident, mine = (
            self.state.incidents.get(said.incident_id),
            self.store.watches.get(said.incident_id),
        )
        if incident is None or mine is None or not mine.until or said.number >= len(mine.checks):
            return Taken()
        check = mine.checks[said.number]
        if key_of(incident, mine, check) != said.key:
            return Taken()  # of an earlier round
        done = read_done(said.done)
        every_s = self.shard.settings.verify_every_s
        status, at = UNKNOWN, now + every_s
        if done.status in (SUCCEEDED, WAIT):
            status = SUCCEEDED
        elif done.status == FAILED and not done.final and not self._in_gap:
            status, at = FAILED, now + min(AGAIN_S, every_s)
        detail = done.detail[:DETAIL_MAX]
        self.shard.do(CheckAnswered(incident.id, said.number, check.round, status, detail, at), now)
        if check.failures >= FAILS_MAX and incident.state is IncidentState.RESOLVED:
            after = _about(now - incident.resolved_at)
            reason = f"{check.step}, {check.action.type} fails {after} after it was resolved"
            lifecycle.reopen(self.shard, incident, now, reason=f"{reason}: {detail}" if detail else reason)
        return Taken()

    # -- live and in replay --------------------------------------------------------------------------------

    def _fold_over(self, event: RepairOver, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        mine = self.store.changing(incident)
        kept = [each for each in mine.checks if all(is_other(each, new) for new in event.checks)]
        for each in event.checks:
            kept.append(msgspec.structs.replace(each, at=event.first_at if mine.until else 0.0))
        mine.checks = kept[-CHECKS_MAX:]
        if not event.changed:
            return
        repair = Repair(event.run, event.playbook, event.version, event.started_at, event.status)
        counts = self.store.counts(incident, repair, now)
        counts.runs += 1
        counts.failed += event.status != SUCCEEDED
        if event.started_at < incident.opened_at:
            return  # of the life before
        mine.repairs = [*mine.repairs, repair][-REPAIRS_MAX:]
        if incident.state is IncidentState.RESOLVED:
            self._heals(incident, mine, incident.resolved_at)

    def _fold_began(self, event: WatchBegan, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        mine = self.store.changing(incident)
        mine.number += 1
        mine.began_at, mine.until = now, event.until
        self.state.watched[incident.id] = None
        for each in mine.checks:
            each.at, each.failures, each.passed, each.detail = event.first_at, 0, 0, ""

    def _fold_answered(self, event: CheckAnswered, now: float) -> None:
        mine = self.store.changing(self.state.incidents[event.incident_id])
        if event.number >= len(mine.checks):
            raise Broken(f"incident {event.incident_id.hex()} has no check {event.number}")
        check = mine.checks[event.number]
        check.round, check.at, check.detail = event.round + 1, event.at, event.detail
        check.failures = check.failures + 1 if event.status == FAILED else 0
        check.passed += event.status == SUCCEEDED

    def _fold_side_effect(self, event: SideEffectSeen, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        mine = self.store.changing(incident)
        mine.side_effects = [*mine.side_effects, event.other]
        if mine.credited is not None:
            self.store.counts(incident, mine.credited, now).side_effects += 1

    def _fold_ended(self, event: WatchEnded, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        mine = self.store.changing(incident)
        if mine.healed_by is not None and not event.why:
            counts = self.store.counts(incident, mine.healed_by, now)
            counts.held += 1
            counts.quiet += not mine.quiet
        self._next_life(incident, mine)

    def _fold_moved(self, event: IncidentStateChanged, now: float) -> None:
        incident = self.state.incidents[event.incident_id]
        if incident.id not in self.store.watches:
            return
        mine = self.store.changing(incident)
        if event.after is IncidentState.RESOLVED:
            self._heals(incident, mine, now)
        elif event.after is IncidentState.CLOSED:
            self._next_life(incident, mine)
        elif event.before not in OPEN_STATES:
            if mine.until and mine.healed_by is not None:
                self.store.counts(incident, mine.healed_by, now).broke += 1
            self._next_life(incident, mine)

    def _heals(self, incident: Incident, mine: Watch, resolved_at: float) -> None:
        """It is resolved, and a repair was tried before."""
        if mine.healed_by is not None or not mine.repairs:
            return
        repair = mine.healed_by = mine.repairs[-1]
        counts = self.store.counts(incident, repair, resolved_at)
        mine.quiet = incident.firing == 0
        counts.healed += 1
        counts.heal_s += max(0.0, resolved_at - repair.started_at)
        counts.quiet += mine.quiet

    def _next_life(self, incident: Incident, mine: Watch) -> None:
        """Nothing of what was is the business of what comes."""
        mine.repairs, mine.checks, mine.side_effects = [], [], []
        mine.began_at = mine.until = 0.0
        mine.healed_by, mine.quiet = None, False
        self.state.watched.pop(incident.id, None)

    def came(self, incident: Incident) -> None:
        self.store.came(incident)

    def left(self, incident: Incident) -> None:
        self.store.left(incident)

    def carries(self, incident: Incident) -> bytes | None:
        return self.store.carried(incident)

    def brings(self, incident: Incident, record: bytes) -> None:
        self.store.bring(incident, record)

    def _capture_watch(self, identity: int | bytes) -> bytes | None:
        return self.store.capture_watch(identity)

    def _load_watch(self, identity: int | bytes, record: bytes, version: int) -> None:
        self.store.load_watch(identity, record, version)

    def _capture_repaired(self, identity: int | bytes) -> bytes | None:
        return self.store.capture_repaired(identity)

    def _load_repaired(self, identity: int | bytes, record: bytes, version: int) -> None:
        self.store.load_repaired(identity, record, version)

    messages = {Rechecked: _rechecked}
    reactions = {RunOver: _run_over, Moved: _moved, Opened: _opened, Merging: _merging}
    effects = (Recheck,)
    follows = {IncidentStateChanged: _fold_moved}
    records = (
        RecordOf(WATCHES, _capture_watch, _load_watch),
        RecordOf(REPAIRED, _capture_repaired, _load_repaired),
    )
    events = (
        on(RepairOver, _fold_over),
        on(WatchBegan, _fold_began, Description(("WatchBegan",), _began_line)),
        on(CheckAnswered, _fold_answered),
        on(SideEffectSeen, _fold_side_effect, Description(("SideEffect",), _side_effect_line)),
        on(WatchEnded, _fold_ended, Description(("WatchEnded",), _ended_line)),
    )


def _about(seconds: float) -> str:
    """A time as people say it: whole minutes from two on, whole seconds below."""
    return duration_text(round(seconds / 60) * 60.0 if seconds >= 120 else max(1.0, round(seconds)))
