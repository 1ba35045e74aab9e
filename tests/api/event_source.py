"""An EventSource as the HTML standard (9.2) has it: it comes back after a network error or the end of a stream, and ends for
ever by an answer that is no event stream. What a page sees of it: `state`, `opened` and `events`."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp

CONNECTING, OPEN, CLOSED = range(3)
#: What browsers begin with, put shorter so that a test is.
RECONNECT_S = 0.2


@dataclass
class EventSource:
    """`async with EventSource(url) as source`."""

    url: str
    state: int = CONNECTING
    opened: int = 0
    last_id: str = ""
    reconnect_s: float = RECONNECT_S
    events: list[tuple[str, str]] = field(default_factory=list)
    failure: str = ""
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> EventSource:
        assert urlsplit(self.url).scheme == "http"
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def names(self) -> list[str]:
        return [name for name, _data in self.events]

    async def heard(self, name: str, times: int = 1, timeout_s: float = 30) -> str:
        """The data of the last event of this name, once there were so many. Fails when the source is closed."""
        async with asyncio.timeout(timeout_s):
            while len(found := [data for each, data in self.events if each == name]) < times:
                assert self.state != CLOSED, f"closed for ever: {self.failure}"
                await asyncio.sleep(0.01)
        return found[times - 1]

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=True) as session:
            while self.state != CLOSED:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    await self._connect(session)
                if self.state != CLOSED:
                    self.state = CONNECTING
                    await asyncio.sleep(self.reconnect_s)

    async def _connect(self, session: aiohttp.ClientSession) -> None:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.last_id:
            headers["Last-Event-ID"] = self.last_id
        async with session.get(self.url, headers=headers) as response:
            if response.status != 200 or response.content_type != "text/event-stream":
                self.state, self.failure = CLOSED, f"{response.status} {response.content_type}"
                return
            self.state = OPEN
            self.opened += 1
            name, data, identity = "", "", self.last_id
            async for raw in response.content:
                line = raw.decode().rstrip("\r\n")
                key, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if not line:
                    self.last_id = identity
                    if data:
                        self.events.append((name or "message", data.removesuffix("\n")))
                    name, data = "", ""
                elif key == "event":
                    name = value
                elif key == "data":
                    data += value + "\n"
                elif key == "id" and "\0" not in value:
                    identity = value
                elif key == "retry" and value.isdigit():
                    self.reconnect_s = min(int(value) / 1000, RECONNECT_S * 5)
