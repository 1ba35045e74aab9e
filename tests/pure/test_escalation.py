"""Escalation in a shard: who is to be told next, what stops it, and what a crash must not change."""

from __future__ import annotations

import msgspec
import pytest

from models.control.silences import Silence
from models.incidents.incident import IncidentState, Severity
from models.incidents.verbs import Acknowledge, Assign, Reclassify, Reopen, Resolve, Unacknowledge
from models.partition.checkpoint import record_key
from models.people.policy import Outline
from models.routes.route import Route
from models.shard.escalation import Escalations, Page, Paged, PoliciesChanged
from models.shard.escalation_state import (
    ENDED,
    ESCALATIONS,
    OVER,
    PAUSED,
    RUNNING,
    STOPPED,
    UNKNOWN,
    Escalation,
)
from models.shard.known_silences import SilencesChanged
from tests.scenario import SETTINGS, ZERO, Story, alert, at

DOWN = alert("llm-api", "Down")
OUTLINE = Outline("critical", (60.0, 120.0), repeat=1, falls_back=True)
ROUTE = Route(escalation="critical")


class Paging(Story):
    """A story whose route names a policy of two levels, gone through twice, and a fallback."""

    def __init__(self, outline: Outline | None = OUTLINE, route: Route = ROUTE) -> None:
        super().__init__(
            msgspec.structs.replace(SETTINGS, route=route, wait_s=(0, 5, 10, 20, 30), max_open=10)
        )
        self.policies(at(0), *([] if outline is None else [outline]))

    def policies(self, when: float, *outlines: Outline, version: int = 1) -> None:
        self.tell(when, PoliciesChanged(version, list(outlines)))

    def opens(self, severity: Severity = Severity.P0) -> None:
        self.push(at(0), DOWN)
        self.classify(at(0), severity)

    @property
    def pages(self) -> list[tuple[float, int, int, int]]:
        """What was asked for and not answered: when, number, level, attempt."""
        return [
            (when - ZERO, effect.number, effect.level, effect.attempt)
            for when, effect in self.asked
            if isinstance(effect, Page)
        ]

    def page(self) -> Page:
        """The oldest, which is answered next."""
        return next(effect for _when, effect in self.asked if isinstance(effect, Page))

    def answer(
        self,
        when: float,
        *told: str,
        failed: tuple[str, ...] = (),
        missed: tuple[str, ...] = (),
        again: bool = False,
        final: tuple[str, ...] = (),
    ) -> None:
        place, page = next(
            (place, effect) for place, (_when, effect) in enumerate(self.asked) if isinstance(effect, Page)
        )
        del self.asked[place]
        self.tell(
            when,
            Paged(
                page.incident_id,
                page.number,
                page.attempt,
                [*told],
                [*failed],
                [*missed],
                again,
                0.0,
                [*final],
            ),
        )

    @property
    def state(self) -> Escalation:
        found = self.shard.of(Escalations).store.of(self.incident.id)
        assert found is not None
        return found

    def lines(self) -> list[str]:
        return [
            f"{line.kind}: {line.text}"
            for line in self.incident.timeline
            if line.kind.startswith("Escalation")
        ]


def test_levels_are_told_one_after_the_other_then_all_again_then_the_fallback_and_that_is_all() -> None:
    story = Paging()
    story.opens()
    levels = []
    for second in range(0, 500):
        story.tick(at(second))
        for when, _number, level, _attempt in story.pages:
            levels.append((when, level))
            story.answer(at(second), f"p{level}:mail")

    assert levels == [(0, 0), (60, 1), (180, 0), (240, 1), (360, 2)]
    assert story.state.status == ENDED
    assert story.lines()[0].startswith("EscalationBegan: by policy critical of route root")
    assert "EscalationTold: level 1: told p0 by mail" in story.lines()
    assert story.lines()[-3:] == [
        "EscalationEnded: nobody acknowledged after 2 rounds of policy critical",
        "EscalationLevelDue: the fallback, round 3",
        "EscalationTold: level 3: told p2 by mail",
    ]


def test_level_1_waits_as_notifications_of_that_severity_do_and_says_when_it_is_due() -> None:
    story = Paging()
    story.opens(Severity.P2)
    story.ticks(at(1), at(9))
    assert story.pages == []

    story.tick(at(10))

    assert story.pages == [(10, 1, 0, 0)]
    assert "level 1 at 2026-01-01T00:00:10Z: opened" in story.lines()[0]
    assert story.page().facts.reason == "level 1 of critical"


def test_an_acknowledgement_stops_it_and_what_is_still_to_be_tried_again_is_dropped() -> None:
    story = Paging()
    story.opens()
    story.answer(at(1), failed=("ana by mail: 503",), again=True)
    story.do(at(1.1), Acknowledge(), story.incident, by="ben")

    story.ticks(at(2), at(400))

    assert story.pages == [] and story.state.status == STOPPED and story.state.pages == []
    assert story.lines()[-1] == "EscalationStopped: acknowledged by ben"


def test_an_assignment_alone_stops_nothing() -> None:
    story = Paging()
    story.opens()
    story.answer(at(1), "ana:mail")
    story.do(at(2), Assign(add=["ben"]), story.incident)

    story.ticks(at(3), at(61))

    assert [level for _when, _number, level, _attempt in story.pages] == [1]


def test_an_acknowledgement_that_was_given_before_it_begins_keeps_everybody_asleep() -> None:
    story = Paging()
    story.push(at(0), DOWN)
    story.do(at(0.1), Acknowledge(), story.incident)
    story.classify(at(0.2), Severity.P0)

    story.ticks(at(1), at(100))

    assert story.pages == [] and story.lines() == []


def test_an_acknowledgement_that_ends_pages_from_level_1_on() -> None:
    story = Paging()
    story.opens()
    story.answer(at(1), "ana:mail")
    story.do(at(2), Acknowledge(until=at(30)), story.incident)
    story.ticks(at(3), at(30))
    assert [page[1:3] for page in story.pages] == [(2, 0)]
    story.answer(at(31), "ana:mail")

    story.do(at(32), Acknowledge(), story.incident)
    story.do(at(40), Unacknowledge(), story.incident)
    story.ticks(at(41), at(42))

    assert [page[1:3] for page in story.pages] == [(3, 0)]


def test_a_policy_lets_an_acknowledgement_without_an_end_expire() -> None:
    story = Paging(msgspec.structs.replace(OUTLINE, ack_timeout_s=100.0))
    story.opens()
    story.answer(at(1), "ana:mail")
    story.do(at(2), Acknowledge(), story.incident)
    story.ticks(at(3), at(101))
    assert story.pages == []

    story.ticks(at(102), at(103))

    assert [page[1:3] for page in story.pages] == [(2, 0)]
    assert story.incident.handling is not None and story.incident.handling.acknowledged is None


def test_an_acknowledgement_that_was_given_before_it_began_expires_as_well() -> None:
    story = Paging(msgspec.structs.replace(OUTLINE, ack_timeout_s=100.0))
    story.push(at(0), DOWN)
    story.do(at(0.1), Acknowledge(), story.incident)
    story.classify(at(0.2), Severity.P0)
    story.ticks(at(1), at(99))
    assert story.pages == []

    story.ticks(at(100), at(102))

    assert [page[1:3] for page in story.pages] == [(1, 0)]


def test_an_acknowledgement_of_what_reopens_expires_as_well() -> None:
    story = Paging(msgspec.structs.replace(OUTLINE, ack_timeout_s=100.0))
    story.opens()
    story.answer(at(1), "ana:webhook")
    story.do(at(2), Acknowledge(), story.incident)
    story.push(at(5), DOWN.ended(5))
    story.tick(at(6))
    story.answer(at(6), "ana:webhook")
    story.push(at(10), alert("llm-api", "Down", starts=10))
    assert story.incident.state is IncidentState.INVESTIGATING
    story.ticks(at(11), at(109))
    assert story.pages == []

    story.ticks(at(110), at(112))

    assert [page[2] for page in story.pages] == [0]


def test_who_was_told_hears_of_the_end_and_who_was_not_does_not() -> None:
    story = Paging()
    story.opens()
    story.answer(at(1), "ana:webhook", failed=("ben by webhook: 422",), final=("ben:webhook",))
    story.do(at(2), Resolve(), story.incident)

    story.tick(at(3))

    page = story.page()
    assert (page.level, page.only, page.facts.reason) == (OVER, ["ana:webhook"], "resolved")
    story.answer(at(4), "ana:webhook")
    assert story.state.pages == [] and story.state.reached == []


def test_what_failed_is_tried_again_and_who_was_told_is_left_alone() -> None:
    story = Paging()
    story.opens()
    story.answer(
        at(1), "ana:mail", failed=("ana by sms: 503", "ben by sms: 422"), again=True, final=("ben:sms",)
    )
    story.ticks(at(2), at(10))

    page = story.page()
    assert (page.number, page.attempt, page.done) == (1, 1, ["ana:mail", "ben:sms"])
    story.answer(at(11), "ana:sms")
    assert story.state.reached == ["ana:mail", "ana:sms"] and story.state.pages == []


def test_what_fails_round_after_round_is_not_owed_for_every_round() -> None:
    story = Paging(msgspec.structs.replace(OUTLINE, repeat=15))
    story.opens()
    for second in range(0, 1800, 5):
        story.tick(at(second))
        while story.pages:
            story.answer(at(second), failed=("ana by sms: 503",), again=True)

    assert story.state.round >= 9
    # Those before have waited for their next try since before the level was told again.
    assert min(page.round for page in story.state.pages) >= story.state.round - 3
    assert {page.level for page in story.state.pages} == {0, 1}


def test_a_level_that_reaches_nobody_does_not_keep_the_next_one_waiting() -> None:
    story = Paging()
    story.opens()
    story.answer(at(1), missed=("nobody is on call in schedule:primary",))
    story.tick(at(2))
    assert [page[2] for page in story.pages] == [1]

    # The last level of a round waits, or all rounds would be over before anybody comes on call.
    story.answer(at(3), missed=("nobody is on call in schedule:secondary",))
    story.ticks(at(4), at(60))
    assert story.pages == []
    assert "EscalationFailed: level 1: nobody told: nobody is on call in schedule:primary" in story.lines()


def test_a_crash_asks_for_the_same_page_by_the_same_key_and_for_no_other() -> None:
    story = Paging()
    story.opens()
    key = story.page().key
    story.asked.clear()

    story.restart(at(2))
    story.tick(at(3))

    assert story.pages == [(2, 1, 0, 0)] and story.page().key == key
    story.answer(at(4), "ana:mail")
    story.restart(at(5))
    story.ticks(at(6), at(59))
    assert story.pages == []


def test_the_answer_to_an_earlier_try_is_ignored() -> None:
    story = Paging()
    story.opens()
    first = story.page()
    story.answer(at(1), failed=("ana by mail: 503",), again=True)
    story.ticks(at(2), at(5))

    story.tell(at(6), Paged(first.incident_id, first.number, 0, ["ana:mail"]))

    assert story.state.pages[0].attempt == 1 and story.state.reached == []


def test_what_is_muted_waits_at_the_level_where_it_was() -> None:
    story = Paging()
    story.opens()
    story.answer(at(1), "ana:mail")
    matchers = (("service", "=", "llm-api"),)
    mute = Silence("s1", matchers, at(10), at(100), "ada", "deploy", at(9))
    story.tell(at(10), SilencesChanged(1, [mute]))

    story.ticks(at(11), at(99))
    assert story.pages == [] and story.state.status == PAUSED
    story.ticks(at(100), at(102))

    assert [page[2] for page in story.pages] == [1] and story.state.status == RUNNING


def test_a_policy_that_does_not_exist_is_said_and_begins_once_it_does() -> None:
    story = Paging(None)
    story.opens()
    story.tick(at(1))
    assert story.state.status == UNKNOWN
    assert story.lines()[-1] == "EscalationFailed: nobody is paged: there is no escalation policy critical"

    story.policies(at(50), OUTLINE, version=2)
    story.ticks(at(51), at(52))

    assert [page[1:3] for page in story.pages] == [(1, 0)]


def test_a_process_that_has_not_heard_of_policies_waits_for_them() -> None:
    story = Paging(None)
    story.shard.of(Escalations).is_told = False
    story.opens()
    story.ticks(at(1), at(5))
    assert story.state.status == RUNNING and story.pages == []

    story.policies(at(6), OUTLINE, version=2)
    story.tick(at(7))

    assert [page[1:3] for page in story.pages] == [(1, 0)]


def test_a_rise_in_severity_begins_the_policy_of_the_route_that_is_now_right() -> None:
    urgent = Route(name="p0", severities=(Severity.P0,), escalation="critical")
    story = Paging(OUTLINE, Route(routes=(urgent,)))
    story.opens(Severity.P3)
    story.ticks(at(1), at(30))
    assert story.pages == [] and story.lines() == []

    story.do(at(31), Reclassify(severity=Severity.P0), story.incident)
    story.tick(at(32))

    assert [page[2] for page in story.pages] == [0]


def test_what_reopens_is_paged_anew_and_its_pages_are_numbered_on() -> None:
    story = Paging()
    story.opens()
    story.answer(at(1), "ana:mail")
    story.push(at(5), DOWN.ended(5))
    story.ticks(at(5), at(6))
    assert story.incident.state is IncidentState.RESOLVED

    story.push(at(10), alert("llm-api", "Down", starts=10))
    story.ticks(at(11), at(12))

    assert [(number, level) for _when, number, level, _attempt in story.pages if level != OVER][-1][1] == 0
    assert story.state.number > 1


def test_a_person_who_merges_it_stops_it() -> None:
    story = Paging()
    story.opens()
    story.answer(at(1), "ana:mail")
    assert story.state.status == RUNNING

    story.do(at(2), Resolve(), story.incident)
    story.ticks(at(3), at(70))

    assert story.state.status == STOPPED and [page[2] for page in story.pages] == [OVER] * bool(story.pages)


def test_what_nobody_classifies_is_paged_all_the_same() -> None:
    story = Paging()
    story.push(at(0), DOWN)

    story.ticks(at(1), at(15))

    assert [page[2] for page in story.pages] == [0]


@pytest.mark.parametrize("seconds", [0.5, 30.0, 200.0])
def test_a_start_with_notifications_off_stops_all_and_the_next_one_begins_anew(seconds: float) -> None:
    story = Paging()
    story.opens()
    story.answer(at(0.2), "ana:mail")
    on = story.settings
    story.settings = msgspec.structs.replace(on, notify=False)
    story.replayed.settings = story.settings
    story.restart(at(seconds))
    assert story.state.status == STOPPED

    story.replayed.settings = story.settings = on
    story.restart(at(seconds + 1))
    story.tick(at(seconds + 2))

    assert [page[2] for page in story.pages] == [0]


@pytest.mark.parametrize(
    ("outline", "expected"),
    [
        (OUTLINE, [0, 0, 0, 1, 0, 1, 1, 1]),
        # There is nobody else: the one there is is told each time.
        (Outline("critical", (60.0,)), [0] * 8),
        (Outline("critical", (60.0, 60.0)), [0, 0, 0, 1, 1, 1, 1, 1]),
    ],
)
def test_what_comes_and_goes_wakes_the_first_three_times_and_then_the_next(
    outline: Outline, expected: list[int]
) -> None:
    story = Paging(outline, msgspec.structs.replace(ROUTE, interval_s=10.0))
    levels: list[int] = []
    for turn in range(8):
        begins = turn * 20
        story.push(at(begins), alert("llm-api", "Down", starts=begins))
        if not turn:
            story.classify(at(0), Severity.P0)
        for second in range(begins, begins + 15):
            story.tick(at(second))
        story.push(at(begins + 15), alert("llm-api", "Down", starts=begins).ended(begins + 15))
        while story.pages:
            if story.page().level != OVER:
                levels.append(story.page().level)
            story.answer(at(begins + 16), "ana:webhook")

    assert levels == expected


def test_who_was_not_told_of_the_end_yet_is_not_told_once_it_goes_on() -> None:
    story = Paging()
    story.opens()
    story.answer(at(1), "ana:webhook")
    story.push(at(5), DOWN.ended(5))
    story.tick(at(6))
    story.answer(at(6), failed=("ana by webhook: 503",), again=True)
    story.do(at(6.1), Reopen(), story.incident)
    story.do(at(6.2), Acknowledge(), story.incident)

    story.ticks(at(7), at(20))

    assert OVER not in [page.level for page in story.state.pages]


def test_a_snapshot_that_is_under_way_has_what_was_owed_when_it_began() -> None:
    other = Outline("other", (60.0,))
    urgent = Route(name="p0", severities=(Severity.P0,), escalation="other")
    story = Paging(OUTLINE, msgspec.structs.replace(ROUTE, routes=(urgent,)))
    story.policies(at(0), OUTLINE, other, version=2)
    story.opens(Severity.P2)
    story.ticks(at(1), at(11))
    assert len(story.pages) == 1
    checkpoint = story.shard.state.checkpoint
    checkpoint.begin()

    story.do(at(12), Reclassify(severity=Severity.P0), story.incident)

    assert story.state.policy == "other"
    records = dict(checkpoint.slice(1 << 20))
    record = records[record_key(ESCALATIONS, story.incident.id)]
    assert record is not None
    taken = msgspec.msgpack.decode(record, type=Escalation)
    assert (taken.policy, len(taken.pages)) == ("critical", 1)
