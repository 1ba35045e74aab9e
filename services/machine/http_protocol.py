"""uvicorn's HTTP/1 with what it leaves open: trailers are no headers, headers must come in time, and a host in a request's target
counts. Put into every replica by services/wiring/serve_app.py; also what the tests listen with."""

from __future__ import annotations

import asyncio
import re

from uvicorn import config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from models.settings.origins import parse_origin

#: From the connection, or a request's first byte, to the end of its headers. They fit a packet or two.
HEADERS_S = 10.0


def install() -> None:
    """Have every server that this process starts from now on use it, as Serve names no other."""
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:Protocol"


class Protocol(HttpToolsProtocol):
    """One connection."""

    #: Whether the parser is within headers: trailers come after them, by the same callback.
    _in_headers = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEADERS_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._be_patient()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Most requests come whole and need no timer.
        if self._in_headers and self._timer is None:
            self._timer = self.loop.call_later(HEADERS_S, self.transport.close)

    def on_message_begin(self) -> None:
        self._in_headers = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # What a proxy in front looked at are the headers: a trailer has to change nothing, least of all who asks.
        if self._in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._be_patient()
        self._tell_target()
        super().on_headers_complete()

    def _tell_target(self) -> None:
        """`GET http://name/path` names a host too, which counts (RFC 9112, 3.2.2). Beside a Host that says another one it is a
        second Host, and those who decide by it refuse the request."""
        scheme, _, rest = self.url.partition(b"://")
        if scheme.startswith(b"/") or not rest:
            return
        host = re.split(rb"[/?#]", rest, maxsplit=1)[0]
        said = [_place(value) for name, value in self.headers if name == b"host"]
        if _place(host) not in said:
            self.headers.append((b"host", host))

    def _be_patient(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _place(host: bytes) -> object:
    """A host and port in one spelling, or as they are when they are none."""
    return parse_origin(f"http://{host.decode('latin-1')}") or host
