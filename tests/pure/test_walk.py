"""What comes next in a run (models/playbook/walk.py): told as the path that a run takes when certain actions fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from models.playbook import playbook as words
from models.playbook.playbook import Approval, PlannedAction, Playbook, Step, Trigger
from models.playbook.walk import (
    Acted,
    Ask,
    Begin,
    Call,
    Decided,
    End,
    Enter,
    Entered,
    Fact,
    Over,
    Progress,
    Stopped,
    TimedOut,
    Undo,
    Undone,
    Walk,
    record,
)

Condition = Callable[[dict[str, str]], bool]


def playbook(*steps: Step, final: Iterable[Step] = ()) -> Playbook:
    return Playbook("a playbook", "1", "", Trigger(), steps, tuple(final))


def step(name: str, *actions: PlannedAction, **more: object) -> Step:
    return Step(name, str(more.pop("type", "remediation")), actions, **more)  # type: ignore[arg-type]


def do(kind: str, **more: object) -> PlannedAction:
    return PlannedAction(kind, **more)  # type: ignore[arg-type]


def path(
    book: Playbook,
    *,
    fail: Iterable[str] = (),
    conditions: dict[str, Condition] | None = None,
    turns: int = 2,
    answers: dict[str, Decided] | None = None,
    at: Callable[[Begin], Fact | None] = lambda move: None,
) -> list[str]:
    """All that happens, each outcome right after its move. `fail` names actions: "step.type"."""
    walk, progress, told = Walk(book), Progress(), list[str]()
    while moves := walk.moves(progress):
        for move in moves:
            record(progress, move)
            match move:
                case Enter(name):
                    asked = (conditions or {}).get(name)
                    holds = asked is None or asked(walk.statuses(progress))
                    looped = bool(walk.steps[name].for_each)
                    record(progress, Entered(name, turns if looped else 1) if holds else End(name, "skipped"))
                    if not holds:
                        told.append(f"{name} skipped")
                case Begin(name, turn, number):
                    kind = walk.action(name, number).type
                    failed = f"{name}.{kind}" in fail
                    told.append(
                        f"{name}.{kind}" + (f"[{turn}]" if turn else "") + (" fails" if failed else "")
                    )
                    if fact := at(move):
                        record(progress, fact)
                    record(progress, Acted(name, turn, number, not failed))
                case Ask(name) | Call(name):
                    told.append(f"{name} asks")
                    record(progress, (answers or {})[name])
                case Undo(name, turn, number):
                    undone = walk.action(name, number).rollback
                    assert undone is not None
                    told.append(f"{name} undoes {undone.type}")
                    record(progress, Undone(name, turn, number))
                case End(name, status):
                    told.append(f"{name} {status}")
                case Over(status):
                    told.append(f"over: {status}")
    assert progress.status
    return told


GUARD = do("health_check", on_success=words.SKIP_NEXT, on_failure=words.NEXT)
APPENDIX = playbook(
    step("notify", do("pagerduty"), do("slack"), type="notification", parallel=True),
    step("snapshot", do("metrics"), do("logs"), type="data_collection", needs=("notify",)),
    step(
        "repair", GUARD, do("restart", on_failure="escalate"), do("wait"), do("verify", on_success="resolve", on_failure="escalate"),
        needs=("snapshot",),
    ),
    step("escalate", do("severity"), needs=("repair",), tolerates=True, type="escalation"),
    step("resolve", do("close"), needs=("escalate",), tolerates=True),
)  # fmt: skip
CONDITIONS: dict[str, Condition] = {
    "escalate": lambda statuses: statuses["repair"] == "failed",
    "resolve": lambda statuses: statuses["repair"] == "success",
}
TOLD = [
    "notify.pagerduty",
    "notify.slack",
    "notify success",
    "snapshot.metrics",
    "snapshot.logs",
    "snapshot success",
]


def test_a_service_that_is_down_is_restarted_and_resolved() -> None:
    assert path(APPENDIX, fail=["repair.health_check"], conditions=CONDITIONS) == [
        *TOLD, "repair.health_check fails", "repair.restart", "repair.wait", "repair.verify", "repair success",
        "escalate skipped", "resolve.close", "resolve success", "over: success",
    ]  # fmt: skip


def test_a_healthy_service_is_not_restarted_but_still_verified() -> None:
    told = path(APPENDIX, conditions=CONDITIONS)

    assert "repair.restart" not in told
    assert told[6:10] == ["repair.health_check", "repair.wait", "repair.verify", "repair success"]


def test_a_restart_that_fails_escalates_and_does_not_resolve() -> None:
    assert path(APPENDIX, fail=["repair.health_check", "repair.restart"], conditions=CONDITIONS)[6:] == [
        "repair.health_check fails", "repair.restart fails", "repair failed", "escalate.severity", "escalate success",
        "resolve skipped", "over: failed",
    ]  # fmt: skip


def test_what_cannot_be_told_or_collected_holds_up_nothing() -> None:
    told = path(
        APPENDIX,
        fail=["notify.pagerduty", "notify.slack", "snapshot.metrics", "snapshot.logs"],
        conditions=CONDITIONS,
    )

    assert "notify failed" in told and "snapshot.logs fails" in told and told[-1] == "over: success"


def test_a_notification_lets_the_next_step_start_at_once() -> None:
    walk, progress = Walk(APPENDIX), Progress()
    record(progress, Entered("notify"))

    moves = walk.moves(progress)

    assert moves == [Begin("notify", 0, 0), Begin("notify", 0, 1), Enter("snapshot")]


def test_what_needs_a_failed_step_is_blocked() -> None:
    book = playbook(
        step("a", do("x")), step("b", do("y"), needs=("a",)), step("c", do("z"), needs=("b",)),
        step("d", do("w"), needs=("a",), tolerates=True),
    )  # fmt: skip

    told = path(book, fail=["a.x"])

    assert told == ["a.x fails", "a failed", "b blocked", "c blocked", "d.w", "d success", "over: failed"]


def test_steps_without_order_run_side_by_side() -> None:
    walk, progress = Walk(playbook(step("a", do("x")), step("b", do("y")))), Progress()

    assert walk.moves(progress) == [Enter("a"), Enter("b")]


def test_a_jump_passes_over_what_lies_between() -> None:
    book = playbook(
        step("a", do("x", on_success="c")), step("b", do("y"), needs=("a",)), step("c", do("z"), needs=("b",)),
        step("d", do("w"), needs=("c",)),
    )  # fmt: skip

    assert path(book) == [
        "a.x",
        "a success",
        "b skipped",
        "c.z",
        "c success",
        "d.w",
        "d success",
        "over: success",
    ]


def test_a_handler_runs_only_when_it_is_named() -> None:
    book = playbook(
        step("a", do("x", on_failure="call")), step("b", do("y"), needs=("a",)),
        step("c", do("z"), needs=("b",), tolerates=True), step("call", do("page"), needs=("a",), handler=True),
    )  # fmt: skip

    assert path(book) == [
        "a.x",
        "a success",
        "call skipped",
        "b.y",
        "b success",
        "c.z",
        "c success",
        "over: success",
    ]
    told = path(book, fail=["a.x"])
    assert told[:2] == ["a.x fails", "a failed"] and told[-1] == "over: failed"
    assert {"b skipped", "call.page", "c.z"} <= set(told)


def test_a_step_that_fails_is_rolled_back_newest_first() -> None:
    undo = {"rollback": do("undo-1")}, {"rollback": do("undo-2")}
    book = playbook(
        step("a", do("x", **undo[0]), do("y", **undo[1]), do("z")), step("b", do("w"), needs=("a",))
    )

    assert path(book, fail=["a.z"]) == [
        "a.x", "a.y", "a.z fails", "a undoes undo-2", "a undoes undo-1", "a failed", "b blocked", "over: failed",
    ]  # fmt: skip


def test_rollback_undoes_the_whole_run_before_the_end() -> None:
    book = playbook(
        step("a", do("x", rollback=do("undo-x"))),
        step("b", do("y", rollback=do("undo-y")), do("check", on_failure=words.ROLLBACK), needs=("a",)),
        step("c", do("z"), needs=("b",)),
        final=[step("tell", do("slack"))],
    )

    assert path(book, fail=["b.check"]) == [
        "a.x", "a success", "b.y", "b.check fails", "b undoes undo-y", "b failed", "c cancelled", "a undoes undo-x",
        "tell.slack", "tell success", "over: aborted",
    ]  # fmt: skip


def test_an_action_that_may_have_had_its_effect_is_rolled_back_too() -> None:
    walk, progress = Walk(playbook(step("a", do("x", rollback=do("undo"))))), Progress()
    record(progress, Entered("a"))
    record(progress, Begin("a", 0, 0))

    record(progress, Acted("a", 0, 0, False, reached=True))

    assert walk.moves(progress) == [Undo("a", 0, 0)]


def test_abort_ends_the_run_and_finally_is_done() -> None:
    book = playbook(
        step("a", do("x", on_failure=words.ABORT)), step("b", do("y"), needs=("a",), tolerates=True),
        final=[step("tell", do("slack")), step("more", do("task"), needs=("tell",))],
    )  # fmt: skip

    assert path(book, fail=["a.x", "tell.slack"]) == [
        "a.x fails", "a failed", "b cancelled", "tell.slack fails", "tell failed", "more.task", "more success", "over: aborted",
    ]  # fmt: skip


def test_a_cancelled_run_waits_for_what_is_under_way_and_rolls_nothing_back() -> None:
    book = playbook(
        step("a", do("x", rollback=do("undo")), do("y")),
        step("b", do("z"), needs=("a",)),
        final=[step("tell", do("slack"))],
    )
    walk, progress = Walk(book), Progress()
    record(progress, Entered("a"))
    record(progress, Begin("a", 0, 0))
    record(progress, Stopped())

    assert walk.moves(progress) == [End("b", "cancelled", "the run was cancelled")]
    record(progress, End("b", "cancelled"))
    assert walk.moves(progress) == []
    record(progress, Acted("a", 0, 0, True))
    assert walk.moves(progress) == [End("a", "cancelled", "the run was cancelled")]


def test_a_loop_is_done_turn_by_turn() -> None:
    book = playbook(step("a", do("x"), do("y"), for_each="items"))

    assert path(book) == ["a.x", "a.y", "a.x[1]", "a.y[1]", "a success", "over: success"]
    assert path(book, turns=0) == ["a success", "over: success"]
    assert path(book, fail=["a.y"]) == ["a.x", "a.y fails", "a failed", "over: failed"]


def test_turns_of_a_parallel_loop_are_done_side_by_side() -> None:
    book = playbook(step("a", do("x"), do("y"), for_each="items", parallel=True))

    assert path(book) == ["a.x", "a.x[1]", "a.y", "a.y[1]", "a success", "over: success"]


def test_a_step_that_takes_too_long_fails_after_what_is_under_way() -> None:
    book = playbook(step("a", do("x"), do("y")))

    assert path(book, at=lambda move: TimedOut("a") if move.number == 0 else None) == [
        "a.x",
        "a failed",
        "over: failed",
    ]


@pytest.mark.parametrize(
    ("answer", "otherwise", "expected"),
    [
        (Decided("ok", True), "fail", ["ok asks", "ok success", "go.x", "go success", "call skipped", "over: success"]),
        (Decided("ok", False), "fail", ["ok asks", "ok failed", "go blocked", "call skipped", "over: failed"]),
        (Decided("ok", False), "approve", ["ok asks", "ok failed", "go blocked", "call skipped", "over: failed"]),
        (Decided("ok", False, True), "approve", ["ok asks", "ok success", "go.x", "go success", "call skipped", "over: success"]),
        (Decided("ok", False, True), "fail", ["ok asks", "ok failed", "go blocked", "call skipped", "over: failed"]),
        (Decided("ok", False, True), "call", ["ok asks", "ok failed", "go skipped", "call.page", "call success", "over: failed"]),
        (Decided("ok", True, True), "fail", ["ok asks", "ok failed", "go blocked", "call skipped", "over: failed"]),
    ],
)  # fmt: skip
def test_an_approval_is_waited_for(answer: Decided, otherwise: str, expected: list[str]) -> None:
    book = playbook(
        step("ok", type="approval", approval=Approval(otherwise=otherwise)),
        step("go", do("x"), needs=("ok",)),
        step("call", do("page"), needs=("ok",), handler=True),
    )

    told = path(book, answers={"ok": answer})

    assert sorted(told) == sorted(expected) and told[-1] == expected[-1]


def test_a_sub_playbook_that_fails_fails_its_step() -> None:
    book = playbook(step("sub", type="playbook", playbook="other"))

    assert path(book, answers={"sub": Decided("sub", True)})[-1] == "over: success"
    assert path(book, answers={"sub": Decided("sub", False)})[-1] == "over: failed"
