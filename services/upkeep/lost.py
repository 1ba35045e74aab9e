"""`llm-im store accept-loss`: going on without a partition's log that is gone and that no backup has, while nothing runs.

Of a shard it is an empty log, in epochs far above what the lost one can have reached, because ids are made of them. Of the
control partition it is a slot map by what the shards hold: a slot that holds incidents is where they are, any other may be
anywhere. Its tokens are gone; so nobody comes in without a new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from actors.begun import LOOKED_PAST, Kept, has_begun, held
from actors.folding import fold_control, fold_shard
from models.backup import EPOCHS_AHEAD
from models.control.control import CONTROL
from models.control.slots import Slots
from models.errors import Conflict, NotFound
from models.partition.frames import NO_DIGEST, Frame
from models.partition.sharding import SlotMap, index_of, partition_name, slot_of_id
from models.partitions import named, names
from models.ports import Archive, Clock
from models.shard.settings import ShardSettings
from models.shard.slot_transfer import SlotArrived, SlotLeft
from services.stores.choice import Stores
from services.upkeep.offline import Offline
from services.wiring.slots import moved_away

OWNER = "llm-im-accept-loss"


@dataclass(slots=True)
class Accepted:
    """What there is instead. `partitions`: how many the slot map has that was made anew, if one was."""

    partition: str
    partitions: int = 0
    incidents: int = 0


async def accept_loss(
    stores: Stores, settings: ShardSettings, partition: str, clock: Clock, at_least: int
) -> Accepted:
    """Begin a log anew. Raises Conflict when it is there, when a system runs, and when the shards' incidents fit no slot map;
    NotFound for a partition that there is not; Damaged, Unavailable."""
    async with Offline(stores, OWNER, clock) as offline:
        if (rebuild := _REBUILT.get(partition)) is not None:
            return await rebuild(stores, offline, settings, clock, at_least)
        await _refuse_unknown(stores, partition)
        log = stores.log(partition)
        try:
            if await has_begun(log):
                raise Conflict(
                    f"{partition} has a log: it is not lost. To check it for damage: llm-im store verify"
                )
        finally:
            await log.close()
        held_log = await offline.take(partition)
        await held_log.seed(0, NO_DIGEST, EPOCHS_AHEAD)
        return Accepted(partition)


async def _refuse_unknown(stores: Stores, partition: str) -> None:
    """Raises NotFound for what is no partition here: it would be made; Conflict for stores that were moved, or whose slot map
    is gone too."""
    control = stores.log(CONTROL)
    try:
        state = await fold_control(control)
    finally:
        await control.close()
    if state.moved is not None:
        raise Conflict(moved_away(state.moved))
    maps = [each for each in (state.slots, state.moving_to) if each is not None]
    if not maps:
        raise Conflict(
            "the control log has no slot map, so it is unknown which shards there were; first: llm-im store accept-loss control"
        )
    shards = max(each.partitions for each in maps)
    if partition not in names(shards):
        raise NotFound(f"there is no partition {partition}; there are {named(shards)}")


async def _control(
    stores: Stores, offline: Offline, settings: ShardSettings, clock: Clock, at_least: int
) -> Accepted:
    control = await offline.take(CONTROL)
    state = await fold_control(control.log)
    if state.slots is not None:
        raise Conflict(
            "the control log has its slot map: it is not lost. To check it for damage: llm-im store verify"
        )
    holding = await held(Kept(stores.log, stores.archive), at_least)
    if not holding:
        raise Conflict("no shard holds any data: the first llm-im up creates the control log")
    shards = await _shards(stores, index_of(holding[-1]))
    slots = _Slots(len(shards))
    for index, name in enumerate(shards):
        folded = await fold_shard((await offline.take(name)).log, settings, slots.look)
        for incident in folded.machine.state.incidents.values():
            slots.put(incident.slot, index, incident.id)
        archive = stores.archive(name)
        try:
            await _archived(archive, index, slots)
        finally:
            await archive.close()
    offline.check()
    await control.append(Slots.begin_after_loss(slots.as_map()), clock.now())
    return Accepted(CONTROL, len(shards), slots.incidents)


async def _shards(stores: Stores, last: int) -> list[str]:
    """All shards' partitions up to the last that holds something, or had begun at least."""
    for index in range(last + 1, last + 1 + LOOKED_PAST):
        log = stores.log(partition_name(index))
        try:
            last = index if await has_begun(log) else last
        finally:
            await log.close()
    return [partition_name(index) for index in range(last + 1)]


async def _archived(archive: Archive, index: int, slots: _Slots) -> None:
    after = b""
    while page := await archive.read(after):
        after = page[-1].incident_id
        for each in page:
            slots.put(slot_of_id(each.incident_id), index, each.incident_id)


#: Partitions that are made anew of what others hold. Any other begins empty.
_REBUILT = {CONTROL: _control}


class _Slots:
    """A slot map by where incidents are."""

    def __init__(self, partitions: int) -> None:
        even = SlotMap.even(partitions)
        self._owners = [*even.owners]
        self._version = even.version
        self._found: dict[int, int] = {}
        self.incidents = 0

    def look(self, frame: Frame) -> None:
        """The versions of maps before: what moved by one of them must not count for the next."""
        for event in frame.events:
            if isinstance(event, SlotLeft | SlotArrived):
                self._version = max(self._version, event.version + 1)

    def put(self, slot: int, index: int, identity: bytes) -> None:
        self.incidents += 1
        if self._found.setdefault(slot, index) != index:
            raise Conflict(
                f"slot {slot} has incidents in {partition_name(self._found[slot])} and in {partition_name(index)}, such as"
                f" {UUID(bytes=identity)}: resharding was under way. Only restoring a backup helps"
            )
        self._owners[slot] = index

    def as_map(self) -> SlotMap:
        return SlotMap(self._version, tuple(self._owners))
