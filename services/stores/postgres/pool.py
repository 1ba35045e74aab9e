"""The connections of one process to a PostgreSQL. Called by lane.py.

One psycopg pool for all adapters of the process. A pool connects in a thread of its own, and who waits for a connection
hears from it only that time ran out; so what went wrong is kept here and told at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from models.errors import Unavailable
from services.stores.postgres.options import PostgresOptions
from services.stores.postgres.schema import migrate
from services.stores.postgres.server import look_at

#: A connection idle for longer is asked whether it is alive: the peer may have gone without a word, and a write sent to
#: nobody would count as one of unknown outcome.
IDLE_BEFORE_CHECK_S = 1.0
#: A connection that nobody used for so long is closed.
MAX_IDLE_S = 120.0
#: How often who waits for a connection looks whether connecting failed meanwhile.
LOOK_EVERY_S = 0.05
#: How long bringing the tables up to date may take, with the wait for another process that does so.
MIGRATION_LIMIT_S = 300.0
#: How much longer than the server's own limit we wait for its answer: an error from the server says what was kept.
GRACE_S = 1.0


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection and what is known of it."""

    used_at = 0.0
    #: What the server warned of since it was last asked: a commit that no standby confirmed is only a warning.
    warned: str | None = None
    #: Whether a transaction may leave the wait for the disk to the next one.
    may_defer_sync = False
    #: Whether the archive is divided into months: elsewhere it is one table.
    has_months = False

    @classmethod
    def connect(  # type: ignore[override]
        cls, conninfo: str = "", *, failed: Callable[[Exception], None], **more: Any
    ) -> Connection:
        """As the client's, and a failed attempt is told."""
        try:
            return super().connect(conninfo, **more)
        except Exception as error:
            failed(error)
            raise


class Pool:
    """Connections that are opened when they are needed. Each one was looked at before it is given."""

    def __init__(self, options: PostgresOptions) -> None:
        self._options = options
        self._failed: tuple[float, Exception] | None = None
        self._migrated = False
        self._doubted_at = 0.0
        # Its own words, one a failed attempt, would only repeat what our errors say.
        logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
        self._pool = ConnectionPool(
            options.url,
            connection_class=Connection,
            kwargs={
                "failed": self._remember,
                "autocommit": True,
                "connect_timeout": max(1, round(options.connect_timeout_s)),
                "tcp_user_timeout": round(options.timeout_s * 1000),
                "fallback_application_name": "llm-im",
            },
            min_size=0,
            max_size=options.max_connections,
            configure=self._configure,
            check=self._check,
            max_idle=MAX_IDLE_S,
            reconnect_timeout=0.0,  # one attempt: who waits decides whether there is another
            num_workers=1,
            open=True,
        )

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """One for the caller alone. Raises the client's error, or ours, when there is none to be had."""
        found = self._get()
        try:
            yield found
        finally:
            found.used_at = time.monotonic()
            self._pool.putconn(found)

    def doubt(self) -> None:
        """The server left one unanswered: those that were not heard of since are as likely dead, half-open each. They are
        made anew when they are needed, not waited for one after the other."""
        self._doubted_at = time.monotonic()

    def close(self) -> None:
        self._pool.close(timeout=self._options.timeout_s)

    def _get(self) -> Connection:
        begun = time.monotonic()
        while True:
            try:
                return self._pool.getconn(timeout=LOOK_EVERY_S)
            except PoolTimeout:
                failed = self._failed
                if failed is not None and failed[0] >= begun:
                    raise failed[1] from None
                if time.monotonic() - begun > self._options.connect_timeout_s + GRACE_S:
                    raise Unavailable(
                        f"no connection within {self._options.connect_timeout_s:g} s; this process may have"
                        f" {self._options.max_connections} (state.postgres.max_connections)"
                    ) from None

    def _remember(self, error: Exception) -> None:
        self._failed = (time.monotonic(), error)

    def _configure(self, connection: Connection) -> None:
        try:
            with bounded(connection, self._options.connect_timeout_s):
                server = look_at(connection, self._options)
            if not self._migrated:
                with bounded(connection, MIGRATION_LIMIT_S):
                    migrate(connection, server, self._options.schema)
                self._migrated = True
            with bounded(connection, self._options.connect_timeout_s):
                connection.execute(
                    "SELECT set_config('search_path', %s, false), set_config('statement_timeout', %s, false),"
                    # One that was stopped in the middle must not keep the next writer out.
                    " set_config('idle_in_transaction_session_timeout', %s, false)",
                    (self._options.schema, *[str(round(self._options.timeout_s * 1000))] * 2),
                )
        except Exception as error:
            self._remember(error)
            raise
        connection.may_defer_sync = connection.has_months = server == "postgresql"
        connection.add_notice_handler(lambda notice: _heard(connection, notice))
        connection.used_at = time.monotonic()

    def _check(self, connection: Connection) -> None:
        if connection.used_at < self._doubted_at:
            connection.close()  # one that is open would be put back
            raise psycopg.OperationalError("not heard of since the server left another one unanswered")
        if time.monotonic() - connection.used_at > IDLE_BEFORE_CHECK_S:
            try:
                with bounded(connection, self._options.connect_timeout_s):
                    connection.execute("SELECT 1")
            except psycopg.Error:
                self.doubt()
                raise


def _heard(connection: Connection, notice: psycopg.errors.Diagnostic) -> None:
    if notice.severity_nonlocalized == "WARNING":
        connection.warned = notice.message_primary or "a warning"


@contextlib.contextmanager
def bounded(connection: Connection, limit_s: float) -> Iterator[None]:
    """Cuts the connection when the server does not answer in time: the client itself would wait for ever."""
    timer = threading.Timer(limit_s, cut, (connection,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def cut(connection: Connection) -> None:
    """End it under whoever waits on it, from any thread. They hear that the server closed it."""
    with contextlib.suppress(psycopg.Error, OSError, ValueError):
        handle = os.dup(connection.fileno())
        with socket.socket(fileno=handle) as found:
            found.shutdown(socket.SHUT_RDWR)
