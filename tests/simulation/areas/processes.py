"""Processes that are killed at whatever await they stand, and gateways that nobody reaches for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from models.shard.events import ShardStarted
from models.shard.reception import ReceptionGap
from tests.simulation import mutations
from tests.simulation.area import Area
from tests.simulation.gateway import Gateway
from tests.simulation.settings import shard_name
from tests.simulation.wire import dead

if TYPE_CHECKING:
    from tests.simulation.world import World

OUTAGE_S = 600.0


class Processes(Area):
    events = frozenset({ShardStarted, ReceptionGap})
    troubles = ("shard", "shard", "gateway", "helper")

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.has_outage = world.rng.random() < 0.08
        #: Nobody can reach us: no gateway starts.
        self.is_cut_off = False
        self.gateways: list[Gateway | None] = [None, None]
        self.gateways_made = 0

    def strike(self, trouble: str) -> None:
        rng = self.world.rng
        match trouble:
            case "shard":
                self.kill(shard_name(rng.randrange(self.world.shards)), "by chance")
            case "gateway":
                self.world.spawn(self._gateway_restarts(rng.randrange(2), rng.choice((0.0, 1.0, 7.0))))
            case "helper":
                self.kill(rng.choice(("classifier-0", "responder-0")), "by chance")

    def lives(self) -> list[Coroutine[Any, Any, None]]:
        return [self._chance()]

    async def _chance(self) -> None:
        """What goes wrong by itself, in all areas: the wire and the stores fail when they are used."""
        world = self.world
        troubles = [(area, trouble) for area in world.areas.values() for trouble in area.troubles]
        while True:
            await asyncio.sleep(world.rng.uniform(0.5, 6.0) * (10.0 if self.is_cut_off else 1.0))
            if world.is_settling:
                return
            area, trouble = world.rng.choice(troubles)
            area.strike(trouble)

    def kill(self, name: str, where: str) -> None:
        self.world.story(f"KILL {name}", where=where)
        self.world.wire.kill(name)
        if name in self.world.watchers:
            mutations.crashed(self.world.mutation, self.world.store, self.world.watchers[name].partition)
        self.world.spawn(self._restart(name, self.world.rng.choice((0.05, 0.5, 2.0))))

    async def _restart(self, name: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        if self.world.wire.get(name) is None:
            await self.world.wire.restart(name)

    def start_gateways(self) -> None:
        """Those that are not there."""
        for place, gateway in enumerate(self.gateways):
            if gateway is None:
                self._start_gateway(place)

    def _start_gateway(self, place: int) -> None:
        if self.is_cut_off:
            return
        self.gateways_made += 1
        self.gateways[place] = Gateway(self.world, f"gateway-{place}", self.gateways_made)

    def _kill_gateway(self, place: int) -> None:
        gateway = self.gateways[place]
        if gateway is not None:
            self.world.story(f"KILL {gateway.name}")
            self.world.loop.kill(gateway.process, lambda: dead(gateway.name))
            self.gateways[place] = None

    async def _gateway_restarts(self, place: int, after_s: float) -> None:
        self._kill_gateway(place)
        await asyncio.sleep(after_s)
        if self.gateways[place] is None:
            self._start_gateway(place)

    async def outage(self) -> None:
        self.world.story("nobody can reach us for ten minutes")
        self.world.is_troubled, self.is_cut_off = False, True
        for place in range(2):
            self._kill_gateway(place)
        await asyncio.sleep(OUTAGE_S)
        self.world.is_troubled, self.is_cut_off = self.world.rng.random() < 0.5, False
        self.start_gateways()
        await asyncio.sleep(10.0)

    def gateway(self) -> Gateway | None:
        alive = [gateway for gateway in self.gateways if gateway is not None and gateway.is_open]
        return self.world.rng.choice(alive) if alive else None
