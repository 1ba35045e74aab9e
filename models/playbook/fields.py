"""What may stand in a playbook: every field with its kind and what it is for. Read by whoever reads playbooks (reading.py) and by
whoever describes them to editors (schema.py), so that the two can't disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.playbook.playbook import ABORT, DONE, FAIL, NEXT
from models.playbook.walk import NOTIFICATION

#: Types of steps. All do their actions; what is special about one is said here.
STEP_TYPES: dict[str, str] = {
    NOTIFICATION: "Tells people. Never fails the run, and what comes next starts at once.",
    "data_collection": "Records what things look like. Never fails the run.",
    "diagnosis": "Finds out what is wrong.",
    "remediation": "Repairs.",
    "verification": "Checks whether the repair helped.",
    "escalation": "Calls for more help. Starts also when what it needs failed.",
    "resolution": "Ends the incident.",
    "approval": "Waits for people to agree (`approval`).",
    "playbook": "Runs another playbook (`playbook`).",
}
#: What `on_success` and `on_failure` may say beside the id of a step.
TARGETS: dict[str, str] = {
    NEXT: "go on with the next action of the step",
    DONE: "end the step with success",
    FAIL: "end the step as failed",
    ABORT: "end the run",
    "escalate": "the step `escalate`; without one, raise the severity by one and tell the escalation receiver",
    "resolve": "the step `resolve`; without one, resolve the incident",
}
#: No step may be called so.
RESERVED = frozenset((NEXT, DONE, FAIL, ABORT, "approve"))
BACKOFFS = ("constant", "linear", "exponential")
#: Types of actions that find out something and change nothing: one with `on_failure: next_action` guards the action after it.
CHECKS = frozenset(("health_check", "verify_resolution"))


@dataclass(frozen=True, slots=True)
class Field:
    """`kind` says how it is read and described: a row of the tables of reading.py and schema.py."""

    name: str
    kind: str
    what: str
    required: bool = False


PLAYBOOK = (
    Field("name", "text", "What people call it. Its identity, with the version.", True),
    Field(
        "version", "version", "Any text. A version never changes: give a changed playbook a new one.", True
    ),
    Field(
        "trigger",
        "trigger",
        "For which incidents it runs by itself. Without one it is started by people and other playbooks.",
    ),
    Field("severity_trigger", "severities", "The same as `severity` in `trigger`."),
    Field("type_trigger", "types", "The same as `type` in `trigger`."),
    Field("metadata", "map", "For people: description, owner, and what else you like."),
    Field("variables", "map", "Values that templates read as `variables.NAME`."),
    Field("steps", "steps", "What is done, in this order where `needs` says nothing else.", True),
    Field("finally", "steps", "Steps that are done at the end, however it ended."),
    Field("shadow", "flag", "It decides and is logged, and does nothing."),
    Field("priority", "integer", "Of several that match, the greater goes first. Default 0."),
)

TRIGGER = (
    Field("severity", "severities", "P0 to P4, one or a list."),
    Field("type", "types", "The incident's type, one or a list."),
    Field("source", "texts", "Where the incident came from, one or a list."),
    Field("service", "texts", "The incident's service, one or a list."),
    Field("labels", "matchers", "Labels that it must have: a map of names and values, or a list of matchers as in `env=~\"prod.*\"`."),
    Field("expression", "expression", "A condition on the incident, as in `incident.alerts_firing > 10`."),
    Field("schedule", "schedule", "When it runs by the clock, beside the incidents that choose it: a cron expression in UTC."),
)  # fmt: skip

STEP = (
    Field("id", "id", "Its name within the playbook.", True),
    Field("type", "step_type", "What kind of step it is.", True),
    Field("description", "text", "For people."),
    Field(
        "needs", "ids", "Steps that must be over before it starts. Default: the one before it. `[]`: none."
    ),
    Field("condition", "expression", "It is skipped when this does not hold."),
    Field(
        "for_each",
        "each",
        "A list, or an expression that gives one: its actions are done for each `item` of it.",
    ),
    Field("parallel", "flag", "Its actions are done at the same time."),
    Field("timeout", "duration", "It fails when it takes longer."),
    Field("retry", "retry", "How often each action that failed is tried again."),
    Field("backoff", "backoff", "How the time between two tries grows, for a `retry` that is a number."),
    Field("approval", "approval", "Who must agree before its actions are done."),
    Field("playbook", "text", "The name of another playbook that this step runs."),
    Field(
        "variables",
        "map",
        "Values for this step, and for the playbook that it runs, before those of the playbook.",
    ),
    Field("actions", "actions", "What is done."),
)

ACTION = (
    Field("type", "action_type", "What is done.", True),
    Field("on_success", "target", f"What comes after it. Default: {NEXT}."),
    Field("on_failure", "target", f"What comes after it when it failed. Default: {FAIL}."),
    Field("timeout", "duration", "How long one try may take. Default: 60s."),
    Field("retry", "retry", "How often it is tried again when it failed. Default: that of the step."),
    Field("backoff", "backoff", "How the time between two tries grows, for a `retry` that is a number."),
    Field("once", "flag", "It must not be done twice, even if nobody knows whether it was done."),
    Field("rollback", "rollback", "The action that undoes it, done when the step fails."),
    Field(
        "output", "text", "Its outputs are read as `steps.STEP.outputs.NAME`. Default: `steps.STEP.outputs`."
    ),
)

RETRY = (
    Field("most", "count", "Further tries after the first.", True),
    Field("backoff", "backoff", "How the time between two tries grows. Default: exponential."),
    Field("first", "duration", "The time before the first further try. Default: 1s."),
    Field("max", "duration", "The longest time between two tries. Default: 60s."),
)

APPROVAL = (
    Field("who", "texts", "People or roles, one or a list. Default: anybody who may respond."),
    Field("needed", "positive", "How many of them. Default: 1."),
    Field("within", "duration", "How long is waited. Default: 15m."),
    Field(
        "otherwise",
        "otherwise",
        "What happens when nobody answers: `fail`, `approve`, or a step. Default: fail.",
    ),
    Field("message", "text", "What they are asked."),
)
