"""Tells a shard which heartbeats its services have, by the control partition: at first all of them, then what changed. Used by
actors/shard.py after each look at the control log.
"""

from __future__ import annotations

from collections.abc import Callable

from models.control.control import ControlState
from models.control.heartbeating import Heartbeats
from models.partition.sharding import SlotMap, partition_name, slot_of
from models.shard.heartbeats import HeartbeatsChanged


class HeartbeatsWatch:
    """Of one shard. begin_anew() at each recovery, look() whenever something may be new."""

    def __init__(self, partition: str, tell: Callable[[HeartbeatsChanged], None]) -> None:
        self._partition = partition
        self._tell = tell
        #: What the shard was told last; None: it is to be told all.
        self._version: int | None = None
        self._slots: SlotMap | None = None

    def begin_anew(self) -> None:
        """The shard has another state: it is to be told all."""
        self._version = None

    def look(self, state: ControlState) -> None:
        """Tell the shard what it was not told of `state`. While the control log was never read, what is in its own log holds."""
        slots, known = state.slots, state.of(Heartbeats)
        if slots is None or (known.version == self._version and slots is self._slots):
            return
        changed = None if self._version is None or slots is not self._slots else known.since(self._version)
        self._version, self._slots = known.version, slots
        told = known.all.values() if changed is None else changed
        mine = [
            each
            for each in told
            if partition_name(slots.owners[slot_of(each.tenant, each.service)]) == self._partition
        ]
        if changed is None:
            self._tell(HeartbeatsChanged(mine, whole=True))
        elif changed:
            # One that was given another service may have been ours.
            others = {each.id for each in changed} - {each.id for each in mine}
            self._tell(HeartbeatsChanged(mine, elsewhere=sorted(others)))
