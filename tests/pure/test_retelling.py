"""A playbook walked with what a recorded run found out."""

from __future__ import annotations

from typing import Any

from models.playbook.retelling import Outcome, outcomes_of, retell
from models.playbook.work import FAILED, SUCCEEDED
from tests.runs import act, book, step


def test_an_action_has_the_outcome_of_the_same_action_and_others_are_assumed() -> None:
    new = book("heal", [step("fix", act("service_restart"), act("wait"), act("scale"))])

    told = retell(
        new, {}, [Outcome("fix", 0, "service_restart", SUCCEEDED), Outcome("old", 3, "scale", FAILED)]
    )

    assert told.status == FAILED
    assert told.assumed == ("fix.wait",)
    whats = [line.what for line in told.lines]
    assert "service_restart succeeded" in whats
    assert "wait succeeded (assumed)" in whats
    assert "scale failed: as told" in whats


def test_of_two_outcomes_of_one_type_that_of_the_same_place_counts_and_else_none() -> None:
    new = book("heal", [step("fix", act("scale"), act("scale", on_failure="next_action"))])
    recorded = [Outcome("fix", 0, "scale", SUCCEEDED), Outcome("fix", 1, "scale", FAILED)]
    moved = book("heal", [step("other", act("scale"))])

    assert [line.what for line in retell(new, {}, recorded).lines if "scale" in line.what] == [
        "scale succeeded",
        "scale failed: as told",
    ]
    assert retell(moved, {}, recorded).assumed == ("other.scale",)


def test_of_a_run_only_actions_that_are_over_count() -> None:
    def deed(number: int, status: str, undo: bool = False) -> dict[str, Any]:
        return {"number": number, "action": "scale", "status": status, "undo": undo}

    deeds = [deed(-1, SUCCEEDED), deed(0, FAILED), deed(1, "asked"), deed(0, SUCCEEDED, undo=True)]

    assert outcomes_of({"steps": [{"id": "fix", "actions": deeds}]}) == [Outcome("fix", 0, "scale", FAILED)]
