"""Stands in front of everything: checks the token of each request, for the doors (services/ingest/http.py) and the rest.

The tokens come from the control partition's log, which the gateway follows: checking asks nobody, and goes on while the
log's writer is away. What a route needs beyond a good token it says itself (services/api/auth.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from hashlib import blake2b

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket

from actors.control_tail import ControlTail
from models.config import Settings
from models.errors import Unauthorized
from models.matchers import parse_filters
from models.metrics import Meter
from models.ports import Clock
from models.tokens import INGEST, READ, check, granted, presented
from services.api import alertmanager
from services.api.auth import ANONYMOUS, METRICS_PATH, OPEN_PATHS, Caller, allow
from services.api.problems import problem
from services.ingest.body import Receive, Scope, Send
from services.ingest.bound import ANONYMOUS as ANONYMOUS_SENDER
from services.ingest.bound import Sender
from services.ingest.http import CHALLENGE

#: Headers that were found good, remembered by digest. More than all tokens with both secrets, in both schemes; past it
#: all are checked anew.
KNOWN_MAX = 8192
#: A token that is not known may have been made this moment by another gateway: the log is looked at once more, but no
#: oftener than this, whoever knocks.
LOOK_AGAIN_S = 0.2

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """One gateway's. `look` reads what is new in the control log."""

    def __init__(
        self,
        settings: Settings,
        tail: ControlTail,
        clock: Clock,
        meter: Meter,
        look: Callable[[], Awaitable[None]],
    ) -> None:
        self._tail = tail
        self._clock = clock
        self._meter = meter
        self._look = look
        self._required = settings.auth.required
        if not settings.server.is_loopback:
            self._required = True
        self._open = dict.fromkeys(OPEN_PATHS, Caller(ANONYMOUS, frozenset()))
        if settings.auth.open_metrics:
            self._open[METRICS_PATH] = Caller(ANONYMOUS, frozenset({READ}))
        self._known: dict[bytes, tuple[Caller, float, str]] = {}
        self._known_version = 0
        self._uses: dict[str, float] = {}
        self._looking = asyncio.Lock()
        self._looked_at = -LOOK_AGAIN_S

    @property
    def is_on(self) -> bool:
        """Whether tokens are asked for: when the settings say so, on a public address, or once there was a token."""
        return self._tail.state.guarded if self._required is None else self._required

    async def admit(self, header: bytes | None) -> Caller:
        """The caller that an Authorization header proves. Raises Unauthorized."""
        # By digest, so that no secret lies about in memory. This and the next lines are all that the hot route pays.
        key = blake2b(header or b"", digest_size=32).digest()
        now = self._clock.now()
        if self._known_version == self._tail.state.token_version:
            found = self._known.get(key)
            if found is not None and now < found[1]:
                self._uses[found[2]] = now
                return found[0]
        return await self._check(header, key, now)

    async def admit_to_door(self, header: bytes | None, door: str) -> Sender:
        """Who sends. Raises Unauthorized, or Forbidden for a token that is not for this door."""
        if not self.is_on:
            return ANONYMOUS_SENDER
        caller = await self.admit(header)
        allow(caller, f"{INGEST}{door}")
        return caller.sender

    def of(self, app: App) -> App:
        """`app`, behind the guard."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] not in ("http", "websocket"):
                await app(scope, receive, send)
                return
            path, header = str(scope["path"]), _authorization(scope)

            async def still_let_in() -> bool:
                with contextlib.suppress(Unauthorized):
                    return not self.is_on or bool(await self.admit(header))
                return False

            given = scope.get("state")
            # A new one: a server may share its own among all requests.
            state: dict[str, object] = {**(given if isinstance(given, dict) else {})}
            state["still_let_in"] = still_let_in
            scope["state"] = state
            if not self.is_on:
                if scope["type"] == "websocket" and _is_of_a_web_page_elsewhere(scope):
                    words = (
                        "without tokens no page of another site may listen here: its Origin is not our Host"
                    )
                    await _refuse(
                        problem(403, "forbidden", "Another site", words, path), scope, receive, send
                    )
                    return
                await app(scope, receive, send)
                return
            try:
                caller = self._open.get(path) or await self.admit(header)
            except Unauthorized as error:
                self._meter.count("llm_im_requests_refused_total", door="api", reason="unauthorized")
                await _refuse(unauthorized(str(error), path), scope, receive, send)
                return
            state["caller"] = caller
            await app(scope, receive, send)

        return guarded

    def take_uses(self) -> dict[str, float]:
        """When tokens were met since the last call, by id."""
        uses, self._uses = self._uses, {}
        return uses

    async def _check(self, header: bytes | None, key: bytes, now: float) -> Caller:
        secret = presented(header)
        try:
            token, until = check(self._tail.state.tokens, secret, now)
        except Unauthorized:
            async with self._looking:
                if self._clock.monotonic() - self._looked_at >= LOOK_AGAIN_S:
                    await self._look()
                    self._looked_at = self._clock.monotonic()
            token, until = check(self._tail.state.tokens, secret, now)
        sender = Sender(token.name, token.id, tuple(parse_filters(token.match)))
        caller = Caller(token.name, granted(token.scopes), sender)
        if self._known_version != self._tail.state.token_version or len(self._known) >= KNOWN_MAX:
            self._known.clear()
            self._known_version = self._tail.state.token_version
        self._known[key] = (caller, until, token.id)
        self._uses[token.id] = now
        return caller


def unauthorized(detail: str, path: str) -> Response:
    """401, in the shape of the API that was asked."""
    if path.startswith(f"{alertmanager.PREFIX}/"):
        response = alertmanager.validation_error(401, 401, detail)
    else:
        response = problem(401, "unauthorized", "A token is needed", detail, path)
    response.headers["WWW-Authenticate"] = CHALLENGE.decode()
    return response


def _authorization(scope: Scope) -> bytes | None:
    header = HTTPConnection(scope).headers.get("authorization")
    return None if header is None else header.encode("latin-1")


def _is_of_a_web_page_elsewhere(scope: Scope) -> bool:
    """A browser opens a WebSocket to anywhere for any page, and lets it read: only Origin says whose it is."""
    headers = HTTPConnection(scope).headers
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host")


async def _refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await response(scope, receive, send)
        return
    socket = WebSocket(scope, receive, send)
    await receive()  # websocket.connect
    if "websocket.http.response" in (scope.get("extensions") or {}):  # type: ignore[operator]
        await socket.send_denial_response(response)
    else:
        await socket.close(1008, "a token is needed" if response.status_code == 401 else "refused")
