"""One target of calls, a receiver or a host, and what bounds it: its breaker, its places and its rate. No other target's calls
are asked about. Used by actors/targets.py, which brings the clock. Pure.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from models.response.breaker import Breaker, BreakerRule, State
from models.response.rate import TokenBucket

#: How long a caller without a place should wait: most calls end well within that.
BUSY_WAIT_S = 1.0
#: After a pause, a target may be called at once as often as in this time by its rate: a flood of incidents begins with a
#: burst, and what others ask of us is a rate by the minute.
BURST_S = 10.0
#: Characters of the last error that are kept.
ERROR_CHARS = 300


class Limits(msgspec.Struct, frozen=True):
    """Bounds of a target. `rate_per_s` 0.0: no bound."""

    max_in_flight: int = 32
    rate_per_s: float = 0.0
    breaker: BreakerRule = BreakerRule()


class Why(StrEnum):
    """Why a call was not made."""

    OPEN = "open"
    BUSY = "busy"
    RATE = "rate"


class NotNow(msgspec.Struct, frozen=True):
    """The call was not made; it may be asked for again after `wait_s`. `detail` says why, for people."""

    why: Why
    wait_s: float
    detail: str


class Target:
    """may_i() before each call, and one of the ends after it."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.breaker = Breaker(limits.breaker, now)
        self.in_flight = 0
        self.last_error = ""
        self.last_error_at = 0.0
        self.used_at = now
        self._bucket = _bucket(limits, now)

    def take(self, limits: Limits, now: float) -> None:
        """Go by other limits, from the next call on."""
        if limits == self.limits:
            return
        self.limits = limits
        self.breaker.take(limits.breaker)
        if self._bucket is not None and limits.rate_per_s:
            self._bucket.take_rate(limits.rate_per_s, limits.rate_per_s * BURST_S, now)
        else:
            self._bucket = _bucket(limits, now)

    def may_i(self, now: float, *, is_urgent: bool = False) -> int | NotNow:
        """The call's period, by which its end is told; or why it can't be made now."""
        self.used_at = now
        if wait_s := self.breaker.wait_s(now):
            return NotNow(Why.OPEN, wait_s, self.why_broken())
        if self.in_flight >= self.limits.max_in_flight:
            return NotNow(
                Why.BUSY, BUSY_WAIT_S, f"{self.limits.max_in_flight} calls are under way, the most at once"
            )
        if self._bucket is not None and (wait_s := self._bucket.take(now, is_urgent=is_urgent)):
            return NotNow(Why.RATE, wait_s, f"it is called at most {self.limits.rate_per_s:g} times a second")
        self.in_flight += 1
        return self.breaker.begin(now)

    def why_broken(self) -> str:
        """Why no call is made to it, for people; "" while it works."""
        if self.breaker.state is State.CLOSED:
            return ""
        return f"not called for now, after {self.breaker.why}; the last error: {self.last_error}"

    def succeeded(self, period: int, now: float) -> None:
        """The target works: it did what it was asked for, or said why this one request is wrong."""
        self.in_flight -= 1
        self.breaker.succeeded(period, now)

    def failed(self, period: int, now: float, error: str, *, at_least_s: float = 0.0) -> None:
        """`error` bears no secret. The target asked to be left alone for `at_least_s`."""
        self.in_flight -= 1
        self.last_error, self.last_error_at = error[:ERROR_CHARS], now
        self.breaker.failed(period, now, at_least_s=at_least_s)

    def given_back(self, period: int) -> None:
        """The call was abandoned: nothing is known of the target."""
        self.in_flight -= 1
        self.breaker.given_back(period)


class TargetView(msgspec.Struct, frozen=True):
    """A target for people. Times are seconds since the epoch, 0.0 for never. `retry_at`: when an open breaker lets a call
    pass."""

    target: str
    state: str
    since: float
    broken_since: float
    retry_at: float
    failures: int
    last_error: str
    last_error_at: float
    in_flight: int
    max_in_flight: int
    rate_per_s: float


def _bucket(limits: Limits, now: float) -> TokenBucket | None:
    rate = limits.rate_per_s
    return TokenBucket(rate, rate * BURST_S, now) if rate else None
