"""Playbooks that run by the clock, as a shard has them (tests/runs.py). After each step replay equals live."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from models.incidents.incident import Incident, IncidentState, Severity
from models.people.policy import Outline
from models.playbook.playbook import Playbook, Trigger
from models.playbook.schedule import last_due, next_due
from models.playbook.work import FAILED, REFUSED, Do, Done, Work
from models.routes.route import ReceiverRow, Route
from models.shard.effects import Act
from models.shard.escalation import Page, PoliciesChanged
from models.shard.schedules import LATE_MAX_S, RunLeftOut, RunScheduled
from models.shard.settings import ShardSettings
from tests.runs import SETTINGS, RunStory, act, book, offered, step
from tests.scenario import ZERO

HOURLY = "0 * * * *"
FIRST = next_due(HOURLY, ZERO - 1)
HOUR_S = 3600.0
TELLING = msgspec.structs.replace(
    SETTINGS, notify=True, receivers={"pager": ReceiverRow()}, route=Route(receivers=("pager",))
)


def clean(schedule: str = HOURLY, **trigger: object) -> Playbook:
    return book("clean", [step("sweep", act("http_call"))], trigger=Trigger(schedule=schedule, **trigger))  # type: ignore[arg-type]


def story_of(*books: Playbook, settings: ShardSettings = SETTINGS, mode: str = "active") -> RunStory:
    return RunStory(books or [clean()], settings, mode)


def scheduled(story: RunStory) -> list[Incident]:
    return [each for each in story.shard.state.incidents.values() if each.source == "schedule"]


def broken(work: Work, _again: bool) -> Done:
    return Done(FAILED, "no route to host") if isinstance(work, Do) else Done("succeeded")


# -- when ------------------------------------------------------------------------------------------------------


def test_a_schedule_is_read_in_utc() -> None:
    night = datetime(2026, 11, 30, 3, 0, tzinfo=UTC).timestamp()

    assert next_due("0 3 * * *", night - 1) == night
    assert next_due("0 3 * * *", night) == night + 24 * HOUR_S
    assert last_due("0 3 * * *", night - 1, night) == night
    assert last_due("0 3 * * *", night, night + HOUR_S) == 0.0
    assert last_due("0 3 * * *", night - 1, night - 0.5) == 0.0
    assert last_due("*/5 * * * *", night - 9999, night + 59.9) == night


def test_a_playbook_runs_when_its_schedule_is_due_and_not_before() -> None:
    story = story_of()

    story.tick(FIRST - 0.5)
    assert scheduled(story) == [] and story.asks == []
    story.tick(FIRST + 0.2)
    (incident,) = scheduled(story)
    assert story.asks == ["do http_call"]
    assert (incident.title, incident.severity, incident.service) == (
        "Scheduled run of clean",
        Severity.P4,
        "clean",
    )
    story.perform(FIRST + 1)

    assert incident.state is IncidentState.RESOLVED
    assert "Scheduled" in story.kinds(incident)


def test_each_time_is_begun_once_whatever_is_started_anew() -> None:
    story = story_of()
    for hour in range(3):
        at = FIRST + hour * HOUR_S
        story.tick(at + 0.1)
        story.restart(at + 1)
        story.tick(at + 2)
        story.perform(at + 3)
        story.restart(at + 4)
        story.tick(at + 5)

    assert [event.due_at for event in story.happened(RunScheduled)] == [  # type: ignore[attr-defined]
        FIRST + hour * HOUR_S for hour in range(3)
    ]


def test_what_came_due_while_nothing_ran_is_begun_once() -> None:
    story = story_of(clean("*/10 * * * *"))
    story.restart(FIRST + 1795)
    story.tick(FIRST + 1801)

    (event,) = story.happened(RunScheduled)
    assert event.due_at == FIRST + 1800  # type: ignore[attr-defined]


def test_what_came_due_too_long_ago_is_left_out() -> None:
    story = story_of(clean("0 0 * * *"))
    midnight = next_due("0 0 * * *", ZERO)

    story.restart(midnight + LATE_MAX_S + 60)
    story.tick(midnight + LATE_MAX_S + 61)

    assert story.happened(RunScheduled) == []
    assert [event.due_at for event in story.happened(RunLeftOut)] == [midnight]  # type: ignore[attr-defined]
    story.tick(midnight + 24 * HOUR_S + 1)
    assert len(story.happened(RunScheduled)) == 1


def test_a_run_that_is_still_under_way_is_not_joined_by_another() -> None:
    story = story_of()
    story.tick(FIRST + 1)

    story.tick(FIRST + HOUR_S + 1)

    (incident,) = scheduled(story)
    (left,) = story.happened(RunLeftOut)
    assert left.incident_id == incident.id  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["paused", "shadow"])
def test_a_paused_one_does_not_run_and_one_in_shadow_does_nothing(mode: str) -> None:
    story = story_of(mode=mode)
    story.tick(FIRST + 1)

    if mode == "paused":
        assert scheduled(story) == []
        story.offer(FIRST + 10, offered(clean(), since=FIRST + 10))
        story.tick(FIRST + 11)
        assert scheduled(story) == []  # what it was due for while it was paused is over
        story.tick(FIRST + HOUR_S + 1)
    assert len(scheduled(story)) == 1
    assert [work.dry for _effect, work in story.work if isinstance(work, Do)] == [mode == "shadow"]


def test_another_schedule_of_the_same_name_looks_ahead_only() -> None:
    story = story_of(clean("0 0 * * *"))
    changed = book("clean", clean().steps, "2", Trigger(schedule=HOURLY))

    story.offer(FIRST + 60, offered(changed, since=FIRST + 60))
    story.tick(FIRST + 61)
    assert scheduled(story) == []
    story.tick(FIRST + HOUR_S + 1)

    assert len(scheduled(story)) == 1


def test_the_incident_is_of_the_service_that_its_trigger_names() -> None:
    story = story_of(clean(services=("billing",)))
    story.tick(FIRST + 1)

    (incident,) = scheduled(story)
    assert incident.service == "billing"


# -- who is told -----------------------------------------------------------------------------------------------


def test_nobody_is_told_of_a_run_that_succeeds() -> None:
    story = story_of(settings=TELLING)
    story.tick(FIRST + 1)
    story.perform(FIRST + 2)
    story.tick(FIRST + 60)

    assert [each for _at, each in story.asked if isinstance(each, Act)] == []


def test_people_are_told_of_a_run_that_fails() -> None:
    story = story_of(settings=TELLING)
    story.tick(FIRST + 1)
    story.perform(FIRST + 2, broken)
    story.tick(FIRST + 60)

    (incident,) = scheduled(story)
    assert (incident.severity, incident.is_open) == (
        Severity.P2,
        True,
    )  # a repair that failed counts one more
    assert [each.target for _at, each in story.asked if isinstance(each, Act)] == ["pager"]


def test_people_on_call_are_paged_of_a_run_that_fails_after_a_while() -> None:
    route = Route(receivers=("pager",), escalation="critical")
    story = story_of(settings=msgspec.structs.replace(TELLING, route=route))
    story.tell(FIRST - 1, PoliciesChanged(1, [Outline("critical", (60.0,))]))
    story.tick(FIRST + 1)
    story.tick(FIRST + 40)  # nobody is paged of one that still runs
    assert "EscalationPaused" in story.kinds(scheduled(story)[0])

    story.perform(FIRST + 41, broken)
    story.tick(FIRST + 42)

    assert [each.level for _at, each in story.asked if isinstance(each, Page)] == [0]


def test_people_are_told_of_a_run_that_can_not_begin() -> None:
    story = story_of(settings=TELLING)
    story.check = Done(REFUSED, "the policy denies it")
    story.tick(FIRST + 1)
    story.tick(FIRST + 60)

    (incident,) = scheduled(story)
    assert incident.severity is Severity.P3
    assert [each.target for _at, each in story.asked if isinstance(each, Act)] == ["pager"]


def test_no_other_playbook_is_chosen_for_it() -> None:
    every = book("heal", [step("fix", act("service_restart"))])
    story = story_of(clean(), every)
    story.tick(FIRST + 1)
    story.perform(FIRST + 2, broken)
    story.tick(FIRST + 60)

    assert {work.action.type for _effect, work in story.work if isinstance(work, Do)} == set()
    (incident,) = scheduled(story)
    assert "heal" not in " ".join(line.text for line in incident.timeline)


def test_a_clock_that_was_ahead_by_a_moment_begins_none_twice() -> None:
    story = story_of()
    story.tick(FIRST + 1)
    story.perform(FIRST + 2)

    story.restart(FIRST - 20)  # the clock is right again
    story.tick(FIRST - 10)
    story.tick(FIRST + 5)

    assert len(story.happened(RunScheduled)) == 1
