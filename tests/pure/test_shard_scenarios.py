"""What a shard makes of what it is told, one sentence a story (tests/scenario.py)."""

from __future__ import annotations

import msgspec
import pytest

from models.incidents.incident import IncidentState, Severity
from models.shard.archiving import ArchiveExpired
from models.shard.effects import Act, Forget
from models.shard.events import ActionFailed, NotificationDropped, NotificationOwed, SeriesResolved
from models.shard.messages import Decision, encode
from models.shard.settings import ShardSettings
from tests.scenario import SETTINGS, ZERO, Story, alert, at

D, S = Decision, IncidentState
DAY_S = 86400.0


def changed(**settings: object) -> ShardSettings:
    return msgspec.structs.replace(SETTINGS, **settings)


def opened(severity: Severity = Severity.P2) -> Story:
    """One incident, open since second 0, classified, nobody told yet."""
    story = Story()
    story.push(at(0), alert("llm-api", "Down"))
    story.classify(at(0), severity)
    return story


def heard() -> Story:
    """One incident, open, and the receiver heard of it at second 0."""
    story = opened(Severity.P0)
    story.receive(at(0))
    return story


# -- grouping ------------------------------------------------------------------------------------------------


def test_alerts_of_one_service_and_name_join_one_incident() -> None:
    story = Story()

    story.push(at(0), alert("llm-api", "Down", "a"))
    story.push(at(1), alert("llm-api", "Down", "b"))

    assert story.decisions == [D.JOINED]
    assert story.incident.firing == 2


def test_alerts_of_two_services_never_share_an_incident() -> None:
    story = Story()

    story.push(at(0), alert("llm-api", "Down"), alert("billing", "Down"))

    assert story.decisions == [D.OPENED, D.OPENED]


def test_the_same_alert_again_is_a_repeat() -> None:
    story = Story()

    story.push(at(0), alert("llm-api", "Down"))
    story.push(at(1), alert("llm-api", "Down"))

    assert story.decisions == [D.REPEATED]


def test_another_annotation_changes_the_series_and_opens_nothing() -> None:
    story = Story()

    story.push(at(0), alert("llm-api", "Down"))
    story.push(at(1), alert("llm-api", "Down", summary="worse"))

    assert story.decisions == [D.CHANGED]
    assert story.incident.series_seen == 1


def test_a_repeated_call_gets_the_same_reply_and_makes_no_event() -> None:
    story = Story()
    story.push(at(0), alert("llm-api", "Down"), call=b"once")
    first = story.reply

    step = story.push(at(1), alert("llm-api", "Down"), call=b"once")

    assert story.reply == first
    assert not step.events


def test_a_delivery_that_came_before_is_a_duplicate_and_makes_no_event() -> None:
    story = Story()
    story.push(at(0), alert("llm-api", "Down"), delivery="k")
    answered = story.reply

    step = story.push(at(1), alert("llm-api", "Down"), delivery="k", before=encode(answered))

    assert story.decisions == [D.DUPLICATE]
    assert story.reply.incident_ids == answered.incident_ids
    assert not step.events


# -- life ----------------------------------------------------------------------------------------------------


def test_an_incident_resolves_when_all_its_series_have() -> None:
    story = Story()
    one, two = alert("llm-api", "Down", "a"), alert("llm-api", "Down", "b")
    story.push(at(0), one, two)

    story.push(at(1), one.ended(1))
    assert story.incident.is_open
    story.push(at(2), two.ended(2))

    assert story.incident.state is S.RESOLVED


def test_a_resolved_series_of_an_open_incident_fires_again_in_it() -> None:
    story = Story()
    one, two = alert("llm-api", "Down", "a"), alert("llm-api", "Down", "b")
    story.push(at(0), one, two)
    story.push(at(1), one.ended(1))

    story.push(at(2), one)

    assert story.decisions == [D.REFIRED]
    assert story.incident.firing == 2


def test_an_incident_reopens_within_the_window() -> None:
    story = opened()
    story.push(at(1), alert("llm-api", "Down").ended(1))

    story.push(at(61), alert("llm-api", "Down"))

    assert story.decisions == [D.REOPENED]
    assert story.incident.reopened == 1


def test_a_new_series_reopens_its_group_within_the_window() -> None:
    story = opened()
    story.push(at(1), alert("llm-api", "Down").ended(1))

    story.push(at(30), alert("llm-api", "Down", "b"))

    assert story.decisions == [D.REOPENED]


def test_past_the_window_a_new_incident_opens() -> None:
    story = opened()
    story.push(at(1), alert("llm-api", "Down").ended(1))

    story.push(at(62), alert("llm-api", "Down"))

    assert story.decisions == [D.OPENED]
    assert len(story.shard.state.incidents) == 2


def test_a_series_still_repeats_when_its_older_life_is_archived() -> None:
    story = opened()
    story.push(at(1), alert("llm-api", "Down").ended(1))
    story.push(at(62), alert("llm-api", "Down"))
    story.ticks(at(120), at(122))
    story.archive(at(123))
    assert len(story.shard.state.incidents) == 1

    story.push(at(124), alert("llm-api", "Down"))

    assert story.decisions == [D.REPEATED]


def test_a_resolved_incident_closes_after_a_while_and_is_archived() -> None:
    story = opened()
    story.push(at(1), alert("llm-api", "Down").ended(1))

    story.tick(at(120))
    assert story.states() == [S.RESOLVED]
    story.tick(at(121))
    assert story.states() == [S.CLOSED]
    story.archive(at(122))

    assert not story.shard.state.incidents
    assert len(story.shard.state.series) == 0


def test_past_the_most_open_incidents_new_groups_join_one_overflow_incident_of_their_service() -> None:
    story = Story()
    story.push(at(0), *[alert("llm-api", f"Alert{number}") for number in range(5)])

    assert story.decisions == [D.OPENED] * 3 + [D.OVERFLOWED] * 2
    (overflow,) = [each for each in story.shard.state.incidents.values() if each.overflow is not None]
    assert overflow.severity is Severity.P1
    assert overflow.overflow_count == 2
    assert len(overflow.overflow or []) == 2


def test_an_end_of_something_unknown_is_set_aside() -> None:
    story = Story()

    story.push(at(5), alert("llm-api", "Down", ends=4))

    assert story.decisions == [D.UNKNOWN_RESOLVE]
    assert not story.shard.state.incidents


def test_the_end_of_an_earlier_life_is_late() -> None:
    story = Story()
    story.push(at(10), alert("llm-api", "Down", starts=10))

    story.push(at(11), alert("llm-api", "Down", starts=5, ends=9))

    assert story.decisions == [D.LATE]
    assert story.incident.firing == 1


# -- time ----------------------------------------------------------------------------------------------------


def test_a_series_that_nobody_sends_again_expires() -> None:
    story = Story()
    story.push(at(0), alert("llm-api", "Down", ends=40))

    story.ticks(at(1), at(41))

    assert story.incident.state is S.RESOLVED
    assert story.named(SeriesResolved)[0].expired


def test_nothing_expires_while_nobody_can_be_heard() -> None:
    story = Story()
    story.push(at(0), alert("llm-api", "Down", ends=40))

    story.ticks(at(1), at(600), in_gap=True)

    assert story.incident.is_open


def test_after_an_outage_senders_have_the_grace_to_speak_again() -> None:
    story = Story()
    story.push(at(0), alert("llm-api", "Down", ends=40))
    story.ticks(at(1), at(600), in_gap=True)

    story.hear(at(600), at(5))
    story.ticks(at(600), at(629))
    assert story.incident.is_open
    story.ticks(at(630), at(631))

    assert story.incident.state is S.RESOLVED


def test_after_a_restart_nothing_expires_within_the_grace() -> None:
    story = Story()
    story.push(at(0), alert("llm-api", "Down", ends=40))

    story.restart(at(50))
    story.ticks(at(51), at(79))
    assert story.incident.is_open
    story.ticks(at(80), at(81))

    assert story.incident.state is S.RESOLVED


# -- classification ------------------------------------------------------------------------------------------


def test_a_classification_triages() -> None:
    assert opened().incident.state is S.TRIAGED


def test_a_second_series_with_another_word_is_classified_anew() -> None:
    story = heard()
    story.push(at(1), alert("llm-api", "Down", "b", severity="critical"))

    story.classify(at(1), Severity.P1)

    assert story.incident.severity is Severity.P1


def test_a_stale_verdict_is_ignored() -> None:
    story = Story()
    story.push(at(0), alert("llm-api", "Down", severity="warning"))
    old = [effect for _when, effect in story.asked]
    story.push(at(1), alert("llm-api", "Down", "b", severity="critical"))
    story.classify(at(2), Severity.P0)
    story.asked = [(at(3), effect) for effect in old]

    step = story.classify(at(3), Severity.P4)

    assert not step.events
    assert story.incident.severity is Severity.P0


# -- notifications -------------------------------------------------------------------------------------------------


def test_a_p0_is_told_at_once() -> None:
    assert opened(Severity.P0).sent() == [(0.0, "opened", 0)]


@pytest.mark.parametrize(("severity", "wait_s"), [(Severity.P2, 10), (Severity.P3, 20), (Severity.P4, 30)])
def test_a_lesser_incident_is_told_after_its_wait(severity: Severity, wait_s: int) -> None:
    story = opened(severity)

    story.ticks(at(1), at(40))

    assert story.sent() == [(wait_s, "opened", 0)]


def test_who_was_not_told_yet_is_not_disturbed_by_a_resolve() -> None:
    story = opened(Severity.P3)

    story.push(at(5), alert("llm-api", "Down").ended(5))
    story.ticks(at(6), at(60))

    assert story.sent() == []
    assert len(story.named(NotificationDropped)) == 1


def test_a_rise_in_severity_shortens_the_wait() -> None:
    story = Story()
    story.push(at(0), alert("llm-api", "Down", severity="info"))
    story.classify(at(0), Severity.P4)
    story.push(at(3), alert("llm-api", "Down", "b", severity="page"))

    story.classify(at(3), Severity.P0)

    assert story.sent() == [(3, "opened", 0)]


def test_a_rise_in_severity_is_told() -> None:
    story = Story()
    story.push(at(0), alert("llm-api", "Down", severity="info"))
    story.classify(at(0), Severity.P1)
    story.receive(at(0))
    story.push(at(3), alert("llm-api", "Down", "b", severity="page"))

    story.classify(at(3), Severity.P0)

    assert story.sent() == [(3, "severity changed", 0)]


def test_a_failed_notification_is_tried_again_after_a_growing_while() -> None:
    story = opened(Severity.P0)
    waits, then = [], 0.0
    for attempt in range(1, 6):
        story.receive(at(then), ok=False)
        before, then = then, story.incident.notification_of("webhook").due_at - ZERO
        waits.append(then - before)
        story.tick(at(then))
        assert story.sent() == [(then, "opened", attempt)]

    assert all(0.5 * 2**place <= wait <= 2.0**place for place, wait in enumerate(waits))


def test_a_notification_that_the_receiver_will_never_take_is_given_up() -> None:
    story = opened(Severity.P0)

    story.receive(at(0), ok=False, final=True)

    assert story.incident.notification_of("webhook").reason is None
    assert story.named(ActionFailed)[0].retry_at == 0.0


def test_a_notification_is_given_up_after_the_longest_time() -> None:
    story = Story(changed(give_up_after_s=50.0))
    story.push(at(0), alert("llm-api", "Down"))
    story.classify(at(0), Severity.P0)

    story.receive(at(51), ok=False)

    assert story.incident.notification_of("webhook").reason is None


def test_a_resolve_waits_for_the_outcome_of_the_notification_before_it() -> None:
    story = opened(Severity.P0)

    story.push(at(1), alert("llm-api", "Down").ended(1))
    assert [reason for _when, reason, _attempt in story.sent()] == ["opened"]
    story.receive(at(2))

    assert story.sent() == [(2, "resolved", 0)]


def test_a_resolve_is_told_though_its_opening_failed_because_it_may_have_been_heard() -> None:
    story = opened(Severity.P0)
    story.receive(at(0), ok=False)

    story.push(at(0.1), alert("llm-api", "Down").ended(0.1))

    ((when, *what),) = story.sent()
    assert when == pytest.approx(0.1) and what == ["resolved", 0]


def test_a_reopening_is_told() -> None:
    story = heard()
    story.push(at(1), alert("llm-api", "Down").ended(1))
    story.receive(at(1))

    story.push(at(5), alert("llm-api", "Down"))

    assert story.sent() == [(5, "reopened", 0)]


def test_a_reopening_takes_the_place_of_a_resolve_that_could_not_be_told() -> None:
    story = heard()
    story.push(at(1), alert("llm-api", "Down").ended(1))
    story.receive(at(1), ok=False)

    story.push(at(1.1), alert("llm-api", "Down"))
    story.ticks(at(2), at(30))

    assert [reason for _when, reason, _attempt in story.sent()] == ["reopened"]
    assert [event.reason for event in story.named(NotificationOwed)] == ["opened", "resolved", "reopened"]


def test_what_was_sent_before_a_crash_is_sent_again_under_the_same_key() -> None:
    story = opened(Severity.P0)
    ((_when, before),) = story.asked
    assert isinstance(before, Act)
    story.asked = []

    story.restart(at(3))

    (after,) = [effect for _when, effect in story.asked if isinstance(effect, Act)]
    assert after.key == before.key


# -- retention -----------------------------------------------------------------------------------------------


def forgets(story: Story) -> list[tuple[float, float]]:
    """When the archive was told to forget, and what closed before when (both in story seconds)."""
    return [
        (when - ZERO, effect.closed_before - ZERO)
        for when, effect in story.asked
        if isinstance(effect, Forget)
    ]


def test_what_retention_has_passed_for_is_forgotten_by_an_event_an_hour_and_the_archive_told() -> None:
    story = Story(changed(retention_s=7 * DAY_S))
    story.restart(at(0))

    for minute in range(1, 121):
        story.tick(at(60 * minute))

    assert [event.closed_before - ZERO for event in story.named(ArchiveExpired)] == [
        -7 * DAY_S, 3600 - 7 * DAY_S, 7200 - 7 * DAY_S
    ]  # fmt: skip
    assert forgets(story) == [(when, when - 7 * DAY_S) for when in (0, 3600, 7200)]


def test_what_was_forgotten_is_asked_for_again_at_the_next_start_and_when_the_archive_was_away() -> None:
    story = Story(changed(retention_s=7 * DAY_S))
    story.restart(at(0))

    story.restart(at(10))
    story.shard.ask_again(Forget(0.0))
    story.tick(at(20))

    assert len(story.named(ArchiveExpired)) == 1
    assert forgets(story) == [(when, -7 * DAY_S) for when in (0, 10, 20)]


def test_a_longer_retention_never_brings_back_what_was_forgotten() -> None:
    story = Story(changed(retention_s=DAY_S))
    story.restart(at(0))

    story.shard.take_settings(changed(retention_s=7 * DAY_S))
    for hour in range(48):
        story.tick(at(3600 * hour))

    assert story.shard.state.forgotten_before == at(-DAY_S)


def test_a_shorter_retention_counts_from_the_next_tick_on() -> None:
    story = Story(changed(retention_s=7 * DAY_S))
    story.restart(at(0))

    story.shard.take_settings(changed(retention_s=60.0))
    story.tick(at(1))
    story.tick(at(2))
    story.tick(at(4))

    assert [event.closed_before - ZERO for event in story.named(ArchiveExpired)][1:] == [-59.0, -56.0]


def test_an_incident_closes_only_when_nobody_is_owed_word_of_it() -> None:
    story = heard()
    story.push(at(1), alert("llm-api", "Down").ended(1))

    story.ticks(at(2), at(200))
    assert story.states() == [S.RESOLVED]
    story.receive(at(200))
    story.ticks(at(201), at(300))

    assert story.states() == [S.CLOSED]
