"""LLM-Shield's SecurityIncident as JSON: one, several, or under "incidents". By gRPC the messages themselves (proto.py)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from services.ingest.formats.format import Request, Shared
from services.ingest.formats.llm_sentinel import first_of
from services.ingest.formats.proto import PROTO, ProtoReader, in_order
from services.ingest.formats.reading import Reading
from services.ingest.formats.values import Fields, text_of
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, several

if TYPE_CHECKING:
    from services.proto.incident_pb2 import SecurityIncident

SEVERITIES = {"critical": "P0", "high": "P1", "medium": "P2", "low": "P3"}
#: States of mitigation after which it is over. One that is contained is not.
OVER = frozenset(
    {"mitigated", "resolved", "closed", "remediated", "falsepositive", "false_positive", "dismissed"}
)
#: Of an asset, what names the service it belongs to, and what names itself.
_ASSET_NAMES = ("service", "name", "hostname", "resource", "id", "asset_id", "arn")
#: Indicators shown of an incident.
SHOWN_MAX = 20
#: Of a list of assets or indicators no more is looked at: 1 MiB may hold 300,000 empty ones.
LOOKED_AT_MAX = 1000
#: The enums of the protocol, as JSON has them.
THREATS = {1: "MaliciousAccess", 2: "DataExfiltration", 3: "PolicyViolation"}
LEVELS = {1: "Critical", 2: "High", 3: "Medium", 4: "Low"}
STATES = {1: "None", 2: "InProgress", 3: "Mitigated", 4: "Failed"}


class LlmShieldFormat(WebhookFormat):
    name = "llm-shield"
    path = "/v1/events/llm-shield"
    summary = "LLM-Shield's SecurityIncident"
    shape = "id, threat_type, severity, affected_assets, indicators, mitigation_status"
    severities = SEVERITIES

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._messages = ProtoReader(self, _kind, values_of, self._incident, "id")

    def steps(self, request: Request) -> Generator[None, None, Reading]:
        if request.content_type == PROTO:
            return self._messages.steps(request)
        return super().steps(request)

    def keeps_items(self, request: Request) -> bool:
        return request.content_type == PROTO

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        return self.each(several(body, "incidents"), self._incident)

    def _incident(self, incident: Fields) -> Iterator[Draft]:
        identity, threat = incident.need("id"), incident.need("threat_type")
        incident.one_of("severity", SEVERITIES)
        status, at = _word(incident.get("mitigation_status")), incident.time("timestamp")
        ended = status.lower().replace(" ", "_") in OVER
        context = incident.pairs("context") if isinstance(incident.get("context"), dict) else {}
        assets = _named(incident, "affected_assets", _ASSET_NAMES)
        indicators = _named(incident, "indicators", ("value", "pattern", "ttp", "name", "id", "type"))
        where = assets[0] if assets else context.get("service", "")
        title = (
            incident.text("title")
            or context.get("title")
            or f"{_spaced(threat)}{f' on {where}' if where else ''}"
        )
        yield self.alert(
            threat,
            where or self.name,
            title=title,
            text=incident.text("description") or context.get("description", ""),
            severity=incident.text("severity"),
            resolved=ended,
            labels={"shield_id": identity, "category": "security"},
            notes={
                "mitigation_status": status,
                "affected_assets": ", ".join(assets[:SHOWN_MAX]),
                "indicators": ", ".join(indicators[:SHOWN_MAX]),
                **{f"context.{name}": said for name, said in context.items()},
            },
            starts=at,
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        return {"threat_type", "severity"} <= first_of(body, "incidents").keys()


def _kind() -> type[SecurityIncident]:
    # Here, as in llm_sentinel.py.
    from services.proto.incident_pb2 import SecurityIncident

    return SecurityIncident


def values_of(said: SecurityIncident) -> dict[str, object]:
    """A SecurityIncident of the protocol as the object that its JSON would be."""
    return {
        "id": said.id,
        "timestamp": said.timestamp or None,
        "threat_type": THREATS.get(said.threat_type, ""),
        "severity": LEVELS.get(said.severity, ""),
        "affected_assets": [
            {"id": each.id, "type": each.type, "name": each.name}
            for each in said.affected_assets[:LOOKED_AT_MAX]
        ],
        "indicators": [
            {"type": each.type, "value": each.value, "description": each.description}
            for each in said.indicators[:LOOKED_AT_MAX]
        ],
        "mitigation_status": STATES.get(said.mitigation_status, ""),
        "context": in_order(said.context),
        "description": said.description,
    }


def _word(value: object) -> str:
    """An enum as serde writes it: a word, or an object of one name when the variant has fields."""
    if isinstance(value, dict) and value:
        return text_of(next(iter(value)), "mitigation_status")
    return text_of(value, "mitigation_status")


def _named(incident: Fields, name: str, names: tuple[str, ...]) -> list[str]:
    found = []
    for place, each in enumerate(incident.items(name)[:LOOKED_AT_MAX]):
        path = f"{name}[{place}]"
        found.append(Fields(each, path).text(*names) if isinstance(each, dict) else text_of(each, path))
    return [each for each in found if each]


def _spaced(word: str) -> str:
    """MaliciousAccess as a person writes it."""
    return "".join(
        f" {letter}" if letter.isupper() and place else letter for place, letter in enumerate(word)
    )
