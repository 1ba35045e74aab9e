"""A TCP proxy on a loopback port that does to a connection what networks do: delay, cut, swallow, deliver late, drop.

Dropped packets: a program above TCP sees none of them, it sees bytes that come late. So here a byte stream is looked at
as segments of SEGMENT_BYTES. One that is dropped waits for its retransmission timeout, RTO_S, and all behind it in its
direction wait with it; dropped again, it waits twice as long. That is what Linux does to a small answer on a quick
network, where 200 ms is its least timeout and no later segment's acknowledgement tells of the loss sooner.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from types import TracebackType

SEGMENT_BYTES = 1448
RTO_S = 0.2


class Proxy:
    """In front of `port`. What it is to do is set between two requests; `marker` says which request is meant."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        #: Added to what goes either way.
        self.delay_s = 0.0
        #: The share of segments that are dropped, by the seed of `chance`; `dropped` counts them.
        self.drop = 0.0
        self.chance = random.Random(0)
        self.dropped = 0
        #: Requests that hold these bytes are hit, once.
        self.marker: bytes | None = None
        #: "before": cut without forwarding. "after": forward, wait for the answer, cut without it.
        #: "late": keep it, and answer nothing; deliver() forwards it, whoever sent it may be gone.
        #: "vanish": forward it, and from then on neither side of that connection hears of the other.
        self.trouble = ""
        #: Take bytes and forward nothing, on every connection, as a peer does that vanished. A connection that lost bytes
        #: this way stays mute when it is over.
        self.silent = False
        self.hit = asyncio.Event()
        self._kept: list[tuple[bytes, asyncio.StreamWriter]] = []
        self._open: set[_Pair] = set()
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

    def vanish(self) -> None:
        """Make every connection that is open now half-open: both sides think it lives, nothing is answered on it, and
        nobody is told. As a firewall does that forgot it. New connections are well."""
        for pair in self._open:
            pair.mute = True

    async def deliver(self) -> None:
        """Forward what was kept back, and wait for the server to have taken it; one that restarted never will."""
        kept, self._kept = self._kept, []
        for data, upstream in kept:
            with contextlib.suppress(ConnectionError):
                upstream.write(data)
                await upstream.drain()
        await asyncio.sleep(0.1)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # the server is away: so is who stands in front of it
            writer.transport.abort()
            return
        pair = _Pair()
        self._open.add(pair)
        back = asyncio.create_task(self._back(upstream_reader, writer, pair))
        keep = False
        try:
            while data := await reader.read(1 << 20):
                await self._travel(len(data))
                if self._swallows(pair):
                    continue
                if self.marker is not None and self.marker in data:
                    self.marker = None
                    self.hit.set()
                    match self.trouble:
                        case "before":
                            return
                        case "after":
                            pair.cut = True
                        case "late":
                            self._kept.append((data, upstream))
                            keep = True
                            continue
                        case "vanish":
                            pair.mute = True
                upstream.write(data)
                await upstream.drain()
        except ConnectionError:
            pass  # one side is gone: the other hears of it below
        finally:
            self._open.discard(pair)
            if not keep:
                if pair.cut:
                    await asyncio.wait([back], timeout=2)
                back.cancel()
                upstream.close()
            writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: _Pair) -> None:
        try:
            while data := await reader.read(1 << 20):
                if pair.cut:
                    writer.transport.abort()
                    return
                await self._travel(len(data))
                if not self._swallows(pair):
                    writer.write(data)
                    await writer.drain()
        except ConnectionError:
            pass
        if not pair.mute:
            writer.close()

    def _swallows(self, pair: _Pair) -> bool:
        pair.mute = pair.mute or self.silent
        return pair.mute

    async def _travel(self, size_bytes: int) -> None:
        """The time that so many bytes take."""
        wait_s = self.delay_s
        if self.drop:
            for _segment in range(-(-size_bytes // SEGMENT_BYTES)):
                timeout_s = RTO_S
                while self.chance.random() < self.drop:
                    self.dropped += 1
                    wait_s += timeout_s
                    timeout_s *= 2
        if wait_s:
            await asyncio.sleep(wait_s)


class _Pair:
    """One connection and what became of it."""

    def __init__(self) -> None:
        self.cut = False
        self.mute = False
