"""Whether repairs hold, one sentence a story (tests/runs.py). After each step replay equals live."""

from __future__ import annotations

from typing import Any

import msgspec

from models.incidents.incident import IncidentState, Severity
from models.incidents.verbs import Resolve
from models.playbook.playbook import NEXT, PlannedAction, Playbook
from models.playbook.repaired import Repaired
from models.playbook.work import (
    FAILED,
    REFUSED,
    SUCCEEDED,
    Do,
    Done,
    IncidentEffect,
    Work,
    decode_work,
    encode_done,
)
from models.shard.shard import Shard
from models.shard.slot_transfer import arrived, leaving
from models.shard.verification import AGAIN_S, FAILS_MAX, IN_DOUBT_S, Recheck, Rechecked, Verification
from models.shard.verification_state import SIDE_EFFECTS_MAX, Watch
from tests.runs import SETTINGS, RunStory, act, book, step
from tests.scenario import alert, at
from tests.simulation.dump import difference, dump

#: A watch of 30 s whose checks are asked every 12 s.
WATCHED = msgspec.structs.replace(SETTINGS, verify_watch_s=30.0, verify_every_s=12.0, max_open=50)
DOWN = alert("llm-api", "Down")
WELL, ILL = Done(SUCCEEDED), Done(FAILED, "503 from llm-api")


def check(kind: str = "health_check", **fields: Any) -> PlannedAction:
    return PlannedAction(kind, {"endpoint": "http://llm-api/health"}, **fields)


def heal(*more: PlannedAction, version: str = "1") -> Playbook:
    """Restarts, and looks whether that helped."""
    return book("heal", [step("fix", act("service_restart"), *more)], version)


class WatchStory(RunStory):
    """One that also asks for checks again."""

    @property
    def rechecks(self) -> list[Recheck]:
        return [each for _when, each in self.asked if isinstance(each, Recheck)]

    @property
    def watch(self) -> Watch:
        return self.shard.of(Verification).store.watches[self.incident.id]

    @property
    def counts(self) -> Repaired:
        (found,) = self.shard.of(Verification).store.repaired.values()
        return found

    def recheck(self, when: float, done: Done = WELL) -> Do:
        """The oldest check that was asked again is answered."""
        place = next(n for n, each in enumerate(self.asked) if isinstance(each[1], Recheck))
        effect = self.asked.pop(place)[1]
        assert isinstance(effect, Recheck)
        self.tell(when, Rechecked(effect.incident_id, effect.number, effect.key, encode_done(done)))
        work = decode_work(effect.work)
        assert isinstance(work, Do)
        return work

    def repaired(self, *more: PlannedAction, seconds: float = 5.0) -> WatchStory:
        """A run restarts the service at 1, and its alert ends."""
        self.open(at(0))
        self.perform(at(1))
        self.push(at(seconds), DOWN.ended(seconds))
        return self


def watched(*more: PlannedAction) -> WatchStory:
    return WatchStory([heal(*more)], WATCHED).repaired()


def test_what_a_run_repaired_is_watched_and_its_watch_ends_with_a_line() -> None:
    story = watched()
    assert story.incident.state is IncidentState.RESOLVED
    assert story.lines("WatchBegan") == ["watched for regression for 30s"]

    story.ticks(at(6), at(34))
    assert story.lines("WatchEnded") == []

    story.ticks(at(35), at(36))
    assert story.lines("WatchEnded") == ["no regression within 30s"]
    assert story.incident.state is IncidentState.RESOLVED


def test_what_resolved_without_a_run_is_not_watched() -> None:
    story = WatchStory([], WATCHED)
    story.open(at(0))
    story.push(at(5), DOWN.ended(5))
    assert story.incident.state is IncidentState.RESOLVED
    assert not story.shard.state.watched


def test_a_run_that_changed_nothing_is_no_repair() -> None:
    story = WatchStory([book("look", [step("see", act("metrics_snapshot"))])], WATCHED).repaired()
    assert story.incident.state is IncidentState.RESOLVED
    assert not story.shard.state.watched


def test_what_a_run_resolved_by_itself_is_watched_with_the_checks_it_did() -> None:
    books = [
        book(
            "heal",
            [step("fix", act("service_restart"), check()), step("end", act("incident_resolve"))],
            final=(step("clean", act("tidy")),),
        )
    ]
    story = WatchStory(books, WATCHED)
    story.open(at(0))

    def answer(work: Work, _again: bool) -> Done:
        resolves = isinstance(work, Do) and work.action.type == "incident_resolve"
        return Done(SUCCEEDED, effects=(IncidentEffect("resolve", "repaired"),) if resolves else ())

    story.perform(at(1), answer)

    assert story.incident.state is IncidentState.RESOLVED
    assert [each.action.type for each in story.watch.checks] == ["health_check"]
    assert story.counts.healed == 1 and story.counts.quiet == 0
    # Its alert has not ended yet: nothing is said of it before.
    story.ticks(at(2), at(40))
    assert story.lines("WatchEnded") == []
    story.push(at(41), DOWN.ended(41))
    story.ticks(at(41), at(42))
    assert story.lines("WatchEnded") == ["no regression within 30s; 1 of its checks could not be asked"]
    assert story.counts.quiet == 1 and story.counts.held == 1


def test_what_a_person_resolved_is_watched_only_if_the_settings_say_so() -> None:
    for people in (False, True):
        story = WatchStory([], msgspec.structs.replace(WATCHED, verify_people=people))
        incident = story.open(at(0))
        story.do(at(3), Resolve(notes="rebooted it"), incident)
        assert bool(story.shard.state.watched) is people


def test_it_is_not_closed_before_its_watch_is_over() -> None:
    settings = msgspec.structs.replace(WATCHED, verify_watch_s=300.0)
    story = WatchStory([heal()], settings).repaired()
    story.ticks(at(6), at(200))  # close_after is 120 s
    assert story.states() == [IncidentState.RESOLVED]
    story.ticks(at(201), at(320))
    assert story.states() == [IncidentState.CLOSED]
    assert not story.shard.state.watched


def test_an_alert_that_fires_again_reopens_it_even_past_the_reopen_window() -> None:
    settings = msgspec.structs.replace(WATCHED, verify_watch_s=300.0)
    story = WatchStory([heal()], settings).repaired()
    story.ticks(at(6), at(100))  # reopen_window is 60 s
    story.push(at(100), alert("llm-api", "Down", starts=100))

    assert story.incident.is_open
    assert "fires again while its repair is watched" in story.lines("StateChanged")[-1]
    assert not story.shard.state.watched
    assert (story.counts.healed, story.counts.held, story.counts.broke) == (1, 0, 1)


def test_a_check_is_asked_again_and_again_with_the_incident_as_it_is_now() -> None:
    story = watched(check())
    story.ticks(at(6), at(16))
    assert story.rechecks == []
    story.ticks(at(17), at(18))

    work = story.recheck(at(18))
    assert (work.action.type, work.step, work.dry) == ("health_check", "fix", False)
    assert work.context.incident["state"] == "Resolved"
    assert work.context.steps["fix"]["status"] == "success"
    assert work.context.run["last"]["health_check"] == {"endpoint": "http://llm-api/health"}
    first = work.key

    story.ticks(at(19), at(31))
    assert story.recheck(at(31)).key != first
    story.ticks(at(32), at(36))
    assert story.lines("WatchEnded") == ["no regression within 30s"]


def test_a_check_that_goes_on_failing_reopens_it_and_says_why() -> None:
    story = watched(check())
    story.ticks(at(6), at(17))
    when = 17.0
    for nth in range(FAILS_MAX):
        assert story.incident.state is IncidentState.RESOLVED, nth
        story.recheck(at(when), ILL)
        if nth + 1 < FAILS_MAX:
            story.ticks(at(when), at(when + AGAIN_S))
            when += AGAIN_S

    assert story.incident.state is IncidentState.TRIAGED
    (line,) = [each for each in story.lines("StateChanged") if "fails" in each]
    assert line == "Resolved -> Triaged: fix, health_check fails 32s after it was resolved: 503 from llm-api"
    assert story.counts.broke == 1
    assert not story.rechecks


def test_one_bad_answer_is_no_regression() -> None:
    story = watched(check())
    story.ticks(at(6), at(17))
    story.recheck(at(17), ILL)
    story.ticks(at(18), at(27))
    story.recheck(at(27), WELL)
    story.ticks(at(28), at(36))
    assert story.lines("WatchEnded") == ["no regression within 30s"]


def test_a_watch_does_not_end_while_a_check_may_fail_but_not_for_ever() -> None:
    story = watched(check())
    story.ticks(at(6), at(17))
    story.recheck(at(17), ILL)
    story.ticks(at(18), at(60))  # the next answer never comes
    assert story.lines("WatchEnded") == []
    story.ticks(at(61), at(36 + IN_DOUBT_S))
    assert story.lines("WatchEnded") == ["no regression within 30s; 1 of its checks could not be asked"]


def test_a_check_that_can_not_be_done_is_no_regression_and_is_said() -> None:
    for answer in (Done(FAILED, "no such variable", final=True), Done(REFUSED, "policy")):
        story = watched(check())
        story.ticks(at(6), at(17))
        story.recheck(at(17), answer)
        story.ticks(at(18), at(29))
        story.recheck(at(29), answer)
        story.ticks(at(30), at(36))
        assert story.lines("WatchEnded") == ["no regression within 30s; 1 of its checks could not be asked"]


def test_a_check_that_repeats_another_knows_what_that_asked() -> None:
    verify = PlannedAction("verify_resolution", {"check": "health_check"})
    story = watched(check(on_failure=NEXT), verify)
    story.ticks(at(6), at(17))
    assert [story.recheck(at(17)).action.type for _ in range(2)] == ["health_check", "verify_resolution"]


def test_an_answer_of_a_life_before_counts_for_nothing() -> None:
    story = watched(check())
    story.ticks(at(6), at(17))
    (late,) = story.rechecks
    story.push(at(18), alert("llm-api", "Down", starts=18))
    events = len(story.events)
    story.tell(at(19), Rechecked(late.incident_id, late.number, late.key, encode_done(ILL)))
    assert len(story.events) == events
    assert story.incident.is_open


def test_a_process_that_dies_asks_again_by_the_same_key() -> None:
    story = watched(check())
    story.ticks(at(6), at(17))
    (before,) = story.rechecks
    story.asked.clear()
    story.restart(at(18))
    story.ticks(at(19), at(20))
    assert [each.key for each in story.rechecks] == [before.key]
    story.recheck(at(20))
    assert story.watch.checks[0].passed == 1


def test_a_check_that_was_not_delivered_is_asked_again() -> None:
    story = watched(check())
    story.ticks(at(6), at(17))
    (before,) = story.rechecks
    story.asked.clear()
    story.shard.ask_again(before)
    story.tick(at(18))
    assert [each.key for each in story.rechecks] == [before.key]


def test_nothing_is_decided_while_nobody_could_be_heard() -> None:
    settings = msgspec.structs.replace(WATCHED, verify_watch_s=75.0)
    story = WatchStory([heal(check())], settings).repaired()
    story.ticks(at(6), at(17))
    for nth in range(FAILS_MAX):
        story.recheck(at(18 + nth * 15), ILL)
        story.ticks(at(18 + nth * 15), at(32 + nth * 15), in_gap=True)
    story.hear(at(81), at(18))
    assert story.incident.state is IncidentState.RESOLVED
    assert story.lines("WatchEnded") == []
    story.ticks(at(82), at(110))  # alerts have expiry_grace to be heard again
    assert story.lines("WatchEnded") == []
    story.ticks(at(111), at(113))
    assert len(story.lines("WatchEnded")) == 1


def test_new_incidents_of_its_service_are_side_effects() -> None:
    story = watched()
    watched_one = story.incident
    story.push(at(7), alert("llm-api", "CacheCold"), alert("other", "Down"))

    assert [line.kind for line in watched_one.timeline].count("SideEffect") == 1
    (line,) = [line for line in watched_one.timeline if line.kind == "SideEffect"]
    assert "opened for the same service: CacheCold" in line.text
    assert story.counts.side_effects == 1
    assert watched_one.state is IncidentState.RESOLVED


def test_what_opened_while_the_run_was_under_way_is_a_side_effect_too_and_they_are_bounded() -> None:
    story = WatchStory([heal(PlannedAction("wait"))], WATCHED)
    repaired = story.open(at(0))
    story.perform(at(1), most=1)
    for each in range(SIDE_EFFECTS_MAX + 3):
        story.push(at(2), alert("llm-api", f"Odd{each}"))
    assert [line.kind for line in repaired.timeline].count("SideEffect") == 0
    story.perform(at(3), lambda work, _: Done(SUCCEEDED), most=1)
    assert [line.kind for line in repaired.timeline].count("SideEffect") == SIDE_EFFECTS_MAX


def test_what_came_of_repairs_is_counted_by_version_and_kept_when_incidents_go() -> None:
    story = watched()
    story.ticks(at(6), at(200))
    story.archive(at(200))

    assert not story.shard.state.incidents and not story.shard.of(Verification).store.watches
    found = story.counts
    assert (found.playbook, found.version, found.tenant) == ("heal", "1", "default")
    assert (found.runs, found.failed, found.healed, found.quiet, found.held, found.broke) == (
        1,
        0,
        1,
        1,
        1,
        0,
    )
    assert found.heal_s == 5.0


def test_a_repair_that_failed_is_counted_as_one() -> None:
    story = WatchStory([heal()], WATCHED)
    story.open(at(0))
    story.perform(at(1), lambda work, _: Done(FAILED, "no") if isinstance(work, Do) else Done(SUCCEEDED))
    assert (story.counts.runs, story.counts.failed, story.counts.healed) == (1, 1, 0)


def test_a_watch_goes_with_its_incident_to_another_partition_and_into_snapshots() -> None:
    story = watched(check())
    incident = story.incident
    story.shard.checkpoint.begin()
    records: dict[str, bytes | None] = {}
    while found := story.shard.checkpoint.slice(1 << 20):
        records.update(found)
    again = Shard("shard/0000", WATCHED)
    again.load(sorted((key, record) for key, record in records.items() if record is not None))
    again.loaded()
    assert not difference(dump(story.shard, at(6)), dump(again, at(6)))
    assert list(again.state.watched) == [incident.id]

    (left,) = leaving(story.shard, incident.slot, [incident.id], 2)
    there = Shard("shard/0001", WATCHED)
    there.apply(arrived(left), at(6))
    story.shard.apply(left, at(6))
    assert not story.shard.state.watched and not story.shard.of(Verification).store.watches
    assert list(there.state.watched) == [incident.id]
    assert len(there.of(Verification).store.watches[incident.id].checks) == 1


# -- what people are to do ---------------------------------------------------------------------------------------


def refused(work: Work, _again: bool) -> Done:
    return Done(FAILED, "no", final=True) if isinstance(work, Do) else WELL


def test_a_repair_that_failed_escalates_once() -> None:
    story = WatchStory([heal()], WATCHED)
    story.open(at(0), Severity.P2)
    story.perform(at(1), refused)
    story.ticks(at(2), at(20))
    assert story.incident.severity is Severity.P1
    (line,) = [each for each in story.incident.timeline if each.kind == "Reclassified"]
    assert line.details["reason"] == "heal did not help"


def test_a_run_that_changed_nothing_or_says_itself_what_then_does_not_escalate_again() -> None:
    quiet = book("look", [step("see", act("metrics_snapshot"))])
    own = book("heal", [step("fix", act("service_restart", on_failure="escalate"))])
    for books, severity in ((quiet, Severity.P2), (own, Severity.P1)):
        story = WatchStory([books], WATCHED)
        story.open(at(0), Severity.P2)
        story.perform(at(1), refused)
        assert story.incident.severity is severity


def test_what_was_urgent_is_to_be_reviewed_and_that_is_told_once_before_it_goes() -> None:
    settings = msgspec.structs.replace(WATCHED, review_after_s=300.0)
    for severity in (Severity.P1, Severity.P2):
        story = WatchStory([], settings)
        story.open(at(0), severity)
        story.push(at(5), DOWN.ended(5))
        story.ticks(at(6), at(200))
        story.archive(at(200))
        if severity is Severity.P2:
            assert not story.shard.state.incidents
            continue
        (planned,) = story.lines("TaskPlanned")
        assert planned == "review: what happened, what helped, what is to change, due 2026-01-01T00:05:05Z"
        assert story.states() == [IncidentState.CLOSED] and story.lines("TaskDue") == []
        story.ticks(at(201), at(310))
        assert len(story.lines("TaskDue")) == 1
        story.archive(at(311))
        assert not story.shard.state.incidents


def test_a_review_is_planned_once_however_often_it_reopens() -> None:
    story = WatchStory([], msgspec.structs.replace(WATCHED, review_after_s=300.0))
    story.open(at(0), Severity.P0)
    for second in (5, 15):
        story.push(at(second), DOWN.ended(second))
        story.push(at(second + 2), alert("llm-api", "Down", starts=second + 2))
    assert len(story.lines("TaskPlanned")) == 1


def test_severity_has_no_part_in_it() -> None:
    story = WatchStory([heal()], WATCHED)
    story.open(at(0), Severity.P4)
    story.perform(at(1))
    story.push(at(5), DOWN.ended(5))
    assert story.shard.state.watched
