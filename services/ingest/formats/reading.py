"""What a format makes of a request: columns of good alerts, and faults. Used from the formats to
services/ingest/submit.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from models.alerts.alert import Content
from models.alerts.relabel import Relabelling
from services.ingest.formats.remembered import Memory


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one item of a request can't be taken. `index` -1 means the request as a whole. `status` is HTTP's."""

    index: int
    message: str
    raw: bytes = b""
    status: int = 400


def _as_it_is(_column: int, _relabelling: Relabelling) -> Content | None:
    return None


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
    content_by(i, relabelling)  column i's alert by these rules instead; None for one that no rule may touch
    filtered  the places of alerts that a filter dropped, with why: they are in no column, and not to be sent again
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
    content_by: Callable[[int, Relabelling], Content | None] = _as_it_is
    filtered: Mapping[int, str] = field(default_factory=dict)

    def ends_at(self, column: int, now: float) -> bool:
        """Whether a column is the end of an alert, not an alert that fires."""
        return bool(self.said and self.said[column]) or self.ends[column] <= now

    def only(self, kept: Sequence[int]) -> Reading:
        """These columns of it, and all else that it says."""
        return replace(
            self,
            places=[self.places[column] for column in kept],
            memories=[self.memories[column] for column in kept],
            ends=[self.ends[column] for column in kept],
            body=lambda column: self.body(kept[column]),
            said_end=lambda column: self.said_end(kept[column]),
            said=bytes([self.said[column] for column in kept]) if self.said else b"",
            content_by=lambda column, relabelling: self.content_by(kept[column], relabelling),
        )
