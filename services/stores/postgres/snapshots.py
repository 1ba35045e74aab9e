"""The snapshot records and marks of a log in PostgreSQL. Called by log.py within its transactions.

As in SQLite: a record is one row a (key, generation), the snapshot at a generation is the newest row of each key up to
it, and what a closed mark makes needless is dropped step by step by the following put_records() calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from models.errors import Damaged
from models.ports import Mark
from services.stores.postgres.pool import Connection
from services.stores.shared.snapshot_checks import is_whole, mark_check, not_kept, record_check

#: One page of records(): see READ_LIMIT_BYTES.
RECORDS_LIMIT_BYTES = 4 * 1024 * 1024
#: Records looked at for one page, so that small ones do not make the server add up all of them.
RECORDS_LIMIT = 4000
#: Keys tidied for each record put. Over 1, so that tidying catches up with any steady rate of writing.
PRUNE_PER_RECORD = 2
#: Keys looked at by a call that puts few or no records: some milliseconds, which an append may have to wait.
PRUNE_LEAST = 500
#: Bytes of rows dropped by one call, for the same reason.
PRUNE_BYTES = 4 * 1024 * 1024
#: Records of an unfinished snapshot dropped in one transaction: some 50 ms, and far from any timeout.
DROP_SLICE = 10_000

#: Generation and key.
Row = tuple[int, bytes]


@dataclass(slots=True)
class Pruning:
    """Where tidying stands between two calls. Lost at a crash: it begins again at logs.pruned_to."""

    generation: int = 0
    key: bytes = b""


def put(
    partition: str, connection: Connection, generation: int, records: Sequence[tuple[str, bytes | None]]
) -> None:
    if generation <= (newest := _newest(partition, connection)):
        raise ValueError(f"{partition}: records of generation {generation}, but {newest} is already closed")
    latest = dict(records)  # one statement can't write a row twice
    connection.execute(
        "INSERT INTO records (partition, key, generation, own_check, body)"
        " SELECT %s, key, %s, own_check, body FROM unnest(%b::bytea[], %b::bytea[], %b::bytea[])"
        " AS given (key, own_check, body)"
        " ON CONFLICT (partition, key, generation) DO UPDATE"
        " SET own_check = excluded.own_check, body = excluded.body",
        (
            partition,
            generation,
            [key.encode() for key in latest],
            [record_check(key, generation, body) for key, body in latest.items()],
            list(latest.values()),
        ),
    )


def close(partition: str, connection: Connection, mark: Mark) -> None:
    """Store the mark, forget all but it and the one before. It counts when the transaction is durable."""
    if mark.generation <= (newest := _newest(partition, connection)):
        raise ValueError(f"{partition}: mark of generation {mark.generation}, but {newest} is already closed")
    connection.execute(
        "INSERT INTO marks VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (partition, mark.generation, mark.seq, mark.digest, mark.version, mark.checksum, mark_check(mark)),
    )
    connection.execute(
        "DELETE FROM marks WHERE partition = %s AND generation < %s AND generation <> %s",
        (partition, mark.generation, newest),
    )


def marks(partition: str, connection: Connection) -> list[Mark]:
    """Newest first. A damaged mark is left out while another is whole, to replay from."""
    rows = connection.execute(
        "SELECT generation, seq, digest, version, checksum, own_check FROM marks WHERE partition = %s"
        " ORDER BY generation DESC LIMIT 2",
        (partition,),
    ).fetchall()
    found = [(Mark(*row[:5]), row[5]) for row in rows]
    whole = [mark for mark, check in found if is_whole(mark, check)]
    if found and not whole:
        raise Damaged(partition, found[0][0].seq, "no snapshot mark matches its checksum")
    return whole


def page(
    partition: str, connection: Connection, generation: int, least: bytes
) -> tuple[list[tuple[str, bytes]], bytes | None]:
    """Records with key >= least, and the least key of the next page (None: the end). One read transaction."""
    kept = connection.execute(
        "SELECT 1 FROM marks WHERE partition = %s AND generation = %s", (partition, generation)
    ).fetchone()
    if kept is None:
        not_kept(partition, generation)
    rows = connection.execute(
        "SELECT key, generation, own_check, body FROM ("
        " SELECT newest.*, sum(size) OVER (ORDER BY key) - size AS before FROM ("
        "  SELECT DISTINCT ON (key) key, generation, own_check, body,"
        "   octet_length(key) + coalesce(octet_length(body), 0) AS size"
        "  FROM records WHERE partition = %s AND key >= %s AND generation <= %s"
        "  ORDER BY key, generation DESC LIMIT %s"
        " ) AS newest) AS sized WHERE before < %s ORDER BY key",
        (partition, least, generation, RECORDS_LIMIT, RECORDS_LIMIT_BYTES),
    ).fetchall()
    found: list[tuple[str, bytes]] = []
    for key, its_generation, check, body in cast("list[tuple[bytes, int, bytes, bytes | None]]", rows):
        name = key.decode()
        if record_check(name, its_generation, body) != check:
            how = f"snapshot record {name!r} of generation {its_generation} does not match its checksum"
            raise Damaged(partition, 0, how)
        if body is not None:
            found.append((name, body))
    return found, rows[-1][0] + b"\0" if rows else None  # the least key after it


def drop_unfinished(partition: str, connection: Connection, after: Row | None) -> Row | None:
    """Forget DROP_SLICE of the records of a snapshot that was never closed, those behind `after`. The last of them; None when
    no more are left."""
    low = after or (_newest(partition, connection) + 1, b"")
    # From where the last slice ended: what was deleted is still in the index, and would be gone through each time.
    last = connection.execute(
        "SELECT generation, key FROM records WHERE partition = %s AND (generation, key) > (%s, %s)"
        " ORDER BY generation, key LIMIT 1 OFFSET %s",
        (partition, *low, DROP_SLICE - 1),
    ).fetchone()
    connection.execute(
        "DELETE FROM records WHERE partition = %s AND (generation, key) > (%s, %s)"
        + (" AND (generation, key) <= (%s, %s)" if last else ""),
        (partition, *low, *(last or ())),
    )
    return last


def oldest_needed_seq(partition: str, connection: Connection) -> int:
    """Frames up to here are in two snapshots. 0 while there is one: were it damaged, only all frames help."""
    kept = marks(partition, connection)
    return kept[1].seq if len(kept) > 1 else 0


def prune(partition: str, connection: Connection, at: Pruning, keys: int) -> None:
    """Drop rows that neither mark needs, of at most max(keys, PRUNE_LEAST) keys."""
    keys = max(keys, PRUNE_LEAST)
    row = connection.execute(
        "SELECT pruned_to, (SELECT min(generation) FROM marks WHERE partition = %(partition)s HAVING count(*) > 1)"
        " FROM logs WHERE partition = %(partition)s",
        {"partition": partition},
    ).fetchone()
    pruned_to, older = cast("tuple[int, int | None]", row)
    if older is None or pruned_to >= older:
        return
    if at.generation <= pruned_to:
        at.generation, at.key = pruned_to + 1, b""
    found = connection.execute(
        "SELECT generation, key, (SELECT coalesce(sum(octet_length(body)), 0) FROM records AS superseded"
        "  WHERE superseded.partition = records.partition AND superseded.key = records.key"
        "  AND superseded.generation < records.generation)"
        " FROM records WHERE partition = %s AND (generation, key) >= (%s, %s) AND generation <= %s"
        " ORDER BY generation, key LIMIT %s",
        (partition, at.generation, at.key, older, keys),
    ).fetchall()
    taken, size = 0, 0
    for _generation, _key, superseded in found:
        if size >= PRUNE_BYTES:
            break
        size += superseded
        taken += 1
    cut_short = taken < len(found)
    done = cast("list[tuple[int, bytes, int]]", found[:taken])
    of_those = (partition, [each[1] for each in done], [each[0] for each in done], partition)
    given = "unnest(%b::bytea[], %b::bigint[]) AS given (key, generation)"
    if done:
        connection.execute(
            "DELETE FROM records WHERE partition = %s AND (key, generation) IN ("
            f" SELECT records.key, records.generation FROM {given} JOIN records ON records.partition = %s"
            "  AND records.key = given.key AND records.generation < given.generation)",
            of_those,
        )
        # With nothing before it a tombstone says nothing that its absence does not.
        connection.execute(
            "DELETE FROM records WHERE partition = %s AND body IS NULL"
            f" AND (key, generation) IN (SELECT key, generation FROM {given})",
            of_those[:3],
        )
    if len(found) < keys and not cut_short:
        connection.execute("UPDATE logs SET pruned_to = %s WHERE partition = %s", (older, partition))
    else:
        at.generation, at.key = done[-1][0], done[-1][1] + b"\0"  # the least key after it


def _newest(partition: str, connection: Connection) -> int:
    row = connection.execute(
        "SELECT coalesce(max(generation), 0) FROM marks WHERE partition = %s", (partition,)
    ).fetchone()
    (newest,) = cast("tuple[int]", row)
    return newest
