"""A WebSocket sender of ready-made frames, for benchmarks.doors: it costs next to nothing, so that what is measured is the server."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

from benchmarks.load import run

PATH = "/v1/stream/alerts"
_HANDSHAKE = (
    f"GET {PATH} HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame_of(body: bytes) -> bytes:
    """A text message as a client sends it. Its mask is of zeros, which changes nothing."""
    size = len(body)
    long = size.to_bytes(8, "big") if size > 65_535 else size.to_bytes(2, "big")
    return b"\x81" + bytes([0x80 | (127 if size > 65_535 else 126)]) + long + bytes(4) + body


class _Sender(asyncio.Protocol):
    """One connection: as many frames unanswered as the server allows."""

    def __init__(self, host: str, frames: list[bytes], at: int, step: int, seconds: float) -> None:
        self._host, self._frames, self._at, self._step = host, frames, at, step
        self._seconds = seconds
        self._came = bytearray()
        self._is_open = False
        self._window = self._ahead = self.count = 0
        self.over: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._begun = time.monotonic()
        transport.write((_HANDSHAKE % self._host).encode())

    def data_received(self, data: bytes) -> None:
        came = self._came
        came += data
        if not self._is_open:
            end = came.find(b"\r\n\r\n")
            if end < 0:
                return
            assert came.startswith(b"HTTP/1.1 101"), bytes(came[:200])
            del came[: end + 4]
            self._is_open = True
        at = 0
        while len(came) - at >= 2:
            size, begin = came[at + 1], at + 2
            if size > 125:
                begin += 2 if size == 126 else 8
                size = int.from_bytes(came[at + 2 : begin], "big")
            if len(came) < begin + size:
                break
            if came[at] == 0x81:
                self._heard(came, begin, size)
            at = begin + size
        del came[:at]
        self._send()

    def _heard(self, came: bytearray, begin: int, size: int) -> None:
        if not self._window:
            found = came.find(b'"window":', begin)
            self._window = int(came[found + 9 : found + 13].partition(b",")[0])
            return
        # Ours have no id, so all answers begin alike.
        assert came.startswith(b'{"id":null,"status":202', begin), bytes(came[begin : begin + 200])
        self._ahead -= 1
        self.count += 1

    def _send(self) -> None:
        is_over = time.monotonic() - self._begun > self._seconds
        out = []
        while self._ahead < self._window and not is_over:
            out.append(self._frames[self._at % len(self._frames)])
            self._at += self._step
            self._ahead += 1
        self._transport.write(b"".join(out))
        if is_over and not self._ahead and not self.over.done():
            self.over.set_result(time.monotonic() - self._begun)
            self._transport.close()


def send(http: str, bodies: list[bytes], senders: int, seconds: float) -> tuple[int, float]:
    """Answers to these messages, sent again and again over so many connections, and the seconds that they took."""

    async def all_of_them() -> tuple[int, float]:
        place = urlsplit(http)
        frames = [*map(frame_of, bodies)]
        loop = asyncio.get_running_loop()
        made = []
        for number in range(senders):
            _transport, sender = await loop.create_connection(
                lambda number=number: _Sender(place.netloc, frames, number, senders, seconds),  # type: ignore[misc]
                place.hostname or "",
                place.port or 80,
            )
            made.append(sender)
        took = await asyncio.gather(*[each.over for each in made])
        return sum(each.count for each in made), max(took)

    return run(all_of_them())
