"""The wiring of cluster.py with no Ray, all actors in one process: tests and the simulation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.runtime.host import Actor, Hired, Host, answer, unwrap
from models.errors import Unavailable

#: Makes an actor when it is started, and again each time it is started anew after its process "died".
Factory = Callable[[Host], Actor]


class LocalCluster:
    """Actors by name, in this process. Port Peers. An actor that calls `fatal` is gone until restart()."""

    def __init__(self) -> None:
        self._factories: dict[str, Factory] = {}
        self._actors: dict[str, Actor] = {}
        self.deaths: list[tuple[str, str]] = []
        #: What makes an actor that is hired, by its name.
        self.for_hire: dict[str, Factory] = {}

    async def start(self, name: str, factory: Factory) -> None:
        """Make and start an actor. Starting a name that lives changes nothing."""
        if name in self._actors:
            return
        self._factories[name] = factory

        def fatal(why: str) -> None:
            # A killed actor may still find out that it is fenced; by then its successor has the name.
            self._died(name, actor, why)

        actor = factory(Host(name, self, fatal, self.restart, self._hire, self._dismiss))
        self._actors[name] = actor
        await actor.start()

    def kill(self, name: str) -> Actor | None:
        """Forget an actor at once, as SIGKILL would; it is not notified. Returns it."""
        return self._actors.pop(name, None)

    async def restart(self, name: str) -> None:
        """Start a name anew from its factory."""
        self._actors.pop(name, None)
        await self.start(name, self._factories[name])

    async def _hire(self, hired: Hired) -> None:
        if hired.name not in self.for_hire:
            raise Unavailable(f"{hired.name} could not be started: nobody is for hire here")
        await self.start(hired.name, self.for_hire[hired.name])

    async def _dismiss(self, name: str) -> None:
        if (actor := self._actors.pop(name, None)) is not None:
            await actor.stop()

    def get(self, name: str) -> Actor | None:
        return self._actors.get(name)

    async def call(self, name: str, method: str, payload: bytes, timeout_s: float) -> bytes:
        actor = self._actors.get(name)
        if actor is None:
            raise Unavailable(f"{name} is away")
        # A task of its own, as it would be in another process.
        asked = asyncio.get_running_loop().create_task(answer(getattr(actor, method), payload))
        try:
            async with asyncio.timeout(timeout_s):
                wrapped = await asked
        except TimeoutError:
            raise Unavailable(f"{name}.{method} did not answer within {timeout_s:g} s") from None
        return unwrap(wrapped)

    async def stop(self) -> None:
        """Stop all actors, the last started first."""
        for name in reversed([*self._actors]):
            actor = self._actors.pop(name, None)
            if actor is not None:
                await actor.stop()

    def _died(self, name: str, actor: Actor, why: str) -> None:
        if self._actors.get(name) is actor:
            del self._actors[name]
        self.deaths.append((name, why))
