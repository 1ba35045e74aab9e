"""Which server a connection leads to, and whether it would keep what it acknowledged. Called by pool.py.

PostgreSQL, and what speaks like it: CockroachDB and YugabyteDB replicate by Raft and sync each write, so their settings
of that name say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import psycopg

from models.errors import Unavailable
from services.stores.postgres.options import MULTI_REGION, SYNCHRONOUS, PostgresOptions

Server = Literal["postgresql", "cockroachdb", "yugabytedb"]

#: 140000 is 14.0.
POSTGRES_NEEDED = 140000
#: Settings looked at before a PostgreSQL is trusted with a log.
LOOKED_AT = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names")
#: Values of synchronous_commit with which a standby that must confirm is waited for.
_WAITS = ("on", "remote_apply", "remote_write")


def look_at(connection: psycopg.Connection[Any], options: PostgresOptions) -> Server:
    """What the connection leads to. Raises Unavailable, naming the setting, for a server that takes no writes, is too
    old, is another than the settings say, or would lose what it acknowledged."""
    version, read_only = _row(connection, "SELECT version(), current_setting('transaction_read_only')")
    server = server_of(str(version))
    if options.cockroach and server != "cockroachdb":
        raise Unavailable(f'state.backend is "cockroachdb", but the server says it is {version}')
    if read_only == "on":
        raise Unavailable(
            "this server accepts no writes: it is a standby, or default_transaction_read_only is on. The URL must lead to"
            " the primary (several hosts with target_session_attrs=read-write find it)"
        )
    if server == "postgresql":
        if connection.info.server_version < POSTGRES_NEEDED:
            raise Unavailable(f"{version} is too old: PostgreSQL 14 or newer is needed")
        asked = ", ".join(f"current_setting('{name}')" for name in LOOKED_AT)
        found = _row(connection, f"SELECT {asked}")
        faults = refusals(dict(zip(LOOKED_AT, map(str, found), strict=True)), options.replication)
    elif server == "cockroachdb" and options.replication == MULTI_REGION:
        found = _row(connection, "SHOW SURVIVAL GOAL FROM DATABASE")
        faults = [] if found[-1] == "region" else [
            f"the database survives the loss of a {found[-1]}, expected of a region (state.replication is multi-region;"
            " ALTER DATABASE ... SURVIVE REGION FAILURE)"
        ]  # fmt: skip
    elif options.replication:
        faults = [
            f"state.replication is {options.replication!r}, and {server} does not show whether it holds"
        ]
    else:
        faults = []
    if faults and not options.allow_volatile:
        raise Unavailable(
            f"this server can lose acknowledged writes: {'; '.join(faults)}."
            " Change that, or set state.postgres.allow_volatile = true"
        )
    return server


def server_of(version: str) -> Server:
    """From what version() says."""
    if version.startswith("CockroachDB"):
        return "cockroachdb"
    return "yugabytedb" if "-YB-" in version else "postgresql"


def refusals(settings: Mapping[str, str], replication: str) -> list[str]:
    """What in PostgreSQL's settings would lose acknowledged data, in words."""
    found: list[str] = []

    def expect(name: str, right: bool, wanted: str, why: str) -> None:
        if not right:
            found.append(f"{name} is {settings.get(name, '')!r}, expected {wanted} ({why})")

    expect("fsync", settings["fsync"] == "on", "'on'", "else a power cut may damage everything")
    expect(
        "full_page_writes", settings["full_page_writes"] == "on", "'on'",
        "else a power cut may leave half a page",
    )  # fmt: skip
    expect(
        "synchronous_commit", settings["synchronous_commit"] != "off", "'on'",
        "else a crash takes what was answered before its sync",
    )  # fmt: skip
    if replication == SYNCHRONOUS:
        expect(
            "synchronous_standby_names", settings["synchronous_standby_names"] != "", "the names of standbys",
            "state.replication is synchronous, and no standby is waited for",
        )  # fmt: skip
        expect(
            "synchronous_commit", settings["synchronous_commit"] in (*_WAITS, "off"), "'on'",
            "state.replication is synchronous, and no standby is waited for",
        )  # fmt: skip
    return found


def _row(connection: psycopg.Connection[Any], sql: str) -> tuple[Any, ...]:
    found = connection.execute(sql.encode()).fetchone()
    assert found is not None
    return tuple(found)
