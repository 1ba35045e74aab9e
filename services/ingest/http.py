"""The HTTP doors for alerts: POST /api/v2/alerts (Alertmanager's) and POST /v1/alerts (ours), as bare ASGI.

In front of everything else in a gateway replica, because a framework would cost more than all the rest. Every
other request goes on to the FastAPI application (services/api/app.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

import msgspec
import structlog

from models.errors import Busy, IncidentManagerError, Malformed, TooLarge
from models.messages import REASONS
from models.metrics import Meter
from models.ports import Clock
from services.ingest.body import Disconnected, Receive, Scope, Send, TooSlow, read_body
from services.ingest.dead_letters import DeadLetterBox
from services.ingest.formats.common import Fault, Reading
from services.ingest.submit import Receipt, Submitter

log = structlog.get_logger()

ALERTMANAGER_PATH = "/api/v2/alerts"
V1_PATH = "/v1/alerts"
TENANT = "default"
#: Requests a gateway works on at once; each holds its body. Past it senders get 503 and Retry-After.
REQUESTS_MAX = 1024
#: An idempotency key is an identity, not a document.
IDEMPOTENCY_KEY_MAX_BYTES = 255
#: Faults told in one answer; a thousand alike help nobody.
FAULTS_TOLD_MAX = 100
#: The trace id of W3C traceparent: 00-<32 hex>-<16 hex>-<2 hex>.
_TRACEPARENT_BYTES = 55
_JSON_TYPES = (b"application/json", b"application/x-ndjson", b"application/jsonl")


class Reader(Protocol):
    """A format of services/ingest/formats."""

    name: str

    def read(self, body: bytes, now: float) -> Reading: ...


class Refusal(msgspec.Struct):
    """An answer other than success, whatever shape the door gives it."""

    status: int
    title: str
    detail: str
    retry_after_s: float = 0.0


class HttpDoors:
    """Both doors of one gateway. `readers` by path."""

    def __init__(
        self,
        submitter: Submitter,
        readers: Mapping[str, Reader],
        dead_letters: DeadLetterBox,
        clock: Clock,
        meter: Meter,
        *,
        max_body_bytes: int,
        body_timeout_s: float,
    ) -> None:
        self._submitter = submitter
        self._readers = readers
        self._dead_letters = dead_letters
        self._clock = clock
        self._meter = meter
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._requests = 0

    def takes(self, scope: Scope) -> bool:
        """Whether a request is for one of these doors."""
        return scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._readers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Always answers, unless the sender went away."""
        path = str(scope["path"])
        shape = _alertmanager_answer if path == ALERTMANAGER_PATH else _v1_answer
        if self._requests >= REQUESTS_MAX:
            refusal = Refusal(503, "Busy", f"{REQUESTS_MAX} requests are under way already", 1.0)
            await _send(send, shape.refused(refusal))
            return
        self._requests += 1
        try:
            answer = await self._answer(path, scope, receive, shape)
        except Disconnected:
            return
        finally:
            self._requests -= 1
        await _send(send, answer)

    async def _answer(self, path: str, scope: Scope, receive: Receive, shape: AnswerShape) -> Answer:
        reader = self._readers[path]
        begun = self._clock.monotonic()
        headers: dict[bytes, bytes] = dict(scope["headers"])  # type: ignore[call-overload]
        content_type = headers.get(b"content-type", b"application/json").split(b";")[0].strip().lower()
        if content_type not in _JSON_TYPES:
            return self._refuse(
                shape,
                reader,
                Refusal(
                    415,
                    "Unsupported media type",
                    f'unsupported media type "{content_type[:80].decode("latin-1")}", only [application/json] are allowed',
                ),
            )
        body = b""
        try:
            key = _idempotency_key(headers)
            body = await read_body(receive, headers, self._max_body_bytes, self._body_timeout_s)
            now = self._clock.now()
            reading = reader.read(body, now)
        except TooSlow:
            return self._refuse(
                shape, reader, Refusal(408, "Too slow", f"the body took over {self._body_timeout_s:g} s")
            )
        except TooLarge as error:
            return self._refuse(shape, reader, Refusal(413, "Too large", str(error)))
        except Malformed as error:
            self._dead_letters.put(TENANT, reader.name, [Fault(-1, str(error), body)], content_type.decode("latin-1"))
            return self._refuse(shape, reader, Refusal(400, "Malformed", str(error)))
        if reading.faults:
            self._meter.count("llm_im_alerts_refused_total", len(reading.faults), door=reader.name)
            self._dead_letters.put(TENANT, reader.name, reading.faults, content_type.decode("latin-1"))
        receipt = await self._submitter.submit(
            reading,
            tenant=TENANT,
            door=reader.name,
            want_ids=shape.wants_ids,
            delivery_id=key,
            trace_id=_trace_id(headers),
        )
        self._meter.observe("llm_im_ingest_seconds", self._clock.monotonic() - begun, door=reader.name)
        return shape.done(reading, receipt)

    def _refuse(self, shape: AnswerShape, reader: Reader, refusal: Refusal) -> Answer:
        self._meter.count("llm_im_requests_refused_total", door=reader.name, reason=refusal.title.lower())
        return shape.refused(refusal)


class Answer(msgspec.Struct):
    """Status, content type (b"" for none), body and further headers."""

    status: int
    content_type: bytes = b""
    body: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()


class AnswerShape(Protocol):
    """How a door words its answers."""

    wants_ids: bool

    def refused(self, refusal: Refusal) -> Answer: ...
    def done(self, reading: Reading, receipt: Receipt) -> Answer: ...


_json = msgspec.json.Encoder()
_STORED = Answer(200)


class _AlertmanagerAnswer:
    """Alertmanager's replies: 200 and nothing; a JSON string for what is wrong with alerts, an object for the rest."""

    wants_ids = False

    def refused(self, refusal: Refusal) -> Answer:
        body = _json.encode({"code": refusal.status, "message": refusal.detail})
        return Answer(refusal.status, b"application/json", body, _retry_after(refusal.retry_after_s))

    def done(self, reading: Reading, receipt: Receipt) -> Answer:
        if (error := receipt.error) is not None:
            # Prometheus drops what is refused with 4xx and does not retry; 503 is the truth: sending again is safe.
            return Answer(503, b"application/json", _json.encode(str(error)), _retry_after(_patience_s(error)))
        if reading.faults:
            words = "; ".join(_named(fault) for fault in reading.faults[:FAULTS_TOLD_MAX])
            return Answer(400, b"application/json", _json.encode(words))
        return _STORED


class _V1Answer:
    """202 all stored, 207 some, 400 none could be read, 503 none could be stored."""

    wants_ids = True

    def refused(self, refusal: Refusal) -> Answer:
        return _problem(refusal.status, refusal.title, refusal.detail, V1_PATH, refusal.retry_after_s)

    def done(self, reading: Reading, receipt: Receipt) -> Answer:
        items: list[dict[str, object]] = [{} for _ in range(reading.count)]
        stored = 0
        for column, place in enumerate(reading.places):
            decision = receipt.decisions[column]
            if decision is None:
                error = receipt.errors[column]
                items[place] = {"index": place, "status": 503, "error": str(error)}
                continue
            stored += 1
            identity = receipt.incident_ids[column]
            items[place] = {
                "index": place,
                "status": 202,
                "decision": decision.name.lower(),
                "reason": REASONS[decision],
                "incident_id": str(UUID(bytes=identity)) if identity else None,
            }
        for fault in reading.faults:
            items[fault.index] = {"index": fault.index, "status": 400, "error": fault.message}
        retry: Sequence[tuple[bytes, bytes]] = ()
        if (failed := receipt.error) is not None:
            retry = _retry_after(_patience_s(failed))
        if stored == reading.count:
            status = 202
        elif stored:
            status = 207
        else:
            status = 503 if receipt.errors else 400
        body = {"stored": stored, "refused": len(reading.faults), "failed": len(receipt.errors), "items": items}
        return Answer(status, b"application/json", _json.encode(body), retry)


_alertmanager_answer: AnswerShape = _AlertmanagerAnswer()
_v1_answer: AnswerShape = _V1Answer()


async def _send(send: Send, answer: Answer) -> None:
    # A new list each time: layers above append to it.
    headers = [(b"content-length", str(len(answer.body)).encode()), *answer.headers]
    if answer.content_type:
        headers.append((b"content-type", answer.content_type))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _problem(status: int, title: str, detail: str, instance: str, retry_after_s: float) -> Answer:
    """RFC 9457."""
    slug = title.lower().replace(" ", "-")
    body = {"type": f"urn:llm-im:{slug}", "title": title, "status": status, "detail": detail, "instance": instance}
    return Answer(status, b"application/problem+json", _json.encode(body), _retry_after(retry_after_s))


def _named(fault: Fault) -> str:
    return fault.message if fault.index < 0 else f"alert {fault.index}: {fault.message}"


def _patience_s(error: IncidentManagerError) -> float:
    return error.retry_after_s if isinstance(error, Busy) else 1.0


def _retry_after(seconds: float) -> Sequence[tuple[bytes, bytes]]:
    return [(b"retry-after", str(max(1, round(seconds))).encode())] if seconds else ()


def _idempotency_key(headers: Mapping[bytes, bytes]) -> str | None:
    raw = headers.get(b"idempotency-key")
    if raw is None:
        return None
    key = raw.decode("latin-1").strip()
    if not key or len(raw) > IDEMPOTENCY_KEY_MAX_BYTES or not key.isprintable():
        raise Malformed(f"Idempotency-Key: expected 1 to {IDEMPOTENCY_KEY_MAX_BYTES} printable characters")
    return key


def _trace_id(headers: Mapping[bytes, bytes]) -> str | None:
    raw = headers.get(b"traceparent")
    return raw[3:35].decode("latin-1") if raw is not None and len(raw) == _TRACEPARENT_BYTES else None
