"""A backup read through the ports of models/ports.py, as if it were a store that nobody writes: so what folds, checks or
copies a store does the same with a backup. Used by verify.py and restore.py.

Only what reads is there. Every file is checked as it is read, and is opened once when it is read from its beginning.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import cast

from models.backup import EPOCHS_AHEAD, Backup, Part, Until
from models.errors import Broken
from models.partition.frames import NO_DIGEST, check_frame, time_of
from models.ports import EventLog, Mark, Opened
from services.upkeep.backup import packing
from services.upkeep.backup.target import Target
from services.upkeep.kept.port import KeptPort, P, T, Upto

READ_BYTES = 4 * 1024 * 1024


class BackupStores:
    """A backup up to a point in time, to be copied (services/upkeep/copying.py). `ends` says when each partition's last frame
    was written: what is younger is no part of it (see restore.py). Of partitions that its program did not know it has
    nothing."""

    def __init__(self, target: Target, backup: Backup, until: Until, ends: Mapping[str, float]) -> None:
        self._target = target
        self._backup = backup
        self._until = until
        self._ends = ends

    def log(self, partition: str) -> EventLog:
        # Copying only reads its source.
        return cast(EventLog, BackupLog(self._target, self._part(partition), self._until))

    def pages(self, kept: KeptPort[P, T], partition: str) -> AsyncGenerator[list[T], None]:
        upto = Upto(self._part(partition), self._until, self._ends.get(partition, 0.0))
        return kept.pages_in(self._target, upto)

    def _part(self, partition: str) -> Part:
        return self._backup.find(partition) or Part(partition, 0, None, 0, NO_DIGEST, 0.0)


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
