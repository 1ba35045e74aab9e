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

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import xxhash

from models.errors import Damaged
from models.ports import Mark

#: What a row costs beside its bytes, as bytes: writing it and tidying two others takes 20 us. Without it a slice held
#: four thousand tombstones of archived incidents.
ROW_BYTES = 512


@dataclass(frozen=True, eq=False, slots=True)
class RecordKind:
    """A kind of record. `name` is what its keys begin with and, since they are loaded in the order of their keys, says what
    is loaded before what. `version` is that of its layout: a new one must also read those before it, because the log behind
    a snapshot is truncated.

    has_ids  its records have ids (bytes), not numbers
    is_moving  it changes with every message: one record, taken whenever a checkpoint begins, without a touch()
    """

    name: str
    has_ids: bool = False
    version: int = 1
    is_moving: bool = False


#: The one record that every machine has: its first field is the time of its last frame, which who reads a snapshot alone needs.
META = RecordKind("k", is_moving=True)


def record_key(kind: RecordKind, number: int | bytes, version: int | None = None) -> str:
    """`m/000012` or `i/<hex id>`; of a version after the first `m@2/000012`."""
    version = version or kind.version
    name = kind.name if version == 1 else f"{kind.name}@{version}"
    return f"{name}/{number.hex()}" if isinstance(number, bytes) else f"{name}/{number:08d}"


def parse_key(key: str, kinds: Mapping[str, RecordKind]) -> tuple[RecordKind, int | bytes, int]:
    """The kind of a record, its number or id, and the version of its layout. Raises ValueError for one that is not known."""
    prefix, _, rest = key.partition("/")
    name, _, version = prefix.partition("@")
    kind, number = kinds.get(name), int(version or 1)
    if kind is None or number > kind.version:
        raise ValueError(f"record {key} is of a kind or version that this program does not know")
    return kind, bytes.fromhex(rest) if kind.has_ids else int(rest), number


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


#: The layout of a snapshot as a whole: its keys and marks. What is in a record has its kind's own version.
SNAPSHOT_VERSION = 1


class Checkpoint:
    """What changed since the last snapshot began, and what of the present one is not captured yet.

    `capture(part, number)` gives the record of a part now, None when it no longer exists. touch() must be
    called before a part changes.
    """

    def __init__(
        self, kinds: Sequence[RecordKind], capture: Callable[[RecordKind, int | bytes], bytes | None]
    ) -> None:
        self._capture = capture
        self._dirty: dict[RecordKind, set[int | bytes]] = {kind: set() for kind in kinds}
        self._pending: dict[RecordKind, set[int | bytes]] = {kind: set() for kind in kinds}
        #: Records that the store has under the key of an earlier version of their kind.
        self._old_keys: dict[tuple[RecordKind, int | bytes], str] = {}
        self._captured: list[tuple[str, bytes | None]] = []
        self._taken: list[tuple[RecordKind, int | bytes]] = []
        self._running = False
        self._census = Census()
        #: Of every record there is in the store, its digest: what is written again is taken out of the census by it. Some 150
        #: bytes an incident, beside the several thousand that it takes itself.
        self._digests: dict[RecordKind, dict[int | bytes, int]] = {kind: {} for kind in kinds}

    def add(self, kind: RecordKind) -> None:
        """There are records of this kind as well. Before anything is touched."""
        self._dirty[kind], self._pending[kind], self._digests[kind] = set(), set(), {}

    @property
    def is_running(self) -> bool:
        return self._running

    @property
    def has_changes(self) -> bool:
        return any(self._dirty.values())

    @property
    def pending(self) -> int:
        """Records that the running one has not captured yet."""
        return sum(map(len, self._pending.values()))

    def touch(self, part: RecordKind, number: int | bytes) -> None:
        """`number` of `part` is about to change. Safe to call often."""
        dirty = self._dirty[part]
        if number in dirty:
            return  # it changed since this checkpoint began: what had to be taken was
        if self._running and number in self._pending[part]:
            self._take(part, number)
        dirty.add(number)

    def touch_all(self, part: RecordKind, numbers: Iterable[int] | Iterable[bytes]) -> None:
        """touch() for many at once: the hot path's way."""
        wanted: set[int | bytes] = {*numbers}
        if self._running:
            for number in wanted & self._pending[part]:
                self._take(part, number)
        self._dirty[part] |= wanted

    def begin(self) -> None:
        """Start a checkpoint of the state as it is now. All that is dirty becomes pending."""
        if self._running:
            raise RuntimeError("a checkpoint is running already")
        for kind in self._dirty:
            if kind.is_moving:
                self._dirty[kind].add(0)
        self._pending, self._dirty = self._dirty, {kind: set() for kind in self._dirty}
        self._taken = []
        self._running = True
        for kind, numbers in self._pending.items():
            if kind.is_moving:
                for number in [*numbers]:
                    self._take(kind, number)

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

    def loaded(self, part: RecordKind, number: int | bytes, record: bytes, version: int) -> None:
        """The store has this record; one of an earlier version is written again with the next checkpoint."""
        key = record_key(part, number, version)
        self._count(part, number, digest_of(key, record))
        if version != part.version:
            self._old_keys[part, number] = key
            self._dirty[part].add(number)

    def closed(self) -> None:
        """The mark is durable: what this checkpoint wrote will not be asked for again."""
        if self._old_keys:
            for each in self._taken:
                self._old_keys.pop(each, None)
        self._taken = []

    def abandon(self) -> None:
        """Give a checkpoint up that has no mark yet: all it held is dirty again, also what slice() gave out, because
        nobody knows whether it was kept."""
        for part, numbers in self._pending.items():
            self._dirty[part] |= numbers
        for part, number in self._taken:
            self._dirty[part].add(number)
        self._pending = {kind: set() for kind in self._dirty}
        self._captured = []
        self._taken = []
        self._running = False

    def _take(self, part: RecordKind, number: int | bytes) -> None:
        self._pending[part].discard(number)
        self._taken.append((part, number))
        key, record = record_key(part, number), self._capture(part, number)
        if self._old_keys and (old_key := self._old_keys.get((part, number))) is not None:
            self._captured.append((old_key, None))
        self._captured.append((key, record))
        self._count(part, number, None if record is None else digest_of(key, record))

    def _count(self, part: RecordKind, number: int | bytes, after: int | None) -> None:
        digests = self._digests[part]
        self._census.replace(digests.pop(number, None), after)
        if after is not None:
            digests[number] = after
