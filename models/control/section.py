"""A section: one concern of the control partition, in one file. models/control/assembly.py lists them all.

It owns its events and how they are folded, its messages and what is decided about them, what is due when time goes by, and its
own records in snapshots. Followers (actors/control_tail.py) take the sections that they go by and skip the rest undecoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from models.partition.event import Event
from models.wire import Wire

#: The key of a record of which there is one.
ONLY = b""


class Section:
    """What is here does for a section without messages, deadlines, or anything derived."""

    #: Its kind of record, for ever.
    name: ClassVar[str]
    #: What it folds. Other sections may fold the same.
    events: ClassVar[tuple[type[Event], ...]]
    #: What it decides about. Each message is one section's.
    messages: ClassVar[tuple[type[Wire], ...]] = ()

    def __init__(self, touch: Callable[[bytes], None]) -> None:
        """`touch(key)` must be called before the record of that key changes, appears or goes."""
        self._touch = touch

    def apply(self, event: Event, now: float) -> None:
        """Fold one of its events, of a frame made at `now`."""
        raise NotImplementedError

    def decide(self, message: Wire, now: float) -> Sequence[Event]:
        """What comes of one of its messages; nothing for a repeat. Raises what is Refused."""
        raise NotImplementedError

    def due(self, now: float) -> Sequence[Event]:
        """What time going by leads to; nothing if it was said before. Asked several times a second."""
        return ()

    def capture(self, key: bytes) -> bytes | None:
        """The record of a key now; None when there is none any more."""
        raise NotImplementedError

    def load(self, key: bytes, record: bytes) -> None:
        """Take a record of a snapshot. They come in the order of their keys."""
        raise NotImplementedError

    def loaded(self) -> None:
        """All records were loaded."""
