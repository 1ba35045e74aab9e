"""Zstandard within a bound. The library's own bound holds only for what does not state its size: for what does, it makes room
for as much as is stated."""

from __future__ import annotations

import zstandard

#: What frame_content_size() says of a frame that does not state its size.
_NOT_STATED = -1

_decompressor = zstandard.ZstdDecompressor()


def unpack(packed: bytes | memoryview, max_bytes: int) -> bytes:
    """Raises zstandard.ZstdError for what is no frame, or more than `max_bytes` unpacked; no more room than that is made."""
    stated = zstandard.frame_content_size(packed)
    if stated != _NOT_STATED and stated > max_bytes:
        raise zstandard.ZstdError(f"it unpacks to {stated:,} bytes, at most {max_bytes:,} are allowed")
    return _decompressor.decompress(packed, max_output_size=max_bytes)
