"""What a shadow would have said, counted beside what was said: from a classifier to whoever asks."""

from __future__ import annotations

import msgspec

#: (severity or type, what was said, what the shadow would have said, how often).
Compared = list[tuple[str, str, str, int]]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[int, Compared])


def encode_compared(counts: dict[int, Compared]) -> bytes:
    """By version."""
    return _encoder.encode(counts)


def decode_compared(payload: bytes) -> dict[int, Compared]:
    return _decoder.decode(payload)
