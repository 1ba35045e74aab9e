"""Cursors: where the next page of a list begins, as text that nobody needs to understand. Used by the reads of /v1."""

from __future__ import annotations

import base64
import math
from uuid import UUID

import msgspec

from models.errors import Malformed
from models.incidents.filters import Position, Sort

#: Bytes of an incident id (a UUID).
ID_BYTES = 16
#: Characters of the longest cursor we make: a place in a list, 39 bytes.
CURSOR_CHARS_MAX = 64
#: Larger numbers are no place in any list, and the shard's counters are 64 bits wide.
_NUMBER_END = 2**62

#: Of two numbers the first names a list within the list: a shard, or a child of an incident.
_Stop = tuple[bytes, int]

_SORTS = tuple(Sort)
_place_decoder = msgspec.msgpack.Decoder(tuple[int, float, float, bytes])
_number_decoder = msgspec.msgpack.Decoder(tuple[int, int])
_silence_decoder = msgspec.msgpack.Decoder(tuple[float, bytes])
_stop_decoder = msgspec.msgpack.Decoder(tuple[bytes, int])


def encode_place(sort: Sort, place: Position) -> str:
    """The cursor of a page of incidents."""
    return _to_text(msgspec.msgpack.encode((_SORTS.index(sort), *place)))


def decode_place(cursor: str, sort: Sort) -> Position:
    """What encode_place was given. Raises Malformed, also for a cursor of another sort."""
    try:
        order, first, created_at, incident_id = _place_decoder.decode(_from_text(cursor))
    except (msgspec.MsgspecError, ValueError) as error:
        raise _bad_cursor() from error
    if not (math.isfinite(first) and math.isfinite(created_at)) or len(incident_id) != ID_BYTES:
        raise _bad_cursor()
    if not 0 <= order < len(_SORTS):
        raise _bad_cursor()
    if _SORTS[order] is not sort:
        raise Malformed(
            f"cursor: it belongs to a list with sort={_SORTS[order]}, this request has sort={sort}"
        )
    if sort.is_by_creation and first != created_at:
        raise _bad_cursor()
    return first, created_at, incident_id


def encode_numbers(first: int, second: int) -> str:
    """The cursor of a page of alerts over all shards."""
    return _to_text(msgspec.msgpack.encode((first, second)))


def decode_numbers(cursor: str) -> tuple[int, int]:
    """What encode_numbers was given. Raises Malformed."""
    try:
        first, second = _number_decoder.decode(_from_text(cursor))
    except (msgspec.MsgspecError, ValueError) as error:
        raise _bad_cursor() from error
    if not (0 <= first < _NUMBER_END and -1 <= second < _NUMBER_END):
        raise _bad_cursor()
    return first, second


def encode_stop(incident_id: bytes, number: int) -> str:
    """The cursor of a page of an incident's alerts: the incident or one of its children, and the last alert shown."""
    return _to_text(msgspec.msgpack.encode((incident_id, number)))


def decode_stop(cursor: str) -> _Stop:
    """What encode_stop was given. Raises Malformed."""
    try:
        incident_id, number = _stop_decoder.decode(_from_text(cursor))
    except (msgspec.MsgspecError, ValueError) as error:
        raise _bad_cursor() from error
    if len(incident_id) != ID_BYTES or not -1 <= number < _NUMBER_END:
        raise _bad_cursor()
    return incident_id, number


def encode_silence(updated_at: float, identity: str) -> str:
    """The cursor of a page of silences."""
    return _to_text(msgspec.msgpack.encode((updated_at, UUID(identity).bytes)))


def decode_silence(cursor: str) -> tuple[float, str]:
    """What encode_silence was given. Raises Malformed."""
    try:
        updated_at, identity = _silence_decoder.decode(_from_text(cursor))
        return updated_at, str(UUID(bytes=identity))
    except (msgspec.MsgspecError, ValueError) as error:
        raise _bad_cursor() from error


def encode_situation(opened_at: float, identity: bytes) -> str:
    """The cursor of a page of situations."""
    return _to_text(msgspec.msgpack.encode((opened_at, identity)))


def decode_situation(cursor: str) -> tuple[float, bytes]:
    """What encode_situation was given. Raises Malformed."""
    try:
        return _silence_decoder.decode(_from_text(cursor))
    except (msgspec.MsgspecError, ValueError) as error:
        raise _bad_cursor() from error


def _bad_cursor() -> Malformed:
    return Malformed('cursor: expected the "next" of an earlier page of the same list')


def _to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_text(text: str) -> bytes:
    return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
