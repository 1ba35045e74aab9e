"""What a format makes of a request: columns of good alerts, and faults. Used from the formats to
services/ingest/submit.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.ingest.formats.remembered import Memory


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one item of a request can't be taken. `index` -1 means the request as a whole. `status` is HTTP's."""

    index: int
    message: str
    raw: bytes = b""
    status: int = 400


@dataclass(frozen=True, slots=True)
class Reading:
    """What a request of `count` alerts holds: columns of those that can be taken, and what can't be, with why.

    places    where each stood in the request
    memories  where each goes
    ends      when each ends; inf when it does not say
    body(i)   the MessagePack of column i's alert.Content, made only when its shard asks
    said_end(i)  what column i says of its end, as it was written: `ends` fills in what is left open
    said      as in messages.AlertsArrived
    note      what its format wants to know again when it answers
    """

    count: int
    places: list[int]
    memories: list[Memory]
    ends: list[float]
    body: Callable[[int], bytes]
    faults: list[Fault]
    said_end: Callable[[int], bytes]
    said: bytes = b""
    note: str = ""
