"""What a live stream tells: each event of a log that is a line of an incident's timeline, in the timeline's words, as the
components of a shard describe their events (models/incidents/lines.py).
"""

from __future__ import annotations

import msgspec

from models.incidents.lines import CHANGED, SYSTEM, Around, Line
from models.incidents.query import Summary
from models.partition.event import Event
from models.shard.assembly import ASSEMBLY, Assembly

__all__ = ["CHANGED", "KINDS", "SYSTEM", "DESCRIBED", "Happening", "Line", "about", "line"]

#: The names, as a log has them, of the events that may be a line of a timeline, or told as CHANGED.
DESCRIBED = ASSEMBLY.described
#: Every kind of line.
KINDS = ASSEMBLY.kinds


class Happening(msgspec.Struct, frozen=True, eq=False):
    """A line, where it stands in its log, and the incident around it.

    `place` counts the lines of the frame `seq`, those not told included. `before` is None when it is not known, or when
    there was nothing before. `sure`: `after` is the incident right after this event, not somewhat later.
    """

    seq: int
    place: int
    at: float
    trace_id: str | None
    line: Line
    before: Summary | None
    after: Summary
    sure: bool


def about(event: Event, assembly: Assembly = ASSEMBLY) -> tuple[bytes, ...]:
    """The incidents an event may tell of, one for each line that it may be."""
    description = assembly.descriptions.get(type(event))
    return () if description is None else description.of(event)


def line(
    event: Event,
    nth: int,
    now: float,
    before: Summary | None,
    after: Summary,
    assembly: Assembly = ASSEMBLY,
) -> Line | None:
    """The `nth` line that an event of a frame made at `now` may be, None when it is none. `before` and `after` are the
    summaries of the incident; without `before` what would need it is left out."""
    description = assembly.descriptions.get(type(event))
    return None if description is None else description.line(event, Around(now, nth, before, after))
