"""Whether what is kept is whole and fits together: `llm-im log verify`, `llm-im store verify`. Reads only, beside a live
writer or without one."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from actors.begun import has_begun, refuse_lost
from actors.folding import fold_shard
from models.control.control import CONTROL
from models.errors import Damaged, IncidentManagerError, Unavailable
from models.incidents.incident import Incident
from models.partition.checkpoint import Census
from models.partition.frames import decode_frame, previous_of
from models.partition.sharding import SlotMap, partition_name, slot_of_id
from models.ports import Archive, EventLog, Mark
from models.shard.slot_transfer import problems
from services.stores.choice import open_stores, place_of
from services.wiring.slots import control_state, refuse_lost_control

if TYPE_CHECKING:
    from models.settings.all import Settings

#: One page: large enough that its hop to a thread does not count, small enough to hold.
READ_BYTES = 4 * 1024 * 1024
#: A log is read again so often when its writer took a snapshot meanwhile, and dropped what was about to be read.
ATTEMPTS_MAX = 10
#: Problems told of a partition: who has more has one cause.
PROBLEMS_MAX = 20

_incident_decoder = msgspec.msgpack.Decoder(Incident)


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
        if log.partition == CONTROL:
            await refuse_lost_control(settings)
        else:
            await refuse_lost(log, state)
    except Damaged as error:
        return str(error).partition(": ")[2] if log.partition in (CONTROL, error.partition) else ""
    if log.partition != CONTROL and state.slots is not None:
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
    incidents: int = 0
    series: int = 0
    archived: int = 0
    problems: list[str] = field(default_factory=list)

    def told(self, problem: str) -> bool:
        """Note a problem; False when there are enough of them."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)
        return len(self.problems) < PROBLEMS_MAX


async def verify(settings: Settings, partitions: int) -> list[Verified]:
    """Every partition, the control partition first."""
    stores = open_stores(place_of(settings))
    found = []
    slots: SlotMap | None = None
    for name in [CONTROL, *map(partition_name, range(partitions))]:
        verified = Verified(name)
        log, archive = stores.log(name), stores.archive(name)
        try:
            await _log(log, settings, slots, verified)
            if not verified.problems and (gone := await _gone(log, settings)):
                verified.told(gone)
            if name == CONTROL and not verified.problems:
                slots = await _control(settings, verified)
            elif name != CONTROL:
                await _archived(archive, slots, verified)
        except IncidentManagerError as error:
            verified.told(str(error))
        finally:
            await log.close()
            await archive.close()
        found.append(verified)
    return found


async def _log(log: EventLog, settings: Settings, slots: SlotMap | None, verified: Verified) -> None:
    for _attempt in range(ATTEMPTS_MAX):
        verified.problems.clear()
        marks = await log.marks()
        try:
            check = await check_log(log)
            verified.frames = check.frames
            if check.damage:
                verified.told(check.damage)
            elif log.partition != CONTROL:
                await _state(log, settings, slots, verified)
        except (Damaged, Unavailable) as error:
            verified.told(str(error))
        if not verified.problems or await log.marks() == marks:
            return


async def _control(settings: Settings, verified: Verified) -> SlotMap | None:
    state = await control_state(settings)
    if state.moving_to is not None:
        verified.told(
            f"resharding to {state.moving_to.partitions} partitions is not finished: llm-im store reshard"
        )
        return None  # an incident may be in either
    if state.slots is None:
        verified.told("the store is empty: no system was ever started on it. Another one: --config, --data")
    if state.copied_from:
        verified.told(f"an unfinished copy of {state.copied_from}")
    return state.slots


async def _state(log: EventLog, settings: Settings, slots: SlotMap | None, verified: Verified) -> None:
    from services.wiring.bootstrap import shard_settings

    reached = deque([0], maxlen=1)
    try:
        shard = (
            await fold_shard(log, shard_settings(settings), lambda frame: reached.append(frame.seq))
        ).machine
    except (LookupError, ValueError, TypeError, msgspec.MsgspecError) as error:
        verified.told(f"the state can't be rebuilt: the events after seq {reached[-1]} do not fit: {error!r}")
        return
    verified.incidents, verified.series = len(shard.state.incidents), len(shard.state.series)
    for problem in problems(shard):
        if not verified.told(problem):
            return
    for identity, incident in shard.state.incidents.items():
        if slots is not None and partition_name(slots.owners[incident.slot]) != verified.partition:
            if not verified.told(
                f"incident {identity.hex()}: its slot {incident.slot} belongs to another partition"
            ):
                return


async def _archived(archive: Archive, slots: SlotMap | None, verified: Verified) -> None:
    after = b""
    while page := await archive.read(after):
        after = page[-1].incident_id
        verified.archived += len(page)
        for each in page:
            why = _wrong_about(each.incident_id, each.record, slots, verified.partition)
            if why and not verified.told(f"archived incident {each.incident_id.hex()}: {why}"):
                return


def _wrong_about(identity: bytes, record: bytes, slots: SlotMap | None, partition: str) -> str:
    try:
        found = _incident_decoder.decode(record).id
    except msgspec.MsgspecError as error:
        return f"can't be read: {error}"
    if found != identity:
        return f"its record is of {found.hex()}"
    if slots is not None and partition_name(slots.owners[slot_of_id(identity)]) != partition:
        return f"its slot {slot_of_id(identity)} belongs to another partition"
    return ""
