"""Runs of playbooks as a shard has them, one sentence a story (tests/runs.py). After each step replay equals live."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.incidents.incident import IncidentState, Severity
from models.incidents.run_views import archived_runs
from models.incidents.verbs import (
    ApproveRun,
    Assign,
    CancelRun,
    HoldRun,
    Reclassify,
    Resolve,
    StartRun,
)
from models.playbook.playbook import ABORT, FAIL, NEXT, Step, Trigger
from models.playbook.run import ABORTED, CANCELLED, PAUSED, RUNNING, id_of, question_of
from models.playbook.run_events import RunNotStarted, RunStarted
from models.playbook.work import (
    APPROVAL,
    FAILED,
    REFUSED,
    SKIPPED,
    SUCCEEDED,
    WAIT,
    Capture,
    Do,
    Done,
    Enter,
    IncidentEffect,
    Work,
)
from models.routes.route import ReceiverRow, Route
from models.shard.effects import Act
from models.shard.events import NotificationOwed
from models.shard.runs import WITHIN_MAX, Perform, Runs
from models.shard.settings import ShardSettings
from models.shard.shard import Shard
from models.shard.slot_transfer import arrived, leaving
from tests.runs import SETTINGS, Answer, Approval, Retry, RunStory, act, book, offered, step
from tests.scenario import Refusal, alert, at
from tests.simulation.dump import difference, dump


def failing(*kinds: str, **fields: Any) -> Answer:
    """Answers FAILED for these types of action."""

    def answer(work: Work, _again: bool) -> Done:
        if isinstance(work, Do) and work.action.type in kinds and not work.undo:
            return Done(FAILED, "it broke", **fields)
        return Done(SUCCEEDED)

    return answer


def always(done: Done) -> Answer:
    return lambda _work, _again: done


# -- going through ---------------------------------------------------------------------------------------------


def test_a_playbook_that_matches_runs_step_by_step_and_the_timeline_tells_it() -> None:
    story = RunStory([book("heal", [step("look", act("health_check")), step("fix", act("service_restart"))])])

    story.open(at(0))
    assert story.asks == ["do health_check"]
    assert story.states() == [IncidentState.TRIAGED]
    story.perform(at(1), most=1)
    assert story.asks == ["do service_restart"]
    assert story.states() == [IncidentState.REMEDIATING]
    story.perform(at(2))

    assert story.run.status == SUCCEEDED
    assert story.kinds(story.incident)[-5:] == [
        "PlaybookStarted",
        "ActionExecuted",
        "StateChanged",
        "ActionExecuted",
        "PlaybookCompleted",
    ]
    assert story.incident.timeline[-1].actor == "playbook heal"


def test_without_a_verdict_it_is_chosen_after_300_milliseconds() -> None:
    story = RunStory([book("heal", [step("fix", act())])])
    story.push(at(0), alert("llm-api", "Down"))

    story.tick(at(0.2))
    assert story.asks == []
    story.tick(at(0.35))

    assert story.asks == ["do service_restart"]


def test_a_condition_is_asked_for_and_a_step_that_it_rules_out_is_skipped() -> None:
    story = RunStory(
        [book("heal", [step("fix", act(), condition="{{ false }}"), step("tell", act("slack"))])]
    )
    story.open(at(0))

    assert story.asks == ["enter fix"]
    story.perform(at(1), lambda work, _: Done(SKIPPED if isinstance(work, Enter) else SUCCEEDED))

    assert [story.run.steps[name].status for name in ("fix", "tell")] == [SKIPPED, SUCCEEDED]


def test_a_check_that_succeeds_spares_the_action_right_after_it() -> None:
    check = act("health_check", guards=True, on_failure=NEXT)
    story = RunStory([book("heal", [step("fix", check, act(), act("verify_resolution"))])])
    story.open(at(0))

    done: list[str] = []
    story.perform(at(1), lambda work, _: done.append(work.action.type) or Done(SUCCEEDED))  # type: ignore[union-attr,func-returns-value]

    assert done == ["health_check", "verify_resolution"]
    assert story.incident.state is IncidentState.TRIAGED
    assert "not needed" in story.lines("ActionExecuted")[1]


def test_a_check_that_fails_leads_to_the_repair_and_one_that_could_not_be_made_does_not() -> None:
    check = act("health_check", guards=True, on_failure=NEXT)
    for final, wanted in ((False, ["health_check", "service_restart"]), (True, ["health_check"])):
        story = RunStory([book("heal", [step("fix", check, act())])])
        story.open(at(0))
        done: list[str] = []

        def answer(work: Work, _again: bool, done: list[str] = done, final: bool = final) -> Done:
            assert isinstance(work, Do)
            done.append(work.action.type)
            return Done(FAILED, "503", final=final) if work.action.type == "health_check" else Done(SUCCEEDED)

        story.perform(at(1), answer)
        assert done == wanted


def test_a_jump_leaves_out_what_lies_between() -> None:
    story = RunStory(
        [
            book(
                "heal",
                [
                    step("fix", act(on_success="resolve", on_failure="escalate")),
                    step("escalate", act("page", changes=False)),
                    step("resolve", act("incident_resolve", changes=False)),
                ],
            )
        ]
    )
    story.open(at(0))
    story.perform(at(1))

    assert {name: each.status for name, each in story.run.steps.items()} == {
        "fix": SUCCEEDED,
        "escalate": SKIPPED,
        "resolve": SUCCEEDED,
    }


def test_what_needs_a_failed_step_is_not_done_unless_it_tolerates_that() -> None:
    story = RunStory(
        [
            book(
                "heal",
                [
                    step("fix", act()),
                    step("after", act("slack", changes=False)),
                    step("at last", act("page", changes=False), tolerates=True),
                ],
            )
        ]
    )
    story.open(at(0))
    story.perform(at(1), failing("service_restart", final=True))

    assert [story.run.steps[name].status for name in ("fix", "after", "at last")] == [
        FAILED,
        SKIPPED,
        SUCCEEDED,
    ]
    assert story.run.status == FAILED
    assert "fix failed" in story.run.detail


def test_a_failed_notification_fails_nothing() -> None:
    story = RunStory(
        [book("heal", [step("tell", act("slack", changes=False), kind="notification"), step("fix", act())])]
    )
    story.open(at(0))

    assert story.asks == ["do slack", "do service_restart"]  # a notification holds nothing up
    story.perform(at(1), failing("slack", final=True))

    assert story.run.status == SUCCEEDED


def test_actions_of_a_parallel_step_are_asked_for_at_once() -> None:
    story = RunStory([book("heal", [step("all", act("a"), act("b"), act("c"), parallel=True)])])

    story.open(at(0))

    assert story.asks == ["do a", "do b", "do c"]


def test_a_step_is_repeated_for_each_item() -> None:
    story = RunStory([book("heal", [step("fix", act(), for_each="{{ pods }}")])])
    story.open(at(0))
    items: list[object] = []

    def answer(work: Work, _again: bool) -> Done:
        if isinstance(work, Enter):
            return Done(SUCCEEDED, items=("a", "b", "c"))
        items.append(work.context.item)
        return Done(SUCCEEDED)

    story.perform(at(1), answer)

    assert items == ["a", "b", "c"]
    assert len(set(story.keys)) == 4


def test_a_sub_playbook_is_a_run_of_its_own_and_its_failure_is_its_step_s() -> None:
    inner = book("inner", [step("fix", act())], trigger=Trigger())
    outer = book("outer", [step("call", playbook="inner", kind="playbook")])
    for fails in (False, True):
        story = RunStory([outer, inner])
        story.open(at(0))
        story.perform(at(1), failing(*(["service_restart"] if fails else []), final=True))

        assert [each.playbook for each in story.runs] == ["outer", "inner"]
        assert {each.status for each in story.runs} == {FAILED if fails else SUCCEEDED}


def calling(mode: str, *steps: Step) -> RunStory:
    """A playbook that calls another one, which is active, paused or a shadow."""
    outer = book("outer", [step("call", playbook="inner", timeout_s=60.0), *steps], in_order=False)
    inner = book("inner", [step("a", act("service_restart")), step("b", act("scale"))], trigger=Trigger())
    story = RunStory()
    story.offer(at(0), offered(outer), offered(inner, mode))
    story.open(at(1))
    return story


def test_a_sub_playbook_that_is_a_shadow_does_nothing_and_one_that_is_paused_is_not_begun() -> None:
    shadow = calling("shadow")
    assert [work.dry for _effect, work in shadow.work if isinstance(work, Do)] == [True]

    paused = calling("paused")
    assert paused.work == []
    assert "inner is paused" in paused.run.detail


def test_a_sub_playbook_that_nobody_waits_for_does_nothing_more() -> None:
    late = calling("active")
    late.ticks(at(2), at(63))
    late.perform(at(64))
    aborted = calling("active", step("stop", act("http_call", on_failure=ABORT)))
    aborted.perform(at(2), failing("http_call", final=True))

    for story in (late, aborted):
        assert [each.status for each in story.runs][1] == CANCELLED
        assert not any(".2.0." in key for key in story.keys if key.startswith(id_of(story.runs[1].id)))


def test_playbooks_that_call_themselves_again_and_again_come_to_an_end() -> None:
    many = [step(f"s{number}", playbook="p", tolerates=True) for number in range(50)]
    story = RunStory([book("p", many, in_order=False)])
    story.open(at(0))
    story.ticks(at(1), at(60))

    assert len(story.happened(RunStarted)) <= WITHIN_MAX + 1
    assert story.shard.of(Runs).store.active == {}


def test_a_jump_to_a_step_that_is_under_way_does_not_do_it_twice_at_once() -> None:
    steps = [step("a", act("http_call", on_failure="b")), step("b", act("service_restart"))]
    story = RunStory([book("p", steps, in_order=False)])
    story.open(at(0))
    story.perform(
        at(1),
        lambda work, again: (
            None
            if isinstance(work, Do) and work.step == "b"
            else failing("http_call", final=True)(work, again)
        ),
        most=1,
    )

    assert story.asks == ["do service_restart"]


def test_what_is_to_be_done_at_the_end_is_done_however_it_ends() -> None:
    final = (step("clean", act("http_call")),)
    story = RunStory([book("heal", [step("fix", act(on_failure=ABORT))], final=final)])
    story.open(at(0))
    story.perform(at(1), failing("service_restart", final=True))

    assert story.run.status == ABORTED
    assert story.run.steps["clean"].status == SUCCEEDED


# -- trying again, undoing, waiting ------------------------------------------------------------------------------


def test_an_action_that_failed_is_tried_again_with_another_key_and_not_at_once() -> None:
    story = RunStory([book("heal", [step("fix", act(), retry=Retry(most=2, first_s=4.0))])])
    story.open(at(0))
    story.perform(at(0), failing("service_restart"), most=1)

    story.tick(at(1))
    assert story.asks == []
    story.tick(at(4))
    assert story.asks == ["do service_restart"]
    story.perform(at(4), failing("service_restart"), most=1)
    story.tick(at(12))
    story.perform(at(12), failing("service_restart"))

    assert [key.rsplit("-", 1)[1] for key in story.keys] == ["0", "1", "2"]
    assert story.run.status == FAILED


def test_what_a_failed_step_did_is_undone_the_last_first() -> None:
    undo = act("undo", changes=True)
    story = RunStory(
        [
            book(
                "heal",
                [
                    step(
                        "fix",
                        act("a", rollback=msgspec.structs.replace(undo, type="not a")),
                        act("b", rollback=msgspec.structs.replace(undo, type="not b")),
                        act("c"),
                    )
                ],
            )
        ]
    )
    story.open(at(0))
    undone: list[str] = []

    def answer(work: Work, _again: bool) -> Done:
        assert isinstance(work, Do)
        if work.undo:
            undone.append(work.action.type)
        return Done(FAILED, "no", final=True) if work.action.type == "c" else Done(SUCCEEDED)

    story.perform(at(1), answer)

    assert undone == ["not b", "not a"]
    assert story.run.status == FAILED
    assert "rolled back" in story.run.steps["fix"].detail


def test_a_rollback_that_policy_wants_approved_does_not_count_as_done() -> None:
    undo = act("back", changes=True)
    story = RunStory([book("heal", [step("fix", act("a", rollback=undo), act("c"))])])
    story.open(at(0))

    def answer(work: Work, _again: bool) -> Done:
        assert isinstance(work, Do)
        if work.undo:
            return Done(APPROVAL, "changes of production need one", approvers=("ann",))
        return Done(FAILED, "no", final=True) if work.action.type == "c" else Done(SUCCEEDED)

    story.perform(at(1), answer)

    assert story.run.status == FAILED
    assert "rollback failed: not undone" in story.run.steps["fix"].detail


def test_a_wait_is_a_timer_that_outlives_the_process() -> None:
    story = RunStory([book("heal", [step("fix", act("wait"), act("verify"))])])
    story.open(at(0))
    story.perform(at(0), lambda work, _: Done(WAIT, wait_s=30.0), most=1)

    story.restart(at(10))
    story.tick(at(29))
    assert story.asks == []
    story.tick(at(31))

    assert story.asks == ["do verify"]


def test_a_run_that_takes_too_long_ends() -> None:
    story = RunStory(
        [book("heal", [step("fix", act())])], msgspec.structs.replace(SETTINGS, playbooks_longest_s=60.0)
    )
    story.open(at(0))
    story.ticks(at(1), at(60))
    assert story.run.ended_at == 0.0

    story.ticks(at(61), at(61 + 901))

    assert story.run.status == FAILED
    assert story.incident.state is not IncidentState.CLOSED


# -- crashes -----------------------------------------------------------------------------------------------------


def test_after_a_crash_what_was_asked_for_is_asked_for_again_by_the_same_key() -> None:
    story = RunStory([book("heal", [step("fix", act())])])
    story.open(at(0))
    (before,) = story.work

    story.restart(at(5))

    (after,) = story.work
    assert after[0].key == before[0].key
    assert story.asks == ["do service_restart again"]
    story.perform(at(6))
    assert story.run.status == SUCCEEDED


def test_a_try_that_reached_nobody_is_made_again_by_the_same_key_and_as_one_that_may_have_been_done() -> None:
    story = RunStory([book("heal", [step("fix", act(), retry=Retry(most=2, first_s=4.0))])])
    story.open(at(0))
    (before,) = story.work
    story.restart(at(1))

    story.perform(at(1), failing("service_restart", reached=False), most=1)
    story.ticks(at(2), at(6))

    (after,) = story.work
    assert after[0].key == before[0].key
    assert story.asks == ["do service_restart again"]


def test_an_answer_to_an_earlier_try_changes_nothing() -> None:
    story = RunStory([book("heal", [step("fix", act(), act("verify"))])])
    story.open(at(0))
    ((first, _work),) = story.work
    story.perform(at(1), most=1)
    before = len(story.events)

    story.answer(at(2), first, Done(FAILED, "late"))

    assert len(story.events) == before


def test_what_must_not_be_done_twice_and_may_have_been_is_not_tried_again() -> None:
    story = RunStory([book("heal", [step("fix", act(once=True, retry=Retry(most=5)))])])
    story.open(at(0))
    story.perform(at(0), failing("service_restart", reached=True))
    story.ticks(at(1), at(100))

    assert len(story.keys) == 1
    assert "unknown whether it was done" in story.run.detail


def test_what_must_not_be_done_twice_and_surely_was_not_is_tried_again() -> None:
    story = RunStory([book("heal", [step("fix", act(once=True, retry=Retry(most=5)))])])
    story.open(at(0))
    story.perform(at(0), failing("service_restart", reached=False), most=1)
    story.ticks(at(1), at(3))

    assert story.asks == ["do service_restart"]


# -- what it does to the incident --------------------------------------------------------------------------------


def test_what_actions_stand_for_is_done_by_the_shard() -> None:
    effects = (
        IncidentEffect("severity", "P0"),
        IncidentEffect("assign", "ann, bob"),
        IncidentEffect("comment", "restarted"),
        IncidentEffect("task", "write it up", at(86400)),
        IncidentEffect("resolve", "fixed itself"),
    )
    story = RunStory([book("heal", [step("fix", act())])])
    story.open(at(0))
    story.perform(at(1), lambda work, _: Done(SUCCEEDED, effects=effects))

    incident = story.incident
    assert incident.state is IncidentState.RESOLVED
    assert incident.severity is Severity.P0
    assert incident.assignees == ["ann", "bob"]
    assert incident.resolution is not None
    assert (incident.resolution.by, incident.resolution.method) == ("playbook heal", "Automated")
    assert {
        line.actor
        for line in incident.timeline
        if line.kind in ("CommentAdded", "Reclassified", "TaskPlanned")
    } == {"playbook heal"}


def test_escalate_where_no_step_has_that_name_makes_it_worse_by_one() -> None:
    story = RunStory([book("heal", [step("fix", act(on_failure="escalate"))])])
    story.open(at(0), Severity.P2)
    story.perform(at(1), failing("service_restart", final=True))

    assert story.incident.severity is Severity.P1


def test_nothing_is_repaired_once_the_incident_is_over() -> None:
    story = RunStory(
        [book("heal", [step("look", act("health_check")), step("fix", act()), step("tell", act("slack"))])]
    )
    incident = story.open(at(0))
    story.do(at(1), Resolve(), incident)

    story.perform(at(2))

    assert "the incident is over" in story.lines("ActionExecuted")[1]
    assert story.run.status == SUCCEEDED


def test_what_an_action_captured_is_kept_packed_and_bounded() -> None:
    captures = (Capture("logs", "text/plain", "x" * 300_000), Capture("cpu", "application/json", "[1]"))
    story = RunStory([book("heal", [step("look", act("logs_capture"))])])
    story.open(at(0))
    story.perform(at(1), lambda work, _: Done(SUCCEEDED, captures=captures))

    kept = [*story.shard.of(Runs).store.captured_of(story.incident.id)]
    assert [(each.name, each.cut, each.size) for each in kept] == [
        ("logs", True, 256 * 1024),
        ("cpu", False, 3),
    ]
    assert len(kept[0].packed) < 2000


def test_an_answer_that_lies_ends_the_action_and_not_the_shard() -> None:
    story = RunStory([book("heal", [step("fix", act())])])
    story.open(at(0))
    story.perform(at(1), lambda work, _: Done("splendid"))
    assert story.run.status == FAILED

    story = RunStory([book("heal", [step("fix", act())])])
    story.open(at(0))
    story.perform(at(1), lambda work, _: Done(SUCCEEDED, outputs={"all": "x" * 100_000}))
    assert story.run.steps["fix"].outputs == {}
    assert "left out" in story.lines("ActionExecuted")[0]


def test_outputs_that_a_log_could_not_be_read_with_are_left_out() -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    story = RunStory([book("heal", [step("fix", act())])])
    story.open(at(0))
    story.perform(at(1), always(Done(SUCCEEDED, outputs={"deep": deep})))

    assert story.run.steps["fix"].outputs == {}
    assert story.run.status == SUCCEEDED


def test_refused_by_policy_is_not_tried_again() -> None:
    story = RunStory([book("heal", [step("fix", act(retry=Retry(most=5)))])])
    story.open(at(0))
    story.perform(at(1), lambda work, _: Done(REFUSED, "not on Fridays", decided="deny"))

    assert len(story.keys) == 1
    assert story.run.status == FAILED


# -- which, when, how often ----------------------------------------------------------------------------------------


def test_one_that_matches_better_goes_first_and_the_next_when_it_is_over() -> None:
    specific = book(
        "specific",
        [step("fix", act("a"))],
        trigger=Trigger(severities=tuple(Severity), services=("llm-api",)),
    )
    general = book("general", [step("fix", act("b"))])
    urgent = book("urgent", [step("fix", act("c"))], priority=5)
    story = RunStory([general, specific, urgent])
    story.open(at(0))

    assert story.asks == ["do c"]
    story.perform(at(1))

    assert [each.playbook for each in story.runs] == ["urgent", "specific", "general"]


def test_an_incident_that_reopens_again_and_again_is_left_to_people() -> None:
    story = RunStory([book("heal", [step("fix", act())])])
    story.open(at(0))
    story.perform(at(1))
    for second in (10, 20, 30):
        story.push(at(second), alert("llm-api", "Down").ended(second))
        story.push(at(second + 5), alert("llm-api", "Down"))
        story.ticks(at(second + 5), at(second + 7))

    assert len(story.happened(RunStarted)) == 1
    assert "playbooks.again_after" in story.lines("PlaybookNotStarted")[0]
    story.push(at(90), alert("llm-api", "Down").ended(90))
    story.push(at(95), alert("llm-api", "Down"))
    story.ticks(at(95), at(97))
    assert len(story.happened(RunStarted)) == 2


def test_what_was_refused_is_not_chosen_again_by_the_next_process() -> None:
    story = RunStory([book("heal", [step("fix", act())])])
    story.open(at(0))
    story.perform(at(1))
    story.push(at(10), alert("llm-api", "Down").ended(10))
    story.push(at(15), alert("llm-api", "Down"))
    story.ticks(at(15), at(17))
    assert len(story.happened(RunNotStarted)) == 1

    story.restart(at(600))
    story.ticks(at(600), at(603))

    assert story.asks == []
    assert len(story.happened(RunNotStarted)) == 1


def test_runs_for_one_service_within_an_hour_are_bounded() -> None:
    settings = msgspec.structs.replace(SETTINGS, playbooks_per_service=2, max_open=10)
    story = RunStory([book("heal", [step("fix", act())])], settings)
    for second, name in enumerate(("Down", "Slow", "Odd")):
        story.push(at(second), alert("llm-api", name))
        story.classify(at(second), Severity.P1)
        story.perform(at(second))

    (refused,) = story.happened(RunNotStarted)
    assert isinstance(refused, RunNotStarted)
    assert "playbooks.per_service" in refused.why


def test_a_playbook_runs_for_what_opens_after_it_was_applied() -> None:
    heal = book("heal", [step("fix", act())])
    story = RunStory()
    story.open(at(0))
    story.offer(at(5), offered(heal, since=at(5)))
    story.ticks(at(6), at(8))
    assert story.asks == []

    story.open(at(9), service="db")
    assert story.asks == ["do service_restart"]


def test_a_rise_in_severity_adds_what_matches_then() -> None:
    quiet = book("quiet", [step("look", act("a"))], trigger=Trigger(severities=(Severity.P3,)))
    loud = book("loud", [step("fix", act("b"))], trigger=Trigger(severities=(Severity.P1,)))
    story = RunStory([quiet, loud])
    incident = story.open(at(0), Severity.P3)
    story.perform(at(1))
    story.do(at(2), Reclassify(Severity.P1), incident)
    story.perform(at(3))

    assert [each.playbook for each in story.runs] == ["quiet", "loud"]


def test_what_matches_when_a_run_made_it_worse_is_chosen_in_that_very_step() -> None:
    """Left to the next step, it would stand in the frame of whoever that one is about."""
    failing = book("failing", [step("fix", act())], trigger=Trigger(severities=(Severity.P2,)))
    loud = book("loud", [step("fix", act("b"))], trigger=Trigger(severities=(Severity.P1,)))
    story = RunStory([failing, loud])
    incident = story.open(at(0), Severity.P2)
    story.perform(at(1), lambda work, _: Done(FAILED, "no", final=True), most=1)

    assert incident.severity is Severity.P1  # a repair that failed escalates
    assert [each.playbook for each in story.runs] == ["failing", "loud"]


def test_a_shadow_decides_and_does_nothing() -> None:
    story = RunStory([book("heal", [step("fix", act(once=True), act("wait"))])], mode="shadow")
    story.open(at(0))
    dry: list[bool] = []

    def answer(work: Work, _again: bool) -> Done:
        assert isinstance(work, Do)
        dry.append(work.dry)
        return (
            Done(WAIT, wait_s=600)
            if work.action.type == "wait"
            else Done(SUCCEEDED, effects=(IncidentEffect("resolve"),))
        )

    story.perform(at(1), answer)

    assert dry == [True, True]
    assert story.incident.state is IncidentState.TRIAGED
    assert story.run.status == SUCCEEDED
    assert "shadow" in story.lines("PlaybookStarted")[0]


def test_an_expression_of_a_trigger_is_asked_for_and_survives_a_crash() -> None:
    heal = book("heal", [step("fix", act())], trigger=Trigger(expression="{{ incident.alerts > 3 }}"))
    for items, asks in (((0,), ["do service_restart"]), ((), [])):
        story = RunStory([heal])
        story.open(at(0))
        assert story.asks == ["choose"]
        story.restart(at(1))
        assert story.asks == ["choose"]

        story.perform(at(2), always(Done(SUCCEEDED, items=items)), most=1)

        assert story.asks == asks


# -- where it is kept --------------------------------------------------------------------------------------------


def test_an_expression_that_does_not_hold_is_asked_again_at_the_verdict_and_not_by_the_next_process() -> None:
    heal = book("heal", [step("fix", act())], trigger=Trigger(expression="{{ incident.type == 'x' }}"))
    story = RunStory([heal])
    story.push(at(0), alert("llm-api", "Down"))
    story.tick(at(1))
    story.perform(at(1))
    story.restart(at(2))
    story.tick(at(3))
    assert story.asks == []

    story.classify(at(4), story.incident.severity)
    assert story.asks == ["choose"]


def test_a_run_goes_with_its_incident_to_another_partition_and_goes_on_there() -> None:
    story = RunStory([book("heal", [step("look", act("a")), step("fix", act("b"))])])
    story.open(at(0))
    story.perform(at(1), always(Done(SUCCEEDED, captures=(Capture("logs", "text/plain", "line"),))), most=1)
    incident = story.incident
    (left,) = leaving(story.shard, incident.slot, [incident.id], 2)

    there = Shard("shard/0001", SETTINGS)
    there.apply(arrived(left), at(2))
    story.shard.apply(left, at(2))
    there.epoch = 1
    step_there = there.started("shard-0001-a", at(3))

    assert not story.shard.of(Runs).store.by_incident and not story.shard.of(Runs).store.bodies
    store = there.of(Runs).store
    assert [run.playbook for run in store.of(incident.id).runs] == ["heal"]
    assert [each.name for each in store.captured_of(incident.id)] == ["logs"]
    asked = [each for each in step_there.effects if isinstance(each, Perform)]
    assert [each.step for each in asked] == ["fix"]


def test_a_snapshot_holds_runs_their_playbook_and_what_they_captured() -> None:
    story = RunStory([book("heal", [step("look", act("a")), step("fix", act("b"))])])
    story.open(at(0))
    story.perform(at(1), always(Done(SUCCEEDED, captures=(Capture("logs", "text/plain", "line"),))), most=1)
    story.shard.checkpoint.begin()
    records: dict[str, bytes | None] = {}
    while found := story.shard.checkpoint.slice(1 << 20):
        records.update(found)

    again = Shard("shard/0000", SETTINGS)
    again.load(sorted((key, record) for key, record in records.items() if record is not None))
    again.loaded()

    assert not difference(dump(story.shard, at(20)), dump(again, at(20)))


def test_what_leaves_to_the_archive_takes_its_runs_along() -> None:
    story = RunStory([book("heal", [step("fix", act())])])
    story.open(at(0))
    story.perform(at(1), always(Done(SUCCEEDED, captures=(Capture("logs", "text/plain", "line"),))))
    record = story.shard.of(Runs).store.carried(story.incident.id)
    assert record is not None
    story.push(at(2), alert("llm-api", "Down").ended(2))
    story.ticks(at(3), at(200))
    story.archive(at(200))

    assert not story.shard.of(Runs).store.by_incident and not story.shard.of(Runs).store.captures
    (view,) = archived_runs(record, "llm-api", "Down")
    assert view.run.status == SUCCEEDED
    assert [each.name for each in view.captures] == ["logs"]


# -- approvals ---------------------------------------------------------------------------------------------------


def waiting(**fields: Any) -> RunStory:
    """A run that waits for somebody to agree, then repairs."""
    gate = Approval(**{"within_s": 100.0, "message": "restart?", **fields})
    story = RunStory([book("heal", [step("ask", kind="approval", approval=gate), step("fix", act())])])
    story.open(at(0))
    return story


def test_a_step_waits_until_enough_people_agreed() -> None:
    story = waiting(needed=2)
    story.restart(at(5))
    for name in ("ann", "ann", "bob"):
        assert story.asks == []
        story.do(at(10), ApproveRun(story.run.id), story.incident, by=name)

    assert story.asks == ["do service_restart"]
    assert story.lines("ApprovalGiven") == ["ask of heal approved", "ask of heal approved"]


def test_only_who_was_asked_may_approve() -> None:
    story = waiting(who=("ann", "commander"))
    with pytest.raises(Refusal, match="ann or commander"):
        story.do(at(1), ApproveRun(story.run.id), story.incident, by="bob")

    story.do(at(2), Assign(roles={"commander": "bob"}), story.incident)
    story.do(at(3), ApproveRun(story.run.id), story.incident, by="bob")

    assert story.asks == ["do service_restart"]


def test_whoever_agrees_too_late_has_not_agreed() -> None:
    story = waiting()
    story.do(at(1), HoldRun(story.run.id, True), story.incident)
    story.ticks(at(2), at(110))
    with pytest.raises(Refusal, match="the time to approve step 'ask' is over"):
        story.do(at(111), ApproveRun(story.run.id), story.incident)
    story.do(at(112), HoldRun(story.run.id, False), story.incident)

    assert story.asks == []
    assert story.run.status == FAILED


def test_one_who_says_no_ends_it() -> None:
    story = waiting(needed=2, otherwise="approve")
    story.do(at(1), ApproveRun(story.run.id, denied=True), story.incident, reason="not now")

    assert story.run.status == FAILED
    assert "denied by ann" in story.run.detail
    with pytest.raises(Refusal, match="the run is over"):
        story.do(at(2), ApproveRun(story.run.id), story.incident)


def test_what_becomes_of_it_when_nobody_answers_is_said_by_the_playbook() -> None:
    for otherwise, status in (("fail", FAILED), ("approve", SUCCEEDED), ("fix", SUCCEEDED)):
        story = waiting(otherwise=otherwise)
        story.tick(at(99))
        assert story.run.ended_at == 0.0
        story.tick(at(101))
        story.perform(at(102))
        done = [work for work in story.run.steps.values() if work.status == SUCCEEDED]
        assert bool(done) is (status == SUCCEEDED)


# -- by hand -----------------------------------------------------------------------------------------------------


def test_people_start_pause_and_go_on_with_a_run() -> None:
    story = RunStory([book("heal", [step("fix", act("wait"), act())], trigger=Trigger())])
    incident = story.open(at(0))
    story.do(at(1), StartRun("heal"), incident)
    assert story.run.by == "ann"
    story.perform(at(1), always(Done(WAIT, wait_s=10)), most=1)

    story.do(at(2), HoldRun(story.run.id, True), incident)
    story.ticks(at(3), at(30))
    assert story.asks == []
    story.do(at(31), HoldRun(story.run.id, False), incident)

    assert story.asks == ["do service_restart"]


def test_whoever_pauses_a_run_pauses_its_sub_playbooks() -> None:
    story = calling("active")
    outer, inner = story.runs
    story.do(at(2), HoldRun(outer.id, True), story.incident)
    story.perform(at(3))
    assert [each.status for each in story.runs] == [PAUSED, PAUSED]
    assert story.keys == [f"{id_of(inner.id)}.1.0.0-0"]

    story.do(at(4), HoldRun(outer.id, False), story.incident)
    assert story.asks == ["do scale"]


def test_a_cancelled_run_begins_nothing_more_but_what_is_done_at_the_end() -> None:
    final = (step("clean", act("http_call")),)
    story = RunStory([book("heal", [step("fix", act(), act("b"))], final=final)])
    incident = story.open(at(0))

    story.do(at(1), CancelRun(story.run.id), incident, reason="I do it")
    assert story.asks == ["do service_restart"]  # whose answer is waited for
    story.perform(at(2))

    assert story.run.status == CANCELLED
    assert story.run.steps["clean"].status == SUCCEEDED
    with pytest.raises(Refusal, match="is over"):
        story.do(at(3), CancelRun(story.run.id), incident)


def test_a_run_that_is_not_there_or_a_playbook_that_nobody_applied_is_refused() -> None:
    story = RunStory([book("heal", [step("fix", act())])])
    incident = story.open(at(0))

    with pytest.raises(Refusal, match="there is no such run"):
        story.do(at(1), HoldRun(b"x" * 16, True), incident)
    with pytest.raises(Refusal, match="there is no playbook 'other'"):
        story.do(at(1), StartRun("other"), incident)
    with pytest.raises(Refusal, match="runs already"):
        story.do(at(1), StartRun("heal"), incident)


def test_policy_may_want_an_approval_first() -> None:
    story = RunStory([book("heal", [step("fix", act(on_failure=FAIL))])])
    story.open(at(0))
    story.perform(
        at(1), lambda work, _: Done(APPROVAL, "a restart in business hours", approvers=("ann",)), most=1
    )

    assert story.asks == []
    assert "ann" in story.lines("ApprovalAsked")[0]
    story.ticks(at(800), at(902))
    assert story.run.status == FAILED
    assert "nobody approved" in story.run.detail


def test_waiting_for_an_approval_is_no_try() -> None:
    story = RunStory([book("heal", [step("fix", act(), retry=Retry(most=2, first_s=4.0))])])
    story.open(at(0))
    story.perform(at(1), lambda work, _: Done(APPROVAL, "ask ann", approvers=("ann",), reached=False), most=1)
    story.do(at(2), ApproveRun(story.run.id), story.incident, by="ann")

    ((_effect, work),) = story.work
    assert isinstance(work, Do)
    assert (work.attempt, len(work.approved_by)) == (0, 1)


def test_an_approval_is_bound_to_what_was_shown_and_asked_anew_when_that_changed() -> None:
    def answer(work: Work, _again: bool) -> Done:
        assert isinstance(work, Do)
        wanted = f"by {work.context.incident['severity']}"
        if work.approved_by and work.approved_digest == wanted:
            return Done(SUCCEEDED)
        return Done(APPROVAL, f"scale {wanted}", approvers=("ann",), reached=False, digest=wanted)

    story = RunStory([book("heal", [step("fix", act("scale"))])])
    incident = story.open(at(0))
    story.perform(at(1), answer, most=1)
    ((_step, _number, deed),) = story.run.waits_for
    assert (deed.message, deed.digest) == ("scale by P1", "by P1")

    shown = question_of(story.run, *story.run.waits_for[0])

    story.do(at(2), Reclassify(severity=Severity.P0), incident)
    story.do(at(3), ApproveRun(story.run.id, question=shown), incident, by="ann")
    story.perform(at(4), answer, most=1)

    assert story.run.status == RUNNING
    # A yes to the question before is none to this one.
    for no in (False, True):
        with pytest.raises(Refusal, match="does not ask this any more"):
            story.do(at(4), ApproveRun(story.run.id, denied=no, question=shown), incident, by="ann")
    ((_step, _number, deed),) = story.run.waits_for
    assert (deed.message, deed.digest, deed.approved_by) == ("scale by P0", "by P0", [])
    first, second = story.lines("ApprovalAsked")
    assert ("scale by P1" in first, "scale by P0" in second) == (True, True)
    story.do(at(5), ApproveRun(story.run.id), incident, by="ann")
    story.perform(at(6), answer)

    assert story.run.status == SUCCEEDED


def test_a_further_try_of_an_approved_action_is_bound_to_what_was_approved() -> None:
    story = RunStory([book("heal", [step("fix", act(), retry=Retry(most=2, first_s=4.0))])])
    incident = story.open(at(0))
    story.perform(at(1), always(Done(APPROVAL, "ask", reached=False, digest="d1")), most=1)
    story.do(at(2), ApproveRun(story.run.id), incident, by="ann")
    story.perform(at(3), always(Done(FAILED, "it broke")), most=1)
    story.ticks(at(8), at(12))

    ((_effect, work),) = story.work
    assert isinstance(work, Do)
    assert (work.attempt, work.approved_by, work.approved_digest) == (1, ("ann",), "d1")


# -- what actions opened at receivers ----------------------------------------------------------------------------

PAGING = msgspec.structs.replace(
    SETTINGS,
    notify=True,
    wait_s=(0.0,) * 5,
    receivers={
        "ops": ReceiverRow(),
        "night": ReceiverRow(type="pagerduty"),
        "silent": ReceiverRow(sends_resolved=False),
    },
    route=Route(receivers=("ops",)),
)


def paging(*receivers: str, settings: ShardSettings = PAGING, wait: bool = False) -> RunStory:
    """An incident whose playbook paged these; its route tells `ops` alone."""
    story = RunStory(
        [book("page", [step("page", *(act("pagerduty", params={"receiver": each}) for each in receivers))])],
        settings,
    )
    story.open(at(0))
    if not wait:
        story.perform(at(1), paged)
    return story


def paged(work: Work, _again: bool) -> Done:
    assert isinstance(work, Do)
    return Done(
        SUCCEEDED, effects=(IncidentEffect("told", str(work.action.params["receiver"]), ref="page-7"),)
    )


def test_who_was_paged_by_a_playbook_alone_is_told_of_the_end_once() -> None:
    story = paging("night")
    assert story.told(at(1)) == [("ops", "opened")]

    story.push(at(100), alert("llm-api", "Down").ended(100))

    acts = [effect for _when, effect in story.asked if isinstance(effect, Act)]
    assert [(each.target, each.facts.reason, each.facts.ref) for each in acts] == [
        ("ops", "resolved", ""),
        ("night", "resolved", "page-7"),
    ]
    assert sorted(story.told(at(101))) == [("night", "resolved"), ("ops", "resolved")]

    story.push(at(120), alert("llm-api", "Down", "b"))
    assert story.told(at(121)) == [("ops", "reopened")]
    story.push(at(150), alert("llm-api", "Down", "b").ended(150))
    assert story.told(at(151)) == [("ops", "resolved")]


def test_who_was_paged_by_a_playbook_hears_nothing_else_while_it_goes_on() -> None:
    story = paging("night")
    story.told(at(1))

    story.do(at(100), Reclassify(Severity.P0), story.incident)

    assert story.told(at(101)) == [("ops", "severity changed")]


def test_who_is_told_by_a_route_as_well_is_told_of_the_end_once() -> None:
    story = paging("ops")
    story.told(at(1))

    story.push(at(100), alert("llm-api", "Down").ended(100))

    assert story.told(at(101)) == [("ops", "resolved")]
    assert not [event for event in story.named(NotificationOwed) if event.heard_at]


def test_whose_notification_was_not_sent_yet_is_told_of_the_end_of_the_page() -> None:
    story = paging("ops", settings=msgspec.structs.replace(PAGING, wait_s=(60.0,) * 5))

    story.push(at(10), alert("llm-api", "Down").ended(10))

    assert story.told(at(11)) == [("ops", "resolved")]


def test_whose_notification_was_under_way_at_the_end_and_failed_is_told_of_the_end_of_the_page() -> None:
    story = paging("ops")
    story.push(at(10), alert("llm-api", "Down").ended(10))

    story.receive(at(11), by="ops", ok=False, final=True, reached=False)

    assert story.told(at(12)) == [("ops", "resolved")]


def test_who_wants_no_ends_or_is_not_known_any_more_is_told_of_none_of_a_page() -> None:
    story = paging("silent", "gone")
    story.told(at(1))

    story.push(at(100), alert("llm-api", "Down").ended(100))

    assert story.told(at(101)) == [("ops", "resolved")]


def test_a_page_that_arrives_after_the_end_is_ended_at_once() -> None:
    story = paging("night", wait=True)
    story.told(at(1))
    story.push(at(100), alert("llm-api", "Down").ended(100))
    assert story.told(at(101)) == [("ops", "resolved")]

    story.perform(at(102), paged)

    assert story.told(at(102)) == [("night", "resolved")]


def test_a_page_of_a_run_that_only_decides_is_none() -> None:
    story = RunStory(
        [book("page", [step("page", act("pagerduty", params={"receiver": "night"}))])], PAGING, "shadow"
    )
    story.open(at(0))
    story.perform(at(1), paged)
    story.told(at(1))

    story.push(at(100), alert("llm-api", "Down").ended(100))

    assert story.told(at(101)) == [("ops", "resolved")]


def test_an_incident_that_was_paged_about_before_its_verdict_is_still_told_without_one() -> None:
    story = RunStory([book("page", [step("page", act("pagerduty", params={"receiver": "night"}))])], PAGING)
    story.push(at(0), alert("llm-api", "Down"))
    story.tick(at(0.4))
    story.perform(at(1), paged)
    assert story.told(at(1)) == []

    story.ticks(at(2), at(6))

    assert story.told(at(6)) == [("ops", "opened")]
