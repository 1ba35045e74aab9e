"""The network between the actors of a simulated system, and the processes they live and die in. Used by world.py."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from actors.runtime.host import Actor, answer, unwrap
from actors.runtime.local import Factory, LocalCluster
from actors.shard import IncidentShard
from models.errors import IncidentManagerError, Unavailable
from tests.simulation.areas.mutes import Mutes
from tests.simulation.areas.relations import Relations
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from tests.simulation.world import World


class Wire(LocalCluster):
    """LocalCluster whose actors are processes that die, with a network between them."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.processes: dict[str, Process] = {}

    async def start(self, name: str, factory: Factory) -> None:
        if name in self._actors:
            return
        process = self.processes[name] = Process(name)
        await self.world.loop.spawn_call(process, super().start(name, factory), lambda: dead(name))

    def kill(self, name: str) -> Actor | None:
        if name in self.processes:
            self.world.loop.kill(self.processes[name], lambda: dead(name))
        return super().kill(name)

    def _died(self, name: str, actor: Actor, why: str) -> None:
        self.world.fail(f"{name} gave up: {why}")
        self.kill(name)

    async def call(self, name: str, method: str, payload: bytes, timeout_s: float) -> bytes:
        world = self.world
        rng, rough = world.rng, world.is_troubled
        if method == "act":
            world.area(Mutes).leaves(payload)
            world.area(Relations).leaves(payload)
        fate = rng.random() if rough else 1.0
        if fate < 0.02:
            await asyncio.sleep(rng.choice((0.001, 0.5, min(timeout_s, 10.0))))
            raise Unavailable(f"{name}.{method}: the call was lost")
        if fate < 0.05:
            await asyncio.sleep(rng.choice((0.01, 0.3, 3.0)))
        elif fate < 0.07:
            world.spawn(self._again(name, method, payload, rng.choice((0.0, 0.2, 4.0))))
        actor = self._actors.get(name)
        if method == "beat" and isinstance(actor, IncidentShard):
            # Waits for nothing inside, and is a third of all calls: no process of its own for it.
            return await actor.beat(payload)
        answered = self._reach(name, method, payload)
        # Half of asyncio.wait_for's cost, and this is the busiest line of a run.
        timer = world.loop.call_later(timeout_s, _give_up, answered, f"{name}.{method}", timeout_s)
        try:
            wrapped = await answered
        finally:
            timer.cancel()
        if rough and rng.random() < 0.02:
            raise Unavailable(f"{name}.{method}: the answer was lost")
        return unwrap(wrapped)

    async def _again(self, name: str, method: str, payload: bytes, after_s: float) -> None:
        await asyncio.sleep(after_s)
        with contextlib.suppress(IncidentManagerError):
            await self._reach(name, method, payload)

    def _reach(self, name: str, method: str, payload: bytes) -> asyncio.Future[bytes]:
        actor = self._actors.get(name)
        if actor is None:
            away: asyncio.Future[bytes] = self.world.loop.create_future()
            away.set_exception(Unavailable(f"{name} is away"))
            return away
        work = self._run(name, actor, method, payload)
        return self.world.loop.spawn_call(self.processes[name], work, lambda: dead(name))

    async def _run(self, name: str, actor: Actor, method: str, payload: bytes) -> bytes:
        wrapped = await answer(getattr(actor, method), payload)
        watcher = self.world.watchers.get(name)
        if watcher is not None and wrapped[:1] == b"\x00":
            if method == "tell":
                watcher.told(payload, wrapped[1:])
            elif method == "ask":
                watcher.asked(payload, wrapped[1:])
        return wrapped


def _give_up(answered: asyncio.Future[bytes], what: str, after_s: float) -> None:
    if not answered.done():
        answered.set_exception(Unavailable(f"{what} did not answer within {after_s:g} s"))


def dead(name: str) -> Unavailable:
    return Unavailable(f"{name} died")
