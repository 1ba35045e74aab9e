"""Uptime Kuma's webhook notifications."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from models.errors import Malformed
from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat

#: heartbeat.status.
DOWN, UP, PENDING, MAINTENANCE = "0", "1", "2", "3"
_STATES = {DOWN: "down", UP: "up", PENDING: "pending", MAINTENANCE: "maintenance"}


class UptimeKumaFormat(WebhookFormat):
    name = "uptime-kuma"
    path = "/v1/events/uptime-kuma"
    summary = "Uptime Kuma's webhooks"
    shape = "heartbeat and monitor"
    severities = {"down": "P1", "pending": "P3"}

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        sent = Fields(body)
        if "monitor" not in sent and "heartbeat" not in sent and "msg" in sent:
            # "Test" in Uptime Kuma: somebody asks whether it arrives.
            return []
        return self.each([(body, "")], self._beat)

    def _beat(self, sent: Fields) -> Draft:
        monitor, beat = sent.need_inner("monitor"), sent.need_inner("heartbeat")
        status = beat.text("status")
        if status not in _STATES:
            raise Malformed(
                f"heartbeat.status: expected 0 (down), 1 (up), 2 or 3, got {status[:40] or 'nothing'}"
            )
        over = status in (UP, MAINTENANCE)
        state, name, at = _STATES[status], monitor.need("name"), beat.time("time")
        tags = {each.text("name"): each.text("value") for each in monitor.objects("tags")}
        return self.alert(
            "MonitorDown",
            tags.get("service") or name,
            title=f"{name} is {state}",
            text=beat.text("msg") or sent.text("msg"),
            severity=tags.get("severity") or state,
            resolved=over,
            labels={
                "monitor": name,
                "monitor_id": beat.text("monitorID", "monitor_id") or monitor.text("id"),
            },
            notes={
                "kind": monitor.text("type"),
                "target": monitor.text("url", "hostname"),
                "ping_ms": beat.text("ping"),
                **tags,
            },
            starts=0.0 if over else at,
            ends=at if over else 0.0,
            url=monitor.text("url") if monitor.text("url") != "https://" else "",
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        return isinstance(body, dict) and {"heartbeat", "monitor"} <= body.keys()
