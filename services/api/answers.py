"""What all answers of the application have in common: HEAD is GET without the body, reads are compressed if the client
accepts it, and nothing may be cached. In front of the routes (app.py)."""

from __future__ import annotations

import asyncio
import zlib
from typing import Protocol

import zstandard
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Smaller answers are sent as they are: they fit a packet or two either way. The one secret that is ever answered, a new
#: token's, is smaller, and no read.
PACKED_MIN_BYTES = 1024
#: Larger pieces are packed in a thread: as much takes some milliseconds.
INLINE_BYTES = 128 * 1024
#: Text that we make ourselves. A stream of events is packed by nobody: each has to arrive at once.
PACKED_TYPES = ("application/json", "application/problem+json", "text/plain")
#: Fast ones: beyond them a tenth is gained for twice the time.
GZIP_LEVEL, ZSTD_LEVEL = 4, 3


class Answers:
    """ASGI around the routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] == "HEAD":
            await _Head(send).answer(self._app, scope, receive)
        elif scope["method"] == "GET":
            asked = b",".join(value for name, value in scope["headers"] if name == b"accept-encoding")
            await self._app(scope, receive, _Packed(send, packing_of(asked.decode("latin-1"))).send)
        else:
            await self._app(scope, receive, _unkept(send))


def packing_of(accept: str) -> str:
    """The compression that an Accept-Encoding header prefers: "zstd", "gzip", or "" for none."""
    wanted: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, _, more = part.partition(";")
        key, _, value = more.partition("=")
        try:
            quality = float(value) if key.strip() == "q" else 1.0
        except ValueError:
            quality = 0.0
        wanted[name.strip().removeprefix("x-")] = quality
    others = wanted.get("*", 0.0)
    best = max(("zstd", "gzip"), key=lambda name: wanted.get(name, others))
    quality = wanted.get(best, others)
    return best if quality > 0 and quality >= wanted.get("identity", 0.0) else ""


class _Packer(Protocol):
    """What zlib's and zstandard's compressobj have in common."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def _packer(packing: str) -> _Packer:
    if packing == "zstd":
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj()
    return zlib.compressobj(GZIP_LEVEL, wbits=31)


def _keep_nowhere(start: Message) -> MutableHeaders:
    """An incident as it was a minute ago is a wrong answer, and what one token may read is not for others."""
    headers = MutableHeaders(scope=start)
    headers.setdefault("Cache-Control", "no-store")
    # What others wrote is in our answers: no browser is to take one for a page of ours.
    headers.setdefault("X-Content-Type-Options", "nosniff")
    return headers


def _unkept(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            _keep_nowhere(message)
        await send(message)

    return sent


def _is_packable(headers: MutableHeaders) -> bool:
    kind = headers.get("Content-Type", "").partition(";")[0]
    return kind in PACKED_TYPES and "Content-Encoding" not in headers


class _Head:
    """An answer to HEAD: the headers that GET would send. Everything else is dropped, and a stream sees its client as
    gone."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._over = asyncio.Event()

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        async def received() -> Message:
            if self._over.is_set():
                return {"type": "http.disconnect"}
            coming = asyncio.ensure_future(receive())
            over = asyncio.ensure_future(self._over.wait())
            try:
                await asyncio.wait((coming, over), return_when=asyncio.FIRST_COMPLETED)
                return coming.result() if coming.done() else {"type": "http.disconnect"}
            finally:
                coming.cancel()
                over.cancel()

        await app({**scope, "method": "GET"}, received, self._sent)

    async def _sent(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = _keep_nowhere(message)
            if _is_packable(headers):
                headers.add_vary_header("Accept-Encoding")
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b""})
            self._over.set()


class _Packed:
    """An answer to GET, packed as it comes."""

    def __init__(self, send: Send, packing: str) -> None:
        self._send = send
        self._packing = packing
        self._start: Message | None = None
        self._packer: _Packer | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = _keep_nowhere(message)
            if not _is_packable(headers):
                await self._send(message)
                return
            headers.add_vary_header("Accept-Encoding")
            # How much there is the first part says.
            self._start = message
            return
        body, more = message.get("body", b""), bool(message.get("more_body"))
        if self._start is not None:
            start, self._start = self._start, None
            if self._packing and (more or len(body) >= PACKED_MIN_BYTES):
                self._packer = _packer(self._packing)
                body = await self._pack(body, more)
                self._mark(start, None if more else len(body))
            await self._send(start)
        elif self._packer is not None:
            body = await self._pack(body, more)
        await self._send({**message, "body": body})

    async def _pack(self, body: bytes, more: bool) -> bytes:
        packer = self._packer
        assert packer is not None

        def packed() -> bytes:
            return packer.compress(body) + (b"" if more else packer.flush())

        return await asyncio.to_thread(packed) if len(body) > INLINE_BYTES else packed()

    def _mark(self, start: Message, size: int | None) -> None:
        headers = MutableHeaders(scope=start)
        headers["Content-Encoding"] = self._packing
        if size is not None:
            headers["Content-Length"] = str(size)
        elif "Content-Length" in headers:
            del headers["Content-Length"]
        if (tag := headers.get("ETag", "")).startswith('"'):
            # Not the same bytes any more, though the same version.
            headers["ETag"] = f"W/{tag}"
