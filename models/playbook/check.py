"""What is found out before a run begins: whether all that it would change may be changed, at targets that are known and not broken.
Pure; asked by models/shard/run_checks.py, answered by services/playbooks/worker.py.

Checked are the steps whose failure would be the run's. What escalates has to be done all the same, and what is repeated for the items
of a list is not known yet.
"""

from __future__ import annotations

from typing import Any

from models.playbook.playbook import ABORT, DONE, FAIL, NEXT, Playbook
from models.playbook.walk import RESOLVE, SOFT
from models.playbook.work import Check, Context, ToCheck

ESCALATION = "escalation"


def to_check(book: Playbook) -> tuple[ToCheck, ...]:
    """The actions of a playbook that change something, as far as they can be known before it runs."""
    return tuple(
        ToCheck(step.id, number, step.condition, action, step.variables)
        for step in book.steps
        if step.type not in SOFT and step.type != ESCALATION and not step.for_each
        for number, action in enumerate(step.actions)
        if action.changes
    )


def check_of(key: str, book: Playbook, incident: dict[str, Any], number: int, by: str) -> Check:
    """The question for an incident of which it would be run `number`."""
    pending = {
        step.id: {"status": "pending", "outputs": {}, "detail": ""} for step in (*book.steps, *book.final)
    }
    run = {
        "number": number,
        "name": book.name,
        "playbook": book.name,
        "version": book.version,
        "by": by,
        "last": {},
    }
    return Check(key, to_check(book), Context(incident, book.variables, pending, run))


def says_how_to_go_on(book: Playbook) -> bool:
    """Whether a playbook says what is done when its repair fails: it escalates, or goes on with a step for that."""
    return any(
        step.type == ESCALATION
        or any(
            action.changes and action.on_failure not in (FAIL, ABORT, NEXT, DONE, RESOLVE)
            for action in step.actions
        )
        for step in book.steps
    )
