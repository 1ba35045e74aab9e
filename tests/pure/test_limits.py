"""Token buckets: what passes, what a sender is told to wait, and how gateways share one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from models.limits import ACTIVE_S, Bucket, Limit, Pool, Report, Used, decode_report, encode_report

#: Requests: after how many seconds each comes, and of how many alerts.
REQUESTS = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), min_size=1, max_size=60)


@given(st.integers(1, 100), st.floats(1, 60), REQUESTS)
def test_no_more_passes_than_the_burst_and_the_rate_and_the_request_that_went_into_debt(
    rate: int, burst: float, requests: list[tuple[float, int]]
) -> None:
    now, passed, last = 100.0, 0, 0
    bucket = Bucket(rate, burst, now)
    for wait_s, alerts in requests:
        now += wait_s
        if not bucket.wait_s(now):
            bucket.fill(now)
            bucket.take(alerts)
            passed, last = passed + alerts, alerts
        # The last one found something left.
        assert passed - last <= burst + rate * (now - 100.0) + 1e-6


@given(st.integers(1, 3600), st.floats(0.1, 60), REQUESTS)
def test_who_comes_back_after_the_time_it_was_told_is_let_in(
    quota: int, burst: float, requests: list[tuple[float, int]]
) -> None:
    now = 100.0
    bucket = Bucket(quota / 3600, burst, now)
    for later_s, alerts in requests:
        now += later_s
        if wait_s := bucket.wait_s(now):
            now += wait_s
            assert bucket.wait_s(now) == 0.0
        bucket.fill(now)
        bucket.take(alerts)


def test_a_request_of_any_size_passes_a_full_bucket_and_is_paid_for() -> None:
    bucket = Bucket(10.0, 10.0, 0.0)
    assert bucket.wait_s(0.0) == 0.0
    bucket.take(1000)

    assert bucket.wait_s(0.0) == 99.1
    assert bucket.wait_s(99.0) > 0.0 and bucket.wait_s(99.2) == 0.0


def used(limit: Limit, alerts: float) -> dict[str, Used]:
    return {"all": Used(limit, alerts)}


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=40))
def test_what_gateways_may_use_together_is_what_is_left(steps: list[tuple[str, int]]) -> None:
    limit, pool, now, spent = Limit(100, 1, 100.0), Pool(), 0.0, 0
    left = {}
    for gateway, alerts in steps:
        now += 0.1
        spent += alerts
        part = pool.report(decode_report(encode_report(Report(gateway, used(limit, alerts)))), now)["all"]
        left[gateway] = (now, part)
        fresh = [part for at, part in left.values() if at > now - ACTIVE_S]
        assert part.sharers == len(fresh)
        assert part.level * part.sharers <= 100.0 + 100.0 * now - spent + 1e-6


def test_a_gateway_that_asks_no_more_leaves_all_to_the_others() -> None:
    limit, pool = Limit(100, 1, 100.0), Pool()
    pool.report(Report("a", used(limit, 0)), 0.0)

    assert pool.report(Report("b", used(limit, 50)), 0.5)["all"].sharers == 2
    part = pool.report(Report("b", used(limit, 0)), 2.0)["all"]

    assert (part.level, part.sharers) == (100.0, 1)


def test_another_limit_holds_from_the_next_report_on() -> None:
    pool = Pool()
    pool.report(Report("a", used(Limit(100, 1, 100.0), 0)), 0.0)

    part = pool.report(Report("a", used(Limit(10, 1, 10.0), 0)), 0.1)["all"]

    assert part.level == 10.0
