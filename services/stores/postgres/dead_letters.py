"""Dead letters in two tables of PostgreSQL that all gateways write. Called by services/ingest/dead_letters.py and the API.

The row of totals gives the ids and is locked while letters are added: ids are seen in their order, which a sequence
would not promise to readers that page by them, and several writers keep one bound. Not synced: a crash of the server may
take the last letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from models.ports import EVERY_LETTER, Clock, DeadLetter, LettersWanted
from services.stores.postgres.lane import Lane, storable
from services.stores.postgres.options import PostgresOptions
from services.stores.postgres.pool import Connection
from services.stores.shared.dead_letter_bounds import (
    LOWER,
    MAX_PAYLOAD_BYTES,
    UPPER,
    cut,
    size_of,
    sql_of,
)

#: Letters dropped in one statement while looking for how many must go.
DROP_SLICE = 500
_ENDLESS = 2**63 - 1
#: As DeadLetter has them.
_COLUMNS = "at, tenant, door, reason, payload, content_type, id, truncated, sender, place, replays, tried_at, request"
#: lower() would go by the server's locale.
_FOUND = f"strpos(translate(reason, '{UPPER}', '{LOWER}'), %s)"


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
                    "INSERT INTO letters (id, at, tenant, door, reason, payload, content_type, truncated, size,"
                    " sender, place, replays, tried_at, request)"
                    " VALUES (%s, %s, %s, %s, %s, %b, %s, %s, %s, %s, %s, %s, %s, %b)",
                    [
                        (given - len(kept) + number, each.at, storable(each.tenant), storable(each.door),
                         storable(each.reason), each.payload, storable(each.content_type), each.truncated, size,
                         storable(each.sender), storable(each.place), each.replays, each.tried_at, each.request)
                        for number, (each, size) in enumerate(zip(kept, sizes, strict=True), 1)
                    ],
                )  # fmt: skip
            _drop_aged(connection, oldest)
            _drop_over(connection, self._max_bytes)

        if letters:
            await self._writer.write(work, synced=False)

    async def page(self, after_id: int, limit: int, wanted: LettersWanted = EVERY_LETTER) -> list[DeadLetter]:
        return await self._some("id > %s", "id", after_id, limit, wanted)

    async def latest(
        self, before_id: int, limit: int, wanted: LettersWanted = EVERY_LETTER
    ) -> list[DeadLetter]:
        return await self._some("id < %s", "id DESC", before_id or _ENDLESS, limit, wanted)

    async def get(self, letter_id: int) -> DeadLetter | None:
        found = await self._some("id = %s", "id", letter_id, 1, EVERY_LETTER)
        return found[0] if found else None

    async def remove(self, ids: Sequence[int]) -> int:
        def work(connection: Connection) -> int:
            _lock(connection)
            gone = connection.execute(
                "DELETE FROM letters WHERE id = ANY(%s) RETURNING size", ([*ids],)
            ).fetchall()
            connection.execute(
                "UPDATE letter_totals SET kept = kept - %s, bytes = bytes - %s",
                (len(gone), sum(size for (size,) in gone)),
            )
            return len(gone)

        return await self._writer.write(work, synced=False)

    async def change(self, letter: DeadLetter) -> None:
        new = cut(letter, self._max_payload_bytes)

        def work(connection: Connection) -> None:
            _lock(connection)
            before = connection.execute("SELECT size FROM letters WHERE id = %s", (new.id,)).fetchone()
            if before is None:
                return
            size = size_of(new)
            connection.execute(
                "UPDATE letters SET reason = %s, replays = %s, tried_at = %s, request = %b, size = %s WHERE id = %s",
                (storable(new.reason), new.replays, new.tried_at, new.request, size, new.id),
            )
            connection.execute("UPDATE letter_totals SET bytes = bytes + %s", (size - before[0],))

        await self._writer.write(work, synced=False)

    async def _some(
        self, where: str, order: str, letter_id: int, limit: int, wanted: LettersWanted
    ) -> list[DeadLetter]:
        oldest = self._clock.now() - self._max_age_s
        more, values = sql_of(wanted, "%s", _FOUND)
        query = f"SELECT {_COLUMNS} FROM letters WHERE {where} AND at >= %s{more} ORDER BY {order} LIMIT %s"

        def work(connection: Connection) -> list[DeadLetter]:
            given = [storable(each) if isinstance(each, str) else each for each in values]
            rows = connection.execute(query.encode(), (letter_id, oldest, *given, limit))
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


def _lock(connection: Connection) -> None:
    """In the order in which add() does it: first the totals, then the letters."""
    connection.execute("SELECT 1 FROM letter_totals FOR UPDATE")


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
