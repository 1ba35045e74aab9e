"""Which adapters hold the state: one table, asked by services/wiring/bootstrap.py and inside the actors' processes.

A *place* is what travels to an actor: plain values that say where its state is. Each adapter's library is imported
only where it was chosen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from models.control.control import CONTROL
from models.errors import Malformed, Unavailable
from services.stores.postgres.options import PostgresOptions
from services.stores.redis.options import RedisOptions

if TYPE_CHECKING:
    from models.ports import Archive, Clock, DeadLetters, DeliveryIds, EventLog
    from models.settings.all import Settings

Place = Mapping[str, object]


class Stores(Protocol):
    """All ports of models/ports.py that keep state, opened over one place."""

    def log(self, partition: str) -> EventLog: ...
    def archive(self, partition: str) -> Archive: ...
    def delivery_ids(self, partition: str) -> DeliveryIds: ...

    def dead_letters(
        self, *, max_bytes: int, max_age_s: float, clock: Clock, max_payload_bytes: int
    ) -> DeadLetters: ...

    async def check(self) -> None:
        """Raises what opening a log for writing would, but for who holds it: nothing is changed."""


class SqliteStores:
    def __init__(self, place: Place) -> None:
        self._folder = str(place["folder"])

    @staticmethod
    def place(settings: Settings) -> Place:
        if settings.state.replication is not None:
            raise Malformed("state.replication: SQLite does not replicate; remove this setting")
        return {"folder": data_dir(settings)}

    @staticmethod
    def described(place: Place) -> str:
        return f"SQLite in {place['folder']}"

    def log(self, partition: str) -> EventLog:
        from services.stores.sqlite.log import SqliteEventLog

        return SqliteEventLog(self._folder, partition)

    def archive(self, partition: str) -> Archive:
        from services.stores.sqlite.archive import SqliteArchive

        return SqliteArchive(self._folder, partition)

    def delivery_ids(self, partition: str) -> DeliveryIds:
        from services.stores.sqlite.delivery import SqliteDeliveryIds

        return SqliteDeliveryIds(self._folder, partition)

    def dead_letters(
        self, *, max_bytes: int, max_age_s: float, clock: Clock, max_payload_bytes: int
    ) -> DeadLetters:
        from services.stores.sqlite.dead_letters import SqliteDeadLetters

        return SqliteDeadLetters(
            self._folder, max_bytes=max_bytes, max_age_s=max_age_s, clock=clock, max_payload_bytes=max_payload_bytes
        )  # fmt: skip

    async def check(self) -> None:
        folder = Path(self._folder)
        there = next(each for each in (folder, *folder.parents) if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise Unavailable(f"{folder}: {there} is not a folder that this user may write to")


class RedisStores:
    def __init__(self, place: Place) -> None:
        self._options = msgspec.convert(place, RedisOptions)

    @staticmethod
    def place(settings: Settings) -> Place:
        given = settings.state.redis
        if given.url is None:
            raise Malformed('state.redis.url: required, because state.backend = "redis"')
        options = RedisOptions(
            given.url.get_secret_value(),
            given.prefix,
            given.replicas,
            given.allow_volatile,
            given.connect_timeout,
            given.timeout,
            given.replica_timeout,
        )
        if settings.state.replication is not None:
            raise Malformed(
                "state.replication: for Redis, set the number of replicas in state.redis.replicas"
            )
        if settings.state.consistency == "strong" and options.address.kind != "single":
            raise Malformed(
                'state.consistency = "strong": a Redis failover can lose acknowledged writes;'
                " use postgres or cockroachdb"
            )
        return asdict(options.check())

    @staticmethod
    def described(place: Place) -> str:
        options = msgspec.convert(place, RedisOptions)
        address = options.address
        hosts = ",".join(f"{host}:{port}" for host, port in address.hosts)
        service = f", service {address.service}" if address.service else ""
        return f"Redis at {hosts}{service}, database {address.db}, prefix {options.prefix}"

    def log(self, partition: str) -> EventLog:
        from services.stores.redis.log import RedisEventLog

        return RedisEventLog(self._options, partition)

    def archive(self, partition: str) -> Archive:
        from services.stores.redis.archive import RedisArchive

        return RedisArchive(self._options, partition)

    def delivery_ids(self, partition: str) -> DeliveryIds:
        from services.stores.redis.delivery import RedisDeliveryIds

        return RedisDeliveryIds(self._options, partition)

    def dead_letters(
        self, *, max_bytes: int, max_age_s: float, clock: Clock, max_payload_bytes: int
    ) -> DeadLetters:
        from services.stores.redis.dead_letters import RedisDeadLetters

        return RedisDeadLetters(
            self._options, max_bytes=max_bytes, max_age_s=max_age_s, clock=clock, max_payload_bytes=max_payload_bytes
        )  # fmt: skip

    async def check(self) -> None:
        from services.stores.redis.lane import Lane

        lane = Lane(self._options, CONTROL, CONTROL, durable=True)
        try:
            await lane.ask(("PING",))
        finally:
            await lane.close()


class PostgresStores:
    def __init__(self, place: Place) -> None:
        self._options = msgspec.convert(place, PostgresOptions)

    @staticmethod
    def place(settings: Settings) -> Place:
        state, given = settings.state, settings.state.postgres
        if given.url is None:
            raise Malformed(f'state.postgres.url: required, because state.backend = "{state.backend}"')
        options = PostgresOptions(
            given.url.get_secret_value(),
            given.schema_name,
            given.max_connections,
            given.allow_volatile,
            given.connect_timeout,
            given.timeout,
            state.replication or "",
            cockroach=state.backend == "cockroachdb",
        )
        return asdict(options.check())

    @staticmethod
    def described(place: Place) -> str:
        options = msgspec.convert(place, PostgresOptions)
        name = "CockroachDB" if options.cockroach else "PostgreSQL"
        return f"{name} at {options.where}, schema {options.schema}"

    def log(self, partition: str) -> EventLog:
        from services.stores.postgres.log import PostgresEventLog

        return PostgresEventLog(self._options, partition)

    def archive(self, partition: str) -> Archive:
        from services.stores.postgres.archive import PostgresArchive

        return PostgresArchive(self._options, partition)

    def delivery_ids(self, partition: str) -> DeliveryIds:
        from services.stores.postgres.delivery import PostgresDeliveryIds

        return PostgresDeliveryIds(self._options, partition)

    def dead_letters(
        self, *, max_bytes: int, max_age_s: float, clock: Clock, max_payload_bytes: int
    ) -> DeadLetters:
        from services.stores.postgres.dead_letters import PostgresDeadLetters

        return PostgresDeadLetters(
            self._options, max_bytes=max_bytes, max_age_s=max_age_s, clock=clock, max_payload_bytes=max_payload_bytes
        )  # fmt: skip

    async def check(self) -> None:
        log = self.log(CONTROL)
        try:
            await log.last_seq()  # every connection looks at its server first
        finally:
            await log.close()


#: `state.backend` -> the adapters.
BACKENDS: dict[str, type[SqliteStores] | type[RedisStores] | type[PostgresStores]] = {
    "sqlite": SqliteStores,
    "redis": RedisStores,
    "postgres": PostgresStores,
    "cockroachdb": PostgresStores,
}


def data_dir(settings: Settings) -> str:
    """Where stores of files are, absolute: actors have a working directory of their own."""
    return str(Path(settings.state.path).absolute() / "store")


def place_of(settings: Settings) -> Place:
    """Raises Malformed for settings that can't be used."""
    backend = settings.state.backend
    if settings.state.consistency == "eventual":
        raise Malformed(
            'state.consistency = "eventual": not supported, nothing is acknowledged before it is durable; remove this setting'
        )
    return {"backend": backend, **BACKENDS[backend].place(settings)}


def described(settings: Settings) -> str:
    """Where the state is, in words and without secrets: "SQLite in /srv/llm-im/var/store". Raises Malformed as place_of()."""
    place = place_of(settings)
    return BACKENDS[settings.state.backend].described(place)


def feed_of(settings: Settings) -> RedisOptions | None:
    """Where outside readers find the incidents, None when nothing is published. Raises Malformed for a URL that can't be
    read; whether anybody answers there is not asked."""
    given = settings.publish.redis
    if given.url is None:
        return None
    options = RedisOptions(
        given.url.get_secret_value(),
        given.prefix,
        connect_timeout_s=given.connect_timeout,
        timeout_s=given.timeout,
        section="publish.redis",
    )
    return options.check()


def open_stores(place: Place) -> Stores:
    return BACKENDS[str(place["backend"])](place)
