"""What a playbook names that the settings do not know: receivers, services, scripts. Used by `llm-im playbooks validate --config`.

Names that are templates are known when an action is about to be done, so nothing is said of them here.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator, Mapping

from models.playbook.catalog import ActionSpec, is_template
from models.playbook.parameters import PagerdutyEscalate, Say, names_of
from models.playbook.playbook import PlannedAction, Playbook
from services.playbooks.actions.say import type_of


def unknown_in(
    book: Playbook,
    specs: Mapping[str, ActionSpec],
    *,
    receivers: Mapping[str, str],
    services: Collection[str],
    scripts: Collection[str],
) -> list[str]:
    """A line for each. `receivers` are types by name, `services` names and patterns of what can be changed."""
    found: list[str] = []
    for step in (*book.steps, *book.final):
        for number, action in enumerate(step.actions, 1):
            for each in (action, action.rollback):
                if each is not None:
                    found += (
                        f"step {step.id}, action {number}, {why}"
                        for why in _unknown(each, specs, receivers, services, scripts)
                    )
    return list(dict.fromkeys(found))


def _unknown(
    action: PlannedAction,
    specs: Mapping[str, ActionSpec],
    receivers: Mapping[str, str],
    services: Collection[str],
    scripts: Collection[str],
) -> Iterator[str]:
    spec = specs.get(action.type)
    if spec is None:
        return
    if spec.params in (Say, PagerdutyEscalate):
        type_ = type_of(action.type)
        names = sorted(name for name, kind in receivers.items() if kind == type_)
        named = _literal(action, "receiver")
        if not names:
            yield f"{action.type}: the settings have no receiver of type {type_}"
        elif named and named not in names:
            yield f"receiver: the settings have no {type_} receiver {named!r} (there are: {', '.join(names)})"
    if action.type == "script":
        named = _literal(action, "script")
        if named and named not in scripts:
            yield f"script: the settings allow no script {named!r}"
    elif action.changes and "service" in names_of(spec.params):
        named = _literal(action, "service")
        if not services:
            yield f"{action.type}: the settings have no service that can be changed (playbooks.services)"
        elif named and not any(fnmatch.fnmatchcase(named, each) for each in services):
            yield f"service: the settings know no service {named!r} (playbooks.services)"


def _literal(action: PlannedAction, name: str) -> str:
    value = action.params.get(name)
    return value if isinstance(value, str) and not is_template(value) else ""
