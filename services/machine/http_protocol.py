"""uvicorn's HTTP/1 with what it leaves open: trailers are no headers, headers must come in time, and a host in a request's target
counts. Put into every replica by services/wiring/serve_app.py; also what the tests listen with.

Plain requests are answered here and now by `hot` (services/ingest/doors/hot.py), without a task and ASGI. A request is one when
its head, but for the length of its body, is one that the parser itself has read before: there is no second parser that could
read it otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, ClassVar

from uvicorn import config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from models.settings.origins import parse_origin
from services.ingest.body import MESSAGE_MAX_BYTES

if TYPE_CHECKING:
    from services.ingest.doors.hot import Cut, HotWay
    from services.ingest.formats.answers import Answer

#: From the connection, or a request's first byte, to the end of its headers. They fit a packet or two.
HEADERS_S = 10.0


def install() -> None:
    """Have every server that this process starts from now on use it, as Serve names no other."""
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:Protocol"
    config.WS_PROTOCOLS["auto"] = "services.machine.websocket_protocol:Protocol"


class Protocol(HttpToolsProtocol):
    """One connection."""

    #: What answers plain requests; None: everything goes to ASGI. A class of one's own is a server's own.
    hot: HotWay | None = None
    #: The answer that was encoded last, with the headers of the server's that it has: these change once a second.
    _last: ClassVar[tuple[object, Answer, bytes] | None] = None

    #: Whether the parser is within headers: trailers come after them, by the same callback.
    _in_headers = False
    #: Whether it is within a message: what comes then is no new request, whatever it looks like.
    _in_message = False
    _timer: asyncio.TimerHandle | None = None
    #: A head that may be plain, while the parser reads it.
    _unknown: Cut | None = None
    _raw_head = b""
    #: Whether a plain request is being answered; what came meanwhile; and whether to close behind it.
    _is_busy = False
    _more = b""
    _is_leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Serve has no setting for it; a connection that becomes a WebSocket goes by it.
        self.config.ws_max_size = MESSAGE_MAX_BYTES
        self._timer = self.loop.call_later(HEADERS_S, transport.close)
        if self.root_path or self.limit_concurrency is not None or self._is_logged():
            self.hot = None  # only uvicorn's own way does what these ask for

    def connection_lost(self, exc: Exception | None) -> None:
        self._be_patient()
        self._more = b""
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self._is_busy:
            self._is_leaving = True
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self._is_busy:
            # It is the next request's, which waits until this one is answered.
            self._more += data
            self.flow.pause_reading()
            return
        if self.hot is not None and not self._in_message and self._is_quiet():
            cut = self.hot.cut(data)
            if cut is not None:
                if self._take(self.hot, cut):
                    return
                self._unknown, self._raw_head = cut, data[: cut.head_end]
        super().data_received(data)
        self._unknown = None
        # Most requests come whole and need no timer.
        if self._in_headers and self._timer is None:
            self._timer = self.loop.call_later(HEADERS_S, self.transport.close)

    def _is_logged(self) -> bool:
        return self.access_log and self.access_logger.isEnabledFor(logging.INFO)

    def _is_quiet(self) -> bool:
        """Whether all that was asked is answered, and answers are read."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self.pipeline
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _take(self, hot: HotWay, cut: Cut) -> bool:
        self._unset_keepalive_if_required()
        self._is_busy = True
        if not hot.take(cut, self._answer):
            self._is_busy = False
            return False
        self._be_patient()
        return True

    def _answer(self, answer: Answer | None) -> None:
        self._is_busy = False
        self.server_state.total_requests += 1
        transport = self.transport
        if transport.is_closing():
            return
        if answer is None:
            transport.close()
            return
        transport.write(self._on_wire(answer))
        if self._is_leaving:
            transport.close()
            return
        self._unset_keepalive_if_required()
        if self._more:
            more, self._more = self._more, b""
            self.flow.resume_reading()
            self.data_received(more)
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _on_wire(self, answer: Answer) -> bytes:
        common = self.server_state.default_headers
        last = self._last
        if last is not None and last[0] is common and last[1] is answer and not self._is_leaving:
            return last[2]
        headers = [*common, (b"content-length", b"%d" % len(answer.body)), *answer.headers]
        if answer.content_type:
            headers.append((b"content-type", answer.content_type))
        if self._is_leaving:
            headers.append((b"connection", b"close"))
        lines = [b"%b: %b\r\n" % header for header in headers]
        encoded = b"".join([STATUS_LINE[answer.status], *lines, b"\r\n", answer.body])
        if not self._is_leaving:
            type(self)._last = (common, answer, encoded)
        return encoded

    def _learn(self, hot: HotWay, cut: Cut) -> None:
        """Have the head remembered that was just read, if the parser saw in it just what stands there."""
        parser = self.parser
        method = parser.get_method()
        if not hot.may_learn(method, self.url):
            return
        lines = [b"%b %b HTTP/1.1" % (method, self.url), *(b"%b: %b" % header for header in self.headers)]
        if (
            parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and b"\r\n".join(lines).lower() == self._raw_head.lower()
        ):
            hot.learn(cut.head, method, self.url, self.headers)

    def on_message_begin(self) -> None:
        self._in_headers = self._in_message = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # What a proxy in front looked at are the headers: a trailer has to change nothing, least of all who asks.
        if self._in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._be_patient()
        if self.hot is not None and self._unknown is not None:
            cut, self._unknown = self._unknown, None
            self._learn(self.hot, cut)
        self._tell_target()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()

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
