"""The kinds of partitions there are, in the order in which their partitions are read, checked and copied: PARTITIONS. A new one is
its folder with a machine (models/partition/machine.py) and a line here; backups, checks, copies and the log commands go over
the table. Ask kind_of() and names().
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.backup import Across
from models.control.control import CONTROL, ControlState
from models.control.slots import Slots
from models.errors import Broken
from models.incidents.incident import Incident
from models.partition.event import Event
from models.partition.frames import Frame, Frames
from models.partition.machine import Folding
from models.partition.sharding import SHARD, SlotMap, partition_name
from models.shard.settings import ShardSettings
from models.shard.shard import Shard
from models.shard.slot_transfer import problems as problems_of_shard
from models.topology.topology import TOPOLOGY, Topology

#: The ports beside a log, by their names in services/upkeep/kept/table.py.
ARCHIVE, DELIVERY_IDS = "archive", "delivery_ids"


@dataclass(frozen=True, slots=True)
class PartitionKind:
    """A kind of partitions. Its machine says how its frames are read and which snapshots it takes."""

    #: Of its only partition, or with `by_slot` what their names begin with. For ever.
    name: str
    #: One that knows nothing, by its partition's name.
    machine: Callable[[str], Folding]
    #: Its partitions are those of the slot map, and resharding moves what they hold. Any other has one partition, which stays.
    by_slot: bool = False
    #: What it keeps beside its log, by name.
    keeps: Sequence[str] = ()
    #: What of a folded one does not fit together, in words. With the slot map, where that is known.
    problems: Callable[[Any, SlotMap | None], Iterable[str]] = lambda _machine, _slots: ()
    #: What of a folded one is counted: the same words for every one of them.
    count: Callable[[Any], Mapping[str, int]] = lambda _machine: {}
    #: Notes what must fit with other partitions of a backup.
    compare: Callable[[Across, str, Any], None] = lambda _across, _partition, _machine: None

    def names(self, shards: int) -> list[str]:
        """Its partitions, where the slot map has so many."""
        return [*map(partition_name, range(shards))] if self.by_slot else [self.name]

    def named(self, shards: int) -> str:
        """These for people: the first and the last."""
        first, *more = self.names(shards)
        return f"{first} to {more[-1]}" if more else first

    @property
    def frames(self) -> Frames:
        return _frames(self)


@functools.cache
def _frames(kind: PartitionKind) -> Frames:
    return kind.machine(kind.name).frames


def _problems_of_control(state: ControlState, _slots: SlotMap | None) -> Iterable[str]:
    return state.of(Slots).problems()


def _compare_control(across: Across, _partition: str, state: ControlState) -> None:
    across.slots = state.slots


def _new_shard(partition: str) -> Shard:
    return Shard(partition, ShardSettings())


def _count_of_shard(shard: Shard) -> Mapping[str, int]:
    state = shard.state
    return {"incidents": len(state.incidents), "open": state.open_count, "series": len(state.series)}


def _compare_shard(across: Across, partition: str, shard: Shard) -> None:
    incidents: Iterable[Incident] = shard.state.incidents.values()
    across.add(partition, incidents)


#: The control partition first: it says which others there are.
PARTITIONS: tuple[PartitionKind, ...] = (
    PartitionKind(
        CONTROL, lambda _name: ControlState(), problems=_problems_of_control, compare=_compare_control
    ),
    PartitionKind(
        SHARD,
        _new_shard,
        by_slot=True,
        keeps=(ARCHIVE, DELIVERY_IDS),
        problems=problems_of_shard,
        count=_count_of_shard,
        compare=_compare_shard,
    ),
    PartitionKind(TOPOLOGY, Topology),
)


def names(shards: int) -> list[str]:
    """Every partition, where the slot map has so many."""
    return [name for kind in PARTITIONS for name in kind.names(shards)]


def named(shards: int) -> str:
    """Every partition, for people."""
    return " and ".join(kind.named(shards) for kind in PARTITIONS)


def kind_of(partition: str) -> PartitionKind:
    """The kind of a partition by its name. Raises Broken for one of a kind that this program does not know."""
    found = next((kind for kind in PARTITIONS if kind.name == partition.partition("/")[0]), None)
    if found is None:
        raise Broken(f"{partition} is a partition of a kind that this version does not know")
    return found


def decode_frame(partition: str, stored: bytes, seq: int, previous: bytes | None) -> Frame:
    """Frames.decode() by the partition's kind."""
    return kind_of(partition).frames.decode(partition, stored, seq, previous)


def every_event() -> tuple[type[Event], ...]:
    """Every event that a log may hold."""
    return tuple(event for kind in PARTITIONS for event in kind.frames.events)


def counts() -> dict[str, int]:
    """What is counted of machines of any kind, from 0."""
    return dict.fromkeys((what for kind in PARTITIONS for what in kind.count(kind.machine(kind.name))), 0)
