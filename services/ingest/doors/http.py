"""Alerts over HTTP, as bare ASGI: every format at its path, POST /api/v2/alerts and POST /v1/alerts among them.

In front of everything else in a gateway replica, because a framework would cost more than all the rest. Every
other request goes on to the FastAPI application (services/api/app.py).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING

from models.errors import Busy, Malformed
from models.ports import Span
from models.trace import Attribute, context_of, trace_id_of
from services.ingest.arrival import Arrival, Sender
from services.ingest.body import (
    Disconnected,
    Hold,
    Receive,
    Room,
    Scope,
    Send,
    Unsupported,
    read_body,
    unpacked,
)
from services.ingest.doors.door import Door, Needs
from services.ingest.formats.answers import REFUSING, Answer, Refusal, refusal_of
from services.ingest.formats.format import Format, Request
from services.ingest.formats.paths import paths_of, pattern_of
from services.ingest.formats.reading import Fault
from services.ingest.headers import CHALLENGE, idempotency_key, refuse_repeated
from services.ingest.shares import Shares

if TYPE_CHECKING:
    from models.settings.server import Server

#: Requests a gateway works on at once. Beyond that senders get 503 and Retry-After.
REQUESTS_MAX = 1024
#: How many bodies of the largest size all those may hold together, compressed and decompressed. Beyond that, likewise.
BODIES_MAX = 16
#: A format, and the path as it names it.
Route = tuple[Format, str]
#: How Authorization bears a token of ours.
SCHEMES = (b"bearer ", b"basic ", b"geniekey ")
#: Methods whose requests have no body: no type is asked of it.
BODYLESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


class HttpDoor(Door):
    """Handles the requests for which `takes` is true; the gateway's host (services/wiring/serve_app.py) passes them."""

    name = "http"
    section = "server"

    def __init__(self, needs: Needs, section: Server) -> None:
        self.needs = needs
        #: By method and path.
        self._routes: dict[tuple[str, str], Route] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Route]] = []
        #: The name and attributes of a request's span.
        self._spans: dict[tuple[str, str], tuple[str, Mapping[str, Attribute]]] = {}
        for form in needs.formats.values():
            for path, methods in paths_of(type(form)).items():
                for method in methods:
                    self._spans[method, path] = (f"{method} {path}", _attributes_of(method, path))
                    if "{" in path:
                        self._patterns.append((method, pattern_of(path), (form, path)))
                    else:
                        self._routes[method, path] = (form, path)
        self._max_body_bytes = section.max_body_bytes
        self._body_timeout_s = section.body_timeout
        self._requests = 0
        self._shares = Shares()
        self._room = Room(BODIES_MAX * self._max_body_bytes)

    async def start(self) -> None:
        """Nothing: its host listens, and ends running requests when it stops."""

    async def stop(self) -> None:
        """As start()."""

    def takes(self, scope: Scope) -> bool:
        """Whether a request is for one of the formats."""
        if scope["type"] != "http":
            return False
        return self._route_of(scope)[0] is not None

    def _route_of(self, scope: Scope) -> tuple[Route | None, str]:
        """Who a request is for, and its path as that format gets it: where a segment matches anything, as it was sent, since a
        name may have a slash in it (%2F)."""
        method, path = str(scope["method"]), smooth(str(scope["path"]))
        if (exact := self._routes.get((method, path))) is not None:
            return exact, path
        raw = scope.get("raw_path")
        if isinstance(raw, bytes):
            path = smooth(raw.decode("latin-1"))
        for its_method, pattern, route in self._patterns:
            if its_method == method and pattern.fullmatch(path):
                return route, path
        return None, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request that it takes. Always answers, unless the sender went away."""
        method = str(scope["method"])
        route, path = self._route_of(scope)
        assert route is not None, path
        form, named = route
        if self._requests >= REQUESTS_MAX:
            refusal = Refusal(503, "Busy", f"{REQUESTS_MAX} requests are under way already", 1.0)
            await _send(send, form.refused(refusal))
            return
        raw: Sequence[tuple[bytes, bytes]] = scope["headers"]  # type: ignore[assignment]
        headers = dict(raw)
        if len(headers) != len(raw):
            try:
                refuse_repeated(raw)
            except Malformed as error:
                await _send(send, self.refuse(form, refusal_of(error)))
                return
        trace = context_of(scope["headers"]) if b"traceparent" in headers else None  # type: ignore[arg-type]
        self._requests += 1
        hold, place = Hold(self._room), _Place(self._shares)
        try:
            span = self.span(method, named, trace)
            answer = await self.answered(
                form, span, self._answer(form, method, path, scope, headers, receive, hold, place, span)
            )
        except Disconnected:
            return
        finally:
            self._requests -= 1
            place.leave()
            hold.release()
        await _send(send, answer)

    def format_at(self, method: bytes, target: bytes) -> Format | None:
        """The format whose path a request's target is, as we write it and with nothing behind."""
        found = self._routes.get((method.decode("latin-1"), target.decode("latin-1")))
        return None if found is None else found[0]

    def has_room(self, size: int, sender: str) -> bool:
        """Whether another request of a sender may come in, and its body of that many bytes."""
        room = self._room
        return (
            self._requests < REQUESTS_MAX
            and size <= self._max_body_bytes
            and room.held + size <= room.max_bytes
            and not self._shares.is_over(sender, 1, REQUESTS_MAX - self._requests)
            and not room.shares.is_over(sender, size, room.max_bytes - room.held)
        )

    def hold(self, size: int, sender: str) -> None:
        """A request is under way, for which has_room() said yes, until release()."""
        self._requests += 1
        self._shares.add(sender, 1)
        self._room.held += size
        self._room.shares.add(sender, size)

    def release(self, size: int, sender: str) -> None:
        self._requests -= 1
        self._shares.drop(sender, 1)
        self._room.held -= size
        self._room.shares.drop(sender, size)

    @staticmethod
    def content_type(form: Format, method: str, headers: Mapping[bytes, bytes]) -> str:
        """What a body is, without its parameters. Raises Unsupported for what its format does not take."""
        content_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
        # A missing type is refused too, as in Alertmanager: a web page can make a browser send that anywhere.
        if method not in BODYLESS and not form.takes_type(content_type, headers):
            named = content_type[:80] or "application/octet-stream"
            raise Unsupported(
                f'unsupported media type "{named}", only [{", ".join(form.content_types)}] are allowed'
            )
        return content_type

    def span(self, method: str, path: str, trace: str | None) -> Span:
        """Of a request. `path` as its format names it."""
        name, attributes = self._spans[method, path]
        return self.needs.tracer.span(name, trace, attributes, kind="server")

    async def answered(self, form: Format, span: Span, work: Awaitable[Answer]) -> Answer:
        """What `work` answers, or how it is refused; within its span."""
        with span:
            try:
                answer = await work
            except REFUSING as error:
                answer = self.refuse(form, refusal_of(error), span)
            span.note("http.response.status_code", answer.status)
            if answer.status >= 500:
                span.fail(str(answer.status))
        return answer

    async def store(
        self, form: Format, request: Request, key: str | None, begun: float, span: Span
    ) -> Answer:
        """Take a request. `key` names its delivery; `begun` is when it came, monotonic. Raises Malformed, TooLarge."""
        needs = self.needs
        received_at = request.received_at
        tenant = needs.intake.tenant
        arrival = Arrival(tenant, form.name, request.sender, received_at, form.wants_ids, key, span.trace)
        reading, receipt = await needs.intake.take(form, request, arrival, span)
        needs.meter.observe("llm_im_ingest_seconds", needs.clock.monotonic() - begun, door=form.name)
        answer = await form.stored(reading, receipt)
        if standing := needs.intake.standing(request.sender):
            return Answer(answer.status, answer.content_type, answer.body, [*answer.headers, *standing])
        return answer

    async def _answer(
        self,
        form: Format,
        method: str,
        path: str,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        hold: Hold,
        place: _Place,
        span: Span,
    ) -> Answer:
        """Raises one of REFUSING."""
        needs = self.needs
        begun = needs.clock.monotonic()
        query: bytes = scope.get("query_string", b"")  # type: ignore[assignment]
        # Before the body is read, so that unauthorized senders use no memory. A signature can't be checked without the
        # body, and some senders have their token there.
        sender = None
        if not form.is_signed and not form.token_in_body:
            shown = headers
            if form.finds_token:
                shown = _with_token(form, Request(path, b"", begun, method, query, headers))
            sender = await needs.doorman.admit_to_door(shown, form.name)
            needs.intake.admit(sender)
            self._enter(sender, hold, place)
        content_type = self.content_type(form, method, headers)
        body = b""
        try:
            key = idempotency_key(headers)
            body = await read_body(receive, headers, self._max_body_bytes, self._body_timeout_s, hold)
            if form.is_signed:
                now = needs.clock.now()
                packed = Request(path, body, now, method, query, headers, content_type)
                sender = form.verify(packed)
            body = await unpacked(body, headers, self._max_body_bytes, hold)
            now = needs.clock.now()
            if sender is None:
                shown = _with_token(form, Request(path, body, now, method, query, headers, content_type))
                sender = await needs.doorman.admit_to_door(shown, form.name)
            if not place.sender:
                needs.intake.admit(sender)
                self._enter(sender, hold, place)
            request = Request(path, body, now, method, query, headers, content_type, sender)
            greeting = form.handshake(request)
        except Malformed as error:
            if sender is not None:
                now = needs.clock.now()
                request = Request(path, body, now, method, query, headers, content_type, sender)
                needs.intake.bury(form, request, [Fault(-1, str(error), body)])
            raise
        if greeting is not None:
            return greeting
        return await self.store(form, request, key, begun, span)

    def _enter(self, sender: Sender, hold: Hold, place: _Place) -> None:
        """Count a request as its sender's. Raises Busy when it has too many under way already."""
        name = sender.name
        # It has its place already: for all, but not yet for its sender.
        if self._shares.is_over(name, 1, REQUESTS_MAX - self._requests + 1):
            under_way = self._shares.held_by(name)
            raise Busy(f"{under_way} requests of {name} are under way already", retry_after_s=1.0)
        place.belongs_to(name)
        hold.belongs_to(name)

    def refuse(self, form: Format, refusal: Refusal, span: Span | None = None) -> Answer:
        """The answer to a request that is refused as a whole, which is counted."""
        refusal.trace_id = trace_id_of(span.trace) if span is not None else None
        if refusal.status == 401 and not form.is_signed:
            refusal.challenge = CHALLENGE
        reason = refusal.title.lower()
        self.needs.meter.count("llm_im_requests_refused_total", door=form.name, reason=reason)
        return form.refused(refusal)


class _Place:
    """One request's, as its sender's; `sender` is "" until it is known."""

    __slots__ = ("_shares", "sender")

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self.sender = ""

    def belongs_to(self, sender: str) -> None:
        self.sender = sender
        self._shares.add(sender, 1)

    def leave(self) -> None:
        self._shares.drop(self.sender, 1)


def smooth(path: str) -> str:
    """A path as we name it: a URL that was put together of two with one slash too many, `http://here//api/v2/alerts` or
    `/api/v2/alerts/`, means the same."""
    if "//" in path or path.endswith("/"):
        return "/" + "/".join(part for part in path.split("/") if part)
    return path


def _with_token(form: Format, request: Request) -> Mapping[bytes, bytes]:
    """The headers of a request, with the token that it bears elsewhere."""
    if request.headers.get(b"authorization", b"")[:9].lower().startswith(SCHEMES):
        return request.headers
    token = form.token_of(request)
    if not token:
        return request.headers
    return {**request.headers, b"authorization": b"Bearer " + token.encode("utf-8", "replace")}


async def _send(send: Send, answer: Answer) -> None:
    # A new list each time: layers above append to it.
    headers = [(b"content-length", str(len(answer.body)).encode()), *answer.headers]
    if answer.content_type:
        headers.append((b"content-type", answer.content_type))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _attributes_of(method: str, path: str) -> dict[str, Attribute]:
    return {"http.request.method": method, "http.route": path, "url.path": path}
