"""`llm-im store migrate`: all of one system's stores into others, while nothing runs.

    control     every frame and CopyBegan at once, its snapshot ......................................... CopyEnded
    all others                         every frame, the newest snapshot, and what lies beside the log (kept/table.py)
    the source's control log                                                                    StoreMoved

Frames go as they are stored, so sequence, digests and ids stay, and the digest chain proves the copy. Killed at any point, it
goes on where it was. Until it is done nobody starts the copy (services/wiring/slots.py). The source is only read, but for its last
frame: from then on nobody starts it, because what comes in goes to the copy. A restored backup is a copy of what stays.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Protocol

from actors.begun import refuse_lost_among
from actors.folding import fold_control
from models.control.control import CONTROL, ControlState
from models.control.events import CopyBegan, CopyEnded, StoreMoved
from models.errors import Conflict
from models.partition.checkpoint import Census
from models.partition.frames import check_frame, digest_of
from models.partition.sharding import SlotMap
from models.partitions import names
from models.ports import Clock, DeadLetters, EventLog, Mark
from services.stores.choice import Stores
from services.upkeep.backup.reader import BackupStores
from services.upkeep.kept.port import AnyPort, KeptPort, P, T
from services.upkeep.kept.table import kept_by
from services.upkeep.offline import HeldLog, Offline
from services.wiring.slots import moved_away

OWNER = "llm-im-migrate"
#: Dead letters in one go.
PAGE = 1000

Progress = Callable[[str], None]


@dataclass(slots=True)
class Copied:
    """What was copied this time, by kind."""

    frames: int = 0
    records: int = 0
    dead_letters: int = 0
    #: What lies beside the logs, by its name for people.
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Moves:
    """The copy takes the source's place: `to` says in words where it is, `actor` who moves it."""

    to: str
    actor: str


@dataclass(frozen=True, slots=True)
class Size:
    """One partition, and what of it is in the target already."""

    partition: str
    frames: int
    there: int
    #: Of what is counted beside its log: how many, and how many are there.
    counts: dict[str, tuple[int, int]]


class Source(Protocol):
    """What is copied: a system's stores (Live), or a backup. Only read, but for Live's last frame."""

    def log(self, partition: str) -> EventLog: ...

    def pages(self, kept: KeptPort[P, T], partition: str) -> AsyncGenerator[list[T], None]: ...


class Live:
    """Stores that nobody writes meanwhile."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def log(self, partition: str) -> EventLog:
        return self._stores.log(partition)

    async def pages(self, kept: KeptPort[P, T], partition: str) -> AsyncGenerator[list[T], None]:
        port = kept.open(self._stores, partition)
        try:
            async for page in kept.pages(port):
                yield page
        finally:
            await port.close()


async def sizes(source: Stores, target: Stores, to: str = "") -> list[Size]:
    """What copy() has before it. Reads only, beside whatever runs. Raises what copy() to there would raise at once, but for
    who runs: Conflict, Damaged, Unavailable."""
    found = []
    state = await _state_of(source)
    there = await _state_of(target)
    slots = refuse_source(state, to, is_begun=bool(there.copied_from))
    await refuse_lost_among(source.log, names(slots.partitions), state)
    await target.check()
    for name in names(slots.partitions):
        frames = [await _frames(each, name) for each in (source, target)]
        counted = {
            kept.counted: (await _count(kept, source, name), await _count(kept, target, name))
            for kept in kept_by(name)
            if kept.fills
        }
        if not there.copied_from and (frames[1] or any(theirs for _ours, theirs in counted.values())):
            raise _not_empty(name)
        found.append(Size(name, frames[0], frames[1], counted))
    return found


async def _frames(stores: Stores, partition: str) -> int:
    log = stores.log(partition)
    try:
        return (await log.stats())["frames"]
    finally:
        await log.close()


async def _count(kept: AnyPort, stores: Stores, partition: str) -> int:
    port = kept.open(stores, partition)
    try:
        return await kept.count(port)
    finally:
        await port.close()


async def what_is_there(stores: Stores, partition: str) -> str:
    """What a store holds of a partition, in words; "" when that is nothing."""
    log = stores.log(partition)
    try:
        # What was only told where to begin, by a copy that was stopped before its first append, holds nothing.
        if await log.read(0):
            return f"{partition} has frames up to seq {await log.last_seq()}"
        if await log.marks():
            return f"{partition} has a snapshot"
    finally:
        await log.close()
    for kept in kept_by(partition):
        if kept.fills and (count := await _count(kept, stores, partition)):
            return f"{partition} has {count:,} {kept.items}"
    return ""


async def _state_of(stores: Stores) -> ControlState:
    control = stores.log(CONTROL)
    try:
        return await fold_control(control)
    finally:
        await control.close()


def refuse_source(state: ControlState, to: str, *, is_begun: bool) -> SlotMap:
    """The slot map of what may be copied to there. Raises Conflict for what may not; `is_begun`: part of it is there."""
    if state.slots is None:
        raise Conflict("there is nothing to copy: no system was ever started there")
    if state.moving_to is not None or state.copied_from:
        raise Conflict("the source is in the middle of resharding, or of being copied: finish that first")
    if state.moved is not None and not (is_begun and state.moved.to == to):
        raise Conflict(moved_away(state.moved))
    return state.slots


async def copy(
    source: Stores | BackupStores,
    target: Stores,
    said: str,
    clock: Clock,
    progress: Progress,
    letters: tuple[DeadLetters, DeadLetters] | None = None,
    moves: Moves | None = None,
) -> Copied:
    """Copy everything, and prove it by the digest chain. `said` is the source in words; `letters` are the dead letters of
    both, where they go along; with `moves` the source is marked as moved before the copy can be started, so that no two
    are. Safe to repeat after any failure.
    Raises Conflict when a system runs on either, or when the target holds something else; Damaged, Unavailable."""
    wanted: Source = source if isinstance(source, BackupStores) else Live(source)
    async with Offline(wanted, OWNER, clock) as ours, Offline(target, OWNER, clock) as theirs:
        copying = _Copying(wanted, target, ours, theirs, progress)
        here, there = await ours.take(CONTROL), await theirs.take(CONTROL)
        state = await fold_control(here.log)
        is_begun = await _is_begun(there)
        slots = refuse_source(state, "" if moves is None else moves.to, is_begun=is_begun)
        # The control partition goes first: it says that this is a copy, and not whole yet.
        first, *others = names(slots.partitions)
        await refuse_lost_among(source.log, others, state)
        if not is_begun:
            for name in others:
                if await what_is_there(target, name):
                    raise _not_empty(name)
        # What says that it was moved, if this was begun before, is the last frame and of the source alone.
        await copying.control(CopyBegan(said), clock.now(), here.seq - (state.moved is not None))
        await copying.beside(first)
        if letters is not None:  # not before: nothing is written into a store that is refused
            copying.done.dead_letters = await copy_dead_letters(*letters)
        for name in others:
            await copying.log(name)
            await copying.beside(name)
        ours.check()
        theirs.check()
        if moves is not None and state.moved is None:
            await here.append([StoreMoved(moves.to, clock.now(), moves.actor)], clock.now())
        await there.append([CopyEnded()], clock.now())
        return copying.done


async def take_up(stores: Stores, clock: Clock) -> str:
    """Use stores again that were moved; returns to where. Raises Conflict when they were not, or when a system runs on them;
    Damaged, Unavailable."""
    async with Offline(stores, OWNER, clock) as offline:
        control = await offline.take(CONTROL)
        moved = (await fold_control(control.log)).moved
        if moved is None:
            raise Conflict("this store was not moved: it can be used as it is")
        await control.append([StoreMoved("", clock.now(), OWNER)], clock.now())
        return moved.to


async def copy_dead_letters(source: DeadLetters, target: DeadLetters) -> int:
    """The letters that are not there yet, in the order they came; how many. The target's bounds hold."""
    before = await target.stats()
    skip, copied, after = before["kept"] + before["dropped"], 0, 0
    while page := await source.page(after, PAGE):
        after = page[-1].id
        fresh = page[min(skip, len(page)) :]
        skip -= len(page) - len(fresh)
        await target.add(fresh)
        copied += len(fresh)
    return copied


async def _is_begun(there: HeldLog) -> bool:
    """Whether anything of a copy is in its target: more than where its control log begins, which is said first."""
    return bool(there.opened.first_seq) or bool(await there.log.marks())


class _Copying:
    """One system on its way. Each step looks what is there already."""

    def __init__(
        self, source: Source, target: Stores, ours: Offline, theirs: Offline, progress: Progress
    ) -> None:
        self._source = source
        self._target = target
        self._ours = ours
        self._theirs = theirs
        self._progress = progress
        self.done = Copied()

    async def control(self, began: CopyBegan, now: float, end: int) -> None:
        """The control partition up to the frame `end`, and the word that the rest is on its way, in one append: without it this
        could be started."""
        here, there = await self._ours.take(CONTROL), await self._theirs.take(CONTROL)
        if await _is_begun(there):
            await self._check_same(CONTROL, here, there, end)
            if not (await fold_control(there.log)).copied_from:
                raise _more(CONTROL, there.seq - end)
            return
        anchor = _anchor(here)
        await there.seed(anchor, here.opened.anchor, here.epoch)
        frames: list[bytes] = []
        digest = there.digest
        while page := await here.log.read(anchor + len(frames)):
            for seq, stored in page:
                digest = check_frame(CONTROL, stored, seq, digest)
                frames.append(stored)
        await there.append_frames(frames, digest, [began], now)
        self.done.frames += len(frames)

    async def log(self, name: str) -> None:
        """All frames of another partition."""
        here, there = await self._ours.take(name), await self._theirs.take(name)
        anchor = _anchor(here)
        if not there.seq and not await there.log.marks():
            await there.seed(anchor, here.opened.anchor, here.epoch)
        else:
            await self._check_same(name, here, there, here.seq)
            if there.seq > here.seq:
                raise _more(name, there.seq - here.seq)
        while there.seq < here.seq:
            self._check()
            page = await here.log.read(there.seq)
            digest = there.digest
            for seq, stored in page:
                digest = check_frame(name, stored, seq, digest)
            await there.append_frames([stored for _seq, stored in page], digest)
            self.done.frames += len(page)
            self._progress(f"{name}: {there.seq - anchor:,} of {here.seq - anchor:,} frames")
        if there.digest != here.digest:
            raise _other(name, there.seq)

    async def _check_same(self, name: str, here: HeldLog, there: HeldLog, end: int) -> None:
        """Raises Conflict when the target's log is not the source's up to `end`, as far as the shorter goes."""
        if there.seq == here.opened.first_seq - 1 or (not here.opened.first_seq and there.seq == here.seq):
            expected, found = here.opened.anchor, there.digest
        else:
            last = min(there.seq, end)
            expected, found = await _digest_at(here.log, last), await _digest_at(there.log, last)
        if expected != found:
            raise _other(name, min(there.seq, end))

    async def beside(self, name: str) -> None:
        """What lies beside the frames."""
        await self._snapshot(name)
        for kept in kept_by(name):
            await self._kept(kept, name)

    async def _snapshot(self, name: str) -> None:
        """The newest snapshot; replay needs no other."""
        here, there = await self._ours.take(name), await self._theirs.take(name)
        marks = await here.log.marks()
        if not marks:
            return
        mark = marks[0]
        if mark not in await there.log.marks():
            census = Census()
            async for page in here.log.records(mark.generation):
                self._check()
                census.add(page)
                await there.log.put_records(there.epoch, mark.generation, page)
                self.done.records += len(page)
            census.check(name, mark)
            await there.log.close_snapshot(there.epoch, mark)
        if await _sum(here.log, mark) != await _sum(there.log, mark):
            raise Conflict(f"{name}: the snapshot at seq {mark.seq} is not the same in both")
        self._progress(f"{name}: the snapshot at seq {mark.seq:,} is the same in both")

    async def _kept(self, kept: AnyPort, name: str) -> None:
        """What lies beside the log in one port."""

        def step(looked_at: int) -> None:
            self._check()
            self._progress(f"{name}: {looked_at:,} {kept.items}")

        there = kept.open(self._target, name)
        try:
            async with contextlib.aclosing(self._source.pages(kept, name)) as pages:
                copied = await kept.copy(pages, there, step)
        except Conflict as error:
            raise Conflict(f"{name}: {error}") from None
        finally:
            await there.close()
        self.done.counts[kept.items] = self.done.counts.get(kept.items, 0) + copied

    def _check(self) -> None:
        self._ours.check()
        self._theirs.check()


def _anchor(here: HeldLog) -> int:
    """The seq behind which its frames are kept."""
    return here.opened.first_seq - 1 if here.opened.first_seq else here.seq


def _not_empty(name: str) -> Conflict:
    return Conflict(f"{name}: the target is not empty; copy into empty stores")


def _more(name: str, frames: int) -> Conflict:
    return Conflict(
        f"{name}: the target holds {frames:,} frames more: it was started, or is already complete"
    )


def _other(name: str, seq: int) -> Conflict:
    return Conflict(f"{name}: the target holds another log (seq {seq}); copy into empty stores")


async def _digest_at(log: EventLog, seq: int) -> bytes:
    """The digest of the frame at `seq`, which must be there; b"" when it is not."""
    page = await log.read(seq - 1, 1)
    return digest_of(page[0][1]) if page and page[0][0] == seq else b""


async def _sum(log: EventLog, mark: Mark) -> bytes:
    """A digest over all records of a snapshot, in the order of their keys."""
    found = hashlib.blake2b()
    async for page in log.records(mark.generation):
        for key, record in page:
            found.update(f"{len(key)} {len(record)} {key} ".encode())
            found.update(record)
    return found.digest()
