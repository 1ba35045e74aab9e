"""The clock of every test that turns time by hand."""

from __future__ import annotations


class ManualClock:
    """Port Clock. Stands still until it is told to go: `forward` as time passes, `jump` as somebody sets the wall clock."""

    def __init__(self, at: float = 1000.0) -> None:
        #: How long it has been going.
        self.elapsed = 0.0
        self._set_to = at

    def now(self) -> float:
        return self._set_to + self.elapsed

    def monotonic(self) -> float:
        return self.elapsed

    def forward(self, by_s: float) -> None:
        """So much time passes."""
        self.elapsed += by_s

    def jump(self, by_s: float) -> None:
        """Somebody sets the wall clock; no time passes."""
        self._set_to += by_s
