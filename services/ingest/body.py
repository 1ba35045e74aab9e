"""Reads and decompresses request bodies within bounds: size, time, and the size of a decompressed body. Used by the
doors."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Protocol, TypeAlias

import zstandard

from models.errors import Busy, Malformed, TooLarge
from services.ingest.shares import Shares

#: Larger compressed bodies are unpacked in a thread: 256 KiB take about a millisecond.
INLINE_UNPACK_BYTES = 256 * 1024
#: zstd windows a sender may make us allocate; its own command line stays below this without --long.
ZSTD_WINDOW_MAX_BYTES = 8 * 1024 * 1024
#: Gzip members or zstd frames in one body. Log shippers write one a line or a block; a body of empty ones would
#: keep a thread busy for seconds.
MEMBERS_MAX = 10_000
#: The longest message of a WebSocket. A sender with more to say sends more of them: so a gateway holds little of each client.
MESSAGE_MAX_BYTES = 1024 * 1024
#: Under what the extensions of a WebSocket's scope name its connection, where that can send messages as they are.
PLAIN = "llm_im.plain"
#: Packed bytes unpacked between two looks at the size: zstd makes up to 16 MiB of these.
_STEP_BYTES = 512
#: Digits of a Content-Length that is worth reading.
_LENGTH_DIGITS_MAX = 18

Scope: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, object]]]
Send: TypeAlias = Callable[[MutableMapping[str, object]], Awaitable[None]]


class Disconnected(Exception):
    """The sender went away before its body was complete: nobody is left to answer."""


class TooSlow(Exception):
    """The body did not arrive within body_timeout."""


class Unsupported(Exception):
    """The body is packed in a way that we do not unpack."""


class Room:
    """Bytes of bodies that all requests of a gateway hold together."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held = 0
        self.shares = Shares()


class Hold:
    """One request's part of a Room. `sender` is "" until it is known."""

    __slots__ = ("_room", "_size", "sender")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._size = 0
        self.sender = ""

    def take(self, size: int) -> None:
        """Raises Busy when others hold so much that this would be over the room, or its sender's other requests that it would be over
        its share. Alone one always fits."""
        room, shares = self._room, self._room.shares
        if room.held > self._size and room.held + size > room.max_bytes:
            raise Busy(f"{room.held} bytes of requests are in memory already", retry_after_s=1.0)
        others = shares.held_by(self.sender)
        if others > self._size and shares.is_over(self.sender, size, room.max_bytes - room.held):
            raise Busy(f"{others} bytes of {self.sender} are in memory already", retry_after_s=1.0)
        shares.add(self.sender, size)
        room.held += size
        self._size += size

    def belongs_to(self, sender: str) -> None:
        """From now on it counts as this sender's."""
        self.sender = sender
        if self._size:
            self._room.shares.add(sender, self._size)

    def release(self) -> None:
        self._room.held -= self._size
        if self._size:
            self._room.shares.drop(self.sender, self._size)
        self._size = 0


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], max_bytes: int, timeout_s: float, hold: Hold
) -> bytes:
    """The body as sent. Raises TooLarge, TooSlow, Busy, Disconnected."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and (len(declared) > _LENGTH_DIGITS_MAX or int(declared) > max_bytes):
        size = declared[:_LENGTH_DIGITS_MAX].decode()
        raise TooLarge(f"body of {size} bytes, at most {max_bytes} are allowed")
    try:
        # From the first byte on: a sender may stop right behind its headers.
        async with asyncio.timeout(timeout_s):
            return await _all(receive, max_bytes, hold)
    except TimeoutError:
        raise TooSlow(f"the body took over {timeout_s:g} s") from None


async def _all(receive: Receive, max_bytes: int, hold: Hold) -> bytes:
    parts: list[bytes] = []
    size = 0
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
            hold.take(len(part))
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def unpacked(body: bytes, headers: Mapping[bytes, bytes], max_bytes: int, hold: Hold) -> bytes:
    """The body as Content-Encoding says to read it. Raises TooLarge, Malformed, Unsupported, Busy."""
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding in (b"", b"identity"):
        return body
    new = _UNPACKERS.get(encoding)
    if new is None:
        known = ", ".join(sorted(name.decode() for name in _UNPACKERS))
        raise Unsupported(
            f"Content-Encoding: expected one of {known}, got {encoding[:40].decode('latin-1')!r}"
        )
    name = encoding.decode()
    if len(body) > INLINE_UNPACK_BYTES:
        found = await asyncio.to_thread(_unpack, body, max_bytes, new, name)
    else:
        found = _unpack(body, max_bytes, new, name)
    hold.take(len(found))
    return found


class _Unpacker(Protocol):
    """What zlib's and zstandard's decompressobj have in common: one member, or frame."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _unpack(body: bytes, max_bytes: int, new: Callable[[], _Unpacker], name: str) -> bytes:
    """All members of a packed body; each format allows several, one behind the other."""
    parts: list[bytes] = []
    size = members = place = 0
    unpacker: _Unpacker | None = None
    try:
        while place < len(body):
            if unpacker is None:
                members += 1
                if members > MEMBERS_MAX:
                    raise TooLarge(f"body: over {MEMBERS_MAX} {name} members")
                unpacker = new()
            step = body[place : place + _STEP_BYTES]
            part = unpacker.decompress(step)
            place += len(step)
            size += len(part)
            if size > max_bytes:
                raise TooLarge(f"body of over {max_bytes} bytes when unpacked")
            parts.append(part)
            if unpacker.eof:
                place -= len(unpacker.unused_data)
                unpacker = None
    except (zlib.error, zstandard.ZstdError) as error:
        raise Malformed(f"body: not {name} as Content-Encoding says: {error}") from None
    if unpacker is not None or not members:
        raise Malformed(f"body: {name} data ends early")
    return b"".join(parts)


def _gzip() -> _Unpacker:
    return zlib.decompressobj(wbits=31)


def _zstd() -> _Unpacker:
    return zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX_BYTES).decompressobj()


_UNPACKERS: dict[bytes, Callable[[], _Unpacker]] = {b"gzip": _gzip, b"x-gzip": _gzip, b"zstd": _zstd}
