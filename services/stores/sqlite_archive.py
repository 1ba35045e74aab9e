"""Closed incidents of a partition in an SQLite file of their own. Written by the partition's archiver, read
by the gateways, each in its own process.

A page is found in one index alone and only its own rows are fetched, so it costs the same at ten thousand and
at ten million incidents. Each index begins with what it filters by, goes on in page order, and carries the
other filters at its end, so that they too are tested without fetching rows.
"""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Sequence
from typing import cast

import apsw

from models.filters import Place, Sort
from models.incident import Severity
from models.ports import ALERTS_HEAD_BYTES, ARCHIVE_SCAN_MAX, ArchivedIncident, ArchivePage, ArchiveQuery
from services.stores.chain import READ_LIMIT_BYTES
from services.stores.sqlite import Lane, file_path, open_reader, open_writer, reading, writing

#: Beyond this many values of a filter, one pass over the newest incidents is cheaper than a look-up a value.
MAX_LOOKUPS = 32

SCHEMA = (
    """
    CREATE TABLE incidents (
        row         INTEGER PRIMARY KEY,
        incident_id BLOB    NOT NULL UNIQUE,
        tenant      TEXT    NOT NULL,
        service     TEXT    NOT NULL,
        state       TEXT    NOT NULL,
        severity    INTEGER NOT NULL,
        type        TEXT    NOT NULL,
        created_at  REAL    NOT NULL,
        closed_at   REAL    NOT NULL,
        record      BLOB    NOT NULL,
        alerts      BLOB    NOT NULL
    );
    CREATE INDEX by_time     ON incidents (tenant, created_at, incident_id, service, severity, type);
    CREATE INDEX by_service  ON incidents (tenant, service, created_at, incident_id, severity, type);
    CREATE INDEX by_severity ON incidents (tenant, severity, created_at, incident_id, service, type);
    CREATE INDEX by_type     ON incidents (tenant, type, created_at, incident_id, service, severity);
    CREATE INDEX by_close    ON incidents (closed_at);
    """,
    # What the first version wrote was last changed when it was closed.
    """
    ALTER TABLE incidents ADD COLUMN updated_at REAL NOT NULL DEFAULT 0;
    UPDATE incidents SET updated_at = closed_at;
    DROP INDEX by_time;
    DROP INDEX by_service;
    DROP INDEX by_severity;
    DROP INDEX by_type;
    CREATE INDEX by_time     ON incidents (tenant, created_at, incident_id, service, severity, type, updated_at);
    CREATE INDEX by_service  ON incidents (tenant, service, created_at, incident_id, severity, type, updated_at);
    CREATE INDEX by_severity ON incidents (tenant, severity, created_at, incident_id, service, type, updated_at);
    CREATE INDEX by_type     ON incidents (tenant, type, created_at, incident_id, service, severity, updated_at);
    CREATE INDEX by_update   ON incidents (tenant, updated_at, created_at, incident_id, service, severity, type);
    """,
)
_COLUMNS = (
    "incident_id, tenant, service, state, severity, type, created_at, closed_at, updated_at, record, alerts"
)
#: Those of a page: an incident may have ten thousand alerts, and a page a thousand incidents.
_SHOWN = f"{_COLUMNS.removesuffix(', alerts')}, substr(alerts, 1, {ALERTS_HEAD_BYTES})"
_Row = tuple[bytes, str, str, str, int, str, float, float, float, bytes, bytes]
_Number = tuple[Place, int]


class SqliteArchive:
    """models.ports.Archive. Constructing it touches no file; one that only reads opens the file read-only."""

    def __init__(self, directory: str | os.PathLike[str], partition: str) -> None:
        self.partition = partition
        path = file_path(directory, partition, "archive")
        self._writer = Lane(f"{partition} (archive)", lambda: open_writer(path, SCHEMA))
        self._reader = Lane(f"{partition} (archive)", lambda: open_reader(path, SCHEMA))

    async def put(self, incidents: Sequence[ArchivedIncident]) -> None:
        def work(connection: apsw.Connection) -> None:
            with writing(connection):
                connection.executemany(
                    f"INSERT INTO incidents ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (incident_id) DO UPDATE SET tenant = excluded.tenant,"
                    " service = excluded.service,"
                    " state = excluded.state, severity = excluded.severity, type = excluded.type,"
                    " created_at = excluded.created_at, closed_at = excluded.closed_at,"
                    " updated_at = excluded.updated_at, record = excluded.record, alerts = excluded.alerts",
                    (
                        (each.incident_id, each.tenant, each.service, each.state, each.severity, each.type,
                         each.created_at, each.closed_at, each.updated_at, each.record, each.alerts)
                        for each in incidents
                    ),
                )  # fmt: skip

        if incidents:
            await self._writer.run(work)

    async def get(self, incident_id: bytes) -> ArchivedIncident | None:
        def work(connection: apsw.Connection) -> ArchivedIncident | None:
            row: _Row | None = connection.execute(
                f"SELECT {_COLUMNS} FROM incidents WHERE incident_id = ?", (incident_id,)
            ).get
            return ArchivedIncident(*row) if row is not None else None

        return await self._reader.run(work, lambda: None)

    async def page(self, query: ArchiveQuery) -> ArchivePage:
        def work(connection: apsw.Connection) -> ArchivePage:
            with reading(connection):
                return _page(connection, query)

        return await self._reader.run(work, lambda: ArchivePage([]))

    async def read(self, after: bytes, limit_bytes: int = READ_LIMIT_BYTES) -> list[ArchivedIncident]:
        def work(connection: apsw.Connection) -> list[ArchivedIncident]:
            found: list[ArchivedIncident] = []
            left = limit_bytes
            with reading(connection):
                rows = connection.execute(
                    f"SELECT {_COLUMNS} FROM incidents WHERE incident_id > ? ORDER BY incident_id", (after,)
                )
                with contextlib.closing(rows):
                    for row in rows:
                        incident = ArchivedIncident(*cast("_Row", row))
                        left -= len(incident.record) + len(incident.alerts)
                        if found and left < 0:
                            break
                        found.append(incident)
            return found

        return await self._reader.run(work, list)

    async def tally(self, first: bytes, end: bytes) -> tuple[int, float]:
        def work(connection: apsw.Connection) -> tuple[int, float]:
            counted, newest = connection.execute(
                "SELECT count(*), max(updated_at) FROM incidents WHERE incident_id >= ? AND incident_id < ?",
                (first, end),
            ).get
            return counted, newest or 0.0

        return await self._reader.run(work, lambda: (0, 0.0))

    async def remove(self, incident_ids: Sequence[bytes]) -> None:
        def work(connection: apsw.Connection) -> None:
            with writing(connection):
                connection.executemany(
                    "DELETE FROM incidents WHERE incident_id = ?", ((each,) for each in incident_ids)
                )

        if incident_ids:
            await self._writer.run(work)

    async def drop_before(self, closed_before: float, limit: int) -> int:
        # Not synced: an incident that a power cut brings back is dropped the next time.
        def work(connection: apsw.Connection) -> int:
            with writing(connection, synced=False):
                connection.execute(
                    "DELETE FROM incidents WHERE row IN"
                    " (SELECT row FROM incidents WHERE closed_at < ? ORDER BY closed_at LIMIT ?)",
                    (closed_before, limit),
                )
                return connection.changes()

        return await self._writer.run(work)

    async def count(self) -> int:
        def work(connection: apsw.Connection) -> int:
            counted: int = connection.execute("SELECT count(*) FROM incidents").get
            return counted

        return await self._reader.run(work, int)

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()


def _page(connection: apsw.Connection, query: ArchiveQuery) -> ArchivePage:
    most = query.limit if query.holds is None else ARCHIVE_SCAN_MAX
    # One more tells whether there is a next page.
    numbers = _numbers(connection, query, most + 1)
    items: list[ArchivedIncident] = []
    for looked_at, (place, number) in enumerate(numbers, 1):
        if query.holds is None or query.holds(_record(connection, number)):
            row = connection.execute(f"SELECT {_SHOWN} FROM incidents WHERE row = ?", (number,)).get
            items.append(ArchivedIncident(*cast("_Row", row)))
        if len(items) == query.limit or looked_at == most:
            return ArchivePage(items, place if looked_at < len(numbers) else None)
    return ArchivePage(items)


def _record(connection: apsw.Connection, number: int) -> bytes:
    record: bytes = connection.execute("SELECT record FROM incidents WHERE row = ?", (number,)).get
    return record


def _numbers(connection: apsw.Connection, query: ArchiveQuery, most: int) -> list[_Number]:
    """Places and row numbers of up to `most` incidents, in the order asked for: one index look-up a value of the
    narrowest filter, merged."""
    filters: list[tuple[str, str, Sequence[str | int]]] = [
        ("service", "by_service", tuple(dict.fromkeys(query.services))),
        ("type", "by_type", tuple(dict.fromkeys(query.types))),
        ("severity", "by_severity", tuple(dict.fromkeys(query.severities))),
    ]  # from many values to few: the first that is given is taken as the narrowest
    by_update = query.sort in (Sort.LATELY_UPDATED, Sort.LONG_UNTOUCHED)
    by_severity = query.sort in (Sort.WORST, Sort.MILDEST)
    leading = next((each for each in filters if 0 < len(each[2]) <= MAX_LOOKUPS), None)
    if by_update:
        leading = None
    elif by_severity:
        leading = ("severity", "by_severity", filters[2][2] or [int(severity) for severity in Severity])
        filters[2] = leading
    index = "by_update" if by_update else "by_time" if leading is None else leading[1]
    conditions = ["tenant = ?"]
    arguments: list[str | int | float | bytes] = [query.tenant]
    for each in filters:
        if each is not leading and each[2]:
            conditions.append(f"{each[0]} IN ({', '.join('?' * len(each[2]))})")
            arguments.extend(each[2])
    for condition, at in (
        ("created_at >= ?", query.created_after),
        ("created_at < ?", query.created_before),
        ("updated_at >= ?", query.updated_after),
        ("updated_at < ?", query.updated_before),
    ):
        if at:
            conditions.append(condition)
            arguments.append(at)
    if leading is not None:
        conditions.append(f"{leading[0]} = ?")
    columns = "updated_at, created_at, incident_id" if by_update else "created_at, incident_id"
    goes_down = query.sort.goes_down
    order = ", ".join(f"{column} {'DESC' if goes_down else 'ASC'}" for column in columns.split(", "))

    def look_up(value: str | int | None = None) -> list[_Number]:
        asked = list(conditions)
        given: list[str | int | float | bytes] = [*arguments, *(() if value is None else (value,))]
        #: In a list by severity each look-up is of one: its place begins with that, and so may that of `after`.
        first = -float(value) if by_severity and value is not None else None
        after = query.after
        if after is not None and first is not None and first != after[0]:
            if (first > after[0]) == goes_down:
                return []  # this severity is behind us
            after = None
        if after is not None:
            start = after if by_update else after[1:]
            asked.append(f"({columns}) {'<' if goes_down else '>'} ({', '.join('?' * len(start))})")
            given.extend(start)
        found = connection.execute(
            f"SELECT {columns}, row FROM incidents INDEXED BY {index} WHERE {' AND '.join(asked)}"
            f" ORDER BY {order} LIMIT ?",
            (*given, most),
        )
        if by_update:
            return [((at, created_at, identity), row) for at, created_at, identity, row in found]
        return [((at if first is None else first, at, identity), row) for at, identity, row in found]

    if leading is None:
        return look_up()
    merged = heapq.merge(*(look_up(value) for value in leading[2]), reverse=goes_down)
    return [number for number, _n in zip(merged, range(most), strict=False)]
