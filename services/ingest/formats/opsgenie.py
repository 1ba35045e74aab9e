"""Opsgenie's alerts API: create, close (and delete), and what became of a request. A drop-in for whatever speaks it; its API key is
a token of ours. What names an alert at its end is its alias or id, so its labels are looked up by that (open_alerts.py).

What else clients do on the way to a close (acknowledge, a note, a new message) is accepted and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from urllib.parse import parse_qs, unquote
from uuid import UUID

from models.errors import Malformed
from services.ingest.arrival import Sender
from services.ingest.formats.answers import Answer, Refusal, encode_json, error_of, retry_after, status_of
from services.ingest.formats.format import Request
from services.ingest.formats.pagerduty import details_of
from services.ingest.formats.reading import Reading
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, stable_name
from services.ingest.submit import Receipt

PRIORITIES = {"p1": "P0", "p2": "P1", "p3": "P2", "p4": "P3", "p5": "P4"}
ALIAS_MAX = 512
REQUESTS = "/v2/alerts/requests/{request_id}"
CLOSE = "/v2/alerts/{identifier}/close"
DELETE = "/v2/alerts/{identifier}"
#: What is accepted and changes nothing, and its method.
NOTED = {
    "/v2/alerts/{identifier}/acknowledge": "POST",
    "/v2/alerts/{identifier}/unacknowledge": "POST",
    "/v2/alerts/{identifier}/snooze": "POST",
    "/v2/alerts/{identifier}/notes": "POST",
    "/v2/alerts/{identifier}/tags": "POST",
    "/v2/alerts/{identifier}/message": "PUT",
    "/v2/alerts/{identifier}/description": "PUT",
}
#: What a request id says of the request that it is of, by its last letter. A hexadecimal digit: clients take it for a UUID.
_ACTIONS = {
    "c": ("Create", "Created alert"),
    "e": ("Close", "Closed alert"),
    "a": ("Note", "Accepted; the alert stays as it is"),
}


class OpsgenieFormat(WebhookFormat):
    name = "opsgenie"
    path = "/v2/alerts"
    more_paths = {
        CLOSE: ("POST",),
        DELETE: ("DELETE",),
        REQUESTS: ("GET",),
        **{path: (method,) for path, method in NOTED.items()},
    }
    summary = "Opsgenie's alerts API: create, close, delete, and the state of a request"
    shape = "message and one of alias, responders, entity, visibleTo"
    summaries = {
        CLOSE: "Close an alert, as Opsgenie does",
        DELETE: "Delete an alert of Opsgenie's, which ends it",
        REQUESTS: "What became of a request to Opsgenie's API",
        **dict.fromkeys(NOTED, "Accepted, as Opsgenie does; it changes nothing here"),
    }
    severities = PRIORITIES
    prepares = True
    wants_ids = False

    def handshake(self, request: Request) -> Answer | None:
        if request.method != "GET":
            return None
        request_id = request.path.rpartition("/")[2]
        alert_id, _, letter = request_id.rpartition("-")
        if letter not in _ACTIONS or len(alert_id) != 36:
            return _answer(404, {"message": "Request not found. It might not be processed, yet."}, request_id)
        action, words = _ACTIONS[letter]
        data = {
            "success": True,
            "isSuccess": True,
            "action": action,
            "status": words,
            "alertId": alert_id,
            "alias": "",
        }
        return _answer(200, {"data": data}, request_id)

    async def prepare(self, request: Request) -> None:
        if _ends(request):
            await self.look({"alert_id": _identifier(request)}, request.sender)

    def parsed(self, request: Request) -> object:
        # Nobody must say why an alert is closed.
        return super().parsed(request) if request.body.strip() else {}

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        said = Fields(body)
        if _ends(request):
            notes = {
                "closed_by": said.text("user"),
                "closed_from": said.text("source"),
                "note": said.text("note"),
            }
            return self.ended({"alert_id": _identifier(request)}, request.sender, notes)
        return [self._created(said, request.sender)] if request.path == self.path else []

    def _created(self, said: Fields, sender: Sender) -> Draft:
        message, alias = said.need("message"), said.text("alias")
        if len(alias) > ALIAS_MAX:
            raise Malformed(f"alias: over {ALIAS_MAX} characters")
        details, tags = details_of(said, "details"), said.texts("tags")
        entity, source = said.text("entity"), said.text("source")
        key = {"alert_id": alert_id_of(alias or encode_json([message, entity, source]).decode())}
        service = next(
            (details[name] for name in self.shared.settings.grouping.service_labels if details.get(name)), ""
        )
        draft = self.alert(
            details.get("alertname") or stable_name(message),
            service or entity or source,
            title=message,
            text=said.text("description"),
            severity=said.one_of("priority", PRIORITIES, "P3").upper(),
            labels={**key, "alias": alias, "entity": entity},
            notes={"source": source, "tags": ", ".join(tags), "note": said.text("note"), **details},
        )
        return self.fires(key, draft, sender)

    def note(self, body: object, request: Request) -> str:
        if request.path != self.path:
            return f"{_identifier(request)}-{'e' if _ends(request) else 'a'}"
        said = Fields(body)
        alias = (
            said.text("alias")
            or encode_json([said.text("message"), said.text("entity"), said.text("source")]).decode()
        )
        return f"{alert_id_of(alias)}-c"

    def refused(self, refusal: Refusal) -> Answer:
        if refusal.status == 429:
            throttled = _answer(429, {"message": "You are making too many requests!"}, "")
            throttled.headers = [*refusal.headers, (b"x-ratelimit-state", b"THROTTLED")]
            return throttled
        # What Opsgenie can't process it answers with 422.
        status = 422 if refusal.status == 400 else refusal.status
        return replaced(_answer(status, {"message": refusal.detail}, ""), refusal)

    async def stored(self, reading: Reading, receipt: Receipt) -> Answer:
        if (error := error_of(receipt)) is not None:
            answer = _answer(status_of(error), {"message": str(error)}, reading.note)
            answer.headers = retry_after(error)
            return answer
        if reading.faults:
            return _answer(
                422, {"message": "; ".join(fault.message for fault in reading.faults)}, reading.note
            )
        return _answer(202, {"result": "Request will be processed"}, reading.note)

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        return (
            isinstance(body, dict)
            and "message" in body
            and bool({"alias", "responders", "entity", "visibleTo"} & body.keys())
        )


def alert_id_of(alias: str) -> str:
    """The id of the alert with this alias."""
    return str(UUID(bytes=blake2b(alias.encode(), digest_size=16, person=b"opsgenie alias").digest()))


def _ends(request: Request) -> bool:
    return request.method == "DELETE" or request.path.endswith("/close")


def _identifier(request: Request) -> str:
    """The id of the alert that a path names, by its id or its alias. Raises Malformed."""
    named = unquote(request.path.split("/")[3])
    kind = parse_qs(request.query.decode("latin-1")).get("identifierType", ["id"])[0]
    if kind not in ("id", "alias"):
        raise Malformed(f"identifierType: expected id or alias, got {kind[:40]}")
    return alert_id_of(named) if kind == "alias" else named


def _answer(status: int, body: dict[str, object], request_id: str) -> Answer:
    return Answer(status, b"application/json", encode_json({**body, "took": 0.0, "requestId": request_id}))


def replaced(answer: Answer, refusal: Refusal) -> Answer:
    answer.headers = refusal.headers
    return answer
