"""What bounds a target: its breaker, its places, its rate. Time is a number that the test gives."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from models.response.breaker import PROBE_WAIT_S, Breaker, BreakerRule, State
from models.response.rate import WAIT_MAX_S, TokenBucket
from models.response.target import BUSY_WAIT_S, ERROR_CHARS, Limits, NotNow, Target, Why

RULE = BreakerRule(failures=3, share=0.5, window=10, open_s=5.0, open_max_s=20.0)


def broken(rule: BreakerRule = RULE, now: float = 0.0) -> Breaker:
    breaker = Breaker(rule, now)
    for _ in range(rule.failures):
        breaker.failed(breaker.begin(now), now)
    assert breaker.state is State.OPEN
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_does_not() -> None:
    breaker = Breaker(BreakerRule(failures=3, share=0.0), 0.0)

    for fails in (True, True, False, True, True):
        (breaker.failed if fails else breaker.succeeded)(breaker.begin(1.0), 1.0)
    assert breaker.state is State.CLOSED
    breaker.failed(breaker.begin(2.0), 2.0)

    assert (breaker.state, breaker.since, breaker.broken_since) == (State.OPEN, 2.0, 2.0)
    assert breaker.why == "3 failures in a row"


def test_a_share_of_failures_opens_it_once_there_were_enough_calls() -> None:
    breaker = Breaker(BreakerRule(failures=0, share=0.5, window=10), 0.0)

    for turn in range(9):
        (breaker.failed if turn % 2 else breaker.succeeded)(breaker.begin(0.0), 0.0)
    assert breaker.state is State.CLOSED
    breaker.failed(breaker.begin(0.0), 0.0)

    assert (breaker.state, breaker.why) == (State.OPEN, "5 of the last 10 calls failed")


def test_an_open_one_lets_no_call_pass_until_its_time_is_over_and_then_exactly_one() -> None:
    breaker = broken()

    assert [breaker.wait_s(at) for at in (0.0, 3.0, 4.5, 5.0)] == [5.0, 2.0, 0.5, 0.0]
    breaker.begin(5.0)
    assert breaker.state is State.HALF_OPEN
    assert breaker.wait_s(5.0) == breaker.wait_s(500.0) == PROBE_WAIT_S


def test_a_probe_that_succeeds_closes_it_and_old_failures_are_forgotten() -> None:
    breaker = broken()

    breaker.succeeded(breaker.begin(5.0), 5.1)
    assert (breaker.state, breaker.broken_since, breaker.why, breaker.failures) == (State.CLOSED, 0.0, "", 0)
    breaker.failed(breaker.begin(6.0), 6.0)

    assert breaker.state is State.CLOSED


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_the_most() -> None:
    breaker, at, waits = broken(), 0.0, []

    for _ in range(4):
        at += breaker.wait_s(at)
        breaker.failed(breaker.begin(at), at)
        waits.append(breaker.wait_s(at))

    assert waits == [10.0, 20.0, 20.0, 20.0]
    assert breaker.broken_since == 0.0, "it was broken all the time"


def test_after_it_worked_it_opens_for_the_short_time_again() -> None:
    breaker = broken()
    breaker.failed(breaker.begin(5.0), 5.0)
    breaker.succeeded(breaker.begin(15.0), 15.0)

    for _ in range(3):
        breaker.failed(breaker.begin(16.0), 16.0)

    assert breaker.wait_s(16.0) == 5.0


def test_a_probe_that_was_abandoned_makes_room_for_another() -> None:
    breaker = broken()

    breaker.given_back(breaker.begin(5.0))

    assert (breaker.state, breaker.wait_s(5.0)) == (State.HALF_OPEN, 0.0)


def test_what_began_before_it_opened_says_nothing_about_what_came_since() -> None:
    breaker = Breaker(RULE, 0.0)
    old = [breaker.begin(0.0) for _ in range(30)]
    for period in old[:3]:
        breaker.failed(period, 1.0)
    probe = breaker.begin(6.0)

    for period in old[3:15]:
        breaker.failed(period, 6.5)
    breaker.succeeded(old[15], 6.6)
    assert breaker.state is State.HALF_OPEN
    breaker.succeeded(probe, 7.0)
    for period in old[16:]:
        breaker.failed(period, 10.0)

    assert (breaker.state, breaker.failures) == (State.CLOSED, 0)


def test_it_heeds_what_the_target_asks_for_within_its_own_bound() -> None:
    for asked_s, wait_s in ((12.0, 12.0), (86_400.0, 20.0), (1.0, 5.0)):
        breaker = Breaker(RULE, 0.0)
        for _ in range(3):
            breaker.failed(breaker.begin(0.0), 0.0, at_least_s=asked_s)
        assert breaker.wait_s(0.0) == wait_s


def test_one_without_rules_never_opens() -> None:
    breaker = Breaker(BreakerRule(failures=0, share=0.0), 0.0)

    for _ in range(1000):
        breaker.failed(breaker.begin(0.0), 0.0)

    assert breaker.state is State.CLOSED


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["begin", "ok", "bad", "lost"]), st.floats(0, 30)), max_size=60))
def test_whatever_comes_there_is_never_more_than_one_probe_and_it_never_gets_stuck(
    steps: list[tuple[str, float]],
) -> None:
    breaker, now, under_way = Breaker(RULE, 0.0), 0.0, list[tuple[int, bool]]()
    for what, passes_s in steps:
        now += passes_s
        if what == "begin" and not breaker.wait_s(now):
            period = breaker.begin(now)
            under_way.append((period, breaker.state is State.HALF_OPEN))
        elif what != "begin" and under_way:
            period, _ = under_way.pop(0)
            if what == "ok":
                breaker.succeeded(period, now)
            elif what == "bad":
                breaker.failed(period, now)
            else:
                breaker.given_back(period)
        assert sum(is_probe for period, is_probe in under_way if period == breaker._period) <= 1
        assert breaker.wait_s(now) <= RULE.open_max_s
    # Whoever is still under way ends; then the target is called again within its longest time.
    for period, _ in under_way:
        breaker.given_back(period)
    assert breaker.wait_s(now + RULE.open_max_s) == 0.0


# Rate


def test_after_a_pause_a_burst_passes_and_then_the_rate() -> None:
    bucket = TokenBucket(2.0, 10.0, 0.0)

    passed = [at / 10 for at in range(100) if not bucket.take(at / 10, is_urgent=True)]

    assert len(passed) == 10 + 2 * 9.9 // 1
    assert passed[9] < 1.0


def test_the_last_fifth_is_kept_for_urgent_calls() -> None:
    bucket = TokenBucket(1.0, 10.0, 0.0)

    plain = sum(not bucket.take(0.0) for _ in range(20))
    urgent = sum(not bucket.take(0.0, is_urgent=True) for _ in range(20))

    assert (plain, urgent) == (8, 2)


def test_those_that_are_sent_away_are_given_times_one_after_the_other() -> None:
    bucket = TokenBucket(2.0, 1.0, 0.0)
    assert bucket.take(0.0) == 0.0

    assert [bucket.take(0.0) for _ in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert max(bucket.take(0.0) for _ in range(1000)) == WAIT_MAX_S


def test_who_comes_back_at_the_given_time_passes() -> None:
    bucket = TokenBucket(2.0, 1.0, 0.0)
    bucket.take(0.0)
    waits = [bucket.take(0.0) for _ in range(4)]

    assert [bucket.take(wait_s) for wait_s in waits] == [0.0] * 4


# All of them


def test_a_target_without_a_place_takes_no_token_and_no_probe() -> None:
    target = Target(Limits(max_in_flight=1, rate_per_s=0.2), 0.0)
    first = target.may_i(0.0, is_urgent=True)

    refused = [target.may_i(0.0, is_urgent=True) for _ in range(5)]
    assert isinstance(first, int)
    target.succeeded(first, 0.0)

    assert all(
        isinstance(each, NotNow) and (each.why, each.wait_s) == (Why.BUSY, BUSY_WAIT_S) for each in refused
    )
    assert isinstance(target.may_i(0.0, is_urgent=True), int)


def test_a_broken_target_answers_at_once_with_the_last_error_and_holds_no_place() -> None:
    target = Target(Limits(breaker=RULE), 0.0)
    for _ in range(3):
        period = target.may_i(0.0)
        assert isinstance(period, int)
        target.failed(period, 0.0, "https://example.org answered 503 " + "x" * 1000)

    answer = target.may_i(1.0)

    assert isinstance(answer, NotNow)
    assert (answer.why, answer.wait_s, target.in_flight) == (Why.OPEN, 4.0, 0)
    assert "3 failures in a row; the last error: https://example.org answered 503" in answer.detail
    assert len(target.last_error) == ERROR_CHARS


def test_changed_limits_count_from_the_next_call_on() -> None:
    target = Target(Limits(max_in_flight=1), 0.0)
    assert isinstance(target.may_i(0.0), int)
    assert isinstance(target.may_i(0.0), NotNow)

    target.take(Limits(max_in_flight=2, rate_per_s=0.1), 0.0)

    assert isinstance(target.may_i(0.0), int)
    target.take(Limits(max_in_flight=9, rate_per_s=0.1), 0.0)
    late = target.may_i(0.0)
    assert isinstance(late, NotNow) and late.why is Why.RATE
