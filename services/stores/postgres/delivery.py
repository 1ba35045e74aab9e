"""Delivery ids of a partition in PostgreSQL. Called by the partition's actor only.

An id must be added after the append that holds its alerts is durable: the other way round, a crash between the two
would answer a repeat of something that was never kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from services.stores.postgres.lane import Lane
from services.stores.postgres.options import PostgresOptions
from services.stores.postgres.pool import Connection

#: Ids forgotten in one transaction of drop_before(): some 20 ms, which an add() may have to wait.
DROP_SLICE = 2000
#: Ids in one page of recent().
PAGE_IDS = 10_000
#: Ids with their answers in one page of entries(): an answer has some hundred bytes, seldom many thousand.
PAGE_ENTRIES = 1000


class PostgresDeliveryIds:
    """models.ports.DeliveryIds. Constructing it connects nowhere."""

    def __init__(self, options: PostgresOptions, partition: str) -> None:
        self.partition = partition
        place = f"{partition} (delivery ids)"
        self._writer = Lane(options, place)
        self._reader = Lane(options, place)

    async def seen(self, ids: Sequence[str]) -> dict[str, bytes]:
        def work(connection: Connection) -> dict[str, bytes]:
            rows = connection.execute(
                "SELECT id, answer FROM delivery_ids WHERE partition = %s AND id = ANY (%b::bytea[])",
                (self.partition, [each.encode() for each in ids]),
            )
            return {delivery_id.decode(): answer for delivery_id, answer in rows}

        return await self._reader.read(work) if ids else {}

    async def add(self, entries: Sequence[tuple[str, float, bytes]]) -> None:
        # In the order of the ids: two that add the same ones never wait for each other in a ring.
        first = {delivery_id: (at, answer) for delivery_id, at, answer in reversed(entries)}
        ids = sorted(first)

        def work(connection: Connection) -> None:
            connection.execute(
                "INSERT INTO delivery_ids (partition, id, at, answer)"
                " SELECT %s, id, at, answer FROM unnest(%b::bytea[], %b::float8[], %b::bytea[])"
                " AS given (id, at, answer) ON CONFLICT (partition, id) DO NOTHING",
                (
                    self.partition,
                    [each.encode() for each in ids],
                    [first[each][0] for each in ids],
                    [first[each][1] for each in ids],
                ),
            )

        if entries:
            await self._writer.statement(work)

    async def drop_before(self, at: float) -> int:
        # Not synced: an id that a crash brings back is only older than it need be.
        def work(connection: Connection) -> int:
            return connection.execute(
                "DELETE FROM delivery_ids WHERE partition = %s AND id IN"
                " (SELECT id FROM delivery_ids WHERE partition = %s AND at < %s ORDER BY at, id LIMIT %s)",
                (self.partition, self.partition, at, DROP_SLICE),
            ).rowcount

        total = 0
        while True:
            dropped = await self._writer.write(work, synced=False)
            total += dropped
            if dropped < DROP_SLICE:
                return total

    async def recent(self, since: float) -> AsyncIterator[list[str]]:
        after: tuple[float, bytes] = (since, b"")

        def work(connection: Connection) -> list[tuple[float, bytes]]:
            rows = connection.execute(
                "SELECT at, id FROM delivery_ids WHERE partition = %s AND (at, id) > (%s, %s)"
                " ORDER BY at, id LIMIT %s",
                (self.partition, *after, PAGE_IDS),
            )
            return [(at, delivery_id) for at, delivery_id in rows]

        while page := await self._reader.read(work):
            after = page[-1]
            yield [delivery_id.decode() for _at, delivery_id in page]

    async def entries(self) -> AsyncIterator[list[tuple[str, float, bytes]]]:
        after = b""

        def work(connection: Connection) -> list[tuple[str, float, bytes]]:
            rows = connection.execute(
                "SELECT id, at, answer FROM delivery_ids WHERE partition = %s AND id > %b ORDER BY id LIMIT %s",
                (self.partition, after, PAGE_ENTRIES),
            )
            return [(delivery_id.decode(), at, answer) for delivery_id, at, answer in rows]

        while page := await self._reader.read(work):
            after = page[-1][0].encode()
            yield page

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()
