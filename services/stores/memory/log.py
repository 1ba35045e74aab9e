"""EventLog in memory, a port of models/ports.py. State is in a MemoryStore (store.py)."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Sequence

import xxhash

from models.errors import Damaged, Fenced, Full, NotOwner
from models.ports import Mark, Opened
from services.stores.memory.store import Faults, Faulty, MemoryStore
from services.stores.shared.chain import (
    READ_LIMIT_BYTES,
    Seams,
    StoredAppend,
    check_end,
    check_tail,
    last_digest,
    read_page,
    torn,
)
from services.stores.shared.snapshot_checks import not_empty, not_kept

#: Records and ids in one page: small, so that a simulation sees what happens between two pages.
PAGE_ITEMS = 1000


class MemoryEventLog(Faulty):
    """models.ports.EventLog."""

    def __init__(self, store: MemoryStore, partition: str, faults: Faults | None = None) -> None:
        super().__init__(faults, "log", partition)
        self.partition = partition
        self._store = store
        self._stored = store.partition(partition)
        self._seams = Seams()
        self._opened = False

    # --- who may write ---

    async def open(self, owner: str, now: float, lease_s: float) -> Opened:
        await self._begin("open")
        stored = self._stored
        if stored.owner != owner and stored.lease_until > now:
            raise NotOwner(self.partition, stored.owner)
        cut, last_digest = self._check_tail()
        stored.epoch += 1
        stored.owner, stored.lease_until = owner, now + lease_s
        self._drop_unfinished()
        self._seams.clear()
        self._opened = True
        first_seq = stored.appends[0].first_seq if stored.appends else 0
        opened = Opened(stored.epoch, first_seq, stored.last_seq, stored.anchor_digest, last_digest, cut)
        await self._end("open")
        return opened

    async def renew(self, epoch: int, until: float) -> None:
        await self._begin("renew")
        self._check_epoch(epoch)
        self._stored.lease_until = until
        await self._end("renew")

    async def release(self, epoch: int) -> None:
        await self._begin("release")
        if self._stored.epoch == epoch:
            self._stored.lease_until = 0.0
        await self._end("release")

    async def seed(self, epoch: int, seq: int, digest: bytes, epoch_before: int) -> int:
        await self._begin("seed")
        self._check_epoch(epoch)
        stored = self._stored
        if stored.appends or stored.marks:
            raise not_empty(self.partition)
        stored.last_seq = stored.anchor_seq = seq
        stored.anchor_digest = digest
        stored.epoch = max(epoch, epoch_before)
        self._seams.clear()
        await self._end("seed")
        return stored.epoch

    # --- frames ---

    async def append(self, epoch: int, first_seq: int, frames: Sequence[bytes]) -> None:
        if not frames:
            raise ValueError("an append needs at least one frame")
        await self._begin("append")
        self._check_epoch(epoch)
        before = self._stored.last_seq
        if first_seq != before + 1:
            raise Fenced(f"{self.partition}: append at {first_seq}, but the log ends at {before}")
        limit = self._store.max_bytes
        if limit is not None and self._stored.log_bytes + sum(map(len, frames)) > limit:
            raise Full(f"{self.partition}: the log is at its limit of {limit} bytes")
        last_seq = first_seq + len(frames) - 1
        self._stored.appends.append(StoredAppend(first_seq, last_seq, list(frames)))
        self._stored.last_seq = last_seq
        await self._end("append")

    async def read(self, after: int, limit_bytes: int = READ_LIMIT_BYTES) -> list[tuple[int, bytes]]:
        await self._begin("read")
        stored = self._stored
        start = after if self._seams.get(after) is None else after + 1
        page = read_page(
            self.partition,
            (append for append in stored.appends if append.last_seq >= start),
            after,
            limit_bytes,
            (stored.anchor_seq, stored.anchor_digest),
            stored.last_seq,
            self._seams,
            may_be_torn=not self._opened,
        )
        await self._end("read")
        return page

    async def last_seq(self) -> int:
        await self._begin("last_seq")
        last = self._stored.last_seq
        await self._end("last_seq")
        return last

    async def truncate(self, epoch: int, up_to: int) -> None:
        await self._begin("truncate")
        self._check_epoch(epoch)
        stored = self._stored
        needed = stored.marks[1].seq if len(stored.marks) > 1 else 0
        if up_to > needed:
            raise ValueError(
                f"{self.partition}: truncate up to {up_to}, but the older snapshot replays from {needed}"
            )
        dropped = [append for append in stored.appends if append.last_seq <= up_to]
        if dropped:
            stored.anchor_digest = last_digest(self.partition, dropped[-1])
            stored.anchor_seq = dropped[-1].last_seq
            del stored.appends[: len(dropped)]
        await self._end("truncate")

    # --- snapshots ---

    async def put_records(
        self, epoch: int, generation: int, records: Sequence[tuple[str, bytes | None]]
    ) -> None:
        await self._begin("put_records")
        self._check_epoch(epoch)
        self._check_generation(generation)
        for key, body in records:
            self._stored.records.setdefault(key, {})[generation] = (_record_check(body), body)
        await self._end("put_records")

    async def close_snapshot(self, epoch: int, mark: Mark) -> None:
        await self._begin("close_snapshot")
        self._check_epoch(epoch)
        self._check_generation(mark.generation)
        stored = self._stored
        if mark.seq > stored.last_seq:
            raise ValueError(
                f"{self.partition}: mark at seq {mark.seq}, but the log ends at {stored.last_seq}"
            )
        stored.marks = [mark, *stored.marks[:1]]
        if len(stored.marks) > 1:
            self._drop_superseded(stored.marks[1].generation)
        await self._end("close_snapshot")

    async def marks(self) -> list[Mark]:
        await self._begin("marks")
        found = list(self._stored.marks)
        await self._end("marks")
        return found

    async def records(self, generation: int) -> AsyncIterator[list[tuple[str, bytes]]]:
        after: str | None = None
        while True:
            await self._begin("records")
            if all(mark.generation != generation for mark in self._stored.marks):
                not_kept(self.partition, generation)
            keys = (key for key in self._stored.records if after is None or key.encode() > after.encode())
            chosen = heapq.nsmallest(PAGE_ITEMS, keys, key=str.encode)
            page = [(key, body) for key in chosen if (body := self._record(key, generation)) is not None]
            await self._end("records")
            if page:
                yield page
            if len(chosen) < PAGE_ITEMS:
                return
            after = chosen[-1]

    # --- the rest ---

    async def stats(self) -> dict[str, int]:
        await self._begin("stats")
        stored = self._stored
        bodies = (body for versions in stored.records.values() for _check, body in versions.values())
        record_bytes = sum(len(body) for body in bodies if body is not None)
        first_seq = stored.appends[0].first_seq if stored.appends else 0
        await self._end("stats")
        return {
            "first_seq": first_seq,
            "last_seq": stored.last_seq,
            "frames": stored.last_seq - first_seq + 1 if first_seq else 0,
            "log_bytes": stored.log_bytes,
            "record_bytes": record_bytes,
            "disk_bytes": stored.log_bytes + record_bytes,
            "epoch": stored.epoch,
        }

    def _check_epoch(self, epoch: int) -> None:
        if self._stored.epoch != epoch:
            raise Fenced(f"{self.partition}: epoch {epoch} writes, but {self._stored.epoch} owns it")

    def _check_generation(self, generation: int) -> None:
        if self._stored.marks and generation <= self._stored.marks[0].generation:
            newest = self._stored.marks[0].generation
            raise ValueError(
                f"{self.partition}: records of generation {generation}, but {newest} is already closed"
            )

    def _check_tail(self) -> tuple[str | None, bytes]:
        """Verify the last append, set it aside when torn; returns Opened.cut and Opened.last_digest."""
        stored = self._stored
        anchor = (stored.anchor_seq, stored.anchor_digest)
        tail = stored.appends[:-4:-1]  # newest first, as many as may be looked at
        check_end(self.partition, stored.last_seq, tail[0].last_seq if tail else anchor[0])
        why = torn(self.partition, tail[0]) if tail else None
        if why is None:
            return None, check_tail(self.partition, tail[:2], anchor)
        last = tail[0]
        if stored.marks and stored.marks[0].seq >= last.first_seq:
            raise Damaged(
                self.partition, last.first_seq, f"the last append fails its check ({why}) after a snapshot"
            )
        digest = check_tail(self.partition, tail[1:], anchor)
        stored.torn.append(stored.appends.pop())
        stored.last_seq = tail[1].last_seq if len(tail) > 1 else anchor[0]
        return f"the append of seq {last.first_seq} to {last.last_seq} was cut and set aside: {why}", digest

    def _drop_unfinished(self) -> None:
        """Forget the records of a snapshot that was never closed: its generation will be used again."""
        newest = self._stored.marks[0].generation if self._stored.marks else 0
        for key, versions in list(self._stored.records.items()):
            for generation in [each for each in versions if each > newest]:
                del versions[generation]
            if not versions:
                del self._stored.records[key]

    def _drop_superseded(self, older: int) -> None:
        """Forget what neither mark needs: the records before a key's newest one up to the older mark."""
        for key, versions in list(self._stored.records.items()):
            needed = max((each for each in versions if each <= older), default=0)
            for generation in [each for each in versions if each < needed]:
                del versions[generation]
            if needed and versions[needed][1] is None:  # with nothing before it a tombstone says nothing
                del versions[needed]
            if not versions:
                del self._stored.records[key]

    def _record(self, key: str, generation: int) -> bytes | None:
        kept = [each for each in self._stored.records[key] if each <= generation]
        if not kept:
            return None
        check, body = self._stored.records[key][max(kept)]
        if _record_check(body) != check:
            how = f"snapshot record {key!r} of generation {max(kept)} does not match its checksum"
            raise Damaged(self.partition, 0, how)
        return body


def _record_check(body: bytes | None) -> int:
    return xxhash.xxh3_64_intdigest(body or b"") + (body is None)
