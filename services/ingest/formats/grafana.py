"""Grafana's webhook contact point: unified alerting, which is Alertmanager's group with more in it. The rules of before Grafana 8 are
grafana_legacy.py, which this hands them to.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping

import msgspec

from models.alerts.alert import Content
from models.errors import Malformed
from services.ingest.formats.alertmanager_webhook import (
    AlertmanagerWebhookFormat,
    Posted,
    is_grafanas,
    is_group,
)
from services.ingest.formats.fields import URL_MAX_BYTES, read_string
from services.ingest.formats.format import Request, Shared
from services.ingest.formats.grafana_legacy import GrafanaLegacy, is_legacy
from services.ingest.formats.items import UNREADABLE
from services.ingest.formats.json_text import json_error
from services.ingest.formats.reading import Reading

#: What people should see of an alert beside its annotations.
_LINKS = ("dashboardURL", "panelURL", "silenceURL", "imageURL", "valueString")
_values_decoder = msgspec.json.Decoder(dict[str, float | str | None] | None)


class GrafanaFormat(AlertmanagerWebhookFormat):
    name = "grafana"
    path = "/v1/events/grafana"
    summary = "Grafana's webhook contact point (unified alerting, and legacy rules)"
    shape = "alerts and orgId, or values, valueString, dashboardURL, panelURL, silenceURL in an alert; or ruleName and state"
    severities = GrafanaLegacy.severities

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._legacy = GrafanaLegacy(shared)

    def steps(self, request: Request) -> Generator[None, None, Reading]:
        # A unified group has no rule's name at its top.
        if b'"ruleName"' in request.body and (
            self._legacy.knows(request) or is_legacy(self._legacy.read_ahead(request))
        ):
            return (yield from self._legacy.steps(request))
        return (yield from super().steps(request))

    def more(self, alert: Posted) -> tuple[msgspec.Raw, ...]:
        return (
            alert.dashboardURL,
            alert.panelURL,
            alert.silenceURL,
            alert.imageURL,
            alert.valueString,
            alert.values,
        )

    def content(self, alert: Posted) -> Content:
        content = super().content(alert)
        found = {name: read_string(bytes(getattr(alert, name)), name, URL_MAX_BYTES) for name in _LINKS}
        try:
            values = _values_decoder.decode(alert.values) if alert.values else None
        except UNREADABLE as error:
            raise Malformed(f"values: expected an object of numbers: {json_error(error)}") from None
        found["values"] = ", ".join(f"{name}={value}" for name, value in (values or {}).items())
        content.annotations.update({name: said for name, said in found.items() if said})
        return content

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        return (is_group(body) and is_grafanas(body)) or is_legacy(body)
