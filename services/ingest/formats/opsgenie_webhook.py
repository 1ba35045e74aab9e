"""Opsgenie's outgoing webhooks, for who still has its senders pointed at it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.ingest.formats.format import Request
from services.ingest.formats.opsgenie import PRIORITIES
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, stable_name

OVER = frozenset({"close", "delete"})


class OpsgenieWebhookFormat(WebhookFormat):
    name = "opsgenie-webhook"
    path = "/v1/events/opsgenie-webhook"
    summary = "Opsgenie's webhooks"
    shape = "action and alert with alertId"
    severities = {**PRIORITIES, "": "P2"}

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        return self.each([(body, "")], self._event)

    def _event(self, event: Fields) -> Draft:
        action, alert = event.need("action").lower(), event.need_inner("alert")
        message = alert.need("message")
        details = alert.pairs("details") if isinstance(alert.get("details"), dict) else {}
        return self.alert(
            stable_name(message),
            details.get("service") or alert.text("entity") or event.text("integrationName"),
            title=message,
            text=alert.text("description"),
            severity=alert.text("priority"),
            resolved=action in OVER,
            labels={"alert_id": alert.need("alertId"), "alias": alert.text("alias")},
            notes={
                "action": action,
                "tags": ", ".join(alert.texts("tags")),
                "by": alert.text("username"),
                **details,
            },
            starts=alert.time("createdAt"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        alert = body.get("alert") if isinstance(body, dict) else None
        return isinstance(alert, dict) and "alertId" in alert
