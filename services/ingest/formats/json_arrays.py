"""Large JSON arrays in bounded steps, so that a body of 16 MiB holds up nobody. Used by the formats."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

#: Alerts read before other requests get a turn: about 3 ms when none was met before.
SLICE_ALERTS = 256
#: A longer JSON array is decoded piece by piece, so that 16 MiB of it hold up nobody: 8 million small elements at
#: once took 32 s and 2.5 GB. Above what Prometheus sends, 256 alerts.
WHOLE_BYTES = 256 * 1024
#: Bytes of a piece.
PIECE_BYTES = 128 * 1024

#: The end of an object, a comma, and the beginning of another: seldom anything but two elements of the array.
_BETWEEN = re.compile(rb"\}[ \t\r\n]*,(?=[ \t\r\n]*\{)")
#: The end of a piece, where a place to cut is looked for.
_TAIL_BYTES = 16 * 1024
_BYTE = re.compile(r"\(byte (\d+)\)")
T = TypeVar("T")


def array_slices(body: bytes, decode: Callable[[bytes], list[T]]) -> Iterator[list[T]]:
    """The elements of a JSON array, at most SLICE_ALERTS of them at a time.

    A large array is cut at commas and each piece decoded as an array of its own. A comma inside a string or an
    element leaves a quote or a bracket open, so `decode` fails and another comma is tried, then a larger piece.
    Raises what `decode` raises for what is no JSON, with the place in the whole body.
    """
    for piece in _pieces(body, decode):
        if len(piece) <= SLICE_ALERTS:
            yield piece
        else:
            for start in range(0, len(piece), SLICE_ALERTS):
                yield piece[start : start + SLICE_ALERTS]


def _pieces(body: bytes, decode: Callable[[bytes], list[T]]) -> Iterator[list[T]]:
    if len(body) <= WHOLE_BYTES or body.lstrip(b" \t\r\n")[:1] != b"[":
        yield decode(body)
        return
    first = start = body.index(b"[") + 1
    size = PIECE_BYTES
    while start + size < len(body):
        found: list[T] = []
        for cut in _cuts(body, start, start + size):
            try:
                found = decode(b"[" + body[start:cut] + b"]")
            except (msgspec.DecodeError, RecursionError):
                continue
            break
        if not found:  # none fits, or nothing stands before the comma: the larger piece will tell
            size *= 2
            continue
        yield found
        start, size = cut + 1, PIECE_BYTES
    try:
        found = decode(b"[" + body[start:])
    except msgspec.DecodeError as error:
        words = _BYTE.sub(lambda place: f"(byte {int(place[1]) + start - 1})", str(error))
        raise msgspec.DecodeError(words) from None
    if not found and start > first:
        raise msgspec.DecodeError(f"JSON is malformed: trailing comma in array (byte {start - 1})")
    yield found


def _cuts(body: bytes, start: int, end: int) -> Iterator[int]:
    """Where an array may be cut: the last comma between two objects, else the last of all."""
    found = [between.end() - 1 for between in _BETWEEN.finditer(body, max(start, end - _TAIL_BYTES), end)]
    if found:
        yield found[-1]
    last = body.rfind(b",", start, end)
    if last > start:
        yield last
