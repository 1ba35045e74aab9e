"""A request as bytes through the HTTP protocol of a gateway, over a connection in memory. For gateway_in_process.py, and tests
that want each byte in their hands."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable, Sequence

import uvicorn
from uvicorn.server import ServerState

from services.api.cors import App
from services.ingest.body import Receive, Scope, Send
from services.ingest.doors.hot import HotWay
from services.machine.http_protocol import Protocol


class Wire(asyncio.Transport):
    """A connection; `sent` is what the server wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_paused = False
        self.changed = asyncio.Event()
        self._is_closing = False
        self.protocol: Protocol | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing:
            self.sent += bytes(data)
            self.changed.set()

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.changed.set()
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    async def until(self, holds: Callable[[], bool]) -> None:
        """Until this holds of the connection."""
        async with asyncio.timeout(10):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    async def answers(self, count: int = 1) -> list[tuple[int, dict[str, str], bytes]]:
        """So many answers, in their order: status, headers and body. Fewer when the server closed before."""
        await self.until(lambda: self._is_closing or len(self._cut()) >= count)
        return self._cut()

    def _cut(self) -> list[tuple[int, dict[str, str], bytes]]:
        found, rest = [], self.sent
        while (head := re.match(rb"HTTP/1\.1 (\d+) .*?\r\n\r\n", rest, re.DOTALL)) is not None:
            lines = head[0].decode("latin-1").split("\r\n")[1:-2]
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            end = head.end() + int(headers.get("content-length", 0))
            if len(rest) < end:
                break
            if head[1] != b"100":
                found.append((int(head[1]), headers, rest[head.end() : end]))
            rest = rest[end:]
        return found


def connected(app: App, hot: HotWay | None, state: ServerState | None = None) -> tuple[Protocol, Wire]:
    """A connection to a server of this application."""
    wire = Wire()
    kind = type("OwnProtocol", (Protocol,), {"hot": hot})
    wire.protocol = kind(_config(app), state or ServerState(), {})
    wire.protocol.connection_made(wire)
    return wire.protocol, wire


def raw(method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes:
    """A request with the length of its body, as a proxy writes it."""
    lines = [b"%b: %b\r\n" % header for header in headers]
    head = b"%b %b HTTP/1.1\r\n%b" % (method.encode(), target.encode(), b"".join(lines))
    return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


def known(hot: HotWay, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
    """Have a head taken for one that was read before, if it can be plain."""
    cut = hot.cut(raw(method, target, headers, body))
    if cut is not None and hot.may_learn(method.encode(), target.encode()):
        named = [(name.lower(), value) for name, value in headers]
        hot.learn(
            cut.head, method.encode(), target.encode(), [*named, (b"content-length", b"%d" % len(body))]
        )


@functools.lru_cache(maxsize=4)
def _config(app: App) -> uvicorn.Config:
    # A plain function: uvicorn takes a bound method for an ASGI 2 application.
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    config = uvicorn.Config(application, log_level="critical", lifespan="off")
    config.load()
    return config
