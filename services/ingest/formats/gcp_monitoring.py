"""Google Cloud Monitoring's webhook notification channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat

#: Labels of a monitored resource that say which service it is, best first.
_SERVICES = (
    "service",
    "service_name",
    "app",
    "container_name",
    "cluster_name",
    "module_id",
    "database_id",
    "instance_id",
)


class GcpMonitoringFormat(WebhookFormat):
    name = "gcp-monitoring"
    path = "/v1/events/gcp-monitoring"
    summary = "Google Cloud Monitoring's webhooks"
    shape = "incident with incident_id and state"
    severities = {"critical": "P1", "error": "P2", "warning": "P3", "no severity": "P2", "": "P2"}

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        Fields(body).need_inner("incident")
        return self.each([(body, "")], self._incident)

    def _incident(self, body: Fields) -> Draft:
        incident = body.need_inner("incident")
        over = incident.one_of("state", ("open", "closed", "acknowledged")) == "closed"
        resource = incident.pairs("resource.labels")
        own = incident.pairs("policy_user_labels")
        # An object since version 1.2; a text before, and in the channel's test.
        told = incident.get("documentation")
        help_ = Fields(
            {"content": told} if isinstance(told, str) else told or {}, incident.path("documentation")
        )
        name = incident.need("condition_name", "policy_name", "condition.displayName")
        service = (
            own.get("service")
            or incident.text("resource_display_name")
            or next((resource[each] for each in _SERVICES if resource.get(each)), "")
        )
        return self.alert(
            name,
            service or incident.text("resource_name", "resource_id"),
            title=incident.text("summary") or help_.text("subject") or name,
            text=help_.text("content"),
            severity=incident.text("severity", "metadata.system_labels.severity"),
            resolved=over,
            labels={
                "incident": incident.need("incident_id"),
                "policy": incident.text("policy_name"),
                "project": incident.text("scoping_project_id"),
            },
            notes={
                "resource": incident.text("resource_name", "resource_id"),
                "metric": incident.text("metric.type"),
                "observed_value": incident.text("observed_value"),
                "threshold_value": incident.text("threshold_value"),
                **{f"resource.{each}": value for each, value in resource.items()},
                **own,
            },
            starts=incident.time("started_at"),
            ends=incident.time("ended_at") if over else 0.0,
            url=incident.text("url"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        incident = body.get("incident") if isinstance(body, dict) else None
        return isinstance(incident, dict) and {"incident_id", "state"} <= incident.keys()
