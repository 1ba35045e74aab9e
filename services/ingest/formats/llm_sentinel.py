"""LLM-Sentinel's alerts as JSON: the fields of its gRPC AlertMessage, one, several, or under "alerts". Each service that it names has
an alert of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, several

LEVELS = {f"p{level}": f"P{level}" for level in range(5)}
#: Of labels, what a severity is called that is none of the sender's enum.
ENDED = frozenset({"resolved", "ok", "cleared", "recovered", "closed"})


class LlmSentinelFormat(WebhookFormat):
    name = "llm-sentinel"
    path = "/v1/events/llm-sentinel"
    summary = "LLM-Sentinel's AlertMessage as JSON"
    shape = 'alert_id, severity, description, and affected_services or source "llm-sentinel"'
    severities = {**LEVELS, "critical": "P0", "high": "P1", "medium": "P2", "low": "P3", "info": "P4"}

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        return self.each(several(body, "alerts"), self._alert)

    def _alert(self, alert: Fields) -> Iterator[Draft]:
        labels, kind = alert.pairs("labels"), alert.text("type", "alert_type")
        title = alert.text("title") or alert.need("description")
        ended = alert.text("status", "state").lower() in ENDED
        at = alert.time("timestamp")
        severity = alert.need("severity")
        if not self.level(severity):
            alert.one_of("severity", tuple(self.severities))
        name = labels.pop("alertname", "") or alert.text("name", "metric") or kind or "SentinelAlert"
        services = alert.texts("affected_services") or [labels.get("service", "")]
        labels.pop("severity", "")
        for service in services:
            yield self.alert(
                name,
                service,
                title=title,
                text=alert.text("description"),
                severity=severity,
                resolved=ended,
                labels={**labels, "service": service or labels.get("service", ""), "type": kind},
                notes={
                    "alert_id": alert.text("alert_id", "id"),
                    "runbook_url": alert.text("runbook_url"),
                    "affected_services": ", ".join(services),
                },
                starts=0.0 if ended else at,
                ends=at if ended else 0.0,
                url=alert.text("url"),
            )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        first = first_of(body, "alerts")
        return "alert_id" in first and (first.get("source") == cls.name or "affected_services" in first)


def first_of(body: object, name: str) -> dict[str, object]:
    """The first of several, as it is, to know it by; nothing when it is no object."""
    if isinstance(body, dict) and isinstance(body.get(name), list):
        body = body[name]
    if isinstance(body, list) and body:
        body = body[0]
    return body if isinstance(body, dict) else {}
