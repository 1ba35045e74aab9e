"""New Relic's webhooks: workflows (the issue payload) and the alert channels of before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields, text_of
from services.ingest.formats.webhook import Draft, Item, WebhookFormat

OPEN, OVER = ("open", "created", "activated", "acknowledged"), ("closed", "resolved", "deactivated")


class NewRelicFormat(WebhookFormat):
    name = "newrelic"
    path = "/v1/events/newrelic"
    summary = "New Relic's webhooks (workflows, and alert channels)"
    shape = "state, priority and one of issueUrl, impactedEntities, workflowName; or current_state and condition_name"
    severities = {"critical": "P1", "high": "P1", "medium": "P2", "warning": "P2", "low": "P3", "info": "P4"}

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        read = self._channel if "current_state" in Fields(body) else self._issue
        return self.each([(body, "")], read)

    def _channel(self, incident: Fields) -> Draft:
        state = incident.one_of("current_state", (*OPEN, *OVER))
        targets = [each.text("name", "product") for each in incident.objects("targets")]
        labels = next((each.pairs("labels") for each in incident.objects("targets")), {})
        name = incident.need("condition_name", "policy_name")
        return self.alert(
            name,
            labels.get("service") or next(filter(None, targets), "") or incident.text("policy_name"),
            title=incident.text("details") or name,
            text=incident.text("details"),
            severity=incident.text("severity"),
            resolved=state in OVER,
            labels={
                "policy": incident.text("policy_name"),
                "incident": incident.text("incident_id"),
                "account": incident.text("account_id"),
            },
            notes={
                "targets": ", ".join(filter(None, targets)),
                "runbook_url": incident.text("runbook_url"),
                "state": state,
                "violation": incident.text("violation_callback_url"),
            },
            starts=incident.time("timestamp") if state in OPEN else 0.0,
            url=incident.text("incident_url"),
        )

    def _issue(self, issue: Fields) -> Draft:
        state = issue.one_of("state", (*OPEN, *OVER))
        title = _first(issue, "title")
        entities, conditions = _list(issue, "impactedEntities"), _list(issue, "alertConditionNames")
        policies = _list(issue, "alertPolicyNames")
        if not title:
            issue.need("title")
        return self.alert(
            (conditions or [title])[0],
            (entities or policies or [""])[0],
            title=title,
            text=_first(issue, "description", "details"),
            severity=issue.text("priority", "severity"),
            resolved=state in OVER,
            labels={"issue_id": issue.need("id", "issueId"), "policy": next(iter(policies), "")},
            notes={
                "impacted": ", ".join(entities),
                "workflow": issue.text("workflowName"),
                "state": state,
                "incidents": issue.text("totalIncidents"),
            },
            starts=issue.time("createdAt", "activatedAt"),
            url=issue.text("issueUrl", "issuePageUrl"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        if not isinstance(body, dict):
            return False
        return {"current_state", "condition_name"} <= body.keys() or (
            {"state", "priority"} <= body.keys()
            and bool({"issueUrl", "impactedEntities", "workflowName"} & body.keys())
        )


def _list(issue: Fields, name: str) -> list[str]:
    return [said for each in issue.texts(name) if (said := each)]


def _first(issue: Fields, *names: str) -> str:
    """A text, or the first of an array of them."""
    for name in names:
        value = issue.get(name)
        if isinstance(value, list):
            value = next(iter(value), None)
        if said := text_of(value, issue.path(name)):
            return said
    return ""
