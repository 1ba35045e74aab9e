"""A worker that is slow, lies and dies, people who approve too late, and the laws of runs.

No action that must not be done twice is; what the log says was done was done; every run ends; nothing that was chosen is
forgotten, what is due by the clock is begun once, and nothing runs for what is muted or merged.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from models.control.control import encode_message
from models.control.playbooks import ApplyPlaybook
from models.errors import IncidentManagerError, Refused
from models.incidents.incident import Severity
from models.incidents.verbs import AnyVerb, ApproveRun, CancelRun, HoldRun, StartRun
from models.partition.event import Event
from models.playbook.playbook import Approval, PlannedAction, Playbook, Retry, Step, Trigger, encode
from models.playbook.run import ASKED, Run, id_of
from models.playbook.run_events import (
    ActionAnswered,
    ActionAsked,
    ApprovalAsked,
    ApprovalGiven,
    CaptureKept,
    PlaybooksChosen,
    PlaybookTaken,
    RoundBegan,
    RunEnded,
    RunEnding,
    RunHeld,
    RunNotStarted,
    RunStarted,
    StepBegan,
    StepEnded,
    TaskPlanned,
    UndoBegan,
)
from models.playbook.work import (
    APPROVAL,
    FAILED,
    REFUSED,
    SKIPPED,
    SUCCEEDED,
    WAIT,
    Capture,
    Check,
    Choose,
    Do,
    Done,
    Enter,
    IncidentEffect,
    Work,
)
from models.shard.events import ClockSetBack
from models.shard.known_playbooks import PlaybooksHeard
from models.shard.messages import Command
from models.shard.messages import encode as encode_command
from models.shard.mutes import Mutes
from models.shard.runs import Runs as RunsOfShard
from models.shard.schedules import LATE_MAX_S, RunScheduled, SchedulesFollowed
from tests.simulation.area import Area
from tests.simulation.areas.notifications import Notifications

if TYPE_CHECKING:
    from tests.simulation.watch import Watcher
    from tests.simulation.world import World

#: How long a run may take here, and what comes after: its end, a tick, a clock that stands still, a call that is lost.
LONGEST_S = 14.0
LATE_S = 12.0
ONCE, REPAIR, GATED, PAUSE = "page", "restart", "isolate", "wait"
ALL = tuple(Severity)


def _book(name: str, *steps: Step, final: tuple[Step, ...] = (), **fields: Any) -> Playbook:
    ordered = [
        Step(**{**{f: getattr(each, f) for f in each.__struct_fields__}, "needs": (steps[place - 1].id,)})
        if place and not each.needs
        else each
        for place, each in enumerate(steps)
    ]
    trigger = fields.pop("trigger", Trigger(severities=ALL))
    return Playbook(name, "1", f"{name} 1", trigger, tuple(ordered), final, **fields)


_UNDO = PlannedAction("undo", changes=True)
BOOKS = (
    _book(
        "heal",
        Step("tell", "notification", (PlannedAction(ONCE, once=True, on_failure="next_action"),)),
        Step("look", "check", (PlannedAction("look"),), condition="maybe", tolerates=True),
        Step(
            "fix",
            "remediation",
            (
                PlannedAction("health_check", guards=True, on_failure="next_action"),
                PlannedAction(REPAIR, changes=True, rollback=_UNDO),
                PlannedAction(PAUSE),
                PlannedAction(ONCE, once=True, changes=True),
                PlannedAction("verify_resolution", on_failure="escalate"),
            ),
            retry=Retry(most=2, first_s=0.3, max_s=2.0),
            tolerates=True,
        ),
        Step("done", "resolution", (PlannedAction("resolve"),)),
        final=(Step("clean", "cleanup", (PlannedAction("clean", changes=True),)),),
    ),
    _book(
        "ask",
        Step("may", "approval", approval=Approval(("eve", "commander"), 1, 3.0, "fail", "may I?")),
        Step("each", "remediation", (PlannedAction(GATED, changes=True),), for_each="some"),
        Step("both", "remediation", (PlannedAction(REPAIR), PlannedAction(ONCE, once=True)), parallel=True),
        Step("inner", "playbook", playbook="inner"),
        trigger=Trigger(severities=(Severity.P0, Severity.P1), expression="perhaps"),
        priority=1,
    ),
    _book(
        "inner",
        Step("fix", "remediation", (PlannedAction(ONCE, once=True, changes=True),)),
        trigger=Trigger(),
    ),
    _book(
        "timer",
        Step("fix", "remediation", (PlannedAction(ONCE, once=True, changes=True),)),
        trigger=Trigger(schedule="* * * * *"),
    ),
    _book("shadow", Step("fix", "remediation", (PlannedAction(ONCE, once=True, changes=True),)), shadow=True),
)


class Worker:
    """Port Worker: does what runs ask for, or says so, or does it and says nothing."""

    def __init__(self, world: World) -> None:
        self.world = world
        #: How often each action was done, by its key without the try.
        self.did: Counter[str] = Counter()

    async def work(self, work: Work, trace: str | None = None) -> Done:
        world, rng = self.world, self.world.rng
        fate = rng.random() if world.is_troubled else 1.0
        if fate < 0.06:
            return Done(FAILED, "not now", reached=False)
        if fate < 0.08:
            return Done(REFUSED, "policy")
        if fate < 0.16:
            await asyncio.sleep(rng.choice((0.1, 1.0, 8.0)))
        if not isinstance(work, Do):
            return self._says(work)
        if work.approved_by and not work.approved_digest.startswith(work.action.type):
            world.fail(f"{work.key} is approved as {work.approved_digest!r}")
        if work.action.type == GATED and not work.dry and rng.random() < (0.2 if work.approved_by else 0.5):
            # With what it would be done changes, now and then.
            digest = f"{GATED} {rng.random()}"
            return Done(APPROVAL, "at this hour", approvers=("eve",), digest=digest)
        if not work.dry:
            self._does(work)
        if fate < 0.2:
            return Done(FAILED, "it broke")
        if fate < 0.23:
            return Done("splendid")
        if fate < 0.27:
            world.kill("responder-0", "after it has acted")
            await asyncio.get_running_loop().create_future()
        if fate < 0.29:
            return Done(
                SUCCEEDED, outputs={"x": "y" * 70_000}, captures=(Capture("logs", "text/plain", "z" * 9000),)
            )
        if work.action.type == PAUSE:
            return Done(WAIT, wait_s=rng.choice((0.0, 1.0, 3.0)))
        return Done(
            SUCCEEDED,
            effects=self._pages(work) if work.action.type == ONCE else _EFFECTS.get(work.action.type, ()),
            captures=(Capture("note", "text/plain", "n"),),
        )

    def _pages(self, work: Do) -> tuple[IncidentEffect, ...]:
        """A page opens something at a receiver, whether or not a route leads there."""
        if work.dry:
            return ()
        receivers, incident = self.world.area(Notifications).receivers, str(work.context.incident["id"])
        name = self.world.rng.choice(sorted(receivers))
        receivers[name].sent.setdefault(incident, []).append((0, "paged"))
        return (IncidentEffect("told", name, ref=f"{name}/{incident}"),)

    def _says(self, work: Enter | Choose | Check) -> Done:
        if isinstance(work, Check):
            return Done(self.world.rng.choice((SUCCEEDED, SUCCEEDED, SUCCEEDED, REFUSED)), "not at this hour")
        if isinstance(work, Choose):
            return Done(SUCCEEDED, items=tuple(range(len(work.expressions))))
        if work.for_each:
            return Done(SUCCEEDED, items=("a", "b"))
        return Done(self.world.rng.choice((SUCCEEDED, SKIPPED)))

    def _does(self, work: Do) -> None:
        place = work.key.rsplit("-", 1)[0]
        self.did[place] += 1
        if work.action.once and self.did[place] > 1:
            self.world.fail(f"{work.action.type} of {place} was done twice, and must not be")

    async def close(self) -> None:
        """Nothing is open."""


_EFFECTS = {
    "resolve": (IncidentEffect("resolve", "repaired"), IncidentEffect("task", "write it up", 1.0)),
    "look": (IncidentEffect("comment", "looked"), IncidentEffect("assign", "bob")),
}


class Runs(Area):
    events = frozenset(
        {
            PlaybooksHeard, PlaybooksChosen, PlaybookTaken, RunStarted, RunNotStarted, StepBegan, RoundBegan, ActionAsked,
            ActionAnswered, ApprovalAsked, ApprovalGiven, UndoBegan, StepEnded, RunHeld, RunEnding, RunEnded,
            CaptureKept, TaskPlanned, SchedulesFollowed, RunScheduled,
        }
    )  # fmt: skip

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.worker = Worker(world)
        #: Incidents of which something was said about playbooks.
        self._met: set[bytes] = set()
        #: When each was asked for, by the run's own time.
        self._asked_at: dict[tuple[bytes, str, int, bool], float] = {}
        #: Times for which a run by the clock was begun.
        self._begun: set[float] = set()

    async def begin(self) -> None:
        """The playbooks are applied before the trouble begins."""
        for book in BOOKS:
            message = ApplyPlaybook(book.name, book.version, book.digest, encode(book), "", "ops")
            for _ in range(5):
                try:
                    await self.world.wire.call("control-a", "change", encode_message(message), 5.0)
                    break
                except IncidentManagerError:
                    await asyncio.sleep(0.5)

    def lives(self) -> list[Coroutine[Any, Any, None]]:
        return [self._live()]

    async def _live(self) -> None:
        """People approve, pause and cancel, sooner or later."""
        world, rng, count = self.world, self.world.rng, 0
        while True:
            await asyncio.sleep(rng.uniform(0.2, 1.5))
            active = [
                (watcher, run)
                for watcher in world.watchers.values()
                for run in map(
                    watcher.mirror.of(RunsOfShard).store.find, watcher.mirror.of(RunsOfShard).store.active
                )
                if run is not None
            ]
            if not active or not world.is_troubled:
                continue
            count += 1
            _watcher, run = rng.choice(active)
            await self._do(run, self._verb(run), count)

    def _verb(self, run: Run) -> AnyVerb:
        rng = self.world.rng
        if run.waits_for and rng.random() < 0.8:
            return ApproveRun(run.id, "", denied=rng.random() < 0.2)
        return rng.choice(
            (
                HoldRun(run.id, True),
                HoldRun(run.id, False),
                HoldRun(run.id, False),
                CancelRun(run.id),
                StartRun("inner"),
            )
        )

    async def _do(self, run: Run, verb: AnyVerb, count: int) -> None:
        world = self.world
        incident = next(
            (
                each
                for w in world.watchers.values()
                if (each := w.mirror.state.incidents.get(run.incident_id))
            ),
            None,
        )
        gateway = world.gateway()
        if incident is None or gateway is None:
            return
        call = f"eve{count:013d}".encode()
        command = Command(call, incident.tenant, "eve", incident.id, verb, "", None, f"runs-{count}")
        line = gateway.lines[world.owner(incident.slot)]
        try:
            await world.loop.spawn_call(
                gateway.process,
                line.tell(encode_command(command), 1),
                lambda: IncidentManagerError("it died"),
            )
            world.story("eve did", verb=type(verb).__name__)
        except Refused as error:
            world.story("eve may not", verb=type(verb).__name__, why=error)
        except IncidentManagerError:
            pass

    # -- what must hold ------------------------------------------------------------------------------------

    def seen(self, watcher: Watcher, event: Event) -> None:
        match event:
            case ActionAsked():
                self._asked_at[event.run, event.step, event.number, event.undo] = self.world.clock.elapsed
            case ActionAnswered() if event.action == ONCE and event.status == SUCCEEDED and not event.dry:
                self._was_done(watcher, event)
            case RunStarted():
                incident = watcher.mirror.state.incidents[event.incident_id]
                if incident.merged_into:
                    watcher.fail(f"{event.playbook} runs for {incident.id.hex()}, which is merged")
                self._met.add(event.incident_id)
            case PlaybooksChosen():
                incident = watcher.mirror.state.incidents[event.incident_id]
                if not event.answered and watcher.mirror.of(Mutes).is_muted(incident):
                    watcher.fail(f"playbooks are chosen for {incident.id.hex()}, which is muted")
                self._met.add(event.incident_id)
            case RunScheduled():
                if event.due_at in self._begun:
                    watcher.fail(f"{event.playbook} is begun twice for {event.due_at}")
                self._begun.add(event.due_at)
            case ClockSetBack() if any(at - event.after > LATE_MAX_S for at in self._begun):
                # What a clock began that was far ahead is forgotten, and with it what one began before that was ahead by little.
                self._begun = {at for at in self._begun if at <= event.after}
            case RunNotStarted():
                self._met.add(event.incident_id)
            case _:
                pass

    def _was_done(self, watcher: Watcher, event: ActionAnswered) -> None:
        run = watcher.mirror.of(RunsOfShard).store.find(event.run)
        assert run is not None
        step = run.steps[event.step]
        place = f"{id_of(run.id)}.{step.turn}.{step.round}.{event.number}"
        if self.worker.did[place] != 1:
            watcher.fail(f"{place} is said to be done, and was done {self.worker.did[place]} times")

    def holds_for(self, watcher: Watcher) -> None:
        now, elapsed = self.world.clock.now(), self.world.clock.elapsed
        store = watcher.mirror.of(RunsOfShard).store
        for identity in store.active:
            run = store.find(identity)
            assert run is not None
            if now > run.until + LATE_S:
                watcher.fail(f"run {id_of(run.id)} of {run.playbook} does not end")
            for name, step in run.steps.items():
                for undo, deeds in ((False, step.deeds), (True, step.undos)):
                    for number, deed in deeds.items():
                        asked_at = self._asked_at.get((run.id, name, number, undo))
                        if deed.status == ASKED and asked_at is not None and elapsed - asked_at > LATE_S:
                            watcher.fail(f"{name} {number} of run {id_of(run.id)} is never answered")
        for identity, mine in store.by_incident.items():
            if (
                mine.chosen
                and not mine.active
                and now - max(r.ended_at for r in mine.runs or [_NONE]) > LATE_S
            ):
                watcher.fail(f"{mine.chosen[0].playbook} of {identity.hex()} is chosen and does not run")
        for identity, incident in watcher.mirror.state.incidents.items():
            if (
                incident.is_open
                and not incident.merged_into
                and now - incident.opened_at > LATE_S
                and not watcher.mirror.of(Mutes).is_muted(incident)
                and identity not in self._met
            ):
                watcher.fail(
                    f"nothing runs for {identity.hex()}, which is open for {now - incident.opened_at:.0f} s"
                )


_NONE = Run(b"", b"", 0, "", "", "", "", "", 0.0, 0.0)
