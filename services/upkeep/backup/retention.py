"""What is in a target: which backups are whole, and what of it may go. Used by create.py, schedule.py and the command line.

Backups go first and the files that none needs then, so a kill between the two leaves nothing but files that the next one
removes. Both happen while the target is held (Target.busy): a backup under way counts on files that are there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from models.backup import Backup, expired, time_of
from models.errors import Broken, Malformed, NotFound
from services.upkeep.backup.signing import Signature
from services.upkeep.backup.target import Target

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Entry:
    """One backup of a target. Without `backup` its manifest can't be read; `why` says what is wrong, "" when it is whole
    as far as names and sizes tell. `is_ours`: it is signed by our key, or who asks takes any."""

    id: str
    backup: Backup | None
    why: str = ""
    signature: Signature = Signature.NONE
    is_ours: bool = False

    @property
    def is_whole(self) -> bool:
        return not self.why


@dataclass(slots=True)
class Pool:
    """A target as it was read: its files (name -> bytes) and its backups, oldest first."""

    files: dict[str, int]
    entries: list[Entry]

    @staticmethod
    async def read(target: Target) -> Pool:
        """Raises Unavailable."""
        # Backups first: of one that is being written, and is found all the same, the files are there.
        ids = await target.ids()
        files = await target.files()
        found = [await _entry(target, identity, files) for identity in ids]
        return Pool(files, [each for each in found if each is not None])

    def whole(self) -> list[Backup]:
        """Those that are ours: a foreign one must not make ours go."""
        return [
            each.backup for each in self.entries if each.backup is not None and each.is_whole and each.is_ours
        ]


async def newest_whole(target: Target, files: dict[str, int]) -> Backup | None:
    """The newest backup of ours that has all its files, without reading older ones. Raises Unavailable."""
    for identity in reversed(await target.ids()):
        found = await _entry(target, identity, files)
        if found is not None and found.is_whole and found.is_ours:
            return found.backup
    return None


async def _entry(target: Target, identity: str, files: dict[str, int]) -> Entry | None:
    """None for what is no backup: a file of somebody else, or one that was removed just now."""
    try:
        time_of(identity)
        backup, signature = await target.read_any(identity)
    except (Malformed, NotFound):
        return None
    except Broken as error:
        return Entry(identity, None, str(error))
    return Entry(identity, backup, _lacks(backup, files), signature, target.takes(signature))


def _lacks(backup: Backup, files: dict[str, int]) -> str:
    wrong = [digest for digest, size in backup.files().items() if files.get(digest) != size]
    if not wrong:
        return ""
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    what = "is missing" if wrong[0] not in files else "is cut"
    return f"file files/{wrong[0]}{more} {what}"


@dataclass(frozen=True, slots=True)
class Removed:
    """What retain() removed: ids of backups, and files that none needs any more."""

    backups: list[str]
    files: int
    bytes: int


async def retain(
    target: Target, now: float, retention_s: float, *, progress: Callable[[str], None] = lambda _text: None
) -> Removed:
    """Remove backups older than the retention, never the newest whole one, and files that no backup needs. Safe to kill and
    to call again. Raises Conflict while somebody else writes there, Unavailable."""
    async with target.busy("removing old backups") as still_mine:
        pool = await Pool.read(target)
        others = [each.id for each in pool.entries if not (each.is_whole and each.is_ours)]
        gone = expired([each.id for each in pool.whole()], others, now, retention_s)
        await still_mine()
        for identity in gone:
            await target.remove(identity)
            progress(f"removed backup {identity}")
        left = [each for each in pool.entries if each.id not in gone]
        if unread := [each.id for each in left if each.backup is None]:
            log.warning("files of old backups kept: this backup's manifest can't be read", backup=unread[0])
            return Removed(gone, 0, 0)
        needed = {digest for each in left if each.backup is not None for digest in each.backup.files()}
        needless = [name for name in pool.files if name not in needed]
        await still_mine()
        await target.remove_files([*needless, *await target.half_written()])
        return Removed(gone, len(needless), sum(pool.files[name] for name in needless))
