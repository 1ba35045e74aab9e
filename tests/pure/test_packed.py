"""No packed bytes unpack past their bound, whether they state their size or not, in every place that unpacks them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
import xxhash
import zstandard

from models.backup import File
from models.errors import Broken, Damaged
from models.partition import frames
from models.partition.packed import unpack
from models.shard.assembly import ASSEMBLY
from services.upkeep.backup import packing

MIB = 1024 * 1024


def packed(size: int, *, states: bool) -> bytes:
    return (
        zstandard.ZstdCompressor(write_content_size=states).compress(b"\0" * size)
        if states
        else _streamed(size)
    )


def _streamed(size: int) -> bytes:
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(b"\0" * size) + compressor.flush()


@pytest.mark.parametrize("states", [True, False])
def test_what_is_within_the_bound_is_unpacked(states: bool) -> None:
    assert unpack(packed(1000, states=states), 1000) == b"\0" * 1000
    assert unpack(packed(0, states=states), 1000) == b""


@pytest.mark.parametrize("states", [True, False])
def test_what_is_larger_is_refused_before_room_is_made_for_it(states: bool) -> None:
    bomb = packed(256 * MIB, states=states)

    tracemalloc.start()
    try:
        with pytest.raises(zstandard.ZstdError):
            unpack(bomb, MIB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 4 * MIB


def frame(body: bytes) -> bytes:
    """A frame of seq 1 with this body, its checksum right."""

    def header(check: int) -> bytes:
        return frames._HEADER.pack(
            b"LF", frames.VERSION, frames.CODEC_MSGPACK_ZSTD, 0, 1, 0.0, frames.NO_DIGEST, check, len(body)
        )

    return header(xxhash.xxh3_64_intdigest(header(0) + body)) + body


def decode(bomb: bytes) -> None:
    ASSEMBLY.frames.decode("shard/0000", frame(bomb), 1, None)


def skim(bomb: bytes) -> None:
    ASSEMBLY.frames.skim("shard/0000", frame(bomb), 1, frozenset({b"X"}))


def read_backup(bomb: bytes) -> None:
    packing._unpack(File("digest", len(bomb)), bomb, packing._frames.decode)


@pytest.mark.parametrize("read", [decode, skim, read_backup])
@pytest.mark.parametrize("states", [True, False])
def test_every_reader_has_its_bound(
    read: Callable[[bytes], None], states: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "MAX_BODY_BYTES", MIB)
    monkeypatch.setattr(packing, "UNPACKED_BYTES_MAX", MIB)

    with pytest.raises((Damaged, Broken), match=r"can't be read|is not what its backup says"):
        read(packed(16 * MIB, states=states))
