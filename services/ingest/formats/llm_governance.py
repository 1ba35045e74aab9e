"""LLM-Governance-Core's violations of policies: one, several, or under "violations". A decision (`allowed`) with a policy counts too:
one that denies is a violation, one that allows ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.ingest.formats.format import Request
from services.ingest.formats.llm_sentinel import ENDED, LEVELS, first_of
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, several

_OVER = ENDED | {"remediated", "waived", "compliant", "dismissed"}


class LlmGovernanceFormat(WebhookFormat):
    name = "llm-governance"
    path = "/v1/events/llm-governance"
    summary = "LLM-Governance-Core's violations"
    shape = "violation_id, or policy with reason or severity"
    severities = {**LEVELS, "critical": "P0", "high": "P1", "medium": "P2", "low": "P3", "": "P2"}

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        return self.each(several(body, "violations"), self._violation)

    def _violation(self, one: Fields) -> Draft:
        policy = one.text("policy_name") or one.need("policy", "policy_id", "rule", "rule_id")
        what = one.text("resource", "affected_resource", "resource_id") or ", ".join(
            one.texts("affected_resources")
        )
        ended = one.text("status", "state").lower() in _OVER or one.text("allowed") == "true"
        at = one.time("timestamp", "detected_at", "time")
        why = one.need("reason", "description", "message", "title")
        return self.alert(
            policy,
            one.text("service", "system", "model") or what,
            title=one.text("title") or f"{policy}: {why}",
            text=why,
            severity=one.text("severity"),
            resolved=ended,
            labels={
                "category": "compliance",
                "rule": one.text("rule", "rule_id"),
                "resource": what,
                "environment": one.text("environment"),
                "violation_id": one.text("violation_id", "id"),
            },
            notes={
                "framework": ", ".join(one.texts("frameworks")) or one.text("framework", "regulation"),
                "user": one.text("user", "actor"),
                "status": one.text("status", "state"),
                **{f"evidence.{name}": said for name, said in one.pairs("evidence").items()},
            },
            starts=0.0 if ended else at,
            ends=at if ended else 0.0,
            url=one.text("url"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        first = first_of(body, "violations")
        named = bool({"policy", "policy_id", "policy_name"} & first.keys())
        return "violation_id" in first or (
            named and bool({"reason", "severity"} & first.keys()) and "incident_id" not in first
        )
