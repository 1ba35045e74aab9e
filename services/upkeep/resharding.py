"""`llm-im store reshard`: another number of partitions, while nothing runs.

    control log    SlotsMoving(map to be) ................................. SlotsAssigned(the same)     the map changes last
    old logs          SlotLeft, with all that left    SlotLeft ...
    new logs             SlotArrived, the same           SlotArrived ...
    archives                                                             archived incidents of those slots go after

Killed at any point, it goes on where it was: what left and did not arrive is read from the old log again. Until it is done
nobody starts the system (services/wiring/slots.py). Ids carry the slot and never change.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.begun import refuse_lost_among
from actors.folding import fold_control, fold_shard
from models.control.control import CONTROL
from models.control.slots import Slots
from models.errors import Conflict
from models.partition.frames import Frame
from models.partition.sharding import SlotMap, partition_name
from models.partitions import names
from models.ports import Clock, EventLog
from models.shard.assembly import ASSEMBLY
from models.shard.settings import ShardSettings
from models.shard.slot_transfer import (
    PORTION_BYTES,
    SlotArrived,
    SlotLeft,
    arrived,
    by_slot,
    first_incident,
    leaving,
)
from services.stores.choice import Stores
from services.upkeep.kept.table import counts, kept_by
from services.upkeep.offline import HeldLog, Offline
from services.wiring.slots import moved_away

OWNER = "llm-im-reshard"

Progress = Callable[[str], None]
#: A portion in a log: its slot, and its first incident.
_Portion = tuple[int, bytes]


@dataclass(slots=True)
class Resharded:
    """What was moved, this time: what an earlier try had moved is not counted."""

    partitions: int
    slots: int = 0
    incidents: int = 0
    #: Of what lies beside the logs.
    counts: dict[str, int] = field(default_factory=counts)


async def reshard(
    stores: Stores, settings: ShardSettings, partitions: int, clock: Clock, progress: Progress
) -> Resharded:
    """Move slots until there are `partitions`. Safe to repeat after any failure. Raises Conflict when a system runs,
    when that many there are, or when a move to another number was begun; Damaged, Unavailable."""
    async with Offline(stores, OWNER, clock) as offline:
        control = await offline.take(CONTROL)
        state = await fold_control(control.log)
        if state.moved is not None:
            raise Conflict(moved_away(state.moved))
        if state.slots is not None:
            await refuse_lost_among(stores.log, names(state.slots.partitions), state)
        begins = state.of(Slots).reshard(partitions)
        for event in begins:
            state.apply(event, clock.now())
        before, after = state.slots, state.moving_to
        assert before is not None and after is not None
        move = _Move(stores, offline, settings, clock, progress, before, after)
        await move.take()
        if begins:
            # Once it is begun nothing can be started before it is done: so first see that it can be done.
            await move.look()
            offline.check()
            await control.append(begins, clock.now())
        done = await move.run()
        ends = state.of(Slots).resharded()
        offline.check()
        await control.append(ends, clock.now())
        return done


class _Move:
    """One way from one map to the next."""

    def __init__(
        self,
        stores: Stores,
        offline: Offline,
        settings: ShardSettings,
        clock: Clock,
        progress: Progress,
        before: SlotMap,
        after: SlotMap,
    ) -> None:
        self._stores = stores
        self._offline = offline
        self._settings = settings
        self._clock = clock
        self._progress = progress
        self._before = before
        self._after = after
        self._moves = {
            (here, there) for here, there in zip(before.owners, after.owners, strict=True) if here != there
        }
        self._sources = sorted({here for here, _there in self._moves})
        self._arrived: dict[int, set[_Portion]] = {}
        self._done = Resharded(after.partitions)

    async def take(self) -> None:
        """Hold all partitions that lose slots or get some."""
        for index in sorted({each for move in self._moves for each in move}):
            held = await self._offline.take(partition_name(index))
            self._arrived[index] = await _arrived_in(held.log, self._after.version)

    async def look(self) -> None:
        """Raises Damaged for a partition whose state can't be made."""
        for index in self._sources:
            self._progress(f"{partition_name(index)}: reading its log")
            await fold_shard((await self._offline.take(partition_name(index))).log, self._settings)

    async def run(self) -> Resharded:
        for index in self._sources:
            await self._move_state(index)
            await self._move_history(index)
        return self._done

    def _target(self, event: SlotLeft) -> int:
        return self._after.owners[event.slot]

    async def _move_state(self, index: int) -> None:
        name = partition_name(index)
        held = await self._offline.take(name)
        unheard: list[SlotLeft] = []

        def look(frame: Frame) -> None:
            for event in frame.events:
                if isinstance(event, SlotLeft) and event.version == self._after.version:
                    if (event.slot, first_incident(event)) not in self._arrived[self._target(event)]:
                        unheard.append(event)

        shard = (await fold_shard(held.log, self._settings, look)).machine
        await self._arrive(unheard)  # killed between the two halves
        slots = [(slot, ids) for slot, ids in by_slot(shard).items() if self._after.owners[slot] != index]
        portions: list[SlotLeft] = []
        size = 0
        for number, (slot, identities) in enumerate(slots, 1):
            for portion in leaving(shard, slot, identities, self._after.version):
                shard.apply(portion, shard.now)
                portions.append(portion)
                size += sum(map(len, portion.incidents)) + sum(map(len, portion.series))
                if size >= PORTION_BYTES:
                    await self._leave(held, portions)
                    portions, size = [], 0
                    self._progress(f"{name}: {number:,} of {len(slots):,} slots with incidents moved")
        await self._leave(held, portions)
        self._done.slots += len(slots)

    async def _leave(self, held: HeldLog, portions: list[SlotLeft]) -> None:
        self._offline.check()
        await held.append(portions, self._clock.now())
        await self._arrive(portions)
        self._done.incidents += sum(len(each.incidents) for each in portions)

    async def _arrive(self, portions: list[SlotLeft]) -> None:
        waiting: defaultdict[int, list[SlotArrived]] = defaultdict(list)
        for portion in portions:
            waiting[self._target(portion)].append(arrived(portion))
        for target, events in waiting.items():
            held = await self._offline.take(partition_name(target))
            await held.append(events, self._clock.now())

    async def _move_history(self, index: int) -> None:
        """What lies beside the log and belongs to a slot."""
        others = sorted(set(self._after.owners) - {index})
        name = partition_name(index)
        for kept in kept_by(name):
            async with contextlib.AsyncExitStack() as opened:
                ports = {}
                for owner in (index, *others):
                    ports[owner] = kept.open(self._stores, partition_name(owner))
                    opened.push_async_callback(ports[owner].close)
                moved = 0
                async for page in kept.pages(ports[index]):
                    self._offline.check()
                    going: defaultdict[int, list[Any]] = defaultdict(list)
                    for item in page:
                        slot = kept.slot_of(item)
                        if slot is not None and self._after.owners[slot] != index:
                            going[self._after.owners[slot]].append(item)
                    for target, items in going.items():
                        await kept.put(ports[target], items)
                        await kept.remove(ports[index], items)
                        moved += len(items)
                    self._progress(f"{name}: {moved:,} {kept.items} moved")
                self._done.counts[kept.counted] += moved


async def _arrived_in(log: EventLog, version: int) -> set[_Portion]:
    """What of this move a log has already. None of it is behind a snapshot: only a system that runs takes one."""
    found: set[_Portion] = set()
    marks = await log.marks()
    after = marks[0].seq if marks else 0
    while page := await log.read(after):
        for seq, stored in page:
            after = seq
            for event in ASSEMBLY.frames.decode(log.partition, stored, seq, None).events:
                if isinstance(event, SlotArrived) and event.version == version:
                    found.add((event.slot, first_incident(event)))
    return found
