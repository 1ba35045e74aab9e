"""All kinds of actions of playbooks by name, ours and those that other packages add. Used by open.py and whoever checks playbooks.

A package adds one by an entry point of group GROUP: a PlaybookAction (kind.py), under the name that an action's `type` bears.
"""

from __future__ import annotations

from models.playbook.catalog import ActionSpec
from services.playbooks.actions import (
    assign,
    comment,
    config_snapshot,
    create_war_room,
    health_check,
    http,
    incident_resolve,
    logs_capture,
    metrics_snapshot,
    pagerduty_escalate,
    schedule_postmortem,
    script,
    severity_increase,
    verify_resolution,
    wait,
)
from services.playbooks.actions.changes import changes
from services.playbooks.actions.say import tells
from services.playbooks.kind import PlaybookAction
from services.wiring.extensions import extended

GROUP = "llm_incident_manager.playbook_actions"
PLAYBOOK_ACTIONS: dict[str, PlaybookAction] = {
    "http": http.ACTION,
    "script": script.ACTION,
    "health_check": health_check.ACTION,
    "wait": wait.ACTION,
    "verify_resolution": verify_resolution.ACTION,
    "metrics_snapshot": metrics_snapshot.ACTION,
    "logs_capture": logs_capture.ACTION,
    "config_snapshot": config_snapshot.ACTION,
    **{
        name: changes(name)
        for name in ("service_restart", "rollback", "scale", "config_change", "traffic_shift", "isolate")
    },
    "severity_increase": severity_increase.ACTION,
    "assign": assign.ACTION,
    "comment": comment.ACTION,
    "incident_resolve": incident_resolve.ACTION,
    "schedule_postmortem": schedule_postmortem.ACTION,
    "create_war_room": create_war_room.ACTION,
    "pagerduty_escalate": pagerduty_escalate.ACTION,
    "slack_notification": tells("slack_notification"),
    **{
        name: tells(name)
        for name in (
            "webhook", "email", "slack", "teams", "discord", "pagerduty", "opsgenie", "victorops", "jira", "servicenow", "github",
        )
    },
}  # fmt: skip


def all_actions() -> dict[str, PlaybookAction]:
    """Ours and those that packages add."""
    return extended(GROUP, PlaybookAction, PLAYBOOK_ACTIONS)


def all_specs() -> dict[str, ActionSpec]:
    """What a playbook is checked by."""
    return {name: each.spec for name, each in all_actions().items()}
