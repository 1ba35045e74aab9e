"""Closed incidents of a partition in an SQLite file of their own. Written by the partition's archiver, read
by the gateways, each in its own process.

A page is found in one index alone and only its own rows are fetched, so it costs the same at ten thousand and
at ten million incidents. Each index begins with what it filters by, goes on in page order, and carries the
other filters at its end, so that they too are tested without fetching rows.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Sequence
from typing import cast

import apsw

from models.ports import ArchivedIncident, ArchiveQuery
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
)
_COLUMNS = "incident_id, tenant, service, state, severity, type, created_at, closed_at, record, alerts"
_Row = tuple[bytes, str, str, str, int, str, float, float, bytes, bytes]


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
                    f"INSERT INTO incidents ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (incident_id) DO UPDATE SET tenant = excluded.tenant,"
                    " service = excluded.service,"
                    " state = excluded.state, severity = excluded.severity, type = excluded.type,"
                    " created_at = excluded.created_at, closed_at = excluded.closed_at,"
                    " record = excluded.record, alerts = excluded.alerts",
                    (
                        (each.incident_id, each.tenant, each.service, each.state, each.severity, each.type,
                         each.created_at, each.closed_at, each.record, each.alerts)
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

    async def page(self, query: ArchiveQuery) -> list[ArchivedIncident]:
        def work(connection: apsw.Connection) -> list[ArchivedIncident]:
            with reading(connection):
                return [
                    ArchivedIncident(*cast("_Row", connection.execute(
                        f"SELECT {_COLUMNS} FROM incidents WHERE row = ?", (row,)
                    ).get))
                    for row in _rows_of_page(connection, query)
                ]  # fmt: skip

        return await self._reader.run(work, list)

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


def _rows_of_page(connection: apsw.Connection, query: ArchiveQuery) -> list[int]:
    """Row numbers of the page, newest first: one index look-up a value of the narrowest filter, merged."""
    filters: list[tuple[str, str, Sequence[str | int]]] = [
        ("service", "by_service", tuple(dict.fromkeys(query.services))),
        ("type", "by_type", tuple(dict.fromkeys(query.types))),
        ("severity", "by_severity", tuple(dict.fromkeys(query.severities))),
    ]  # from many values to few: the first that is given is taken as the narrowest
    leading = next((each for each in filters if 0 < len(each[2]) <= MAX_LOOKUPS), None)
    index = leading[1] if leading is not None else "by_time"
    conditions = ["tenant = ?"]
    arguments: list[str | int | float | bytes] = [query.tenant]
    if query.before is not None:
        conditions.append("(created_at, incident_id) < (?, ?)")
        arguments.extend(query.before)
    for each in filters:
        if each is not leading and each[2]:
            conditions.append(f"{each[0]} IN ({', '.join('?' * len(each[2]))})")
            arguments.extend(each[2])
    if leading is not None:
        conditions.append(f"{leading[0]} = ?")
    sql = (
        f"SELECT created_at, incident_id, row FROM incidents INDEXED BY {index}"
        f" WHERE {' AND '.join(conditions)}"
        " ORDER BY created_at DESC, incident_id DESC LIMIT ?"
    )

    def look_up(*value: str | int) -> list[tuple[float, bytes, int]]:
        found = connection.execute(sql, (*arguments, *value, query.limit))
        return list(cast("Iterator[tuple[float, bytes, int]]", found))

    if leading is None:
        return [row for _at, _id, row in look_up()]
    merged = heapq.merge(*(look_up(value) for value in leading[2]), reverse=True)
    return [row for (_at, _id, row), _n in zip(merged, range(query.limit), strict=False)]
