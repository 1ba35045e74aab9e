"""How a page of the archive is found in PostgreSQL. Called by archive.py.

In the indexes alone, one stretch a value of the narrowest filter, all in one statement, and only its own rows are fetched:
it costs the same at ten thousand and at ten million incidents. A filter that no index begins with is tested entry by
entry, up to a bound at which the page ends, with a next one.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.incidents.filters import Position, Sort
from models.incidents.incident import Severity
from models.ports import ALERTS_HEAD_BYTES, ARCHIVE_SCAN_MAX, ArchivedIncident, ArchivePage, ArchiveQuery
from services.stores.postgres.lane import storable
from services.stores.postgres.pool import Connection

#: Beyond this many values of a filter, one pass over the newest incidents is cheaper than a stretch a value.
MAX_LOOKUPS = 32
#: Records fetched at once while `holds` is asked about them.
SCAN_SLICE = 200
#: Entries of indexes that one page tests, over all stretches, and the least of one: 10 to 20 ms, 100 ms when they come from
#: the disk. With 50,000 the slowest lists of ten million took 225 ms at the 99th percentile.
ENTRIES_MAX = 20_000
ENTRIES_MIN = 500

COLUMNS = (
    "incident_id, tenant, service, state, severity, type, created_at, closed_at, updated_at, record, alerts"
)
#: Those of a page: an incident may have ten thousand alerts, and a page a thousand incidents.
_SHOWN = f"{COLUMNS.removesuffix(', alerts')}, substr(alerts, 1, {ALERTS_HEAD_BYTES})"
#: A condition in SQL with its arguments.
_Condition = tuple[str, Sequence[str | int | float | bytes]]


def page(connection: Connection, partition: str, query: ArchiveQuery) -> ArchivePage:
    """What models.ports.Archive.page promises, of one partition."""
    most = query.limit if query.holds is None else ARCHIVE_SCAN_MAX
    # One more tells whether there is a next page.
    places, end = _places(connection, partition, query, most + 1)
    items: list[ArchivedIncident] = []
    for start in range(0, len(places), SCAN_SLICE):
        slice_ = places[start : start + SCAN_SLICE]
        rows = _rows(connection, partition, [place[2] for place in slice_])
        for looked_at, place in enumerate(slice_, start + 1):
            found = rows[place[2]]
            if query.holds is None or query.holds(found.record):
                items.append(found)
            if len(items) == query.limit or looked_at == most:
                return ArchivePage(items, place if looked_at < len(places) else end)
    return ArchivePage(items, end)


def _rows(connection: Connection, partition: str, ids: Sequence[bytes]) -> dict[bytes, ArchivedIncident]:
    rows = connection.execute(
        f"SELECT {_SHOWN} FROM incidents WHERE partition = %s AND incident_id = ANY (%b::bytea[])",
        (partition, list(ids)),
        prepare=False,
    )
    return {row[0]: ArchivedIncident(*row) for row in rows}


def _places(
    connection: Connection, partition: str, query: ArchiveQuery, most: int
) -> tuple[list[Position], Position | None]:
    """Places of up to `most` incidents in the order asked for, and where looking ended if that was at a bound."""
    filters: list[tuple[str, Sequence[str | int]]] = [
        ("service", tuple(dict.fromkeys(map(storable, query.services)))),
        ("type", tuple(dict.fromkeys(map(storable, query.types)))),
        ("severity", tuple(dict.fromkeys(query.severities))),
    ]  # from many values to few: the first that is given is taken as the narrowest
    by_update = query.sort in (Sort.LATELY_UPDATED, Sort.LONG_UNTOUCHED)
    by_severity = query.sort in (Sort.WORST, Sort.MILDEST)
    leading = next((each for each in filters if 0 < len(each[1]) <= MAX_LOOKUPS), None)
    if by_update:
        leading = None
    elif by_severity:
        leading = ("severity", filters[2][1] or [int(severity) for severity in Severity])
        filters[2] = leading
    #: What an index is in the order of is looked up, the rest tested entry by entry.
    looked_up: list[_Condition] = [("partition = %s", [partition]), ("tenant = %s", [storable(query.tenant)])]
    tested: list[_Condition] = [
        (f"{column} IN ({_marks(values)})", values)
        for column, values in filters
        if values and (leading is None or column != leading[0])
    ]
    for column, since, until in (
        ("created_at", query.created_after, query.created_before),
        ("updated_at", query.updated_after, query.updated_before),
    ):
        into = looked_up if (column == "updated_at") == by_update else tested
        into += [(f"{column} >= %s", [since])] if since else []
        into += [(f"{column} < %s", [until])] if until else []
    columns = "updated_at, created_at, incident_id" if by_update else "created_at, incident_id"
    goes_down = query.sort.goes_down
    # The first part of a place is what the list is sorted by.
    first = "updated_at" if by_update else "-severity::float8" if by_severity else "created_at"

    def beyond(place: Position, compared: str, value: str | int | None) -> list[_Condition] | None:
        """What holds of one stretch's places that compare so; None when all of it is on the other side."""
        own = -float(value) if by_severity and value is not None else place[0]
        if own != place[0]:
            return [] if (own > place[0]) == (">" in compared) else None
        start = place if by_update else place[1:]
        return [(f"({columns}) {compared} ({_marks(start)})", start)]

    stretches: dict[str | int | None, list[_Condition]] = {}
    for value in (None,) if leading is None else leading[1]:
        of_it: list[_Condition] = (
            [] if leading is None or value is None else [(f"{leading[0]} = %s", [value])]
        )
        after = [] if query.after is None else beyond(query.after, "<" if goes_down else ">", value)
        if after is not None:
            stretches[value] = [*looked_up, *of_it, *after]

    def found(some: Sequence[list[_Condition]], rest: str, limit: int) -> list[Position]:
        if not some:
            return []
        each = (
            f"(SELECT {first} AS first, created_at, incident_id FROM incidents"
            f" WHERE {' AND '.join(text for text, _values in asked)} ORDER BY {_ordered(columns, goes_down)} {rest})"
            for asked in some
        )
        rows = connection.execute(
            f"SELECT * FROM ({' UNION ALL '.join(each)}) AS places"
            f" ORDER BY {_ordered('first, created_at, incident_id', goes_down)} LIMIT {limit:d}".encode(),
            [value for asked in some for _text, values in asked for value in values],
            prepare=False,
        )
        return [(at, created_at, identity) for at, created_at, identity in rows]

    if not tested:
        return found([*stretches.values()], f"LIMIT {most:d}", most), None
    # The page ends where the first of its stretches has been gone through for long enough.
    bound = max(ENTRIES_MIN, ENTRIES_MAX // max(1, len(stretches)))
    end = next(iter(found([*stretches.values()], f"LIMIT 1 OFFSET {bound - 1:d}", 1)), None)
    asked = []
    for value, conditions in stretches.items():
        before_end = [] if end is None else beyond(end, ">=" if goes_down else "<=", value)
        if before_end is not None:
            asked.append([*conditions, *tested, *before_end])
    return found(asked, f"LIMIT {most:d}", most), end


def _marks(values: Sequence[object]) -> str:
    return ", ".join(["%s"] * len(values))


def _ordered(columns: str, goes_down: bool) -> str:
    return ", ".join(f"{column} {'DESC' if goes_down else 'ASC'}" for column in columns.split(", "))
