"""Makes a backup beside a running system, by ports alone: no lease, no lock, and truncation waits for nobody.

The logs are copied first (cut.py), because their old ends go away with the next snapshots; when that happens while one is
read, all begins anew with another moment. The archive and the delivery ids are read behind them and may hold more than the
cut: restoring leaves out what is younger (restore.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import structlog

from actors.begun import Kept, held, lost_control, refuse_lost_among
from actors.folding import fold_control
from models import VERSION
from models.backup import FORMAT, Backup, Part, backup_id
from models.control.control import CONTROL
from models.errors import Conflict, Unavailable
from models.partition.sharding import SlotMap
from models.partitions import names
from models.ports import Clock
from services.stores.choice import Stores
from services.upkeep.backup.cut import Ahead, Gone, Progress, cut
from services.upkeep.backup.retention import newest_whole
from services.upkeep.backup.target import Target
from services.upkeep.kept.table import kept_by
from services.wiring.slots import moved_away

log = structlog.get_logger()

#: A log is read too slowly when two snapshots are made meanwhile, some minutes apart. Once more is bad luck.
TRIES = 5
#: Clocks of several machines may differ so much; more would be seen in every list of incidents.
CLOCKS_DIFFER_S = 1.0


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
                cut_at, parts = await cut(
                    stores, target, clock, files, names(slots.partitions), wait_s, progress
                )
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
            known = None if latest is None else latest.find(part.name)
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
    await refuse_lost_among(stores.log, names(state.slots.partitions), state)
    return state.slots


async def _beside(
    stores: Stores, target: Target, known: dict[str, int], part: Part, latest: Part | None, progress: Progress
) -> Part:
    """The same with what lies beside its log."""
    for kept in kept_by(part.name):
        port = kept.open(stores, part.name)
        try:
            part = await kept.back_up(port, target, known, part, latest, progress)
        finally:
            await port.close()
    return part
