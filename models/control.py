"""What the control partition decides: which shard partition holds each slot, and settings changed while it runs. Tokens
and silences follow."""

from __future__ import annotations

from array import array

from models.errors import Broken
from models.events import Event, SettingsChanged, SlotsAssigned
from models.sharding import SLOTS, SlotMap


class ControlState:
    """The fold of the control partition's events."""

    def __init__(self) -> None:
        self.slots: SlotMap | None = None
        #: The last change of settings, also one of an earlier start, which holds no more.
        self.settings: SettingsChanged | None = None

    @property
    def slot_version(self) -> int:
        return 0 if self.slots is None else self.slots.version

    def begin(self, partitions: int) -> list[Event]:
        """What the first start decides; nothing when it was decided before. The number of partitions stays what it
        was then, whatever the settings say now: slots move only by resharding."""
        if self.slots is not None:
            return []
        first = SlotMap.even(partitions)
        return [SlotsAssigned(first.version, array("H", first.owners).tobytes())]

    def apply(self, event: Event) -> None:
        """Fold one event in. Raises Broken for one that belongs to a shard."""
        match event:
            case SlotsAssigned():
                owners = array("H", event.owners)
                if len(owners) != SLOTS:
                    raise Broken(f"a slot map has {SLOTS} slots, this one {len(owners)}")
                self.slots = SlotMap(event.version, tuple(owners))
            case SettingsChanged():
                self.settings = event
            case _:
                raise Broken(f"{type(event).__name__} does not belong to the control partition")
