"""Where the log lives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from models.settings.processes import GATEWAY, SHARD
from models.settings.secrets import Secret
from models.settings.values import (
    BY_MACHINE,
    LATER,
    Duration,
    Section,
)


class Redis(Section):
    """The Redis that holds all state when `state.backend` is `redis`: [how to set it up](operate.md#state-in-redis)."""

    url: Secret | None = Field(
        None,
        description="`redis://host:port/db`, `redis+sentinel://host:port,host:port/service` or `redis+cluster://host:port,host:port`, with `user:password@` before the host. Secret.",
    )
    prefix: str = Field(
        "llm-im",
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
        description="Prefix of all our keys. Give each system that shares a Redis its own.",
    )
    replicas: int = Field(
        0,
        ge=0,
        le=100,
        description="How many replicas must have a write before it is acknowledged. With 0, Sentinel setups and clusters with replicas are refused.",
    )
    allow_volatile: bool = Field(
        False,
        description="Accept a Redis that may lose acknowledged writes: no append-only file, no fsync, an eviction policy, or failover to a replica that may be behind.",
    )
    connect_timeout: Duration = Field(2.0, gt=0, le=60, description="How long to wait for a connection.")
    timeout: Duration = Field(
        5.0, gt=0, le=60, description="How long to wait for a reply before the connection counts as dead."
    )
    replica_timeout: Duration = Field(
        1.0,
        gt=0,
        le=60,
        description="How long to wait for the replicas. After that the outcome of the write counts as unknown.",
    )


class Postgres(Section):
    """The PostgreSQL that holds all state when `state.backend` is `postgres` or `cockroachdb`: [how to set it up](operate.md#state-in-postgresql)."""

    url: Secret | None = Field(
        None,
        description="`postgresql://user:password@host:port/database`, with libpq parameters such as `sslmode=verify-full` after a `?`. Secret.",
    )
    schema_name: str = Field(
        "llm_im",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="Schema for all our tables, created if missing. Give each system that shares a database its own.",
    )
    max_connections: int = Field(
        8,
        ge=2,
        le=100,
        description="Most connections per process. They are opened on demand and closed after two idle minutes.",
    )
    allow_volatile: bool = Field(
        False,
        description="Accept a server that may lose acknowledged writes: `fsync`, `full_page_writes` or `synchronous_commit` is off, or `state.replication` is not satisfied.",
    )
    connect_timeout: Duration = Field(5.0, ge=2, le=60, description="How long to wait for a connection.")
    timeout: Duration = Field(
        5.0,
        ge=0.1,
        le=60,
        description="Longest time a statement may run before the server cancels it. One second later the connection counts as dead.",
    )


class State(Section):
    """Where all state is stored."""

    backend: Literal["sqlite", "sled", "redb", "redis", "postgres", "cockroachdb"] = Field(
        "sqlite",
        description="The store: SQLite files, a Redis ([state.redis](#stateredis)), or PostgreSQL and compatible servers ([state.postgres](#statepostgres)). `cockroachdb` accepts only CockroachDB. `sled` and `redb` exist only in other languages: they select `sqlite` and `up` says so.",
    )
    path: str = Field(
        "./var", min_length=1, description="Data folder, relative to the folder where `llm-im up` runs. [What is in it](operate.md#files)."
    )  # fmt: skip
    partitions: int = Field(
        1,
        ge=1,
        le=4096,
        description="Number of shards, used only at the first start. Unless you set it, half the cores of the machine, at most 8: [what more or fewer cost](operate.md#more-or-fewer-shards). To change it later, run `llm-im store reshard`.",
        json_schema_extra=BY_MACHINE,
    )
    snapshot_every_frames: int = Field(
        20_000, ge=10, description="Take a snapshot after this many log entries ..."
    )
    snapshot_every_events: int = Field(
        150_000,
        ge=100,
        description="... or this many events in them: a recovery replays fewer, at 5 to 7 us each ...",
    )
    snapshot_every_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="... or this many bytes of log ..."
    )
    snapshot_every: Duration = Field(
        300.0, description="... or this long after the last one, if anything changed."
    )
    consistency: Literal["strong", "eventual"] | None = Field(
        None,
        description="Required guarantee. `strong`: every read sees all acknowledged writes. Refused with Redis Sentinel and Redis Cluster, where a failover can lose writes; for PostgreSQL standbys set `replication` too. `eventual`: always refused, because nothing is acknowledged before it is durable. None: no check.",
    )
    replication: Literal["synchronous", "multi-region"] | None = Field(
        None,
        description="Required replication, checked on every connection. `synchronous`: PostgreSQL waits for a standby before it confirms a write. `multi-region`: CockroachDB survives losing a region. None: no check.",
    )
    connection_string: Secret | None = Field(
        None, description="Alias of `state.postgres.url`. Secret.", json_schema_extra=LATER
    )
    redis: Redis = Redis()
    postgres: Postgres = Postgres()

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind == SHARD:
            return {
                "snapshot_every_frames": self.snapshot_every_frames,
                "snapshot_every_events": self.snapshot_every_events,
                "snapshot_every_bytes": self.snapshot_every_bytes,
                "snapshot_every_s": self.snapshot_every,
            }
        # A gateway reads the stores itself.
        return (
            {"redis": {"url": self.redis.url}, "postgres": {"url": self.postgres.url}}
            if kind == GATEWAY
            else {}
        )
