"""The places that the contract suites run on: one an adapter, each opening only the adapter under test.

A place outlives what is opened in it: opening a second time over the same place is what another process, or
the same one after a crash, would do.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import uuid4

import pytest
import pytest_asyncio

from models.partition.frames import NO_DIGEST, encode_frame
from models.ports import Archive, Clock, DeadLetters, DeliveryIds, EventLog
from tests.clock import ManualClock

if TYPE_CHECKING:
    from tests.contract.postgres_peers import Server as PostgresServer
    from tests.contract.redis_peers import Server

# Its tests are inherited by files that pytest rewrites, and it is none.
pytest.register_assert_rewrite("tests.contract.trouble")

PARTITION = "shard/0007"
NUMBERS = itertools.count(1)
T = TypeVar("T", bound="Closable")


class Place(Protocol):
    def log(self, partition: str = PARTITION) -> EventLog: ...
    def archive(self) -> Archive: ...
    def delivery_ids(self) -> DeliveryIds: ...
    def dead_letters(self, *, max_bytes: int, max_age_s: float, clock: Clock) -> DeadLetters: ...
    def damage_frame(self, seq: int) -> None: ...
    def damage_record(self, key: str, generation: int) -> None: ...
    def lose_record(self, key: str) -> None: ...
    def lose_append(self, first_seq: int) -> None: ...


class Closable(Protocol):
    async def close(self) -> None: ...


class MemoryPlace:
    def __init__(self, opened: list[Closable]) -> None:
        from services.stores.memory.store import MemoryStore

        self.opened = opened
        self.store = MemoryStore()

    def log(self, partition: str = PARTITION) -> EventLog:
        from services.stores.memory.log import MemoryEventLog

        return _kept(self.opened, MemoryEventLog(self.store, partition))

    def archive(self) -> Archive:
        from services.stores.memory.archive import MemoryArchive

        return _kept(self.opened, MemoryArchive(self.store, PARTITION))

    def delivery_ids(self) -> DeliveryIds:
        from services.stores.memory.delivery_ids import MemoryDeliveryIds

        return _kept(self.opened, MemoryDeliveryIds(self.store, PARTITION))

    def dead_letters(self, *, max_bytes: int, max_age_s: float, clock: Clock) -> DeadLetters:
        from services.stores.memory.dead_letters import MemoryDeadLetters

        return _kept(
            self.opened, MemoryDeadLetters(self.store, max_bytes=max_bytes, max_age_s=max_age_s, clock=clock)
        )

    def damage_frame(self, seq: int) -> None:
        self.store.damage_frame(PARTITION, seq)

    def damage_record(self, key: str, generation: int) -> None:
        self.store.damage_record(PARTITION, key, generation)

    def lose_record(self, key: str) -> None:
        del self.store.partition(PARTITION).records[key]

    def lose_append(self, first_seq: int) -> None:
        kept = self.store.partition(PARTITION)
        kept.appends = [each for each in kept.appends if each.first_seq != first_seq]


class SqlitePlace:
    def __init__(self, opened: list[Closable], folder: Path) -> None:
        self.opened = opened
        self.folder = folder

    def log(self, partition: str = PARTITION) -> EventLog:
        from services.stores.sqlite.log import SqliteEventLog

        return _kept(self.opened, SqliteEventLog(self.folder, partition))

    def archive(self) -> Archive:
        from services.stores.sqlite.archive import SqliteArchive

        return _kept(self.opened, SqliteArchive(self.folder, PARTITION))

    def delivery_ids(self) -> DeliveryIds:
        from services.stores.sqlite.delivery import SqliteDeliveryIds

        return _kept(self.opened, SqliteDeliveryIds(self.folder, PARTITION))

    def dead_letters(self, *, max_bytes: int, max_age_s: float, clock: Clock) -> DeadLetters:
        from services.stores.sqlite.dead_letters import SqliteDeadLetters

        return _kept(
            self.opened, SqliteDeadLetters(self.folder, max_bytes=max_bytes, max_age_s=max_age_s, clock=clock)
        )

    def damage_frame(self, seq: int) -> None:
        import apsw

        connection = apsw.Connection(str(self.folder / "shard-0007.db"))
        first, lengths, stored = connection.execute(
            "SELECT first_seq, lengths, frames FROM appends WHERE first_seq <= ? AND last_seq >= ?",
            (seq, seq),
        ).get
        ends = memoryview(lengths).cast("I").tolist()[: seq - first + 1]
        at = sum(ends) - 1
        damaged = stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]
        connection.execute("UPDATE appends SET frames = ? WHERE first_seq = ?", (damaged, first))
        connection.close()

    def damage_record(self, key: str, generation: int) -> None:
        import apsw

        connection = apsw.Connection(str(self.folder / "shard-0007.db"))
        connection.execute(
            "UPDATE records SET body = CAST(body || x'21' AS BLOB) WHERE key = ? AND generation = ?",
            (key, generation),
        )
        connection.close()

    def lose_record(self, key: str) -> None:
        self._delete("records", "key", key)

    def lose_append(self, first_seq: int) -> None:
        self._delete("appends", "first_seq", first_seq)

    def _delete(self, table: str, column: str, value: str | int) -> None:
        import apsw

        connection = apsw.Connection(str(self.folder / "shard-0007.db"))
        connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (value,))
        connection.close()


class RedisPlace:
    """A prefix of its own on a server that many tests share."""

    made = 0

    def __init__(self, opened: list[Closable], url: str) -> None:
        from redis import Redis

        from services.stores.redis.options import RedisOptions

        RedisPlace.made += 1
        self.opened = opened
        self.options = RedisOptions(url, prefix=f"test-{RedisPlace.made}")
        self.client = Redis.from_url(url, protocol=2) if url.startswith("redis://") else None

    def log(self, partition: str = PARTITION) -> EventLog:
        from services.stores.redis.log import RedisEventLog

        return _kept(self.opened, RedisEventLog(self.options, partition))

    def archive(self) -> Archive:
        from services.stores.redis.archive import RedisArchive

        return _kept(self.opened, RedisArchive(self.options, PARTITION))

    def delivery_ids(self) -> DeliveryIds:
        from services.stores.redis.delivery import RedisDeliveryIds

        return _kept(self.opened, RedisDeliveryIds(self.options, PARTITION))

    def dead_letters(self, *, max_bytes: int, max_age_s: float, clock: Clock) -> DeadLetters:
        from services.stores.redis.dead_letters import RedisDeadLetters

        return _kept(
            self.opened, RedisDeadLetters(self.options, max_bytes=max_bytes, max_age_s=max_age_s, clock=clock)
        )

    def damage_frame(self, seq: int) -> None:
        # An entry of a stream can't be changed: the stream is written anew.
        key = f"{self.options.prefix}:{{{PARTITION}}}:appends"
        assert self.client is not None
        entries: Any = self.client.xrange(key)
        self.client.delete(key)
        for name, fields in entries:
            first, last = int(fields[b"first"]), int(name.partition(b"-")[0])
            if first <= seq <= last:
                lengths = memoryview(fields[b"lengths"]).cast("I").tolist()[: seq - first + 1]
                stored, at = fields[b"frames"], sum(lengths) - 1
                fields[b"frames"] = stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]
            self.client.xadd(key, fields, name)

    def damage_record(self, key: str, generation: int) -> None:
        assert self.client is not None
        name = f"{self.options.prefix}:{{{PARTITION}}}:records"
        field = f"{key}\0{generation:016d}"
        stored = self.client.hget(name, field)
        assert isinstance(stored, bytes)
        self.client.hset(name, field, stored + b"!")

    def lose_record(self, key: str) -> None:
        assert self.client is not None
        for kind, remove in (("records", self.client.hdel), ("keys", self.client.zrem)):
            name = f"{self.options.prefix}:{{{PARTITION}}}:{kind}"
            remove(name, *(f"{key}\0{generation:016d}" for generation in range(10)))

    def lose_append(self, first_seq: int) -> None:
        assert self.client is not None
        key = f"{self.options.prefix}:{{{PARTITION}}}:appends"
        entries: Any = self.client.xrange(key)
        for name, fields in entries:
            if int(fields[b"first"]) == first_seq:
                self.client.xdel(key, name)


class PostgresPlace:
    """A schema of its own on a server that many tests share."""

    def __init__(self, opened: list[Closable], url: str, schema: str) -> None:
        from services.stores.postgres.options import PostgresOptions

        self.opened = opened
        self.options = PostgresOptions(url, schema=schema)

    def log(self, partition: str = PARTITION) -> EventLog:
        from services.stores.postgres.log import PostgresEventLog

        return _kept(self.opened, PostgresEventLog(self.options, partition))

    def archive(self) -> Archive:
        from services.stores.postgres.archive import PostgresArchive

        return _kept(self.opened, PostgresArchive(self.options, PARTITION))

    def delivery_ids(self) -> DeliveryIds:
        from services.stores.postgres.delivery import PostgresDeliveryIds

        return _kept(self.opened, PostgresDeliveryIds(self.options, PARTITION))

    def dead_letters(self, *, max_bytes: int, max_age_s: float, clock: Clock) -> DeadLetters:
        from services.stores.postgres.dead_letters import PostgresDeadLetters

        return _kept(
            self.opened,
            PostgresDeadLetters(self.options, max_bytes=max_bytes, max_age_s=max_age_s, clock=clock),
        )

    def damage_frame(self, seq: int) -> None:
        import psycopg

        appends = f"{self.options.schema}.appends"
        with psycopg.connect(self.options.url) as client:
            row = client.execute(
                f"SELECT first_seq, lengths, frames FROM {appends}"
                " WHERE partition = %s AND first_seq <= %s AND last_seq >= %s",
                (PARTITION, seq, seq),
            ).fetchone()
            assert row is not None
            first, lengths, stored = row
            at = sum(memoryview(lengths).cast("I").tolist()[: seq - first + 1]) - 1
            damaged = stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]
            client.execute(
                f"UPDATE {appends} SET frames = %s WHERE partition = %s AND first_seq = %s",
                (damaged, PARTITION, first),
            )

    def damage_record(self, key: str, generation: int) -> None:
        import psycopg

        with psycopg.connect(self.options.url) as client:
            client.execute(
                f"UPDATE {self.options.schema}.records SET body = body || %s"
                " WHERE partition = %s AND key = %s AND generation = %s",
                (b"!", PARTITION, key.encode(), generation),
            )

    def lose_record(self, key: str) -> None:
        self._delete("records", "key", key.encode())

    def lose_append(self, first_seq: int) -> None:
        self._delete("appends", "first_seq", first_seq)

    def _delete(self, table: str, column: str, value: bytes | int) -> None:
        import psycopg

        with psycopg.connect(self.options.url) as client:
            client.execute(
                f"DELETE FROM {self.options.schema}.{table} WHERE partition = %s AND {column} = %s",
                (PARTITION, value),
            )


def _kept(opened: list[Closable], made: T) -> T:
    opened.append(made)
    return made


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One Redis for all tests that leave it as it is."""
    from tests.contract.redis_peers import DURABLE, Server

    server = Server(tmp_path_factory.mktemp("redis"), *DURABLE).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests that leave it as it is."""
    from tests.contract.postgres_peers import Server

    server = Server()
    try:
        yield server.start()
    finally:
        server.remove()


def place_of(kind: str, opened: list[Closable], request: pytest.FixtureRequest) -> Place:
    match kind:
        case "memory":
            return MemoryPlace(opened)
        case "sqlite":
            return SqlitePlace(opened, request.getfixturevalue("tmp_path") / "state")
        case "postgres":
            return PostgresPlace(
                opened, request.getfixturevalue("postgres_server").url, f"test_{next(NUMBERS)}"
            )
        case "cockroach" | "yugabyte":
            return PostgresPlace(opened, os.environ[f"{kind.upper()}_URL"], f"test_{uuid4().hex}")
    return RedisPlace(opened, request.getfixturevalue("redis_server").url)


#: Servers that we can't start: each suite runs on them where COCKROACH_URL or YUGABYTE_URL names one.
ELSEWHERE = [kind for kind in ("cockroach", "yugabyte") if f"{kind.upper()}_URL" in os.environ]


@pytest_asyncio.fixture(params=["memory", "sqlite", "redis", "postgres", *ELSEWHERE])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    opened: list[Closable] = []
    yield place_of(request.param, opened, request)
    for each in opened:
        await each.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Chain:
    """Frames that follow each other, as a shard makes them."""

    def __init__(self) -> None:
        self.seq = 0
        self.digests = {0: NO_DIGEST}
        self.frames: dict[int, bytes] = {}

    def next(self, count: int = 1, size: int = 60) -> list[bytes]:
        made = []
        for _ in range(count):
            frame, digest = encode_frame(
                self.seq + 1, 1000.0 + self.seq, "default", "t" * (size - 60), (), self.digests[self.seq]
            )
            self.seq += 1
            self.digests[self.seq] = digest
            self.frames[self.seq] = frame
            made.append(frame)
        return made

    def back_to(self, seq: int) -> None:
        """Forget what came after, as a writer that reopens a log which ends there."""
        self.seq = seq


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 and its key; who trusts the first trusts the server."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "1",
               "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
