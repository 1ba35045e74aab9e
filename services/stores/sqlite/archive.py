"""Closed incidents of a partition in SQLite files of their own, one a month. Written by the partition's archiver, read by
the gateways, each in its own process. What the files are: archive_files.py; how a page is found in them:
archive_pages.py.
"""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from models.ports import ALERTS_HEAD_BYTES, ArchivedIncident, ArchivePage, ArchiveQuery
from services.stores.shared.archive_months import month_of
from services.stores.shared.chain import READ_LIMIT_BYTES
from services.stores.sqlite.archive_files import File, Files, packed
from services.stores.sqlite.archive_pages import page
from services.stores.sqlite.files import Lane, reading, translated, writing


class SqliteArchive:
    """models.ports.Archive. Constructing it touches no file; one that only reads opens the files read-only."""

    def __init__(self, directory: str | os.PathLike[str], partition: str) -> None:
        self.partition = partition
        place = f"{partition} (archive)"
        self._writer = Lane(place, lambda: Files(directory, partition, writes=True), Path(directory))
        self._reader = Lane(place, lambda: Files(directory, partition, writes=False), Path(directory))

    async def put(self, incidents: Sequence[ArchivedIncident]) -> None:
        by_month: dict[str, dict[bytes, ArchivedIncident]] = {}
        for each in incidents:
            by_month.setdefault(month_of(each.incident_id), {})[each.incident_id] = each

        def work(files: Files) -> None:
            ids = [(identity,) for latest in by_month.values() for identity in latest]
            # From the old file first: no incident is ever in two. Between that and the rest its shard has it.
            for old in files.all(last=""):
                with translated(str(old.path)), writing(old.connection):
                    old.connection.executemany("DELETE FROM incidents WHERE incident_id = ?", ids)
            for month, latest in sorted(by_month.items()):
                file = files.to_write(month)
                with translated(str(file.path)), writing(file.connection):
                    _write(file.connection, latest)

        if incidents:
            await self._writer.run(work)

    async def get(self, incident_id: bytes) -> ArchivedIncident | None:
        month = month_of(incident_id)

        def work(files: Files) -> ArchivedIncident | None:
            for file in reversed(files.all(month, month)):
                with translated(str(file.path)):
                    row = file.connection.execute(f"{file.whole} WHERE incident_id = ?", (incident_id,)).get
                if row is not None:
                    return file.made_of(row)
            return None

        return await self._reader.run(work)

    async def page(self, query: ArchiveQuery) -> ArchivePage:
        def work(files: Files) -> ArchivePage:
            with _reading(files.all()) as opened:
                return page(opened, query)

        return await self._reader.run(work)

    async def read(self, after: bytes, limit_bytes: int = READ_LIMIT_BYTES) -> list[ArchivedIncident]:
        def work(files: Files) -> list[ArchivedIncident]:
            found: list[ArchivedIncident] = []
            left = limit_bytes
            with _reading(files.all(first=month_of(after))) as opened:
                for incident in heapq.merge(
                    *(_whole(file, after) for file in opened), key=lambda each: each.incident_id
                ):
                    left -= len(incident.record) + len(incident.alerts)
                    if found and left < 0:
                        break
                    found.append(incident)
            return found

        return await self._reader.run(work)

    async def tally(self, first: bytes, end: bytes) -> tuple[int, float]:
        def work(files: Files) -> tuple[int, float]:
            counted, newest = 0, 0.0
            for file in files.all(month_of(first), month_of(end)):
                with translated(str(file.path)):
                    some, at = file.connection.execute(
                        "SELECT count(*), max(updated_at) FROM incidents WHERE incident_id >= ? AND incident_id < ?",
                        (first, end),
                    ).get
                counted, newest = counted + some, max(newest, at or 0.0)
            return counted, newest

        return await self._reader.run(work)

    async def remove(self, incident_ids: Sequence[bytes]) -> None:
        by_month: dict[str, list[bytes]] = {}
        for identity in incident_ids:
            by_month.setdefault(month_of(identity), []).append(identity)

        def work(files: Files) -> None:
            for month, ids in sorted(by_month.items()):
                for file in files.all(month, month):
                    with translated(str(file.path)), writing(file.connection):
                        file.connection.executemany(
                            "DELETE FROM incidents WHERE incident_id = ?", ((each,) for each in ids)
                        )

        if incident_ids:
            await self._writer.run(work)

    async def drop_before(self, closed_before: float, limit: int) -> int:
        def work(files: Files) -> int:
            dropped = 0
            for file in files.all():
                if dropped >= limit:
                    break
                dropped += _drop(files, file, closed_before, limit - dropped)
            return dropped

        return await self._writer.run(work)

    async def count(self) -> int:
        return await self._reader.run(lambda files: sum(map(_count, files.all())))

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()


def _write(connection: apsw.Connection, latest: dict[bytes, ArchivedIncident]) -> None:
    connection.executemany(
        "DELETE FROM incidents WHERE incident_id = ?", ((identity,) for identity in latest)
    )
    for each in latest.values():
        connection.execute(
            "INSERT INTO incidents (incident_id, tenant, service, state, severity, type, created_at, closed_at,"
            " updated_at, alerts_head, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (each.incident_id, each.tenant, each.service, each.state, each.severity, each.type, each.created_at,
             each.closed_at, each.updated_at, each.alerts[:ALERTS_HEAD_BYTES], each.record),
        )  # fmt: skip
        connection.execute(
            "INSERT INTO alerts (row, alerts) VALUES (?, ?)",
            (connection.last_insert_rowid(), packed(each.alerts)),
        )


def _drop(files: Files, file: File, closed_before: float, limit: int) -> int:
    with translated(str(file.path)):
        newest: float | None = file.connection.execute("SELECT max(closed_at) FROM incidents").get
        if newest is None or newest < closed_before:
            counted = _count(file)
            files.remove(file)
            return counted
        # Not synced: an incident that a power cut brings back is dropped the next time.
        with writing(file.connection, synced=False):
            file.connection.execute(
                "DELETE FROM incidents WHERE row IN"
                " (SELECT row FROM incidents WHERE closed_at < ? ORDER BY closed_at LIMIT ?)",
                (closed_before, limit),
            )
            return file.connection.changes()


def _whole(file: File, after: bytes) -> Iterator[ArchivedIncident]:
    with translated(str(file.path)):
        for row in file.connection.execute(
            f"{file.whole} WHERE incident_id > ? ORDER BY incident_id", (after,)
        ):
            yield file.made_of(row)


def _count(file: File) -> int:
    with translated(str(file.path)):
        counted: int = file.connection.execute("SELECT count(*) FROM incidents").get
    return counted


@contextlib.contextmanager
def _reading(files: Sequence[File]) -> Iterator[Sequence[File]]:
    """Each of the files in one state."""
    with contextlib.ExitStack() as stack:
        for file in files:
            stack.enter_context(reading(file.connection))
        yield files
