"""Whether partitions have begun, and whether they hold anything: checked before a log is created, because creating one
where there was one before would silently lose it. Used by actors/control.py, actors/shard.py and commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from models.control.control import ControlState
from models.errors import Damaged
from models.partition.sharding import partition_name
from models.ports import Archive, EventLog
from models.shard.assembly import ASSEMBLY
from models.shard.events import IncidentOpened
from models.shard.slot_transfer import SlotArrived
from models.shard.splitting import IncidentSplit

#: How many empty partitions to skip while looking for more: if the control log is lost, it is unknown how many there
#: were.
LOOKED_PAST = 16
#: Events that every incident has. A shard that never received anything still logs its own start.
_BEGINNINGS = (IncidentOpened, IncidentSplit, SlotArrived)


@dataclass(frozen=True, slots=True)
class Kept:
    """What partitions keep, by name, opened for reading."""

    log: Callable[[str], EventLog]
    archive: Callable[[str], Archive]


async def held(kept: Kept, at_least: int) -> list[str]:
    """The shards' partitions that hold anything; so many are looked at whatever they hold. Raises Unavailable."""
    found: list[str] = []
    index, last = 0, -1
    while index < max(at_least, last + 1 + LOOKED_PAST):
        name = partition_name(index)
        log, archive = kept.log(name), kept.archive(name)
        try:
            if await _holds(log) or await archive.count():
                found.append(name)
                last = index
        except Damaged:
            found.append(name)
            last = index
        finally:
            await log.close()
            await archive.close()
        index += 1
    return found


async def _holds(log: EventLog) -> bool:
    """Whether it holds more than the start of a shard."""
    # Before the frames: a shard may be starting just now.
    seq, last = 0, await log.last_seq()
    if await log.marks():
        return True
    while page := await log.read(seq):
        for number, stored in page:
            if number != seq + 1:
                return True
            seq = number
            if any(
                isinstance(event, _BEGINNINGS)
                for event in ASSEMBLY.frames.decode(log.partition, stored, seq, None).events
            ):
                return True
    return last > seq


async def has_begun(log: EventLog) -> bool:
    """Whether a writer ever opened it."""
    return (await log.stats())["epoch"] > 0


async def refuse_lost(log: EventLog, control: ControlState) -> None:
    """Raises Damaged for a partition that had begun, according to the control log, but has no data."""
    if log.partition in control.begun and not await has_begun(log):
        raise Damaged(
            log.partition,
            0,
            "its log is gone: the control log says that it had begun. Bring it back, or restore a backup; without a backup:"
            f" llm-im store accept-loss {log.partition}",
        )


async def refuse_lost_among(
    open_log: Callable[[str], EventLog], names: Iterable[str], control: ControlState
) -> None:
    """refuse_lost() of several, opened for that."""
    for name in names:
        log = open_log(name)
        try:
            await refuse_lost(log, control)
        finally:
            await log.close()


def lost_control(partition: str, holding: list[str]) -> Damaged:
    """The error for a missing control log while shards hold data."""
    return Damaged(
        partition,
        0,
        f"the control log is gone, and with it the slot map and the API tokens, but there is data in"
        f" {', '.join(holding)}. Bring it back, or restore a backup into an empty store; without one:"
        " llm-im store accept-loss control",
    )
