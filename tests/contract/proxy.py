"""A TCP proxy on a loopback port that does to a connection what networks do: delay, cut, swallow, deliver late."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Proxy:
    """In front of `port`. What it is to do is set between two requests; `marker` says which request is meant."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        #: Added to what goes either way.
        self.delay_s = 0.0
        #: Requests that hold these bytes are hit, once.
        self.marker: bytes | None = None
        #: "before": cut without forwarding. "after": forward, wait for the answer, cut without it.
        #: "late": keep it, and answer nothing; deliver() forwards it, whoever sent it may be gone.
        self.trouble = ""
        #: Take bytes and forward nothing, on every connection, as a peer does that vanished.
        self.silent = False
        self.hit = asyncio.Event()
        self._kept: list[tuple[bytes, asyncio.StreamWriter]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hurt(self, trouble: str, marker: str) -> None:
        self.trouble, self.marker = trouble, marker.encode()
        self.hit.clear()

    async def deliver(self) -> None:
        """Forward what was kept back, and wait for the server to have taken it."""
        for data, upstream in self._kept:
            upstream.write(data)
            await upstream.drain()
        await asyncio.sleep(0.1)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.target)
        cut = asyncio.Event()
        back = asyncio.create_task(self._back(upstream_reader, writer, cut))
        keep = False
        try:
            while data := await reader.read(1 << 20):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self.silent:
                    continue
                if self.marker is not None and self.marker in data:
                    self.marker = None
                    self.hit.set()
                    match self.trouble:
                        case "before":
                            return
                        case "after":
                            cut.set()
                        case "late":
                            self._kept.append((data, upstream))
                            keep = True
                            continue
                upstream.write(data)
                await upstream.drain()
        finally:
            if not keep:
                if cut.is_set():
                    await asyncio.wait([back], timeout=2)
                back.cancel()
                upstream.close()
            writer.close()

    async def _back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event
    ) -> None:
        while data := await reader.read(1 << 20):
            if cut.is_set():
                writer.transport.abort()
                return
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if not self.silent:
                writer.write(data)
                await writer.drain()
        writer.close()
