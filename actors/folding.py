"""A partition's state from its log: the newest snapshot that can be read, and every frame after it. Used by
actors/shard.py when it recovers, and by whatever inspects, copies or moves a log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from models.control.control import ControlState
from models.errors import Damaged
from models.partition.checkpoint import SNAPSHOT_VERSION
from models.partition.frames import NO_DIGEST, Frame, decode_frame
from models.ports import EventLog
from models.shard.settings import ShardSettings
from models.shard.shard import Shard

#: Bytes of log read at once.
READ_BYTES = 8 * 1024 * 1024

log = structlog.get_logger()


@dataclass(slots=True)
class Folded:
    """The state at frame `seq`, whose digest is `digest`; `frames` were replayed after the snapshot."""

    shard: Shard
    seq: int
    digest: bytes
    frames: int = 0


async def fold(
    event_log: EventLog, settings: ShardSettings, each: Callable[[Frame], None] | None = None
) -> Folded:
    """All that is durable when this ends. `each` is called with every replayed frame, in order. Raises Damaged for
    frames that are missing or do not fit, Unavailable."""
    partition = event_log.partition
    folded = await _snapshot(event_log, settings)
    shard, seq, digest = folded.shard, folded.seq, folded.digest
    while page := await event_log.read(seq, READ_BYTES):
        for number, stored in page:
            if number != seq + 1:
                raise Damaged(
                    partition, number, "the log begins here and no snapshot of what came before can be read"
                )
            frame = decode_frame(partition, stored, number, digest)
            shard.trace_id = frame.trace_id
            for event in frame.events:
                shard.apply(event, frame.now)
            seq, digest = number, frame.digest
            folded.frames += 1
            if each is not None:
                each(frame)
        await asyncio.sleep(0)
    shard.seq, shard.trace_id = seq, None
    folded.seq, folded.digest = seq, digest
    return folded


async def fold_control(event_log: EventLog, each: Callable[[Frame], None] | None = None) -> ControlState:
    """The control partition's state; it has no snapshots. Raises Damaged, Unavailable."""
    state, seq, digest = ControlState(), 0, NO_DIGEST
    while page := await event_log.read(seq):
        for seq, stored in page:
            frame = decode_frame(event_log.partition, stored, seq, digest)
            digest = frame.digest
            for event in frame.events:
                state.apply(event)
            if each is not None:
                each(frame)
    return state


async def _snapshot(event_log: EventLog, settings: ShardSettings) -> Folded:
    """The newest snapshot that can be read, else the empty beginning."""
    for mark in await event_log.marks():
        if mark.version != SNAPSHOT_VERSION:
            log.warning(
                "snapshot of another version ignored",
                partition=event_log.partition,
                version=mark.version,
                seq=mark.seq,
            )
            continue
        shard = Shard(event_log.partition, settings)
        try:
            async for page in event_log.records(mark.generation):
                shard.load(page)
            shard.checkpoint.census().check(event_log.partition, mark)
            shard.loaded()
        except (Damaged, msgspec.MsgspecError, LookupError, ValueError, TypeError) as error:
            # A lost record shows first as another record that refers to it, before they are counted.
            log.error(
                "snapshot can't be read, trying the one before",
                partition=event_log.partition,
                seq=mark.seq,
                why=str(error) if isinstance(error, Damaged) else repr(error),
            )
            continue
        return Folded(shard, mark.seq, mark.digest)
    return Folded(Shard(event_log.partition, settings), 0, NO_DIGEST)
