"""What the SQLite adapters share: opening files, transactions, threads, errors. Called by the files
beside this one.

apsw only: it brings its own SQLite. Never open one of these files with the stdlib's sqlite3 in the same
process: two SQLite libraries drop each other's POSIX locks, and many a stdlib's has the WAL-reset bug.
No mmap: an I/O error under a mapping is a SIGBUS that ends the process, under read() one we can tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import stat
import struct
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

import apsw
import structlog

from models.errors import Broken, Damaged, Full, IncidentManagerError, OutcomeUnknown, Unavailable

#: The first SQLite without the WAL-reset bug (corruption or lost commits with two connections; since 3.7.0).
SQLITE_NEEDED = (3, 51, 3)
#: 8,192 and 16,384 gave nothing beyond the noise with appends of 300 bytes, 6 kB and 35 kB.
PAGE_BYTES = 4096
#: How long a connection waits for another process's write: longer than any of our transactions, shorter than
#: the caller's patience.
BUSY_TIMEOUT_MS = 2000
#: Past this many bytes the write-ahead log is copied back into the file. Measured with 35 kB appends: at 1
#: MiB a tenth fewer appends a second, at 16 MiB single appends of 35 ms (10 ms at 4), and a crash has more to
#: recover.
WAL_LIMIT_BYTES = 4 * 1024 * 1024

#: Less is no room: so much SQLite asks for at once, for its index of a write-ahead log.
ROOM_LEAST_BYTES = 32 * 1024

T = TypeVar("T")
C = TypeVar("C", bound="Closable")
log = structlog.get_logger()

if tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) < SQLITE_NEEDED:
    raise ImportError(
        f"apsw brings SQLite {apsw.sqlite_lib_version()}, which can lose commits in WAL mode; "
        f"{'.'.join(map(str, SQLITE_NEEDED))} or newer is needed: pip install -U apsw"
    )


def file_path(directory: str | os.PathLike[str], partition: str, instead_of_shard: str | None = None) -> Path:
    """The file of a partition: "shard/0007" is shard-0007.db, "control" control.db.

    `instead_of_shard` names a second file of the same partition: "archive" gives archive-0007.db, and
    archive-control.db. A partition may hold a tenant's name, so what is not plain is percent-encoded and
    no two partitions share a file.
    """
    kind, slash, rest = partition.partition("/")
    stem = _encoded(kind, "_") + ("-" + _encoded(rest, "_.-") if slash else "")
    if instead_of_shard is not None:
        stem = f"{instead_of_shard}-{stem.removeprefix('shard-')}"
    return Path(directory) / f"{stem}.db"


def _encoded(name: str, plain: str) -> str:
    return re.sub(
        rf"[^A-Za-z0-9{re.escape(plain)}]",
        lambda found: "".join(f"%{b:02X}" for b in found[0].encode()),
        name,
    )


def open_writer(path: Path, schema: Sequence[str], *, max_bytes: int | None = None) -> apsw.Connection:
    """A connection that may write, in WAL mode with full sync. Creates folder and file (0700, 0600) and
    brings the schema up to date; `schema` holds one script a version. `max_bytes` caps the file."""
    created = _create(path)
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.pragma("page_size", PAGE_BYTES)
        if connection.pragma("journal_mode", "wal") != "wal":
            raise Unavailable(f"{path}: this file system does not let SQLite keep a write-ahead log")
        connection.pragma("synchronous", "full")
        connection.pragma("foreign_keys", True)
        if max_bytes is not None:
            connection.pragma("max_page_count", max(1, max_bytes // PAGE_BYTES))
        _migrate(connection, path, schema)
    except BaseException:
        connection.close()
        raise
    if created:
        sync_directory(path.parent)
    return connection


def open_reader(path: Path, schema: Sequence[str], *, oldest: int = 0) -> apsw.Connection | None:
    """A read-only connection, beside a live writer of any process; None while there is nothing to read. `oldest` is the
    first schema whose tables have what is read, if that is not the present one."""
    if not path.exists():
        return None
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    version = connection.pragma("user_version")
    if (oldest or len(schema)) <= version <= len(schema):
        return connection
    connection.close()
    if version == 0:  # its writer has made the file but not yet the tables
        return None
    if version < len(schema):
        raise Unavailable(f"{path} is of an older version; its writer brings it up to date when it starts")
    raise Broken(f"{path} has schema {version}, this program reads {len(schema)}")


def _create(path: Path) -> bool:
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_directory(folder.parent)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, stat.S_IRUSR | stat.S_IWUSR))
    except FileExistsError:
        return False
    return True


def sync_directory(folder: Path) -> None:
    """A new file survives a power cut only when the folder that names it does."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _migrate(connection: apsw.Connection, path: Path, schema: Sequence[str]) -> None:
    if connection.pragma("user_version") == len(schema):
        return
    with writing(connection):
        version = connection.pragma("user_version")
        if version > len(schema):
            raise Broken(
                f"{path} has schema {version}, this program knows {len(schema)}: a newer program wrote it"
            )
        for script in schema[version:]:
            connection.execute(script)
        connection.pragma("user_version", len(schema))


@contextlib.contextmanager
def writing(connection: apsw.Connection, *, synced: bool = True) -> Iterator[None]:
    """One transaction: all or nothing, durable when left. Raises OutcomeUnknown when the commit itself fails.

    `synced=False` leaves the sync to the next synced transaction of the same file. That keeps order: all
    transactions of a file are appended to one write-ahead log whose frame checksums are cumulative, a synced
    commit calls fsync on that whole log, and a checkpoint syncs it before it copies anything. So a crash
    loses a suffix of the transactions since the last synced one, never one from between.
    """
    if not synced:
        connection.execute("PRAGMA synchronous=NORMAL")
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            _roll_back(connection)
            raise
        try:
            connection.execute("COMMIT")
        except apsw.Error as error:
            _roll_back(connection)
            if isinstance(error, (apsw.FullError, apsw.BusyError)):
                raise  # refused before the commit frame was whole: nothing was kept
            raise OutcomeUnknown(f"{connection.filename}: the commit failed: {error}") from error
    finally:
        if not synced:
            connection.execute("PRAGMA synchronous=FULL")


def _roll_back(connection: apsw.Connection) -> None:
    # SQLite has often rolled back by itself (SQLITE_FULL, SQLITE_IOERR); the first error is the one to tell.
    if connection.in_transaction:
        with contextlib.suppress(apsw.Error):
            connection.execute("ROLLBACK")


@contextlib.contextmanager
def reading(connection: apsw.Connection) -> Iterator[None]:
    """Several queries that see one state of the file. Close what was not read to its end inside it."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        _roll_back(connection)


@contextlib.contextmanager
def translated(place: str, folder: Path | None = None) -> Iterator[None]:
    """SQLite's errors as ours; `place` names the partition or file in the message. `folder` is where its files are: SQLite says
    "disk I/O error" of many a full disk."""
    try:
        yield
    except IncidentManagerError:
        raise
    except apsw.FullError as error:
        raise Full(f"{place}: the disk is full or the file is at its limit") from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise Damaged(place, 0, f"SQLite says: {error}") from error
    except apsw.IOError as error:
        if getattr(error, "extendedresult", 0) in (apsw.SQLITE_IOERR_CORRUPTFS, apsw.SQLITE_IOERR_DATA):
            raise Damaged(place, 0, f"SQLite says: {error}") from error
        _refuse_full(place, folder, error)
        raise Unavailable(f"{place}: {error}") from error
    except apsw.CantOpenError as error:
        _refuse_full(place, folder, error)
        raise Unavailable(f"{place}: {error}") from error
    except (
        apsw.BusyError, apsw.LockedError, apsw.ProtocolError, apsw.ReadOnlyError,
        apsw.PermissionsError, apsw.NoMemError, apsw.InterruptError, apsw.AbortError,
    ) as error:  # fmt: skip
        raise Unavailable(f"{place}: {error}") from error
    except apsw.Error as error:
        raise Broken(f"{place}: {type(error).__name__}: {error}") from error
    except (TypeError, UnicodeDecodeError, struct.error) as error:
        # A flipped bit can turn a stored number into text or nothing: SQLite has no checksum over its pages.
        raise Broken(f"{place}: a stored value is not what was stored there, or a bug: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Full(f"{place}: {error}") from error
        raise Unavailable(f"{place}: {error}") from error


def _refuse_full(place: str, folder: Path | None, error: apsw.Error) -> None:
    """Raises Full when there is no room where the files are."""
    with contextlib.suppress(OSError):
        room = os.statvfs(folder if folder is not None else Path(place).parent)
        if (folder is not None or os.path.isabs(place)) and room.f_bavail * room.f_frsize < ROOM_LEAST_BYTES:
            raise Full(f"{place}: the disk is full ({error})") from error


class Closable(Protocol):
    def close(self) -> None: ...


class Lane(Generic[C]):
    """One connection (or what holds several) and the one thread that uses it. Opened at first use; errors come out as
    ours.

    The thread is fed by a queue of our own: there and back cost 40 us of CPU, by ThreadPoolExecutor 78, and that is beside a
    commit of 74 (docs/performance.md).
    """

    def __init__(self, place: str, connect: Callable[[], C | None], folder: Path | None = None) -> None:
        self._place = place
        self._folder = folder
        self._connect = connect
        self._connection: C | None = None
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    async def run(self, work: Callable[[C], T], absent: Callable[[], T] | None = None) -> T:
        """work(connection) in the lane's thread. `absent` answers while there is no file to read yet."""
        if self._closed:
            raise Unavailable(f"{self._place}: closed")
        return await self._done(lambda: self._call(work, absent))

    def later(self, work: Callable[[C], None]) -> None:
        """work(connection) after what is waiting now; nobody waits for it, a failure is logged."""
        if not self._closed:  # being closed: there is no later
            self._put(lambda: self._call_quietly(work))

    async def _done(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def do() -> None:
            if answer.cancelled():
                return
            try:
                found = work()
            except BaseException as error:  # noqa: BLE001 - whoever waits is to have it, whatever it is
                _tell(loop, _fail, answer, error)
            else:
                _tell(loop, _give, answer, found)

        self._put(do)
        return await answer

    def _put(self, work: Callable[[], None]) -> None:
        self._queue.put(work)
        if self._thread is None:
            # It knows the queue alone, so that a lane which nobody closed can go, and its thread after it.
            name = f"sqlite {self._place}"
            self._thread = threading.Thread(target=_serve, args=(self._queue,), name=name, daemon=True)
            self._thread.start()
            weakref.finalize(self, self._queue.put, None)

    def disconnect(self) -> None:
        """Forget the connection, inside the lane's thread: the next call opens the file anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(apsw.Error):
                connection.close()

    def reconnect(self) -> C:
        """A fresh connection, inside the lane's thread."""
        self.disconnect()
        self._connection = self._connect()
        assert self._connection is not None  # a writer's connect() makes the file
        return self._connection

    async def close(self) -> None:
        """Wait for what is under way, then free file and thread. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            try:
                await self._done(self.disconnect)
            finally:
                self._queue.put(None)

    def _call(self, work: Callable[[C], T], absent: Callable[[], T] | None) -> T:
        with translated(self._place, self._folder):
            if self._connection is None:
                self._connection = self._connect()
            if self._connection is not None:
                return work(self._connection)
            if absent is not None:
                return absent()
            raise Unavailable(f"{self._place}: not there yet")

    def _call_quietly(self, work: Callable[[C], None]) -> None:
        try:
            self._call(work, None)
        except IncidentManagerError as error:
            log.warning("store housekeeping failed", place=self._place, error=str(error))


def _serve(queue: SimpleQueue[Callable[[], None] | None]) -> None:
    """A lane's thread."""
    while (work := queue.get()) is not None:
        work()
        del work  # what it held may go while nothing comes


def _tell(loop: asyncio.AbstractEventLoop, how: Callable[..., None], answer: object, given: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(how, answer, given)


def _give(answer: asyncio.Future[object], found: object) -> None:
    if not answer.done():
        answer.set_result(found)


def _fail(answer: asyncio.Future[object], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)


class Checkpoints:
    """Keeps the write-ahead log of a busy file short without making a write wait for the copying.

    A checkpoint beside a writer never reaches the end, so the log would grow for ever; a checkpoint in the
    writer's thread makes it wait for the whole copy. So: the bulk is copied in a thread and connection of
    its own, beside the writer; then the writer's thread copies the few pages that came meanwhile, between two
    writes, and the next write begins the log anew.
    """

    def __init__(self, place: str, path: Path, writer: Lane[apsw.Connection]) -> None:
        self._writer = writer
        self._bulk = Lane(
            f"{place} (checkpoint)", lambda: apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        )
        self._limit_pages = WAL_LIMIT_BYTES // PAGE_BYTES
        self._due_at_pages = self._limit_pages
        self._pages = 0

    def watch(self, connection: apsw.Connection) -> None:
        """Take over from SQLite's own checkpoints, which run inside the commit that crosses the line."""
        connection.set_wal_hook(self._written)

    async def close(self) -> None:
        await self._bulk.close()

    def _written(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        if pages < self._pages:  # the log began anew: everything before is in the file
            self._due_at_pages = self._limit_pages
        self._pages = pages
        if pages >= self._due_at_pages:
            # Until it begins anew, wait for as much again: a reader or a full disk that keeps a checkpoint
            # from its end must not make every write start one.
            self._due_at_pages = pages + self._limit_pages
            self._bulk.later(self._copy_bulk)
        return apsw.SQLITE_OK

    def _copy_bulk(self, connection: apsw.Connection) -> None:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        self._writer.later(self._copy_rest)

    @staticmethod
    def _copy_rest(connection: apsw.Connection) -> None:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
