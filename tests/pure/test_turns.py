"""Who waits for a shard is served in turns, and holds no more than its share."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from services.ingest.shares import Shares
from services.ingest.turns import TURN_ALERTS, Turns

CALL = 8192


@dataclass
class Waiting:
    sender: str
    alerts: int
    deadline: float = 0.0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abc"), st.integers(1, TURN_ALERTS)),
        st.none(),  # a call takes what it can carry
    ),
    max_size=80,
)


@given(STEPS)
def test_everybody_is_served_each_in_its_order_and_no_call_is_too_large(
    steps: list[tuple[str, int] | None],
) -> None:
    turns: Turns[Waiting] = Turns()
    put: dict[str, list[Waiting]] = defaultdict(list)
    taken: dict[str, list[Waiting]] = defaultdict(list)

    def call() -> None:
        batch = turns.take(CALL)
        assert batch and sum(each.alerts for each in batch) <= CALL
        for each in batch:
            taken[each.sender].append(each)

    for step in steps:
        if step is None:
            if turns:
                call()
            continue
        put[step[0]].append(Waiting(*step))
        turns.put(put[step[0]][-1])
    while turns:
        call()

    assert not turns._alerts
    for sender, waited in put.items():
        assert [id(each) for each in taken[sender]] == [id(each) for each in waited]


@given(st.integers(1, 5), st.integers(1, TURN_ALERTS), st.integers(0, 20_000))
def test_who_sends_little_waits_for_one_turn_of_each_other_at_most(
    others: int, alerts: int, served: int
) -> None:
    turns: Turns[Waiting] = Turns()
    for _ in range(200):
        for other in range(others):
            turns.put(Waiting(f"loud{other}", 500))
    while served > 0:
        served -= sum(each.alerts for each in turns.take(CALL))
    turns.put(Waiting("quiet", alerts))

    before = 0
    while True:
        batch = [*turns.take(CALL)]
        at = next((place for place, each in enumerate(batch) if each.sender == "quiet"), None)
        before += sum(each.alerts for each in batch[:at])
        if at is not None:
            break

    # A turn, and what its last message is longer than the turn. Where one was alone, it had the call to itself.
    assert before <= others * (TURN_ALERTS + 500)


def test_what_is_overdue_goes_and_the_rest_stays() -> None:
    turns: Turns[Waiting] = Turns()
    for sender in "ab":
        for deadline in (1.0, 5.0):
            turns.put(Waiting(sender, 1, deadline))

    assert [each.sender for each in turns.overdue(2.0)] == ["a", "b"]
    assert turns._alerts == 2 and [each.deadline for each in turns.take(CALL)] == [5.0, 5.0]


def fill(shares: Shares, senders: str, most: int) -> dict[str, int]:
    """All of these take as much as they can, one after the other."""
    held = dict.fromkeys(senders, 0)
    while True:
        before = dict(held)
        for sender in senders:
            free = most - sum(held.values())
            if free and not shares.is_over(sender, 1, free):
                shares.add(sender, 1)
                held[sender] += 1
        if held == before:
            return held


def test_a_sender_alone_holds_three_quarters_and_each_of_two_three_sevenths() -> None:
    assert fill(Shares(), "a", 1000) == {"a": 750}
    assert all(abs(held - 3000 / 7) < 5 for held in fill(Shares(), "ab", 1000).values())


def test_whatever_others_hold_the_next_one_finds_room() -> None:
    shares = Shares()
    held = fill(shares, "abcde", 1000)

    free = 1000 - sum(held.values())
    assert free >= 1000 // (3 * 5 + 1) and not shares.is_over("f", free, free)


def test_what_was_given_back_counts_no_more_and_without_tokens_there_is_no_bound() -> None:
    shares = Shares()
    shares.add("a", 10)
    shares.add("a", 0)
    shares.drop("a", 10)
    shares.add("anonymous", 900)

    assert shares.held_by("a") == 0 and not shares.is_over("anonymous", 100, 100)
