"""How a page of archived incidents is found in the files of an archive. Used by archive.py.

A page is found in indexes alone and only its own rows are fetched, so it costs the same at ten thousand and at ten million
incidents. Every file, and every value of the narrowest filter, is a walk through one index that is already in the order of
the page; the walks are merged, and none goes further than the page does.

What the index is not ordered by is tested entry by entry. That could go on through millions of them without a hit, so a
walk ends at a bound, where the page ends too: short, perhaps empty, and with a next one.
"""

from __future__ import annotations

import contextlib
import heapq
import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import apsw

from models.incidents.filters import Position, Sort
from models.incidents.incident import Severity
from models.ports import ARCHIVE_SCAN_MAX, ArchivedIncident, ArchivePage, ArchiveQuery
from services.stores.sqlite.archive_files import File
from services.stores.sqlite.files import translated

#: Beyond this many values of a filter, one pass over the newest incidents is cheaper than a look-up a value.
MAX_LOOKUPS = 32
#: Index entries that all walks of a page test, and the least of one walk: 10 ms, 150 ms when they come from the disk.
ENTRIES_MAX = 50_000
ENTRIES_MIN = 500

_Value = str | int | float | bytes
#: A place, and the row there in a file; None where a walk ended at its bound.
_Entry = tuple[Position, File, int | None]
#: How an end of a walk compares, and to what.
_End = tuple[str, tuple[_Value, ...]]


@dataclass(frozen=True, slots=True)
class _Plan:
    """The walks of a query, the same in each file: `leading` is a column with one walk a value, if there is one."""

    query: ArchiveQuery
    index: str
    leading: str | None
    values: Sequence[str | int | None]
    tested: str
    arguments: list[_Value]

    @property
    def by_update(self) -> bool:
        return self.query.sort in (Sort.LATELY_UPDATED, Sort.LONG_UNTOUCHED)

    @property
    def by_severity(self) -> bool:
        return self.query.sort in (Sort.WORST, Sort.MILDEST)


def page(files: Sequence[File], query: ArchiveQuery) -> ArchivePage:
    """What models.ports.Archive.page promises, of all these files together."""
    plan = _plan(query)
    bound = max(ENTRIES_MIN, ENTRIES_MAX // max(1, len(files) * len(plan.values)))
    with contextlib.ExitStack() as stack:
        walks = [
            stack.enter_context(contextlib.closing(_walk(file, plan, value, bound)))
            for file in files
            for value in plan.values
        ]
        return _first_of(heapq.merge(*walks, key=lambda each: each[0], reverse=query.sort.goes_down), query)


def _first_of(entries: Iterable[_Entry], query: ArchiveQuery) -> ArchivePage:
    items: list[ArchivedIncident] = []
    looked_at, last = 0, query.after
    for place, file, row in entries:
        if len(items) == query.limit or looked_at == ARCHIVE_SCAN_MAX:
            return ArchivePage(items, last)
        if row is None:
            return ArchivePage(items, place)
        with translated(str(file.path)):
            found = file.connection.execute(f"{file.shown} WHERE row = ?", (row,)).get
        incident = ArchivedIncident(*found)
        if query.holds is None or query.holds(incident.record):
            items.append(incident)
        looked_at, last = looked_at + (query.holds is not None), place
    return ArchivePage(items)


def _plan(query: ArchiveQuery) -> _Plan:
    filters: list[tuple[str, Sequence[str | int]]] = [
        ("service", tuple(dict.fromkeys(query.services))),
        ("type", tuple(dict.fromkeys(query.types))),
        ("severity", tuple(dict.fromkeys(query.severities))),
    ]  # from many values to few: the first that is given is taken as the narrowest
    times = {
        "created_at": (query.created_after, query.created_before),
        "updated_at": (query.updated_after, query.updated_before),
    }
    leading: str | None = None
    values: Sequence[str | int | None] = (None,)
    match query.sort:
        case Sort.LATELY_UPDATED | Sort.LONG_UNTOUCHED:
            index = "by_update"
            del times["updated_at"]
        case Sort.WORST | Sort.MILDEST:
            index, leading, values = "by_severity", "severity", filters[2][1] or [*map(int, Severity)]
            del times["created_at"]
        case _:
            for column, given in filters:
                if 0 < len(given) <= MAX_LOOKUPS:
                    leading, values = column, given
                    break
            index = "by_time" if leading is None else f"by_{leading}"
            del times["created_at"]
    tested: list[str] = []
    arguments: list[_Value] = []
    for column, given in filters:
        if column != leading and given:
            tested.append(f" AND {column} IN ({', '.join('?' * len(given))})")
            arguments += given
    for column, (since, until) in times.items():
        if since:
            tested.append(f" AND {column} >= ?")
            arguments.append(since)
        if until:
            tested.append(f" AND {column} < ?")
            arguments.append(until)
    return _Plan(query, index, leading, values, "".join(tested), arguments)


def _walk(file: File, plan: _Plan, value: str | int | None, bound: int) -> Generator[_Entry, None, None]:
    """What is in the page's order from query.after on, under one value of the leading column."""
    goes_down = plan.query.sort.goes_down
    #: In a list by severity each walk is of one: its places begin with that.
    first = -float(value) if plan.by_severity and value is not None else None
    ends = _ends(plan, first)
    if ends is None:
        return
    low, high = ends
    names = "updated_at, created_at, incident_id" if plan.by_update else "created_at, incident_id"
    order = ", ".join(f"{name} {'DESC' if goes_down else 'ASC'}" for name in names.split(", "))

    def look_up(
        what: str, low: _End | None, high: _End | None, tested: str, given: Sequence[_Value], rest: str = ""
    ) -> apsw.Cursor:
        # Both ends as rows of what the index is ordered by: so they are looked up, not tested.
        asked = ["tenant = ?"]
        of_it: list[_Value] = [plan.query.tenant]
        if value is not None:
            asked.append(f"{plan.leading} = ?")
            of_it.append(value)
        for end in (low, high):
            if end is not None:
                asked.append(f"({names}) {end[0]} ({', '.join('?' * len(end[1]))})")
                of_it += end[1]
        return file.connection.execute(
            f"SELECT {what} FROM incidents INDEXED BY {plan.index} WHERE {' AND '.join(asked)}{tested}"
            f" ORDER BY {order} {rest}",
            (*of_it, *given),
        )

    def place(found: tuple[_Value, ...]) -> Position:
        at = found if plan.by_update else (found[0] if first is None else first, *found)
        return cast("Position", at)

    with translated(str(file.path)):
        if not plan.tested:
            for *found, row in look_up(f"{names}, row", low, high, "", ()):
                yield place(tuple(found)), file, row
            return
        # A window at a time, the next one twice as large: most pages are full before the bound, and a cold index is slow.
        window = ENTRIES_MIN
        while True:
            last = look_up(names, low, high, "", (window - 1,), "LIMIT 1 OFFSET ?").get
            to_low = low if last is None or not goes_down else (">=", last)
            to_high = high if last is None or goes_down else ("<=", last)
            for *found, row in look_up(f"{names}, row", to_low, to_high, plan.tested, plan.arguments):
                yield place(tuple(found)), file, row
            if last is None:
                return
            bound -= window
            if bound <= 0:
                yield place(last), file, None
                return
            low, high, window = (
                (low, ("<", last), 2 * window) if goes_down else ((">", last), high, 2 * window)
            )


def _ends(plan: _Plan, first: float | None) -> tuple[_End | None, _End | None] | None:
    """Where a walk begins and ends in its index: the times asked for, or query.after; None when all of it is behind."""
    query, after = plan.query, plan.query.after
    if after is not None and first is not None and first != after[0]:
        if (first > after[0]) == query.sort.goes_down:
            return None
        after = None
    since, until = (
        (query.updated_after, query.updated_before)
        if plan.by_update
        else (query.created_after, query.created_before)
    )
    #: Before all that have the same time.
    least: tuple[_Value, ...] = (-math.inf, b"") if plan.by_update else (b"",)
    low: _End | None = (">=", (since, *least)) if since else None
    high: _End | None = ("<", (until, *least)) if until else None
    if after is not None:
        start: tuple[_Value, ...] = after if plan.by_update else after[1:]
        if query.sort.goes_down:
            high = high if high is not None and high[1] <= start else ("<", start)
        else:
            low = low if low is not None and low[1] > start else (">", start)
    return low, high
