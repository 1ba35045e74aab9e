"""A backup read through the ports of models/ports.py, as if it were a store that nobody writes: so what folds, checks or
copies a store does the same with a backup. Used by verify.py and restore.py.

Only what reads is there. Every file is checked as it is read, and is opened once when it is read from its beginning.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from models.backup import EPOCHS_AHEAD, Backup, Part, Until
from models.errors import Broken
from models.partition.frames import NO_DIGEST, check_frame, time_of
from models.ports import ArchivedIncident, Mark, Opened
from services.upkeep.backup import packing
from services.upkeep.backup.target import Target

READ_BYTES = 4 * 1024 * 1024
#: Delivery ids in one page.
PAGE = 1000


class BackupStores:
    """A backup up to a point in time. `ends` says when each partition's last frame was written: what is younger is no part
    of it (see restore.py)."""

    def __init__(self, target: Target, backup: Backup, until: Until, ends: Mapping[str, float]) -> None:
        self._target = target
        self._backup = backup
        self._until = until
        self._ends = ends

    def log(self, partition: str) -> BackupLog:
        return BackupLog(self._target, self._backup.part(partition), self._until)

    def archive(self, partition: str) -> BackupArchive:
        return BackupArchive(self._target, self._backup.part(partition), self._ends[partition])

    def delivery_ids(self, partition: str) -> BackupDeliveryIds:
        part = self._backup.part(partition)
        return BackupDeliveryIds(self._target, part, self._until, self._ends[partition])


class BackupLog:
    """The reading part of models.ports.EventLog. Raises Broken for a file or a chain that is not what it was."""

    def __init__(self, target: Target, part: Part, until: Until) -> None:
        self.partition = part.name
        self._target = target
        self._part = part
        self._until = until
        self._start = (part.first_seq, NO_DIGEST if part.snapshot is None else part.snapshot.digest)
        #: Where reading goes on: the next file, what was unpacked of the one before, the last seq and digest handed out.
        self._file = 0
        self._frames: list[bytes] = []
        self._seq, self._digest = self._start

    async def open(self, _owner: str, _now: float, _lease_s: float) -> Opened:
        """As a writer would find it. Nobody can write it, so nobody is kept out. The epoch is far above the source's, which
        may have gone on."""
        seq, digest = self._start
        while page := await self.read(seq):
            seq, digest = page[-1][0], self._digest
        first = self._start[0] + 1 if seq > self._start[0] else 0
        return Opened(self._part.epoch + EPOCHS_AHEAD, first, seq, self._start[1], digest)

    async def renew(self, _epoch: int, _until: float) -> None: ...

    async def release(self, _epoch: int) -> None: ...

    async def read(self, after: int, limit_bytes: int = READ_BYTES) -> list[tuple[int, bytes]]:
        if after < self._seq:
            self._file, self._frames = 0, []
            self._seq, self._digest = self._start
        page: list[tuple[int, bytes]] = []
        size = 0
        while size < limit_bytes and (stored := await self._next()) is not None:
            if self._seq > after:
                page.append((self._seq, stored))
                size += len(stored)
        return page

    async def _next(self) -> bytes | None:
        """The frame after the last one; None at the end."""
        if self._seq >= self._until.last_seq(self._part):
            return None
        while not self._frames:
            if self._file == len(self._part.frames):
                raise Broken(f"its log ends at seq {self._seq}, and the backup says {self._part.last_seq}")
            self._frames = await packing.frames(self._target, self._part.frames[self._file])
            self._frames.reverse()
            self._file += 1
        stored = self._frames[-1]
        digest = check_frame(self.partition, stored, self._seq + 1, self._digest)
        if not self._until.takes(self._part, self._seq + 1, time_of(stored)):
            return None
        self._frames.pop()
        self._seq, self._digest = self._seq + 1, digest
        if self._seq == self._part.last_seq and digest != self._part.last_digest:
            raise Broken(f"the frame at seq {self._seq} is not the one that the backup ends with")
        return stored

    async def stats(self) -> dict[str, int]:
        """Who copies a log asks whether it ever began."""
        return {"epoch": self._part.epoch}

    async def marks(self) -> list[Mark]:
        return [] if self._part.snapshot is None else [self._part.snapshot.mark()]

    async def records(self, _generation: int) -> AsyncIterator[list[tuple[str, bytes]]]:
        for file in self._part.records:
            yield await packing.records(self._target, file)

    async def close(self) -> None: ...


class BackupArchive:
    """The reading part of models.ports.Archive that copying needs."""

    def __init__(self, target: Target, part: Part, end: float) -> None:
        self._target = target
        self._part = part
        self._end = end
        self._items: list[ArchivedIncident] = []
        self._files = [file for day in part.archive for file in day.files]
        self._file = 0
        self._after = b""
        self._count, self._newest = 0, 0.0

    async def read(self, after: bytes, limit_bytes: int = READ_BYTES) -> list[ArchivedIncident]:
        if after != self._after:
            self._begin()
        page: list[ArchivedIncident] = []
        size = 0
        while size < limit_bytes:
            if not self._items and not await self._fill():
                break
            item = self._items.pop()
            self._count, self._newest = self._count + 1, max(self._newest, item.updated_at)
            if item.incident_id > after:
                page.append(item)
                size += len(item.record) + len(item.alerts)
        self._after = page[-1].incident_id if page else after
        return page

    async def _fill(self) -> bool:
        if self._file == len(self._files):
            return False
        found = await packing.incidents(self._target, self._files[self._file])
        self._items = [each for each in reversed(found) if each.updated_at <= self._end]
        self._file += 1
        return True

    def _begin(self) -> None:
        self._items, self._file, self._after = [], 0, b""
        self._count, self._newest = 0, 0.0

    async def tally(self, _first: bytes, _end: bytes) -> tuple[int, float]:
        """Of all there is, whichever stretch is asked for: counted along while it is read to its end."""
        while await self.read(self._after):
            pass
        return self._count, self._newest

    async def close(self) -> None: ...


class BackupDeliveryIds:
    """The reading part of models.ports.DeliveryIds that copying needs."""

    def __init__(self, target: Target, part: Part, until: Until, end: float) -> None:
        self._target = target
        self._part = part
        self._end = end
        # Those of frames behind the snapshot are written again by the shard's recovery; at the very time of the last frame
        # there may be some of the frame after it.
        self._is_snapshot_alone = part.last_seq == part.first_seq or until.last_seq(part) == part.first_seq

    async def entries(self) -> AsyncIterator[list[tuple[str, float, bytes]]]:
        for file in self._part.deliveries:
            found = await packing.deliveries(self._target, file)
            kept = [
                each
                for each in found
                if each[1] < self._end or (each[1] == self._end and self._is_snapshot_alone)
            ]
            for start in range(0, len(kept), PAGE):
                yield kept[start : start + PAGE]

    async def close(self) -> None: ...
