"""The index of archived incidents in Redis, in the order of its bytes: its entries, and how it is walked. Used by
archive.py.

An entry is a heading (tenant alone, or tenant and service, type or severity), then creation, id and update; one more
heading has the update first, and one of no tenant has the id first. A list in any order is then a stretch of the index, at any size. Other filters are tested
without fetching incidents: by asking whether the entry under their heading exists.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import cast

from models.incidents.filters import Position, Sort
from models.incidents.incident import Severity
from models.ports import ArchivedIncident, ArchiveQuery
from services.stores.redis.lane import Command, Lane, Reply, from_sortable, sortable

#: Beyond this many values of a filter, one pass over all incidents is cheaper than a stretch a value.
MAX_LOOKUPS = 32
#: Entries read at once: a page of the API and some that filters leave out.
STRETCH = 200
#: Entries that one page looks at when filters leave most of them out: 70 ms.
ENTRIES_MAX = 10_000
#: Ids read at once when all are gone through: a quarter of a millisecond of the server.
BY_ID = 1000
ID_BYTES = 16
TIME_BYTES = 8
#: Behind every entry that begins with the same creation and id.
_BEHIND = b"\xff" * TIME_BYTES


@dataclass(frozen=True, slots=True)
class Found:
    """One incident as the index knows it. `entry` is what stands under every heading but the update's."""

    place: Position
    incident_id: bytes
    updated_at: float
    entry: bytes


@dataclass(slots=True)
class _Stretch:
    """What is still to come under one heading. `first` is how its places begin in a list by severity."""

    heading: bytes
    low: bytes
    high: bytes
    first: float | None
    found: deque[Found] = field(default_factory=deque)
    ended: bool = False

    async def fill(self, lane: Lane, key: str, sort: Sort) -> None:
        if self.found or self.ended:
            return
        bounds = (
            ("ZREVRANGEBYLEX", key, self.high, self.low)
            if sort.goes_down
            else ("ZRANGEBYLEX", key, self.low, self.high)
        )
        (reply,) = await lane.ask((*bounds, "LIMIT", 0, STRETCH))
        entries = cast("list[bytes]", reply)
        self.ended = len(entries) < STRETCH
        self.found.extend(self._read(each[len(self.heading) :], sort) for each in entries)
        if entries and sort.goes_down:
            self.high = b"(" + entries[-1]
        elif entries:
            self.low = b"(" + entries[-1]

    def _read(self, entry: bytes, sort: Sort) -> Found:
        if _is_by_update(sort):
            entry = entry[TIME_BYTES:] + entry[:TIME_BYTES]
        created_at, updated_at = from_sortable(entry[:TIME_BYTES]), from_sortable(entry[-TIME_BYTES:])
        incident_id = entry[TIME_BYTES:-TIME_BYTES]
        first = updated_at if _is_by_update(sort) else created_at if self.first is None else self.first
        return Found((first, created_at, incident_id), incident_id, updated_at, entry)


def entries_of(incident: ArchivedIncident) -> list[bytes]:
    created_at, updated_at = sortable(incident.created_at), sortable(incident.updated_at)
    entry = created_at + incident.incident_id + updated_at
    tenant = incident.tenant
    return [
        heading("all", tenant) + entry,
        heading("service", tenant, incident.service) + entry,
        heading("type", tenant, incident.type) + entry,
        heading("severity", tenant, str(incident.severity)) + entry,
        heading("updated", tenant) + updated_at + created_at + incident.incident_id,
        heading("id") + incident.incident_id + updated_at,
    ]


def heading(*words: str) -> bytes:
    """Lengths before the words: no heading is the beginning of another."""
    return b"".join(len(word.encode()).to_bytes(4, "big") + word.encode() for word in words)


async def by_id(
    lane: Lane, key: str, after: bytes, end: bytes | None = None, *, inclusive: bool = False
) -> list[tuple[bytes, float]]:
    """Ids behind `after` (or from it on) and before `end`, in their order, some at a time, with their last changes."""
    under = heading("id")
    # A shorter one, as the empty one that all begins with, is before every id that begins with it.
    inclusive = inclusive or len(after) < ID_BYTES
    low = b"[" + under + after if inclusive else b"(" + under + after + _BEHIND
    high = b"(" + under + (b"\xff" * (ID_BYTES + 1) if end is None else end)
    (reply,) = await lane.ask(("ZRANGEBYLEX", key, low, high, "LIMIT", 0, BY_ID))
    entries = [each[len(under) :] for each in cast("list[bytes]", reply)]
    return [(each[:-TIME_BYTES], from_sortable(each[-TIME_BYTES:])) for each in entries]


async def walk(
    lane: Lane, key: str, query: ArchiveQuery
) -> AsyncGenerator[tuple[list[Found], Position], None]:
    """What the query's columns hold for, in its order from query.after on, some at a time, each time with how far that
    is: one stretch a value of the narrowest filter, merged."""
    tenant, sort = query.tenant, query.sort
    filters = [
        [heading("service", tenant, each) for each in dict.fromkeys(query.services)],
        [heading("type", tenant, each) for each in dict.fromkeys(query.types)],
        [heading("severity", tenant, str(each)) for each in dict.fromkeys(query.severities)],
    ]  # from many values to few: the first that is given is taken as the narrowest
    leading: Sequence[tuple[bytes, float | None]]
    if _is_by_update(sort):
        leading = [(heading("updated", tenant), None)]
    elif sort in (Sort.WORST, Sort.MILDEST):
        severities = dict.fromkeys(query.severities or [int(each) for each in Severity])
        leading = [(heading("severity", tenant, str(each)), -float(each)) for each in severities]
        filters[2] = []
    else:
        narrowest = next((each for each in filters if 0 < len(each) <= MAX_LOOKUPS), None)
        leading = [(each, None) for each in narrowest or [heading("all", tenant)]]
        filters = [each for each in filters if each is not narrowest]
    stretches = [found for each, first in leading if (found := _stretch(query, each, first)) is not None]
    for stretch in stretches:
        await stretch.fill(lane, key, sort)
    foremost = max if sort.goes_down else min
    while True:
        passed: list[Found] = []
        while len(passed) < STRETCH and (left := [each for each in stretches if each.found]):
            stretch = foremost(left, key=lambda each: each.found[0].place)
            passed.append(stretch.found.popleft())
            await stretch.fill(lane, key, sort)
        if not passed:
            return
        matching = await _matching(lane, key, passed, query, [each for each in filters if each])
        yield matching, passed[-1].place


def _stretch(query: ArchiveQuery, under: bytes, first: float | None) -> _Stretch | None:
    """Where a heading's entries begin and end; None when all of them are behind query.after."""
    by_update, goes_down, after = _is_by_update(query.sort), query.sort.goes_down, query.after
    since, until = (
        (query.updated_after, query.updated_before)
        if by_update
        else (query.created_after, query.created_before)
    )
    low = b"[" + under + (sortable(since) if since else b"")
    high = b"(" + under + (sortable(until) if until else b"\xff")
    if after is not None and first is not None and first != after[0]:
        if (first > after[0]) == goes_down:
            return None
        after = None
    if after is not None:
        at = under + (sortable(after[0]) if by_update else b"") + sortable(after[1]) + after[2]
        if goes_down and at < high[1:]:
            high = b"(" + at
        elif not goes_down and at >= low[1:]:
            low = b"(" + at + _BEHIND
    return _Stretch(under, low, high, first)


async def _matching(
    lane: Lane, key: str, found: list[Found], query: ArchiveQuery, filters: Sequence[Sequence[bytes]]
) -> list[Found]:
    """Those within the times, and in the index under one heading of each of the other filters."""
    found = [
        each
        for each in found
        if query.created_after <= each.place[1] < (query.created_before or math.inf)
        and query.updated_after <= each.updated_at < (query.updated_before or math.inf)
    ]
    for headings in filters:
        if not found:
            break
        asked: list[Command] = [
            ("ZMSCORE", key, *(under + each.entry for each in found)) for under in headings
        ]
        columns = [cast("list[Reply]", scores) for scores in await lane.ask(*asked)]
        found = [
            each for number, each in enumerate(found) if any(column[number] is not None for column in columns)
        ]
    return found


def _is_by_update(sort: Sort) -> bool:
    return sort in (Sort.LATELY_UPDATED, Sort.LONG_UNTOUCHED)
