"""One part of what may happen in a simulated run: who acts, what goes wrong, what must hold at the end, and which events all seeds
together must reach. areas/__init__.py lists them.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, ClassVar

from models.partition.event import Event
from models.shard.messages import Decision

if TYPE_CHECKING:
    from tests.simulation.watch import Watcher
    from tests.simulation.world import World


class Area:
    """A part does everything by the world's chance and time, so that a run is a function of its seed."""

    #: What the seeds of a test must reach: each event and decision belongs to one area.
    events: ClassVar[frozenset[type]] = frozenset()
    decisions: ClassVar[frozenset[Decision]] = frozenset()
    #: What strike() knows to do. One that is named twice comes twice as often.
    troubles: ClassVar[tuple[str, ...]] = ()

    def __init__(self, world: World) -> None:
        self.world = world

    def lives(self) -> list[Coroutine[Any, Any, None]]:
        """Those who act, from the beginning of the trouble on."""
        return []

    def strike(self, trouble: str) -> None:
        """One of `troubles` happens now."""

    def seen(self, watcher: Watcher, event: Event) -> None:
        """An event of a shard is durable now, and the watcher's mirror has folded it."""

    def holds_for(self, watcher: Watcher) -> None:
        """What must have come about in a shard when all was quiet for SETTLE_S."""

    def holds(self) -> None:
        """The same, of the whole system: after all shards."""

    def close(self) -> None:
        """The run is over, and its loop stands still."""
