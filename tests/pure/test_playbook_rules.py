"""The rules of playbooks (docs/playbooks.md), each told as the path that a run takes: what is done, in which order, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from models.errors import Malformed
from models.incidents.incident import Incident
from models.playbook.checking import INCIDENT
from models.playbook.reading import read
from models.playbook.simulation import Script, simulate
from models.shard.run_context import incident_context
from services.cli.commands.playbooks.dry_run import seen_of


def path(
    steps: str,
    *fails: str,
    expires: tuple[str, ...] = (),
    incident: dict[str, Any] | None = None,
    final: str = "",
) -> list[str]:
    """What is done and how steps end, as `step what`. Steps are written in short: see `book`."""
    lines = simulate(book(steps, final), Script(frozenset(fails), frozenset(expires), incident))
    return [
        f"{line.step or 'run'} {line.what.partition(' (')[0].removesuffix(': as told')}"
        for line in lines
        if line.status != "began" and not line.what.startswith("tries")
    ]


def book(steps: str, final: str = "") -> Any:
    """`a: x y` is a step of the two actions comment; more stands as YAML."""
    text = "name: a playbook\nversion: 1\nsteps:\n" + steps
    return read(text + (f"finally:\n{final}" if final else ""), "p").playbook


def step(name: str, *actions: str, kind: str = "remediation", **more: str) -> str:
    """One step. Actions are `type` or `type, field: value`; types stand for themselves and take what they must."""
    written = ", ".join(
        f"{{type: {_ACTIONS.get(action.partition(',')[0], action.partition(',')[0])}{''.join(action.partition(',')[1:])}}}"
        for action in actions
    )
    fields = "".join(f", {name}: {value}" for name, value in more.items())
    return f"  - {{id: {name}, type: {kind}{fields}" + (f", actions: [{written}]}}\n" if actions else "}\n")


#: Actions that take something, by a short name.
_ACTIONS = {
    "check": "health_check, endpoint: 'http://x'",
    "verify": "verify_resolution, endpoint: 'http://x'",
    "pause": "wait, duration: 1s",
    "note": "comment, text: x",
    "up": "scale, by: 1, rollback: {type: scale, by: -1}",
    "shift": "traffic_shift, weights: {a: 1}, rollback: {type: traffic_shift, weights: {b: 1}}",
}


def test_steps_run_in_the_order_written() -> None:
    assert path(step("a", "note") + step("b", "note")) == [
        "a comment succeeded", "a succeeded", "b comment succeeded", "b succeeded", "run succeeded",
    ]  # fmt: skip


def test_steps_without_order_run_side_by_side() -> None:
    told = path(step("a", "note", "note", needs="[]") + step("b", "note", needs="[]"))

    assert told.index("b comment succeeded") < told.index("a succeeded")


def test_a_notification_holds_nothing_up() -> None:
    told = path(step("a", "slack", kind="notification") + step("b", "note"), "a.slack")

    assert told[-1] == "run succeeded" and "b comment succeeded" in told and "a failed" not in told


def test_what_could_not_be_recorded_fails_nothing() -> None:
    told = path(
        step("a", "logs_capture, query: x", "note", kind="data_collection") + step("b", "note"),
        "a.logs_capture",
    )

    assert [line for line in told if line.startswith("b")] == ["b comment succeeded", "b succeeded"]
    assert "a comment succeeded" in told and told[-1] == "run succeeded"


def test_what_needs_a_failed_step_is_not_done() -> None:
    told = path(
        step("a", "note")
        + step("b", "note")
        + step("c", "note")
        + step("d", "note", kind="escalation", needs="[a]"),
        "a.comment",
    )

    assert "b skipped" in told and "c skipped" in told
    assert "d comment succeeded" in told
    assert told[-1] == "run failed: a failed: comment: as told" or told[-1].startswith("run failed")


def test_a_condition_on_another_step_decides_by_itself() -> None:
    steps = (
        step("a", "note")
        + step("b", "note", condition="steps.a.status == 'failed'")
        + step("c", "note", condition="steps.a.status == 'success'")
    )

    assert "b comment succeeded" in (failed := path(steps, "a.comment")) and "c skipped" in failed
    assert "c comment succeeded" in (well := path(steps)) and "b skipped" in well


def test_a_guarded_action_is_done_only_if_the_check_fails() -> None:
    steps = step("a", "check, on_failure: next_action", "service_restart", "note")

    assert path(steps)[:3] == [
        "a health_check succeeded", "a service_restart skipped: not needed: the check before it succeeded", "a comment succeeded",
    ]  # fmt: skip
    assert path(steps, "a.health_check")[:3] == [
        "a health_check failed", "a service_restart succeeded", "a comment succeeded",
    ]  # fmt: skip


def test_a_check_that_says_what_comes_next_guards_nothing() -> None:
    steps = step("a", "check, on_failure: next_action, on_success: next_action", "service_restart")

    assert path(steps)[:2] == ["a health_check succeeded", "a service_restart succeeded"]


def test_a_step_that_is_named_is_gone_on_with_and_what_lies_between_is_skipped() -> None:
    steps = (
        step("a", "note, on_failure: c")
        + step("b", "note")
        + step("c", "note")
        + step("d", "note", condition="steps.b.status == 'skipped'")
    )

    told = path(steps, "a.comment")

    assert told[1:] == [
        "a failed, goes on with c", "b is jumped over", "c comment succeeded", "c succeeded", "d comment succeeded", "d succeeded",
        "run failed: a failed: comment",
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["escalate", "resolve"])
def test_escalate_and_resolve_mean_something_without_a_step_of_that_name(word: str) -> None:
    assert f"a failed, then: {word}" in path(step("a", f"note, on_failure: {word}"), "a.comment")
    assert f"a failed, goes on with {word}" in path(
        step("a", f"note, on_failure: {word}") + step(word, "note", kind="escalation"), "a.comment"
    )


def test_abort_ends_the_run_and_finally_is_done() -> None:
    told = path(
        step("a", "note, on_failure: abort") + step("b", "note", kind="escalation"),
        "a.comment",
        final=step("z", "note"),
    )

    assert not [line for line in told if line.startswith("b comment")]
    assert "z comment succeeded" in told and told[-1].startswith("run aborted")


def test_finally_is_done_also_when_the_run_failed() -> None:
    told = path(step("a", "note"), "a.comment", "y.comment", final=step("y", "note") + step("z", "note"))

    assert told[-3:-1] == ["z comment succeeded", "z succeeded"] and told[-1].startswith("run failed")


def test_what_a_step_did_is_rolled_back_newest_first() -> None:
    told = path(step("a", "up", "shift", "note") + step("b", "note"), "a.comment")

    assert [line for line in told if "rollback" in line] == [
        "a rollback traffic_shift succeeded",
        "a rollback scale succeeded",
    ]
    assert "b skipped" in told and "b comment succeeded" not in told


def test_done_ends_a_step_with_success() -> None:
    assert path(step("a", "check, on_success: done", "service_restart"))[:2] == [
        "a health_check succeeded",
        "a succeeded",
    ]


def test_an_action_that_fails_is_tried_again_as_often_as_it_says() -> None:
    lines = simulate(
        book(step("a", "note, retry: 2", "note") + step("b", "note", retry="1", needs="[]")),
        Script(frozenset(("a.comment:1", "b.comment"))),
    )

    assert [line.what for line in lines if line.what.startswith("tries")] == [
        "tries again (try 2)",
        "tries again (try 2)",
        "tries again (try 3)",
    ]


def test_a_loop_does_its_actions_for_each_item() -> None:
    steps = step("a", "note", "pause", for_each="incident.assignees")

    assert (
        path(steps, incident={"assignees": ["ann", "bob"]})[:4]
        == ["a comment succeeded", "a wait succeeded"] * 2
    )
    assert path(steps, incident={"assignees": []})[0] == "a succeeded"
    assert path(steps, incident={"assignees": 5})[-1] == "run failed: a failed: for_each: a list was expected"


def test_a_condition_that_cannot_be_evaluated_fails_its_step() -> None:
    told = path(step("a", "note", condition="incident.nope.at_all"), incident={"title": "x"})

    assert told[0].startswith("a failed") and told[-1].startswith("run failed")


APPROVAL = step("ok", kind="approval", approval="{who: [ann, bob], needed: 2, otherwise: %s}") + step("go", "note") + step(
    "help", "note", kind="escalation", condition="steps.ok.status == 'failed' and 'denied by' not in steps.ok.detail"
)  # fmt: skip


def test_enough_people_agree() -> None:
    assert path(APPROVAL % "fail")[:4] == [
        "ok asks for 2 of ann, bob to approve", "ok approved by person-1, person-2", "ok succeeded", "go comment succeeded",
    ]  # fmt: skip


def test_somebody_denies_it() -> None:
    told = path(APPROVAL % "help", "ok")

    assert "go skipped" in told and "help comment succeeded" not in told and told[-1].startswith("run failed")


@pytest.mark.parametrize(("otherwise", "done"), [("fail", "help"), ("help", "help"), ("approve", "go")])
def test_nobody_answers(otherwise: str, done: str) -> None:
    told = path(APPROVAL % otherwise, expires=("ok",))

    assert [line for line in told if line.endswith("comment succeeded")] == [f"{done} comment succeeded"]


def test_an_approval_stands_before_the_actions_of_its_step() -> None:
    told = path(step("a", "note", approval="{who: [ann]}"))

    assert told[:2] == ["a asks for 1 of ann to approve", "a approved by person-1"]
    assert not [line for line in path(step("a", "note", approval="{}"), "a") if "comment" in line]


def test_another_playbook_that_fails_fails_its_step() -> None:
    steps = step("a", kind="playbook", playbook="other") + step("b", "note")

    assert "b comment succeeded" in path(steps)
    assert "b skipped" in path(steps, "a")


def test_a_script_names_what_is_there() -> None:
    with pytest.raises(
        Malformed,
        match=r"a\.coment: there is no such step or action in 'a playbook'; did you mean 'a\.comment'",
    ):
        path(step("a", "note"), "a.coment")


def test_checking_knows_what_runs_show_of_an_incident() -> None:
    incident = Incident(bytes(16), 1, "default", "llm-api", "", {}, "", "", "", {}, {}, 0.0, 0.0)

    shown = set(incident_context(incident))

    assert shown == INCIDENT
    assert set(seen_of({})) >= shown
