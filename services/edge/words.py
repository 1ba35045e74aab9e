"""The messages of an agent's stream (services/proto/llm/incident/v1/incident.proto), and what they are here. An alert, a health state and a
result become the JSON that an agent may send instead (services/ingest/formats/llm_edge_agent.py), so that they are one series whichever
way they come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from models.edge.agent import (
    ACCEPTED,
    CONFIGURE,
    DEGRADED,
    DETAIL_MAX,
    FAILED,
    HEALTHY,
    OUTPUTS_MAX_BYTES,
    REJECTED,
    RESTART,
    ROLLBACK,
    SCALE,
    SERVICE_MAX,
    SERVICES_MAX,
    SUCCEEDED,
    UNHEALTHY,
    EdgeAction,
    check_values,
)
from models.errors import Malformed, TooLarge
from models.incidents.incident import id_text
from services.proto import incident_pb2 as pb

Json = dict[str, Any]

TYPES: Mapping[str, int] = {
    RESTART: pb.ACTION_TYPE_RESTART,
    ROLLBACK: pb.ACTION_TYPE_ROLLBACK,
    SCALE: pb.ACTION_TYPE_SCALE,
    CONFIGURE: pb.ACTION_TYPE_CONFIG_CHANGE,
}
_NAMES = {number: name for name, number in TYPES.items()}
RESULTS: Mapping[int, str] = {
    pb.ACTION_STATUS_ACCEPTED: ACCEPTED,
    pb.ACTION_STATUS_SUCCEEDED: SUCCEEDED,
    pb.ACTION_STATUS_FAILED: FAILED,
    pb.ACTION_STATUS_REJECTED: REJECTED,
}
HEALTH: Mapping[int, str] = {
    pb.HEALTH_STATUS_HEALTHY: HEALTHY,
    pb.HEALTH_STATUS_DEGRADED: DEGRADED,
    pb.HEALTH_STATUS_UNHEALTHY: UNHEALTHY,
}
#: Below it a timestamp is in seconds, else in milliseconds.
SECONDS_BELOW = 1e11
#: The name of an alert that has neither a label `alertname` nor a type.
UNNAMED = "EdgeAlert"


def read(message: bytes) -> pb.EdgeToIncidentMsg:
    """Raises Malformed."""
    try:
        found = pb.EdgeToIncidentMsg.FromString(message)
    except DecodeError:
        raise Malformed("expected an EdgeToIncidentMsg") from None
    if found.WhichOneof("message") is None:
        raise Malformed("message: expected alert, action_result or health")
    return found


def agent_in(message: pb.EdgeToIncidentMsg) -> str:
    """The agent that a message names, "" when it names none."""
    match message.WhichOneof("message"):
        case "alert":
            return message.alert.agent_id
        case "action_result":
            return message.action_result.agent_id
        case _:
            return message.health.agent_id


def seconds(timestamp: int) -> float:
    """A timestamp of the protocol in seconds since the epoch; 0.0 when none is given."""
    return max(0.0, timestamp if timestamp < SECONDS_BELOW else timestamp / 1000.0)


def alert_as_json(agent: str, alert: pb.AlertMessage) -> list[Json]:
    """One for each service that it affects."""
    labels = dict(alert.labels)
    services = list(alert.affected_services) or [labels.get("service", "")]
    kind = "" if not alert.type else pb.AlertType.Name(alert.type).removeprefix("ALERT_TYPE_").lower()
    level = "" if not alert.severity else pb.Severity.Name(alert.severity).removeprefix("SEVERITY_")
    return [
        {
            "alert": {
                "agent_id": agent,
                "alert_id": alert.alert_id,
                "type": kind or UNNAMED,
                "severity": level or labels.get("severity") or "unspecified",
                "description": alert.description or labels.get("alertname", "") or kind or UNNAMED,
                "service": service,
                "labels": labels,
                "metrics": dict(alert.annotations),
                "runbook_url": alert.runbook_url,
                "timestamp": seconds(alert.timestamp) or None,
                "status": "resolved" if alert.resolved else "firing",
            }
        }
        for service in services
    ]


def health_as_json(agent: str, status: str, detail: str, metrics: Mapping[str, str], at: float) -> Json:
    return {
        "health": {
            "agent_id": agent,
            "status": status,
            "message": detail,
            "metrics": dict(metrics),
            "timestamp": at or None,
        }
    }


def result_as_json(agent: str, action: EdgeAction, status: str, detail: str) -> Json:
    return {
        "action_result": {
            "agent_id": agent,
            "action_id": action.id,
            "incident_id": id_text(action.incident_id),
            "action": action.type,
            "target_service": action.service,
            "status": status,
            "detail": detail,
        }
    }


def status_of(health: pb.EdgeHealthUpdate) -> str:
    """Raises Malformed."""
    if health.status not in HEALTH:
        raise Malformed("health.status: expected HEALTHY, DEGRADED or UNHEALTHY")
    return HEALTH[health.status]


def services_of(health: pb.EdgeHealthUpdate) -> list[str]:
    """The services that an agent names, each once. Raises TooLarge."""
    if len(health.services) > SERVICES_MAX:
        raise TooLarge(f"health.services: expected at most {SERVICES_MAX}, not {len(health.services)}")
    if any(len(each) > SERVICE_MAX for each in health.services):
        raise TooLarge(f"health.services: expected at most {SERVICE_MAX} characters of each")
    return list(dict.fromkeys(health.services))


def can_do_of(health: pb.EdgeHealthUpdate) -> list[str]:
    """What it can do, by our names. What a newer agent can do, and we do not know, is left out."""
    return list(dict.fromkeys(_NAMES[each] for each in health.can_do if each in _NAMES))


def result_of(result: pb.ActionResult) -> tuple[str, str, dict[str, str]]:
    """Status, detail and outputs. What is too long is cut: that it was done matters more. Raises Malformed."""
    if result.status not in RESULTS:
        raise Malformed("action_result.status: expected ACCEPTED, SUCCEEDED, FAILED or REJECTED")
    detail = result.detail[:DETAIL_MAX]
    outputs = dict(result.outputs)
    try:
        check_values("action_result.outputs", outputs, OUTPUTS_MAX_BYTES)
    except TooLarge:
        outputs = {}
        detail = f"{detail[: DETAIL_MAX - 100]} (its outputs are left out: over {OUTPUTS_MAX_BYTES} bytes)"
    return RESULTS[result.status], detail.strip(), outputs


def action_message(action: EdgeAction, now: float) -> bytes:
    """`timeout_seconds` is what is left of its time."""
    return _written(
        pb.IncidentToEdgeMsg(
            action=pb.RemediationAction(
                incident_id=id_text(action.incident_id),
                type=TYPES[action.type],  # type: ignore[arg-type]
                target_service=action.service,
                parameters=action.parameters,
                timeout_seconds=max(1, math.floor(action.deadline - now)),
                action_id=action.id,
            )
        )
    )


def config_message(version: int, values: Mapping[str, str]) -> bytes:
    return _written(pb.IncidentToEdgeMsg(config=pb.ConfigUpdate(version=version, values=values)))


def check_message(identity: str, service: str) -> bytes:
    check = pb.HealthCheckRequest(request_id=identity, target_service=service)
    return _written(pb.IncidentToEdgeMsg(health_check=check))


def ack_message(ack: pb.AlertAck) -> bytes:
    return _written(pb.IncidentToEdgeMsg(alert_ack=ack))


def _written(message: pb.IncidentToEdgeMsg) -> bytes:
    return message.SerializeToString()
