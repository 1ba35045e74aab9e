"""How events lie in the log: a frame holds the events of one message, and the digest of the frame before it.

    offset size
    0      2    magic "LF"
    2      1    version of this layout, 1
    3      1    codec of the body: 0 MessagePack, 1 MessagePack compressed with zstd
    4      1    key id: 0 not encrypted
    5      3    reserved, 0
    8      8    seq, unsigned, one a frame, without gaps within a partition
    16     8    now, float64, seconds since the epoch
    24     16   blake2b-128 of the previous frame's stored bytes (header and body): the audit chain
    40     8    xxh3_64 of the header (with this field 0) and the body: finds damage without its neighbours
    48     4    length of the body
    52     ...  body: MessagePack [tenant, trace id or nil, [events]]

A frame is one tenant's: a step that concerns several makes several frames, in one append.

All integers little-endian. Digests are over the stored bytes, so a frame can be checked by who can't read it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence

import msgspec
import xxhash
import zstandard

from models.errors import Damaged
from models.partition.event import Event, one_of
from models.partition.packed import unpack

VERSION = 1
CODEC_MSGPACK = 0
CODEC_MSGPACK_ZSTD = 1
DIGEST_BYTES = 16
#: What the first frame of a log names as its predecessor.
NO_DIGEST = bytes(DIGEST_BYTES)
#: The tenant of a frame that is about the partition itself, and so of interest to every tenant.
EVERYONE = ""
#: Until 0.3.0 frames of ticks, verdicts and outcomes bore this tenant, whosever they were.
UNSURE = "default"
#: Bodies over this many bytes are compressed: below it the call costs more than the disk it saves.
COMPRESS_OVER_BYTES = 4096
#: The largest body a reader will decompress: over any message the doors let in (bounded parser).
MAX_BODY_BYTES = 256 * 1024 * 1024

_HEADER = struct.Struct("<2sBBB3xQd16sQI")
_CHECK_OFFSET = 40
_MAGIC = b"LF"

_encoder = msgspec.msgpack.Encoder()
_skimmer = msgspec.msgpack.Decoder(tuple[str, str | None, list[msgspec.Raw]])
#: In front of an event's name: an array of up to 15 fields (one byte) or of more (three), then a text of up to 31 bytes
#: (one byte) or of up to 255 (two). As MessagePack has it.
_SMALL_ARRAY, _SMALL_TEXT = range(0x90, 0xA0), range(0xA0, 0xC0)
_compressor = zstandard.ZstdCompressor(level=1, write_content_size=True)


class Frame(msgspec.Struct, frozen=True):
    """A frame as read. `digest` is what the next frame must name as its predecessor."""

    seq: int
    now: float
    tenant: str
    trace_id: str | None
    events: list[Event]
    digest: bytes


class Skimmed(msgspec.Struct, frozen=True):
    """A frame of which only the wanted events were decoded, each with its place among all."""

    now: float
    tenant: str
    trace_id: str | None
    events: list[tuple[int, Event]]


def encode_frame(
    seq: int, now: float, tenant: str, trace_id: str | None, events: Sequence[Event], previous: bytes
) -> tuple[bytes, bytes]:
    """The stored bytes of a frame, and their digest for the next one."""
    body = _encoder.encode((tenant, trace_id, events))
    codec = CODEC_MSGPACK
    if len(body) > COMPRESS_OVER_BYTES:
        body = _compressor.compress(body)
        codec = CODEC_MSGPACK_ZSTD
    unchecked = _HEADER.pack(_MAGIC, VERSION, codec, 0, seq, now, previous, 0, len(body))
    check = xxhash.xxh3_64_intdigest(unchecked + body)
    stored = _HEADER.pack(_MAGIC, VERSION, codec, 0, seq, now, previous, check, len(body)) + body
    return stored, digest_of(stored)


def digest_of(stored: bytes) -> bytes:
    """The audit digest of a stored frame."""
    return hashlib.blake2b(stored, digest_size=DIGEST_BYTES).digest()


def previous_of(stored: bytes) -> bytes:
    """The digest that a stored frame names as its predecessor's. The frame is not verified."""
    before: bytes = _HEADER.unpack_from(stored)[6]
    return before


def check_frame(partition: str, stored: bytes, seq: int, previous: bytes | None) -> bytes:
    """Verify a stored frame without decoding its events; returns its digest.

    `previous` is the digest the frame must name, or None to skip the chain. Raises Damaged, naming partition,
    seq and what is wrong.
    """
    if len(stored) < _HEADER.size:
        raise Damaged(
            partition, seq, f"frame of {len(stored)} bytes is shorter than its header of {_HEADER.size}"
        )
    magic, version, _codec, _key_id, own_seq, _now, before, check, length = _HEADER.unpack_from(stored)
    if magic != _MAGIC:
        raise Damaged(partition, seq, f"frame begins with {magic!r}, not {_MAGIC!r}")
    if version != VERSION:
        raise Damaged(
            partition, seq, f"frame version {version} is not supported by this version (it reads {VERSION})"
        )
    if length != len(stored) - _HEADER.size:
        raise Damaged(
            partition, seq, f"body has {len(stored) - _HEADER.size} bytes, its header says {length}"
        )
    blank = stored[:_CHECK_OFFSET] + b"\0" * 8 + stored[_CHECK_OFFSET + 8 :]
    if xxhash.xxh3_64_intdigest(blank) != check:
        raise Damaged(partition, seq, "checksum does not match")
    if own_seq != seq:
        raise Damaged(partition, seq, f"frame says it is seq {own_seq}")
    if previous is not None and before != previous:
        raise Damaged(partition, seq, "does not follow the frame before it (digest chain broken)")
    return digest_of(stored)


def time_of(stored: bytes) -> float:
    """The `now` of a stored frame, without decoding it."""
    now: float = _HEADER.unpack_from(stored)[5]
    return now


class Frames:
    """Reads the frames of one kind of partition, which hold `events` and no others."""

    def __init__(self, events: Iterable[type[Event]]) -> None:
        self.events = (*events,)
        event = one_of(self.events)
        self._frame = msgspec.msgpack.Decoder(tuple[str, str | None, list[event]])  # type: ignore[valid-type]
        self._event: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(event)

    def decode(self, partition: str, stored: bytes, seq: int, previous: bytes | None) -> Frame:
        """Verify and decode a stored frame. Raises Damaged as check_frame does, and when the body can't be read."""
        digest = check_frame(partition, stored, seq, previous)
        _magic, _version, codec, key_id, own_seq, now, _before, _check, _length = _HEADER.unpack_from(stored)
        body: bytes | memoryview = memoryview(stored)[_HEADER.size :]
        if key_id != 0:
            raise Damaged(
                partition, seq, f"body is encrypted with key {key_id}, which this program does not have"
            )
        try:
            if codec == CODEC_MSGPACK_ZSTD:
                body = unpack(body, MAX_BODY_BYTES)
            elif codec != CODEC_MSGPACK:
                raise Damaged(partition, seq, f"codec {codec} is not supported by this version")
            tenant, trace_id, events = self._frame.decode(body)
        except (zstandard.ZstdError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Damaged(partition, seq, f"body can't be read: {error}") from error
        return Frame(own_seq, now, tenant, trace_id, events, digest)

    def skim(self, partition: str, stored: bytes, seq: int, wanted: frozenset[bytes]) -> Skimmed | None:
        """The events whose names (ASCII) are in `wanted`, None when there are none: for who follows a log for a few of its
        events. A log verifies what it hands out, so nothing is verified here. Raises Damaged for a body that can't be read."""
        _magic, _version, codec, _key_id, _seq, now, _before, _check, _length = _HEADER.unpack_from(stored)
        body: bytes | memoryview = memoryview(stored)[_HEADER.size :]
        try:
            if codec == CODEC_MSGPACK_ZSTD:
                body = unpack(body, MAX_BODY_BYTES)
            tenant, trace_id, raws = _skimmer.decode(body)
            found = [
                (place, self._event.decode(raw)) for place, raw in enumerate(raws) if _name_of(raw) in wanted
            ]
        except (zstandard.ZstdError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Damaged(partition, seq, f"body can't be read: {error}") from error
        return Skimmed(now, tenant, trace_id, found) if found else None


def _name_of(raw: msgspec.Raw) -> bytes:
    """The name of an encoded event, without decoding the event."""
    view = memoryview(raw)
    at = 1 if view[0] in _SMALL_ARRAY else 3
    if view[at] in _SMALL_TEXT:
        return bytes(view[at + 1 : at + 1 + view[at] - _SMALL_TEXT.start])
    return bytes(view[at + 2 : at + 2 + view[at + 1]])
