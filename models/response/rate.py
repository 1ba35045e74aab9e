"""A token bucket: how often a target is called. Used by target.py."""

from __future__ import annotations

#: Nobody is sent away for longer: who comes back then may find that the others have gone elsewhere.
WAIT_MAX_S = 60.0
#: Share of a bucket that is kept for urgent calls.
KEPT = 0.2


class TokenBucket:
    """`rate_per_s` calls a second on average, and `burst` at once after a pause. Times are seconds of any clock that only grows.

    Those that are sent away are given times one after the other, so that a thousand of them do not come back together."""

    def __init__(self, rate_per_s: float, burst: float, now: float) -> None:
        self.rate_per_s = rate_per_s
        self.burst = max(1.0, burst)
        self._tokens = self.burst
        self._at = now
        #: When the next one that is sent away may come back.
        self._next = now

    def take_rate(self, rate_per_s: float, burst: float, now: float) -> None:
        """Go by another rate from now on."""
        self._fill(now)
        self.rate_per_s, self.burst = rate_per_s, max(1.0, burst)
        self._tokens = min(self._tokens, self.burst)

    def take(self, now: float, *, is_urgent: bool = False) -> float:
        """0.0, and the call may be made; or how many seconds to wait before asking again. What is not urgent leaves a share of a
        bucket of several."""
        self._fill(now)
        kept = 0.0 if is_urgent else float(int(self.burst * KEPT))
        if self._tokens >= 1.0 + kept:
            self._tokens -= 1.0
            return 0.0
        first = now + (1.0 + kept - self._tokens) / self.rate_per_s
        self._next = max(self._next, first)
        wait_s = min(self._next - now, WAIT_MAX_S)
        self._next = min(self._next, now + WAIT_MAX_S) + 1.0 / self.rate_per_s
        return wait_s

    def _fill(self, now: float) -> None:
        self._tokens = min(self.burst, self._tokens + max(0.0, now - self._at) * self.rate_per_s)
        self._at = max(self._at, now)
