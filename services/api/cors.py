"""Which web pages of other origins may call the API (CORS): those in server.origins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from models.settings.origins import parse_origin
from services.ingest.body import Receive, Scope, Send

#: How long a browser may cache the answer to a preflight request.
PREFLIGHT_S = 600
METHODS = ("GET", "HEAD", "POST", "DELETE")
#: What a page may send and see, beyond what it always may.
REQUEST_HEADERS = (
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "Last-Event-ID",
    "X-Actor",
    "traceparent",
    "tracestate",
)
RESPONSE_HEADERS = ("ETag", "Incident-Changed", "Location", "Retry-After")

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Pages(CORSMiddleware):
    """Origins compared as WebSockets' are, not as text."""

    def is_allowed_origin(self, origin: str) -> bool:
        found = parse_origin(origin)
        return found is not None and found.text in self.allow_origins


def opened_to(origins: Sequence[str], app: App) -> App:
    """`app`, open to pages of these origins. Without any it is `app` itself: browsers then let no other page read
    answers, and ask before every request that could change something. A browser's stored cookies and passwords are
    never sent along: a page sends its own token."""
    allowed = [origin.text for each in origins if (origin := parse_origin(each)) is not None]
    if not allowed:
        return app
    return cast(
        App,
        _Pages(
            cast(ASGIApp, app),
            allow_origins=allowed,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            expose_headers=RESPONSE_HEADERS,
            # A page from the internet asks for this too before it calls a private address.
            allow_private_network=True,
            max_age=PREFLIGHT_S,
        ),
    )
