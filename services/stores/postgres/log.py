"""The event log of a partition in PostgreSQL. Used by the partition's actor (writer) and by tailers.

One row an append, all its frames in it; one statement an append, which is its own transaction and one round trip:

    UPDATE logs ... WHERE epoch and token are mine and the log ends where I think    takes the row's lock
    INSERT INTO appends, from what the UPDATE found

The row of a partition in `logs` is who owns it. Every write takes its lock first, and so does open(): an append that is
under way ends before the next epoch is taken, or finds it taken. No sequence is used: the next seq is known.

An epoch alone would not fence. A failover to a standby that lags may bring a log back in which the newest epoch was
never taken, and the next writer would take the same number again. So each open() leaves a token beside it, and a write
names both.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import TypeVar, cast

import structlog

from models.errors import Damaged, Fenced, IncidentManagerError, NotOwner, OutcomeUnknown, Unavailable
from models.partition.frames import NO_DIGEST
from models.ports import Mark, Opened
from services.stores.postgres import snapshots
from services.stores.postgres.lane import Lane
from services.stores.postgres.options import PostgresOptions
from services.stores.postgres.pool import Connection
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
from services.stores.shared.snapshot_checks import not_empty

#: How many appends one transaction of truncate() drops: an append waits for one such slice at most.
TRUNCATE_SLICE = 200
#: Appends looked at for one page, so that small ones do not make the server add up the whole log.
READ_APPENDS = 1000

_Anchor = tuple[int, bytes]
T = TypeVar("T")
log = structlog.get_logger()


class PostgresEventLog:
    """models.ports.EventLog. Constructing it connects nowhere."""

    def __init__(self, options: PostgresOptions, partition: str) -> None:
        self.partition = partition
        self._writer = Lane(options, partition)
        self._reader = Lane(options, partition)
        self._seams = Seams()
        self._pruning = snapshots.Pruning()
        self._token = ""
        self._outcome_unknown = False
        self._opened = False

    # --- who may write ---

    async def open(self, owner: str, now: float, lease_s: float) -> Opened:
        token = secrets.token_hex(8)
        try:
            opened = await self._writer.write(
                lambda connection: self._open(connection, owner, now, lease_s, token)
            )
        except OutcomeUnknown as error:
            raise Unavailable(
                f"{self.partition}: the log could not be opened for writing: {error}"
            ) from error
        self._token = token
        self._outcome_unknown = False
        self._pruning = snapshots.Pruning()
        self._seams.clear()
        self._opened = True
        await self._drop_unfinished(opened.epoch)
        return opened

    async def renew(self, epoch: int, until: float) -> None:
        # Not synced: a lease that a crash of the server shortens lets another in earlier, and the epoch keeps us apart.
        def work(connection: Connection) -> None:
            self._own(connection, epoch)
            connection.execute(
                "UPDATE logs SET lease_until = %s WHERE partition = %s", (until, self.partition)
            )

        try:
            await self._writer.write(work, synced=False)
        except OutcomeUnknown as error:  # a lease renewed late, or not, harms nobody
            raise Unavailable(str(error)) from error

    async def release(self, epoch: int) -> None:
        try:
            await self.renew(epoch, 0.0)
        except Fenced:
            return

    async def seed(self, epoch: int, seq: int, digest: bytes, epoch_before: int) -> int:
        after = max(epoch, epoch_before)

        def work(connection: Connection) -> None:
            given = {"partition": self.partition, "seq": seq, "digest": digest, "epoch": after}
            found = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM appends WHERE partition = %(partition)s)"
                " OR EXISTS (SELECT 1 FROM marks WHERE partition = %(partition)s)",
                given,
            ).fetchone()
            if found is not None and found[0]:
                raise not_empty(self.partition)
            connection.execute(
                "UPDATE logs SET last_seq = %(seq)s, anchor_seq = %(seq)s, anchor_digest = %(digest)b,"
                " epoch = %(epoch)s WHERE partition = %(partition)s",
                given,
            )

        await self._write(epoch, work)
        self._seams.clear()
        return after

    # --- frames ---

    async def append(self, epoch: int, first_seq: int, frames: Sequence[bytes]) -> None:
        if not frames:
            raise ValueError("an append needs at least one frame")
        last_seq = first_seq + len(frames) - 1
        lengths, stored = join_frames(frames)

        def work(connection: Connection) -> bool:
            added = connection.execute(
                "WITH own AS (UPDATE logs SET last_seq = %s WHERE partition = %s AND epoch = %s AND token = %s"
                " AND last_seq = %s RETURNING partition)"
                " INSERT INTO appends (partition, first_seq, last_seq, lengths, frames)"
                " SELECT partition, %s, %s, %b, %b FROM own",
                (last_seq, self.partition, epoch, self._token, first_seq - 1, first_seq, last_seq, lengths, stored),
            )  # fmt: skip
            return added.rowcount == 1

        async with self._guarded():
            added = await self._writer.statement(work)
        if not added:
            await self._writer.read(lambda connection: self._why_not(connection, epoch, first_seq))

    async def read(self, after: int, limit_bytes: int = READ_LIMIT_BYTES) -> list[tuple[int, bytes]]:
        # Without the digest at `after` the append that ends there is read too: the chain has no gap.
        start = max(after if self._seams.get(after) is None else after + 1, 0)

        def work(connection: Connection) -> tuple[list[StoredAppend], int, _Anchor]:
            last_seq, anchor = _ends(self.partition, connection)
            return _appends(self.partition, connection, start, after, limit_bytes), last_seq, anchor

        appends, last_seq, anchor = await self._reader.read(work)
        return read_page(
            self.partition, appends, after, limit_bytes, anchor, last_seq, self._seams, may_be_torn=not self._opened
        )  # fmt: skip

    async def last_seq(self) -> int:
        return await self._reader.read(lambda connection: _ends(self.partition, connection)[0])

    async def truncate(self, epoch: int, up_to: int) -> None:
        # In slices, so that an append waits for one of them at most. Not synced: a crash can only bring dropped frames
        # back, and the marks that make them needless were synced before.
        more = True
        while more:
            more = await self._write(
                epoch, lambda connection: self._truncate_slice(connection, up_to), synced=False
            )

    # --- snapshots ---

    async def put_records(
        self, epoch: int, generation: int, records: Sequence[tuple[str, bytes | None]]
    ) -> None:
        # Not synced: they count once close_snapshot's synced commit made them durable too.
        def work(connection: Connection) -> snapshots.Pruning:
            snapshots.put(self.partition, connection, generation, records)
            return self._prune(connection, snapshots.PRUNE_PER_RECORD * len(records))

        self._pruning = await self._write(epoch, work, synced=False)

    async def close_snapshot(self, epoch: int, mark: Mark) -> None:
        def work(connection: Connection) -> snapshots.Pruning:
            if mark.seq > (last := _ends(self.partition, connection)[0]):
                raise ValueError(f"{self.partition}: mark at seq {mark.seq}, but the log ends at {last}")
            snapshots.close(self.partition, connection, mark)
            return self._prune(connection, 0)

        self._pruning = await self._write(epoch, work)

    async def marks(self) -> list[Mark]:
        return await self._reader.read(lambda connection: snapshots.marks(self.partition, connection))

    async def records(self, generation: int) -> AsyncIterator[list[tuple[str, bytes]]]:
        least: bytes | None = b""

        def work(connection: Connection) -> tuple[list[tuple[str, bytes]], bytes | None]:
            return snapshots.page(self.partition, connection, generation, least or b"")

        while least is not None:
            page, least = await self._reader.read(work)
            if page:
                yield page

    # --- the rest ---

    async def stats(self) -> dict[str, int]:
        return await self._reader.read(self._stats)

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()

    # --- writing ---

    async def _write(self, epoch: int, work: Callable[[Connection], T], *, synced: bool = True) -> T:
        """work(connection) in one transaction that `epoch` owns."""

        def guarded(connection: Connection) -> T:
            self._own(connection, epoch)
            return work(connection)

        async with self._guarded():
            return await self._writer.write(guarded, synced=synced)

    @contextlib.asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        """After an outcome nobody knows every write is refused until open()."""
        if self._outcome_unknown:
            raise OutcomeUnknown(f"{self.partition}: an earlier write may have happened; open the log again")
        try:
            yield
        except OutcomeUnknown:
            self._outcome_unknown = True
            raise
        except (IncidentManagerError, ValueError):
            raise
        except BaseException:  # cancelled in the middle
            self._outcome_unknown = True
            raise

    async def _drop_unfinished(self, epoch: int) -> None:
        """Forget the records of a snapshot that was never closed: its generation will be used again. In slices: all at once a
        slow server would end it each time, and the log could never be opened."""
        after: snapshots.Row | None = None

        def work(connection: Connection) -> snapshots.Row | None:
            return snapshots.drop_unfinished(self.partition, connection, after)

        while (after := await self._write(epoch, work, synced=False)) is not None:
            pass

    # --- in the lanes' threads ---

    def _prune(self, connection: Connection, keys: int) -> snapshots.Pruning:
        """Where tidying stands once this transaction is kept."""
        at = replace(self._pruning)
        snapshots.prune(self.partition, connection, at, keys)
        return at

    def _own(self, connection: Connection, epoch: int) -> None:
        """Take the partition's row until the transaction ends. Raises Fenced when another owns it."""
        row = connection.execute(
            "SELECT epoch, token, owner FROM logs WHERE partition = %s FOR UPDATE", (self.partition,)
        ).fetchone()
        self._check_owner(epoch, cast("tuple[int, str, str]", row or (0, "", "")))

    def _check_owner(self, epoch: int, found: tuple[int, str, str]) -> None:
        current, token, owner = found
        if (current, token) != (epoch, self._token):
            raise Fenced(
                f"{self.partition}: epoch {epoch} writes, but {current} of {owner or 'nobody'} owns it"
                + (", taken after the store went back in time" if current == epoch and self._token else "")
            )

    def _why_not(self, connection: Connection, epoch: int, first_seq: int) -> None:
        """Why an append found nothing to add to. Always raises."""
        row = connection.execute(
            "SELECT epoch, token, owner, last_seq FROM logs WHERE partition = %s", (self.partition,)
        ).fetchone()
        *owner, last_seq = cast("tuple[int, str, str, int]", row or (0, "", "", 0))
        self._check_owner(epoch, cast("tuple[int, str, str]", tuple(owner)))
        if last_seq < first_seq - 1:
            # Nobody but this epoch and token wrote, so what is missing was there.
            log.error(
                "store lost acknowledged appends: a failover to a standby that did not have them?",
                partition=self.partition, ends_at=last_seq, ended_at=first_seq - 1,
            )  # fmt: skip
        raise Fenced(f"{self.partition}: append at {first_seq}, but the log ends at {last_seq}")

    def _open(self, connection: Connection, owner: str, now: float, lease_s: float, token: str) -> Opened:
        connection.execute(
            "INSERT INTO logs VALUES (%s, 0, '', '', 0, 0, 0, %s, 0) ON CONFLICT (partition) DO NOTHING",
            (self.partition, NO_DIGEST),
        )
        row = connection.execute(
            "SELECT epoch, owner, lease_until FROM logs WHERE partition = %s FOR UPDATE", (self.partition,)
        ).fetchone()
        epoch, holder, lease_until = cast("tuple[int, str, float]", row)
        if holder != owner and lease_until > now:
            raise NotOwner(self.partition, holder)
        connection.execute(
            "UPDATE logs SET epoch = %s, token = %s, owner = %s, lease_until = %s WHERE partition = %s",
            (epoch + 1, token, owner, now + lease_s, self.partition),
        )
        cut, last_digest = self._check_tail(connection, now)
        last_seq, anchor = _ends(self.partition, connection)
        row = connection.execute(
            "SELECT first_seq FROM appends WHERE partition = %s ORDER BY first_seq LIMIT 1",
            (self.partition,),
        ).fetchone()
        return Opened(epoch + 1, row[0] if row else 0, last_seq, anchor[1], last_digest, cut)

    def _check_tail(self, connection: Connection, now: float) -> tuple[str | None, bytes]:
        """Verify the last append, set it aside when torn; returns Opened.cut and Opened.last_digest."""
        last_seq, anchor = _ends(self.partition, connection)
        tail = _tail(self.partition, connection)
        ends_at = tail[0].last_seq if tail else anchor[0]
        check_end(self.partition, last_seq, ends_at)
        why = torn(self.partition, tail[0]) if tail else None
        if why is None:
            return None, check_tail(self.partition, tail, anchor)
        last = tail[0]
        kept = snapshots.marks(self.partition, connection)
        if kept and kept[0].seq >= last.first_seq:
            # A mark is written after the frames it covers were durable: this tail is no torn append.
            raise Damaged(
                self.partition, last.first_seq, f"the last append fails its check ({why}) after a snapshot"
            )
        connection.execute(
            "INSERT INTO torn SELECT partition, %s, %s, first_seq, last_seq, lengths, frames FROM appends"
            " WHERE partition = %s AND first_seq = %s",
            (now, why, self.partition, last.first_seq),
        )
        connection.execute(
            "DELETE FROM appends WHERE partition = %s AND first_seq = %s", (self.partition, last.first_seq)
        )
        connection.execute(
            "UPDATE logs SET last_seq = %s WHERE partition = %s",
            (tail[1].last_seq if len(tail) > 1 else anchor[0], self.partition),
        )
        cut = f"the append of seq {last.first_seq} to {last.last_seq} was cut and set aside: {why}"
        return cut, check_tail(self.partition, _tail(self.partition, connection), anchor)

    def _truncate_slice(self, connection: Connection, up_to: int) -> bool:
        """Drop some of the appends that end at or before `up_to`; whether there are more."""
        needed = snapshots.oldest_needed_seq(self.partition, connection)
        if up_to > needed:
            raise ValueError(
                f"{self.partition}: truncate up to {up_to}, but the older snapshot replays from {needed}"
            )
        ends = connection.execute(
            "SELECT first_seq, last_seq FROM appends WHERE partition = %s AND first_seq <= %s"
            " ORDER BY first_seq LIMIT %s",
            (self.partition, up_to, TRUNCATE_SLICE),
        ).fetchall()
        dropped = [first for first, last in ends if last <= up_to]
        if not dropped:
            return False
        rows = connection.execute(
            f"{_SELECT} WHERE partition = %s AND first_seq = %s", (self.partition, dropped[-1])
        ).fetchall()
        last_dropped = _stored(rows[0])
        connection.execute(
            "DELETE FROM appends WHERE partition = %s AND first_seq <= %s", (self.partition, dropped[-1])
        )
        connection.execute(
            "UPDATE logs SET anchor_seq = %s, anchor_digest = %s WHERE partition = %s",
            (last_dropped.last_seq, last_digest(self.partition, last_dropped), self.partition),
        )
        return len(dropped) == TRUNCATE_SLICE

    def _stats(self, connection: Connection) -> dict[str, int]:
        row = connection.execute(
            "SELECT coalesce(min(first_seq), 0), coalesce(sum(octet_length(frames)), 0)::bigint,"
            " coalesce(sum(pg_column_size(frames) + pg_column_size(lengths)), 0)::bigint"
            " FROM appends WHERE partition = %s",
            (self.partition,),
        ).fetchone()
        first, log_bytes, log_disk = cast("tuple[int, int, int]", row)
        row = connection.execute(
            "SELECT coalesce(sum(octet_length(body)), 0)::bigint,"
            " coalesce(sum(coalesce(pg_column_size(body), 0) + pg_column_size(key)), 0)::bigint"
            " FROM records WHERE partition = %s",
            (self.partition,),
        ).fetchone()
        record_bytes, record_disk = cast("tuple[int, int]", row)
        row = connection.execute("SELECT epoch FROM logs WHERE partition = %s", (self.partition,)).fetchone()
        last = _ends(self.partition, connection)[0]
        return {
            "first_seq": first,
            "last_seq": last,
            "frames": last - first + 1 if first else 0,
            "log_bytes": log_bytes,
            "record_bytes": record_bytes,
            "disk_bytes": log_disk + record_disk,  # without the server's own: indexes, free room, its log
            "epoch": row[0] if row else 0,
        }


_SELECT = "SELECT first_seq, last_seq, lengths, frames FROM appends"


def _ends(partition: str, connection: Connection) -> tuple[int, _Anchor]:
    """The last seq and the anchor."""
    row = connection.execute(
        "SELECT last_seq, anchor_seq, anchor_digest FROM logs WHERE partition = %s", (partition,)
    ).fetchone()
    last_seq, anchor_seq, digest = cast("tuple[int, int, bytes]", row or (0, 0, NO_DIGEST))
    return last_seq, (anchor_seq, digest)


def _tail(partition: str, connection: Connection) -> list[StoredAppend]:
    rows = connection.execute(
        f"{_SELECT} WHERE partition = %s ORDER BY first_seq DESC LIMIT 2", (partition,)
    ).fetchall()
    return [_stored(row) for row in rows]


def _appends(
    partition: str, connection: Connection, start: int, after: int, limit_bytes: int
) -> list[StoredAppend]:
    """From the append that reaches `start` on, so many that what comes behind `after` fills the limit."""
    # Two bounds of the primary key: whatever the planner believes about the table, it walks along it.
    begins = "coalesce((SELECT max(first_seq) FROM appends WHERE partition = %(partition)s AND first_seq <= %(start)s), 0)"
    rows = connection.execute(
        f"{_SELECT} WHERE partition = %(partition)s AND last_seq >= %(start)s AND first_seq >= {begins}"
        " AND first_seq <= (SELECT max(first_seq) FROM ("
        "  SELECT first_seq, sum(size) OVER (ORDER BY first_seq) - size AS before FROM ("
        "   SELECT first_seq, CASE WHEN last_seq > %(after)s THEN octet_length(frames) ELSE 0 END AS size FROM appends"
        f"  WHERE partition = %(partition)s AND last_seq >= %(start)s AND first_seq >= {begins}"
        "   ORDER BY first_seq LIMIT %(most)s"
        "  ) AS sizes) AS sums WHERE before < %(limit)s) ORDER BY first_seq",
        {"partition": partition, "start": start, "after": after, "most": READ_APPENDS, "limit": limit_bytes},
    ).fetchall()
    return [_stored(row) for row in rows]


def _stored(row: tuple[object, ...]) -> StoredAppend:
    first_seq, last_seq, lengths, frames = cast("tuple[int, int, object, object]", row)
    return StoredAppend(first_seq, last_seq, split_frames(lengths, frames))
