"""What all receivers of the tests share."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: What stands in every secret of a receiver's settings, and must never be told.
SECRET = "s3cr3t-t0ken"


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    """One receiver. `wrong` is what requests did against the documentation; `instead` answers in its place what would change
    something there (a lookup goes on as it does)."""

    #: What receivers are given to find it: settings of its type, with {place} for host:port.
    settings: ClassVar[Mapping[str, Any]]
    #: Whether an update changes what was made, so that it is known by a ref.
    keeps: ClassVar[bool] = True
    #: Whether one that was made and whose answer was lost is not made again.
    finds: ClassVar[bool] = True
    #: Statuses that no further try changes.
    final: ClassVar[frozenset[int]] = frozenset({400, 413, 422})

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.wrong: list[str] = []
        self.instead: Handler | None = None
        #: What is lost on the way back: it is carried out, and the answer does not come.
        self.loses_answers = False
        #: What is open there, by its name.
        self.made: dict[str, dict[str, Any]] = {}

    async def answer(self, call: Call) -> web.Response:
        raise NotImplementedError

    def open_ones(self) -> list[str]:
        """What is open there."""
        return [name for name, each in self.made.items() if each.get("open", True)]

    def pinged(self) -> list[str]:
        """Whom the messages would have mentioned; links that would have been made."""
        return []

    @property
    def changes(self) -> list[Call]:
        return [each for each in self.calls if each.method != "GET"]

    def expect(self, holds: object, what: str) -> None:
        if not holds:
            self.wrong.append(what)

    def expect_text(self, of: Mapping[str, Any], name: str, most: int, *, least: int = 1) -> None:
        value = of.get(name)
        good = isinstance(value, str) and least <= len(value.encode("utf-16-le")) // 2 <= most
        self.expect(
            good, f"{name}: {least} to {most} characters, not {str(value)[:60]!r} ({len(str(value))})"
        )
        # What no reader sees, and some receivers refuse.
        bad = re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e\ud800-\udfff]", str(value))
        self.expect(not bad, f"{name}: control characters")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        call = Call(request.method, request.path, dict(request.query), request.headers, body)
        self.calls.append(call)
        if body:
            self.expect(request.content_type == "application/json", f"media type {request.content_type}")
            self.expect(len(body) < 512 * 1024, f"{len(body)} bytes")
        if self.instead is not None and request.method != "GET":
            return await self.instead(request)
        answer = await self.answer(call)
        if self.loses_answers and request.method != "GET":
            assert request.transport is not None
            request.transport.abort()
        return answer


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """On a free port; yields host:port."""
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def said(value: object, status: int = 200) -> web.Response:
    return web.json_response(value, status=status)
