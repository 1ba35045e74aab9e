"""The trace of a request to anything but the doors: taken from its sender or started here, and available to whoever
answers it.

Within a request `current()` is its trace context (models/trace.py), for messages to shards; log lines and problem
documents have its trace id.
"""

from __future__ import annotations

from contextvars import ContextVar

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.ports import Tracer
from models.trace import Attribute, context_of, trace_id_of

#: What people and programs ask for. Probes come every second, and a stream lasts for days: neither is a piece of work.
TRACED = ("/v1/", "/api/", "/graphql")
NOT_TRACED = "/v1/stream/"
#: Of a path that is told: ours are shorter.
PATH_CHARS = 200

_current: ContextVar[str | None] = ContextVar("trace", default=None)


def current() -> str | None:
    """The trace context of the request under way."""
    return _current.get()


def current_id() -> str | None:
    """Its trace id."""
    return trace_id_of(_current.get())


log = structlog.get_logger()


class Traced:
    """ASGI around the application: one span a request."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", ""))
        if scope["type"] != "http" or not path.startswith(TRACED) or path.startswith(NOT_TRACED):
            await self._app(scope, receive, send)
            return
        method = str(scope["method"])
        attributes: dict[str, Attribute] = {"http.request.method": method, "url.path": path[:PATH_CHARS]}
        with self._tracer.span(method, context_of(scope["headers"]), attributes, kind="server") as span:

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.note("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.fail(str(message["status"]))
                await send(message)

            trace_id = trace_id_of(span.trace)
            bound = {} if trace_id is None else {"trace_id": trace_id}
            token = _current.set(span.trace)
            try:
                with structlog.contextvars.bound_contextvars(**bound):
                    await self._answered(scope, receive, noted)
            finally:
                _current.reset(token)
                # Known only now: which of the routes it was. Never the path itself, which has ids in it.
                if (route := getattr(scope.get("route"), "path", None)) is not None:
                    span.rename(f"{method} {route}")
                    span.note("http.route", route)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            # The server logs the traceback, but knows no trace id.
            log.error(
                "bug: request failed",
                method=scope["method"],
                path=scope["path"][:PATH_CHARS],
                why=type(error).__name__,
            )
            raise
