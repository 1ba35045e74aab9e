"""Where the log lives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from models.settings.processes import GATEWAY, SHARD
from models.settings.secrets import Secret
from models.settings.values import (
    LATER,
    Duration,
    Section,
)


class Redis(Section):
    """A Redis that holds the state, when `state.backend` is `redis`: [how to set it up](operate.md#state-in-redis)."""

    url: Secret | None = Field(
        None,
        description="`redis://host:port/db`, `redis+sentinel://host:port,host:port/service` or `redis+cluster://host:port,host:port`, with `user:password@` before the host. A secret.",
    )
    prefix: str = Field(
        "llm-im",
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
        description="What all our keys begin with; another for each system that shares a Redis.",
    )
    replicas: int = Field(
        0,
        ge=0,
        le=100,
        description="Replicas that must have a write before it is answered. Sentinels, and a cluster that has replicas, are refused with 0.",
    )
    allow_volatile: bool = Field(
        False,
        description="Take a Redis that may forget what it acknowledged: without an append-only file, not synced, with keys that are dropped, or failing over to a replica nobody waited for.",
    )
    connect_timeout: Duration = Field(2.0, gt=0, le=60, description="Longest wait for a connection.")
    timeout: Duration = Field(
        5.0, gt=0, le=60, description="Longest wait for an answer; then the connection counts as dead."
    )
    replica_timeout: Duration = Field(
        1.0,
        gt=0,
        le=60,
        description="Longest wait for the replicas; then the write counts as one of unknown outcome.",
    )


class Postgres(Section):
    """A PostgreSQL that holds the state, when `state.backend` is `postgres` or `cockroachdb`: [how to set it up](operate.md#state-in-postgresql)."""

    url: Secret | None = Field(
        None,
        description="`postgresql://user:password@host:port/database`, with libpq's parameters behind a `?`, such as `sslmode=verify-full`. A secret.",
    )
    schema_name: str = Field(
        "llm_im",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="The schema that all our tables are in, made when it is not there; another for each system that shares a database.",
    )
    max_connections: int = Field(
        8,
        ge=2,
        le=100,
        description="Connections that one process of ours may have. They are opened when needed, and closed after two idle minutes.",
    )
    allow_volatile: bool = Field(
        False,
        description="Take a server that may forget what it acknowledged: `fsync`, `full_page_writes` or `synchronous_commit` off, or `state.replication` not met.",
    )
    connect_timeout: Duration = Field(5.0, ge=2, le=60, description="Longest wait for a connection.")
    timeout: Duration = Field(
        5.0,
        ge=0.1,
        le=60,
        description="Longest statement; the server ends it then. A second later the connection counts as dead.",
    )


class State(Section):
    """Where the log lives."""

    backend: Literal["sqlite", "sled", "redb", "redis", "postgres", "cockroachdb"] = Field(
        "sqlite",
        description="The store: files of SQLite, a Redis ([state.redis](#stateredis)), or a PostgreSQL, and what speaks like it ([state.postgres](#statepostgres)); `cockroachdb` takes nothing but a CockroachDB. `sled` and `redb` exist for other languages only and mean `sqlite`, with a notice.",
    )
    path: str = Field(
        "./var", min_length=1, description="Data folder, relative to where `llm-im up` is typed. What is in it: [operate.md](operate.md#files)."
    )  # fmt: skip
    partitions: int = Field(
        2,
        ge=1,
        le=4096,
        description="Shards when the system first starts. A later value moves nothing: [llm-im store reshard](operate.md#more-or-fewer-shards) does.",
    )
    snapshot_every_frames: int = Field(
        20_000, ge=10, description="A snapshot begins after this many frames ..."
    )
    snapshot_every_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="... or this many bytes of log ..."
    )
    snapshot_every: Duration = Field(
        300.0, description="... or this long after the last one, if anything changed."
    )
    consistency: Literal["strong", "eventual"] | None = Field(
        None,
        description="What must be so. `strong`: all that was acknowledged is read; refused with Sentinels and with a Redis Cluster, which may lose some when they fail over (for standbys of PostgreSQL say `replication` too). `eventual`: refused, nobody is answered before it is durable here.",
    )
    replication: Literal["synchronous", "multi-region"] | None = Field(
        None,
        description="What must be so of the server's copies, looked at with each connection. `synchronous`: PostgreSQL waits for a standby. `multi-region`: CockroachDB survives the loss of a region.",
    )
    connection_string: Secret | None = Field(
        None, description="Another name of state.postgres.url. A secret.", json_schema_extra=LATER
    )
    redis: Redis = Redis()
    postgres: Postgres = Postgres()

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind == SHARD:
            return {
                "snapshot_every_frames": self.snapshot_every_frames,
                "snapshot_every_bytes": self.snapshot_every_bytes,
                "snapshot_every_s": self.snapshot_every,
            }
        # A gateway reads the stores itself.
        return (
            {"redis": {"url": self.redis.url}, "postgres": {"url": self.postgres.url}}
            if kind == GATEWAY
            else {}
        )
