"""Tells a shard which playbooks the control partition has: all of them, whenever one changed. Used by actors/shard.py after each look at
the control log.
"""

from __future__ import annotations

from collections.abc import Callable

from models.control.control import ControlState
from models.control.playbooks import Mode
from models.control.shelf import Shelf
from models.shard.known_playbooks import Offered, PlaybooksChanged


class PlaybooksWatch:
    """Of one shard. begin_anew() at each recovery, look() whenever something may be new."""

    def __init__(self, tell: Callable[[PlaybooksChanged], None]) -> None:
        self._tell = tell
        #: What the shard was told last; None: it was told nothing yet.
        self._version: int | None = None

    def begin_anew(self) -> None:
        """The shard has another state, which knows none."""
        self._version = None

    def look(self, state: ControlState) -> None:
        """Tell the shard what it was not told of `state`. While the control log was never read, nothing is chosen."""
        if state.slots is None:
            return
        shelf = state.of(Shelf)
        if shelf.version == self._version:
            return
        self._version = shelf.version
        self._tell(PlaybooksChanged(shelf.version, [*offered_of(shelf)]))


def offered_of(shelf: Shelf) -> list[Offered]:
    """The current version of each playbook that is not removed."""
    found = []
    for each in shelf.shown():
        kept = each.version(each.current)
        if kept is not None and each.mode is not Mode.REMOVED:
            found.append(Offered(each.name, kept.version, kept.digest, kept.body, str(each.mode), each.since))
    return found
