"""What the Redis adapters share: one connection, scripts, waiting for replicas, errors. Called by the files beside this one.

Connections, not the client's pools: WAIT counts the writes of its own connection, and a write must never be repeated
by anyone but the caller. All of a lane goes over one connection in turn, so writes keep their order.

Two ends of a write that did not answer:

    refused before it ran (an error reply, no connection)    Unavailable, Full: nothing was kept
    cut after it was sent, or too few replicas have it       OutcomeUnknown: it may be there, now or later
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from redis.asyncio import Connection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from models.errors import Broken, Full, IncidentManagerError, OutcomeUnknown, Unavailable
from services.stores.redis.options import RedisOptions
from services.stores.redis.server import Server, connect, look_at

#: A connection idle for longer is asked for a PING before a write: the peer may have gone without a word, and a write
#: sent to nobody would count as one of unknown outcome.
IDLE_BEFORE_PING_S = 1.0

#: When an exchange with a server last went unanswered for its whole time. Connections that were not heard of since are as
#: likely dead, half-open each; found one after the other, a shard with five of them would be away five times as long.
_doubted: dict[RedisOptions, float] = {}

Argument = str | bytes | int | float
Command = Sequence[Argument]
#: Bytes, a number, None, or a list of these.
Reply = object

#: Errors that mean "ask another server": the connection is dropped, the next one looks the primary up again.
_ELSEWHERE = (ReadOnlyError, MovedError, AskError, TryAgainError, ClusterDownError, MasterDownError)
_REFUSED_UNRUN = (BusyLoadingError, AuthenticationError, AuthorizationError)
_CUT = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError, EOFError)
_SIGN, _ALL_BITS = 1 << 63, (1 << 64) - 1
#: Redis 6.2 wraps an error within a script in words of its own; the code is still in them.
_CODE = re.compile(r"\b(OOM|READONLY|MISCONF|NOREPLICAS|BUSY)\b")
_NOT_HERE = re.compile(r"\b(READONLY|NOREPLICAS)\b")


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script. All or nothing: it runs alone, and what it wrote reaches replicas and disk as one.

    Redis tests for memory, replicas and disk at the first write of a script only. So a script that needs room begins
    with the write that takes it, and one that must work in a full store with one that takes none.
    """

    text: str

    @property
    def sha(self) -> str:
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], *arguments: Argument) -> Command:
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


class Lane:
    """One connection, used by one at a time; opened at first use, opened anew after a failure."""

    def __init__(
        self,
        options: RedisOptions,
        partition: str,
        place: str,
        scripts: Sequence[Script] = (),
        *,
        durable: bool,
    ) -> None:
        self._options = options
        self._partition = partition
        self._place = place
        self._scripts = scripts
        self._durable = durable
        self._connection: Connection | None = None
        self._server = Server()
        self._turn = asyncio.Lock()
        self._used_at = 0.0
        self._closed = False

    async def ask(self, *commands: Command) -> list[Reply]:
        """The replies of commands that change nothing. One whose connection proved dead is asked again, once."""
        async with self._turn:
            was_open = self._connection is not None
            with translated(self._place):
                try:
                    return await self._exchange(await self._ready(), commands)
                except _ELSEWHERE:
                    pass
                except _CUT as error:
                    if not was_open or isinstance(error, _REFUSED_UNRUN):
                        raise
                return await self._exchange(await self._ready(), commands)

    async def write(self, *commands: Command, replicated: bool = True) -> list[Reply]:
        """The replies of commands that change something, once the replicas have it too. Never repeated here.

        Raises Unavailable or Full when nothing was kept, OutcomeUnknown when nobody knows.
        """
        async with self._turn:
            with translated(self._place):
                connection = await self._ready(ping=True)
            wait = self._wait() if replicated else None
            with translated(self._place):
                try:
                    try:
                        replies = await self._exchange(connection, commands, wait)
                    except MovedError:  # not run: another node of the cluster has the slot now
                        replies = await self._exchange(await self._ready(), commands, wait)
                except _REFUSED_UNRUN:
                    raise
                except _CUT as error:
                    raise OutcomeUnknown(
                        f"{self._place}: connection lost during a write: {_said(error)}"
                    ) from error
            if wait is not None:
                try:
                    self._check_replicas(wait[0], replies.pop())
                except OutcomeUnknown:
                    await self._drop()  # its replicas may follow another one by now
                    raise
            return replies

    async def close(self) -> None:
        """Wait for what is under way, then free the connection. Safe to call twice."""
        self._closed = True
        async with self._turn:
            await self._drop()

    # --- the connection ---

    async def _ready(self, *, ping: bool = False) -> Connection:
        if self._closed:
            raise Unavailable(f"{self._place}: closed")
        if self._used_at < _doubted.get(self._options, 0.0):
            await self._drop()
        if self._connection is not None and ping and time.monotonic() - self._used_at > IDLE_BEFORE_PING_S:
            # When it fails the connection is gone, and dropped: the next one is made below.
            with contextlib.suppress(RedisError, *_CUT):
                await self._exchange(self._connection, [("PING",)], timeout_s=self._options.connect_timeout_s)
        if self._connection is None:
            async with asyncio.timeout(self._options.timeout_s):
                connection = await connect(self._options, self._partition)
                try:
                    self._server = await look_at(connection, self._options, durable=self._durable)
                except BaseException:
                    await _disconnect(connection)
                    raise
            self._connection, self._used_at = connection, time.monotonic()
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await _disconnect(connection)

    async def _exchange(
        self,
        connection: Connection,
        commands: Sequence[Command],
        wait: Command | None = None,
        *,
        timeout_s: float | None = None,
    ) -> list[Reply]:
        """Send them together, read a reply for each. Raises the first reply of `commands` that is an error; that of
        `wait` is returned even so, since it comes when all is done. After anything but an error reply the connection
        is dropped: what comes next on it would be the answer to something else."""
        loading: list[Command] = []
        timeout_s = timeout_s or self._options.timeout_s + self._options.replica_timeout_s
        while True:
            sent = [*loading, *commands, *([wait] if wait is not None else ())]
            try:
                async with asyncio.timeout(timeout_s):
                    await connection.send_packed_command(connection.pack_commands(sent), check_health=False)
                    replies = [await _reply(connection) for _command in sent][len(loading) :]
            except BaseException as failure:
                if isinstance(failure, TimeoutError):
                    _doubted[self._options] = time.monotonic()
                await self._drop()
                raise
            self._used_at = time.monotonic()
            error = next((each for each in replies[: len(commands)] if isinstance(each, RedisError)), None)
            if error is None:
                return replies
            if isinstance(error, NoScriptError) and not loading:
                # Nothing ran. A server that started anew has forgotten its scripts.
                loading = [("SCRIPT", "LOAD", script.text) for script in self._scripts]
                continue
            # A primary without replicas may have been superseded where nobody could tell it: who leads is asked again.
            if isinstance(error, _ELSEWHERE) or _NOT_HERE.search(str(error)):
                await self._drop()
            raise error

    # --- replicas ---

    def _wait(self) -> Command | None:
        if not self._durable or self._options.replicas == 0:
            return None
        timeout_ms = int(self._options.replica_timeout_s * 1000)
        if self._server.waitaof:
            return ("WAITAOF", 1, self._options.replicas, timeout_ms)
        return ("WAIT", self._options.replicas, timeout_ms)

    def _check_replicas(self, command: Argument, reply: Reply) -> None:
        needed = self._options.replicas
        have = reply[-1] if isinstance(reply, list) else reply
        if isinstance(have, int) and have >= needed:
            return
        if isinstance(have, RedisError):
            raise OutcomeUnknown(f"{self._place}: written, but {command!s} was refused: {_said(have)}")
        hint = ", and appendonly = yes on the replicas" if command == "WAITAOF" else ""
        raise OutcomeUnknown(
            f"{self._place}: written, but only {have} of {needed} replicas (state.redis.replicas) confirmed it within"
            f" {self._options.replica_timeout_s:g} s; check the replicas{hint}"
        )


async def _reply(connection: Connection) -> Reply:
    try:
        reply: Reply = await connection.read_response()
    except ResponseError as error:
        return error
    if isinstance(reply, list):  # an EXEC: the first of its errors stands for it
        return next((each for each in reply if isinstance(each, RedisError)), reply)
    return reply


async def _disconnect(connection: Connection) -> None:
    with contextlib.suppress(RedisError, *_CUT):
        await connection.disconnect(nowait=True)


@contextlib.contextmanager
def translated(place: str) -> Iterator[None]:
    """Redis's errors as ours; `place` names the partition in the message."""
    try:
        yield
    except IncidentManagerError as error:
        if place not in str(error) and type(error) is Unavailable:
            raise Unavailable(f"{place}: {error}") from error
        raise
    except (OutOfMemoryError, ResponseError) as error:
        raise _of_reply(place, error) from error
    except (*_CUT, RedisClusterException) as error:
        raise Unavailable(f"{place}: Redis is down: {_said(error)}") from error
    except RedisError as error:
        raise Broken(f"{place}: {_said(error)}") from error


def _of_reply(place: str, error: ResponseError) -> IncidentManagerError:
    """An error reply: Redis refused, nothing of the command was kept."""
    said = _said(error)
    found = _CODE.search(str(error))
    code = found[1] if found else ""
    if isinstance(error, OutOfMemoryError) or code == "OOM":
        return Full(f"{place}: Redis is at its maxmemory")
    if code == "MISCONF" and "No space" in str(error):
        return Full(f"{place}: the disk of Redis is full")
    if isinstance(error, (*_ELSEWHERE, NoPermissionError)) or code:
        return Unavailable(f"{place}: {said}")
    return Broken(f"{place}: {said}")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def sortable(at: float) -> bytes:
    """Eight bytes that sort as the number does, for sets that Redis keeps in the order of their bytes."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", at))
    return struct.pack(">Q", bits ^ (_ALL_BITS if bits & _SIGN else _SIGN))


def from_sortable(stored: bytes) -> float:
    """The number that sortable() was given."""
    (bits,) = struct.unpack(">Q", stored)
    (at,) = struct.unpack(">d", struct.pack(">Q", bits ^ (_SIGN if bits & _SIGN else _ALL_BITS)))
    return float(at)
