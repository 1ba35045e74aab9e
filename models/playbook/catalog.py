"""Every kind of action of ours: what it takes, what it changes, and what the plan's sections call it. Read by whoever checks a
playbook, and by whoever does its actions (services/playbooks/table.py, which has the same names, and those that other packages
add).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.playbook import parameters as taken
from models.playbook.parameters import TIMEOUT, Params, checked, missing_from, names_of

#: A string with one of these is a template, and stands for anything.
TEMPLATE_MARKS = ("{{", "{%")


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """`changes`: it changes something outside, and so is subject to policy, approval and the house rules. `plan_name` is what
    `allowed_actions` and a policy call it, beside its own name. `safe_methods`: it changes nothing with one of these as its
    `method`. `queries`: parameters that are queries in a language with quoted strings: what templates put into them is
    escaped, so that a label can't end the string that it stands in."""

    params: type[Params]
    summary: str
    changes: bool = False
    plan_name: str = ""
    safe_methods: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()

    def changes_with(self, params: Mapping[str, Any]) -> bool:
        """Whether it changes something with these parameters, as they were written or as they were rendered."""
        method = str(params.get("method", "GET")).upper()
        return self.changes and not (self.safe_methods and method in self.safe_methods)


def _tells(where: str) -> ActionSpec:
    return ActionSpec(taken.Say, f"Says something at a receiver of type `{where}`.")


CATALOG: dict[str, ActionSpec] = {
    "http": ActionSpec(
        taken.Http, "Calls a URL.", True, "HttpCall", safe_methods=("GET", "HEAD")
    ),
    "script": ActionSpec(taken.Script, "Runs a program that the settings allow.", True, "Script"),
    "health_check": ActionSpec(taken.HealthCheck, "Asks a service whether it is well."),
    "wait": ActionSpec(taken.Wait, "Waits."),
    "verify_resolution": ActionSpec(
        taken.VerifyResolution, "Checks whether the repair helped.", queries=("query",)
    ),
    "metrics_snapshot": ActionSpec(
        taken.MetricsSnapshot, "Keeps metrics of the last minutes with the incident.", queries=("query",)
    ),
    "logs_capture": ActionSpec(
        taken.LogsCapture, "Keeps log lines of the last minutes with the incident.", queries=("query",)
    ),
    "config_snapshot": ActionSpec(taken.ConfigSnapshot, "Keeps a service's configuration with the incident."),
    "service_restart": ActionSpec(taken.ServiceRestart, "Restarts a service.", True, "Restart"),
    "rollback": ActionSpec(taken.Rollback, "Takes a service back to the version before.", True, "Rollback"),
    "scale": ActionSpec(taken.Scale, "Gives a service more or fewer replicas.", True, "ScaleHorizontal"),
    "config_change": ActionSpec(taken.ConfigChange, "Changes a service's configuration.", True, "ConfigChange"),
    "traffic_shift": ActionSpec(
        taken.TrafficShift, "Divides a service's traffic among its backends.", True, "TrafficShift"
    ),
    "isolate": ActionSpec(taken.Isolate, "Cuts a service off from the network, or lets it back.", True, "Isolate"),
    "severity_increase": ActionSpec(taken.SeverityIncrease, "Raises the incident's severity."),
    "assign": ActionSpec(taken.Assign, "Assigns the incident to people."),
    "comment": ActionSpec(taken.Comment, "Writes a comment into the incident."),
    "incident_resolve": ActionSpec(taken.IncidentResolve, "Resolves the incident."),
    "schedule_postmortem": ActionSpec(taken.SchedulePostmortem, "Makes a post-incident task."),
    "create_war_room": ActionSpec(taken.CreateWarRoom, "Opens a room for those who work on the incident."),
    "pagerduty_escalate": ActionSpec(taken.PagerdutyEscalate, "Pages by PagerDuty that the incident is escalated."),
    "slack_notification": _tells("slack"),
    **{
        name: _tells(name)
        for name in (
            "webhook", "email", "slack", "teams", "discord", "pagerduty", "opsgenie", "victorops", "jira", "servicenow", "github",
        )
    },
}  # fmt: skip


def is_template(value: object) -> bool:
    """Whether there is a template anywhere in it."""
    if isinstance(value, str):
        return any(mark in value for mark in TEMPLATE_MARKS)
    if isinstance(value, Mapping):
        return any(map(is_template, value.values()))
    return any(map(is_template, value)) if isinstance(value, list | tuple) else False


def wrong_params(spec: ActionSpec, written: Mapping[str, Any]) -> str:
    """What is wrong with an action's parameters as they were written, "" if nothing is. Names the parameter and what was
    expected. A template is checked when it has been rendered."""
    literal = {name: value for name, value in written.items() if not is_template(value)}
    templates = {name: value for name, value in written.items() if name not in literal and name != TIMEOUT}
    try:
        checked(spec.params, literal)
        # Of templates only their names.
        checked(spec.params, {name: None for name in templates.keys() - names_of(spec.params)})
    except ValueError as error:
        return str(error)
    # Last: a name that is misspelt is missing too.
    return next((f"{name}: expected, and not given" for name in missing_from(spec.params, written)), "")
