"""Where a reader stands in a log, and whether that log still goes on from there. Used by publish_shard.py and announce_shard.py."""

from __future__ import annotations

from models.partition.frames import NO_DIGEST, digest_of, previous_of
from models.ports import EventLog


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
