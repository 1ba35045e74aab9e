"""One cut through the logs of all partitions, read beside their writers. Used by create.py.

A moment T is chosen. Of each partition that is the newest snapshot from before T, all frames behind it that were there
before T was chosen, and those after them with `now` <= T: frame times go back within a partition only where a clock that
was ahead was set back. With one clock this is one cut through all partitions. What was
heard in one of them because of a frame in another was heard after that frame was durable, so whoever has the effect
has its cause:

    shard/0000   ---[snapshot]---f---f---f---n---|--f---      n: owes a note          T
    shard/0001   ------[snapshot]----f---f-------|-h---f-     h: heard it, later than T

docs/decisions/0020-backups.md says why it is so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from actors.runtime.ending import end
from models.backup import File, Part, Snapshot, backup_id
from models.errors import Unavailable
from models.partition.checkpoint import META, Census, record_key
from models.partition.frames import NO_DIGEST, check_frame, time_of
from models.ports import Clock, EventLog, Mark
from services.stores.choice import Stores
from services.upkeep.backup.packing import Packer, Record
from services.upkeep.backup.target import Target

#: Partitions copied at the same time: enough to keep two cores busy, few enough to hold their pages.
AT_ONCE = 4
#: Bytes of log read at once: some milliseconds of a server's time.
READ_BYTES = 1024 * 1024

#: The machine's time, and what else is its own.
_meta = msgspec.msgpack.Decoder(tuple[float, ...])

Progress = Callable[[str], None]


class Gone(Exception):
    """What was being read is there no more: begin anew."""


class Ahead(Exception):
    """What was there before the moment bears a later time: the writer's clock and this one differ."""


async def cut(
    stores: Stores,
    target: Target,
    clock: Clock,
    known: dict[str, int],
    names: Sequence[str],
    wait_s: float,
    progress: Progress,
) -> tuple[float, list[Part]]:
    """The moment, and each partition up to it. What was there `wait_s` before the moment must bear an earlier time.

    `known` are the files that the target has, and grows. Raises Gone when snapshots are made faster than this reads, Ahead
    when clocks differ, Damaged, Unavailable."""
    logs = [stores.log(name) for name in names]
    try:
        # Before the moment is chosen: so what is found here is durable by then.
        starts = [(await _newest(event_log), await event_log.last_seq()) for event_log in logs]
        await asyncio.sleep(wait_s)
        cut_at = clock.now()
        progress(f"copying {len(names)} partitions as of {backup_id(cut_at)}")
        turn = asyncio.Semaphore(AT_ONCE)

        async def copy(event_log: EventLog, mark: Mark | None, last_before: int) -> Part:
            async with turn:
                return await _log(event_log, target, known, mark, last_before, cut_at)

        tasks = [
            asyncio.ensure_future(copy(event_log, mark, last))
            for event_log, (mark, last) in zip(logs, starts)
        ]
        try:
            return cut_at, list(await asyncio.gather(*tasks))
        finally:
            await end(tasks)
    finally:
        for event_log in logs:
            await event_log.close()


async def _newest(event_log: EventLog) -> Mark | None:
    marks = await event_log.marks()
    return marks[0] if marks else None


async def _log(
    event_log: EventLog,
    target: Target,
    known: dict[str, int],
    mark: Mark | None,
    last_before: int,
    cut_at: float,
) -> Part:
    name = event_log.partition
    seq, digest = (0, NO_DIGEST) if mark is None else (mark.seq, mark.digest)
    now = 0.0
    packer = Packer[bytes](target, known)
    async for page in _pages(event_log, seq):
        taken: list[bytes] = []
        for found, stored in page:
            if found != seq + 1:
                raise Gone(f"{name}: frames {seq + 1} to {found - 1} were truncated meanwhile")
            at = time_of(stored)
            if at > cut_at and found > last_before:
                break
            digest = check_frame(name, stored, found, digest)
            seq, now = found, at
            taken.append(stored)
        await packer.add(taken, sum(map(len, taken)))
        if len(taken) < len(page):
            break
    if seq < last_before:
        raise Gone(f"{name}: frames after {seq} could not be read")
    if now > cut_at:
        raise Ahead(f"{name}: frame {seq} has a time {now - cut_at:.3f} s in the future")
    frames = await packer.flush()
    snapshot, records = None, list[File]()
    if mark is not None:
        snapshot, records = await _snapshot(event_log, target, known, mark)
        now = now or snapshot.now
    epoch = (await event_log.stats())["epoch"]
    return Part(name, epoch, snapshot, seq, digest, now, frames, records)


async def _pages(event_log: EventLog, after: int) -> AsyncIterator[list[tuple[int, bytes]]]:
    while page := await event_log.read(after, READ_BYTES):
        yield page
        after = page[-1][0]


async def _snapshot(
    event_log: EventLog, target: Target, known: dict[str, int], mark: Mark
) -> tuple[Snapshot, list[File]]:
    now = 0.0
    packer = Packer[Record](target, known)
    census = Census()
    try:
        async for page in event_log.records(mark.generation):
            census.add(page)
            for key, record in page:
                if key == record_key(META, 0):
                    now, *_rest = _meta.decode(record)
            await packer.add(page, sum(len(key) + len(record) for key, record in page))
    except Unavailable as error:
        if mark in await event_log.marks():
            raise  # the store is away, the snapshot is not
        raise Gone(f"{event_log.partition}: its snapshot was replaced meanwhile") from error
    census.check(event_log.partition, mark)
    kept = Snapshot(mark.generation, mark.seq, mark.digest, mark.version, mark.checksum, now)
    return kept, await packer.flush()
