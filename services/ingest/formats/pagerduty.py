"""PagerDuty's Events API v2: a drop-in for whatever speaks it. What names an event at its end is its dedup_key alone, so its
labels are looked up by it (open_alerts.py). The routing key, which may be a token of ours, is kept as a digest only.

Two events under one routing key and dedup_key are one alert; other routing keys can't end it; what ends nothing is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import ClassVar

from models.errors import Malformed
from services.ingest.formats.answers import Answer, Refusal, encode_json, error_of, retry_after, status_of
from services.ingest.formats.format import Request
from services.ingest.formats.reading import Reading
from services.ingest.formats.values import Fields, read_json
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, stable_name
from services.ingest.submit import Receipt

ACTIONS = ("trigger", "acknowledge", "resolve")
SEVERITIES = {"critical": "P1", "error": "P2", "warning": "P3", "info": "P4"}
#: PagerDuty's own bounds.
BODY_MAX_BYTES = 512 * 1024
DEDUP_KEY_MAX = 255
#: What PagerDuty says to who sends too fast, to the blank.
TOO_FAST = "Requests for this service are arriving too quickly.  Please retry later."
#: Of Alertmanager's text on what fires.
TOLD_CHARS = 4096
_LABEL_TOLD = re.compile(r"^ - (\w+) = (.+)$", re.MULTILINE)
#: A routing key, or a service key of v1, that is a token of ours.
_TOKEN = re.compile(rb'"(?:routing|service)_key"\s{0,9}:\s{0,9}"(llmim_[A-Za-z0-9_-]{1,99})"')


class PagerDutyFormat(WebhookFormat):
    """Events API v2."""

    name = "pagerduty"
    path = "/v2/enqueue"
    summary = "PagerDuty's Events API v2"
    shape = "routing_key and event_action"
    token_in_body = True
    prepares = True
    wants_ids = False
    max_bytes = BODY_MAX_BYTES
    severities = SEVERITIES
    #: The names of routing key, dedup key and action.
    fields: ClassVar[tuple[str, str, str]] = ("routing_key", "dedup_key", "event_action")

    def parsed(self, request: Request) -> object:
        return self._event(request)

    def rereads(self) -> Iterable[bytes]:
        return (b"idempotency-key",)

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        assert isinstance(body, Fields)
        key = self._key(body)
        if body.text(self.fields[2]) == "trigger":
            return [self.fires(key, self._triggered(body, key), request.sender)]
        # An acknowledgement leaves it as it is.
        return self.ended(key, request.sender) if body.text(self.fields[2]) == "resolve" else []

    async def prepare(self, request: Request) -> None:
        if self.knows(request):
            return
        event = self.read_ahead(request)
        assert isinstance(event, Fields)
        if event.text(self.fields[2]) == "resolve":
            await self.look(self._key(event), request.sender)

    def lasts(self, body: object, request: Request) -> bool:
        # A key that is made up is another one each time, unless its sender says that it sends again.
        assert isinstance(body, Fields)
        return bool(request.headers.get(b"idempotency-key")) or body.text(self.fields[1]) != made_up_key(
            request
        )

    def note(self, body: object, request: Request) -> str:
        assert isinstance(body, Fields)
        return body.text(self.fields[1])

    def _event(self, request: Request) -> Fields:
        """The event of a request, whole: with a dedup_key, which PagerDuty makes up where there is none."""
        event = Fields(read_json(request.body, self.max_bytes))
        routing, dedup, action = self.fields
        event.need(routing)
        event.one_of(action, ACTIONS)
        if len(event.text(dedup)) > DEDUP_KEY_MAX:
            raise Malformed(f"{dedup}: over {DEDUP_KEY_MAX} characters")
        if event.text(action) != "trigger":
            event.need(dedup)
        elif not event.text(dedup):
            event.values[dedup] = made_up_key(request)
        return event

    def _key(self, event: Fields) -> dict[str, str]:
        routing = blake2b(event.text(self.fields[0]).encode(), digest_size=6).hexdigest()
        return {"dedup_key": event.text(self.fields[1]), "routing": routing}

    def _triggered(self, event: Fields, key: Mapping[str, str]) -> Draft:
        payload = event.need_inner("payload")
        title, source = payload.need("summary"), payload.need("source")
        details = details_of(payload, "custom_details")
        told = _labels_told(details)
        names = self.shared.settings.grouping.service_labels
        service = next((told[name] for name in names if name in told), "")
        return self.alert(
            payload.text("class") or told.get("alertname") or stable_name(title),
            details.get("service") or payload.text("component") or service or source,
            title=title,
            text=details.get("description", ""),
            severity=payload.one_of("severity", SEVERITIES),
            labels={**key, "component": payload.text("component"), "group": payload.text("group")},
            notes={"source": source, **links_of(event), **details},
            starts=payload.time("timestamp"),
            url=event.text("client_url"),
        )

    def token_of(self, request: Request) -> str:
        # Whoever it is may send here: the body is searched for a token, and read once its sender is known.
        found = _TOKEN.search(request.body)
        return found[1].decode() if found is not None else ""

    def refused(self, refusal: Refusal) -> Answer:
        if refusal.status == 429:
            throttled = encode_json({"status": "throttle exceeded", "message": TOO_FAST})
            return Answer(429, b"application/json", throttled, refusal.headers)
        body = {"status": "invalid event", "message": "Event object is invalid", "errors": [refusal.detail]}
        return Answer(refusal.status, b"application/json", encode_json(body), refusal.headers)

    async def stored(self, reading: Reading, receipt: Receipt) -> Answer:
        return accepted(reading, receipt, "Event processed", self.fields[1])

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        return isinstance(body, dict) and {"routing_key", "event_action"} <= body.keys()


def accepted(reading: Reading, receipt: Receipt, words: str, key_name: str = "") -> Answer:
    """202 as PagerDuty words it."""
    if (error := error_of(receipt)) is not None:
        body: dict[str, object] = {"status": "error", "message": str(error)}
        return Answer(status_of(error), b"application/json", encode_json(body), retry_after(error))
    if reading.faults:
        body = {"status": "invalid event", "message": "Event object is invalid"}
        body["errors"] = [fault.message for fault in reading.faults]
        return Answer(400, b"application/json", encode_json(body))
    body = {"status": "success", "message": words, **({key_name: reading.note} if key_name else {})}
    return Answer(202, b"application/json", encode_json(body))


def made_up_key(request: Request) -> str:
    """A dedup key for an event that has none: another one for each, and the same for one that is known to be sent again."""
    again = request.headers.get(b"idempotency-key")
    said = again or repr(request.received_at).encode() + request.body
    return blake2b(said, digest_size=16).hexdigest()


def _labels_told(details: Mapping[str, str]) -> dict[str, str]:
    """The labels of the first alert that Alertmanager tells of in a text: its events have them nowhere else."""
    first = details.get("firing", "")[:TOLD_CHARS].partition("Annotations:")[0]
    return dict(_LABEL_TOLD.findall(first))


def links_of(event: Fields) -> dict[str, str]:
    found: dict[str, str] = {"client": event.text("client")}
    for name, place in (("links", "href"), ("images", "src")):
        found[name] = " ".join(each.text(place) for each in event.objects(name))
    return found


def details_of(payload: Fields, name: str) -> dict[str, str]:
    """What a sender adds as it likes: an object of anything, or a text."""
    if isinstance(payload.get(name), dict):
        return payload.pairs(name)
    said = payload.text(name) if not isinstance(payload.get(name), list) else ""
    return {"description": said}
