"""Grafana's webhook contact point: unified alerting (Alertmanager's group with more in it), and the rules of before Grafana 8."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.ingest.formats.alertmanager_webhook import AlertmanagerWebhookFormat, is_grafanas, is_group
from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item

#: Of an alert, what people should see beside its annotations.
_LINKS = ("dashboardURL", "panelURL", "silenceURL", "imageURL", "valueString")
_LEGACY_STATES = ("alerting", "ok", "no_data", "paused", "pending")


class GrafanaFormat(AlertmanagerWebhookFormat):
    name = "grafana"
    path = "/v1/events/grafana"
    summary = "Grafana's webhook contact point (unified alerting, and legacy rules)"
    shape = "alerts and orgId, or values, valueString, dashboardURL, panelURL, silenceURL in an alert; or ruleName and state"
    severities = {"alerting": "P1", "no_data": "P3", "pending": "P3"}

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        if is_legacy(body):
            return self.each([(body, "")], self._legacy)
        return super().drafts(body, request)

    def one(self, alert: Fields, status: str) -> Draft:
        draft = super().one(alert, status)
        links = {name: alert.text(name) for name in _LINKS}
        values = alert.pairs("values") if isinstance(alert.get("values"), dict) else {}
        links["values"] = ", ".join(f"{name}={value}" for name, value in values.items())
        draft.annotations |= {name: said for name, said in links.items() if said}
        return draft

    def _legacy(self, rule: Fields) -> Draft:
        state = rule.one_of("state", _LEGACY_STATES)
        tags = rule.pairs("tags")
        return self.alert(
            rule.need("ruleName", "title"),
            tags.get("service") or tags.get("app", ""),
            title=rule.text("title", "ruleName"),
            text=rule.text("message"),
            severity=tags.get("severity") or state,
            resolved=state in ("ok", "paused"),
            labels={"rule_id": rule.text("ruleId"), "dashboard_id": rule.text("dashboardId"), **tags},
            notes=_matches(rule),
            url=rule.text("ruleUrl"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        return (is_group(body) and is_grafanas(body)) or is_legacy(body)


def is_legacy(body: object) -> bool:
    return isinstance(body, dict) and "ruleName" in body and "state" in body


def _matches(rule: Fields) -> dict[str, str]:
    """What a rule found, which differs from one message to the next."""
    return {
        f"value.{each.text('metric') or place}": each.text("value")
        for place, each in enumerate(rule.objects("evalMatches"))
    }
