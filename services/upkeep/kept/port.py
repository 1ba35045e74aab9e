"""A port beside a partition's log, as copies, backups, checks and resharding go about it. services/upkeep/kept/table.py lists them.

Who writes a row says how items are read and written; what is here does the rest for a port of which there is little. One of
which there is much says more (archive.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import msgspec

from models.backup import File, Part, Until
from models.partition.sharding import SlotMap
from services.stores.choice import Stores
from services.upkeep.backup import packing
from services.upkeep.backup.target import Target

#: Items in one page of a backup's.
PAGE = 1000
#: After each page as long a rest, but no longer than this: others have the store, too.
REST_MAX_S = 0.5

Progress = Callable[[str], None]


class Closing(Protocol):
    """An opened port."""

    async def close(self) -> None: ...


P = TypeVar("P", bound=Closing)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Upto:
    """Of a backup's partition, the point in time that is restored: `end` is when its last frame was written. What lies beside
    the log was read behind it, and may be younger."""

    part: Part
    until: Until
    end: float

    @property
    def is_snapshot_alone(self) -> bool:
        """Whether it ends with the snapshot, and there is no frame behind."""
        return self.part.first_seq in (self.part.last_seq, self.until.last_seq(self.part))


class KeptPort(Generic[P, T]):
    """`P` is the port, `T` an item. Everything may be asked again after a failure, and does no harm then."""

    #: What partition kinds and backups call it, for ever.
    name: ClassVar[str]
    #: What its items are called where they are counted, in the plural: a word for programs, and in full for people.
    counted: ClassVar[str]
    items: ClassVar[str]
    #: Whether a store that holds some counts as used. What runs out by itself does not.
    fills: ClassVar[bool] = True
    #: Of a list of items, as a backup's file has it.
    decoder: msgspec.msgpack.Decoder[list[T]]

    def open(self, stores: Stores, partition: str) -> P:
        raise NotImplementedError

    def pages(self, port: P) -> AsyncIterator[list[T]]:
        """All there is, in an order of its own. An item that comes or goes meanwhile may be missing."""
        raise NotImplementedError

    async def put(self, port: P, items: Sequence[T]) -> None:
        """Durable when it returns. What is there already stays or is replaced by the same."""
        raise NotImplementedError

    async def count(self, port: P) -> int:
        """How many items there are."""
        count = 0
        async for page in self.pages(port):
            count += len(page)
        return count

    # -- copies ----------------------------------------------------------------------------------------------

    async def copy(self, pages: AsyncIterator[list[T]], there: P, step: Callable[[int], None]) -> int:
        """Put all of these; how many were not there. `step(looked_at)` is called before each page is put, and may raise. Raises
        Conflict when the copy has other items then."""
        looked_at = 0
        async for page in pages:
            looked_at += len(page)
            step(looked_at)
            await self.put(there, page)
        return looked_at

    # -- backups ---------------------------------------------------------------------------------------------

    def size_of(self, item: T) -> int:
        """In bytes, about."""
        return packing.ITEM_BYTES

    def files_in(self, part: Part) -> list[File]:
        """Its files of a backup."""
        return part.kept.get(self.name, [])

    async def back_up(
        self,
        port: P,
        target: Target,
        known: dict[str, int],
        part: Part,
        latest: Part | None,
        progress: Progress,
    ) -> Part:
        """The part with its files, which are in the target then. `latest` is the same partition in the latest whole backup."""
        return msgspec.structs.replace(
            part, kept={**part.kept, self.name: await self.pack(port, target, known)}
        )

    async def pack(self, port: P, target: Target, known: dict[str, int]) -> list[File]:
        return await self.pack_pages(self.pages(port), target, known)

    async def pack_pages(
        self, pages: AsyncIterator[list[T]], target: Target, known: dict[str, int]
    ) -> list[File]:
        """These in files, with rests between."""
        packer = packing.Packer[T](target, known)
        async for page in resting(pages):
            await packer.add(page, sum(map(self.size_of, page)))
        return await packer.flush()

    def was_there(self, item: T, upto: Upto) -> bool:
        """Whether it belongs to that point in time."""
        return True

    async def pages_in(self, target: Target, upto: Upto) -> AsyncGenerator[list[T], None]:
        """What a backup has of it. Raises Broken."""
        for file in self.files_in(upto.part):
            found = [
                each
                for each in await packing.items(target, file, self.decoder.decode)
                if self.was_there(each, upto)
            ]
            for start in range(0, len(found), PAGE):
                yield found[start : start + PAGE]

    async def check_files(self, target: Target, part: Part) -> int:
        """Read all of a backup's; how many items. Raises Broken."""
        return sum(
            [len(await packing.items(target, file, self.decoder.decode)) for file in self.files_in(part)]
        )

    # -- checks ----------------------------------------------------------------------------------------------

    async def verify(
        self, port: P, partition: str, slots: SlotMap | None, told: Callable[[str], bool]
    ) -> int:
        """Look at all of it; how many items. What is wrong goes to `told`, which says whether to go on."""
        return await self.count(port)

    # -- resharding ------------------------------------------------------------------------------------------

    def slot_of(self, item: T) -> int | None:
        """The slot that an item goes along with; None for one that stays."""
        return None

    async def remove(self, port: P, items: Sequence[T]) -> None:
        """These went to another partition. What is best left to run out by itself is left."""


#: A row of any port.
AnyPort = KeptPort[Any, Any]


async def resting(pages: AsyncIterator[T]) -> AsyncIterator[T]:
    """The same, with a rest behind each page as long as it took."""
    began = time.monotonic()
    async for page in pages:
        yield page
        await asyncio.sleep(min(REST_MAX_S, time.monotonic() - began))
        began = time.monotonic()
