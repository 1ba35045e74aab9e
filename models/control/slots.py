"""Section `slots`: which shard partition holds each slot, and where all of it is when it is not here alone: being copied,
moved away, or on its way to another number of partitions."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

import msgspec

from models.control.events import (
    CopyBegan,
    CopyEnded,
    PartitionsBegan,
    SlotsAssigned,
    SlotsMoving,
    StoreMoved,
)
from models.control.section import ONLY, Section
from models.errors import Broken, Conflict
from models.partition.event import Event
from models.partition.sharding import SLOTS, SlotMap, partition_name


class _Record(msgspec.Struct, array_like=True):
    """Slot maps as their version and owners."""

    slots: tuple[int, bytes] | None
    moving_to: tuple[int, bytes] | None
    copied_from: str
    moved: StoreMoved | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Record)


class Slots(Section):
    name = "slots"
    events = (SlotsAssigned, SlotsMoving, CopyBegan, CopyEnded, StoreMoved)

    def __init__(self, touch: Callable[[bytes], None]) -> None:
        super().__init__(touch)
        self.map: SlotMap | None = None
        #: The map that resharding is on its way to; None when none is under way.
        self.moving_to: SlotMap | None = None
        #: From where this is being copied; "" when it is whole.
        self.copied_from = ""
        #: To where all of it was copied, and goes on there; None while it is used here.
        self.moved: StoreMoved | None = None

    def apply(self, event: Event, now: float) -> None:
        self._touch(ONLY)
        match event:
            case SlotsAssigned():
                self.map, self.moving_to = _map_of(event.version, event.owners), None
            case SlotsMoving():
                self.moving_to = _map_of(event.version, event.owners)
            case CopyBegan():
                self.copied_from = event.source
            case CopyEnded():
                self.copied_from = ""
            case StoreMoved():
                self.moved = event if event.to else None

    def capture(self, key: bytes) -> bytes | None:
        maps = [
            None if each is None else (each.version, _owners(each)) for each in (self.map, self.moving_to)
        ]
        return _encoder.encode(_Record(maps[0], maps[1], self.copied_from, self.moved))

    def load(self, key: bytes, record: bytes) -> None:
        found = _decoder.decode(record)
        self.map = None if found.slots is None else _map_of(*found.slots)
        self.moving_to = None if found.moving_to is None else _map_of(*found.moving_to)
        self.copied_from, self.moved = found.copied_from, found.moved

    def problems(self) -> Iterator[str]:
        """What `llm-im store verify` says of it."""
        if self.moving_to is not None:
            yield f"resharding to {self.moving_to.partitions} partitions is not finished: llm-im store reshard"
            return
        if self.map is None:
            yield "the store is empty: no system was ever started on it. Another one: --config, --data"
        if self.copied_from:
            yield f"an unfinished copy of {self.copied_from}"

    def begin(self, partitions: int) -> list[Event]:
        """What the first start decides; nothing when it was decided before. The number of partitions stays what it
        was then, whatever the settings say now: slots move only by resharding."""
        if self.map is not None:
            return []
        first = SlotMap.even(partitions)
        return [SlotsAssigned(first.version, _owners(first))]

    @staticmethod
    def begin_after_loss(slots: SlotMap) -> list[Event]:
        """The beginning of a log that replaces a lost control log: nobody gets in until there is a token again."""
        names = [partition_name(index) for index in range(slots.partitions)]
        return [SlotsAssigned(slots.version, _owners(slots), guarded=True), PartitionsBegan(names)]

    def reshard(self, partitions: int) -> list[Event]:
        """What begins moving slots to so many partitions; nothing when that is under way. Raises Conflict."""
        if self.map is None:
            raise Conflict("there are no slots yet: the first start makes them, as state.partitions says")
        if self.moving_to is not None:
            if self.moving_to.partitions != partitions:
                raise Conflict(
                    f"resharding to {self.moving_to.partitions} partitions is under way: finish that first"
                )
            return []
        if self.map.partitions == partitions:
            raise Conflict(f"there are {partitions} partitions already")
        wanted = self.map.spread(partitions)
        return [SlotsMoving(wanted.version, _owners(wanted))]

    def resharded(self) -> list[Event]:
        """What ends it, when every slot is where it is to be."""
        moved = self.moving_to
        return [] if moved is None else [SlotsAssigned(moved.version, _owners(moved))]


def _map_of(version: int, given: bytes) -> SlotMap:
    owners = array("H", given)
    if len(owners) != SLOTS:
        raise Broken(f"a slot map has {SLOTS} slots, this one {len(owners)}")
    return SlotMap(version, tuple(owners))


def _owners(slots: SlotMap) -> bytes:
    return array("H", slots.owners).tobytes()
