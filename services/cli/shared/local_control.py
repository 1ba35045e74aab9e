"""The control partition without HTTP and without a token: for who owns its files. `llm-im tokens --local` and `up`.

Beside a running system its writer is told over its socket, in the instance's private folder. Where nothing runs, a
writer of our own opens the log for a moment. Either way only the user who runs the system can do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from actors.control import ControlActor
from actors.control_tail import ControlTail
from actors.partition import LEASE_S
from actors.runtime.clock import SystemClock
from actors.runtime.direct import DirectLine
from actors.runtime.host import Host, unwrap
from models.control.control import CONTROL, ControlMessage, encode_message
from models.errors import Unavailable
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.where import options
from services.identity.tokens import TokenDesk
from services.machine import launch
from services.machine.instance import Instance, refuse_other_user
from services.wiring.bootstrap import CONTROL_ACTOR, open_log
from services.wiring.slots import moved_away, refuse_lost_control

if TYPE_CHECKING:
    from models.settings.all import Settings

#: Who writes the log while nothing runs. Another name than the actor's: so that both can't write at once.
WRITER = "llm-im-tokens"
#: A system that was killed leaves its lease; then one waits until it has run out.
PATIENCE_S = LEASE_S + 2.0
CALL_TIMEOUT_S = 10.0
_RETRY_S = 0.1


def actor() -> str:
    """Who does it, for the log."""
    try:
        return f"local:{getpass.getuser()}"
    except (KeyError, OSError):
        return "local"


@contextlib.asynccontextmanager
async def desk(settings: Settings) -> AsyncIterator[TokenDesk]:
    """A desk for tokens of this data folder. What is told to it raises Failure when another writer holds the log."""
    tail = ControlTail(open_log(settings, CONTROL))
    writer: _Own | _Running | None = None

    async def tell(message: ControlMessage) -> None:
        nonlocal writer
        if writer is None:
            # Not before there is something to write: a list must not take the log from anybody.
            instance = launch.running(Path(settings.state.path))
            if instance is None:
                refuse_other_user(Path(settings.state.path), "tokens ... --local")
            writer = _Own(settings) if instance is None else _Running(instance)
            await writer.start()
        payload = encode_message(message)
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            with contextlib.suppress(Unavailable):
                await writer.change(payload)
                return
            if asyncio.get_running_loop().time() >= deadline:
                raise Failure(
                    f"the control log in {settings.state.path} can't be written: what runs on it does not answer, or "
                    "another process holds it; look: "
                    f"llm-im status{options(data=settings.state.path)}",
                    ExitCode.DEGRADED,
                )
            await asyncio.sleep(_RETRY_S)

    try:
        await tail.follow()
        if tail.state.moved is not None:
            raise Failure(moved_away(tail.state.moved), ExitCode.CONFLICT)
        if tail.state.slots is None:
            await refuse_lost_control(settings)
        yield TokenDesk(tail, tell)
    finally:
        if writer is not None:
            await writer.stop()
        await tail.close()


class _Running:
    """The control actor of a running instance, over its socket."""

    def __init__(self, instance: Instance) -> None:
        self._line = DirectLine(CONTROL_ACTOR, Path(instance.private_dir) / f"{CONTROL_ACTOR}.sock")

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def change(self, payload: bytes) -> None:
        wrapped = await self._line.call("change", payload, CALL_TIMEOUT_S)
        if wrapped is None:
            raise Unavailable(f"{CONTROL_ACTOR} does not listen")
        unwrap(wrapped)


class _Own:
    """A control actor in this process, while no other writes."""

    def __init__(self, settings: Settings) -> None:
        host = Host(WRITER, _Nobody(), _fatal)
        self._actor = ControlActor(host, open_log(settings, CONTROL), SystemClock(), None)

    async def start(self) -> None:
        await self._actor.start()

    async def stop(self) -> None:
        await self._actor.stop()

    async def change(self, payload: bytes) -> None:
        await self._actor.change(payload)


class _Nobody:
    """Peers of a writer that calls nobody."""

    async def call(self, name: str, method: str, payload: bytes, timeout_s: float) -> bytes:
        raise Unavailable(f"there is no {name} here")


def _fatal(why: str) -> NoReturn:
    raise Failure(why)
