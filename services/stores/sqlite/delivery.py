"""Delivery ids of a partition in an SQLite file of their own. Called by the partition's actor only.

Apart from the log: written in the same transaction they would need a port that knows both, and in the same
file each add would still be a second sync. Here add() runs in a thread of its own, beside the next append. An
id must be added after the append that holds its alerts is durable: the other way round, a crash between the
two would answer a repeat of something that was never kept.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import cast

import apsw

from services.stores.sqlite.files import Lane, file_path, open_reader, open_writer, writing

#: Ids forgotten in one transaction of drop_before(): some 10 ms, which an add() may have to wait.
DROP_SLICE = 500
#: Ids in one page of recent().
PAGE_IDS = 10_000
#: Ids with their answers in one page of entries(): an answer has some hundred bytes, seldom many thousand.
PAGE_ENTRIES = 1000

SCHEMA = (
    """
    CREATE TABLE delivery_ids (
        row    INTEGER PRIMARY KEY,
        id     TEXT NOT NULL UNIQUE,
        at     REAL NOT NULL,
        answer BLOB NOT NULL
    );
    CREATE INDEX delivery_ids_by_age ON delivery_ids (at);
    """,
)


class SqliteDeliveryIds:
    """models.ports.DeliveryIds."""

    def __init__(self, directory: str | os.PathLike[str], partition: str) -> None:
        self.partition = partition
        path = file_path(directory, partition, "delivery")
        self._writer = Lane(f"{partition} (delivery ids)", lambda: open_writer(path, SCHEMA), path.parent)
        self._reader = Lane(f"{partition} (delivery ids)", lambda: open_reader(path, SCHEMA), path.parent)

    async def seen(self, ids: Sequence[str]) -> dict[str, bytes]:
        def work(connection: apsw.Connection) -> dict[str, bytes]:
            # One point query an id (4 us): faster than building an IN list, and of no limited length.
            found: dict[str, bytes] = {}
            for delivery_id in ids:
                answer = connection.execute(
                    "SELECT answer FROM delivery_ids WHERE id = ?", (delivery_id,)
                ).get
                if answer is not None:
                    found[delivery_id] = answer
            return found

        return await self._reader.run(work, dict)

    async def add(self, entries: Sequence[tuple[str, float, bytes]]) -> None:
        def work(connection: apsw.Connection) -> None:
            with writing(connection):
                connection.executemany(
                    "INSERT INTO delivery_ids (id, at, answer) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING",
                    entries,
                )

        if entries:
            await self._writer.run(work)

    async def drop_before(self, at: float) -> int:
        # Not synced: an id that a power cut brings back is only older than it need be.
        def work(connection: apsw.Connection) -> int:
            with writing(connection, synced=False):
                connection.execute(
                    "DELETE FROM delivery_ids WHERE row IN"
                    " (SELECT row FROM delivery_ids WHERE at < ? ORDER BY at LIMIT ?)",
                    (at, DROP_SLICE),
                )
                return connection.changes()

        total = 0
        while True:
            dropped = await self._writer.run(work)
            total += dropped
            if dropped < DROP_SLICE:
                return total

    async def recent(self, since: float) -> AsyncIterator[list[str]]:
        # Paged by row, not by age: ids that are added meanwhile come last and none is skipped.
        after = 0

        def work(connection: apsw.Connection) -> list[tuple[int, str]]:
            rows = connection.execute(
                "SELECT row, id FROM delivery_ids WHERE row > ? AND at >= ? ORDER BY row LIMIT ?",
                (after, since, PAGE_IDS),
            )
            return list(cast("Iterator[tuple[int, str]]", rows))

        nothing: list[tuple[int, str]] = []
        while page := await self._reader.run(work, lambda: nothing):
            after = page[-1][0]
            yield [delivery_id for _row, delivery_id in page]

    async def entries(self) -> AsyncIterator[list[tuple[str, float, bytes]]]:
        after = 0

        def work(connection: apsw.Connection) -> list[tuple[int, str, float, bytes]]:
            rows = connection.execute(
                "SELECT row, id, at, answer FROM delivery_ids WHERE row > ? ORDER BY row LIMIT ?",
                (after, PAGE_ENTRIES),
            )
            return list(cast("Iterator[tuple[int, str, float, bytes]]", rows))

        nothing: list[tuple[int, str, float, bytes]] = []
        while page := await self._reader.run(work, lambda: nothing):
            after = page[-1][0]
            yield [(delivery_id, at, answer) for _row, delivery_id, at, answer in page]

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()
