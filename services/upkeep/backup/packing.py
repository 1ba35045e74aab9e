"""What lies in a backup's files: MessagePack lists, compressed. Called by who makes and reads them.

Each kind of list is cut into files of about FILE_BYTES, made in a thread so that neither compressing nor hashing holds
up the reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec
import zstandard

from models.backup import File
from models.errors import Broken
from models.partition.packed import unpack
from services.upkeep.backup.target import Target

#: Of a file before it is compressed: large enough that a store of objects is not asked for every little thing, small enough
#: to hold several.
FILE_BYTES = 8 * 1024 * 1024
#: No file unpacks to more: one item may be larger than FILE_BYTES (frames.MAX_BODY_BYTES).
UNPACKED_BYTES_MAX = 512 * 1024 * 1024
#: An item of which nobody said how large it is.
ITEM_BYTES = 256
_LEVEL = 3

Record = tuple[str, bytes]
T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_frames = msgspec.msgpack.Decoder(list[bytes])
_records = msgspec.msgpack.Decoder(list[tuple[str, bytes]])


class Packer(Generic[T]):
    """Gathers items of one kind into files. `known` are the files that are there already, and grows."""

    def __init__(self, target: Target, known: dict[str, int]) -> None:
        self._target = target
        self._known = known
        self._items: list[T] = []
        self._size = 0
        self.files: list[File] = []

    async def add(self, items: Sequence[T], size: int) -> None:
        """`size` in bytes, about."""
        self._items += items
        self._size += size
        if self._size >= FILE_BYTES:
            await self.flush()

    async def flush(self) -> list[File]:
        """All files so far, with what waited."""
        if self._items:
            items, self._items, self._size = self._items, [], 0
            data = await asyncio.to_thread(_pack, items)
            self.files.append(await self._target.put(data, self._known))
        return self.files


def _pack(items: Sequence[object]) -> bytes:
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(_encoder.encode(items))


def _unpack(file: File, data: bytes, decode: Callable[[bytes], T]) -> T:
    try:
        return decode(unpack(data, UNPACKED_BYTES_MAX))
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise Broken(f"file {file.digest} is not what its backup says: {error}") from None


async def frames(target: Target, file: File) -> list[bytes]:
    """Stored frames, in their order. Raises Broken, also below."""
    return await items(target, file, _frames.decode)


async def records(target: Target, file: File) -> list[Record]:
    """Snapshot records, in the order of their keys."""
    return await items(target, file, _records.decode)


async def items(target: Target, file: File, decode: Callable[[bytes], list[T]]) -> list[T]:
    """Of a port beside the logs."""
    data = await target.get(file)
    return await asyncio.to_thread(_unpack, file, data, decode)
