"""Playbooks as they are written, run by a shard: the plan's own, and ours. A shard does what `llm-im playbooks simulate` shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.incidents.incident import Severity
from models.playbook.playbook import Playbook, Trigger
from models.playbook.reading import read
from models.playbook.simulation import Script, simulate
from models.playbook.template import evaluate, holds
from models.playbook.work import FAILED, SKIPPED, SUCCEEDED, Context, Do, Done, Enter, Work
from models.shard.run_context import incident_context
from tests.runs import Answer, RunStory
from tests.scenario import at

ROOT = Path(__file__).parents[2]
FILES = [
    ROOT / "tests" / "data" / "playbooks" / "appendix-b.yaml",
    *sorted((ROOT / "playbooks").glob("*.yaml")),
]
ANY = Trigger(severities=tuple(Severity))


def book_of(file: Path) -> Playbook:
    """It is chosen for whatever opens."""
    return msgspec.structs.replace(read(file.read_text("utf-8"), file.name).playbook, trigger=ANY)


def worker(fails: frozenset[str]) -> Answer:
    """Evaluates as the real one does; an action fails if it is told to."""

    def answer(work: Work, _again: bool) -> Done:
        match work:
            case Enter():
                seen = _seen(work.context)
                if work.condition and not holds(work.condition, seen):
                    return Done(SKIPPED)
                return Done(SUCCEEDED, items=tuple(evaluate(work.for_each, seen)) if work.for_each else ())
            case Do() if f"{work.step}.{work.action.type}" in fails and not work.undo:
                return Done(FAILED, "as told")
        return Done(SUCCEEDED)

    return answer


def _seen(context: Context) -> dict[str, Any]:
    return {
        name: getattr(context, name) for name in ("incident", "variables", "steps", "run", "item", "index")
    }


def run_by_a_shard(book: Playbook, fails: frozenset[str]) -> tuple[RunStory, dict[str, str]]:
    """Until it is over: approvals expire."""
    story = RunStory([book])
    story.open(at(0))
    for minute in range(200):
        story.perform(at(1 + minute * 60), worker(fails))
        if story.run.is_over:
            return story, {name: step.status for name, step in story.run.steps.items()}
        story.tick(at(31 + minute * 60))
    raise AssertionError("it is not over after three hours")


def ends(book: Playbook, script: Script) -> dict[str, str]:
    lines = simulate(book, script)
    ids = {step.id for step in (*book.steps, *book.final)}
    found = {
        line.step: line.status
        for line in lines
        if line.step in ids and line.what.startswith((line.status, "is jumped over"))
    }
    return {**found, "": lines[-1].status}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("failing", ["nothing", "checks", "repairs", "all"])
def test_a_shard_does_what_the_simulation_shows(file: Path, failing: str) -> None:
    book = book_of(file)
    checks = {"health_check", "verify_resolution"}
    fails = frozenset(
        f"{step.id}.{action.type}"
        for step in (*book.steps, *book.final)
        for action in step.actions
        if failing == "all"
        or (failing == "checks" and action.type in checks)
        or (failing == "repairs" and action.changes)
    )

    story, done = run_by_a_shard(book, fails)

    asking = frozenset(step.id for step in book.steps if step.approval is not None)
    shown = ends(book, Script(fails, asking, incident_context(story.incident)))
    assert {**done, "": story.run.status} == shown


def test_the_restart_of_the_plans_playbook_heals_and_the_incident_is_resolved() -> None:
    story, done = run_by_a_shard(book_of(FILES[0]), frozenset({"automated_remediation.health_check"}))

    assert done == {
        "notify_oncall": SUCCEEDED, "snapshot_state": SUCCEEDED, "automated_remediation": SUCCEEDED, "escalate": SKIPPED, "resolve": SUCCEEDED,
    }  # fmt: skip
    assert story.run.status == SUCCEEDED


def test_a_restart_of_the_plans_playbook_that_fails_escalates() -> None:
    story, done = run_by_a_shard(
        book_of(FILES[0]),
        frozenset({"automated_remediation.health_check", "automated_remediation.service_restart"}),
    )

    assert (done["automated_remediation"], done["escalate"], done["resolve"], story.run.status) == (
        FAILED, SUCCEEDED, SKIPPED, FAILED,
    )  # fmt: skip
