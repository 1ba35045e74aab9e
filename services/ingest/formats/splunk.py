"""Splunk: the webhook action of alerts in Splunk Enterprise and Cloud, which have no end, and detectors of Splunk Observability."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat

OVER = frozenset({"ok", "manually resolved", "stopped", "resolved", "cleared"})


class SplunkFormat(WebhookFormat):
    name = "splunk"
    path = "/v1/events/splunk"
    summary = "Splunk's webhook alert action, and Splunk Observability's detectors"
    shape = "sid, search_name and result; or incidentId, severity and originatingMetric"
    severities = {
        **{
            "critical": "P1",
            "major": "P1",
            "high": "P1",
            "minor": "P2",
            "medium": "P2",
            "warning": "P3",
            "low": "P3",
        },
        **{"info": "P4", "informational": "P4", "": "P2"},
        # alert.severity of a saved search.
        **{"6": "P0", "5": "P1", "4": "P1", "3": "P2", "2": "P4", "1": "P4"},
    }

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        read = self._detector if "incidentId" in Fields(body) else self._search
        return self.each([(body, "")], read)

    def _search(self, alert: Fields) -> Draft:
        name = alert.need("search_name")
        result = alert.pairs("result") if isinstance(alert.get("result"), dict) else {}
        host = result.get("host", "")
        return self.alert(
            name,
            result.get("service") or result.get("app") or host or alert.text("app"),
            title=result.get("title") or result.get("message") or name,
            text=result.get("_raw") or result.get("description", ""),
            severity=result.get("severity") or result.get("urgency") or alert.text("severity"),
            labels={"host": host, "app": alert.text("app")},
            notes={"sid": alert.text("sid"), "owner": alert.text("owner"), **result},
            starts=0.0,
            url=alert.text("results_link"),
        )

    def _detector(self, alert: Fields) -> Draft:
        status = alert.text("statusExtended", "status").lower()
        name = alert.text("rule", "inputs.rule") or alert.need("detector", "originatingMetric")
        dimensions = alert.pairs("dimensions") if isinstance(alert.get("dimensions"), dict) else {}
        over, at = status in OVER, alert.time("timestamp")
        return self.alert(
            name,
            dimensions.get("service")
            or dimensions.get("sf_service")
            or dimensions.get("host")
            or alert.text("originatingMetric"),
            title=alert.text("messageTitle", "inputs.messageTitle") or name,
            text=alert.text("messageBody", "description", "inputs.description"),
            severity=alert.need("severity"),
            resolved=over,
            labels={"incident": alert.text("incidentId"), "detector": alert.text("detector")},
            notes={
                "status": status,
                "condition": alert.text("detectOnCondition"),
                "runbook_url": alert.text("runbookUrl"),
                **dimensions,
            },
            starts=0.0 if over else at,
            ends=at if over else 0.0,
            url=alert.text("detectorUrl"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        if not isinstance(body, dict):
            return False
        return {"sid", "search_name"} <= body.keys() or {
            "incidentId",
            "severity",
            "originatingMetric",
        } <= body.keys()
