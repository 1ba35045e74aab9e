"""Stands in front of everything: checks the token of each request, for the doors (services/ingest/doors/http.py) and
the rest, and stops what a web page could make a browser do. The tokens come from the control partition's log, which the
gateway follows: a check needs no call, and works while the log's writer is down. Each route declares which scope it
needs (services/api/auth.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from hashlib import blake2b
from typing import NamedTuple
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.websockets import WebSocket

from actors.control_tail import ControlTail
from models.alerts.matchers import parse_filters
from models.control.tokens import INGEST, READ, check, every_scope, granted, id_in, presented
from models.errors import Forbidden, Malformed, Refused, Unauthorized
from models.metrics import Meter
from models.ports import Clock
from models.settings.all import Settings
from models.settings.origins import host_and_port, is_same_place, own_name, parse_origin
from services.api.alertmanager import answers as alertmanager
from services.api.auth import ANONYMOUS, METRICS_PATH, OPEN_PATHS, Caller, allow
from services.api.opsgenie import answers as opsgenie
from services.api.problems import problem
from services.api.refusals import Refusals
from services.ingest.arrival import ANONYMOUS as ANONYMOUS_SENDER
from services.ingest.arrival import Sender
from services.ingest.body import Receive, Scope, Send
from services.ingest.certificates import Certificates
from services.ingest.doors.door import Credentials
from services.ingest.formats.table import all_formats
from services.ingest.headers import CHALLENGE, refuse_repeated, sender_of

#: Headers that were accepted, cached by digest. More than all tokens with both secrets in both schemes; beyond that all
#: are checked again.
KNOWN_MAX = 8192
#: An unknown token may have just been created through another gateway: the log is read once more, but no more often
#: than this, whoever asks.
LOOK_AGAIN_S = 0.2
#: Characters of a path or name that are logged: ours are shorter.
PATH_CHARS = 200
#: How paths of calendars end, and what of their query is looked at.
CALENDAR = "/calendar.ics"
QUERY_BYTES = 1024

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Proof(NamedTuple):
    """What a request shows of who asks: its Authorization header, or without one the client certificate of its connection."""

    header: bytes | None
    certificate: bytes | None = None

    @property
    def digest(self) -> bytes:
        """By which it is known again: no secret lies about in memory."""
        if self.certificate is not None:
            return blake2b(self.certificate, digest_size=32, person=b"certificate").digest()
        return blake2b(self.header or b"", digest_size=32).digest()


class Guard:
    """One gateway's. `look` reads what is new in the control log. `front_secret`: what HAProxy proves itself with."""

    def __init__(
        self,
        settings: Settings,
        tail: ControlTail,
        clock: Clock,
        meter: Meter,
        look: Callable[[], Awaitable[None]],
        front_secret: str = "",
    ) -> None:
        self._tail = tail
        self._clock = clock
        self._meter = meter
        self._look = look
        self._scopes = every_scope(all_formats())
        self._refusals = Refusals(clock)
        self._names = {place[0] for each in settings.server.hosts if (place := host_and_port(each))}
        self._origins = {parse_origin(each) for each in settings.server.origins}
        tls = settings.server.tls
        self._certificates = Certificates(tls.clients, front_secret) if tls.asks_clients else None
        self._required = _required(settings)
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
        """Whether tokens are required: if the settings say so, on a public address, or once there has been a token."""
        return self._tail.state.guarded if self._required is None else self._required

    async def admit(self, proof: Proof) -> Caller:
        """The caller that a token or a client certificate identifies. Raises Unauthorized."""
        key, now = proof.digest, self._clock.now()
        return self._met(key, now) or await self._check(proof, key, now)

    async def admit_to_door(self, headers: Mapping[bytes, bytes], door: str) -> Sender:
        """The sender. Raises Unauthorized, or Forbidden for a token without the scope of this door, or a host name that
        anybody may own."""
        try:
            if not self.is_on:
                self._admit_host(headers.get(b"host"))
                return ANONYMOUS_SENDER
            caller = await self.admit(self._proof(headers))
            allow(caller, f"{INGEST}{door}")
            return caller.sender
        except (Unauthorized, Forbidden) as error:
            self._tell(401 if isinstance(error, Unauthorized) else 403, str(error), headers, door=door)
            raise

    def credentials(self, headers: Mapping[bytes, bytes]) -> Credentials:
        return Credentials(self._proof(headers).digest, self._is_own_host(headers.get(b"host")))

    def vouched(self, certificate: bytes) -> Mapping[bytes, bytes]:
        return {} if self._certificates is None else self._certificates.vouched(certificate)

    def admitted(self, credentials: Credentials, door: str) -> Sender | None:
        if not self.is_on:
            return ANONYMOUS_SENDER if credentials.is_own_host else None
        caller = self._met(credentials.digest, self._clock.now())
        return caller.sender if caller is not None and f"{INGEST}{door}" in caller.scopes else None

    def admit_page(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises Forbidden for a page of another site. A browser opens a WebSocket to anywhere for any page, with the
        credentials it has, and lets it read: only Origin says whose it is."""
        given = headers.get(b"origin")
        if given is None:
            return
        origin = parse_origin(given.decode("latin-1"))
        host = headers.get(b"host", b"").decode("latin-1")
        if origin is None or not (origin in self._origins or is_same_place(origin, host)):
            raise Forbidden(
                "Origin: pages of other sites may open no WebSocket here unless server.origins lists their origin"
            )

    def of(self, app: App) -> App:
        """`app`, behind the guard."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] not in ("http", "websocket"):
                await app(scope, receive, send)
                return
            path = str(scope["path"])
            raw: list[tuple[bytes, bytes]] = scope["headers"]  # type: ignore[assignment]
            headers = _with_token_of(scope, dict(raw))
            asked = {"method": str(scope.get("method", "WEBSOCKET")), "path": path[:PATH_CHARS]}
            client = scope.get("client")
            proof = self._proof(headers)

            async def still_let_in() -> bool:
                with contextlib.suppress(Unauthorized):
                    return not self.is_on or bool(await self.admit(proof))
                return False

            given = scope.get("state")
            # A copy: a server may share its scope among all requests.
            state: dict[str, object] = {**(given if isinstance(given, dict) else {})}
            state["still_let_in"] = still_let_in
            scope["state"] = state
            try:
                refuse_repeated(raw)
                caller = self._open.get(path)
                if self.is_on:
                    caller = caller or await self.admit(proof)
                elif caller is None:
                    self._admit_host(headers.get(b"host"))
                if scope["type"] == "websocket":
                    self.admit_page(headers)
            except (Malformed, Unauthorized, Forbidden) as error:
                response = refusal(error, path)
                if response.status_code != 400:
                    reason = "unauthorized" if response.status_code == 401 else "forbidden"
                    self._meter.count("llm_im_requests_refused_total", door="api", reason=reason)
                    self._tell(response.status_code, str(error), headers, client, **asked)
                await _refuse(response, scope, receive, send)
                return
            if self.is_on and caller is not None:
                state["caller"] = caller

            async def noted(message: MutableMapping[str, object]) -> None:
                # The route declares its scope; that the caller lacks it is noticed here.
                if message.get("status") == 403:
                    self._meter.count("llm_im_requests_refused_total", door="api", reason="forbidden")
                    who = {"token": caller.name} if caller is not None else {}
                    self._tell(403, "it lacks the scope for this", headers, client, **asked, **who)
                await send(message)

            await app(scope, receive, noted)

        return guarded

    def take_settings(self, settings: Settings) -> None:
        """Go by the clients that these settings name. What was found out before is asked anew."""
        if self._certificates is not None:
            self._certificates.take(settings.server.tls.clients)
        self._required = _required(settings)
        self._known.clear()

    def take_uses(self) -> dict[str, float]:
        """When tokens were used since the last call, by id."""
        uses, self._uses = self._uses, {}
        uses.pop("", None)  # of certificates without a token
        return uses

    def _met(self, key: bytes, now: float) -> Caller | None:
        """The caller whose header was found good before, and still is."""
        if self._known_version != self._tail.state.token_version:
            return None
        found = self._known.get(key)
        if found is None or now >= found[1]:
            return None
        self._uses[found[2]] = now
        return found[0]

    def _is_own_host(self, host: bytes | None) -> bool:
        if host is None:
            return True
        name = own_name(host.decode("latin-1"))
        return name == "" or name in self._names

    def _admit_host(self, host: bytes | None) -> None:
        """Raises Forbidden for a name that its owner may have pointed here after a browser loaded a page from it: that page
        would then be of our own origin, and without tokens it could do everything. Every browser sends Host."""
        if host is None or self._is_own_host(host):
            return
        shown = host[:PATH_CHARS].decode("latin-1")
        raise Forbidden(
            f"Host: without tokens only an address, localhost or a name in server.hosts is served, not {shown!r}: "
            "create a token, or add the name to server.hosts"
        )

    def _tell(
        self, status: int, why: str, headers: Mapping[bytes, bytes], client: object = None, **fields: str
    ) -> None:
        header = headers.get(b"authorization")
        if header is not None and "token" not in fields:
            fields["token_id"] = id_in(header)
        self._refusals.tell(status, why=why, sender=sender_of(headers, client), **fields)

    def _proof(self, headers: Mapping[bytes, bytes]) -> Proof:
        header = headers.get(b"authorization")
        if header is not None or self._certificates is None:
            return Proof(header)
        return Proof(None, self._certificates.proven(headers))

    async def _check(self, proof: Proof, key: bytes, now: float) -> Caller:
        try:
            caller, until = self._found(proof, now)
        except Unauthorized:
            async with self._looking:
                if self._clock.monotonic() - self._looked_at >= LOOK_AGAIN_S:
                    await self._look()
                    self._looked_at = self._clock.monotonic()
            caller, until = self._found(proof, now)
        if self._known_version != self._tail.state.token_version or len(self._known) >= KNOWN_MAX:
            self._known.clear()
            self._known_version = self._tail.state.token_version
        self._known[key] = (caller, until, caller.sender.id)
        self._uses[caller.sender.id] = now
        return caller

    def _found(self, proof: Proof, now: float) -> tuple[Caller, float]:
        """Who that is, and until when. Raises Unauthorized."""
        if proof.certificate is None or self._certificates is None:
            token, until = check(self._tail.state.tokens, presented(proof.header), now)
            return self._caller(token.name, token.id, token.scopes, token.match), until
        client, until = self._certificates.bearer(proof.certificate)
        if client.scopes:
            return self._caller(client.name, "", client.scopes, client.match), until
        for token in self._tail.state.tokens.values():
            if token.name == client.name and token.is_live(now):
                caller = self._caller(token.name, token.id, token.scopes, token.match)
                return caller, min(until, token.expires_at or until)
        raise Unauthorized(
            f"the client certificate is that of {client.name!r} (server.tls.clients), which has no scopes of its own, and there is no "
            "valid token of this name"
        )

    def _caller(self, name: str, token_id: str, scopes: Iterable[str], match: Sequence[str]) -> Caller:
        sender = Sender(name, token_id, tuple(parse_filters(match)))
        return Caller(name, granted(scopes, self._scopes), sender)


def _with_token_of(scope: Scope, headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The headers, with the token that a calendar program can give in the URL only: `?token=...`. Nowhere else is one taken from there,
    because URLs are written down by whoever passes them on."""
    if b"authorization" in headers or not str(scope["path"]).endswith(CALENDAR):
        return headers
    query = parse_qs(bytes(scope.get("query_string", b""))[:QUERY_BYTES])  # type: ignore[call-overload]
    token: list[bytes] = query.get(b"token", [])
    return {**headers, b"authorization": b"Bearer " + token[0]} if token else headers


def _required(settings: Settings) -> bool | None:
    """Whether everybody must show a token or a certificate; None: once there has been a token."""
    required = settings.auth.required
    # Who names its clients does not let in everybody else.
    if not settings.server.is_loopback or (settings.server.tls.clients and required is None):
        return True
    return required


def refusal(error: Refused, path: str) -> Response:
    """400, 401 or 403, in the shape of the API that was asked."""
    if isinstance(error, Unauthorized):
        status, kind, title = 401, "unauthorized", "A token is needed"
    elif isinstance(error, Forbidden):
        status, kind, title = 403, "forbidden", "This token may not do that"
    else:
        status, kind, title = 400, "malformed", "The request cannot be read"
    if path.startswith(f"{alertmanager.PREFIX}/"):
        response = alertmanager.validation_error(status, status, str(error))
    elif opsgenie.is_opsgenies(path):
        response = opsgenie.answer({"message": str(error)}, 422 if status == 400 else status)
    else:
        response = problem(status, kind, title, str(error), path)
    if status == 401:
        response.headers["WWW-Authenticate"] = CHALLENGE.decode()
    return response


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
