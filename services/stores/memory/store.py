"""Every store in memory, with the promises of models/ports.py: for diskless runs, tests, the simulation.

State lives in a MemoryStore that outlives the adapters: drop a log without closing it, construct another over
the same store, and that is a crash and a restart. `faults` is told before and after each operation and may
delay it, raise before it (nothing happened) or after it (it happened and nobody knows). All
adapters over a store run in one event loop.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from models.errors import Unavailable
from models.partition.frames import NO_DIGEST
from models.ports import ArchivedIncident, DeadLetter, Mark
from services.stores.shared.chain import StoredAppend


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


class Faulty:
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
