"""Where a follower of all logs stands: the frame each log was read to, and how far into the one after it. Opaque to
people: a text that a server gives and takes."""

from __future__ import annotations

import base64
from functools import lru_cache

import msgspec

from models.errors import Malformed

#: Characters of a cursor: 9 bytes a partition at most, and base64 adds a third.
CURSOR_CHARS_MAX = 65_536
#: Counters of a log are 64 bits wide.
_SEQ_MAX = 2**62


class Cursor(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """`seqs` has the frame that each log was read to, under the slot map `slots`. `inside` has those logs of whose next
    frame some lines were read too, and how many. The tag is the version of this layout."""

    slots: int
    seqs: tuple[int, ...]
    inside: tuple[tuple[int, int], ...] = ()


@lru_cache(maxsize=4096)  # followers who keep up all stand at the same places
def encode_cursor(cursor: Cursor) -> str:
    """The text of a cursor."""
    return base64.urlsafe_b64encode(_encoder.encode(cursor)).rstrip(b"=").decode()


def decode_cursor(text: str, partitions: int) -> Cursor:
    """What encode_cursor was given. Raises Malformed."""
    try:
        data = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError):
        raise _no_cursor() from None
    numbers = (cursor.slots, *cursor.seqs, *(lines for _place, lines in cursor.inside))
    if (
        len(cursor.seqs) != partitions
        or not all(0 <= number < _SEQ_MAX for number in numbers)
        or not all(0 <= place < partitions for place, _lines in cursor.inside)
    ):
        raise _no_cursor()
    return cursor


def _no_cursor() -> Malformed:
    return Malformed('cursor: expected the "cursor" of an earlier message of this stream')


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Cursor)
