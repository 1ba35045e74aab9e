"""Closed incidents of a partition in PostgreSQL. Written by the partition's archiver, read by the gateways.

A page is found in the indexes alone, one stretch a value of the narrowest filter, all in one statement, and only its own
rows are fetched: it costs the same at ten thousand and at ten million incidents. What pages filter by is text, in which
PostgreSQL holds no NUL: that character alone is another there, while the incident itself is as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from models.filters import Place, Sort
from models.incident import Severity
from models.ports import ALERTS_HEAD_BYTES, ARCHIVE_SCAN_MAX, ArchivedIncident, ArchivePage, ArchiveQuery
from services.stores.chain import READ_LIMIT_BYTES
from services.stores.postgres_lane import Lane, storable
from services.stores.postgres_options import PostgresOptions
from services.stores.postgres_pool import Connection

#: Beyond this many values of a filter, one pass over the newest incidents is cheaper than a stretch a value.
MAX_LOOKUPS = 32
#: Records fetched at once while `holds` is asked about them.
SCAN_SLICE = 200
#: Incidents read at once, of those that fit into the bytes asked for: 2 MB of the usual size.
READ_AT_ONCE = 1000

_COLUMNS = (
    "incident_id, tenant, service, state, severity, type, created_at, closed_at, updated_at, record, alerts"
)
#: Those of a page: an incident may have ten thousand alerts, and a page a thousand incidents.
_SHOWN = f"{_COLUMNS.removesuffix(', alerts')}, substr(alerts, 1, {ALERTS_HEAD_BYTES})"
_Argument = str | int | float | bytes


class PostgresArchive:
    """models.ports.Archive. Constructing it connects nowhere."""

    def __init__(self, options: PostgresOptions, partition: str) -> None:
        self.partition = partition
        place = f"{partition} (archive)"
        self._writer = Lane(options, place)
        self._reader = Lane(options, place)

    async def put(self, incidents: Sequence[ArchivedIncident]) -> None:
        latest = {each.incident_id: each for each in incidents}
        changed = [name for name in _COLUMNS.split(", ") if name != "incident_id"]

        def work(connection: Connection) -> None:
            with connection.cursor() as cursor:
                cursor.executemany(
                    f"INSERT INTO incidents (partition, {_COLUMNS})"
                    " VALUES (%s, %b, %s, %s, %s, %s, %s, %s, %s, %s, %b, %b)"
                    " ON CONFLICT (partition, incident_id) DO UPDATE SET"
                    f" {', '.join(f'{name} = excluded.{name}' for name in changed)}",
                    [
                        (self.partition, each.incident_id, storable(each.tenant), storable(each.service), each.state,
                         each.severity, storable(each.type), each.created_at, each.closed_at, each.updated_at,
                         each.record, each.alerts)
                        for each in latest.values()
                    ],
                )  # fmt: skip

        if latest:
            await self._writer.write(work)

    async def get(self, incident_id: bytes) -> ArchivedIncident | None:
        def work(connection: Connection) -> ArchivedIncident | None:
            row = connection.execute(
                f"SELECT {_COLUMNS} FROM incidents WHERE partition = %s AND incident_id = %s",
                (self.partition, incident_id),
            ).fetchone()
            return ArchivedIncident(*row) if row is not None else None

        return await self._reader.read(work)

    async def page(self, query: ArchiveQuery) -> ArchivePage:
        return await self._reader.read(lambda connection: _page(connection, self.partition, query))

    async def read(self, after: bytes, limit_bytes: int = READ_LIMIT_BYTES) -> list[ArchivedIncident]:
        def work(connection: Connection) -> list[ArchivedIncident]:
            sizes = connection.execute(
                "SELECT incident_id, octet_length(record) + octet_length(alerts) FROM incidents"
                " WHERE partition = %s AND incident_id > %b ORDER BY incident_id LIMIT %s",
                (self.partition, after, READ_AT_ONCE),
            ).fetchall()
            left, fitting = limit_bytes, cast("list[bytes]", [])
            for identity, size in sizes:
                left -= size
                if fitting and left < 0:
                    break
                fitting.append(identity)
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM incidents WHERE partition = %s AND incident_id = ANY (%b::bytea[])"
                " ORDER BY incident_id",
                (self.partition, fitting),
            )
            return [ArchivedIncident(*row) for row in rows]

        return await self._reader.read(work)

    async def tally(self, first: bytes, end: bytes) -> tuple[int, float]:
        def work(connection: Connection) -> tuple[int, float]:
            row = connection.execute(
                "SELECT count(*), max(updated_at) FROM incidents"
                " WHERE partition = %s AND incident_id >= %b AND incident_id < %b",
                (self.partition, first, end),
            ).fetchone()
            counted, newest = cast("tuple[int, float | None]", row)
            return counted, newest or 0.0

        return await self._reader.read(work)

    async def remove(self, incident_ids: Sequence[bytes]) -> None:
        def work(connection: Connection) -> None:
            connection.execute(
                "DELETE FROM incidents WHERE partition = %s AND incident_id = ANY (%b::bytea[])",
                (self.partition, list(incident_ids)),
            )

        if incident_ids:
            await self._writer.statement(work)

    async def drop_before(self, closed_before: float, limit: int) -> int:
        # Not synced: an incident that a crash brings back is dropped the next time.
        def work(connection: Connection) -> int:
            return connection.execute(
                "DELETE FROM incidents WHERE partition = %s AND incident_id IN (SELECT incident_id FROM incidents"
                " WHERE partition = %s AND closed_at < %s ORDER BY closed_at LIMIT %s)",
                (self.partition, self.partition, closed_before, limit),
            ).rowcount

        return await self._writer.write(work, synced=False)

    async def count(self) -> int:
        def work(connection: Connection) -> int:
            row = connection.execute(
                "SELECT count(*) FROM incidents WHERE partition = %s", (self.partition,)
            ).fetchone()
            (counted,) = cast("tuple[int]", row)
            return counted

        return await self._reader.read(work)

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()


def _page(connection: Connection, partition: str, query: ArchiveQuery) -> ArchivePage:
    most = query.limit if query.holds is None else ARCHIVE_SCAN_MAX
    # One more tells whether there is a next page.
    places = _places(connection, partition, query, most + 1)
    items: list[ArchivedIncident] = []
    for start in range(0, len(places), SCAN_SLICE):
        slice_ = places[start : start + SCAN_SLICE]
        rows = _rows(connection, partition, [place[2] for place in slice_])
        for looked_at, place in enumerate(slice_, start + 1):
            found = rows[place[2]]
            if query.holds is None or query.holds(found.record):
                items.append(found)
            if len(items) == query.limit or looked_at == most:
                return ArchivePage(items, place if looked_at < len(places) else None)
    return ArchivePage(items)


def _rows(connection: Connection, partition: str, ids: Sequence[bytes]) -> dict[bytes, ArchivedIncident]:
    rows = connection.execute(
        f"SELECT {_SHOWN} FROM incidents WHERE partition = %s AND incident_id = ANY (%b::bytea[])",
        (partition, list(ids)),
    )
    return {row[0]: ArchivedIncident(*row) for row in rows}


def _places(connection: Connection, partition: str, query: ArchiveQuery, most: int) -> list[Place]:
    """Places of up to `most` incidents in the order asked for."""
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
    conditions = ["partition = %s", "tenant = %s"]
    arguments: list[_Argument] = [partition, storable(query.tenant)]
    for each in filters:
        if each is not leading and each[1]:
            conditions.append(f"{each[0]} IN ({', '.join(['%s'] * len(each[1]))})")
            arguments += each[1]
    for condition, at in (
        ("created_at >= %s", query.created_after),
        ("created_at < %s", query.created_before),
        ("updated_at >= %s", query.updated_after),
        ("updated_at < %s", query.updated_before),
    ):
        if at:
            conditions.append(condition)
            arguments.append(at)
    columns = "updated_at, created_at, incident_id" if by_update else "created_at, incident_id"
    goes_down = query.sort.goes_down
    order = ", ".join(f"{column} {'DESC' if goes_down else 'ASC'}" for column in columns.split(", "))
    # The first part of a place is what the list is sorted by.
    first = "updated_at" if by_update else "-severity::float8" if by_severity else "created_at"

    stretches: list[str] = []
    given: list[_Argument] = []
    for value in (None,) if leading is None else leading[1]:
        asked, after = list(conditions), query.after
        given += arguments
        if leading is not None and value is not None:
            asked.append(f"{leading[0]} = %s")
            given.append(value)
        if after is not None and by_severity and value is not None and (own := -float(value)) != after[0]:
            if (own > after[0]) == goes_down:
                del given[-len(arguments) - 1 :]  # this severity is behind us
                continue
            after = None
        if after is not None:
            start = after if by_update else after[1:]
            asked.append(f"({columns}) {'<' if goes_down else '>'} ({', '.join(['%s'] * len(start))})")
            given += start
        stretches.append(
            f"(SELECT {first} AS first, created_at, incident_id FROM incidents WHERE {' AND '.join(asked)}"
            f" ORDER BY {order} LIMIT {most:d})"
        )
    if not stretches:
        return []
    direction = "DESC" if goes_down else "ASC"
    rows = connection.execute(
        f"SELECT * FROM ({' UNION ALL '.join(stretches)}) AS places ORDER BY first {direction}, created_at {direction},"
        f" incident_id {direction} LIMIT {most:d}".encode(),
        given,
    )
    return [(at, created_at, identity) for at, created_at, identity in rows]
