"""Stores that refuse, stall, tear, keep without saying so, and are full."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from models.errors import Full, OutcomeUnknown, Unavailable
from models.shard.archiving import ArchiveExpired, IncidentArchived
from tests.simulation.area import Area
from tests.simulation.settings import shard_name

if TYPE_CHECKING:
    from tests.simulation.world import World


class ShardFaults:
    """What happens to the stores of one shard. Port services.stores.memory.store.Faults."""

    #: Chance of a crash before and after an operation: high where two halves of one thing meet.
    CRASH = {
        "log.append": (0.002, 0.006),
        "log.open": (0.02, 0.02),
        "log.read": (0.02, 0.0),
        "log.records": (0.02, 0.0),
        "log.put_records": (0.01, 0.02),
        "log.close_snapshot": (0.03, 0.04),
        "log.truncate": (0.03, 0.04),
        "archive.put": (0.04, 0.06),
        "delivery_ids.add": (0.03, 0.02),
        "delivery_ids.seen": (0.01, 0.01),
    }

    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.index = index
        self.name = shard_name(index)

    async def before(self, operation: str) -> None:
        world = self.world
        if not world.is_troubled:
            return
        rng = world.rng
        await self._crash(operation, 0)
        if (
            operation in ("log.append", "log.put_records", "log.close_snapshot")
            and world.area(Stores).full_until > world.clock.elapsed
        ):
            raise Full(f"{operation}: no room")
        chance = rng.random()
        if operation == "log.append":
            if chance < 0.004:
                raise Unavailable("append failed, nothing kept")
            if chance < 0.008:
                raise OutcomeUnknown("append failed, nothing kept, nobody knows")
            if chance < 0.011:
                await asyncio.sleep(rng.choice((0.5, 2.0, 8.0, 20.0)))
            elif chance < 0.3:
                await asyncio.sleep(0.005)
        elif chance < 0.02:
            raise Unavailable(f"{operation} failed")
        elif chance < 0.05:
            await asyncio.sleep(rng.choice((0.01, 0.5, 3.0)))

    async def after(self, operation: str) -> None:
        world = self.world
        watcher = world.watchers[self.name]
        if operation == "log.append":
            if world.is_troubled and world.rng.random() < 0.002:
                world.story("the append is torn", partition=watcher.partition)
                world.store.damage_frame(watcher.partition, world.store.partition(watcher.partition).last_seq)
                await self._die(operation)
            watcher.feed()
            if world.rng.random() < 0.05:
                world.compare(self.index, "live state")
        elif operation == "log.close_snapshot":
            watcher.counts["snapshots"] = watcher.counts.get("snapshots", 0) + 1
            await watcher.check_snapshot()
        elif operation == "log.open":
            watcher.feed()
        if not world.is_troubled:
            return
        await self._crash(operation, 1)
        if world.rng.random() < 0.003 and operation != "log.truncate":
            raise OutcomeUnknown(f"{operation}: done, and nobody knows")

    async def _crash(self, operation: str, half: int) -> None:
        chances = self.CRASH.get(operation)
        if chances is not None and self.world.rng.random() < chances[half]:
            await self._die(f"{'after' if half else 'before'} {operation}")

    async def _die(self, where: str) -> None:
        self.world.kill(self.name, where)
        await asyncio.get_running_loop().create_future()


class Stores(Area):
    events = frozenset({IncidentArchived, ArchiveExpired})
    troubles = ("full",)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.full_until = 0.0

    def strike(self, trouble: str) -> None:
        self.full_until = self.world.clock.elapsed + self.world.rng.choice((0.5, 4.0, 10.0))
        self.world.story("the disk is full", until=self.full_until)
