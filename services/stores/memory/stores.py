"""Every store in memory, with the promises of models/ports.py: for diskless runs, tests, the simulation.

State lives in a MemoryStore that outlives the adapters: drop a log without closing it, construct another over
the same store, and that is a crash and a restart. `faults` is told before and after each operation and may
delay it, raise before it (nothing happened) or after it (it happened and nobody knows). All
adapters over a store run in one event loop.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

import xxhash

from models.errors import Damaged, Fenced, Full, NotOwner, Unavailable
from models.incidents.filters import Place
from models.partition.frames import NO_DIGEST
from models.ports import (
    ALERTS_HEAD_BYTES,
    ARCHIVE_SCAN_MAX,
    ArchivedIncident,
    ArchivePage,
    ArchiveQuery,
    Clock,
    DeadLetter,
    Mark,
    Opened,
)
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
from services.stores.shared.dead_letter_bounds import MAX_PAYLOAD_BYTES, cut, size_of
from services.stores.shared.snapshot_checks import not_empty, not_kept

#: Records and ids in one page: small, so that a simulation sees what happens between two pages.
PAGE_ITEMS = 1000


class Faults(Protocol):
    """What a simulation does to operations, named like "log.append" or "archive.put": wait, or raise."""

    async def before(self, operation: str) -> None: ...

    async def after(self, operation: str) -> None: ...


@dataclass(slots=True)
class Partition:
    """What the disk would hold of one partition."""

    epoch: int = 0
    owner: str = ""
    lease_until: float = 0.0
    anchor_seq: int = 0
    anchor_digest: bytes = NO_DIGEST
    #: Written with each append and apart from it.
    last_seq: int = 0
    appends: list[StoredAppend] = field(default_factory=list)
    torn: list[StoredAppend] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    #: key -> generation -> (checksum, body); a body of None is a tombstone.
    records: dict[str, dict[int, tuple[int, bytes | None]]] = field(default_factory=dict)
    incidents: dict[bytes, ArchivedIncident] = field(default_factory=dict)
    delivery_ids: dict[str, tuple[float, bytes]] = field(default_factory=dict)

    @property
    def log_bytes(self) -> int:
        return sum(len(frame) for append in self.appends for frame in append.frames or ())


class MemoryStore:
    """The disk of the memory adapters. `max_bytes` caps each log: an append past it raises Full."""

    def __init__(self, *, max_bytes: int | None = None) -> None:
        self.max_bytes = max_bytes
        self.partitions: dict[str, Partition] = {}
        self.letters: list[DeadLetter] = []
        self.letters_given = 0
        self.letters_dropped = 0

    def partition(self, name: str) -> Partition:
        return self.partitions.setdefault(name, Partition())

    def damage_frame(self, partition: str, seq: int) -> None:
        """Flip a bit in a stored frame; in the last append that is a torn tail."""
        appends = self.partition(partition).appends
        for at, append in enumerate(appends):
            if append.frames is not None and append.first_seq <= seq <= append.last_seq:
                frames = list(append.frames)
                frame = frames[seq - append.first_seq]
                frames[seq - append.first_seq] = frame[:-1] + bytes([frame[-1] ^ 1])
                appends[at] = StoredAppend(append.first_seq, append.last_seq, frames)

    def damage_record(self, partition: str, key: str, generation: int) -> None:
        """Change a snapshot record behind its checksum."""
        check, body = self.partition(partition).records[key][generation]
        self.partition(partition).records[key][generation] = (check, (body or b"") + b"!")


class _Faulty:
    """Each operation gives way to others once, as a real one would, and tells `faults` before and after."""

    def __init__(self, faults: Faults | None, port: str, place: str) -> None:
        self._faults = faults
        self._port = port
        self._place = place
        self._closed = False

    async def _begin(self, operation: str) -> None:
        await asyncio.sleep(0)
        if self._closed:
            raise Unavailable(f"{self._place}: closed")
        if self._faults is not None:
            await self._faults.before(f"{self._port}.{operation}")

    async def _end(self, operation: str) -> None:
        if self._faults is not None:
            await self._faults.after(f"{self._port}.{operation}")

    async def close(self) -> None:
        self._closed = True


class MemoryEventLog(_Faulty):
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


class MemoryArchive(_Faulty):
    """models.ports.Archive."""

    def __init__(self, store: MemoryStore, partition: str, faults: Faults | None = None) -> None:
        super().__init__(faults, "archive", f"{partition} (archive)")
        self.partition = partition
        self._incidents = store.partition(partition).incidents

    async def put(self, incidents: Sequence[ArchivedIncident]) -> None:
        await self._begin("put")
        self._incidents.update((each.incident_id, each) for each in incidents)
        await self._end("put")

    async def get(self, incident_id: bytes) -> ArchivedIncident | None:
        await self._begin("get")
        found = self._incidents.get(incident_id)
        await self._end("get")
        return found

    async def page(self, query: ArchiveQuery) -> ArchivePage:
        await self._begin("page")
        sort, after = query.sort, query.after
        matching = sorted(
            (
                each
                for each in self._incidents.values()
                if each.tenant == query.tenant
                and (after is None or sort.comes_after(each.place(sort), after))
                and (not query.services or each.service in query.services)
                and (not query.severities or each.severity in query.severities)
                and (not query.types or each.type in query.types)
                and query.created_after <= each.created_at < (query.created_before or math.inf)
                and query.updated_after <= each.updated_at < (query.updated_before or math.inf)
            ),
            key=lambda each: each.place(sort),
            reverse=sort.goes_down,
        )
        items: list[ArchivedIncident] = []
        next_after: Place | None = None
        for looked_at, each in enumerate(matching, 1):
            if query.holds is None or query.holds(each.record):
                items.append(replace(each, alerts=each.alerts[:ALERTS_HEAD_BYTES]))
            if len(items) == query.limit or looked_at == ARCHIVE_SCAN_MAX:
                next_after = each.place(sort) if looked_at < len(matching) else None
                break
        await self._end("page")
        return ArchivePage(items, next_after)

    async def read(self, after: bytes, limit_bytes: int = READ_LIMIT_BYTES) -> list[ArchivedIncident]:
        await self._begin("read")
        found: list[ArchivedIncident] = []
        left = limit_bytes
        for identity in sorted(each for each in self._incidents if each > after):
            incident = self._incidents[identity]
            left -= len(incident.record) + len(incident.alerts)
            if found and left < 0:
                break
            found.append(incident)
        await self._end("read")
        return found

    async def tally(self, first: bytes, end: bytes) -> tuple[int, float]:
        await self._begin("tally")
        times = [each.updated_at for identity, each in self._incidents.items() if first <= identity < end]
        await self._end("tally")
        return len(times), max(times, default=0.0)

    async def drop_before(self, closed_before: float, limit: int) -> int:
        await self._begin("drop_before")
        aged = (each for each in self._incidents.values() if each.closed_at < closed_before)
        dropped = heapq.nsmallest(limit, aged, key=lambda each: each.closed_at)
        for each in dropped:
            del self._incidents[each.incident_id]
        await self._end("drop_before")
        return len(dropped)

    async def remove(self, incident_ids: Sequence[bytes]) -> None:
        await self._begin("remove")
        for identity in incident_ids:
            self._incidents.pop(identity, None)
        await self._end("remove")

    async def count(self) -> int:
        await self._begin("count")
        counted = len(self._incidents)
        await self._end("count")
        return counted


class MemoryDeliveryIds(_Faulty):
    """models.ports.DeliveryIds."""

    def __init__(self, store: MemoryStore, partition: str, faults: Faults | None = None) -> None:
        super().__init__(faults, "delivery_ids", f"{partition} (delivery ids)")
        self.partition = partition
        self._ids = store.partition(partition).delivery_ids

    async def seen(self, ids: Sequence[str]) -> dict[str, bytes]:
        await self._begin("seen")
        found = {each: self._ids[each][1] for each in ids if each in self._ids}
        await self._end("seen")
        return found

    async def add(self, entries: Sequence[tuple[str, float, bytes]]) -> None:
        await self._begin("add")
        for delivery_id, at, answer in entries:
            self._ids.setdefault(delivery_id, (at, answer))
        await self._end("add")

    async def drop_before(self, at: float) -> int:
        await self._begin("drop_before")
        dropped = [each for each, (accepted_at, _answer) in self._ids.items() if accepted_at < at]
        for each in dropped:
            del self._ids[each]
        await self._end("drop_before")
        return len(dropped)

    async def recent(self, since: float) -> AsyncIterator[list[str]]:
        await self._begin("recent")
        found = [each for each, (accepted_at, _answer) in self._ids.items() if accepted_at >= since]
        await self._end("recent")
        for start in range(0, len(found), PAGE_ITEMS):
            yield found[start : start + PAGE_ITEMS]

    async def entries(self) -> AsyncIterator[list[tuple[str, float, bytes]]]:
        await self._begin("entries")
        found = [(each, at, answer) for each, (at, answer) in self._ids.items()]
        await self._end("entries")
        for start in range(0, len(found), PAGE_ITEMS):
            yield found[start : start + PAGE_ITEMS]


class MemoryDeadLetters(_Faulty):
    """models.ports.DeadLetters. Letters past `max_age_s` are not shown; the next add() drops them."""

    def __init__(
        self,
        store: MemoryStore,
        *,
        max_bytes: int,
        max_age_s: float,
        clock: Clock,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(faults, "dead_letters", "dead letters")
        self._store = store
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._max_payload_bytes = max_payload_bytes

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        await self._begin("add")
        store = self._store
        for letter in letters:
            store.letters_given += 1
            store.letters.append(replace(cut(letter, self._max_payload_bytes), id=store.letters_given))
        oldest = self._clock.now() - self._max_age_s
        kept = [letter for letter in store.letters if letter.at >= oldest]
        size = sum(map(size_of, kept))
        over = 0
        while size > self._max_bytes:
            size -= size_of(kept[over])
            over += 1
        store.letters_dropped += len(store.letters) - len(kept) + over
        store.letters = kept[over:]
        await self._end("add")

    async def page(self, after_id: int, limit: int) -> list[DeadLetter]:
        await self._begin("page")
        oldest = self._clock.now() - self._max_age_s
        shown = (letter for letter in self._store.letters if letter.id > after_id and letter.at >= oldest)
        page = list(islice(shown, limit))
        await self._end("page")
        return page

    async def stats(self) -> dict[str, int]:
        await self._begin("stats")
        size = sum(map(size_of, self._store.letters))
        await self._end("stats")
        return {"kept": len(self._store.letters), "bytes": size, "dropped": self._store.letters_dropped}


def _record_check(body: bytes | None) -> int:
    return xxhash.xxh3_64_intdigest(body or b"") + (body is None)
