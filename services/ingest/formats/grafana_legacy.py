"""What the alert rules of Grafana before version 8 post. A part of grafana.py, which takes both at one path."""

from __future__ import annotations

from collections.abc import Iterable

from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat

_STATES = ("alerting", "ok", "no_data", "paused", "pending")


class GrafanaLegacy(WebhookFormat):
    name = "grafana"
    path = "/v1/events/grafana"
    summary = "Grafana's rules of before version 8"
    severities = {"alerting": "P1", "no_data": "P3", "pending": "P3"}

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        return self.each([(body, "")], self._rule)

    def _rule(self, rule: Fields) -> Draft:
        state = rule.one_of("state", _STATES)
        tags = rule.pairs("tags")
        matches = enumerate(rule.objects("evalMatches"))
        return self.alert(
            rule.need("ruleName", "title"),
            tags.get("service") or tags.get("app", ""),
            title=rule.text("title", "ruleName"),
            text=rule.text("message"),
            severity=tags.get("severity") or state,
            resolved=state in ("ok", "paused"),
            labels={"rule_id": rule.text("ruleId"), "dashboard_id": rule.text("dashboardId"), **tags},
            # They differ from one message to the next.
            notes={f"value.{each.text('metric') or place}": each.text("value") for place, each in matches},
            url=rule.text("ruleUrl"),
        )


def is_legacy(body: object) -> bool:
    return isinstance(body, dict) and "ruleName" in body and "state" in body
