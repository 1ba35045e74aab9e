"""Reads a backup: every file against its checksum, every log along its digest chain, and the state that comes of it. Used by
`llm-im backup verify`, and by restore.py before it writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import msgspec

from actors.folding import fold_control, fold_shard
from models.backup import Backup, Notes, Part, Until
from models.control.control import CONTROL
from models.errors import Broken, Conflict, Damaged, IncidentManagerError
from models.partition.checkpoint import SNAPSHOT_VERSION
from models.partition.frames import Frame
from models.ports import EventLog
from models.shard.settings import ShardSettings
from models.shard.slot_transfer import problems
from services.upkeep.backup import packing
from services.upkeep.backup.reader import BackupLog
from services.upkeep.backup.target import Target

Progress = Callable[[str], None]


@dataclass(slots=True)
class Reached:
    """Where a partition ends up when it is restored, and what it holds then. `now` is the time of its last frame."""

    seq: int
    now: float
    frames: int = 0
    incidents: int = 0
    open: int = 0
    series: int = 0


@dataclass(slots=True)
class Check:
    """What reading one partition found. `wrong` is "" when all is well."""

    partition: str
    files: int = 0
    bytes: int = 0
    archived: int = 0
    deliveries: int = 0
    reached: Reached | None = None
    wrong: str = ""


@dataclass(slots=True)
class Checked:
    """What reading a backup found. `wrong` is about what is between partitions."""

    parts: list[Check] = field(default_factory=list)
    wrong: str = ""

    @property
    def is_whole(self) -> bool:
        return not self.wrong and not any(part.wrong for part in self.parts)


async def verify(target: Target, backup: Backup, *, progress: Progress = lambda _text: None) -> Checked:
    """Read all of it: no damage hides another partition's. Raises Unavailable."""
    checked = Checked()
    notes = Notes()
    for part in backup.parts:
        progress(f"reading {part.name}")
        check = Check(part.name, sum(1 for _file in part.files()), sum(file.size for file in part.files()))
        checked.parts.append(check)
        try:
            check.reached = await fold(target, part, Until(), notes)
            await _read_beside(target, part, check)
        except Broken as error:
            check.wrong = words(error)
    if checked.is_whole:
        try:
            notes.check()
        except Conflict as error:
            checked.wrong = str(error)
    return checked


async def fold(target: Target, part: Part, until: Until, notes: Notes) -> Reached:
    """Make the state of a partition up to there, and see whether it holds together. Raises Broken, naming file or seq."""
    # Folding reads and nothing else.
    log = cast(EventLog, BackupLog(target, part, until))
    reached = Reached(part.first_seq, part.first_now)

    def each(frame: Frame) -> None:
        reached.seq, reached.now = frame.seq, frame.now
        reached.frames += 1

    if part.snapshot is not None and part.snapshot.version != SNAPSHOT_VERSION:
        raise Broken(
            f"its snapshot has version {part.snapshot.version}, this program reads {SNAPSHOT_VERSION}"
        )
    try:
        if part.name == CONTROL:
            notes.slots = (await fold_control(log, each)).slots
            return reached
        shard = (await fold_shard(log, ShardSettings(), each)).machine
    except (LookupError, ValueError, TypeError, msgspec.MsgspecError) as error:
        raise Broken(
            f"the events after seq {reached.seq} do not fit the state before them: {error!r}"
        ) from None
    for problem in problems(shard):
        raise Broken(problem)
    notes.add(part.name, shard.state.incidents.values())
    reached.incidents, reached.open = len(shard.state.incidents), shard.state.open_count
    reached.series = len(shard.state.series)
    return reached


async def _read_beside(target: Target, part: Part, check: Check) -> None:
    for file in part.deliveries:
        check.deliveries += len(await packing.deliveries(target, file))
    for day in part.archive:
        for file in day.files:
            ids = [each.incident_id for each in await packing.incidents(target, file)]
            if any(not day.first <= each < day.end for each in ids):
                raise Broken(f"file files/{file.digest} holds incidents of another day")
            check.archived += len(ids)


def words(error: IncidentManagerError) -> str:
    """What is wrong, where the partition is known already."""
    return (
        f"at seq {error.seq}: {str(error).partition(': ')[2]}" if isinstance(error, Damaged) else str(error)
    )
