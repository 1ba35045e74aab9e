"""Dynatrace's problem notifications by custom webhook (docs/formats.md has the payload)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.ingest.formats.datadog import tags_of
from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, stable_name

STATES = ("open", "resolved", "merged", "closed")
SEVERITIES = {
    "availability": "P1",
    "error": "P2",
    "performance": "P2",
    "resource_contention": "P2",
    "custom_alert": "P3",
    "monitoring_unavailable": "P3",
    "info": "P4",
}


class DynatraceFormat(WebhookFormat):
    name = "dynatrace"
    path = "/v1/events/dynatrace"
    summary = "Dynatrace's problem notifications"
    shape = "State and one of ProblemID, PID, ProblemTitle"
    severities = {**SEVERITIES, "": "P2"}

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        return self.each([(body, "")], self._problem)

    def _problem(self, problem: Fields) -> Draft:
        state = problem.one_of("State", STATES)
        title = problem.need("ProblemTitle", "Title")
        entities = problem.get("ImpactedEntities")
        names = (
            [each.text("name", "entity") for each in problem.objects("ImpactedEntities")]
            if isinstance(entities, list)
            else []
        )
        tags = tags_of(Fields({"tags": problem.get("Tags")})) if isinstance(problem.get("Tags"), str) else {}
        over = state in ("resolved", "closed")
        kind = problem.text("ProblemSeverity", "SeverityLevel").lower()
        return self.alert(
            stable_name(title),
            tags.get("service") or next(iter(names), "") or problem.text("ImpactedEntity"),
            title=title,
            text=problem.text("ProblemDetailsText", "ProblemDetailsMarkdown"),
            severity=kind.upper(),
            resolved=over,
            labels={
                "problem_id": problem.need("PID", "ProblemID"),
                "category": kind if kind in ("availability", "performance") else "",
            },
            notes={
                "problem": problem.text("ProblemID"),
                "impact": problem.text("ProblemImpact"),
                "entities": ", ".join(names) or problem.text("ImpactedEntity"),
                "tags": problem.text("Tags") if isinstance(problem.get("Tags"), str) else "",
                "state": state,
            },
            url=problem.text("ProblemURL"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        return (
            isinstance(body, dict)
            and "State" in body
            and bool({"ProblemID", "PID", "ProblemTitle"} & body.keys())
        )
