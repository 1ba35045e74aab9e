"""The tables of the archive in PostgreSQL: one a partition and month (UTC) in which incidents were created, made and
dropped here. Called by archive.py.

    incidents                       a view of all of them: what is read
    incidents_by_month              divided by partition, what is written
    incidents_shard_0007            a partition's, divided by the month of the id
    incidents_shard_0007_2026_11    incidents of shard/0007 created in November 2026
    incidents_before_months         what was archived before there were months: read, searched, never added to

A month's table is made in the transaction that puts the first incident of its month, and dropped when all in it may be
forgotten: no row is deleted then, and its disk is free at once. Making one lets readers and writers pass. Dropping one
shuts them out of that partition's archive, each attempt for LOCK_WAIT_MS at most, so a list beside it is of all months
that were there, or of all that are left. CockroachDB and YugabyteDB keep `incidents` as one table.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import Any, cast

from psycopg import sql

from services.stores.postgres.pool import Connection
from services.stores.shared.archive_months import ids_of, month_of

#: How long the change of a table waits for who is using it, and who comes meanwhile waits behind it. More than most lists
#: take, and less than would be noticed in one; whoever waits in vain tries again (lane.py).
LOCK_WAIT_MS = 200
#: Incidents that one statement counts: half a second where nothing of them is in memory.
COUNTED_AT_ONCE = 500_000

_ONE_TABLE = "incidents"
_BY_MONTH = "incidents_by_month"
_BEFORE = "incidents_before_months"
_MONTH = re.compile(r"_(\d{4}_\d{2})$")
_PLAIN = re.compile(r"[a-z0-9]{1,20}(/[a-z0-9]{1,20})?")


def to_write(connection: Connection, partition: str, ids: Collection[bytes]) -> str:
    """The table that these are put into, with the months they need. None of them is anywhere else after it."""
    if not connection.has_months:
        return _ONE_TABLE
    own = _of_partition(partition)
    there = _parts(connection, own)
    missing = [month for month in sorted(set(map(month_of, ids))) if _of_month(own, month) not in there]
    if missing:
        connection.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS:d}".encode())
        listed = sql.Literal(partition).as_string(connection)
        if not _parts(connection, _BY_MONTH, own):
            _make(connection, _BY_MONTH, own, f"IN ({listed})", "PARTITION BY RANGE (incident_id)")
        for month in missing:
            first, end = (f"'\\x{each.hex()}'" for each in ids_of(month))
            _make(connection, own, _of_month(own, month), f"FROM ({first}) TO ({end})")
    connection.execute(
        f"DELETE FROM {_BEFORE} WHERE partition = %s AND incident_id = ANY (%b::bytea[])".encode(),
        (partition, list(ids)),
    )
    return _BY_MONTH


def with_rows(connection: Connection) -> tuple[str, ...]:
    """The tables that rows are deleted from."""
    return (_BY_MONTH, _BEFORE) if connection.has_months else (_ONE_TABLE,)


def past(connection: Connection, partition: str, closed_before: float) -> list[str]:
    """The months of a partition in which all incidents were closed before then, in their order. In a transaction whose
    statements see what was committed before each."""
    own = _of_partition(partition)
    if not connection.has_months or not _parts(connection, _BY_MONTH, own):
        return []
    # None of them is dropped while they are looked at.
    connection.execute(f"LOCK TABLE ONLY {own} IN ACCESS SHARE MODE".encode())
    months = [found[1] for name in _parts(connection, own) if (found := _MONTH.search(name))]
    return [
        month.replace("_", "-")
        for month in months
        if _is_past(connection, _of_month(own, month), partition, closed_before)
    ]


def counted(connection: Connection, partition: str, first: bytes, end: bytes) -> tuple[int, bytes]:
    """How many of a month's incidents have first <= id < end, COUNTED_AT_ONCE at most, and where to go on from: `end` when
    all are counted."""
    ranged = f"FROM {_BY_MONTH} WHERE partition = %s AND incident_id >= %b AND incident_id < %b"

    def ask(text: str) -> tuple[Any, ...] | None:
        return connection.execute(text.encode(), (partition, first, end), prepare=False).fetchone()

    further = ask(f"SELECT incident_id {ranged} ORDER BY incident_id OFFSET {COUNTED_AT_ONCE:d} LIMIT 1")
    if further is not None:
        return COUNTED_AT_ONCE, further[0]
    (count,) = cast("tuple[int]", ask(f"SELECT count(*) {ranged}"))
    return count, end


def drop(connection: Connection, partition: str, month: str, closed_before: float) -> bool:
    """Drop a month's table, unless one that was closed later was put into it meanwhile, or it is gone."""
    own = _of_partition(partition)
    name = _of_month(own, month)
    connection.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS:d}".encode())
    connection.execute(f"LOCK TABLE ONLY {own} IN ACCESS EXCLUSIVE MODE".encode())
    if not _parts(connection, own, name) or not _is_past(connection, name, partition, closed_before):
        return False
    connection.execute(f"DROP TABLE {name}".encode())
    return True


def _make(connection: Connection, parent: str, name: str, holds: str, divided: str = "") -> None:
    """A table, attached to its parent. Attaching takes a lock that lets readers and writers of the parent pass; making it
    as PARTITION OF would not."""
    connection.execute(f"LOCK TABLE ONLY {parent} IN SHARE UPDATE EXCLUSIVE MODE".encode())
    if _parts(connection, parent, name):
        return  # another one made it while we waited
    connection.execute(f"CREATE TABLE IF NOT EXISTS {name} (LIKE {parent} INCLUDING ALL) {divided}".encode())
    connection.execute(f"ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES {holds}".encode())


def _parts(connection: Connection, parent: str, name: str | None = None) -> list[str]:
    """The tables that are attached to this one, in the order of their names; only `name` when it is given."""
    rows = connection.execute(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = to_regclass(%s) AND relname = coalesce(%s, relname) ORDER BY relname",
        (parent, name),
    )
    return [relname for (relname,) in rows]


def _is_past(connection: Connection, name: str, partition: str, closed_before: float) -> bool:
    (newest,) = cast(
        "tuple[float | None]",
        connection.execute(
            f"SELECT max(closed_at) FROM {name} WHERE partition = %s".encode(), (partition,)
        ).fetchone(),
    )
    return newest is None or newest < closed_before


def _of_partition(partition: str) -> str:
    """The name of a partition's table. One that is not plain is named by its digest: no two share a table, and nothing that
    would have to be quoted is in a statement."""
    if _PLAIN.fullmatch(partition):
        return f"incidents_{partition.replace('/', '_')}"
    return f"incidents_{hashlib.blake2b(partition.encode(), digest_size=8).hexdigest()}"


def _of_month(own: str, month: str) -> str:
    return f"{own}_{month.replace('-', '_')}"
