"""A playbook walked with what a real run of another version found out, so that both can be compared. Pure; used by `llm-im playbooks replay`.

An action takes the outcome of the same action in the recorded run: of the same step, type and place, else of the same step and type, else the
only outcome that actions of its type had there. One that has none is taken to succeed, and is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from models.playbook.playbook import Playbook
from models.playbook.simulation import Line, Script, simulate
from models.playbook.work import FAILED, SUCCEEDED

ASSUMED = " (assumed)"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one action of a recorded run: which step, which action of it from 0, its type, succeeded or failed."""

    step: str
    number: int
    action: str
    status: str


@dataclass(frozen=True, slots=True)
class Retold:
    """The path, how it ends, and the actions on it ("step.action") whose outcome nobody knows."""

    lines: tuple[Line, ...]
    status: str
    assumed: tuple[str, ...]


def outcomes_of(run: Mapping[str, Any]) -> list[Outcome]:
    """What the actions of a run did, as the API shows it."""
    return [
        Outcome(str(step["id"]), int(deed["number"]), str(deed["action"]), str(deed["status"]))
        for step in run.get("steps", ())
        for deed in step.get("actions", ())
        if not deed.get("undo") and deed["number"] >= 0 and deed["status"] in (SUCCEEDED, FAILED)
    ]


def retell(book: Playbook, incident: Mapping[str, Any], recorded: Iterable[Outcome]) -> Retold:
    """How a run of this playbook would have gone for an incident."""
    known = [*recorded]
    fails: set[str] = set()
    unknown: set[tuple[str, str]] = set()
    for step in (*book.steps, *book.final):
        for number, action in enumerate(step.actions):
            status = _status(known, step.id, number, action.type)
            if status == FAILED:
                fails.add(f"{step.id}.{action.type}:{number + 1}")
            elif not status:
                unknown.add((step.id, action.type))
    lines: list[Line] = []
    assumed: list[str] = []
    for line in simulate(book, Script(frozenset(fails), incident=incident)):
        word, _, rest = line.what.partition(" ")
        if (line.step, word) in unknown and line.status == SUCCEEDED and rest.startswith(SUCCEEDED):
            assumed.append(f"{line.step}.{word}")
            lines.append(replace(line, what=line.what + ASSUMED))
        else:
            lines.append(line)
    return Retold(tuple(lines), lines[-1].status, tuple(dict.fromkeys(assumed)))


def _status(known: list[Outcome], step: str, number: int, action: str) -> str:
    """The outcome that an action had, "" when nobody knows."""
    same = [each for each in known if each.action == action]
    here = [each for each in same if each.step == step]
    exact = [each for each in here if each.number == number]
    for found in (exact, here, same):
        statuses = {each.status for each in found}
        if len(statuses) == 1:
            return statuses.pop()
    return ""
