"""Snapshots without a pause: the state as it was at one seq, written in slices while the shard works on.

A checkpoint begins at a seq. Everything that changed since the last one began is *pending*. Slices encode
pending parts in turn; a part that is about to change before its turn is encoded first (copy on write). So all
records of a checkpoint are true at one seq, and replay simply starts after it. (A seq a record was
weighed too: docs/decisions/0003-copy-on-write-snapshots.md says why this is simpler and as cheap.)

                  begin(seq 100)                        mark counts: replay from 101
    events  ...98 99 100 | 101 102 103 104 105 ...
    pending       {a,b,c}   {b,c}  {c}    {}
    written                 a      b*     c            * b changed at 102: encoded just before that

Parts are named by kind and number; keys sort so that a loader meets moving blocks and incidents before statics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

import xxhash

from models.errors import Damaged
from models.ports import Mark

#: What a row costs beside its bytes, as bytes: writing it and tidying two others takes 20 us. Without it a slice held
#: four thousand tombstones of archived incidents.
ROW_BYTES = 512


class RecordKind(StrEnum):
    """Kinds of record; the value is the first letter of its key, and their order is the order of loading."""

    CALLS = "c"
    INCIDENT = "i"
    META = "k"
    MOVING = "m"
    STATIC = "s"


def record_key(part: RecordKind, number: int | bytes) -> str:
    """`m/000012` or `i/<hex id>`."""
    return f"{part.value}/{number.hex()}" if isinstance(number, bytes) else f"{part.value}/{number:08d}"


def parse_key(key: str) -> tuple[RecordKind, int | bytes]:
    kind, _, rest = key.partition("/")
    part = RecordKind(kind)
    return part, bytes.fromhex(rest) if part is RecordKind.INCIDENT else int(rest)


class Census:
    """How many records a snapshot has, and a sum of their digests, which does not depend on their order: of a snapshot that
    writes only what changed, the others stay counted.

    It finds what was lost, mixed up or left over. It is no seal: who can write the store can write a mark to match.
    """

    _BITS = 128

    def __init__(self) -> None:
        self._count = 0
        self._sum = 0

    def add(self, records: Iterable[tuple[str, bytes]]) -> None:
        for key, record in records:
            self.replace(None, digest_of(key, record))

    def replace(self, before: int | None, after: int | None) -> None:
        """One record by its digest; None where there is none."""
        self._count += (after is not None) - (before is not None)
        self._sum = (self._sum + (after or 0) - (before or 0)) % (1 << self._BITS)

    def checksum(self) -> bytes:
        """As Mark.checksum has it."""
        return self._count.to_bytes(8, "little") + self._sum.to_bytes(self._BITS // 8, "little")

    def check(self, partition: str, mark: Mark) -> None:
        """Raises Damaged when these are not all records of that snapshot. One without a checksum is of an older version and
        counts as whole."""
        if not mark.checksum or mark.checksum == self.checksum():
            return
        counted = int.from_bytes(mark.checksum[:8], "little")
        what = (
            f"{self._count:,} records, {counted:,} were written"
            if counted != self._count
            else "not the records that were written"
        )
        raise Damaged(partition, mark.seq, f"the snapshot is incomplete: {what}")


def digest_of(key: str, record: bytes) -> int:
    """What Census sums up."""
    return xxhash.xxh3_128_intdigest(f"{key}\0".encode() + record)


class Checkpoint:
    """What changed since the last snapshot began, and what of the present one is not captured yet.

    `capture(part, number)` gives the record of a part now, None when it no longer exists. touch() must be
    called before a part changes.
    """

    def __init__(self, capture: Callable[[RecordKind, int | bytes], bytes | None]) -> None:
        self._capture = capture
        self._dirty: dict[RecordKind, set[int | bytes]] = {part: set() for part in RecordKind}
        self._pending: dict[RecordKind, set[int | bytes]] = {part: set() for part in RecordKind}
        self._captured: list[tuple[str, bytes | None]] = []
        self._taken: list[tuple[RecordKind, int | bytes]] = []
        self._running = False
        self._census = Census()
        #: Of every record there is in the store, its digest: what is written again is taken out of the census by it. Some 150
        #: bytes an incident, beside the several thousand that it takes itself.
        self._digests: dict[RecordKind, dict[int | bytes, int]] = {part: {} for part in RecordKind}

    @property
    def is_running(self) -> bool:
        return self._running

    @property
    def has_changes(self) -> bool:
        return any(self._dirty.values())

    def touch(self, part: RecordKind, number: int | bytes) -> None:
        """`number` of `part` is about to change. Safe to call often."""
        if self._running and number in self._pending[part]:
            self._take(part, number)
        self._dirty[part].add(number)

    def touch_all(self, part: RecordKind, numbers: Iterable[int]) -> None:
        """touch() for many at once: the hot path's way."""
        wanted = set(numbers)
        if self._running:
            for number in wanted & self._pending[part]:
                self._take(part, number)
        self._dirty[part] |= wanted

    def begin(self) -> None:
        """Start a checkpoint of the state as it is now. All that is dirty becomes pending."""
        if self._running:
            raise RuntimeError("a checkpoint is running already")
        self._pending, self._dirty = self._dirty, {part: set() for part in RecordKind}
        self._taken = []
        self._running = True
        # Holds the time, which moves with every message without a touch().
        for number in [*self._pending[RecordKind.META]]:
            self._take(RecordKind.META, number)

    def slice(self, size_bytes: int) -> list[tuple[str, bytes | None]]:
        """The next records, up to about `size_bytes`; an empty list means the checkpoint is complete and over."""
        size = sum(ROW_BYTES + len(record or b"") for _key, record in self._captured)
        for part, numbers in self._pending.items():
            while numbers and size < size_bytes:
                # Not next(iter(numbers)): that walks over the holes of all that were taken before, and a set of a hundred
                # thousand took seconds a slice.
                self._take(part, numbers.pop())
                size += ROW_BYTES + len(self._captured[-1][1] or b"")
        taken, self._captured = self._captured, []
        if not taken:
            self._running = False
        return taken

    def census(self) -> Census:
        """Of all records there are once the slices so far are stored."""
        return self._census

    def loaded(self, part: RecordKind, number: int | bytes, record: bytes) -> None:
        """The store has this record."""
        self._count(part, number, digest_of(record_key(part, number), record))

    def closed(self) -> None:
        """The mark is durable: what this checkpoint wrote will not be asked for again."""
        self._taken = []

    def abandon(self) -> None:
        """Give a checkpoint up that has no mark yet: all it held is dirty again, also what slice() gave out, because
        nobody knows whether it was kept."""
        for part, numbers in self._pending.items():
            self._dirty[part] |= numbers
        for part, number in self._taken:
            self._dirty[part].add(number)
        self._pending = {part: set() for part in RecordKind}
        self._captured = []
        self._taken = []
        self._running = False

    def _take(self, part: RecordKind, number: int | bytes) -> None:
        self._pending[part].discard(number)
        self._taken.append((part, number))
        key, record = record_key(part, number), self._capture(part, number)
        self._captured.append((key, record))
        self._count(part, number, None if record is None else digest_of(key, record))

    def _count(self, part: RecordKind, number: int | bytes, after: int | None) -> None:
        digests = self._digests[part]
        self._census.replace(digests.pop(number, None), after)
        if after is not None:
            digests[number] = after
