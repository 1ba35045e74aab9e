"""What is asked before a run begins, and what becomes of one that is refused."""

from __future__ import annotations

from models.incidents.incident import Severity
from models.incidents.verbs import Resolve
from models.playbook.run_events import RunNotStarted, RunStarted
from models.playbook.work import FAILED, REFUSED, SUCCEEDED, Check, Done, decode_work
from models.shard.runs import Perform
from tests.runs import RunStory, act, book, step
from tests.scenario import at

NO = Done(REFUSED, "service_restart: not allowed by policy: a freeze", final=True)
RESTART = book("restart", [step("look", act("logs_capture")), step("fix", act("service_restart"))])
ESCALATES = book(
    "heal",
    [
        step("fix", act("service_restart", on_failure="escalate"), act("wait")),
        step("page", act("pagerduty_escalate"), kind="escalation", tolerates=True),
    ],
)


def waiting(*books: object) -> RunStory:
    story = RunStory(books)  # type: ignore[arg-type]
    story.check = None
    story.open(at(0))
    return story


def test_what_a_run_would_change_is_asked_about_before_it_begins() -> None:
    story = waiting(RESTART)
    assert story.asks == ["check"]
    assert story.runs == []
    check = story.work[0][1]
    assert isinstance(check, Check)
    assert [(each.step, each.action.type) for each in check.actions] == [("fix", "service_restart")]
    story.answer_checks(at(0.1), Done(SUCCEEDED))
    story.perform(at(0.2))
    assert story.run.status == SUCCEEDED


def test_a_playbook_that_changes_nothing_begins_at_once() -> None:
    story = waiting(book("look", [step("look", act("logs_capture"))]))
    assert story.asks == ["do logs_capture"]


def test_one_that_is_refused_does_not_begin_and_the_timeline_says_why() -> None:
    story = waiting(RESTART)
    story.answer_checks(at(0.1), NO)
    assert story.runs == []
    assert story.lines("PlaybookNotStarted") == [f"restart: {NO.detail}"]
    assert story.incident.severity is Severity.P1


def test_one_that_says_how_to_go_on_escalates_and_changes_nothing() -> None:
    story = waiting(ESCALATES)
    story.answer_checks(at(0.1), NO)
    done = []
    story.perform(at(0.2), lambda work, _again: done.append(work.action.type) or Done(SUCCEEDED))  # type: ignore[func-returns-value,union-attr]
    assert done == ["pagerduty_escalate"]
    assert story.run.status == FAILED
    assert story.incident.severity is Severity.P0
    assert "changes nothing" in story.lines("PlaybookStarted")[0]
    assert story.happened(RunNotStarted) == []


def test_what_could_not_be_found_out_is_no_refusal() -> None:
    story = waiting(RESTART)
    story.answer_checks(at(0.1), Done(FAILED, "the worker has a bug"))
    assert len(story.runs) == 1


def test_the_question_is_asked_again_after_a_crash_and_a_late_answer_begins_nothing_twice() -> None:
    story = waiting(RESTART)
    (_when, before) = next(each for each in story.asked if isinstance(each[1], Perform))
    assert isinstance(before, Perform)
    story.restart(at(1))
    story.tick(at(1.5))
    assert story.asks == ["check"]
    again = story.work[0][0]
    assert again.key == before.key
    story.answer(at(2), before, Done(SUCCEEDED))
    story.answer(at(3), again, NO)
    assert len(story.happened(RunStarted)) == 1
    assert len(story.runs) == 1


def test_an_answer_that_comes_when_the_incident_is_over_begins_nothing() -> None:
    story = waiting(RESTART)
    effect = story.work[0][0]
    assert isinstance(decode_work(effect.work), Check)
    story.do(at(1), Resolve(), story.incident)
    story.answer(at(2), effect, Done(SUCCEEDED))
    assert story.runs == []
    assert story.shard.owes(story.incident) is False
