"""Tells a shard which playbooks the control partition has: all of them, whenever one changed. Used by actors/shard.py after each look at
the control log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from models.control.control import ControlState
from models.control.playbooks import Mode
from models.control.shelf import Shelf
from models.partition.sharding import TENANT, partition_name, slot_of
from models.playbook.playbook import decode
from models.shard.known_playbooks import Offered, PlaybooksChanged
from models.shard.schedules import service_of


class PlaybooksWatch:
    """Of one shard. begin_anew() at each recovery, look() whenever something may be new."""

    def __init__(self, partition: str, tell: Callable[[PlaybooksChanged], None]) -> None:
        self._partition = partition
        self._tell = tell
        #: What the shard was told last, and by which slot map; None: it was told nothing yet.
        self._told: tuple[int, int] | None = None

    def begin_anew(self) -> None:
        """The shard has another state, which knows none."""
        self._told = None

    def look(self, state: ControlState) -> None:
        """Tell the shard what it was not told of `state`. While the control log was never read, nothing is chosen."""
        if state.slots is None:
            return
        shelf = state.of(Shelf)
        if (shelf.version, state.slot_version) == self._told:
            return
        self._told = shelf.version, state.slot_version
        offered = offered_of(shelf)
        own = [each.name for each in offered if self._is_due_here(each, state.slots.owners)]
        self._tell(PlaybooksChanged(shelf.version, offered, own))

    def _is_due_here(self, offered: Offered, owners: Sequence[int]) -> bool:
        book = decode(offered.body)
        if not book.trigger.schedule:
            return False
        return partition_name(owners[slot_of(TENANT, service_of(book))]) == self._partition


def offered_of(shelf: Shelf) -> list[Offered]:
    """The current version of each playbook that is not removed."""
    found = []
    for each in shelf.shown():
        kept = each.version(each.current)
        if kept is not None and each.mode is not Mode.REMOVED:
            found.append(Offered(each.name, kept.version, kept.digest, kept.body, str(each.mode), each.since))
    return found
