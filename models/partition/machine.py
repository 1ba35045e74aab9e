"""What a partition's writer (actors/partition.py) needs of what decides in it: the shard, the control partition, any other kind.

A machine is its log's fold and the one that decides what comes next. It does no I/O, reads no clock, and knows nothing of
who drives it, so the same one runs live, in replay, in checks and in tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

from models.partition.checkpoint import Checkpoint
from models.partition.event import Event
from models.partition.frames import Frames

MessageT_contra = TypeVar("MessageT_contra", contravariant=True)
ReplyT_co = TypeVar("ReplyT_co", covariant=True)


class Step(Protocol[ReplyT_co]):
    """What a message led to. `events` go to the log; only then `reply` and `effects` may leave."""

    @property
    def events(self) -> Sequence[Event]: ...

    @property
    def effects(self) -> Sequence[Any]: ...

    @property
    def reply(self) -> ReplyT_co: ...


class Folding(Protocol):
    """The half that reads: what replay, checks and copies need."""

    partition: str
    #: Of the last frame that was folded. A writer sets it to the coming frame's before handle(): ids are made of it.
    seq: int
    #: Of the frame being made or folded.
    trace_id: str | None

    @property
    def now(self) -> float:
        """Of the last frame, in seconds since the epoch."""

    @property
    def checkpoint(self) -> Checkpoint: ...

    @property
    def frames(self) -> Frames:
        """How its log is read."""

    @property
    def snapshot_version(self) -> int:
        """The layout of its snapshot records: one of another version is passed over."""

    def apply(self, event: Event, now: float) -> None:
        """Fold one event of a frame made at `now`. The only way its state changes, live and in replay. Raises Broken for an
        event that does not fit."""

    def replay(self, events: Sequence[Event], now: float) -> None:
        """apply() of all events of a frame, in their order: leads to the same state, and may get there faster."""

    def load(self, records: Iterable[tuple[str, bytes]]) -> None:
        """Take snapshot records, in the order of their keys, a page at a time."""

    def loaded(self) -> None:
        """All records were loaded: derive what is not stored."""


class Machine(Folding, Protocol[MessageT_contra, ReplyT_co]):
    """One partition, deciding."""

    #: Of its writer: set before started().
    epoch: int

    def handle(self, message: MessageT_contra, now: float) -> Step[ReplyT_co]:
        """Decide about a message, apply what was decided, and say what is owed. Deterministic, and idempotent for a message
        that is told again. What is refused is a reply; an exception is a bug, and the state is not to be used after it."""

    def started(self, owner: str, now: float) -> Step[ReplyT_co]:
        """The first step of a writer after recovery: its effects are all that is owed."""
