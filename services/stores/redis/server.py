"""Finding the Redis that has a partition's keys, and whether it would keep what it acknowledged. Called by lane.py.

A partition's keys share a hash tag, so in every topology they are on one server at a time: its primary. It is looked up
anew for each connection, and a connection that turns out to lead elsewhere is dropped.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Connection, RedisCluster, Sentinel, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from models.errors import Unavailable
from services.stores.redis.options import Address, RedisOptions, key_of

#: XTRIM MINID, ZMSCORE and exclusive stream ranges came with it.
REDIS_NEEDED = (6, 2)
#: WAITAOF came with it: replicas answer when they have synced, not only heard.
WAITAOF_SINCE = (7, 2)
#: Settings looked at before a Redis is trusted with a log.
LOOKED_AT = (
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "maxmemory-policy",
    "min-replicas-to-write",
)


@dataclass(frozen=True, slots=True)
class Server:
    """What a connection leads to. `waitaof`: replicas can be asked whether they have synced."""

    version: tuple[int, ...] = (0,)
    waitaof: bool = False


async def connect(options: RedisOptions, partition: str) -> Connection:
    """A connection to the primary of the partition's keys. Raises the client's errors and Unavailable."""
    address = options.address
    if address.kind == "sentinel":
        host, port = await _sentinels_primary(address, options)
    elif address.kind == "cluster":
        host, port = await _slots_primary(address, options, key_of(options, partition, "log"))
    else:
        host, port = address.hosts[0]
    kind = SSLConnection if address.tls else Connection
    connection = kind(
        host=host,
        port=port,
        db=address.db,
        # The lane bounds each exchange as a whole. The client's own timeout goes through asyncio.wait_for, which in
        # Python 3.11 can lose a cancellation: an actor that is being stopped would go on.
        socket_timeout=None,
        **_common(address, options),
        **_tls(address),
    )
    opening: Awaitable[None] = connection.connect()
    await opening
    return connection


async def _sentinels_primary(address: Address, options: RedisOptions) -> tuple[str, int]:
    # In any order: one that is cut off from the others goes on naming the primary before, and must not be asked each time.
    hosts = random.sample(address.hosts, len(address.hosts))
    sentinels = Sentinel(
        hosts,
        sentinel_kwargs={
            "username": address.query.get("sentinel_username"),
            "password": address.query.get("sentinel_password"),
            "socket_timeout": options.connect_timeout_s,
            "socket_connect_timeout": options.connect_timeout_s,
            "retry": _no_retry(),
            "protocol": 2,
            **({"ssl": True} if address.tls else {}),
            **_tls(address),
        },
    )
    try:
        host, port = await sentinels.discover_master(address.service)
        return str(host), int(port)
    finally:
        for each in sentinels.sentinels:
            await each.aclose()


async def _slots_primary(address: Address, options: RedisOptions, key: str) -> tuple[str, int]:
    cluster = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
        require_full_coverage=False,
        socket_timeout=options.connect_timeout_s,
        **_common(address, options),
        ssl=address.tls,
        **_tls(address),
    )
    try:
        await cluster.initialize()
        node = cluster.get_node_from_key(key)
        if node is None:
            raise Unavailable(f"no node of the Redis Cluster has the slot of {key}")
        return str(node.host), int(node.port)
    finally:
        await cluster.aclose()


def _common(address: Address, options: RedisOptions) -> dict[str, Any]:
    # No retry anywhere: who repeats a write, and when, is decided by who knows what it was.
    return {
        "username": address.username,
        "password": address.password,
        "socket_connect_timeout": options.connect_timeout_s,
        "retry": _no_retry(),
        "protocol": 2,
        "driver_info": None,  # a round trip of its own, to tell the server which client this is
    }


def _tls(address: Address) -> dict[str, Any]:
    return {name: value for name, value in address.query.items() if name.startswith("ssl_")}


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)


async def look_at(connection: Connection, options: RedisOptions, *, durable: bool) -> Server:
    """What the connection leads to. Raises Unavailable, naming the setting, for a server that is no primary, is too
    old, or, with `durable`, would lose what it acknowledged."""
    server_info, replication_info, *settings = await _told(
        connection,
        ("INFO", "server"),
        ("INFO", "replication"),
        *(("CONFIG", "GET", name) for name in (LOOKED_AT if durable else ())),
    )
    server, replication = _fields(server_info), _fields(replication_info)
    version = tuple(int(part) for part in server.get("redis_version", "0").split(".")[:3] if part.isdecimal())
    if version < REDIS_NEEDED:
        raise Unavailable(f"Redis {server.get('redis_version', '?')} is too old: 6.2 or newer is needed")
    if replication.get("role") != "master":
        raise Unavailable("this Redis is a replica: the URL must lead to the primary")
    if not durable:
        return Server(version)
    if not options.allow_volatile and (
        hidden := next((each for each in settings if isinstance(each, RedisError)), None)
    ):
        raise Unavailable(
            "Redis does not show its settings (CONFIG GET is refused), so it is unknown whether it keeps what it"
            " acknowledges: allow CONFIG GET to our user, or set state.redis.allow_volatile = true"
        ) from hidden
    config = {
        each[0].decode(): each[1].decode() for each in settings if isinstance(each, list) and len(each) == 2
    }
    fails_over = options.address.kind == "sentinel" or (
        options.address.kind == "cluster" and replication.get("connected_slaves", "0") != "0"
    )
    faults = refusals(config, options.replicas, fails_over=fails_over)
    if faults and not options.allow_volatile:
        raise Unavailable(
            f"this Redis can lose acknowledged writes: {'; '.join(faults)}."
            " Change that, or set state.redis.allow_volatile = true"
        )
    return Server(version, version >= WAITAOF_SINCE and config.get("appendonly") == "yes")


def refusals(config: Mapping[str, str], replicas: int, *, fails_over: bool) -> list[str]:
    """What in the server's settings would lose acknowledged data, in words."""
    found: list[str] = []

    def expect(name: str, right: bool, wanted: str, why: str) -> None:
        if not right:
            found.append(f"{name} is {config.get(name, '')!r}, expected {wanted} ({why})")

    expect(
        "appendonly",
        config.get("appendonly") == "yes",
        "'yes'",
        "else a restart forgets all since the last dump",
    )
    expect(
        "appendfsync", config.get("appendfsync") == "always", "'always'",
        "else a power cut takes the last second",
    )  # fmt: skip
    expect(
        "no-appendfsync-on-rewrite", config.get("no-appendfsync-on-rewrite", "no") == "no", "'no'",
        "else nothing is synced while the file is rewritten",
    )  # fmt: skip
    policy = config.get("maxmemory-policy", "noeviction")
    expect(
        "maxmemory-policy", not policy.startswith("allkeys"), "'noeviction'",
        "else keys are dropped when memory is full",
    )  # fmt: skip
    if fails_over and replicas == 0:
        found.append("state.redis.replicas is 0, expected 1 or more (a failover forgets what no replica has)")
    expect(
        "min-replicas-to-write", int(config.get("min-replicas-to-write") or 0) >= replicas, f"{replicas} or more",
        "else a primary that lost its replicas goes on taking writes that can't be acknowledged",
    )  # fmt: skip
    return found


async def _told(connection: Connection, *commands: Sequence[str]) -> list[Any]:
    """The replies, in one round trip: a Redis far away must not make connecting slow. Errors are among them."""
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    replies: list[Any] = []
    for _command in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(error)
    return replies


def _fields(reply: Any) -> dict[str, str]:
    """INFO's `name:value` lines."""
    if isinstance(reply, RedisError):
        raise reply
    lines: Sequence[str] = reply.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
