"""Who hears what of an incident, and when, one sentence a story (tests/scenario.py)."""

from __future__ import annotations

import msgspec

from models.events import ActionFailed, NoticeDropped
from models.incident import Severity
from models.shard_settings import ShardSettings
from tests.scenario import SETTINGS, ZERO, Story, alert, at

HOUR_S = 3600.0


def changed(**settings: object) -> ShardSettings:
    return msgspec.structs.replace(SETTINGS, **settings)


def opened(settings: ShardSettings = SETTINGS, severity: Severity = Severity.P0) -> Story:
    """One incident, open since second 0; a P0's first notice is on its way."""
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
    assert not story.incident.notice.given_up


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
    assert [event.why for event in story.named(NoticeDropped)] == ["resolved before anyone was told"]


def test_an_end_that_waits_for_an_opening_nobody_took_is_not_told() -> None:
    story = opened()
    story.push(at(0.1), alert("llm-api", "Down").ended(0.1))

    story.receive(at(1), ok=False, reached=False)
    story.ticks(at(1), at(60))

    assert story.sent() == []
    assert not story.incident.notice.given_up
    assert [line.kind for line in story.incident.timeline[-2:]] == [
        "NotificationFailed", "NotificationDropped"
    ]  # fmt: skip


def test_an_end_is_told_when_the_opening_may_have_been_heard_though_it_failed() -> None:
    story = opened()
    story.push(at(0.1), alert("llm-api", "Down").ended(0.1))

    story.receive(at(1), ok=False, reached=True)

    assert reasons(story) == ["resolved"]


def test_an_opening_that_was_given_up_is_counted_until_a_notice_is_taken() -> None:
    story = opened(changed(give_up_after_s=HOUR_S))
    story.receive(at(0), ok=False, reached=False)
    story.tick(at(1))
    story.receive(at(HOUR_S + 1), ok=False, reached=False)
    assert story.incident.notice.given_up and list(story.shard.given_up) == [story.incident.id]
    assert story.named(ActionFailed)[-1].retry_at == 0.0

    story.push(at(HOUR_S + 2), alert("llm-api", "Down", "b", severity="page"))
    story.push(at(HOUR_S + 3), alert("llm-api", "Down").ended(HOUR_S + 3))
    story.push(at(HOUR_S + 3), alert("llm-api", "Down", "b", severity="page").ended(HOUR_S + 3))

    assert story.sent() == []
    story.push(at(HOUR_S + 4), alert("llm-api", "Down"))
    story.tick(at(HOUR_S + 4))
    story.receive(at(HOUR_S + 5))
    assert not story.shard.given_up


def test_a_body_that_is_refused_for_what_it_says_is_given_up_and_its_end_not_told() -> None:
    story = opened()

    story.receive(at(0), ok=False, final=True, reached=False)
    story.push(at(1), alert("llm-api", "Down").ended(1))

    assert story.incident.notice.given_up
    assert story.sent() == []


def test_what_was_given_up_is_no_more_counted_when_its_incident_left() -> None:
    story = opened()
    story.receive(at(0), ok=False, final=True, reached=False)
    story.push(at(1), alert("llm-api", "Down").ended(1))
    story.ticks(at(2), at(125))

    story.archive(at(126))

    assert not story.shard.given_up


def test_retries_go_on_slower_and_slower_until_the_notice_is_given_up() -> None:
    story = opened(changed(retry_max_s=300.0, give_up_after_s=2 * HOUR_S))
    tries, now = 0, 0.0
    while story.incident.notice.reason is not None:
        story.receive(at(now), ok=False, reached=False)
        tries += 1
        if story.incident.notice.reason is not None:
            now = story.incident.notice.due_at - ZERO
            story.tick(at(now))

    assert 2 * HOUR_S < now < 2 * HOUR_S + 300
    assert tries < 60
