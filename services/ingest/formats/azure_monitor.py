"""Azure Monitor's action groups: the common alert schema, and the schemas of metric, classic and activity log alerts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat

FIRED, OVER = (
    ("fired", "activated", "active", "succeeded", "failed", "started"),
    ("resolved", "deactivated", "ok"),
)


class AzureMonitorFormat(WebhookFormat):
    name = "azure-monitor"
    path = "/v1/events/azure-monitor"
    summary = "Azure Monitor's action groups"
    shape = "schemaId and data; or status and context with subscriptionId"
    severities = {
        **{f"sev{level}": f"P{level}" for level in range(5)},
        **{f"{level}": f"P{level}" for level in range(5)},
        "": "P2",
    }

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        alert = Fields(body)
        data = alert.inner("data")
        if "essentials" in data:
            return self.each([(data.values, "data")], self._common)
        if isinstance(data.get("context"), dict) and "activityLog" in data.inner("context"):
            return self.each([(data.values, "data")], self._activity)
        return self.each([(data.values, "data") if "context" in data else (body, "")], self._metric)

    def _common(self, data: Fields) -> Draft:
        about = data.inner("essentials")
        condition = about.one_of("monitorCondition", (*FIRED, *OVER))
        targets = [*about.texts("configurationItems"), *map(_last, about.texts("alertTargetIDs"))]
        rule, over = about.need("alertRule"), condition in OVER
        context = data.pairs("alertContext") if isinstance(data.get("alertContext"), dict) else {}
        return self.alert(
            rule,
            next(iter(targets), ""),
            title=f"{rule}: {about.text('description') or about.text('signalType')}".rstrip(": "),
            text=about.text("description"),
            severity=about.text("severity"),
            resolved=over,
            labels={
                "target": next(iter(about.texts("alertTargetIDs")), ""),
                "resource_group": about.text("targetResourceGroup"),
                "alert_id": about.text("originAlertId"),
            },
            notes={
                "signal": about.text("signalType"),
                "monitoring_service": about.text("monitoringService"),
                **context,
            },
            starts=about.time("firedDateTime"),
            ends=about.time("resolvedDateTime") if over else 0.0,
            url=about.text("investigationLink"),
        )

    def _metric(self, alert: Fields) -> Draft:
        about = alert.need_inner("context")
        status = alert.one_of("status", (*FIRED, *OVER))
        rule, over = about.need("name"), status in OVER
        at = about.time("timestamp")
        return self.alert(
            rule,
            about.text("resourceName") or _last(about.text("resourceId")),
            title=f"{rule}: {about.text('description') or status}",
            text=about.text("description"),
            severity=about.text("severity"),
            resolved=over,
            labels={"target": about.text("resourceId"), "resource_group": about.text("resourceGroupName")},
            notes={
                "condition_type": about.text("conditionType"),
                **about.pairs("condition"),
                **alert.pairs("properties"),
            },
            starts=0.0 if over else at,
            ends=at if over else 0.0,
            url=about.text("portalLink"),
        )

    def _activity(self, data: Fields) -> Draft:
        log = data.need_inner("context").need_inner("activityLog")
        status = data.one_of("status", (*FIRED, *OVER))
        name = log.need("operationName", "eventSource")
        return self.alert(
            name,
            _last(log.text("resourceId")) or log.text("resourceGroupName"),
            title=log.text("properties.title") or f"{name}: {log.text('status')}",
            text=log.text("description") or log.text("properties.communication"),
            severity=log.text("level").lower(),
            resolved=status in OVER or log.text("status").lower() == "resolved",
            labels={"target": log.text("resourceId"), "tracking_id": log.text("properties.trackingId")},
            notes={
                "status": log.text("status"),
                "caller": log.text("caller"),
                "correlation_id": log.text("correlationId"),
            },
            starts=log.time("eventTimestamp"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        if not isinstance(body, dict):
            return False
        schema, context = str(body.get("schemaId", "")).lower(), body.get("context")
        return schema.startswith(("azuremonitor", "microsoft.insights")) or (
            "status" in body and isinstance(context, dict) and "subscriptionId" in context
        )


def _last(resource_id: str) -> str:
    """What a resource is called, by its id."""
    return resource_id.rstrip("/").rpartition("/")[2]
