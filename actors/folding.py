"""A partition's state from its log: the newest snapshot that can be read, and every frame after it. Used by actors/partition.py
when it recovers, and by who looks at a log, copies or moves it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec
import structlog

from models.control.control import FRAMES, ControlState
from models.control.events import CopyBegan, CopyEnded
from models.errors import Damaged
from models.partition.frames import NO_DIGEST, Frame
from models.partition.machine import Folding
from models.ports import EventLog
from models.shard.settings import ShardSettings
from models.shard.shard import Shard

#: Bytes of log read at once.
READ_BYTES = 8 * 1024 * 1024

log = structlog.get_logger()

M = TypeVar("M", bound=Folding)


@dataclass(slots=True)
class Folded(Generic[M]):
    """The state at frame `seq`, whose digest is `digest`; `frames` were replayed after the snapshot."""

    machine: M
    seq: int
    digest: bytes
    frames: int = 0


async def fold(
    event_log: EventLog, make: Callable[[], M], each: Callable[[Frame], None] | None = None
) -> Folded[M]:
    """All that is durable when this ends; `make` gives an empty machine. `each` is told of every frame that was replayed, in
    order. Raises Damaged for frames that are not there or do not fit, Unavailable."""
    partition = event_log.partition
    folded = await newest_snapshot(event_log, make)
    machine, seq, digest = folded.machine, folded.seq, folded.digest
    while page := await event_log.read(seq, READ_BYTES):
        for number, stored in page:
            if number != seq + 1:
                raise Damaged(
                    partition, number, "the log begins here and no snapshot of what came before can be read"
                )
            frame = machine.frames.decode(partition, stored, number, digest)
            machine.trace_id = frame.trace_id
            machine.replay(frame.events, frame.now)
            seq, digest = number, frame.digest
            folded.frames += 1
            if each is not None:
                each(frame)
        await asyncio.sleep(0)
    machine.seq, machine.trace_id = seq, None
    folded.seq, folded.digest = seq, digest
    return folded


async def fold_shard(
    event_log: EventLog, settings: ShardSettings, each: Callable[[Frame], None] | None = None
) -> Folded[Shard]:
    """fold() of a shard's partition."""
    return await fold(event_log, lambda: Shard(event_log.partition, settings), each)


async def fold_control(event_log: EventLog, each: Callable[[Frame], None] | None = None) -> ControlState:
    """fold() of the control partition. A copy that is under way has no more to say than that it is one. Raises Damaged,
    Unavailable."""
    try:
        return (await fold(event_log, ControlState, each)).machine
    except Damaged:
        if not (source := await unfinished_copy(event_log)):
            raise
        state = ControlState()
        state.apply(CopyBegan(source), 0.0)
        return state


async def unfinished_copy(event_log: EventLog) -> str:
    """From where the control log is being copied, "" when it is whole. A copy has its frames, and among them the word that it
    is one, before its snapshot; only a writer of the whole drops frames."""
    source, seq = "", 0
    while page := await event_log.read(seq, READ_BYTES):
        for number, stored in page:
            for event in FRAMES.decode(event_log.partition, stored, number, None).events:
                if isinstance(event, CopyBegan | CopyEnded):
                    source = event.source if isinstance(event, CopyBegan) else ""
            seq = number
    return source


async def newest_snapshot(event_log: EventLog, make: Callable[[], M]) -> Folded[M]:
    """The newest snapshot that can be read, else the empty beginning. Raises Unavailable, also when the snapshots were
    replaced meanwhile."""
    for mark in await event_log.marks():
        machine = make()
        if mark.version != machine.snapshot_version:
            log.warning(
                "snapshot of another version ignored",
                partition=event_log.partition,
                version=mark.version,
                seq=mark.seq,
            )
            continue
        try:
            async for page in event_log.records(mark.generation):
                machine.load(page)
            machine.checkpoint.census().check(event_log.partition, mark)
            machine.loaded()
        except (Damaged, msgspec.MsgspecError, LookupError, ValueError, TypeError) as error:
            # A lost record shows first as another record that refers to it, before they are counted.
            log.error(
                "snapshot can't be read, trying the one before",
                partition=event_log.partition,
                seq=mark.seq,
                why=str(error) if isinstance(error, Damaged) else repr(error),
            )
            continue
        return Folded(machine, mark.seq, mark.digest)
    return Folded(make(), 0, NO_DIGEST)
