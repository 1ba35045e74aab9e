"""A whole system in one process and seeded trouble. Used by test_simulation.py and __main__.

    people  --.
    senders --> gateways (formats, Submitter, ShardLine) --> wire --> IncidentShard x 2..3 --> memory stores
                                                              |            |  ^
                                                              +--> classifier, responder --> Receiver

Everything between two boxes may fail: the wire loses, repeats and delays; stores refuse, stall, tear, and keep
without saying so; processes are killed at whatever await they stand. Who acts, what fails and what must hold is by area
(areas/). `Watcher` sees what is durable.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from actors.classifier import ClassifierActor
from actors.control import ControlActor
from actors.control_tail import ControlTail
from actors.runtime.host import Actor, Host
from actors.runtime.local import Factory
from actors.shard import IncidentShard, ShardOptions
from actors.snapshots import Pace
from actors.targets import Targets
from models.classification.rules import Classifier
from models.partition.event import Event
from models.partition.sharding import partition_name
from models.shard.messages import Decision
from services.stores.memory.archive import MemoryArchive
from services.stores.memory.delivery_ids import MemoryDeliveryIds
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from tests.clock import ManualClock
from tests.simulation import mutations
from tests.simulation.area import Area
from tests.simulation.areas import AREAS
from tests.simulation.areas.alerts import Alerts
from tests.simulation.areas.notifications import Notifications
from tests.simulation.areas.paging import Paging
from tests.simulation.areas.processes import Processes
from tests.simulation.areas.runs import Runs
from tests.simulation.areas.stores import ShardFaults
from tests.simulation.gateway import Gateway, first_slots
from tests.simulation.loop import BEGINNING, VirtualLoop
from tests.simulation.settings import SETTINGS, SETTLE_S, TROUBLE_S, shard_name
from tests.simulation.small_world import small_world
from tests.simulation.watch import Watcher
from tests.simulation.wire import Wire

AnyArea = TypeVar("AnyArea", bound=Area)
#: More than this waits in no queue of a shard where all is quiet.
WAITING_MAX = 50


class World:
    """One run. Everything that happens is drawn from `seed`. `mutation` breaks the system on purpose (mutations.py)."""

    def __init__(self, seed: int, *, mutation: str = "", tell: bool = False) -> None:
        self.seed = seed
        self.mutation = mutation
        self.rng = random.Random(seed)
        self.clock = ManualClock(BEGINNING)
        # asyncio's loop has methods that are abstract by name only, for what does not exist here.
        self.loop = VirtualLoop(self.clock)  # type: ignore[abstract]
        self.store = MemoryStore()
        self.wire = Wire(self)
        self.shards = self.rng.choice((2, 2, 3))
        self.is_troubled = False
        #: All is well from here on; nothing begins to fail again.
        self.is_settling = False
        self.violations: list[str] = []
        self.lines: list[str] | None = [] if tell else None
        self.watchers: dict[str, Watcher] = {}
        self.areas: dict[type[Area], Area] = {kind: kind(self) for kind in AREAS}
        self._lookers = [area.seen for area in self.areas.values() if type(area).seen is not Area.seen]
        self._over: asyncio.Future[None] | None = None
        settings = SETTINGS
        if mutation == "no grace":
            settings = msgspec.structs.replace(SETTINGS, expiry_grace_s=0.0)
        self.settings = settings
        alerts, receivers = self.area(Alerts), self.area(Notifications).receivers
        for index in range(self.shards):
            self.watchers[shard_name(index)] = Watcher(
                partition_name(index),
                SETTINGS if mutation == "no grace" else settings,
                self.store,
                self.clock,
                self.fail,
                may_expire=alerts.may_expire,
                was_ended=alerts.was_ended,
                was_received=lambda name, key: key in receivers[name].taken,
                seen=self._seen,
            )

    def _seen(self, watcher: Watcher, event: Event) -> None:
        for look in self._lookers:
            look(watcher, event)

    def area(self, kind: type[AnyArea]) -> AnyArea:
        found = self.areas[kind]
        assert isinstance(found, kind)
        return found

    # -- the run -------------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """All of it. Returns the broken laws; none is what we want."""
        with small_world(self):
            try:
                self.loop.run_until(self._run())
            finally:
                # Coroutines of the dead are closed with the world: what their `finally` does no longer matters.
                asyncio.set_event_loop(None)
                for area in self.areas.values():
                    area.close()
        return self.violations

    async def _run(self) -> None:
        self._over = self.loop.create_future()
        work = asyncio.create_task(self._story())
        await asyncio.wait({work, self._over}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()

    async def _story(self) -> None:
        wire, receivers = self.wire, self.area(Notifications).receivers
        await wire.start(
            "control-a",
            lambda host: ControlActor(
                host, self._log("control"), self.clock, self.shards, pace=Pace(2, 1 << 30, 1 << 20, 30.0)
            ),
        )
        await wire.start("classifier-0", lambda host: ClassifierActor(host, Classifier()))
        await wire.start(
            "responder-0",
            lambda host: mutations.responder(self.mutation)(
                host,
                {**receivers, **self.area(Paging).phones},
                targets=Targets(self.clock),
                worker=self.area(Runs).worker,
                control=ControlTail(self._log("control")),
                clock=self.clock,
            ),
        )
        for index in range(self.shards):
            await wire.start(shard_name(index), self._shard_factory(index))
        processes = self.area(Processes)
        processes.start_gateways()
        await self.area(Runs).begin()
        await asyncio.sleep(1.0)
        self.is_troubled = True
        self._lives = [self.spawn(life) for area in self.areas.values() for life in area.lives()]
        await asyncio.sleep(TROUBLE_S)
        if processes.has_outage:
            await processes.outage()
        self.is_troubled, self.is_settling = False, True
        self.story("all is well from here on")
        for name in [*wire.processes]:
            if name not in wire._actors:
                await wire.restart(name)
        processes.start_gateways()
        await asyncio.sleep(SETTLE_S)
        self._at_the_end()

    def _at_the_end(self) -> None:
        """What must have come about after SETTLE_S without trouble."""
        for index in range(self.shards):
            shard, watcher = self.shard(index), self.watchers[shard_name(index)]
            if shard is None or not shard._ready:
                self.fail(f"{shard_name(index)} did not come back: {shard and shard._why_not}")
                return
            self.compare(index, "live state at the end")
            for area in self.areas.values():
                area.holds_for(watcher)
            for waiting in (len(shard._inbox), len(shard._reads), shard.errands.waiting):
                if waiting > WAITING_MAX:
                    self.fail(f"{watcher.partition}: a queue does not empty")
        for area in self.areas.values():
            area.holds()

    def _shard_factory(self, index: int) -> Factory:
        def make(host: Host) -> Actor:
            partition = partition_name(index)
            faults = ShardFaults(self, index)
            options = ShardOptions(
                partition=partition,
                classifiers=["classifier-0"],
                responders=["responder-0"],
                shards=[shard_name(other) for other in range(self.shards)],
                snapshot_every_frames=20,
                snapshot_every_s=30.0,
                dedup_window_s=900.0,
            )
            return mutations.shard(self.mutation)(
                host,
                options,
                self.settings,
                mutations.log(self.mutation)(self.store, partition, faults),
                MemoryArchive(self.store, partition, faults),
                mutations.deliveries(self.mutation)(MemoryDeliveryIds(self.store, partition, faults), 900.0),
                self.clock,
                ControlTail(self._log("control")),
            )

        return make

    def _log(self, partition: str) -> MemoryEventLog:
        return MemoryEventLog(self.store, partition)

    def shard(self, index: int) -> IncidentShard | None:
        actor = self.wire.get(shard_name(index))
        return actor if isinstance(actor, IncidentShard) else None

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` outside any process."""
        return self.loop.spawn_outside(work)

    def fail(self, how: str) -> None:
        """A law is broken: the run is over."""
        self.violations.append(how)
        self.story("BROKEN", how=how)
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def story(self, what: str, /, **fields: object) -> None:
        if self.lines is not None:
            told = " ".join(f"{name}={value}" for name, value in fields.items())
            self.lines.append(f"{self.clock.elapsed:9.3f}  {what} {told}")

    def reached(self) -> dict[str, int]:
        """How often each thing happened: what a set of seeds must not leave out."""
        counts: dict[str, int] = {"acknowledged": self.area(Alerts).acknowledged, "steps": self.loop.steps}
        for watcher in self.watchers.values():
            for name, count in watcher.counts.items():
                counts[name] = counts.get(name, 0) + count
            for place, count in enumerate(watcher.decided):
                if count:
                    name = Decision(place).name
                    counts[name] = counts.get(name, 0) + count
        return counts

    # -- what every area asks of it ------------------------------------------------------------------------

    def kill(self, name: str, where: str) -> None:
        """A process dies, and is started anew after a while."""
        self.area(Processes).kill(name, where)

    def gateway(self) -> Gateway | None:
        """One that takes calls, as a load balancer would choose it."""
        return self.area(Processes).gateway()

    def compare(self, index: int, which: str) -> None:
        shard = self.shard(index)
        if shard is not None and shard._ready:
            self.watchers[shard_name(index)].compare(shard.shard, which)

    def time(self) -> float:
        """A sender's clock, to the millisecond; nobody sets it back."""
        return math.floor((self.clock.elapsed + BEGINNING) * 1000) / 1000

    def owner(self, slot: int) -> int:
        """The shard that has a slot: nothing moves in a run."""
        return first_slots(self.shards).owners[slot]
