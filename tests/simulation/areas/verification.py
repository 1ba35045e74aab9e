"""The laws of repairs that are watched: every watch ends, nothing closes during one or reopens without a reason, and what is counted
adds up."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from models.incidents.incident import OPEN_STATES, IncidentState
from models.partition.event import Event
from models.playbook.run_events import TaskPlanned
from models.playbook.work import FAILED
from models.shard.events import IncidentStateChanged
from models.shard.follow_ups import TaskDue
from models.shard.runs import Runs
from models.shard.verification import (
    FAILS_MAX,
    CheckAnswered,
    RepairOver,
    SideEffectSeen,
    WatchBegan,
    WatchEnded,
)
from models.shard.verification import Verification as VerificationOfShard
from tests.simulation.area import Area

if TYPE_CHECKING:
    from tests.simulation.watch import Watcher
    from tests.simulation.world import World

#: How late a watch may end: a tick, a recovery with its grace, a clock that stands still.
LATE_S = 20.0


class Verification(Area):
    events = frozenset({RepairOver, WatchBegan, CheckAnswered, SideEffectSeen, WatchEnded, TaskDue})

    def __init__(self, world: World) -> None:
        super().__init__(world)
        #: Incidents that are watched, and how often each of their checks failed in a row.
        self._watched: dict[bytes, Counter[int]] = {}
        #: When a task of an incident was planned last: one may be due already then.
        self._planned_at: dict[bytes, float] = {}

    def seen(self, watcher: Watcher, event: Event) -> None:
        match event:
            case WatchBegan():
                self._watched[event.incident_id] = Counter()
            case CheckAnswered():
                self._answered(watcher, event)
            case WatchEnded():
                self._ended(watcher, event)
            case TaskPlanned():
                self._planned_at[event.incident_id] = self.world.clock.now()
            case IncidentStateChanged():
                self._moved(watcher, event)
            case _:
                pass

    def _answered(self, watcher: Watcher, event: CheckAnswered) -> None:
        fails = self._watched.get(event.incident_id)
        if fails is None:
            watcher.fail(f"a check of {event.incident_id.hex()} is answered, which is not watched")
            return
        fails[event.number] = fails[event.number] + 1 if event.status == FAILED else 0

    def _ended(self, watcher: Watcher, event: WatchEnded) -> None:
        incident = watcher.mirror.state.incidents[event.incident_id]
        if self._watched.pop(event.incident_id, None) is None:
            watcher.fail(f"a watch of {event.incident_id.hex()} ends that never began")
        if not event.why and (incident.state is not IncidentState.RESOLVED or incident.firing):
            watcher.fail(f"no regression of {incident.id.hex()}, which is {incident.state}")

    def _moved(self, watcher: Watcher, event: IncidentStateChanged) -> None:
        if event.before in OPEN_STATES:
            return
        fails = self._watched.pop(event.incident_id, None)
        if event.after is IncidentState.CLOSED and fails is not None and event.actor == "system":
            watcher.fail(f"{event.incident_id.hex()} closes while it is watched")
        if " fails " in event.reason and max((fails or Counter[int]()).values(), default=0) < FAILS_MAX:
            watcher.fail(f"{event.incident_id.hex()} reopens: {event.reason}, and no check failed so often")

    def holds_for(self, watcher: Watcher) -> None:
        now, mirror = self.world.clock.now(), watcher.mirror
        store = mirror.of(VerificationOfShard).store
        for identity, mine in store.watches.items():
            incident = mirror.state.incidents[identity]
            if mine.until and not incident.firing and now > mine.until + LATE_S:
                if not any(each.failures for each in mine.checks):
                    watcher.fail(
                        f"{identity.hex()} is still watched, {now - mine.until:.0f} s after its time"
                    )
        if {key for key, each in store.watches.items() if each.until} != set(mirror.state.watched):
            watcher.fail("what is watched is not what is said to be")
        for identity in mirror.of(Runs).store.planned:
            tasks = mirror.of(Runs).store.of(identity).tasks
            due_at = min(each.due_at for each in tasks if each.is_to_be_told)
            if max(due_at, self._planned_at.get(identity, 0.0)) < now - LATE_S:
                watcher.fail(f"nobody is told that a task of {identity.hex()} is due")
        for counts in store.repaired.values():
            if counts.held + counts.broke > counts.healed or counts.quiet > counts.healed:
                watcher.fail(f"{counts.playbook}: {counts} does not add up")
