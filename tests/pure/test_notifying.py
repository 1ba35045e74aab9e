"""Who hears what of an incident, and when, one sentence a story (tests/scenario.py)."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from models.incidents.incident import Severity
from models.incidents.notification import FIRING, RESOLVED, Facts
from models.incidents.verbs import Acknowledge, Create, Merge, Resolve
from models.routes.route import ReceiverRow
from models.shard.effects import Act
from models.shard.events import ActionFailed, NotificationDropped
from models.shard.lifecycle import STILL_FIRING_S
from models.shard.notifications import Notifications
from models.shard.settings import ShardSettings
from services.actions.webhook_body import webhook_body
from tests.scenario import SETTINGS, ZERO, Story, alert, at

HOUR_S = 3600.0


def changed(**settings: object) -> ShardSettings:
    return msgspec.structs.replace(SETTINGS, **settings)


def opened(settings: ShardSettings = SETTINGS, severity: Severity = Severity.P0) -> Story:
    """One incident, open since second 0; a P0's first notification is on its way."""
    story = Story(settings)
    story.push(at(0), alert("llm-api", "Down"))
    story.classify(at(0), severity)
    return story


def reasons(story: Story) -> list[str]:
    return [reason for _when, reason, _attempt in story.sent()]


# -- a receiver that does not take it -------------------------------------------------------------------------


def test_a_receiver_that_refuses_for_a_while_is_told_all_the_same() -> None:
    story = opened()

    story.receive(at(0), ok=False, reached=False)
    story.tick(at(1))
    assert story.sent() == [(1.0, "opened", 1)]
    story.receive(at(1))

    assert story.incident.timeline[-1].text == "opened: test"
    assert not story.incident.notification_of("webhook").given_up


def test_the_first_failure_is_in_the_timeline_at_once() -> None:
    story = opened()

    story.receive(at(0), ok=False, reached=False)

    assert story.incident.timeline[-1].text == "opened: test; will retry"


def test_who_refused_the_opening_is_not_told_of_the_end() -> None:
    story = opened()
    story.receive(at(0), ok=False, reached=False)

    story.push(at(0.1), alert("llm-api", "Down").ended(0.1))
    story.ticks(at(1), at(60))

    assert story.sent() == []
    assert [event.why for event in story.named(NotificationDropped)] == [
        "resolved before anyone was notified"
    ]


def test_an_end_that_waits_for_an_opening_nobody_took_is_not_told() -> None:
    story = opened()
    story.push(at(0.1), alert("llm-api", "Down").ended(0.1))

    story.receive(at(1), ok=False, reached=False)
    story.ticks(at(1), at(60))

    assert story.sent() == []
    assert not story.incident.notification_of("webhook").given_up
    assert [line.kind for line in story.incident.timeline[-2:]] == [
        "NotificationFailed", "NotificationDropped"
    ]  # fmt: skip


def test_an_end_is_told_when_the_opening_may_have_been_heard_though_it_failed() -> None:
    story = opened()
    story.push(at(0.1), alert("llm-api", "Down").ended(0.1))

    story.receive(at(1), ok=False, reached=True)

    assert reasons(story) == ["resolved"]


def test_an_opening_that_was_given_up_is_counted_until_a_notification_is_taken() -> None:
    story = opened(changed(give_up_after_s=HOUR_S))
    story.receive(at(0), ok=False, reached=False)
    story.tick(at(1))
    story.receive(at(HOUR_S + 1), ok=False, reached=False)
    assert story.incident.notification_of("webhook").given_up and list(
        story.shard.of(Notifications).given_up
    ) == [story.incident.id]
    assert story.named(ActionFailed)[-1].retry_at == 0.0

    story.push(at(HOUR_S + 2), alert("llm-api", "Down", "b", severity="page"))
    story.push(at(HOUR_S + 3), alert("llm-api", "Down").ended(HOUR_S + 3))
    story.push(at(HOUR_S + 3), alert("llm-api", "Down", "b", severity="page").ended(HOUR_S + 3))

    assert story.sent() == []
    story.push(at(HOUR_S + 4), alert("llm-api", "Down"))
    story.tick(at(HOUR_S + 4))
    story.receive(at(HOUR_S + 5))
    assert not story.shard.of(Notifications).given_up


def test_a_body_that_is_refused_for_what_it_says_is_given_up_and_its_end_not_told() -> None:
    story = opened()

    story.receive(at(0), ok=False, final=True, reached=False)
    story.push(at(1), alert("llm-api", "Down").ended(1))

    assert story.incident.notification_of("webhook").given_up
    assert story.sent() == []


def test_what_was_given_up_is_no_more_counted_when_its_incident_left() -> None:
    story = opened()
    story.receive(at(0), ok=False, final=True, reached=False)
    story.push(at(1), alert("llm-api", "Down").ended(1))
    story.ticks(at(2), at(125))

    story.archive(at(126))

    assert not story.shard.of(Notifications).given_up


def test_retries_go_on_slower_and_slower_until_the_notification_is_given_up() -> None:
    story = opened(changed(retry_max_s=300.0, give_up_after_s=2 * HOUR_S))
    tries, now = 0, 0.0
    while story.incident.notification_of("webhook").reason is not None:
        story.receive(at(now), ok=False, reached=False)
        tries += 1
        if story.incident.notification_of("webhook").reason is not None:
            now = story.incident.notification_of("webhook").due_at - ZERO
            story.tick(at(now))

    assert 2 * HOUR_S < now < 2 * HOUR_S + 300
    assert tries < 60


# -- a least interval, and flapping ---------------------------------------------------------------------------

MINUTE = changed(interval_s=60.0, reopen_window_s=HOUR_S, close_after_s=HOUR_S)
Heard = list[tuple[float, str, str]]


def status_of(facts: Facts) -> str:
    """What the receiver is told."""
    return RESOLVED if facts.is_over else FIRING


def taking(story: Story, heard: Heard) -> None:
    """The receiver takes all it was sent."""
    while sent := [(when, effect) for when, effect in story.asked if isinstance(effect, Act)]:
        when, effect = sent[0]
        heard.append((when - ZERO, effect.facts.reason, status_of(effect.facts)))
        story.receive(when)


def flap(story: Story, heard: Heard, changes: list[float], until: float, *, fires: bool = False) -> None:
    """Its only alert ends, fires, ends ... at these seconds; each second is a tick."""
    turns = list(changes)
    for second in range(int(changes[0]), int(until) + 1):
        while turns and turns[0] <= second:
            when = turns.pop(0)
            told = alert("llm-api", "Down", starts=when)
            story.push(at(when), told if fires else told.ended(when))
            fires = not fires
        story.tick(at(second))
        taking(story, heard)


def paged() -> tuple[Story, Heard]:
    """A P0, told at second 0."""
    story, heard = opened(MINUTE), list[tuple[float, str, str]]()
    taking(story, heard)
    return story, heard


def test_six_flaps_within_seconds_are_one_opening_and_their_end() -> None:
    story, heard = paged()

    flap(story, heard, [number * 0.8 + 1 for number in range(13)], 300)

    assert not story.incident.is_open
    assert heard[0] == (0.0, "opened", "firing")
    assert [(reason, status) for _when, reason, status in heard[1:]] == [("resolved", "resolved")]
    assert 60 <= heard[1][0] <= 75


def test_an_end_and_a_reopening_within_the_interval_cancel() -> None:
    story, heard = paged()

    flap(story, heard, [10, 30], 600)

    assert heard == [(0.0, "opened", "firing")]
    assert story.incident.timeline[-1].text == "reopened before `resolved` was sent"


def test_a_quick_end_is_told_when_the_interval_is_over() -> None:
    story, heard = paged()

    flap(story, heard, [20], 300)

    assert heard[1:] == [(60.0, "resolved", "resolved")]


def test_an_end_after_the_interval_is_told_at_once_and_so_is_a_reopening() -> None:
    story, heard = paged()

    flap(story, heard, [100, 200], 300)

    assert heard[1:] == [(100.0, "resolved", "resolved"), (200.0, "reopened", "firing")]


def test_a_reopening_soon_after_its_end_was_told_waits_for_the_interval() -> None:
    story, heard = paged()

    flap(story, heard, [100, 110], 300)

    assert heard[1:] == [(100.0, "resolved", "resolved"), (160.0, "reopened", "firing")]


def test_an_end_that_a_person_gave_is_not_held_back_by_flapping() -> None:
    story, heard = paged()
    flap(story, heard, [100, 200, 300, 400, 500, 600], 600)
    assert heard[-1][1] == "flapping"

    story.do(at(700), Resolve(), story.incident)
    taking(story, heard)

    assert heard[-1] == (700.0, "resolved", "resolved")


def test_a_rise_in_severity_does_not_wait_for_the_interval() -> None:
    story = opened(MINUTE, Severity.P1)
    heard: Heard = []
    taking(story, heard)
    story.push(at(5), alert("llm-api", "Down", "b", severity="page"))

    story.classify(at(5), Severity.P0)
    taking(story, heard)

    assert heard[-1] == (5.0, "severity changed", "firing")


def test_a_rise_in_severity_is_not_held_up_by_tries_that_failed() -> None:
    story = opened(changed(retry_first_s=100.0), Severity.P1)
    story.receive(at(0), ok=False, reached=False)
    story.push(at(5), alert("llm-api", "Down", "b", severity="page"))

    story.classify(at(5), Severity.P0)

    assert story.sent() == [(5.0, "opened", 0)]


def test_flapping_is_told_once_and_then_nothing_until_it_is_quiet() -> None:
    story, heard = paged()
    changes = [120.0 * number for number in range(1, 31)]

    flap(story, heard, changes, 3600 + 1000)

    assert [reason for _when, reason, _status in heard] == [
        "opened", "resolved", "reopened", "resolved", "reopened", "resolved", "flapping", "flapping ended"
    ]  # fmt: skip
    assert heard[-2][0] == 720.0
    assert heard[-1] == (3600.0 + 480, "flapping ended", "firing")


def test_the_end_of_what_flapped_is_told_when_it_has_been_quiet() -> None:
    story, heard = paged()
    changes = [120.0 * number for number in range(1, 10)]

    flap(story, heard, changes, 3000)

    assert heard[-2:] == [(720.0, "flapping", "firing"), (1080.0 + 480, "resolved", "resolved")]


def test_what_flapped_and_was_over_is_told_of_anew() -> None:
    story, heard = paged()
    flap(story, heard, [120.0 * number for number in range(1, 10)], 3000)

    flap(story, heard, [3100.0], 3101, fires=True)

    assert heard[-1] == (3100.0, "reopened", "firing")


def test_without_an_interval_every_end_and_every_reopening_is_told() -> None:
    story, heard = opened(), list[tuple[float, str, str]]()
    taking(story, heard)

    flap(story, heard, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 20)

    assert [reason for _when, reason, _status in heard] == ["opened", *["resolved", "reopened"] * 4]


def test_an_end_in_doubt_is_not_cancelled_by_a_reopening() -> None:
    story, heard = paged()
    story.push(at(100), alert("llm-api", "Down").ended(100))
    story.receive(at(100), ok=False, reached=True)

    flap(story, heard, [100.2], 300, fires=True)

    assert [reason for _when, reason, _status in heard] == ["opened", "reopened"]


def test_an_end_that_nobody_can_have_heard_is_cancelled_by_a_reopening() -> None:
    story, heard = paged()
    story.push(at(100), alert("llm-api", "Down").ended(100))
    story.receive(at(100), ok=False, reached=False)

    flap(story, heard, [100.2], 300, fires=True)

    assert [reason for _when, reason, _status in heard] == ["opened"]


def test_an_alert_that_fires_and_ends_in_one_request_disturbs_nobody() -> None:
    story, heard = paged()
    flap(story, heard, [100.0], 200)
    again = alert("llm-api", "Down", starts=210)

    story.push(at(210), again, again.ended(210))
    story.ticks(at(211), at(400))

    assert not story.incident.is_open
    assert story.sent() == []


def test_the_end_of_what_is_merged_before_it_was_told_is_told() -> None:
    story, _heard = paged()
    whole = story.do(at(10), Create("other", "other", severity=Severity.P3))
    story.push(at(20), alert("llm-api", "Down").ended(20))
    part = next(each for each in story.shard.state.incidents.values() if not each.is_by_hand)

    story.do(at(30), Merge(source=part.id), whole)
    story.carry(at(30))
    story.tick(at(60))

    assert ("resolved", 60.0) in [(reason, when) for when, reason, _attempt in story.sent()]


@pytest.mark.parametrize("seed", range(15))
def test_whatever_happens_the_last_word_is_true_and_no_opening_is_told_twice(seed: int) -> None:
    """Flaps at all speeds, a receiver that fails in every way, restarts."""
    rng = random.Random(seed)
    story, receiver = Story(MINUTE), Doubting(rng)
    fires, now = True, 0.0
    story.push(at(0), alert("llm-api", "Down"))
    story.classify(at(0), rng.choice((Severity.P0, Severity.P2, Severity.P4)))

    while now < 4000:
        later = now + rng.uniform(0.2, rng.choice((0.5, 3.0, 20.0, 70.0, 200.0)))
        while now + 3 < later:
            now += 3
            story.tick(at(now))
            receiver.answer(story, now)
        now = later
        fires = not fires
        told = alert("llm-api", "Down", starts=now)
        story.push(at(now), told if fires else told.ended(now))
        if rng.random() < 0.05:
            story.asked = []
            story.restart(at(now))
            receiver.again = {(act.number, act.attempt) for _at, act in story.asked if isinstance(act, Act)}
        receiver.answer(story, now)
    receiver.is_well = True
    for _ in range(150):
        now += 10
        story.tick(at(now))
        receiver.answer(story, now)

    incident = max(story.shard.state.incidents.values(), key=lambda each: each.created_at)
    assert incident.notification_of("webhook").reason is None
    assert incident.is_open == fires
    assert receiver.status == "firing" if fires else receiver.status in ("resolved", "")


class Doubting:
    """A receiver that takes a notification, loses it, or takes it and says otherwise; now and then it is slow to answer. Sent
    under a key that it knows, a notification is no news, as after a restart."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.is_well = False
        #: What it was last told, and whether the shard can know that it was.
        self.status = ""
        self._said, self._is_known, self._heard_at = "", False, -1000.0
        self._numbers: set[tuple[bytes, int]] = set()
        #: Tries that were asked for again after a restart: they may have been taken before.
        self.again: set[tuple[int, int]] = set()

    def answer(self, story: Story, now: float) -> None:
        if not self.is_well and self.rng.random() < 0.3:
            return
        while acts := [(when, effect) for when, effect in story.asked if isinstance(effect, Act)]:
            when, effect = acts[0]
            fate = "taken" if self.is_well else self.rng.choice(("taken", "taken", "lost", "unanswered"))
            if fate != "lost":
                self._take(effect, when - ZERO)
                self._heard_at = now
                self._is_known = fate == "taken"
            elif (effect.number, effect.attempt) in self.again:
                self._is_known = False
            story.receive(at(now), ok=fate == "taken", reached=fate == "unanswered")

    def _take(self, effect: Act, when: float) -> None:
        reason, self.status = effect.facts.reason, status_of(effect.facts)
        said = "resolved" if reason == "resolved" else "firing"
        key = (effect.incident_id, effect.number)
        if key not in self._numbers and (self._said or said == "firing"):
            is_news = said != self._said or reason in ("severity changed", "flapping", "flapping ended")
            assert is_news or not self._is_known, f"told twice that it is {said}"
            assert when >= self._heard_at + 60 - 0.001, "told sooner than an interval after"
        self._numbers.add(key)
        self._said = said


# -- which alerts a notification shows ------------------------------------------------------------------------------


def shown(story: Story) -> dict[str, Any]:
    """The body of the newest notification."""
    effect = [effect for _when, effect in story.asked if isinstance(effect, Act)][-1]
    body: dict[str, Any] = json.loads(webhook_body(effect.facts))
    return body


def test_a_notification_of_a_large_incident_shows_what_fires_though_it_came_last() -> None:
    story = Story(changed(receivers={"webhook": ReceiverRow(max_alerts=2)}))
    story.push(at(0), *[alert("llm-api", "Down", each, zone="1") for each in "abc"])
    story.push(at(1), *[alert("llm-api", "Down", each, zone="1").ended(1) for each in "ab"])
    story.push(at(2), alert("llm-api", "Down", "d", starts=2, severity="info", zone="2"))

    story.classify(at(2), Severity.P0)

    body = shown(story)
    assert [(each["labels"]["instance"], each["status"]) for each in body["alerts"]] == [
        ("c", "firing"), ("d", "firing")
    ]  # fmt: skip
    assert body["truncatedAlerts"] == 2
    assert body["commonLabels"] == {"service": "llm-api", "alertname": "Down"}
    assert body["commonAnnotations"] == {}


def test_a_try_that_is_asked_for_again_after_a_crash_may_have_arrived_the_first_time() -> None:
    story = Story(changed())
    story.push(at(0), alert("llm-api", "Down"))
    story.classify(at(0), Severity.P0)
    story.restart(at(1))
    del story.asked[0]  # the process that asked first is no more

    story.receive(at(1), ok=False, final=True, reached=False)

    assert (
        story.incident.notification_of("webhook").told
        and story.incident.notification_of("webhook").sure == ""
    )


def test_what_is_common_to_those_that_fire_is_not_common_to_all_when_others_have_ended() -> None:
    story = Story(changed())
    story.push(at(0), alert("llm-api", "Down", "a", zone="1"))
    story.push(at(1), *[alert("llm-api", "Down", each, zone="2") for each in "bc"])
    story.push(at(2), alert("llm-api", "Down", "a", zone="1").ended(2))

    story.classify(at(2), Severity.P0)

    assert story.incident.annotations == {"zone": "2"}
    assert shown(story)["commonAnnotations"] == {}


def test_an_incident_that_outlived_more_alerts_than_are_shown_tells_of_those_that_fire() -> None:
    story = Story(changed(receivers={"webhook": ReceiverRow(max_alerts=3)}))
    pods = [alert("llm-api", "Down", f"pod-{number}") for number in range(50)]
    story.push(at(0), *pods)
    for number, pod in enumerate(pods[:-1], 1):
        story.push(at(number), pod.ended(number))

    story.classify(at(60), Severity.P0)

    assert [(each["labels"]["instance"], each["status"]) for each in shown(story)["alerts"]] == [
        ("pod-49", "firing"), ("pod-48", "resolved"), ("pod-47", "resolved")
    ]  # fmt: skip


def test_a_persons_resolution_ends_every_alert_and_nothing_follows_when_they_end() -> None:
    story, _heard = paged()
    story.do(at(100), Resolve(), story.incident)

    (ended,) = shown(story)["alerts"]
    assert (ended["status"], ended["endsAt"]) == ("resolved", "2026-01-01T00:01:40Z")
    story.receive(at(100))
    story.push(at(120), alert("llm-api", "Down").ended(120))
    story.ticks(at(121), at(400))
    assert story.sent() == []


def test_alerts_that_fire_on_after_a_persons_resolution_are_told_as_firing_again() -> None:
    story, _heard = paged()
    story.do(at(100), Resolve(), story.incident)
    story.receive(at(100))

    story.tick(at(100 + STILL_FIRING_S))

    body = shown(story)
    assert (body["status"], body["incident"]["reason"]) == ("firing", "reopened")
    assert [each["status"] for each in body["alerts"]] == ["firing"]


def test_an_incident_by_hand_is_told_as_firing_until_it_is_resolved() -> None:
    story = Story()
    made = story.do(at(0), Create("billing", "invoices are late", severity=Severity.P0))
    assert shown(story)["status"] == "firing"
    story.receive(at(0))

    story.do(at(10), Resolve(), made)

    assert shown(story)["status"] == "resolved"


# -- starts with notifications and without --------------------------------------------------------------------

OFF = changed(notify=False)


def starts(story: Story, when: float, settings: ShardSettings) -> None:
    """Another process starts on what is there, with these settings."""
    story.asked = []
    story.settings = story.replayed.settings = settings
    story.restart(at(when))


def test_a_start_without_notifications_tells_nobody_whatever_was_owed_and_whatever_happens() -> None:
    story = opened()

    starts(story, 10, OFF)
    story.push(at(11), alert("llm-api", "Down").ended(11))
    story.push(at(12), alert("billing", "Down"))
    story.classify(at(12), Severity.P0)
    story.ticks(at(13), at(40))

    assert story.sent() == []
    assert [event.why for event in story.named(NotificationDropped)] == ["notifications are off"]


def test_an_incident_ends_and_closes_though_nobody_is_told() -> None:
    story = opened()
    starts(story, 10, OFF)
    story.push(at(11), alert("llm-api", "Down").ended(11))

    story.ticks(at(12), at(140))

    assert not story.incident.is_open and story.incident.closed_at


def test_the_next_start_with_notifications_tells_the_end_of_what_was_heard_of() -> None:
    story, _heard = paged()
    starts(story, 10, OFF)
    story.push(at(11), alert("llm-api", "Down").ended(11))

    starts(story, 100, SETTINGS)

    assert story.sent() == [(100.0, "resolved", 0)]


def test_the_next_start_with_notifications_tells_of_what_is_urgent_and_nobody_looks_after_and_of_nothing_old() -> (
    None
):
    story = Story(changed(notify=False, max_open=100))
    severities = [Severity.P0, Severity.P1, Severity.P2, Severity.P4, Severity.P0, Severity.P1]
    for number, severity in enumerate(severities):
        story.push(at(number), alert(f"service-{number}", "Down"))
        story.classify(at(number), severity)
    story.push(at(10), alert("service-4", "Down").ended(10))
    owned = next(each for each in story.shard.state.incidents.values() if each.service == "service-5")
    story.do(at(11), Acknowledge(), owned)

    starts(story, 100, changed(max_open=100))
    story.ticks(at(101), at(200))

    told = [effect.facts for _when, effect in story.asked if isinstance(effect, Act)]
    assert sorted((each.service, each.reason) for each in told) == [
        ("service-0", "opened"), ("service-1", "opened")
    ]  # fmt: skip


def test_a_restart_tells_nothing_again_that_was_told() -> None:
    story, _heard = paged()
    starts(story, 10, SETTINGS)
    story.push(at(20), alert("llm-api", "Down").ended(20))
    story.receive(at(20))

    starts(story, 30, SETTINGS)

    assert story.sent() == []


def test_a_p0_that_was_given_up_is_tried_again_by_the_next_start() -> None:
    story = opened()
    story.receive(at(0), ok=False, final=True, reached=False)

    starts(story, 100, SETTINGS)

    assert story.sent() == [(100.0, "opened", 0)]
