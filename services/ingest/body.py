"""Reads and unpacks request bodies within bounds: size, time, and what a compressed body may become. Used by http.py."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TypeAlias

import zstandard

from models.errors import Malformed, TooLarge

#: Larger compressed bodies are unpacked in a thread: 256 KiB take about a millisecond.
INLINE_UNPACK_BYTES = 256 * 1024
#: zstd windows a sender may make us allocate; its own command line stays below this without --long.
ZSTD_WINDOW_MAX_BYTES = 8 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024

Scope: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, object]]]
Send: TypeAlias = Callable[[MutableMapping[str, object]], Awaitable[None]]


class Disconnected(Exception):
    """The sender went away before its body was complete: nobody is left to answer."""


class TooSlow(Exception):
    """The body did not arrive within body_timeout."""


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], max_bytes: int, timeout_s: float) -> bytes:
    """The body as sent, unpacked. Raises TooLarge, Malformed, TooSlow, Disconnected."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > max_bytes:
        raise TooLarge(f"body of {int(declared)} bytes, at most {max_bytes} are taken")
    message = await receive()
    first = message.get("body", b"")
    if message["type"] == "http.disconnect" or not isinstance(first, bytes):
        raise Disconnected
    body: bytes = first
    if message.get("more_body"):
        try:
            body = await asyncio.wait_for(_rest(receive, body, max_bytes), timeout_s)
        except TimeoutError:
            raise TooSlow from None
    if len(body) > max_bytes:
        raise TooLarge(f"body of over {max_bytes} bytes")
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding in (b"", b"identity"):
        return body
    unpack = _UNPACKERS.get(encoding)
    if unpack is None:
        known = ", ".join(sorted(name.decode() for name in _UNPACKERS))
        raise Malformed(f"Content-Encoding: expected one of {known}, got {encoding[:40].decode('latin-1')!r}")
    if len(body) > INLINE_UNPACK_BYTES:
        return await asyncio.to_thread(unpack, body, max_bytes)
    return unpack(body, max_bytes)


async def _rest(receive: Receive, first: bytes, max_bytes: int) -> bytes:
    parts, size = [first], len(first)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part = message.get("body", b"")
        if isinstance(part, bytes) and part:
            parts.append(part)
            size += len(part)
        if size > max_bytes:
            raise TooLarge(f"body of over {max_bytes} bytes")
        if not message.get("more_body"):
            return b"".join(parts)


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise Malformed(f"body: not gzip as Content-Encoding says: {error}") from None
    if len(unpacked) > max_bytes:
        raise TooLarge(f"body of over {max_bytes} bytes when unpacked")
    if not unpacker.eof:
        raise Malformed("body: gzip data ends early")
    return unpacked


def _unzstd(body: bytes, max_bytes: int) -> bytes:
    parts, size = [], 0
    unpacker = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX_BYTES)
    try:
        with unpacker.stream_reader(body) as reader:
            while part := reader.read(min(_CHUNK_BYTES, max_bytes + 1 - size)):
                parts.append(part)
                size += len(part)
                if size > max_bytes:
                    raise TooLarge(f"body of over {max_bytes} bytes when unpacked")
    except zstandard.ZstdError as error:
        raise Malformed(f"body: not zstd as Content-Encoding says: {error}") from None
    return b"".join(parts)


_UNPACKERS: dict[bytes, Callable[[bytes, int], bytes]] = {b"gzip": _gunzip, b"x-gzip": _gunzip, b"zstd": _unzstd}
