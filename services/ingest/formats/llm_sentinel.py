"""LLM-Sentinel's alerts as JSON: the fields of its gRPC AlertMessage, one, several, or under "alerts". Each service that it names has
an alert of its own. By gRPC the messages themselves (proto.py).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from models.errors import Malformed
from services.ingest.formats.fields import ANNOTATION_VALUE_MAX_BYTES
from services.ingest.formats.format import Request, Shared
from services.ingest.formats.proto import PROTO, SERVICES_MAX, SPREAD_MAX_BYTES, ProtoReader, in_order
from services.ingest.formats.reading import Reading
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, several

if TYPE_CHECKING:
    from services.proto.incident_pb2 import AlertMessage

LEVELS = {f"p{level}": f"P{level}" for level in range(5)}
#: Services that each of their alerts names beside its own.
SHOWN_MAX = 100
#: Of labels, what a severity is called that is none of the sender's enum.
ENDED = frozenset({"resolved", "ok", "cleared", "recovered", "closed"})
#: The enums of the protocol, as JSON has them. A number that is not known says nothing: it is of a newer sender.
TYPES = {
    1: "Infrastructure",
    2: "Application",
    3: "Security",
    4: "Data",
    5: "Performance",
    6: "Availability",
    7: "Compliance",
    8: "Unknown",
}
SEVERITIES = {1: "P0", 2: "P1", 3: "P2", 4: "P3", 5: "P4"}


class LlmSentinelFormat(WebhookFormat):
    name = "llm-sentinel"
    path = "/v1/events/llm-sentinel"
    summary = "LLM-Sentinel's AlertMessage as JSON"
    shape = 'alert_id, severity, description, and affected_services or source "llm-sentinel"'
    severities = {**LEVELS, "critical": "P0", "high": "P1", "medium": "P2", "low": "P3", "info": "P4"}

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._messages = ProtoReader(self, _kind, values_of, self._message, "alert_id")

    def steps(self, request: Request) -> Generator[None, None, Reading]:
        if request.content_type == PROTO:
            return self._messages.steps(request)
        return super().steps(request)

    def keeps_items(self, request: Request) -> bool:
        return request.content_type == PROTO

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        spread = Spread()
        return self.each(several(body, "alerts"), lambda alert: self._alert(alert, spread))

    def _message(self, alert: Fields) -> Iterator[Draft]:
        return self._alert(alert, Spread(), needs_severity=False)

    def _alert(self, alert: Fields, spread: Spread, *, needs_severity: bool = True) -> Iterator[Draft]:
        labels, kind = alert.pairs("labels"), alert.text("type", "alert_type")
        title = alert.text("title") or alert.need("description")
        ended = alert.text("status", "state").lower() in ENDED
        at = alert.time("timestamp")
        severity = alert.need("severity") if needs_severity else alert.text("severity")
        if severity and not self.level(severity):
            alert.one_of("severity", tuple(self.severities))
        name = labels.pop("alertname", "") or alert.text("name", "metric") or kind or "SentinelAlert"
        services = alert.texts("affected_services") or [labels.get("service", "")]
        labels.pop("severity", "")
        text, notes = alert.text("description"), alert.pairs("annotations")
        among = ", ".join(services[:SHOWN_MAX])
        if (more := len(services) - SHOWN_MAX) > 0:
            among += f" and {more} more"
        if len(services) > 1:
            spread.take(len(services), labels, notes, {"summary": title, "description": text, "": among})
        for service in services:
            yield self.alert(
                name,
                service,
                title=title,
                text=text,
                severity=severity,
                resolved=ended,
                labels={**labels, "service": service or labels.get("service", ""), "type": kind},
                notes={
                    **notes,
                    "alert_id": alert.text("alert_id", "id"),
                    "runbook_url": alert.text("runbook_url"),
                    "affected_services": among,
                },
                starts=0.0 if ended else at,
                ends=at if ended else 0.0,
                url=alert.text("url"),
            )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        first = first_of(body, "alerts")
        return "alert_id" in first and (first.get("source") == cls.name or "affected_services" in first)


class Spread:
    """What the alerts of a request hold together of texts that several services share."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = SPREAD_MAX_BYTES

    def take(self, services: int, *texts: Mapping[str, str]) -> None:
        """So many services have these names and texts each. Raises Malformed."""
        if services > SERVICES_MAX:
            raise Malformed(f"affected_services: {services} of them, at most {SERVICES_MAX} are allowed")
        # Characters, at least one byte each; a longer text is cut.
        most = ANNOTATION_VALUE_MAX_BYTES
        each = sum(len(name) + min(len(text), most) for pairs in texts for name, text in pairs.items())
        self._left -= each * (services - 1)
        if self._left < 0:
            raise Malformed(
                f"affected_services: {services} of them, each with {each} bytes of labels and texts, come to more than "
                f"the {SPREAD_MAX_BYTES} bytes that are allowed together"
            )


def _kind() -> type[AlertMessage]:
    # Here: its import takes a tenth of a second, and most gateways never need it.
    from services.proto.incident_pb2 import AlertMessage

    return AlertMessage


def values_of(said: AlertMessage) -> dict[str, object]:
    """An AlertMessage as the object that its JSON would be. Raises Malformed."""
    if len(said.affected_services) > SERVICES_MAX:
        raise Malformed(
            f"affected_services: {len(said.affected_services)} of them, at most {SERVICES_MAX} are allowed"
        )
    return {
        "alert_id": said.alert_id,
        "source": said.source,
        "timestamp": said.timestamp or None,
        "type": TYPES.get(said.type, ""),
        "severity": SEVERITIES.get(said.severity, ""),
        "labels": in_order(said.labels),
        "description": said.description,
        "runbook_url": said.runbook_url,
        "affected_services": [*said.affected_services],
        "status": "resolved" if said.resolved else "",
        "annotations": in_order(said.annotations),
    }


def first_of(body: object, name: str) -> dict[str, object]:
    """The first of several, as it is, to know it by; nothing when it is no object."""
    if isinstance(body, dict) and isinstance(body.get(name), list):
        body = body[name]
    if isinstance(body, list) and body:
        body = body[0]
    return body if isinstance(body, dict) else {}
