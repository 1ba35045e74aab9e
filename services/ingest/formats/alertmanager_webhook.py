"""Alertmanager's webhook (version 4, and what older ones sent), for who has an Alertmanager already. Labels stay as they are, so an
alert is the same one whether Prometheus sends it here or Alertmanager does.

Its groups are large, so an alert is taken apart into raw slices as in alertmanager.py, and one that was met before is not read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from models.alerts.alert import Content
from models.errors import Malformed, TooLarge
from services.ingest.formats.answers import Answer, Refusal
from services.ingest.formats.fields import (
    ANNOTATION_VALUE_MAX_BYTES,
    URL_MAX_BYTES,
    read_pairs,
    read_string,
)
from services.ingest.formats.format import Request
from services.ingest.formats.items import UNREADABLE, Taken
from services.ingest.formats.json_arrays import array_slices
from services.ingest.formats.json_format import JsonFormat
from services.ingest.formats.json_text import json_error, raw_elements, without_mark
from services.ingest.formats.webhook import SEVERITY

#: Ten thousand alerts of Prometheus' size.
GROUP_MAX_BYTES = 8 * 1024 * 1024
#: What only Grafana puts into an alert.
GRAFANA = frozenset({"silenceURL", "dashboardURL", "panelURL", "values", "valueString"})
_NONE = msgspec.Raw()


class Posted(msgspec.Struct, gc=False):
    """One alert as sent, not looked into yet. Those from `dashboardURL` on are Grafana's."""

    status: msgspec.Raw = _NONE
    labels: msgspec.Raw = _NONE
    annotations: msgspec.Raw = _NONE
    startsAt: msgspec.Raw = _NONE  # noqa: N815 - the wire's own spelling
    endsAt: msgspec.Raw = _NONE  # noqa: N815
    generatorURL: msgspec.Raw = _NONE  # noqa: N815
    dashboardURL: msgspec.Raw = _NONE  # noqa: N815
    panelURL: msgspec.Raw = _NONE  # noqa: N815
    silenceURL: msgspec.Raw = _NONE  # noqa: N815
    imageURL: msgspec.Raw = _NONE  # noqa: N815
    valueString: msgspec.Raw = _NONE  # noqa: N815
    values: msgspec.Raw = _NONE


class Group(msgspec.Struct, gc=False):
    alerts: msgspec.Raw = _NONE
    status: msgspec.Raw = _NONE


_STATUSES = {b'"firing"': False, b'"resolved"': True}
_group_decoder = msgspec.json.Decoder(Group)
_all_decoder = msgspec.json.Decoder(list[Posted])
_one_decoder = msgspec.json.Decoder(Posted)


class AlertmanagerWebhookFormat(JsonFormat[Posted | msgspec.Raw, Posted]):
    """A group of alerts, each with a status of its own."""

    name = "alertmanager-webhook"
    path = "/v1/events/alertmanager-webhook"
    summary = "Alertmanager's webhook, version 4"
    shape = "alerts and one of groupKey, receiver, groupLabels, commonLabels"

    def refused(self, refusal: Refusal) -> Answer:
        # Alertmanager drops a notification that a webhook answers with 429, and sends again after 503.
        return super().refused(
            msgspec.structs.replace(refusal, status=503) if refusal.status == 429 else refusal
        )

    def keeps_items(self, request: Request) -> bool:
        return True

    def split(self, request: Request) -> Iterator[list[Posted | msgspec.Raw]]:
        if len(request.body) > GROUP_MAX_BYTES:
            raise TooLarge(f"{len(request.body)} bytes in one request, at most {GROUP_MAX_BYTES} are allowed")
        group = _group_decoder.decode(without_mark(request.body))
        alerts = bytes(group.alerts)
        if request.is_letter and not alerts:
            # One alert of a group.
            group, alerts = Group(), b"[%b]" % without_mark(request.body)
        if not alerts.startswith(b"["):
            raise Malformed("alerts: expected an array of alerts, as Alertmanager's webhook has it")
        for slice_ in array_slices(alerts, _elements):
            if group.status:
                for each in slice_:
                    # An alert that says nothing is as its group is.
                    if isinstance(each, Posted) and not each.status:
                        each.status = group.status
            yield slice_

    def take(self, item: Posted | msgspec.Raw) -> Taken[Posted]:
        alert = item if isinstance(item, Posted) else _decode(item)
        is_resolved = _STATUSES.get(bytes(alert.status) or b'"firing"')
        if is_resolved is None:
            raise Malformed("status: expected firing or resolved")
        raws = (
            self.name.encode(),
            alert.labels,
            alert.annotations,
            alert.startsAt,
            alert.generatorURL,
            *self.more(alert),
        )
        return alert, raws, bytes(alert.endsAt) if is_resolved else b"", is_resolved

    def more(self, alert: Posted) -> tuple[msgspec.Raw, ...]:
        """What else an alert says, by which it is known again."""
        return ()

    def content(self, alert: Posted) -> Content:
        starts = self.shared.remembered.start(bytes(alert.startsAt), "startsAt")
        labels = self.shared.remembered.labels(bytes(alert.labels))
        if not labels:
            raise Malformed("labels: expected at least one label")
        annotations = read_pairs(bytes(alert.annotations), "annotations", ANNOTATION_VALUE_MAX_BYTES)
        # The classifier knows what the labels of Prometheus' world mean; only who says otherwise overrules it.
        given = self.shared.settings.formats.severities.get(self.name)
        if given and (level := given.get(labels.get("severity", "").lower())):
            annotations[SEVERITY] = level
        url = read_string(bytes(alert.generatorURL), "generatorURL", URL_MAX_BYTES)
        return Content(labels, annotations, starts, url, self.name)

    def said_end(self, alert: Posted) -> bytes:
        return bytes(alert.status) + bytes(alert.endsAt)

    def written(self, item: Posted | msgspec.Raw) -> bytes:
        if isinstance(item, msgspec.Raw):
            return bytes(item)
        named = zip(
            Posted.__struct_fields__, (getattr(item, name) for name in Posted.__struct_fields__), strict=True
        )
        return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), bytes(raw)) for name, raw in named if raw)

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        return is_group(body) and not is_grafanas(body)


def _elements(array: bytes) -> list[Posted | msgspec.Raw]:
    """The elements of a JSON array, left as they are when one is of a wrong shape. Raises what msgspec does for no JSON."""
    try:
        return [*_all_decoder.decode(array)]
    except UNREADABLE:
        return [*raw_elements(array)]


def _decode(raw: msgspec.Raw) -> Posted:
    try:
        return _one_decoder.decode(raw)
    except UNREADABLE as error:
        raise Malformed(f"an alert: {json_error(error)}") from None


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
