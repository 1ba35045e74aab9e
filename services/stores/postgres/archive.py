"""Closed incidents of a partition in PostgreSQL. Written by the partition's archiver, read by the gateways. How a page is
found: archive_pages.py; the tables it is in: archive_months.py.

Reads are planned anew each time (prepare=False): a plan for any partition would have to look at the tables of all.
What pages filter by is text, in which PostgreSQL holds no NUL: that character alone is another there, while the incident
itself is as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

from models.ports import ArchivedIncident, ArchivePage, ArchiveQuery
from services.stores.postgres import archive_months as months
from services.stores.postgres.archive_pages import COLUMNS, page
from services.stores.postgres.lane import Lane, storable
from services.stores.postgres.options import PostgresOptions
from services.stores.postgres.pool import Connection
from services.stores.shared.archive_months import ids_of
from services.stores.shared.chain import READ_LIMIT_BYTES

#: Incidents read at once, of those that fit into the bytes asked for: 2 MB of the usual size.
READ_AT_ONCE = 1000


class PostgresArchive:
    """models.ports.Archive. Constructing it connects nowhere."""

    def __init__(self, options: PostgresOptions, partition: str) -> None:
        self.partition = partition
        place = f"{partition} (archive)"
        self._writer = Lane(options, place)
        self._reader = Lane(options, place)

    async def put(self, incidents: Sequence[ArchivedIncident]) -> None:
        latest = {each.incident_id: each for each in incidents}
        changed = [name for name in COLUMNS.split(", ") if name != "incident_id"]

        def work(connection: Connection) -> None:
            table = months.to_write(connection, self.partition, latest)
            with connection.cursor() as cursor:
                cursor.executemany(
                    f"INSERT INTO {table} (partition, {COLUMNS})"
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
                f"SELECT {COLUMNS} FROM incidents WHERE partition = %s AND incident_id = %s",
                (self.partition, incident_id),
                prepare=False,
            ).fetchone()
            return ArchivedIncident(*row) if row is not None else None

        return await self._reader.read(work)

    async def page(self, query: ArchiveQuery) -> ArchivePage:
        return await self._reader.read(lambda connection: page(connection, self.partition, query))

    async def read(self, after: bytes, limit_bytes: int = READ_LIMIT_BYTES) -> list[ArchivedIncident]:
        def work(connection: Connection) -> list[ArchivedIncident]:
            sizes = connection.execute(
                "SELECT incident_id, octet_length(record) + octet_length(alerts) FROM incidents"
                " WHERE partition = %s AND incident_id > %b ORDER BY incident_id LIMIT %s",
                (self.partition, after, READ_AT_ONCE),
                prepare=False,
            ).fetchall()
            left, fitting = limit_bytes, cast("list[bytes]", [])
            for identity, size in sizes:
                left -= size
                if fitting and left < 0:
                    break
                fitting.append(identity)
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM incidents WHERE partition = %s AND incident_id = ANY (%b::bytea[])"
                " ORDER BY incident_id",
                (self.partition, fitting),
                prepare=False,
            )
            return [ArchivedIncident(*row) for row in rows]

        return await self._reader.read(work)

    async def tally(self, first: bytes, end: bytes) -> tuple[int, float]:
        def work(connection: Connection) -> tuple[int, float]:
            row = connection.execute(
                "SELECT count(*), max(updated_at) FROM incidents"
                " WHERE partition = %s AND incident_id >= %b AND incident_id < %b",
                (self.partition, first, end),
                prepare=False,
            ).fetchone()
            counted, newest = cast("tuple[int, float | None]", row)
            return counted, newest or 0.0

        return await self._reader.read(work)

    async def remove(self, incident_ids: Sequence[bytes]) -> None:
        def work(connection: Connection) -> None:
            for table in months.with_rows(connection):
                connection.execute(
                    f"DELETE FROM {table} WHERE partition = %s AND incident_id = ANY (%b::bytea[])",
                    (self.partition, list(incident_ids)),
                    prepare=False,
                )

        if incident_ids:
            await self._writer.write(work)

    async def drop_before(self, closed_before: float, limit: int) -> int:
        # Nothing of it is synced: an incident that a crash brings back is dropped the next time.
        dropped = 0
        for month in await self._writer.write(lambda each: months.past(each, self.partition, closed_before)):
            if dropped < limit:
                dropped += await self._drop_month(month, closed_before)

        def work(connection: Connection) -> int:
            deleted = 0
            for table in months.with_rows(connection):
                deleted += connection.execute(
                    f"DELETE FROM {table} WHERE partition = %s AND incident_id IN (SELECT incident_id FROM {table}"
                    " WHERE partition = %s AND closed_at < %s ORDER BY closed_at LIMIT %s)",
                    (self.partition, self.partition, closed_before, limit - dropped - deleted),
                    prepare=False,
                ).rowcount
            return deleted

        return dropped if dropped >= limit else dropped + await self._writer.write(work, synced=False)

    async def _drop_month(self, month: str, closed_before: float) -> int:
        at, end = ids_of(month)
        counted = 0
        while at < end:
            some = partial(months.counted, partition=self.partition, first=at, end=end)
            count, at = await self._reader.read(some)
            counted += count
        gone = await self._writer.write(
            lambda connection: months.drop(connection, self.partition, month, closed_before), synced=False
        )
        return counted if gone else 0

    async def count(self) -> int:
        def work(connection: Connection) -> int:
            row = connection.execute(
                "SELECT count(*) FROM incidents WHERE partition = %s", (self.partition,), prepare=False
            ).fetchone()
            (counted,) = cast("tuple[int]", row)
            return counted

        return await self._reader.read(work)

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()
