"""Dead letters in one SQLite file that all gateways write. Called by services/ingest/dead_letters.py and the API.

Several processes write it, each waits for the others' short transactions. Not synced: a letter survives the
death of its process, and a power cut may take the last ones; in return a flood of them costs the logs on the
same disk no syncs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import apsw

from models.ports import EVERY_LETTER, Clock, DeadLetter, LettersWanted
from services.stores.shared.dead_letter_bounds import MAX_PAYLOAD_BYTES, cut, size_of, sql_of
from services.stores.sqlite.files import Lane, open_reader, open_writer, writing

#: Letters read at once while looking for the oldest to drop.
DROP_SLICE = 500

SCHEMA = (
    """
    CREATE TABLE letters (
        id           INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice: readers page by it
        at           REAL    NOT NULL,
        tenant       TEXT    NOT NULL,
        door         TEXT    NOT NULL,
        reason       TEXT    NOT NULL,
        payload      BLOB    NOT NULL,
        content_type TEXT    NOT NULL,
        truncated    INTEGER NOT NULL,
        size         INTEGER NOT NULL                    -- what it counts against max_bytes
    );
    CREATE INDEX letters_by_age ON letters (at, size);
    CREATE TABLE totals (
        id      INTEGER PRIMARY KEY CHECK (id = 1),
        kept    INTEGER NOT NULL,
        bytes   INTEGER NOT NULL,
        dropped INTEGER NOT NULL
    );
    INSERT INTO totals VALUES (1, 0, 0, 0);
    """,
    """
    ALTER TABLE letters ADD COLUMN sender   TEXT    NOT NULL DEFAULT '';
    ALTER TABLE letters ADD COLUMN place    TEXT    NOT NULL DEFAULT '';
    ALTER TABLE letters ADD COLUMN replays  INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE letters ADD COLUMN tried_at REAL    NOT NULL DEFAULT 0;
    ALTER TABLE letters ADD COLUMN request  BLOB    NOT NULL DEFAULT x'';
    """,
)
#: As DeadLetter has them.
_COLUMNS = "at, tenant, door, reason, payload, content_type, id, truncated, sender, place, replays, tried_at, request"
#: The letters of a file that its writer has not brought up to date: who copies a store only reads it.
_OF_BEFORE = (
    "(SELECT *, '' AS sender, '' AS place, 0 AS replays, 0.0 AS tried_at, x'' AS request FROM letters)"
)
_FIRST = 1


class SqliteDeadLetters:
    """models.ports.DeadLetters. Letters past `max_age_s` are not shown; the next add() drops them."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_bytes: int,
        max_age_s: float,
        clock: Clock,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        path = Path(directory) / "dead_letters.db"
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._max_payload_bytes = max_payload_bytes
        self._writer = Lane("dead letters", lambda: open_writer(path, SCHEMA), path.parent)
        self._reader = Lane("dead letters", lambda: open_reader(path, SCHEMA, oldest=_FIRST), path.parent)

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        kept = [cut(letter, self._max_payload_bytes) for letter in letters]
        sizes = [size_of(letter) for letter in kept]
        oldest = self._clock.now() - self._max_age_s

        def work(connection: apsw.Connection) -> None:
            with writing(connection, synced=False):
                connection.executemany(
                    "INSERT INTO letters (at, tenant, door, reason, payload, content_type, truncated, size,"
                    " sender, place, replays, tried_at, request) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        (each.at, each.tenant, each.door, each.reason, each.payload, each.content_type,
                         each.truncated, size, each.sender, each.place, each.replays, each.tried_at, each.request)
                        for each, size in zip(kept, sizes, strict=True)
                    ),
                )  # fmt: skip
                connection.execute(
                    "UPDATE totals SET kept = kept + ?, bytes = bytes + ?", (len(kept), sum(sizes))
                )
                _drop_aged(connection, oldest)
                _drop_over(connection, self._max_bytes)

        await self._writer.run(work)

    async def page(self, after_id: int, limit: int, wanted: LettersWanted = EVERY_LETTER) -> list[DeadLetter]:
        return await self._some("id > ?", "id", after_id, limit, wanted)

    async def latest(
        self, before_id: int, limit: int, wanted: LettersWanted = EVERY_LETTER
    ) -> list[DeadLetter]:
        return await self._some("(id < ?1 OR ?1 = 0)", "id DESC", before_id, limit, wanted)

    async def get(self, letter_id: int) -> DeadLetter | None:
        found = await self._some("id = ?", "id", letter_id, 1, EVERY_LETTER)
        return found[0] if found else None

    async def remove(self, ids: Sequence[int]) -> int:
        def work(connection: apsw.Connection) -> int:
            count = freed = 0
            with writing(connection, synced=False):
                for each in ids:
                    size = connection.execute("DELETE FROM letters WHERE id = ? RETURNING size", (each,)).get
                    if size is not None:
                        count += 1
                        freed += size
                connection.execute("UPDATE totals SET kept = kept - ?, bytes = bytes - ?", (count, freed))
            return count

        return await self._writer.run(work)

    async def change(self, letter: DeadLetter) -> None:
        new = cut(letter, self._max_payload_bytes)

        def work(connection: apsw.Connection) -> None:
            with writing(connection, synced=False):
                before = connection.execute("SELECT size FROM letters WHERE id = ?", (new.id,)).get
                if before is None:
                    return
                size = size_of(new)
                connection.execute(
                    "UPDATE letters SET reason = ?, replays = ?, tried_at = ?, request = ?, size = ? WHERE id = ?",
                    (new.reason, new.replays, new.tried_at, new.request, size, new.id),
                )
                connection.execute("UPDATE totals SET bytes = bytes + ?", (size - before,))

        await self._writer.run(work)

    async def _some(
        self, where: str, order: str, letter_id: int, limit: int, wanted: LettersWanted
    ) -> list[DeadLetter]:
        oldest = self._clock.now() - self._max_age_s
        more, values = sql_of(wanted, "?", "instr(lower(reason), ?)")

        def work(connection: apsw.Connection) -> list[DeadLetter]:
            letters = _OF_BEFORE if connection.pragma("user_version") == _FIRST else "letters"
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM {letters} WHERE {where} AND at >= ?{more} ORDER BY {order} LIMIT ?",
                (letter_id, oldest, *values, limit),
            )
            return [
                DeadLetter(*row[:7], bool(row[7]), *row[8:])  # type: ignore[call-arg]
                for row in cast("Iterator[tuple[Any, ...]]", rows)
            ]

        return await self._reader.run(work, list)

    async def stats(self) -> dict[str, int]:
        def work(connection: apsw.Connection) -> dict[str, int]:
            kept, size, dropped = cast(
                "tuple[int, int, int]", connection.execute("SELECT kept, bytes, dropped FROM totals").get
            )
            return {"kept": kept, "bytes": size, "dropped": dropped}

        return await self._reader.run(work, lambda: {"kept": 0, "bytes": 0, "dropped": 0})

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()


def _drop_aged(connection: apsw.Connection, oldest: float) -> None:
    count, size = cast(
        "tuple[int, int]",
        connection.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM letters WHERE at < ?", (oldest,)
        ).get,
    )
    if count:
        connection.execute("DELETE FROM letters WHERE at < ?", (oldest,))
        _count_dropped(connection, count, size)


def _drop_over(connection: apsw.Connection, max_bytes: int) -> None:
    total: int = connection.execute("SELECT bytes FROM totals").get
    while total > max_bytes:
        rows = connection.execute(
            "SELECT id, size FROM letters ORDER BY id LIMIT ?", (DROP_SLICE,)
        ).fetchall()
        count = freed = last = 0
        for letter, size in cast("list[tuple[int, int]]", rows):
            count += 1
            freed += size
            last = letter
            if total - freed <= max_bytes:
                break
        if not count:
            return
        connection.execute("DELETE FROM letters WHERE id <= ?", (last,))
        _count_dropped(connection, count, freed)
        total -= freed


def _count_dropped(connection: apsw.Connection, count: int, size: int) -> None:
    connection.execute(
        "UPDATE totals SET kept = kept - ?, bytes = bytes - ?, dropped = dropped + ?", (count, size, count)
    )
