"""A clock that was ahead for a moment, and times by clocks of others: what a shard makes of them (models/shard/clock.py)."""

from __future__ import annotations

import math

import msgspec
import pytest

from models.incidents.incident import IncidentState, Severity
from models.incidents.verbs import Acknowledge, Update
from models.shard.archiving import ArchiveExpired
from models.shard.events import ClockSetBack
from models.shard.messages import Claim, Decision
from models.shard.settings import ShardSettings
from models.shard.shard import Shard
from tests.scenario import SETTINGS, ZERO, Story, alert, at
from tests.simulation.dump import difference, dump

D, S = Decision, IncidentState
HOUR_S = 3600.0
NO_START = math.nan
#: With what a gateway gives to alerts without an end.
GIVEN = msgspec.structs.replace(SETTINGS, given_ends_s=(300.0,))


def story_at_a_false_hour(settings: ShardSettings = GIVEN) -> Story:
    """A P0 fires since second 0 and the receiver heard of it; at second 10 the clock says an hour more."""
    story = Story(settings)
    story.push(at(0), alert("llm-api", "Down", ends=240))
    story.classify(at(0), Severity.P0)
    story.receive(at(0))
    story.tick(at(9))
    # What the actor says first when the clock leaps (actors/shard.py).
    story.hear(at(HOUR_S + 10), at(9))
    return story


# -- while it is ahead ---------------------------------------------------------------------------------------


def test_a_repeat_by_a_right_clock_is_no_end_while_ours_has_just_gone_forward() -> None:
    story = story_at_a_false_hour()

    story.push(at(HOUR_S + 11), alert("llm-api", "Down", ends=250))
    story.tick(at(HOUR_S + 12))

    assert story.decisions == [D.REPEATED]
    assert story.incident.is_open and not story.sent()


def test_an_end_is_an_end_all_the_same() -> None:
    story = story_at_a_false_hour()

    story.push(at(HOUR_S + 11), alert("llm-api", "Down", ends=8))

    assert story.decisions == [D.RESOLVED]


def test_an_end_is_an_end_also_of_a_sender_that_ends_its_alerts_in_seconds() -> None:
    """A Prometheus with a resend delay of a second says 'until in four seconds', and at the end 'until now'."""
    story = Story(GIVEN)
    for second in range(3):
        story.push(at(second), alert("llm-api", "Down", ends=second + 4))
    story.hear(at(3), at(2))

    story.push(at(3.2), alert("llm-api", "Down", ends=3))

    assert story.decisions == [D.RESOLVED]


def test_what_is_said_to_be_resolved_is_whatever_the_clock_says() -> None:
    story = story_at_a_false_hour()

    down = alert("llm-api", "Down", ends=HOUR_S + 11)
    story.push(at(HOUR_S + 11), down, said=bytes([Claim.RESOLVED_NOW]))

    assert story.decisions == [D.RESOLVED]


def test_the_archive_forgets_nothing_for_a_clock_that_has_just_gone_a_year_forward() -> None:
    story = story_at_a_false_hour()
    year_s = 366 * 86400.0

    story.hear(at(year_s), at(HOUR_S + 10))
    story.tick(at(year_s + 1))

    assert not story.named(ArchiveExpired)
    story.tick(at(year_s + SETTINGS.expiry_grace_s))
    assert len(story.named(ArchiveExpired)) == 1


def test_the_archive_forgets_nothing_for_it_either_when_the_shard_starts_anew_meanwhile() -> None:
    story = story_at_a_false_hour()
    year_s = 366 * 86400.0
    story.hear(at(year_s), at(HOUR_S + 10))

    story.restart(at(year_s + 1))
    story.tick(at(year_s + 2))

    assert not story.named(ArchiveExpired)
    story.tick(at(year_s + 1 + SETTINGS.expiry_grace_s))
    assert len(story.named(ArchiveExpired)) == 1


def test_a_notification_that_was_sent_by_the_false_time_before_a_crash_is_not_taken_for_one_that_waits() -> (
    None
):
    story = Story(msgspec.structs.replace(GIVEN, interval_s=60.0))
    story.push(at(0), alert("llm-api", "Down"))
    story.classify(at(0), Severity.P0)
    story.receive(at(0))
    story.push(at(10), alert("llm-api", "Down").ended(10))
    story.tick(at(70))  # asks for the notification of the end, and writes nothing
    assert [reason for _when, reason, _attempt in story.sent()] == ["resolved"]

    story.restart(at(5))
    story.push(at(6), alert("llm-api", "Down", starts=6))
    story.receive(at(6))
    story.receive(at(6))
    story.ticks(at(7), at(200))

    assert [reason for _when, reason, _attempt in story.sent()] == ["reopened"]


# -- when it is right again ----------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_is_an_event_and_time_goes_on_from_there() -> None:
    story = story_at_a_false_hour()

    story.tick(at(15))

    (event,) = story.named(ClockSetBack)
    assert (event.before, event.after) == (at(HOUR_S + 10), at(15))
    assert story.shard.now == at(15)


def test_a_clock_that_falls_by_a_second_is_none() -> None:
    story = Story()
    story.push(at(10), alert("llm-api", "Down"))

    story.tick(at(9))

    assert not story.named(ClockSetBack)
    assert story.shard.now == at(10)


@pytest.mark.parametrize("back_s", [1.0, 3.0, 60.0, HOUR_S, 365 * 86400.0])
def test_an_alert_whose_end_is_to_come_is_in_an_open_incident(back_s: float) -> None:
    story = Story(GIVEN)
    story.push(at(back_s), alert("billing", "Slow"))

    story.push(at(0), alert("llm-api", "Down", ends=0.5))

    assert story.decisions == [D.OPENED]


def test_a_repeat_of_what_fires_is_a_repeat_and_nobody_hears_that_it_is_resolved() -> None:
    story = story_at_a_false_hour()

    story.push(at(15), alert("llm-api", "Down", ends=255))
    story.ticks(at(16), at(60))

    assert story.decisions == [D.REPEATED]
    assert story.incident.is_open and not story.sent()


def test_nothing_expires_before_everybody_could_say_that_it_fires() -> None:
    story = story_at_a_false_hour()
    story.tick(at(235))

    story.ticks(at(236), at(264))
    assert story.incident.is_open
    story.tick(at(266))

    assert story.incident.state is S.RESOLVED


def test_an_incident_of_the_false_hour_counts_as_of_now_and_its_notification_goes_out_in_its_time() -> None:
    story = story_at_a_false_hour()
    story.push(at(HOUR_S + 12), alert("billing", "Slow"))
    story.classify(at(HOUR_S + 12), Severity.P2)

    story.tick(at(15))
    (billing,) = [each for each in story.shard.state.incidents.values() if each.service == "billing"]
    assert billing.created_at == billing.opened_at == billing.updated_at == at(15)
    assert max(line.at for line in billing.timeline) == at(15)

    story.ticks(at(16), at(30))
    assert [(when, reason) for when, reason, _attempt in story.sent()] == [(25, "opened")]


def test_a_notification_that_is_tried_again_is_not_tried_an_hour_later() -> None:
    story = story_at_a_false_hour()
    story.push(at(HOUR_S + 12), alert("billing", "Slow"))
    story.classify(at(HOUR_S + 12), Severity.P0)
    story.receive(at(HOUR_S + 12), ok=False)

    story.ticks(at(15), at(25))

    assert [attempt for _when, _reason, attempt in story.sent()] == [1]


def test_a_notification_is_not_given_up_by_a_clock_that_has_just_gone_a_day_forward() -> None:
    story = Story(GIVEN)
    story.push(at(0), alert("llm-api", "Down"))
    story.classify(at(0), Severity.P0)
    story.hear(at(2 * 86400.0), at(1))

    story.receive(at(2 * 86400.0), ok=False)
    story.ticks(at(5), at(10))

    assert [attempt for _when, _reason, attempt in story.sent()] == [1]


def test_a_target_that_passed_by_the_false_time_alone_is_told_of_when_it_passes() -> None:
    story = Story(msgspec.structs.replace(GIVEN, acknowledge_within_s=(60.0,) * 5))
    story.push(at(0), alert("llm-api", "Down"))
    story.classify(at(0), Severity.P0)
    story.tick(at(31))
    story.hear(at(HOUR_S), at(32))
    story.tick(at(HOUR_S))

    story.tick(at(35))
    assert story.incident.targets_told == 1
    story.ticks(at(36), at(61))

    assert [line.at for line in story.incident.timeline if line.kind == "TargetPassed"] == [
        at(31),
        at(35),
        at(60),
    ]


def test_an_end_that_was_given_by_the_false_time_is_put_right_and_one_of_a_sender_stays() -> None:
    story = story_at_a_false_hour()
    story.push(
        at(HOUR_S + 11),
        alert("billing", "Slow", ends=HOUR_S + 10.9 + 300),
        alert("search", "Slow", ends=86400),
    )

    story.tick(at(15))

    ends = {
        incident.service: at
        for incident, at in zip(story.shard.state.series.incidents, story.shard.state.series.ends)
        if incident
    }
    assert ends["billing"] == pytest.approx(at(15 - 0.1 + 300), abs=2)
    assert ends["search"] == at(86400)
    story.ticks(at(310), at(330))
    assert {i.service: i.is_open for i in story.shard.state.incidents.values()}["billing"] is False


def test_an_incident_that_was_resolved_in_the_false_hour_is_reopened_and_closed_in_its_time() -> None:
    story = story_at_a_false_hour()
    story.push(at(HOUR_S + 11), alert("llm-api", "Down", ends=8))
    story.receive(at(HOUR_S + 11))
    story.tick(at(15))
    assert story.incident.resolved_at == at(15)

    story.ticks(at(16), at(134))
    assert story.states() == [S.RESOLVED]
    story.tick(at(136))

    assert story.incident.state is S.CLOSED


def test_an_acknowledgement_of_the_false_hour_ends_in_its_time_and_one_of_before_when_it_was_said() -> None:
    story = story_at_a_false_hour()
    story.push(at(HOUR_S + 10), alert("billing", "Slow"))
    false = next(each for each in story.shard.state.incidents.values() if each.service == "billing")
    story.do(at(HOUR_S + 11), Acknowledge(at(HOUR_S + 71)), false)
    story.do(at(HOUR_S + 11), Update("all", "soon", at(HOUR_S + 41)), false)

    story.tick(at(12))

    assert false.handling is not None and false.handling.acknowledged is not None
    assert false.handling.acknowledged.until == at(72)
    assert false.handling.update_due_at == at(42)


def test_an_acknowledgement_of_before_the_false_hour_stays_as_it_was_said() -> None:
    story = Story(GIVEN)
    story.push(at(0), alert("llm-api", "Down"))
    story.do(at(1), Acknowledge(at(2 * HOUR_S)), story.incident)
    story.hear(at(HOUR_S), at(2))

    story.tick(at(3))

    assert story.incident.handling is not None and story.incident.handling.acknowledged is not None
    assert story.incident.handling.acknowledged.until == at(2 * HOUR_S)


def test_calls_of_the_false_hour_are_known_for_a_while_and_then_forgotten() -> None:
    story = story_at_a_false_hour()
    story.push(at(HOUR_S + 11), alert("billing", "Slow"), call=b"once")
    first = story.reply

    step = story.push(at(15), alert("billing", "Slow"), call=b"once")
    assert story.reply == first and [type(event) for event in step.events] == [ClockSetBack]
    for second in range(20, 200, 10):
        story.push(at(second), alert("other", "Slow"))

    assert b"once" not in story.shard.state.calls and len(story.shard.state.calls) < 20


def test_a_log_that_a_fast_clock_wrote_is_put_right_at_the_start() -> None:
    story = story_at_a_false_hour()
    story.push(at(HOUR_S + 11), alert("billing", "Slow", ends=HOUR_S + 300))

    story.restart(at(20))
    assert story.shard.now == at(20)
    story.push(at(21), alert("llm-api", "Down", ends=260), alert("search", "Slow", ends=240))

    assert story.decisions == [D.REPEATED, D.OPENED]


def test_a_snapshot_of_the_right_time_is_the_state_that_replay_gives() -> None:
    story = story_at_a_false_hour()
    story.push(
        at(HOUR_S + 11), *(alert(f"service-{number}", "Slow", ends=HOUR_S + 311) for number in range(3))
    )
    story.shard.checkpoint.begin()
    records = dict(story.shard.checkpoint.slice(1))

    story.tick(at(15))
    while more := story.shard.checkpoint.slice(1):
        records.update(more)
    story.shard.checkpoint.begin()
    while more := story.shard.checkpoint.slice(1_000_000):
        records.update(more)

    loaded = Shard("shard/0000", GIVEN)
    loaded.load(sorted((key, record) for key, record in records.items() if record is not None))
    loaded.loaded()
    assert not difference(dump(story.shard, at(30)), dump(loaded, at(30)))


def test_what_the_archive_was_to_forget_by_a_false_year_is_taken_back() -> None:
    story = Story(GIVEN)
    story.restart(at(0))
    for day in range(0, 400):
        story.tick(at(day * 86000.0))

    story.tick(at(10))

    assert story.shard.state.forgotten_before == at(10) - SETTINGS.retention_s


# -- clocks of senders ---------------------------------------------------------------------------------------


def fires(starts: float = NO_START, *, ends: float = math.inf) -> Story:
    story = Story(GIVEN)
    story.push(at(0), alert("llm-api", "Down", starts=starts, ends=ends))
    return story


@pytest.mark.parametrize("began", [NO_START, -60.0, 0.0, 120.0])
@pytest.mark.parametrize("start", [NO_START, 0.0, -600.0])
@pytest.mark.parametrize("ended", [-30.0, -3600.0, 0.5])
def test_an_end_ends_whatever_clock_it_is_by(began: float, start: float, ended: float) -> None:
    story = fires(began)

    story.push(at(1), alert("llm-api", "Down", starts=start, ends=ended))

    is_of_before = start < began and ended < began
    assert story.decisions == [D.LATE if is_of_before else D.RESOLVED]


@pytest.mark.parametrize("began", [NO_START, 0.0, 120.0])
@pytest.mark.parametrize("start", [NO_START, 0.0, 120.0, -60.0])
def test_resolved_without_a_time_always_ends(began: float, start: float) -> None:
    story = fires(began)

    down = alert("llm-api", "Down", starts=start, ends=1)
    story.push(at(1), down, said=bytes([Claim.RESOLVED_NOW]))

    assert story.decisions == [D.RESOLVED]
    assert story.incident.state is S.RESOLVED


def test_resolved_ends_by_a_gateways_clock_that_is_ahead_of_the_shards_too() -> None:
    story = fires()

    down = alert("llm-api", "Down", starts=NO_START, ends=600)
    story.push(at(1), down, said=bytes([Claim.RESOLVED_NOW]))

    assert story.decisions == [D.RESOLVED]
    assert story.shard.state.series.ends[0] == at(1)


@pytest.mark.parametrize("word", [Claim.RESOLVED, Claim.RESOLVED_NOW])
def test_resolved_never_opens(word: Claim) -> None:
    story = Story(GIVEN)

    # The shard's clock is behind the gateway's.
    story.push(at(0), alert("llm-api", "Down", ends=3), said=bytes([word]))

    assert story.decisions == [D.UNKNOWN_RESOLVE]
    assert not story.shard.state.incidents


def test_an_end_that_comes_again_in_other_words_is_of_what_does_not_fire() -> None:
    story = fires()
    story.push(at(1), alert("llm-api", "Down", starts=NO_START, ends=1))

    story.push(at(2), alert("llm-api", "Down", starts=NO_START, ends=2))

    assert story.decisions == [D.UNKNOWN_RESOLVE]


def test_an_alert_without_a_start_began_when_we_heard_of_it() -> None:
    story = fires()

    assert story.shard.state.series.starts[0] == ZERO
