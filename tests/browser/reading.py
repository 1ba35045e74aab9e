"""A person who reads the page in a tab."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from playwright.async_api import Locator, Page, expect

from tests.api.gateway_in_process import FIRST_SHARD_SERVICE, System, alert


@dataclass
class Reader:
    page: Page
    ours: System
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def go(self, path: str) -> None:
        await self.page.goto(f"{self.url}{path}", wait_until="domcontentloaded")

    def row(self, title: str) -> Locator:
        return self.page.locator("li.row").filter(has=self.page.get_by_role("link", name=title, exact=True))

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def dialog(self) -> Locator:
        return self.page.locator("dialog[open]")

    async def is_live(self) -> None:
        await expect(self.page.locator(".liveness.live")).to_be_visible()

    async def asks(self) -> None:
        """Until a dialog is gone."""
        await expect(self.dialog).to_have_count(0)


async def opened(ours: System, name: str, service: str = FIRST_SHARD_SERVICE, **labels: str) -> str:
    """An alert opens an incident that is judged; its title is `NAME (SERVICE)`. Its id."""
    answer = await ours.post("/v1/alerts", [alert(name, service, **labels)])
    assert answer.status == 202, answer
    (item,) = answer.items
    path = f"/v1/incidents/{item['incident_id']}"
    async with asyncio.timeout(20):
        while (await ours.get(path)).json["state"] == "Detected":
            await asyncio.sleep(0.01)
    return str(item["incident_id"])


class Door:
    """A port that leads to another one, and can be shut and opened again, as when a system restarts."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in [*self._writers]:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers |= {writer, ours}
        await asyncio.gather(self._pipe(reader, ours), self._pipe(theirs, writer))
        self._writers -= {writer, ours}

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()
