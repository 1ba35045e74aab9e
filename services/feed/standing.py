"""Where a reader stands in a log, and whether that log still goes on from there. Used by publish_shard.py, announce_shard.py and
relate.py."""

from __future__ import annotations

import asyncio

from models.partition.frames import NO_DIGEST, digest_of, previous_of
from models.ports import EventLog
from models.shard.assembly import ASSEMBLY
from models.shard.slot_transfer import SlotArrived, SlotLeft
from models.wire import tag_of

_MOVES = frozenset({tag_of(SlotLeft), tag_of(SlotArrived)})


async def why_not(event_log: EventLog, seq: int, digest: bytes) -> str:
    """Why a log does not continue from the frame `seq`, whose digest begins with `digest` (empty: not known): `truncated`, or
    `unknown` if it is a different log. Empty if it does."""
    last = await event_log.last_seq()
    if last < seq:
        return "unknown"
    following = await event_log.read(seq, 1)
    if following and following[0][0] != seq + 1:
        return "truncated"
    if following:
        found = previous_of(following[0][1])
    else:
        found = await digest_at(event_log, seq)
    return "" if not found or found.startswith(digest) else "unknown"


async def digest_at(event_log: EventLog, seq: int) -> bytes:
    """The digest of a frame, empty when it is no longer kept."""
    if seq == 0:
        return NO_DIGEST
    page = await event_log.read(seq - 1, 1)
    return digest_of(page[0][1]) if page and page[0][0] == seq else b""


async def moves_after(event_log: EventLog, seq: int, version: int = 0) -> tuple[int, int]:
    """The first and the last frame behind `seq` with what left or came when slots moved after this version of the slot map; 0 for none."""
    first = last = 0
    while page := await event_log.read(seq):
        seq = page[-1][0]
        for number, stored in page:
            frame = ASSEMBLY.frames.skim(event_log.partition, stored, number, _MOVES)
            for _number, event in () if frame is None else frame.events:
                if isinstance(event, SlotLeft | SlotArrived) and event.version > version:
                    first, last = first or number, number
        await asyncio.sleep(0)
    return first, last
