"""Alertmanager's webhook (version 4, and what older ones sent), for who has an Alertmanager already. Labels stay as they are, so an
alert is the same one whether Prometheus sends it here or Alertmanager does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from models.errors import Malformed
from services.ingest.formats.fields import (
    ANNOTATION_VALUE_MAX_BYTES,
    LABEL_VALUE_MAX_BYTES,
    LABELS_MAX,
    URL_MAX_BYTES,
)
from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import SEVERITY, Draft, Item, WebhookFormat

STATUSES = ("firing", "resolved")
#: What only Grafana puts into an alert.
GRAFANA = frozenset({"silenceURL", "dashboardURL", "panelURL", "values", "valueString"})
#: 64 alerts with long descriptions are half a megabyte.
GROUP_MAX_BYTES = 8 * 1024 * 1024


class AlertmanagerWebhookFormat(WebhookFormat):
    """A group of alerts, each with a status of its own."""

    name = "alertmanager-webhook"
    path = "/v1/events/alertmanager-webhook"
    summary = "Alertmanager's webhook, version 4"
    shape = "alerts and one of groupKey, receiver, groupLabels, commonLabels"
    max_bytes = GROUP_MAX_BYTES

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        group = Fields(body)
        if not isinstance(group.get("alerts"), list):
            raise Malformed("alerts: expected an array of alerts, as Alertmanager's webhook has it")
        status = group.text("status") or "firing"
        return self.each(group.members("alerts"), lambda alert: self.one(alert, status))

    def one(self, alert: Fields, status: str) -> Draft:
        status = alert.one_of("status", STATUSES, status)
        labels = texts(alert, "labels", LABEL_VALUE_MAX_BYTES)
        if not labels:
            raise Malformed(f"{alert.path('labels')}: expected at least one label")
        annotations = texts(alert, "annotations", ANNOTATION_VALUE_MAX_BYTES)
        given = self.shared.settings.formats.severities.get(self.name)
        # The classifier knows what the labels of Prometheus' world mean; only who says otherwise overrules it.
        if given and status == "firing" and (level := given.get(labels.get("severity", "").lower())):
            annotations[SEVERITY] = level
        return Draft(
            labels,
            annotations,
            alert.time("startsAt"),
            alert.time("endsAt") if status == "resolved" else 0.0,
            alert.text("generatorURL")[:URL_MAX_BYTES],
            status == "resolved",
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        return is_group(body) and not is_grafanas(body)


def texts(alert: Fields, name: str, value_max_bytes: int) -> dict[str, str]:
    """Labels or annotations."""
    found = alert.inner(name)
    if len(found.values) > LABELS_MAX:
        raise Malformed(f"{alert.path(name)}: {len(found.values)} entries, at most {LABELS_MAX} are allowed")
    pairs = {each: found.text(each) for each in found.values if each}
    for each, value in pairs.items():
        if len(value) * 4 > value_max_bytes and len(value.encode()) > value_max_bytes:
            raise Malformed(f"{found.path(each)}: over {value_max_bytes} bytes")
    return {each: value for each, value in pairs.items() if value}


def is_group(body: object) -> bool:
    return (
        isinstance(body, dict)
        and isinstance(body.get("alerts"), list)
        and bool({"groupKey", "receiver", "commonLabels", "groupLabels"} & body.keys())
    )


def is_grafanas(body: object) -> bool:
    """Whether a group is Grafana's: of its own fields one is enough."""
    if not isinstance(body, dict):
        return False
    alerts = [each for each in body.get("alerts", []) if isinstance(each, dict)]
    return "orgId" in body or any(GRAFANA & each.keys() for each in alerts)
