"""A circuit breaker: a target that fails is left alone for a while, then tried with one call. Used by target.py.

    closed      calls pass. Too many failures, in a row or among the last calls: open.
    open        no call passes until its time is over: half-open.
    half-open   one call passes, the probe; others wait. It succeeds: closed. It fails: open, for twice as long as before.

Each change begins a new period. What becomes of a call that began in an older one is not counted: thirty calls that hang end long
after the breaker opened because of them, and say nothing about what came since. Times are seconds of any clock that only grows.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

import msgspec

#: Whoever comes while a probe is under way may come again after this. It takes milliseconds, or the target is still broken.
PROBE_WAIT_S = 1.0


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class BreakerRule(msgspec.Struct, frozen=True):
    """When it opens, and for how long. `failures` in a row, 0 never; or a share of the last `window` calls, once that many were made,
    0 never. It stays open for `open_s`, then twice as long each time that the probe fails, `open_max_s` at most."""

    failures: int = 5
    share: float = 0.5
    window: int = 20
    open_s: float = 5.0
    open_max_s: float = 60.0


class Breaker:
    """wait_s() says whether a call may be made, begin() makes it, and then one of succeeded(), failed() and given_back()."""

    def __init__(self, rule: BreakerRule, now: float) -> None:
        self.rule = rule
        self.state = State.CLOSED
        #: When its state began.
        self.since = now
        #: When it opened, 0.0 while it is closed; probes that fail don't change it.
        self.broken_since = 0.0
        #: Failures in a row.
        self.failures = 0
        #: Why it opened, in words; "" while it is closed.
        self.why = ""
        self._period = 0
        #: When it lets a probe pass, while it is open.
        self.until = 0.0
        self._open_s = 0.0
        self._is_probed = False
        #: Of the last calls, whether they failed.
        self._last: deque[bool] = deque(maxlen=rule.window)

    def take(self, rule: BreakerRule) -> None:
        """Go by another rule, from the next call on."""
        self.rule = rule
        self._last = deque(self._last, maxlen=rule.window)

    def wait_s(self, now: float) -> float:
        """How long not to call; 0.0 when a call may be made now."""
        if self.state is State.OPEN:
            return max(0.0, self.until - now)
        return PROBE_WAIT_S if self.state is State.HALF_OPEN and self._is_probed else 0.0

    def begin(self, now: float) -> int:
        """A call is made, which wait_s() allowed. Returns its period, by which its end is told."""
        if self.state is State.OPEN:
            self._become(State.HALF_OPEN, now)
        if self.state is State.HALF_OPEN:
            self._is_probed = True
        return self._period

    def succeeded(self, period: int, now: float) -> None:
        """The target works."""
        if period != self._period:
            return
        self.failures = 0
        self._last.append(False)
        if self.state is State.HALF_OPEN:
            self.broken_since, self.why = 0.0, ""
            self._last.clear()
            self._become(State.CLOSED, now)

    def failed(self, period: int, now: float, *, at_least_s: float = 0.0) -> None:
        """The target does not work. It asked to be left alone for `at_least_s`: heeded up to `open_max_s`."""
        if period != self._period:
            return
        self.failures += 1
        self._last.append(True)
        if self.state is State.HALF_OPEN:
            self._open(min(self._open_s * 2, self.rule.open_max_s), now, at_least_s)
        elif why := self._too_much():
            self.broken_since, self.why = now, why
            self._open(self.rule.open_s, now, at_least_s)

    def given_back(self, period: int) -> None:
        """The call was not made after all, or nobody knows what became of it."""
        if period == self._period:
            self._is_probed = False

    def _too_much(self) -> str:
        rule = self.rule
        if rule.failures and self.failures >= rule.failures:
            return f"{self.failures} failures in a row"
        failed = sum(self._last)
        if rule.share and len(self._last) >= rule.window and failed >= rule.share * rule.window:
            return f"{failed} of the last {rule.window} calls failed"
        return ""

    def _open(self, for_s: float, now: float, at_least_s: float) -> None:
        self._open_s = for_s
        self.until = now + max(for_s, min(at_least_s, self.rule.open_max_s))
        self._become(State.OPEN, now)

    def _become(self, state: State, now: float) -> None:
        self.state, self.since = state, now
        self._is_probed = False
        self._period += 1
