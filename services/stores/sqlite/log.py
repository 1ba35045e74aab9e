"""The event log of a partition in one SQLite file. Used by the partition's actor (writer) and by tailers.

One row an append, one commit an append: the sync is what an append costs, everything else is microseconds.
A writer thread, a reader thread and a checkpoint thread, each with its own connection, so that neither a long
read nor a checkpoint delays an append.

    append                     reader                        another process
      |  writer thread           |  reader thread              |  its own reader thread
      v                          v                             v
    BEGIN IMMEDIATE            one short read transaction a page: it never holds the
    epoch is mine? seq next?   write-ahead log back for long, and sees only whole appends
    INSERT, COMMIT (fsync)

Snapshot records live beside the frames, see snapshots.py.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from typing import TypeVar, cast

import apsw

from models.errors import Damaged, Fenced, NotOwner, OutcomeUnknown
from models.partition.frames import NO_DIGEST
from models.ports import Mark, Opened
from services.stores.shared.chain import (
    READ_LIMIT_BYTES,
    Seams,
    StoredAppend,
    check_end,
    check_tail,
    join_frames,
    last_digest,
    read_page,
    split_frames,
    torn,
)
from services.stores.shared.snapshot_checks import not_empty, not_kept
from services.stores.sqlite import snapshots
from services.stores.sqlite.files import (
    Checkpoints,
    Lane,
    file_path,
    open_reader,
    open_writer,
    reading,
    writing,
)

#: How many appends one transaction of truncate() drops: freeing their pages takes about a millisecond, and an
#: append waits for one such slice at most.
TRUNCATE_SLICE = 50

#: What is read has the same names and columns since then: `llm-im up` looks at the control log before its writer runs.
READ_FROM = 1
SCHEMA = (
    """
    CREATE TABLE log (
        id            INTEGER PRIMARY KEY CHECK (id = 1),
        partition     TEXT    NOT NULL,
        epoch         INTEGER NOT NULL,
        owner         TEXT    NOT NULL,
        lease_until   REAL    NOT NULL,
        anchor_seq    INTEGER NOT NULL,  -- the last frame that truncate() dropped
        anchor_digest BLOB    NOT NULL,
        pruned_to     INTEGER NOT NULL   -- no key has two records up to this generation
    );
    -- A frame's length is kept apart from it, so that damage to one does not hide where the next begins.
    CREATE TABLE appends (
        first_seq INTEGER PRIMARY KEY,
        last_seq  INTEGER NOT NULL,
        lengths   BLOB    NOT NULL,      -- uint32 little-endian, one a frame
        frames    BLOB    NOT NULL
    );
    -- Last appends that failed their check and were cut: for people, nothing reads them.
    CREATE TABLE torn (
        id        INTEGER PRIMARY KEY,
        cut_at    REAL    NOT NULL,
        why       TEXT    NOT NULL,
        first_seq INTEGER NOT NULL,
        last_seq  INTEGER NOT NULL,
        lengths   BLOB    NOT NULL,
        frames    BLOB    NOT NULL
    );
    """
    + snapshots.TABLES,
    snapshots.ROWS_APART,
    # Where the log ends, written with each append and apart from it: else the last ones could be lost without a trace.
    """
    ALTER TABLE log ADD COLUMN last_seq INTEGER NOT NULL DEFAULT 0;
    UPDATE log SET last_seq = coalesce((SELECT max(last_seq) FROM appends), anchor_seq);
    """,
)
#: The schema since which `log` says where the log ends.
END_SINCE = 3

T = TypeVar("T")


class SqliteEventLog:
    """models.ports.EventLog. Constructing it touches no file; reading needs no open().

    `max_bytes` caps the file: past it an append raises Full, as on a full disk; truncate() makes room.
    """

    def __init__(
        self, directory: str | os.PathLike[str], partition: str, *, max_bytes: int | None = None
    ) -> None:
        self.partition = partition
        self._path = file_path(directory, partition)
        self._max_bytes = max_bytes
        self._writer = Lane(partition, self._connect_writer, self._path.parent)
        self._reader = Lane(partition, self._connect_reader, self._path.parent)
        self._checkpoints = Checkpoints(partition, self._path, self._writer)
        self._seams = Seams()
        self._opened = False
        self._outcome_unknown = False
        self._pruning = snapshots.Pruning()

    # --- who may write ---

    async def open(self, owner: str, now: float, lease_s: float) -> Opened:
        return await self._writer.run(lambda connection: self._open(connection, owner, now, lease_s))

    async def renew(self, epoch: int, until: float) -> None:
        # Not synced: a lease that a power cut shortens belonged to a process that the power cut ended.
        def work(connection: apsw.Connection) -> None:
            connection.execute("UPDATE log SET lease_until = ?", (until,))

        await self._write(epoch, work, synced=False)

    async def release(self, epoch: int) -> None:
        def work(connection: apsw.Connection) -> None:
            with writing(connection, synced=False):
                connection.execute("UPDATE log SET lease_until = 0 WHERE epoch = ?", (epoch,))

        await self._writer.run(work)

    async def seed(self, epoch: int, seq: int, digest: bytes, epoch_before: int) -> int:
        def work(connection: apsw.Connection) -> None:
            if connection.execute(
                "SELECT EXISTS (SELECT 1 FROM appends) OR EXISTS (SELECT 1 FROM marks)"
            ).get:
                raise not_empty(self.partition)
            connection.execute(
                "UPDATE log SET last_seq = ?, anchor_seq = ?, anchor_digest = ?, epoch = ?",
                (seq, seq, digest, max(epoch, epoch_before)),
            )

        await self._write(epoch, work)
        self._seams.clear()
        return max(epoch, epoch_before)

    # --- frames ---

    async def append(self, epoch: int, first_seq: int, frames: Sequence[bytes]) -> None:
        if not frames:
            raise ValueError("an append needs at least one frame")
        last_seq = first_seq + len(frames) - 1
        lengths, stored = join_frames(frames)

        def work(connection: apsw.Connection) -> None:
            before = _last_seq(connection)
            if first_seq != before + 1:
                raise Fenced(f"{self.partition}: append at {first_seq}, but the log ends at {before}")
            connection.execute(
                "INSERT INTO appends VALUES (?, ?, ?, ?)", (first_seq, last_seq, lengths, stored)
            )
            connection.execute("UPDATE log SET last_seq = ?", (last_seq,))

        await self._write(epoch, work)

    async def read(self, after: int, limit_bytes: int = READ_LIMIT_BYTES) -> list[tuple[int, bytes]]:
        return await self._read(lambda connection: self._page(connection, after, limit_bytes), list)

    async def last_seq(self) -> int:
        return await self._read(_last_seq, int)

    async def truncate(self, epoch: int, up_to: int) -> None:
        # In slices, so that an append waits for one of them at most. Not synced: a power cut can only bring
        # dropped frames back, and the marks that make them needless were synced before.
        more = True

        def work(connection: apsw.Connection) -> None:
            nonlocal more
            more = self._truncate_slice(connection, up_to)

        while more:
            await self._write(epoch, work, synced=False)

    # --- snapshots ---

    async def put_records(
        self, epoch: int, generation: int, records: Sequence[tuple[str, bytes | None]]
    ) -> None:
        # Not synced: they count once close_snapshot's synced commit made them durable too, see writing().
        def work(connection: apsw.Connection) -> None:
            snapshots.put(self.partition, connection, generation, records)
            snapshots.prune(
                self.partition, connection, self._pruning, snapshots.PRUNE_PER_RECORD * len(records)
            )

        await self._write(epoch, work, synced=False)

    async def close_snapshot(self, epoch: int, mark: Mark) -> None:
        def work(connection: apsw.Connection) -> None:
            if mark.seq > (last := _last_seq(connection)):
                raise ValueError(f"{self.partition}: mark at seq {mark.seq}, but the log ends at {last}")
            snapshots.close(self.partition, connection, mark)
            snapshots.prune(self.partition, connection, self._pruning, 0)

        await self._write(epoch, work)

    async def marks(self) -> list[Mark]:
        return await self._read(lambda connection: snapshots.marks(self.partition, connection), list)

    async def records(self, generation: int) -> AsyncIterator[list[tuple[str, bytes]]]:
        least: str | None = ""

        def work(connection: apsw.Connection) -> tuple[list[tuple[str, bytes]], str | None]:
            with reading(connection):
                return snapshots.page(self.partition, connection, generation, least or "")

        while least is not None:
            page, least = await self._read(work, lambda: not_kept(self.partition, generation))
            if page:
                yield page

    # --- the rest ---

    async def stats(self) -> dict[str, int]:
        names = ("first_seq", "last_seq", "frames", "log_bytes", "record_bytes", "disk_bytes", "epoch")
        return await self._read(self._stats, lambda: dict.fromkeys(names, 0))

    async def close(self) -> None:
        await self._checkpoints.close()
        await self._reader.close()
        await self._writer.close()  # last: the last connection of a file tidies its write-ahead log away

    # --- in the writer's thread ---

    async def _write(
        self, epoch: int, work: Callable[[apsw.Connection], None], *, synced: bool = True
    ) -> None:
        """work(connection) in one transaction that `epoch` owns."""

        def guarded(connection: apsw.Connection) -> None:
            if self._outcome_unknown:
                raise OutcomeUnknown(f"{self.partition}: an earlier commit failed; open the log again")
            try:
                with writing(connection, synced=synced):
                    current: int = connection.execute("SELECT epoch FROM log").get
                    if current != epoch:
                        raise Fenced(f"{self.partition}: epoch {epoch} writes, but {current} owns it")
                    work(connection)
            except OutcomeUnknown:
                self._outcome_unknown = True
                raise
            except BaseException:
                self._pruning = snapshots.Pruning()  # what it ticked off was rolled back
                raise

        await self._writer.run(guarded)

    def _connect_writer(self) -> apsw.Connection:
        connection = open_writer(self._path, SCHEMA, max_bytes=self._max_bytes)
        with writing(connection):
            self._check_record(connection)
            connection.execute(
                "INSERT OR IGNORE INTO log VALUES (1, ?, 0, '', 0, 0, ?, 0, 0)",
                (self.partition, NO_DIGEST),
            )
        self._checkpoints.watch(connection)
        return connection

    def _connect_reader(self) -> apsw.Connection | None:
        connection = open_reader(self._path, SCHEMA, oldest=READ_FROM)
        if connection is None:
            return None
        try:
            with reading(connection):
                self._check_record(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_record(self, connection: apsw.Connection) -> None:
        """Raises Damaged for the log of another partition, and for one without its record: begun anew it would seem empty."""
        name: str | None = connection.execute("SELECT partition FROM log").get
        if name is not None and name != self.partition:
            raise Damaged(self.partition, 0, f"{self._path} is the log of {name}")
        held = "SELECT EXISTS (SELECT 1 FROM appends) OR EXISTS (SELECT 1 FROM marks)"
        if name is None and connection.execute(held).get:
            raise Damaged(self.partition, 0, f"{self._path}: the record of where its log ends is gone")

    def _open(self, connection: apsw.Connection, owner: str, now: float, lease_s: float) -> Opened:
        if self._outcome_unknown:
            # The kernel tells a failed sync once and then takes the pages for clean: what the next connection
            # reads may not be on disk. The checkpoint below writes it a second time, to another file.
            connection = self._writer.reconnect()
            self._outcome_unknown = False
        with writing(connection):
            epoch, holder, lease_until = cast(
                "tuple[int, str, float]", connection.execute("SELECT epoch, owner, lease_until FROM log").get
            )
            if holder != owner and lease_until > now:
                raise NotOwner(self.partition, holder)
            connection.execute(
                "UPDATE log SET epoch = ?, owner = ?, lease_until = ?", (epoch + 1, owner, now + lease_s)
            )
            cut, last_digest = self._check_tail(connection, now)
            snapshots.drop_unfinished(self.partition, connection)
            first_seq: int | None = connection.execute("SELECT min(first_seq) FROM appends").get
            anchor: bytes = connection.execute("SELECT anchor_digest FROM log").get
            opened = Opened(epoch + 1, first_seq or 0, _last_seq(connection), anchor, last_digest, cut)
        # What replay is about to read may be in the page cache only, after a kill or a failed sync.
        with contextlib.suppress(apsw.BusyError):  # another process is at just that
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        self._pruning = snapshots.Pruning()
        self._seams.clear()
        self._opened = True
        return opened

    def _check_tail(self, connection: apsw.Connection, now: float) -> tuple[str | None, bytes]:
        """Verify the last append, set it aside when torn; returns Opened.cut and Opened.last_digest."""
        tail = _tail(connection)
        anchor = _anchor(connection)
        check_end(self.partition, _last_seq(connection), tail[0].last_seq if tail else anchor[0])
        why = torn(self.partition, tail[0]) if tail else None
        if why is None:
            return None, check_tail(self.partition, tail, anchor)
        last = tail[0]
        snapshot: int | None = connection.execute("SELECT max(seq) FROM marks").get
        if snapshot is not None and snapshot >= last.first_seq:
            # A mark is written after the frames it covers were durable: this tail is no torn append.
            raise Damaged(
                self.partition, last.first_seq, f"the last append fails its check ({why}) after a snapshot"
            )
        connection.execute(
            "INSERT INTO torn (cut_at, why, first_seq, last_seq, lengths, frames)"
            " SELECT ?, ?, first_seq, last_seq, lengths, frames FROM appends WHERE first_seq = ?",
            (now, why, last.first_seq),
        )
        connection.execute("DELETE FROM appends WHERE first_seq = ?", (last.first_seq,))
        connection.execute("UPDATE log SET last_seq = ?", (tail[1].last_seq if len(tail) > 1 else anchor[0],))
        cut = f"the append of seq {last.first_seq} to {last.last_seq} was cut and set aside: {why}"
        return cut, check_tail(self.partition, _tail(connection), anchor)

    def _truncate_slice(self, connection: apsw.Connection, up_to: int) -> bool:
        """Drop some of the appends that end at or before `up_to`; whether there are more."""
        needed = snapshots.oldest_needed_seq(self.partition, connection)
        if up_to > needed:
            raise ValueError(
                f"{self.partition}: truncate up to {up_to}, but the older snapshot replays from {needed}"
            )
        ends = cast(
            "list[tuple[int, int]]",
            connection.execute(
                "SELECT first_seq, last_seq FROM appends WHERE first_seq <= ? ORDER BY first_seq LIMIT ?",
                (up_to, TRUNCATE_SLICE),
            ).fetchall(),
        )
        dropped = [first for first, last in ends if last <= up_to]
        if not dropped:
            return False
        (last_dropped,) = _appends(connection, "WHERE first_seq = ?", (dropped[-1],))
        anchor = (last_dropped.last_seq, last_digest(self.partition, last_dropped))
        connection.execute("DELETE FROM appends WHERE first_seq <= ?", (dropped[-1],))
        connection.execute("UPDATE log SET anchor_seq = ?, anchor_digest = ?", anchor)
        return len(dropped) == TRUNCATE_SLICE

    # --- in the reader's thread ---

    async def _read(self, work: Callable[[apsw.Connection], T], absent: Callable[[], T]) -> T:
        return await self._reader.run(work, absent)

    def _page(self, connection: apsw.Connection, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        with reading(connection):
            anchor = _anchor(connection)
            # Without the digest at `after` the append that ends there is read too: the chain has no gap.
            start = after if self._seams.get(after) is None else after + 1
            appends = _appends(
                connection,
                "WHERE first_seq >= coalesce((SELECT max(first_seq) FROM appends WHERE first_seq <= ?), 0)"
                " AND last_seq >= ? ORDER BY first_seq",
                (start, start),
            )
            try:
                return read_page(
                    self.partition, appends, after, limit_bytes, anchor, _last_seq(connection), self._seams,
                    may_be_torn=not self._opened,
                )  # fmt: skip
            finally:
                appends.close()

    def _stats(self, connection: apsw.Connection) -> dict[str, int]:
        with reading(connection):
            first: int = connection.execute("SELECT coalesce(min(first_seq), 0) FROM appends").get
            last = _last_seq(connection)
            log_bytes: int = connection.execute("SELECT coalesce(sum(length(frames)), 0) FROM appends").get
            record_bytes: int = connection.execute("SELECT coalesce(sum(length(body)), 0) FROM records").get
            epoch: int = connection.execute("SELECT epoch FROM log").get
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        return {
            "first_seq": first,
            "last_seq": last,
            "frames": last - first + 1 if first else 0,
            "log_bytes": log_bytes,
            "record_bytes": record_bytes,
            "disk_bytes": sum(file.stat().st_size for file in files if file.exists()),
            "epoch": epoch,
        }


def _last_seq(connection: apsw.Connection) -> int:
    last: int | None
    if connection.pragma("user_version") >= END_SINCE:
        last = connection.execute("SELECT last_seq FROM log").get
        return last or 0  # no row yet: its writer is just creating it
    last = connection.execute(
        "SELECT coalesce((SELECT last_seq FROM appends ORDER BY first_seq DESC LIMIT 1),"
        " (SELECT anchor_seq FROM log))"
    ).get
    return last or 0


def _anchor(connection: apsw.Connection) -> tuple[int, bytes]:
    row: tuple[int, bytes] | None = connection.execute("SELECT anchor_seq, anchor_digest FROM log").get
    return row or (0, NO_DIGEST)


def _tail(connection: apsw.Connection) -> list[StoredAppend]:
    return list(_appends(connection, "ORDER BY first_seq DESC LIMIT 2", ()))


def _appends(
    connection: apsw.Connection, which: str, arguments: tuple[int, ...]
) -> Generator[StoredAppend, None, None]:
    """The appends that the SQL after FROM selects, taken lazily. Close it when it was not read to its end."""
    cursor = connection.execute(
        f"SELECT first_seq, last_seq, lengths, frames FROM appends {which}", arguments
    )
    try:
        for first_seq, last_seq, lengths, stored in cast("Iterator[tuple[int, int, object, object]]", cursor):
            yield StoredAppend(first_seq, last_seq, split_frames(lengths, stored))
    finally:
        cursor.close()
