"""Makes a backup beside a running system, by ports alone: no lease, no lock, and truncation waits for nobody.

The logs are copied first (cut.py), because their old ends go away with the next snapshots; when that happens while one is
read, all begins anew with another moment. The archive and the delivery ids are read behind them and may hold more than the
cut: restoring leaves out what is younger (restore.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import structlog

from actors.begun import Kept, held, lost_control, refuse_lost_among
from actors.folding import fold_control
from models import VERSION
from models.backup import FORMAT, Backup, Day, Part, backup_id, before, day_of
from models.control.control import CONTROL
from models.errors import Conflict, Unavailable
from models.partition.sharding import SlotMap, partition_name
from models.ports import Archive, ArchivedIncident, Clock
from services.stores.choice import Stores
from services.upkeep.backup.cut import READ_BYTES, Ahead, Gone, Progress, cut
from services.upkeep.backup.packing import Delivery, Packer
from services.upkeep.backup.retention import newest_whole
from services.upkeep.backup.target import Target
from services.wiring.slots import moved_away

log = structlog.get_logger()

#: A log is read too slowly when two snapshots are made meanwhile, some minutes apart. Once more is bad luck.
TRIES = 5
#: Clocks of several machines may differ so much; more would be seen in every list of incidents.
CLOCKS_DIFFER_S = 1.0
#: Behind the logs there is no hurry: after each page as long a rest, but no longer than this.
REST_MAX_S = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Made:
    """`written_bytes` of `backup` were not there before."""

    backup: Backup
    written_bytes: int


async def create(
    stores: Stores,
    target: Target,
    clock: Clock,
    *,
    backend: str,
    progress: Progress = lambda _text: None,
) -> Made:
    """Make one and return it. `backend` is what the settings call the store.

    Raises Conflict while another process writes there, when the clocks of a writer and of this process differ, when slots
    move meanwhile, and where there is nothing to back up; Damaged for a log that is; Unavailable, Full."""
    async with target.busy("a backup") as still_mine:
        began = time.monotonic()
        files = await target.files()
        bytes_before = sum(files.values())
        latest = await newest_whole(target, files)
        wait_s, why = 0.0, ""
        for attempt in range(1, TRIES + 1):
            try:
                slots = await _slots(stores)
                names = [CONTROL, *map(partition_name, range(slots.partitions))]
                cut_at, parts = await cut(stores, target, clock, files, names, wait_s, progress)
                break
            except Gone as gone:
                why = str(gone)
                progress(f"{why}; once more")
                log.info("restarting the backup", why=why, attempt=attempt)
            except Ahead as ahead:
                if wait_s:
                    raise Conflict(
                        f"{ahead}: the clocks of its writer and of this machine differ by more than {CLOCKS_DIFFER_S:g} s,"
                        " or one was set back"
                    ) from None
                wait_s = CLOCKS_DIFFER_S
        else:
            raise Unavailable(f"given up after {TRIES} tries to copy the logs; the last one: {why}")
        whole = []
        for part in parts:
            known = next((each for each in latest.parts if each.name == part.name), None) if latest else None
            whole.append(await _beside(stores, target, files, part, known, progress))
        made = Backup(
            FORMAT, backup_id(cut_at), VERSION, backend, cut_at, round(time.monotonic() - began, 3), whole
        )
        # An archived incident that moved may have been read in neither archive.
        if (await _slots(stores)).version != slots.version:
            raise Conflict(
                "the store was resharded in the meantime, and what moved may be missing: create the backup again"
            )
        await still_mine()
        there = await target.files()
        if missing := [digest for digest, size in made.files().items() if there.get(digest) != size]:
            raise Unavailable(f"{target.url}: {len(missing)} files were removed in the meantime; try again")
        await target.write(made)
        return Made(made, sum(files.values()) - bytes_before)


async def _slots(stores: Stores) -> SlotMap:
    """Which partitions there are. Raises Conflict when there are none, or when slots are on the move."""
    control = stores.log(CONTROL)
    try:
        state = await fold_control(control)
    finally:
        await control.close()
    if state.moved is not None:
        raise Conflict(moved_away(state.moved))
    if state.slots is None:
        if holding := await held(Kept(stores.log, stores.archive), 0):
            raise lost_control(CONTROL, holding)
        raise Conflict("there is nothing to back up: no system was ever started on this store")
    if state.moving_to is not None or state.copied_from:
        raise Conflict("the store is in the middle of resharding, or of being copied: finish that first")
    await refuse_lost_among(stores.log, map(partition_name, range(state.slots.partitions)), state)
    return state.slots


async def _beside(
    stores: Stores, target: Target, known: dict[str, int], part: Part, latest: Part | None, progress: Progress
) -> Part:
    """The same with its archive and its delivery ids; control has none."""
    if part.name == CONTROL:
        return part
    days = [] if latest is None else latest.archive
    archive = await _archive(stores, target, known, part.name, {day.first: day for day in days}, progress)
    packer = Packer[Delivery](target, known)
    ids = stores.delivery_ids(part.name)
    try:
        async for page in _resting(ids.entries()):
            await packer.add(page, sum(len(key) + len(answer) for key, _at, answer in page))
    finally:
        await ids.close()
    return msgspec.structs.replace(part, archive=archive, deliveries=await packer.flush())


async def _archive(
    stores: Stores,
    target: Target,
    known: dict[str, int],
    name: str,
    latest: dict[bytes, Day],
    progress: Progress,
) -> list[Day]:
    """Day by day; one that counts as it did in the latest backup is taken over from there."""
    archive = stores.archive(name)
    days: list[Day] = []
    after = b""
    try:
        while ahead := await archive.read(after, 1):
            first, end = day_of(ahead[0].incident_id)
            count, newest = await archive.tally(first, end)
            day = latest.get(first)
            if day is None or (day.count, day.newest) != (count, newest):
                progress(f"{name}: archive, {count} incidents of a day")
                packer = Packer[ArchivedIncident](target, known)
                async for page in _resting(_incidents(archive, before(first), end)):
                    await packer.add(page, sum(len(each.record) + len(each.alerts) for each in page))
                day = Day(first, end, count, newest, await packer.flush())
            days.append(day)
            after = before(end)
    finally:
        await archive.close()
    return days


async def _incidents(archive: Archive, after: bytes, end: bytes) -> AsyncIterator[list[ArchivedIncident]]:
    while page := await archive.read(after, READ_BYTES):
        wanted = [each for each in page if each.incident_id < end]
        if wanted:
            yield wanted
        if len(wanted) < len(page):
            return
        after = page[-1].incident_id


async def _resting(pages: AsyncIterator[T]) -> AsyncIterator[T]:
    """The same, with a rest behind each page as long as it took: others have the store, too."""
    began = time.monotonic()
    async for page in pages:
        yield page
        await asyncio.sleep(min(REST_MAX_S, time.monotonic() - began))
        began = time.monotonic()
