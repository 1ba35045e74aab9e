"""LLM-Edge-Agent's messages as JSON, as on its gRPC stream: an alert, the result of an action, or its health, each in an object of
that name, or bare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from services.ingest.formats.format import Request
from services.ingest.formats.llm_sentinel import ENDED, LEVELS, first_of
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, several

HEALTH = {"healthy": "", "degraded": "P2", "unhealthy": "P1", "offline": "P1", "unknown": "P3"}
_KINDS = ("alert", "action_result", "health")


class LlmEdgeAgentFormat(WebhookFormat):
    name = "llm-edge-agent"
    path = "/v1/events/llm-edge-agent"
    summary = "LLM-Edge-Agent's alerts, action results and health"
    shape = "agent_id, and alert, health or action_result"
    severities = {
        **LEVELS,
        "critical": "P0",
        "high": "P1",
        "medium": "P2",
        "low": "P3",
        **{state: level for state, level in HEALTH.items() if level},
        "failed": "P2",
    }

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        return self.each(several(body, "messages"), self._message)

    def _message(self, message: Fields) -> Iterator[Draft]:
        kind = next((each for each in _KINDS if isinstance(message.get(each), dict)), "")
        one = message.inner(kind) if kind else message
        agent = one.text("agent_id", "edge_id", "node") or message.need("agent_id")
        if kind == "health" or (not kind and "severity" not in one and "status" in one):
            yield self._health(one, agent)
        elif kind == "action_result" or "action_id" in one:
            yield from self._result(one, agent)
        else:
            yield self._alert(one, agent)

    def _alert(self, alert: Fields, agent: str) -> Draft:
        ended = alert.text("status", "state").lower() in ENDED
        labels, at = alert.pairs("labels"), alert.time("timestamp")
        labels.pop("severity", "")
        return self.alert(
            alert.text("name") or alert.need("type", "alert_type"),
            alert.text("service", "target_service") or labels.get("service") or agent,
            title=alert.need("message", "description", "title"),
            text=alert.text("description", "message"),
            severity=alert.need("severity"),
            resolved=ended,
            labels={
                **labels,
                "service": alert.text("service", "target_service") or labels.get("service") or agent,
                "agent": agent,
            },
            notes={
                "alert_id": alert.text("alert_id", "id"),
                "runbook_url": alert.text("runbook_url"),
                **alert.pairs("metrics"),
            },
            starts=0.0 if ended else at,
            ends=at if ended else 0.0,
        )

    def _health(self, health: Fields, agent: str) -> Draft:
        state = health.one_of("status", HEALTH)
        return self.alert(
            "EdgeAgentHealth",
            health.text("service") or agent,
            title=f"Edge agent {agent} is {state}",
            text=health.text("message", "reason"),
            severity=state,
            resolved=state == "healthy",
            labels={"agent": agent},
            notes={**health.pairs("components"), **health.pairs("metrics")},
            starts=health.time("timestamp") if state != "healthy" else 0.0,
        )

    def _result(self, result: Fields, agent: str) -> Iterator[Draft]:
        """The failure of an action is an alert, its success ends that."""
        status = result.text("status").lower() or (
            "failed" if result.text("success") == "false" else "succeeded"
        )
        failed = status in ("failed", "failure", "error", "timeout", "timed_out", "rejected")
        action = result.text("action", "type") or "action"
        yield self.alert(
            "EdgeActionFailed",
            result.text("target_service", "service") or agent,
            title=f"{action} failed on edge agent {agent}",
            text=result.text("error", "message", "detail"),
            severity="failed",
            resolved=not failed,
            labels={"agent": agent, "action": action},
            notes={
                "incident_id": result.text("incident_id"),
                "action_id": result.text("action_id"),
                "status": status,
            },
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        first = first_of(body, "messages")
        return bool({"agent_id", "edge_id"} & first.keys()) or any(
            isinstance(inner := first.get(kind), dict) and "agent_id" in inner for kind in _KINDS
        )
