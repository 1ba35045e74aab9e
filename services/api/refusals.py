"""Log lines about refused requests. Used by the guard."""

from __future__ import annotations

import structlog

from models.ports import Clock

log = structlog.get_logger()

#: Lines a second of one gateway: a sender with a wrong token shows up at once, and a flood of them does not fill the
#: disk.
LINES_PER_S = 10


class Refusals:
    """One gateway's. Counters show how many there were; these lines show who."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = -1
        self._lines = 0
        self._unsaid = 0

    def tell(self, status: int, *, why: str, **fields: str) -> None:
        """Log a line, or count it and say so with the next one. `why` and `fields` hold no secret."""
        second = int(self._clock.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > LINES_PER_S:
            self._unsaid += 1
            return
        more = {"not_told": self._unsaid} if self._unsaid else {}
        self._unsaid = 0
        shown = {name: value for name, value in fields.items() if value}
        log.warning("request refused", status=status, **shown, why=why, **more)
