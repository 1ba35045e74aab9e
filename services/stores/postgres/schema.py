"""Brings the tables up to date: numbered .sql files, one after the other, by one process at a time. Called by
pool.py before the first connection is used.

A file NUMBER_name.SERVER.sql is for that server alone; elsewhere its number counts as done. Where tables can be made
within a transaction (PostgreSQL) all files run in one, under an advisory lock. Elsewhere a row of the table of versions
is the lock, and a statement that ran before a crash runs again: each says IF NOT EXISTS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

import psycopg

from models.errors import Broken
from services.stores.postgres.server import Server

FOLDER = "migrations"
#: The advisory lock, any number that is nobody else's: "llm-im" in ASCII.
ADVISORY_LOCK = 0x6C6C6D2D696D
#: The two rows of the table of versions.
_VERSION, _LOCK = 1, 2
_NAME = re.compile(r"(\d{4})_\w+(?:\.(\w+))?\.sql")


def migrate(connection: psycopg.Connection[Any], server: Server, schema: str) -> None:
    """Raises Broken for tables that a newer program made."""
    newest = max(number for number, _server, _text in scripts())
    if _version(connection, schema, newest) == newest:
        return
    if server == "postgresql":
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
            # Who waited for the lock may find it done. A snapshot would still show what was before.
            _run(connection, server, schema, newest)
        return
    _make_versions(connection, schema)
    with psycopg.connect(connection.info.dsn, password=connection.info.password) as holder:
        holder.execute(f"SELECT 1 FROM {schema}.migrations WHERE place = {_LOCK} FOR UPDATE".encode())
        _run(connection, server, schema, newest)


def scripts() -> Iterator[tuple[int, str | None, str]]:
    """Number, the server that it is for alone, and text of each file, in their order."""
    for each in sorted(resources.files(__package__).joinpath(FOLDER).iterdir(), key=lambda file: file.name):
        if name := _NAME.fullmatch(each.name):
            yield int(name[1]), name[2], each.read_text("utf-8")


def _version(connection: psycopg.Connection[Any], schema: str, newest: int) -> int:
    try:
        found = connection.execute(
            f"SELECT version FROM {schema}.migrations WHERE place = {_VERSION}".encode()
        ).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return 0
    version = int(found[0]) if found else 0
    if version > newest:
        raise Broken(
            f"schema {schema} is of version {version}, this program knows {newest}: a newer program made it"
        )
    return version


def _make_versions(connection: psycopg.Connection[Any], schema: str) -> None:
    # Asked first: who owns the schema alone may not say CREATE SCHEMA, not even IF NOT EXISTS.
    if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone() is None:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}".encode())
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {schema}.migrations (place bigint PRIMARY KEY, version bigint NOT NULL)".encode()
    )
    connection.execute(
        f"INSERT INTO {schema}.migrations VALUES ({_VERSION}, 0), ({_LOCK}, 0) ON CONFLICT DO NOTHING".encode()
    )


def _run(connection: psycopg.Connection[Any], server: Server, schema: str, newest: int) -> None:
    _make_versions(connection, schema)
    done = _version(connection, schema, newest)
    connection.execute("SELECT set_config('search_path', %s, false)", (schema,))
    for number, only_for, text in scripts():
        if number <= done:
            continue
        if only_for in (None, server):
            for statement in text.split(";\n"):
                if statement.strip():
                    connection.execute(statement.encode())
        connection.execute("UPDATE migrations SET version = %s WHERE place = %s", (number, _VERSION))
