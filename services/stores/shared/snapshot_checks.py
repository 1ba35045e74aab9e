"""Checksums over snapshot records and marks, the same in every adapter that stores them, which call it."""

from __future__ import annotations

import struct
from typing import NoReturn

import xxhash

from models.errors import Unavailable
from models.ports import Mark


def not_kept(partition: str, generation: int) -> NoReturn:
    raise Unavailable(f"{partition}: no snapshot of generation {generation} is kept; ask marks() again")


def record_check(key: str, generation: int, body: bytes | None) -> bytes:
    """Over key, generation and body: a record that got into another's place fails too."""
    digest = xxhash.xxh3_64(struct.pack("<q?", generation, body is not None))
    digest.update(key.encode() + b"\0")
    digest.update(body or b"")
    return digest.digest()


def mark_check(mark: Mark) -> bytes:
    head = struct.pack("<qqqI", mark.generation, mark.seq, mark.version, len(mark.digest))
    return xxhash.xxh3_64_digest(head + mark.digest + mark.checksum)


def is_whole(mark: Mark, check: bytes) -> bool:
    try:
        return mark_check(mark) == check
    except (TypeError, struct.error):  # not even the types are left
        return False


def not_empty(partition: str) -> ValueError:
    """What seed() raises."""
    return ValueError(
        f"{partition}: there is a log already; only an empty one goes on where another one was cut"
    )
