"""Reads a backup: every file against its checksum, every log along its digest chain, and the state that comes of it. Used by
`llm-im backup verify`, and by restore.py before it writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import msgspec

from actors.folding import fold as fold_log
from models import partitions
from models.backup import Across, Backup, Part, Until
from models.errors import Broken, Conflict, Damaged, IncidentManagerError
from models.partition.frames import Frame
from models.ports import EventLog
from services.upkeep.backup.reader import BackupLog
from services.upkeep.backup.target import Target
from services.upkeep.kept.table import counts, kept_by

Progress = Callable[[str], None]


@dataclass(slots=True)
class Reached:
    """Where a partition ends up when it is restored, and what it holds then. `now` is the time of its last frame."""

    seq: int
    now: float
    frames: int = 0
    counts: dict[str, int] = field(default_factory=partitions.counts)


@dataclass(slots=True)
class Check:
    """What reading one partition found. `wrong` is "" when all is well."""

    partition: str
    files: int = 0
    bytes: int = 0
    #: What lies beside the log.
    kept: dict[str, int] = field(default_factory=counts)
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
    across = Across()
    for part in backup.parts:
        progress(f"reading {part.name}")
        check = Check(part.name, sum(1 for _file in part.files()), sum(file.size for file in part.files()))
        checked.parts.append(check)
        try:
            check.reached = await fold(target, part, Until(), across)
            await _read_beside(target, part, check)
        except Broken as error:
            check.wrong = words(error)
    if checked.is_whole:
        try:
            across.check()
        except Conflict as error:
            checked.wrong = str(error)
    return checked


async def fold(target: Target, part: Part, until: Until, across: Across) -> Reached:
    """Make the state of a partition up to there, and see whether it holds together. Raises Broken, naming file or seq."""
    # Folding reads and nothing else.
    log = cast(EventLog, BackupLog(target, part, until))
    reached = Reached(part.first_seq, part.first_now)

    def each(frame: Frame) -> None:
        reached.seq, reached.now = frame.seq, frame.now
        reached.frames += 1

    kind = partitions.kind_of(part.name)
    reads = kind.machine(part.name).snapshot_version
    if part.snapshot is not None and part.snapshot.version != reads:
        raise Broken(f"its snapshot has version {part.snapshot.version}, this program reads {reads}")
    try:
        machine = (await fold_log(log, lambda: kind.machine(part.name), each)).machine
    except (LookupError, ValueError, TypeError, msgspec.MsgspecError) as error:
        raise Broken(
            f"the events after seq {reached.seq} do not fit the state before them: {error!r}"
        ) from None
    for problem in kind.problems(machine, None):
        raise Broken(problem)
    kind.compare(across, part.name, machine)
    reached.counts |= kind.count(machine)
    return reached


async def _read_beside(target: Target, part: Part, check: Check) -> None:
    for kept in kept_by(part.name):
        check.kept[kept.counted] = await kept.check_files(target, part)


def words(error: IncidentManagerError) -> str:
    """What is wrong, where the partition is known already."""
    return (
        f"at seq {error.seq}: {str(error).partition(': ')[2]}" if isinstance(error, Damaged) else str(error)
    )
