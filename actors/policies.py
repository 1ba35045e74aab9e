"""Tells a shard which escalation policies there are, by the control partition, after each change. Used by actors/shard.py after each look at
the control log."""

from __future__ import annotations

from collections.abc import Callable

from models.control.control import ControlState
from models.control.people import Policies
from models.shard.escalation import PoliciesChanged


class PoliciesWatch:
    """Of one shard. begin_anew() at each recovery, look() whenever something may be new."""

    def __init__(self, tell: Callable[[PoliciesChanged], None]) -> None:
        self._tell = tell
        #: What the shard was told last; None: nothing yet.
        self._version: int | None = None

    def begin_anew(self) -> None:
        """The shard has another state: it is to be told again."""
        self._version = None

    def look(self, state: ControlState) -> None:
        """Tell the shard what it was not told of `state`."""
        if state.slots is None:
            return
        policies = state.of(Policies)
        if policies.version == self._version:
            return
        self._version = policies.version
        self._tell(
            PoliciesChanged(policies.version, [each for found in policies.all.values() for each in found])
        )
