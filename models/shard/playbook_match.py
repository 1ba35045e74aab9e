"""Whether the trigger of a playbook matches an incident, and which of several comes first."""

from __future__ import annotations

from models.alerts.matchers import compile_matchers
from models.incidents.incident import Incident
from models.playbook.playbook import Playbook


def why_matches(book: Playbook, incident: Incident) -> str:
    """Why it does, "" when it does not. One that says nothing is started by people and other playbooks only. Of an expression
    nothing is known here."""
    trigger, why = book.trigger, list[str]()
    for name, wanted, is_ in (
        ("severity", trigger.severities, incident.severity),
        ("type", trigger.types, incident.type),
        ("source", trigger.sources, incident.source),
        ("service", trigger.services, incident.service),
    ):
        if wanted:
            if is_ not in wanted:
                return ""
            why.append(f"{name} {incident.severity.name if name == 'severity' else is_}")
    if trigger.matchers:
        if not compile_matchers(trigger.matchers)(incident.labels):
            return ""
        why.append(
            "labels " + ", ".join(f"{name}{operator}{value}" for name, operator, value in trigger.matchers)
        )
    if trigger.expression:
        why.append("expression")
    return ", ".join(why)


def rank(book: Playbook) -> tuple[int, int, str]:
    """The smaller goes first."""
    trigger = book.trigger
    given = (trigger.severities, trigger.types, trigger.sources, trigger.services, trigger.expression)
    return -book.priority, -(sum(map(bool, given)) + len(trigger.matchers)), book.name
