"""PagerDuty's Events API v1, which old plugins still speak."""

from __future__ import annotations

from collections.abc import Mapping

from services.ingest.formats.pagerduty import SEVERITIES, PagerDutyFormat, details_of
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, stable_name


class PagerDutyV1Format(PagerDutyFormat):
    """Events API v1, which old plugins still speak."""

    name = "pagerduty-v1"
    path = "/generic/2010-04-15/create_event.json"
    summary = "PagerDuty's Events API v1"
    shape = "service_key and event_type"
    severities = {**SEVERITIES, "": "P2"}
    fields = ("service_key", "incident_key", "event_type")

    def _triggered(self, event: Fields, key: Mapping[str, str]) -> Draft:
        title, details = event.need("description"), details_of(event, "details")
        return self.alert(
            stable_name(title),
            details.get("service") or details.get("host") or event.text("client"),
            title=title,
            text=details.pop("description", ""),
            severity=details.get("severity", ""),
            labels=dict(key),
            notes={"client": event.text("client"), **details},
            url=event.text("client_url"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        return isinstance(body, dict) and {"service_key", "event_type"} <= body.keys()
