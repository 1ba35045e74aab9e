"""Writes a backup into an empty store, whichever adapter that has, as `llm-im store migrate` copies a store into another.

First the whole state is made of the backup: nothing is written of one that is broken, or of partitions that are not of one
time. Then everything is copied (services/upkeep/copying.py): killed at any point, the same again goes on, and until it is done
nobody starts what is there.

What is younger than a partition's last frame is left out of its archive and its delivery ids, which were read behind the
logs. An incident that was archived later is in its shard still, and is archived anew. A delivery whose alerts are not in the
log must be taken when its sender brings it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.folding import fold_control
from models.backup import Across, Backup, Until, shown
from models.control.control import CONTROL
from models.errors import Conflict
from models.ports import Clock
from services.stores.choice import Stores
from services.upkeep.backup.reader import BackupStores
from services.upkeep.backup.target import Target
from services.upkeep.backup.verify import Reached, fold
from services.upkeep.copying import copy, what_is_there

WHOLE = Until()

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Restored:
    """Where each partition is now."""

    backup: Backup
    reached: dict[str, Reached]


async def restore(
    stores: Stores,
    target: Target,
    backup: Backup,
    clock: Clock,
    *,
    until: Until = WHOLE,
    progress: Progress = lambda _text: None,
) -> Restored:
    """Write it.

    Raises NotFound for a point in time that it does not hold; Broken for a backup that is; Conflict for a store that is not
    empty or in use, and for seqs that are not of one time; Unavailable, Full: then the same again goes on."""
    until.check(backup)
    said = _in_words(backup, until)
    await _check_empty(stores, backup, said)
    across = Across()
    reached: dict[str, Reached] = {}
    for part in backup.parts:
        progress(f"checking {part.name}")
        reached[part.name] = await fold(target, part, until, across)
    across.check()
    ends = {name: each.now for name, each in reached.items()}
    await copy(BackupStores(target, backup, until, ends), stores, said, clock, progress)
    return Restored(backup, reached)


def _in_words(backup: Backup, until: Until) -> str:
    """What the copy is called while it is not whole: another point in time is another one."""
    seqs = [f"{name} up to {seq}" for name, seq in sorted((until.seqs or {}).items())]
    when = [] if until.at is None else [f"up to {shown(until.at)}"]
    return ", ".join([f"backup {backup.id}", *seqs, *when])


async def _check_empty(stores: Stores, backup: Backup, said: str) -> None:
    """Raises Conflict for a store that holds anything but this very restore, unfinished."""
    control = stores.log(CONTROL)
    try:
        last = await control.last_seq()
        known = (await fold_control(control)).copied_from if last else ""
    finally:
        await control.close()
    if known == said:
        return
    if known:
        raise Conflict(
            f"the store holds an unfinished copy of {known}: repeat that restore to finish it, or use an empty store"
        )
    for part in backup.parts:
        if what := await what_is_there(stores, part.name):
            raise Conflict(
                f"the store is not empty: {what}. Restore into an empty one: another state.path, prefix or schema, or this one after moving the old data away"
            )
