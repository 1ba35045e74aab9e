"""The section of the control partition that keeps who polls what, and how far that got."""

from __future__ import annotations

import pytest

from models.control import polls
from models.control.polls import CURSOR_MAX_BYTES, MoveCursor, Polls, ReleasePoll, TakePoll
from models.errors import Conflict, Malformed, TooLarge
from models.wire import Wire


class Kept:
    """The section, driven as the control partition drives it."""

    def __init__(self) -> None:
        self.touched: set[bytes] = set()
        self.section = Polls(self.touched.add)
        self.now = 100.0

    def tell(self, message: Wire) -> int:
        """How many events come of it."""
        events = self.section.decide(message, self.now)
        for event in events:
            self.section.apply(event, self.now)
        return len(events)

    def take(self, owner: str, name: str = "taxii/feed", lease_s: float = 30.0) -> int:
        self.tell(TakePoll(name, owner, lease_s))
        return self.section.polls[name].epoch


def test_a_lease_is_one_owners_until_it_runs_out() -> None:
    kept = Kept()
    assert kept.take("a") == 1

    kept.now += 29.0
    with pytest.raises(Conflict, match="a polls taxii/feed already, at least for 1 s"):
        kept.take("b")
    assert kept.take("a") == 1  # renewed

    kept.now += 30.0
    assert kept.take("b") == 2


def test_who_lost_the_lease_moves_no_cursor() -> None:
    kept = Kept()
    kept.take("a")
    kept.tell(MoveCursor("taxii/feed", 1, "10"))
    kept.now += 31.0
    kept.take("b")

    with pytest.raises(Conflict, match="b polls taxii/feed by now"):
        kept.tell(MoveCursor("taxii/feed", 1, "5"))

    assert kept.section.polls["taxii/feed"].cursor == "10"
    assert kept.tell(MoveCursor("taxii/feed", 2, "11")) == 1
    assert kept.tell(MoveCursor("taxii/feed", 2, "11")) == 0  # a repeat


def test_one_that_was_released_can_be_taken_at_once_and_by_its_owner_only() -> None:
    kept = Kept()
    kept.take("a")

    assert kept.tell(ReleasePoll("taxii/feed", "b")) == 0
    assert kept.tell(ReleasePoll("taxii/feed", "a")) == 1
    assert kept.tell(ReleasePoll("taxii/feed", "a")) == 0
    assert kept.take("b") == 2


def test_a_lease_from_a_clock_that_was_far_ahead_holds_nobody_up() -> None:
    kept = Kept()
    kept.now = 1e9
    kept.take("a")
    kept.now = 100.0

    assert kept.take("b") == 2


def test_names_cursors_times_and_their_number_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polls, "POLLS_MAX", 2)
    kept = Kept()
    for message, kind in (
        (TakePoll("", "a", 1.0), Malformed),
        (TakePoll("x" * 201, "a", 1.0), Malformed),
        (TakePoll("x", "", 1.0), Malformed),
        (TakePoll("x", "a", 0.0), Malformed),
        (TakePoll("x", "a", float("nan")), Malformed),
        (TakePoll("x", "a", 1e9), Malformed),
        (MoveCursor("x", 1, "c"), Conflict),
    ):
        with pytest.raises(kind):
            kept.tell(message)
    kept.take("a", "one")
    kept.now += 1
    kept.take("a", "two")
    with pytest.raises(TooLarge):
        kept.tell(MoveCursor("one", 1, "c" * (CURSOR_MAX_BYTES + 1)))
    with pytest.raises(TooLarge):
        kept.take("a", "three")
    kept.now += 29.5  # the first lease has run out

    kept.take("a", "three")

    assert set(kept.section.polls) == {"two", "three"}


def test_a_snapshot_gives_what_the_events_gave() -> None:
    kept = Kept()
    kept.take("a")
    kept.tell(MoveCursor("taxii/feed", 1, "10"))
    kept.take("b", "alertmanager/prod")

    again = Polls(lambda _key: None)
    for key in sorted(kept.touched):
        record = kept.section.capture(key)
        assert record is not None
        again.load(key, record)

    assert again.polls == kept.section.polls
