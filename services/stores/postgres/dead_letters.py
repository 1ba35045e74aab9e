"""Dead letters in two tables of PostgreSQL that all gateways write. Called by services/ingest/dead_letters.py and the API.

The row of totals gives the ids and is locked while letters are added: ids are seen in their order, which a sequence
would not promise to readers that page by them, and several writers keep one bound. Not synced: a crash of the server may
take the last letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from models.ports import Clock, DeadLetter
from services.stores.postgres.lane import Lane, storable
from services.stores.postgres.options import PostgresOptions
from services.stores.postgres.pool import Connection
from services.stores.shared.dead_letter_bounds import MAX_PAYLOAD_BYTES, cut, size_of

#: Letters dropped in one statement while looking for how many must go.
DROP_SLICE = 500


class PostgresDeadLetters:
    """models.ports.DeadLetters. Letters past `max_age_s` are not shown; the next add() drops them."""

    def __init__(
        self,
        options: PostgresOptions,
        *,
        max_bytes: int,
        max_age_s: float,
        clock: Clock,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._max_payload_bytes = max_payload_bytes
        self._writer = Lane(options, "dead letters")
        self._reader = Lane(options, "dead letters")

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        kept = [cut(letter, self._max_payload_bytes) for letter in letters]
        sizes = [size_of(letter) for letter in kept]
        oldest = self._clock.now() - self._max_age_s

        def work(connection: Connection) -> None:
            row = connection.execute(
                "UPDATE letter_totals SET given = given + %(count)s, kept = kept + %(count)s, bytes = bytes + %(bytes)s"
                " RETURNING given",
                {"count": len(kept), "bytes": sum(sizes)},
            ).fetchone()
            (given,) = cast("tuple[int]", row)
            with connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO letters (id, at, tenant, door, reason, payload, content_type, truncated, size)"
                    " VALUES (%s, %s, %s, %s, %s, %b, %s, %s, %s)",
                    [
                        (given - len(kept) + number, each.at, storable(each.tenant), storable(each.door),
                         storable(each.reason), each.payload, storable(each.content_type), each.truncated, size)
                        for number, (each, size) in enumerate(zip(kept, sizes, strict=True), 1)
                    ],
                )  # fmt: skip
            _drop_aged(connection, oldest)
            _drop_over(connection, self._max_bytes)

        if letters:
            await self._writer.write(work, synced=False)

    async def page(self, after_id: int, limit: int) -> list[DeadLetter]:
        oldest = self._clock.now() - self._max_age_s

        def work(connection: Connection) -> list[DeadLetter]:
            rows = connection.execute(
                "SELECT at, tenant, door, reason, payload, content_type, id, truncated FROM letters"
                " WHERE id > %s AND at >= %s ORDER BY id LIMIT %s",
                (after_id, oldest, limit),
            )
            return [DeadLetter(*row) for row in rows]

        return await self._reader.read(work)

    async def stats(self) -> dict[str, int]:
        def work(connection: Connection) -> dict[str, int]:
            row = connection.execute("SELECT kept, bytes, dropped FROM letter_totals").fetchone()
            kept, size, dropped = cast("tuple[int, int, int]", row)
            return {"kept": kept, "bytes": size, "dropped": dropped}

        return await self._reader.read(work)

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()


def _drop_aged(connection: Connection, oldest: float) -> None:
    gone = connection.execute("DELETE FROM letters WHERE at < %s RETURNING size", (oldest,)).fetchall()
    _count_dropped(connection, len(gone), sum(size for (size,) in gone))


def _drop_over(connection: Connection, max_bytes: int) -> None:
    row = connection.execute("SELECT bytes FROM letter_totals").fetchone()
    (total,) = cast("tuple[int]", row)
    while total > max_bytes:
        rows = connection.execute(
            "SELECT id, size FROM letters ORDER BY id LIMIT %s", (DROP_SLICE,)
        ).fetchall()
        count = freed = last = 0
        for letter, size in rows:
            count += 1
            freed += size
            last = letter
            if total - freed <= max_bytes:
                break
        if not count:
            return
        connection.execute("DELETE FROM letters WHERE id <= %s", (last,))
        _count_dropped(connection, count, freed)
        total -= freed


def _count_dropped(connection: Connection, count: int, size: int) -> None:
    if count:
        connection.execute(
            "UPDATE letter_totals SET kept = kept - %s, bytes = bytes - %s, dropped = dropped + %s",
            (count, size, count),
        )
