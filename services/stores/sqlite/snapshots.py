"""The snapshot records and marks inside a log's SQLite file. Called by log.py within its transactions.

A record is one row a (key, generation); the snapshot at a generation is the newest row of each key up to it.
When a mark is closed, what only the mark before the older one needed is dropped: for each key written between
the two, its rows before. That work is found by an index over generations, so it is as large as what changed,
and it is spread over the following put_records() calls, so no call is long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import apsw

from models.errors import Damaged
from models.ports import Mark
from services.stores.shared.snapshot_checks import is_whole, mark_check, not_kept, record_check

#: One page of records(): see READ_LIMIT_BYTES.
RECORDS_LIMIT_BYTES = 4 * 1024 * 1024
#: Keys tidied for each record put. Over 1, so that tidying catches up with any steady rate of writing.
PRUNE_PER_RECORD = 2
#: Keys looked at by a call that puts few or no records: some 2 ms.
PRUNE_LEAST = 500
#: Bytes of rows dropped by one call: freeing their pages takes milliseconds. Without it 500 records of 130 kB held
#: every append up for half a second.
PRUNE_BYTES = 1024 * 1024

TABLES = """
    CREATE TABLE marks (
        generation INTEGER PRIMARY KEY,
        seq        INTEGER NOT NULL,
        digest     BLOB    NOT NULL,
        version    INTEGER NOT NULL,
        checksum   BLOB    NOT NULL,     -- the caller's, over all records; opaque here
        own_check  BLOB    NOT NULL      -- over the columns before
    );
    CREATE TABLE records (
        key        TEXT    NOT NULL,
        generation INTEGER NOT NULL,
        own_check  BLOB    NOT NULL,     -- over key, generation and body
        body       BLOB,                 -- NULL is a tombstone
        PRIMARY KEY (key, generation)
    ) WITHOUT ROWID;
    CREATE INDEX records_by_generation ON records (generation, key);
"""

#: Schema 2. In a table WITHOUT ROWID the body is part of the key's tree, and each step of a search there reads whole
#: bodies of 130 kB: tidying 500 keys held every append up for 0.3 s. Now the trees that are searched hold keys only.
ROWS_APART = """
    CREATE TABLE records_2 (
        key        TEXT    NOT NULL,
        generation INTEGER NOT NULL,
        own_check  BLOB    NOT NULL,     -- over key, generation and body
        body       BLOB,                 -- NULL is a tombstone
        UNIQUE (key, generation)
    );
    INSERT INTO records_2 SELECT key, generation, own_check, body FROM records ORDER BY key, generation;
    DROP TABLE records;
    ALTER TABLE records_2 RENAME TO records;
    CREATE INDEX records_by_generation ON records (generation, key);
"""


@dataclass(slots=True)
class Pruning:
    """Where tidying stands between two calls. Lost at a crash: it begins again at log.pruned_to."""

    generation: int = 0
    key: str = ""


def put(
    partition: str, connection: apsw.Connection, generation: int, records: Sequence[tuple[str, bytes | None]]
) -> None:
    newest: int = connection.execute("SELECT coalesce(max(generation), 0) FROM marks").get
    if generation <= newest:
        raise ValueError(f"{partition}: records of generation {generation}, but {newest} is already closed")
    connection.executemany(
        "INSERT INTO records (key, generation, own_check, body) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (key, generation) DO UPDATE SET own_check = excluded.own_check, body = excluded.body",
        ((key, generation, record_check(key, generation, body), body) for key, body in records),
    )


def close(partition: str, connection: apsw.Connection, mark: Mark) -> None:
    """Store the mark, forget all but it and the one before. It counts when the transaction is durable."""
    newest: int = connection.execute("SELECT coalesce(max(generation), 0) FROM marks").get
    if mark.generation <= newest:
        raise ValueError(f"{partition}: mark of generation {mark.generation}, but {newest} is already closed")
    connection.execute(
        "INSERT INTO marks VALUES (?, ?, ?, ?, ?, ?)",
        (mark.generation, mark.seq, mark.digest, mark.version, mark.checksum, mark_check(mark)),
    )
    connection.execute(
        "DELETE FROM marks WHERE generation NOT IN"
        " (SELECT generation FROM marks ORDER BY generation DESC LIMIT 2)"
    )


def marks(partition: str, connection: apsw.Connection) -> list[Mark]:
    """Newest first. A damaged mark is left out while another is whole, to replay from."""
    rows = cast(
        "list[tuple[int, int, bytes, int, bytes, bytes]]",
        connection.execute(
            "SELECT generation, seq, digest, version, checksum, own_check FROM marks"
            " ORDER BY generation DESC LIMIT 2"
        ).fetchall(),
    )
    found = [(Mark(*row[:5]), row[5]) for row in rows]
    whole = [mark for mark, check in found if is_whole(mark, check)]
    if found and not whole:
        raise Damaged(partition, found[0][0].seq, "no snapshot mark matches its checksum")
    return whole


def page(
    partition: str, connection: apsw.Connection, generation: int, least: str
) -> tuple[list[tuple[str, bytes]], str | None]:
    """Records with key >= least, and the least key of the next page (None: the end). One read transaction."""
    if connection.execute("SELECT 1 FROM marks WHERE generation = ?", (generation,)).get is None:
        not_kept(partition, generation)
    cursor = connection.execute(
        "SELECT key, generation, own_check, body FROM records WHERE key >= ? AND generation <= ?"
        " ORDER BY key, generation",
        (least, generation),
    )
    records: list[tuple[str, bytes]] = []
    size = 0
    newest: tuple[str, int, bytes, bytes | None] | None = None
    try:
        for row in cast("Iterator[tuple[str, int, bytes, bytes | None]]", cursor):
            if newest is not None and row[0] != newest[0]:
                size += _take(partition, newest, records)
                if size >= RECORDS_LIMIT_BYTES:
                    return records, row[0]
            newest = row
    finally:
        cursor.close()
    if newest is not None:
        _take(partition, newest, records)
    return records, None


def drop_unfinished(partition: str, connection: apsw.Connection) -> None:
    """Forget the records of a snapshot that was never closed: its generation will be used again."""
    connection.execute(
        "DELETE FROM records WHERE generation > (SELECT coalesce(max(generation), 0) FROM marks)"
    )


def oldest_needed_seq(partition: str, connection: apsw.Connection) -> int:
    """Frames up to here are in two snapshots. 0 while there is one: were it damaged, only all frames help."""
    kept = marks(partition, connection)
    return kept[1].seq if len(kept) > 1 else 0


def prune(partition: str, connection: apsw.Connection, at: Pruning, keys: int) -> None:
    """Drop rows that neither mark needs, of at most max(keys, PRUNE_LEAST) keys."""
    keys = max(keys, PRUNE_LEAST)
    older: int | None = connection.execute("SELECT min(generation) FROM marks HAVING count(*) > 1").get
    pruned_to: int = connection.execute("SELECT pruned_to FROM log").get
    if older is None or pruned_to >= older:
        return
    if at.generation <= pruned_to:
        at.generation, at.key = pruned_to + 1, ""
    found = cast(
        "list[tuple[int, str]]",
        connection.execute(
            "SELECT generation, key FROM records INDEXED BY records_by_generation"
            " WHERE (generation, key) >= (?, ?) AND generation <= ? ORDER BY generation, key LIMIT ?",
            (at.generation, at.key, older, keys),
        ).fetchall(),
    )
    taken, size = 0, 0
    for generation, key in found:
        if size >= PRUNE_BYTES:
            break
        size += connection.execute(
            "SELECT coalesce(sum(length(body)), 0) FROM records WHERE key = ? AND generation < ?",
            (key, generation),
        ).get
        taken += 1
    cut_short = taken < len(found)
    found = found[:taken]
    connection.executemany(
        "DELETE FROM records WHERE key = ? AND generation < ?",
        ((key, generation) for generation, key in found),
    )
    # With nothing before it a tombstone says nothing that its absence does not.
    connection.executemany(
        "DELETE FROM records WHERE key = ? AND generation = ? AND body IS NULL",
        ((key, generation) for generation, key in found),
    )
    if len(found) < keys and not cut_short:
        connection.execute("UPDATE log SET pruned_to = ?", (older,))
    else:
        at.generation, at.key = found[-1][0], found[-1][1] + "\0"  # the least key after it


def _take(partition: str, row: tuple[str, int, bytes, bytes | None], into: list[tuple[str, bytes]]) -> int:
    key, generation, check, body = row
    if record_check(key, generation, body) != check:
        raise Damaged(
            partition, 0, f"snapshot record {key!r} of generation {generation} does not match its checksum"
        )
    if body is None:
        return 0
    into.append((key, body))
    return len(key) + len(body)
