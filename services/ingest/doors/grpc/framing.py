"""Messages as gRPC puts them into an HTTP/2 stream: a flag, four bytes of length, the message, perhaps compressed. Used by call.py."""

from __future__ import annotations

import zlib

from models.errors import Malformed, TooLarge

HEAD_BYTES = 5
#: zlib's wbits for each encoding that we read. Answers are a few bytes: they go as they are.
ENCODINGS = {b"identity": 0, b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
ACCEPTED = b"identity,deflate,gzip"


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def unpacked(message: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """A compressed message as it was. Makes no more than `max_bytes` of it. Raises Malformed, TooLarge."""
    wbits = ENCODINGS.get(encoding, 0)
    if not wbits:
        raise Malformed("a message is compressed, and grpc-encoding does not say how")
    inflating = zlib.decompressobj(wbits)
    try:
        found = inflating.decompress(message, max_bytes)
        if inflating.unconsumed_tail or len(found) == max_bytes:
            # One byte more tells whether it ends just there.
            found += inflating.decompress(inflating.unconsumed_tail, 1)
        if len(found) > max_bytes:
            raise TooLarge(
                f"a message of over {max_bytes} bytes when decompressed, at most that many are allowed "
                "(server.max_body_bytes)"
            )
        if not inflating.eof:
            raise Malformed("a compressed message is cut off")
    except zlib.error as error:
        raise Malformed(f"a message can't be decompressed: {error}") from None
    return found
