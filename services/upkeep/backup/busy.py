"""One writer at a time in a target of backups: each says in a file that it is there, and looks for others then, so that of two
at the same time at least one sees the other. Who removes old backups is a writer too. Used by target.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import msgspec
import structlog

from actors.runtime.ending import end
from models.errors import Conflict, NotFound, Unavailable
from services.upkeep.backup.place import FilePlace

log = structlog.get_logger()

FOLDER = "busy"
#: A writer says every minute that it is there; five missed ones, and it counts as gone.
SAID_S = 60.0
GONE_S = 300.0
#: What this process says just now. A write that was cancelled may still end, and nobody takes that back.
_ours: set[str] = set()


class Busy(msgspec.Struct, frozen=True):
    """What a writer says of itself."""

    what: str
    host: str
    pid: int
    seen: float


@contextlib.asynccontextmanager
async def alone(place: FilePlace, what: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Nobody else writes or removes there meanwhile. Gives what raises Conflict when that holds no more: to be awaited before
    what can't be undone. Raises Conflict that names who is busy, Unavailable."""
    mine = f"{uuid4().hex}.json"
    me = Busy(what, socket.gethostname(), os.getpid(), 0.0)

    async def say() -> None:
        said = msgspec.json.encode(msgspec.structs.replace(me, seen=time.time()))
        await place.write(f"{FOLDER}/{mine}", said)

    async def keep_saying() -> None:
        while True:
            await asyncio.sleep(SAID_S)
            try:
                if mine not in await place.names(FOLDER):
                    return  # taken over: to say it again would hide that
                await say()
            except (Unavailable, NotFound) as error:
                log.warning("can't reach the backup target", target=place.url, why=str(error))

    async def still_alone() -> None:
        if mine not in await place.names(FOLDER):
            raise Conflict(
                f"another process took over {place.url}, because this one had shown no sign of life for {GONE_S:g} s"
            )

    _ours.add(mine)
    saying: asyncio.Task[None] | None = None
    try:
        await say()
        saying = asyncio.get_running_loop().create_task(keep_saying())
        await _refuse_beside_others(place, mine)
        yield still_alone
    finally:
        _ours.discard(mine)
        if saying is not None:
            await end([saying])
        with contextlib.suppress(Unavailable):  # it counts as gone soon
            await place.remove(f"{FOLDER}/{mine}")


async def _refuse_beside_others(place: FilePlace, mine: str) -> None:
    for name in sorted(await place.names(FOLDER)):
        if name == mine or not name.endswith(".json"):
            continue
        try:
            other = msgspec.json.decode(await place.read(f"{FOLDER}/{name}"), type=Busy)
        except (NotFound, msgspec.MsgspecError):
            continue  # it ended just now
        if time.time() - other.seen > GONE_S or _is_gone(name, other):
            await place.remove(f"{FOLDER}/{name}")
            continue
        raise Conflict(
            f"{other.what} is under way in {place.url}, by process {other.pid} on {other.host}; if that process is dead, its claim ends {GONE_S:g} s after its last sign of life"
        )


def _is_gone(name: str, other: Busy) -> bool:
    """Whether it was a process of this machine that is not there any more, or one before us that had our number."""
    if other.host != socket.gethostname():
        return False
    if other.pid == os.getpid():
        return name not in _ours
    try:
        os.kill(other.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
