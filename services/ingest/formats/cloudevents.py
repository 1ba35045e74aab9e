"""CloudEvents 1.0 over HTTP: structured, batched, or binary (attributes as headers, the data as body).

An event's type, source and subject are what stays the same; a type that ends in .resolved, .closed and the like ends what the
same type without it, or with .opened and the like, began.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

from models.errors import Malformed
from services.ingest.formats.answers import Answer
from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields, read_json
from services.ingest.formats.webhook import Bad, Draft, Item, WebhookFormat

BATCH, STRUCTURED = "application/cloudevents-batch+json", "application/cloudevents+json"
_ATTRIBUTES = frozenset(
    {
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "data",
        "data_base64",
    }
)
_BEGAN = re.compile(r"[._-](opened|created|triggered|fired|firing|started|raised|activated)\Z", re.IGNORECASE)
_ENDED = re.compile(r"[._-](resolved|closed|recovered|cleared|ended|completed|deactivated)\Z", re.IGNORECASE)
ENDED_STATUSES = frozenset({"resolved", "closed", "recovered", "cleared", "ok", "ended", "inactive"})


class CloudEventsFormat(WebhookFormat):
    name = "cloudevents"
    path = "/v1/events/cloudevents"
    methods = ("POST", "OPTIONS")
    content_types = ("application/json", STRUCTURED, BATCH)
    summary = "CloudEvents 1.0: structured, batched or binary"
    shape = "specversion, id, source and type"
    severities = {"": "P3"}

    def takes_type(self, content_type: str, headers: Mapping[bytes, bytes]) -> bool:
        return content_type in self.content_types or b"ce-specversion" in headers

    def handshake(self, request: Request) -> Answer | None:
        if request.method != "OPTIONS":
            return None
        # The specification's "abuse protection": whoever may send here says so.
        origin = request.headers.get(b"webhook-request-origin", b"*")
        return Answer(
            200,
            headers=[
                (b"webhook-allowed-origin", origin),
                (b"webhook-allowed-rate", b"*"),
                (b"allow", b"POST"),
            ],
        )

    def parsed(self, request: Request) -> object:
        headers = request.headers
        if b"ce-specversion" not in headers:
            return super().parsed(request)
        event: dict[str, object] = {
            name[3:].decode("latin-1"): unquote(value.decode("latin-1"))
            for name, value in headers.items()
            if name.startswith(b"ce-")
        }
        event["datacontenttype"] = request.content_type
        if not request.body:
            return event
        is_json = request.content_type.endswith(("/json", "+json"))
        event["data"] = read_json(request.body) if is_json else request.body.decode("utf-8", "replace")
        return event

    def rereads(self) -> Iterable[bytes]:
        return (b"ce-",)

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        if isinstance(body, list):
            for place, each in enumerate(body):
                try:
                    yield self._event(Fields(each, f"[{place}]"))
                except Malformed as error:
                    yield Bad(str(error))
            return
        yield self._event(Fields(body))

    def _event(self, event: Fields) -> Draft:
        if (version := event.need("specversion")) != "1.0":
            raise Malformed(f'{event.path("specversion")}: expected "1.0", got {version[:40]!r}')
        identity, source, kind = event.need("id"), event.need("source"), event.need("type")
        data = _data(event)
        status = data.text("status", "state") if data else ""
        ended = bool(_ENDED.search(kind)) or status.lower() in ENDED_STATUSES
        kind = _ENDED.sub("", _BEGAN.sub("", kind))
        subject = event.text("subject")
        notes = {name: event.text(name) for name in event.values if name not in _ATTRIBUTES}
        said = data.pairs() if data else {"data": _words(event)}
        at = event.time("time")
        return self.alert(
            kind,
            said.get("service") or source.rstrip("/").rpartition("/")[2] or source,
            title=said.get("title")
            or said.get("summary")
            or said.get("message")
            or f"{kind} {subject}".strip(),
            text=said.get("description", ""),
            severity=said.get("severity") or notes.get("severity", ""),
            resolved=ended,
            labels={"ce_source": source, "subject": subject},
            notes={"ce_id": identity, **notes, **said},
            starts=0.0 if ended else at,
            ends=at if ended else 0.0,
            url=event.text("dataschema"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        first = body[0] if isinstance(body, list) and body else body
        return b"ce-specversion" in headers or (isinstance(first, dict) and "specversion" in first)


def _data(event: Fields) -> Fields | None:
    """The data of an event, when they are an object."""
    raw = event.get("data")
    if raw is None and "data_base64" in event:
        content_type = event.text("datacontenttype")
        if content_type.endswith(("/json", "+json")):
            raw = read_json(_decoded(event))
    return Fields(raw, event.path("data")) if isinstance(raw, dict) else None


def _words(event: Fields) -> str:
    """Data that are no object, as text."""
    if "data_base64" in event:
        return _decoded(event).decode("utf-8", "replace")
    return event.text("data") if not isinstance(event.get("data"), list) else ""


def _decoded(event: Fields) -> bytes:
    try:
        return base64.b64decode(event.text("data_base64"), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"{event.path('data_base64')}: expected base64") from None
