"""PagerDuty's outgoing webhooks (v3), for who keeps PagerDuty beside this; and those of v2, in "messages"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from models.errors import Malformed
from services.ingest.arrival import Sender
from services.ingest.formats.format import Request, Shared
from services.ingest.formats.signatures import header_of, signed_by
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, stable_name

SIGNATURE = "X-PagerDuty-Signature"
SIGNATURES_MAX = 8


class PagerDutyWebhookFormat(WebhookFormat):
    name = "pagerduty-webhook"
    path = "/v1/events/pagerduty-webhook"
    summary = "PagerDuty's webhooks, version 3 and 2"
    shape = "event with event_type and resource_type; or messages with event and incident"
    severities = {"high": "P1", "low": "P3", **{f"p{level + 1}": f"P{level}" for level in range(5)}}

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._secret = shared.settings.formats.pagerduty_secret
        self.is_signed = self._secret is not None

    def verify(self, request: Request) -> Sender:
        assert self._secret is not None
        # While a secret is replaced there are two.
        given = header_of(request, SIGNATURE).split(",")[:SIGNATURES_MAX]
        found = [each.strip().removeprefix("v1=") for each in given]
        return signed_by(self._secret, request, SIGNATURE, found, self.name)

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        sent = Fields(body)
        if "messages" in sent:
            return self.each(sent.members("messages"), self._message)
        event = sent.need_inner("event")
        kind = event.need("event_type")
        if not kind.startswith("incident."):
            if kind.startswith(("pagey.", "service.")):
                return []
            raise Malformed(f"event.event_type: expected incident. and what became of it, got {kind[:60]!r}")
        return self.each([(event.get("data"), "event.data")], lambda one: self._incident(one, kind))

    def _message(self, message: Fields) -> Draft | list[Draft]:
        kind = message.need("event")
        incident = message.inner("incident")
        if "id" not in incident:
            raise Malformed(f"{message.path('incident')}: expected an incident with its id")
        return self._incident(incident, kind)

    def _incident(self, one: Fields, kind: str) -> Draft | list[Draft]:
        # Of notes, responders and the like the incident is named within.
        incident = one.inner("incident") if isinstance(one.get("incident"), dict) else one
        status = one.text("status")
        title = incident.text("title", "summary", "description")
        if not title or incident is not one:
            return []
        number = one.text("number", "incident_number")
        return self.alert(
            stable_name(title),
            one.text("service.summary", "service.name"),
            title=title,
            severity=_priority(one) or one.text("urgency"),
            resolved=status == "resolved" or kind.endswith(".resolved") or kind == "incident.resolve",
            labels={"pagerduty_id": one.need("id")},
            notes={
                "status": status,
                "event": kind,
                "number": number,
                "incident_key": one.text("incident_key"),
                "assignees": ", ".join(each.text("summary") for each in one.objects("assignees")),
                "teams": ", ".join(each.text("summary") for each in one.objects("teams")),
            },
            starts=one.time("created_at"),
            url=one.text("html_url"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        if not isinstance(body, dict):
            return False
        event, messages = body.get("event"), body.get("messages")
        first = messages[0] if isinstance(messages, list) and messages else None
        return (isinstance(event, dict) and {"event_type", "resource_type"} <= event.keys()) or (
            isinstance(first, dict) and {"event", "incident"} <= first.keys()
        )


def _priority(one: Fields) -> str:
    """P1 to P5, when the account names its priorities so."""
    value = one.get("priority")
    return one.inner("priority").text("summary", "name") if isinstance(value, dict) else ""
