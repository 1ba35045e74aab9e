"""What the PostgreSQL adapters share: transactions in turn, repeats, errors. Called by the files beside this one.

A lane is one thread that does one piece of work at a time over a connection of the process's pool, so that writes keep
their order and nothing of the client waits in the event loop.

Ends of a transaction that did not succeed:

    an error before COMMIT was sent, or a cut connection      Unavailable, Full: nothing was kept
    a conflict with another one (_AGAIN)                      done again, up to ATTEMPTS times
    a cut or any other error after COMMIT was sent            OutcomeUnknown: it may be there
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg
from psycopg import errors as said

from models.errors import Broken, Damaged, Full, IncidentManagerError, OutcomeUnknown, Unavailable
from services.stores.postgres.options import PostgresOptions
from services.stores.postgres.pool import GRACE_S, Connection, Pool, cut

#: How often a transaction that met another one is done: CockroachDB and YugabyteDB ask for it under load.
ATTEMPTS = 8
#: The wait before the second attempt; it doubles, by chance up to half of it less.
FIRST_PAUSE_S = 0.005

#: Sent to who met another transaction: nothing was kept, and the same may succeed now. A row that no table takes is one of
#: a month that was dropped since it was looked for (archive_months.py); the tables have no other checks.
_AGAIN = (said.SerializationFailure, said.DeadlockDetected, said.LockNotAvailable, said.CheckViolation)
#: SQLSTATEs, or their classes, of a server that is there but can't do it now.
_LATER = ("08", "25006", "25P03", "25P04", "28", "3D000", "3F000", "42501", "53", "55P03", "57", "58", "F0")
#: What a connection says last, when it says anything: an administrator or the server's end took it, or we were silent
#: within a transaction for too long, on a network that is slow or a machine that stood still.
_DEAD = (None, "57P01", "57P02", "57P03", "25P03")
_DAMAGED = ("XX001", "XX002")

T = TypeVar("T")
_pools: dict[PostgresOptions, tuple[Pool, int]] = {}
_pools_lock = threading.Lock()


class Lane:
    """One piece of work at a time. Constructing it connects nowhere."""

    def __init__(self, options: PostgresOptions, place: str) -> None:
        self._options = options
        self._place = place
        self._pool: Pool | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"postgres {place}")
        self._turn = asyncio.Lock()
        self._in_use: Connection | None = None
        self._in_use_lock = threading.Lock()
        self._in_use_since = 0.0
        self._gave_up = False
        self._watch: asyncio.TimerHandle | None = None
        self._limit_s = options.timeout_s + GRACE_S
        self._closed = False

    async def read(self, work: Callable[[Connection], T]) -> T:
        """work(connection) in a transaction that changes nothing and sees one state. One that met a dead connection, or
        another transaction, is done again."""
        return await self._run(lambda: self._again(lambda: self._read(work), cut_too=True))

    async def write(self, work: Callable[[Connection], T], *, synced: bool = True) -> T:
        """work(connection) in one transaction, durable when it returns. `synced=False` leaves the wait for the disk to the
        next one that is: a crash of the server loses a suffix of them, never one from between, since the write-ahead log
        is one."""
        return await self._run(lambda: self._again(lambda: self._write(work, synced)))

    async def statement(self, work: Callable[[Connection], T]) -> T:
        """work(connection) that sends one statement, which is a transaction of its own: in one round trip, durable when it
        returns."""
        return await self._run(lambda: self._again(lambda: self._statement(work)))

    async def close(self) -> None:
        """Wait for what is under way, then free thread and connections. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        last = self._thread.submit(self._release)
        self._thread.shutdown(wait=False)
        await asyncio.wrap_future(last)

    # --- in the event loop ---

    async def _run(self, work: Callable[[], T]) -> T:
        async with self._turn:
            if self._closed:
                raise Unavailable(f"{self._place}: closed")
            loop = asyncio.get_running_loop()
            self._gave_up = False
            self._watch = loop.call_later(self._limit_s, self._look)
            try:
                return await loop.run_in_executor(self._thread, work)
            except asyncio.CancelledError:
                self._give_up()  # the thread must not go on with what nobody waits for
                raise
            finally:
                self._watch.cancel()

    def _look(self) -> None:
        """Give up on a server that has not answered for too long; connecting has a bound of its own."""
        since = self._in_use_since
        left_s = self._limit_s - (time.monotonic() - since) if since else self._limit_s
        if left_s <= 0:
            if self._pool is not None:
                self._pool.doubt()
            self._give_up()
        else:
            self._watch = asyncio.get_running_loop().call_later(left_s, self._look)

    def _give_up(self) -> None:
        with self._in_use_lock:
            self._gave_up = True
            if self._in_use is not None:
                cut(self._in_use)

    # --- in the thread ---

    def _again(self, work: Callable[[], T], *, cut_too: bool = False) -> T:
        """work() until it meets no other transaction. `cut_too`: once more, also when its connection proved dead."""
        attempt = 0
        while True:
            attempt += 1
            with translated(self._place):
                try:
                    return work()
                except _AGAIN as error:
                    if attempt == ATTEMPTS or self._gave_up:
                        raise Unavailable(
                            f"{self._place}: conflicted with other transactions {attempt} times: {_words(error)}"
                        ) from error
                except (psycopg.OperationalError, said.IdleInTransactionSessionTimeout) as error:
                    if not (cut_too and attempt == 1 and error.sqlstate in _DEAD) or self._gave_up:
                        raise
            time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))  # noqa: S311

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self._connected() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            with _rolled_back(connection):
                return work(connection)

    def _write(self, work: Callable[[Connection], T], synced: bool) -> T:
        with self._connected() as connection:
            connection.execute("BEGIN")
            try:
                if not synced and connection.may_defer_sync:
                    connection.execute("SET LOCAL synchronous_commit = off")
                done = work(connection)
            except BaseException:
                with _rolled_back(connection):
                    raise
            connection.warned = None
            try:
                ended = connection.execute("COMMIT").statusmessage
            except _AGAIN:
                raise
            except psycopg.Error as error:
                raise OutcomeUnknown(
                    f"{self._place}: connection lost during a commit: {_words(error)}"
                ) from error
            if ended != "COMMIT":
                raise Unavailable(f"{self._place}: the transaction ended with {ended}: nothing was kept")
            self._check_warning(connection)
            return done

    def _statement(self, work: Callable[[Connection], T]) -> T:
        with self._connected() as connection:
            connection.warned = None
            try:
                done = work(connection)
            except psycopg.Error as error:
                # An error that the server told in the middle of a living connection undid the statement.
                if connection.closed or error.sqlstate is None or error.sqlstate == "40003":
                    raise OutcomeUnknown(
                        f"{self._place}: connection lost during a write: {_words(error)}"
                    ) from error
                raise
            self._check_warning(connection)
            return done

    def _check_warning(self, connection: Connection) -> None:
        # Who stops waiting for a standby is told so by a warning, and the commit counts as done.
        if connection.warned is not None:
            raise OutcomeUnknown(f"{self._place}: committed, but the server warns: {connection.warned}")

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        if self._pool is None:
            self._pool = _share(self._options)
        with self._pool.connection() as connection:
            with self._in_use_lock:
                if self._gave_up:
                    raise Unavailable(f"{self._place}: given up")
                self._in_use, self._in_use_since = connection, time.monotonic()
            try:
                yield connection
            except psycopg.errors.ReadOnlySqlTransaction:
                connection.close()  # the next one looks for the primary
                raise
            finally:
                with self._in_use_lock:
                    self._in_use, self._in_use_since = None, 0.0

    def _release(self) -> None:
        if self._pool is not None:
            self._pool = None
            _give_back(self._options)


def _share(options: PostgresOptions) -> Pool:
    with _pools_lock:
        pool, users = _pools.get(options) or (Pool(options), 0)
        _pools[options] = (pool, users + 1)
        return pool


def _give_back(options: PostgresOptions) -> None:
    with _pools_lock:
        pool, users = _pools.pop(options)
        if users > 1:
            _pools[options] = (pool, users - 1)
            return
    pool.close()


@contextlib.contextmanager
def _rolled_back(connection: Connection) -> Iterator[None]:
    """End the transaction without keeping anything; the first error is the one to tell."""
    try:
        yield
    finally:
        with contextlib.suppress(psycopg.Error):
            connection.execute("ROLLBACK")


@contextlib.contextmanager
def translated(place: str) -> Iterator[None]:
    """PostgreSQL's errors as ours; `place` names the partition in the message."""
    try:
        yield
    except IncidentManagerError as error:
        if place not in str(error) and type(error) is Unavailable:
            raise Unavailable(f"{place}: {error}") from error
        raise
    except psycopg.Error as error:
        raise _of_error(place, error) from error


def _of_error(place: str, error: psycopg.Error) -> IncidentManagerError:
    state = error.sqlstate or ""
    if isinstance(error, said.DiskFull):
        return Full(f"{place}: the disk of PostgreSQL is full")
    if state in _DAMAGED:
        return Damaged(place, 0, f"PostgreSQL says: {_words(error)}")
    if state.startswith(_LATER) or (not state and isinstance(error, psycopg.OperationalError)):
        return Unavailable(f"{place}: PostgreSQL is down or refuses: {_words(error)}")
    return Broken(f"{place}: {_words(error)}")


def _words(error: BaseException) -> str:
    """One line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def storable(text: str) -> str:
    """PostgreSQL's text holds every character but NUL."""
    return text.replace("\0", "\ufffd")
