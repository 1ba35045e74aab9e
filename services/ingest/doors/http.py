"""The HTTP doors for alerts: POST /api/v2/alerts (Alertmanager's) and POST /v1/alerts (ours), as bare ASGI.

In front of everything else in a gateway replica, because a framework would cost more than all the rest. Every
other request goes on to the FastAPI application (services/api/app.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol
from uuid import UUID

import msgspec
import structlog

from actors.runtime.untraced import NoTracer
from models.errors import (
    Busy,
    Forbidden,
    Full,
    IncidentManagerError,
    Malformed,
    NotOwner,
    Refused,
    ShareUsedUp,
    TooLarge,
    Unauthorized,
)
from models.metrics import Meter
from models.partition.sharding import TENANT
from models.ports import Clock, Span, Tracer
from models.shard.messages import REASONS
from models.trace import Attribute, context_of, trace_id_of
from services.ingest.body import (
    Disconnected,
    Hold,
    Receive,
    Room,
    Scope,
    Send,
    TooSlow,
    Unsupported,
    read_body,
    unpacked,
)
from services.ingest.bound import FORBIDDEN, Bounds, Sender
from services.ingest.dead_letters import DeadLetterBox
from services.ingest.formats.common import Fault, Reading
from services.ingest.headers import refuse_repeated
from services.ingest.submit import Receipt, Submitter

log = structlog.get_logger()

ALERTMANAGER_PATH = "/api/v2/alerts"
V1_PATH = "/v1/alerts"
#: What 401 asks for (RFC 6750).
CHALLENGE = b'Bearer realm="llm-im"'
#: Requests a gateway works on at once. Past it senders get 503 and Retry-After.
REQUESTS_MAX = 1024
#: Bodies of the largest size that all those hold together, packed and unpacked. Past it, likewise.
BODIES_MAX = 16
#: An idempotency key is an identity, not a document.
IDEMPOTENCY_KEY_MAX_BYTES = 255
#: Faults told in one answer; a thousand alike help nobody.
FAULTS_TOLD_MAX = 100
#: A larger body is read in steps. Below it 64 alerts of Prometheus are read at once in 0.1 ms, and what a sender
#: makes up for the purpose in 80 ms.
AT_ONCE_BYTES = 64 * 1024
#: Bodies larger than this are read one at a time: the steps of many at once would add up.
ALONE_BYTES = 1024 * 1024
#: Memory is free again when alerts have ended and their incidents are archived, not in a second.
FULL_RETRY_S = 60.0
#: Items of an answer made before other requests get a turn: about a millisecond.
ITEMS_SLICE = 500


class Reader(Protocol):
    """A format of services/ingest/formats."""

    name: str

    def read(self, body: bytes, now: float) -> Reading: ...
    def steps(self, body: bytes, now: float) -> Generator[None, None, Reading]: ...


class Doorman(Protocol):
    """Who lets senders in (services/api/guard.py)."""

    async def admit_to_door(self, headers: Mapping[bytes, bytes], door: str) -> Sender:
        """Who sends. Raises Unauthorized or Forbidden."""


class Refusal(msgspec.Struct):
    """An answer other than success, whatever shape the door gives it."""

    status: int
    title: str
    detail: str
    retry_after_s: float = 0.0
    closes: bool = False
    challenge: bytes = b""
    trace_id: str | None = None


class HttpDoors:
    """Both doors of one gateway. `readers` by path. `looked_at` is told of each request that could be read."""

    def __init__(
        self,
        submitter: Submitter,
        readers: Mapping[str, Reader],
        dead_letters: DeadLetterBox,
        clock: Clock,
        meter: Meter,
        doorman: Doorman,
        *,
        max_body_bytes: int,
        body_timeout_s: float,
        tracer: Tracer | None = None,
        looked_at: Callable[[Reading], None] = lambda _reading: None,
    ) -> None:
        self._submitter = submitter
        self._readers = readers
        self._dead_letters = dead_letters
        self._clock = clock
        self._meter = meter
        self._doorman = doorman
        self._looked_at = looked_at
        self._tracer = tracer or NoTracer()
        self._spans = {path: (f"POST {path}", _attributes_of(path)) for path in readers}
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._requests = 0
        self._room = Room(BODIES_MAX * max_body_bytes)
        self._alone = asyncio.Lock()
        self._bounds = Bounds()

    def takes(self, scope: Scope) -> bool:
        """Whether a request is for one of these doors."""
        return (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and smooth(str(scope["path"])) in self._readers
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Always answers, unless the sender went away."""
        path = smooth(str(scope["path"]))
        shape = _alertmanager_answer if path == ALERTMANAGER_PATH else _v1_answer
        if self._requests >= REQUESTS_MAX:
            refusal = Refusal(503, "Busy", f"{REQUESTS_MAX} requests are under way already", 1.0)
            await _send(send, shape.refused(refusal))
            return
        raw: Sequence[tuple[bytes, bytes]] = scope["headers"]  # type: ignore[assignment]
        headers = dict(raw)
        if len(headers) != len(raw):
            try:
                refuse_repeated(raw)
            except Malformed as error:
                await _send(
                    send, self._refuse(shape, self._readers[path], Refusal(400, "Malformed", str(error)))
                )
                return
        trace = context_of(scope["headers"]) if b"traceparent" in headers else None  # type: ignore[arg-type]
        name, attributes = self._spans[path]
        self._requests += 1
        hold = Hold(self._room)
        try:
            with self._tracer.span(name, trace, attributes, kind="server") as span:
                answer = await self._answer(path, headers, receive, shape, hold, span)
                span.note("http.response.status_code", answer.status)
                if answer.status >= 500:
                    span.fail(str(answer.status))
        except Disconnected:
            return
        finally:
            self._requests -= 1
            hold.release()
        await _send(send, answer)

    async def _answer(
        self,
        path: str,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        shape: AnswerShape,
        hold: Hold,
        span: Span,
    ) -> Answer:
        reader = self._readers[path]
        begun = self._clock.monotonic()
        try:
            sender = await self._doorman.admit_to_door(headers, reader.name)
        except Unauthorized as error:
            refusal = Refusal(401, "Unauthorized", str(error), challenge=CHALLENGE)
            return self._refuse(shape, reader, refusal, span)
        except Forbidden as error:
            return self._refuse(shape, reader, Refusal(403, "Forbidden", str(error)), span)
        # No type at all is refused too, as Alertmanager does: a web page can make a browser send that anywhere.
        content_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
        if content_type not in shape.content_types:
            named = content_type[:80] or "application/octet-stream"
            words = f'unsupported media type "{named}", only [{", ".join(shape.content_types)}] are allowed'
            return self._refuse(shape, reader, Refusal(415, "Unsupported media type", words), span)
        body = b""
        try:
            key = idempotency_key(headers)
            body = await read_body(receive, headers, self._max_body_bytes, self._body_timeout_s, hold)
            body = await unpacked(body, headers, self._max_body_bytes, hold)
            now = self._clock.now()
            reading = (
                reader.read(body, now)
                if len(body) <= AT_ONCE_BYTES
                else await self._in_steps(reader, body, now)
            )
        except TooSlow:
            words = f"the body took over {self._body_timeout_s:g} s"
            return self._refuse(shape, reader, Refusal(408, "Too slow", words, closes=True), span)
        except TooLarge as error:
            return self._refuse(shape, reader, Refusal(413, "Too large", str(error)), span)
        except Unsupported as error:
            return self._refuse(shape, reader, Refusal(415, "Unsupported media type", str(error)), span)
        except Busy as error:
            return self._refuse(shape, reader, Refusal(503, "Busy", str(error), error.retry_after_s), span)
        except Malformed as error:
            self._dead_letters.put(TENANT, reader.name, [Fault(-1, str(error), body)], content_type)
            return self._refuse(shape, reader, Refusal(400, "Malformed", str(error)), span)
        span.note("llm_im.alerts", reading.count)
        self._looked_at(reading)
        if reading.faults:
            span.note("llm_im.refused", len(reading.faults))
            self._meter.count("llm_im_alerts_refused_total", len(reading.faults), door=reader.name)
            self._dead_letters.put(TENANT, reader.name, reading.faults, content_type)
        if sender.match:
            reading = await self._within_bounds(sender, reading, reader)
        receipt = await self._submitter.submit(
            reading,
            tenant=TENANT,
            door=reader.name,
            want_ids=shape.wants_ids,
            delivery_id=key,
            trace=span.trace,
            sender=sender,
        )
        if receipt.errors:
            self._tell_full(receipt, sender, reader)
        self._meter.observe("llm_im_ingest_seconds", self._clock.monotonic() - begun, door=reader.name)
        return await shape.done(reading, receipt)

    async def _within_bounds(self, sender: Sender, reading: Reading, reader: Reader) -> Reading:
        """`reading` without what its sender may not send, which is among its faults then."""
        reading, outside = await self._bounds.within(sender, reading)
        if not outside:
            return reading
        self._meter.count("llm_im_alerts_forbidden_total", len(outside), door=reader.name, token=sender.name)
        log.warning(
            "alerts refused: their token is bound to other labels",
            token=sender.name,
            door=reader.name,
            alerts=len(outside),
            first=outside[0].message,
        )
        return replace(reading, faults=[*reading.faults, *outside])

    def _tell_full(self, receipt: Receipt, sender: Sender, reader: Reader) -> None:
        """Count and log what there was no room for."""
        for bound, kind in (("sender", ShareUsedUp), ("shard", Full)):
            found = [error for error in receipt.errors.values() if isinstance(error, kind)]
            if found:
                self._meter.count(
                    "llm_im_alerts_no_room_total",
                    len(found),
                    door=reader.name,
                    bound=bound,
                    token=sender.name,
                )
                log.warning(
                    "alerts refused: no room", token=sender.name, alerts=len(found), why=str(found[0])
                )

    async def _in_steps(self, reader: Reader, body: bytes, now: float) -> Reading:
        """reader.read() of a large body, with a turn for the others after each step."""
        async with self._alone if len(body) > ALONE_BYTES else contextlib.nullcontext():
            steps = reader.steps(body, now)
            while True:
                try:
                    next(steps)
                except StopIteration as over:
                    reading: Reading = over.value
                    return reading
                await asyncio.sleep(0)

    def _refuse(
        self, shape: AnswerShape, reader: Reader, refusal: Refusal, span: Span | None = None
    ) -> Answer:
        refusal.trace_id = trace_id_of(span.trace) if span is not None else None
        self._meter.count("llm_im_requests_refused_total", door=reader.name, reason=refusal.title.lower())
        return shape.refused(refusal)


def smooth(path: str) -> str:
    """A path as we name it: a URL that was put together of two with one slash too many, `http://here//api/v2/alerts` or
    `/api/v2/alerts/`, means the same."""
    if "//" in path or path.endswith("/"):
        return "/" + "/".join(part for part in path.split("/") if part)
    return path


class Answer(msgspec.Struct):
    """Status, content type (b"" for none), body and further headers."""

    status: int
    content_type: bytes = b""
    body: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()


class AnswerShape(Protocol):
    """What a door takes, and how it words its answers."""

    content_types: tuple[str, ...]
    wants_ids: bool

    def refused(self, refusal: Refusal) -> Answer: ...
    async def done(self, reading: Reading, receipt: Receipt) -> Answer: ...


_json = msgspec.json.Encoder()
_STORED = Answer(200)


class _AlertmanagerAnswer:
    """Alertmanager's replies: 200 and nothing; a JSON string for what is wrong with alerts, an object for the rest."""

    content_types: tuple[str, ...] = ("application/json",)
    wants_ids = False

    def refused(self, refusal: Refusal) -> Answer:
        body = _json.encode({"code": refusal.status, "message": refusal.detail})
        return Answer(refusal.status, b"application/json", body, _headers_of(refusal))

    async def done(self, reading: Reading, receipt: Receipt) -> Answer:
        if (error := _error_of(receipt)) is not None:
            # Prometheus drops what is refused with 4xx and does not retry; 503 is the truth: sending again is safe.
            return Answer(
                _status_of(error), b"application/json", _json.encode(str(error)), _retry_after(error)
            )
        if reading.faults:
            # Alertmanager's own words for one alert; it never says which of several it means.
            alone = reading.count == 1
            words = "; ".join(
                fault.message if alone else f"alert {fault.index}: {fault.message}"
                for fault in reading.faults[:FAULTS_TOLD_MAX]
            )
            more = len(reading.faults) - FAULTS_TOLD_MAX
            words += f"; and {more} more" if more > 0 else ""
            return Answer(_status_of_faults(reading), b"application/json", _json.encode(words))
        return _STORED


class _V1Answer:
    """202 all stored, 207 some, 400 none could be read, 403 none was allowed, 503 none could be stored."""

    content_types: tuple[str, ...] = ("application/json", "application/x-ndjson", "application/jsonl")
    wants_ids = True

    def refused(self, refusal: Refusal) -> Answer:
        return _problem(refusal, V1_PATH)

    async def done(self, reading: Reading, receipt: Receipt) -> Answer:
        columns = {place: column for column, place in enumerate(reading.places)}
        faults = {fault.index: fault for fault in reading.faults}
        stored = 0
        encoded: list[bytes] = []
        for first in range(0, reading.count, ITEMS_SLICE):
            if first:
                await asyncio.sleep(0)
            items: list[dict[str, object]] = []
            for place in range(first, min(first + ITEMS_SLICE, reading.count)):
                column = columns.get(place)
                if column is None:
                    fault = faults[place]
                    items.append({"index": place, "status": fault.status, "error": fault.message})
                    continue
                decision = receipt.decisions[column]
                if decision is None:
                    failed = receipt.errors[column]
                    items.append({"index": place, "status": _status_of(failed), "error": str(failed)})
                    continue
                stored += 1
                identity = receipt.incident_ids[column]
                items.append(
                    {
                        "index": place,
                        "status": 202,
                        "decision": decision.name.lower(),
                        "reason": REASONS[decision],
                        "incident_id": str(UUID(bytes=identity)) if identity else None,
                    }
                )
            encoded.append(_json.encode(items)[1:-1])
        error = _error_of(receipt)
        if stored == reading.count:
            status = 202
        elif stored:
            status = 207
        else:
            status = _status_of_faults(reading) if error is None else _status_of(error)
        body = b'{"stored":%d,"refused":%d,"failed":%d,"items":[%b]}' % (
            stored,
            len(reading.faults),
            len(receipt.errors),
            b",".join(encoded),
        )
        return Answer(status, b"application/json", body, _retry_after(error))


_alertmanager_answer: AnswerShape = _AlertmanagerAnswer()
_v1_answer: AnswerShape = _V1Answer()


async def _send(send: Send, answer: Answer) -> None:
    # A new list each time: layers above append to it.
    headers = [(b"content-length", str(len(answer.body)).encode()), *answer.headers]
    if answer.content_type:
        headers.append((b"content-type", answer.content_type))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _problem(refusal: Refusal, instance: str) -> Answer:
    """RFC 9457."""
    body: dict[str, object] = {
        "type": f"urn:llm-im:problem:{refusal.title.lower().replace(' ', '-')}",
        "title": refusal.title,
        "status": refusal.status,
        "detail": refusal.detail,
        "instance": instance,
        "errors": [],
    }
    if refusal.trace_id is not None:
        body["trace_id"] = refusal.trace_id
    return Answer(refusal.status, b"application/problem+json", _json.encode(body), _headers_of(refusal))


def _headers_of(refusal: Refusal) -> Sequence[tuple[bytes, bytes]]:
    # A sender that was too slow is still sending: what comes now belongs to no request.
    closing = [(b"connection", b"close")] if refusal.closes else []
    challenge = [(b"www-authenticate", refusal.challenge)] if refusal.challenge else []
    return [*_patience(refusal.retry_after_s), *closing, *challenge]


def _error_of(receipt: Receipt) -> IncidentManagerError | None:
    """What went wrong, None when nothing did. Of several the one that sending again mends: a sender who gives up by another
    one loses what that would have stored."""
    return max(receipt.errors.values(), key=_status_of, default=None)


def _status_of(error: IncidentManagerError) -> int:
    """422 for what sending again can't mend (an idempotency key used for another body), 429 for a share that is used up,
    else 503."""
    if isinstance(error, ShareUsedUp):
        return 429
    return 422 if isinstance(error, Refused) and not isinstance(error, Busy | NotOwner) else 503


def _status_of_faults(reading: Reading) -> int:
    """Of a request of which nothing could be taken: 403 when all of it is forbidden, else 400."""
    return FORBIDDEN if all(fault.status == FORBIDDEN for fault in reading.faults) and reading.faults else 400


def _retry_after(error: IncidentManagerError | None) -> Sequence[tuple[bytes, bytes]]:
    if error is None or _status_of(error) == 422:
        return ()
    if isinstance(error, ShareUsedUp | Full):
        return _patience(FULL_RETRY_S)
    return _patience(error.retry_after_s if isinstance(error, Busy) else 1.0)


def _patience(seconds: float) -> Sequence[tuple[bytes, bytes]]:
    return [(b"retry-after", str(max(1, round(seconds))).encode())] if seconds else ()


def idempotency_key(headers: Mapping[bytes, bytes]) -> str | None:
    """What the sender calls this request, None when it gives no name. Raises Malformed."""
    raw = headers.get(b"idempotency-key")
    if raw is None:
        return None
    key = raw.decode("latin-1").strip()
    if not key or len(raw) > IDEMPOTENCY_KEY_MAX_BYTES or not key.isprintable():
        raise Malformed(f"Idempotency-Key: expected 1 to {IDEMPOTENCY_KEY_MAX_BYTES} printable characters")
    return key


def _attributes_of(path: str) -> dict[str, Attribute]:
    return {"http.request.method": "POST", "http.route": path, "url.path": path}
