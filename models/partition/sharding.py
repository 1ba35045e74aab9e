"""Where a service lives: tenant and service -> slot -> partition, for ever the same slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

#: Fixed for the life of every log: ids carry the slot in the 12 bits that UUIDv7 leaves free (rand_a).
SLOTS = 4096
#: The one tenant there is, until there can be more.
TENANT = "default"


def slot_of(tenant: str, service: str) -> int:
    """The slot of a service, 0..4095. Never changes between versions: ids and logs depend on it."""
    return (
        xxhash.xxh3_64_intdigest(f"{len(tenant)}:{tenant}{service}".encode("utf-8", "surrogatepass")) % SLOTS
    )


#: What the names of the partitions in the slot map begin with.
SHARD = "shard"


def partition_name(index: int) -> str:
    """`shard/0007`: the name of shard partition `index`, as the stores know it."""
    return f"{SHARD}/{index:04d}"


def index_of(name: str) -> int:
    """The index in a name of partition_name()."""
    return int(name.rpartition("/")[2])


def slot_of_id(incident_id: bytes) -> int:
    """The slot that an incident id carries."""
    return ((incident_id[6] & 0x0F) << 8) | incident_id[7]


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Which shard partition holds each slot. `owners[slot]` is a partition index; `version` only grows."""

    version: int
    owners: Sequence[int]

    @classmethod
    def even(cls, partitions: int) -> SlotMap:
        """The map a new system starts with: slots dealt round, so neighbours land apart."""
        if not 1 <= partitions <= SLOTS:
            raise ValueError(f"partitions must be 1..{SLOTS}, not {partitions}")
        return cls(1, tuple(slot % partitions for slot in range(SLOTS)))

    def spread(self, partitions: int) -> SlotMap:
        """The next map, with the slots spread evenly over 0..partitions-1 and as few as possible moved."""
        if not 1 <= partitions <= SLOTS:
            raise ValueError(f"partitions must be 1..{SLOTS}, not {partitions}")
        least, more = divmod(SLOTS, partitions)
        room = [least + (index < more) for index in range(partitions)]
        owners = list(self.owners)
        homeless = []
        for slot, owner in enumerate(owners):
            if owner < partitions and room[owner]:
                room[owner] -= 1
            else:
                homeless.append(slot)
        free = (index for index, places in enumerate(room) for _ in range(places))
        for slot, index in zip(homeless, free, strict=True):
            owners[slot] = index
        return SlotMap(self.version + 1, tuple(owners))

    @property
    def partitions(self) -> int:
        return max(self.owners) + 1
