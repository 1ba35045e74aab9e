"""Calls between processes of one host over a unix socket, beside Ray's own. Used by cluster.py only.

An actor call of Ray costs 0.65 ms of two cores' time whatever it carries; these frames cost 0.05 ms. Ray still starts,
names, restarts and finds the actors, and its calls serve whoever is on another host. A lost connection is noticed at
once, which is also the fastest sign that an actor died.

    request   u32 length of what follows, u64 id, method, NUL, payload
    answer    u32 length of what follows, u64 id, wrapped answer (actors/runtime/host.py)

The folder is the instance's own (0700): who can open the socket could read the log's files as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import cast

import structlog

from actors.runtime.host import Actor, answer
from models.errors import Broken, IncidentManagerError, Malformed, Unavailable

log = structlog.get_logger()

#: The environment variable that names the instance's private folder; absent on a Ray that is not ours.
FOLDER_VARIABLE = "LLM_IM_PRIVATE_DIR"
#: A frame is a coalesced call: far below this. A longer one means the stream is out of step.
FRAME_MAX_BYTES = 256 * 1024 * 1024
#: A socket that refuses belongs to a dead process, which Ray restarts here in under a second. Only after this time is
#: the actor looked for elsewhere: a Ray call to a restarting actor returns 1.2 s later than it could.
RESTART_S = 3.0

_HEAD = struct.Struct("<IQ")


def socket_path(actor: str) -> Path | None:
    """Where an actor listens on this host, or None where there is no folder for it."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return None if folder is None else Path(folder) / f"{actor}.sock"


def kill_listener(path: Path) -> bool:
    """SIGKILL to the process that listens there: the kernel takes connections for it also while it answers nothing.
    Does nothing where nobody listens. False if its queue is full, because then the process can't be identified."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        try:
            caller.connect(str(path))
        except BlockingIOError:
            return False
        except OSError:
            return True
        pid, _uid, _gid = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True


class _Frames(asyncio.Protocol):
    """Cuts a stream into (id, content); `lost` is called once when it ends."""

    def __init__(self, take: Callable[[int, bytes], None], lost: Callable[[], None]) -> None:
        self._take = take
        self._lost = lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports are no asyncio.Transport by class.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        place = 0
        while len(buffer) - place >= _HEAD.size:
            length, identity = _HEAD.unpack_from(buffer, place)
            if length > FRAME_MAX_BYTES:
                self.close()
                return
            end = place + _HEAD.size + length
            if len(buffer) < end:
                break
            with memoryview(buffer) as view:
                content = bytes(view[place + _HEAD.size : end])
            self._take(identity, content)
            place = end
        if place:
            del buffer[:place]

    def send(self, identity: int, *parts: bytes) -> None:
        if self._transport is not None:
            self._transport.writelines([_HEAD.pack(sum(map(len, parts)), identity), *parts])

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class DirectServer:
    """Answers calls to one actor until closed."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._server: asyncio.AbstractServer | None = None
        self._connections: set[_Frames] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, path: Path) -> None:
        """Take over the path: what a dead process left there is removed."""
        # Bound under another name and renamed, so that the path always leads to a listener.
        fresh = path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        self._server = await asyncio.get_running_loop().create_unix_server(self._connect, str(fresh))
        fresh.rename(path)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.close()

    def _connect(self) -> _Frames:
        connection = _Frames(
            lambda identity, content: self._take(connection, identity, content),
            lambda: self._connections.discard(connection),
        )
        self._connections.add(connection)
        return connection

    def _take(self, connection: _Frames, identity: int, content: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(connection, identity, content))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, connection: _Frames, identity: int, content: bytes) -> None:
        name, _, payload = content.partition(b"\0")

        async def method(given: bytes) -> bytes:
            # Always answer: a caller that gets no answer waits for its whole timeout.
            try:
                return await self._method(name.decode("latin-1"))(given)
            except IncidentManagerError:
                raise
            except Exception as error:
                log.exception("bug: call failed", method=name.decode("latin-1"))
                raise Broken(repr(error)) from error

        connection.send(identity, await answer(method, payload))

    def _method(self, name: str) -> Callable[[bytes], asyncio.Future[bytes]]:
        method = None if name.startswith("_") else getattr(self._actor, name, None)
        if method is None:
            raise Malformed(f"an actor has no method {name!r}")
        found: Callable[[bytes], asyncio.Future[bytes]] = method
        return found


class DirectLine:
    """This process's connection to one actor on this host. Connects on first use, and again after a loss."""

    def __init__(self, actor: str, path: Path) -> None:
        self._actor = actor
        self._path = path
        self._frames: _Frames | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._last = 0
        self._connecting = asyncio.Lock()
        self._refused_since: float | None = None

    async def call(self, method: str, payload: bytes, timeout_s: float) -> bytes | None:
        """The wrapped answer, or None when nobody listens here. Raises Unavailable while the actor restarts, when
        the connection was lost meanwhile (it may have been done) or no answer came in time."""
        if self._frames is None and not await self._connect():
            return None
        frames = self._frames
        if frames is None:
            raise Unavailable(f"{self._actor} is away")
        loop = asyncio.get_running_loop()
        self._last += 1
        identity = self._last
        waiting: asyncio.Future[bytes] = loop.create_future()
        self._waiting[identity] = waiting
        timer = loop.call_later(timeout_s, self._too_late, identity, method, timeout_s)
        frames.send(identity, method.encode("latin-1"), b"\0", payload)
        try:
            return await waiting
        finally:
            timer.cancel()
            self._waiting.pop(identity, None)

    async def _connect(self) -> bool:
        async with self._connecting:
            if self._frames is not None:
                return True
            frames = _Frames(self._took, self._lost)
            try:
                await asyncio.get_running_loop().create_unix_connection(lambda: frames, str(self._path))
            except ConnectionRefusedError:
                now = asyncio.get_running_loop().time()
                self._refused_since = self._refused_since or now
                if now - self._refused_since < RESTART_S:
                    raise Unavailable(f"{self._actor} is being restarted") from None
                return False
            except OSError:
                return False
            self._refused_since = None
            self._frames = frames
            return True

    def _took(self, identity: int, content: bytes) -> None:
        waiting = self._waiting.get(identity)
        if waiting is not None and not waiting.done():
            waiting.set_result(content)

    def _lost(self) -> None:
        self._frames = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unavailable(f"{self._actor} went away during a call"))

    def _too_late(self, identity: int, method: str, timeout_s: float) -> None:
        waiting = self._waiting.get(identity)
        if waiting is not None and not waiting.done():
            waiting.set_exception(
                Unavailable(f"{self._actor}.{method} did not answer within {timeout_s:g} s")
            )
