"""Whether what is kept is whole and fits together: `llm-im log verify`, `llm-im store verify`. Reads only, beside a live
writer or without one."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from actors.begun import has_begun, refuse_lost
from actors.folding import fold
from models import partitions
from models.errors import Damaged, IncidentManagerError, Unavailable
from models.partition.checkpoint import Census
from models.partition.frames import previous_of
from models.partition.sharding import SlotMap
from models.partitions import decode_frame, kind_of
from models.ports import EventLog, Mark
from services.stores.choice import open_stores, place_of
from services.upkeep.kept.table import counts as kept_counts
from services.upkeep.kept.table import kept_by
from services.wiring.slots import control_state, refuse_lost_control

if TYPE_CHECKING:
    from models.settings.all import Settings

#: One page: large enough that its hop to a thread does not count, small enough to hold.
READ_BYTES = 4 * 1024 * 1024
#: A log is read again so often when its writer took a snapshot meanwhile, and dropped what was about to be read.
ATTEMPTS_MAX = 10
#: Problems told of a partition: who has more has one cause.
PROBLEMS_MAX = 20


@dataclass(slots=True)
class Check:
    """What reading one whole partition found. `damage` says where and what, "" when all is well."""

    partition: str
    frames: int = 0
    first_seq: int = 0
    last_seq: int = 0
    bytes: int = 0
    disk_bytes: int = 0
    events: dict[str, int] = field(default_factory=dict)
    snapshots: int = 0
    snapshot_seqs: list[int] = field(default_factory=list)
    records: int = 0
    #: Snapshots of an older version: whether records of them are missing nobody knows.
    uncounted: int = 0
    damage: str = ""


async def check_logs(settings: Settings, names: list[str]) -> list[Check]:
    """These partitions, and whether one is gone that was there."""
    stores = open_stores(place_of(settings))
    checks = []
    for name in names:
        log = stores.log(name)
        try:
            check = await check_log(log)
            check.damage = check.damage or await _gone(log, settings)
        finally:
            await log.close()
        checks.append(check)
    return checks


async def check_log(log: EventLog) -> Check:
    """Read all that is in the log when this begins, and stop at the first damage."""
    for attempt in range(1, ATTEMPTS_MAX + 1):
        check = Check(log.partition)
        marks: list[Mark] = []
        try:
            # Before the frames: reading the marks also says whether the file can be read at all.
            check.disk_bytes = (await log.stats())["disk_bytes"]
            marks = await log.marks()
            digests = await _check_frames(log, check, {mark.seq for mark in marks})
            await _check_snapshots(log, check, marks, digests)
        except Damaged as error:
            check.damage = f"at seq {error.seq}: {str(error).partition(': ')[2]}" if error.seq else str(error)
        except Unavailable:
            if attempt == ATTEMPTS_MAX or await log.marks() == marks:
                raise
            continue
        # Its writer took a snapshot meanwhile and dropped what was about to be read.
        if not check.damage or attempt == ATTEMPTS_MAX or not await _has_moved_on(log, marks):
            break
    return check


async def _has_moved_on(log: EventLog, marks: list[Mark]) -> bool:
    try:
        return await log.marks() != marks
    except Damaged:
        return False


async def _gone(log: EventLog, settings: Settings) -> str:
    """Why a log must be somewhere, of which nothing is here; "" when there is no reason, or when there is something."""
    if await has_begun(log):
        return ""
    try:
        state = await control_state(settings)
        if state.slots is None:
            await refuse_lost_control(settings)
        await refuse_lost(log, state)
    except Damaged as error:
        return str(error).partition(": ")[2] if log.partition == error.partition else ""
    if state.slots is not None and kind_of(log.partition).by_slot:
        return "it has no data, but the slot map names it: it is lost, or was never started"
    return ""


async def _check_frames(log: EventLog, check: Check, wanted: set[int]) -> dict[int, bytes]:
    """The digests of the frames at `wanted`, as far as they are there."""
    last = await log.last_seq()
    digests: dict[int, bytes] = {}
    events: Counter[str] = Counter()
    previous: bytes | None = None
    after = 0
    limit_bytes = READ_BYTES
    while after < last:
        try:
            page = await log.read(after, limit_bytes)
        except Damaged:
            if limit_bytes == 1:
                raise
            limit_bytes = 1  # frame by frame up to the damage, to say how much before it is good
            continue
        if not page and not check.frames and not (await log.stats())["first_seq"]:
            break  # nothing behind the snapshot
        if not page:
            # The reader leaves a last append that fails its check alone: only a writer may cut it.
            raise Damaged(
                log.partition,
                after + 1,
                f"the last append, up to seq {last}, is torn; the next start cuts it off",
            )
        for seq, stored in page:
            if check.frames and seq != after + 1:
                raise Damaged(log.partition, after + 1, f"frames {after + 1} to {seq - 1} are missing")
            frame = decode_frame(log.partition, stored, seq, previous)
            if not check.frames:
                digests[seq - 1] = previous_of(stored)
            if seq in wanted:
                digests[seq] = frame.digest
            previous, after = frame.digest, seq
            check.first_seq = check.first_seq or seq
            check.last_seq = seq
            check.frames += 1
            check.bytes += len(stored)
            events.update(type(event).__name__ for event in frame.events)
            check.events = dict(events)
    return digests


async def _check_snapshots(log: EventLog, check: Check, marks: list[Mark], digests: dict[int, bytes]) -> None:
    begins = check.first_seq or await log.last_seq() + 1
    reached = max((mark.seq for mark in marks), default=0)
    if begins > reached + 1:
        raise Damaged(
            log.partition,
            begins,
            f"the log begins here, and its snapshots reach no further than seq {reached}",
        )
    for mark in marks:
        if digests.get(mark.seq, mark.digest) != mark.digest:
            raise Damaged(
                log.partition, mark.seq, "the snapshot here does not belong to this log: the digests differ"
            )
    check.snapshots = len(marks)
    check.snapshot_seqs = [mark.seq for mark in marks]
    for mark in marks:
        census = Census()
        async for page in log.records(mark.generation):
            check.records += len(page)
            census.add(page)
        census.check(log.partition, mark)
        check.uncounted += not mark.checksum


@dataclass(slots=True)
class Verified:
    """One partition. `problems` are in words; none when all is well."""

    partition: str
    frames: int = 0
    #: What it holds, and what lies beside its log.
    counts: dict[str, int] = field(default_factory=lambda: {**partitions.counts(), **kept_counts()})
    problems: list[str] = field(default_factory=list)

    def told(self, problem: str) -> bool:
        """Note a problem; False when there are enough of them."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)
        return len(self.problems) < PROBLEMS_MAX


async def verify(settings: Settings, shards: int) -> list[Verified]:
    """Every partition, the control partition first."""
    stores = open_stores(place_of(settings))
    slots = await _slots(settings)
    found = []
    for name in partitions.names(shards):
        verified = Verified(name)
        log = stores.log(name)
        try:
            await _log(log, settings, slots, verified)
            for kept in kept_by(name):
                port = kept.open(stores, name)
                try:
                    count = await kept.verify(port, name, slots, verified.told)
                finally:
                    await port.close()
                verified.counts[kept.counted] = count
        except IncidentManagerError as error:
            verified.told(str(error))
        finally:
            await log.close()
        found.append(verified)
    return found


async def _slots(settings: Settings) -> SlotMap | None:
    """Where every incident must be; None while one may be in either of two places, and where nobody knows."""
    try:
        state = await control_state(settings)
    except IncidentManagerError:
        return None  # said of the control partition
    return None if state.moving_to is not None else state.slots


async def _log(log: EventLog, settings: Settings, slots: SlotMap | None, verified: Verified) -> None:
    for _attempt in range(ATTEMPTS_MAX):
        verified.problems.clear()
        marks = await log.marks()
        try:
            check = await check_log(log)
            verified.frames = check.frames
            if check.damage:
                verified.told(check.damage)
            elif gone := await _gone(log, settings):
                verified.told(gone)
            else:
                await _state(log, slots, verified)
        except (Damaged, Unavailable) as error:
            verified.told(str(error))
        if not verified.problems or await log.marks() == marks:
            return


async def _state(log: EventLog, slots: SlotMap | None, verified: Verified) -> None:
    kind = kind_of(log.partition)
    reached = deque([0], maxlen=1)
    try:
        folded = await fold(log, lambda: kind.machine(log.partition), lambda frame: reached.append(frame.seq))
    except (LookupError, ValueError, TypeError, msgspec.MsgspecError) as error:
        verified.told(f"the state can't be rebuilt: the events after seq {reached[-1]} do not fit: {error!r}")
        return
    verified.counts.update(kind.count(folded.machine))
    for problem in kind.problems(folded.machine, slots):
        if not verified.told(problem):
            return
