"""Tells a shard what the control partition says of silences: at first all that are in force, then what changed. Used by
actors/shard.py after each look at the control log.
"""

from __future__ import annotations

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from models.control.control import ControlState
from models.control.silencing import Silences
from models.ports import Clock
from models.shard.known_silences import KnownSilences, SilencesChanged

#: So long nobody is told of anything by a shard that could not read which silences there are.
PATIENCE_S = 30.0


class SilencesWatch:
    """Of one shard. begin_anew() at each recovery, look() whenever something may be new."""

    def __init__(
        self, clock: Clock, log: FilteringBoundLogger, tell: Callable[[SilencesChanged], None]
    ) -> None:
        self._clock = clock
        self._log = log
        self._tell = tell
        #: What the shard was told last; None: it is to be told all.
        self._version: int | None = None
        self._since = 0.0

    def begin_anew(self) -> None:
        """The shard has another state: it is to be told all."""
        self._version = None
        self._since = self._clock.monotonic()

    def look(self, state: ControlState, known: KnownSilences) -> None:
        """Tell the shard what it was not told of `state`. `known` is what it knows."""
        if state.slots is None:
            # Late pages are better than none: what is in its own log holds.
            if not known.is_told and self._clock.monotonic() - self._since > PATIENCE_S:
                known.is_told = True
                self._log.warning("control partition not read, silences may be out of date")
            return
        silences = state.of(Silences)
        if silences.version == self._version:
            return
        changed = None if self._version is None else silences.since(self._version)
        self._version = silences.version
        if changed is None:
            self._tell(SilencesChanged(silences.version, silences.in_force(self._clock.now()), whole=True))
        else:
            self._tell(SilencesChanged(silences.version, changed))
