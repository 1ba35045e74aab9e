"""A program outside that reads the feed as docs/redis-feed.md tells it to, with a Redis client and nothing of ours; and a
system in this process that publishes. Used by test_redis_feed.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from actors.control_tail import ControlTail
from actors.runtime.host import Actor, Host
from models.control.control import CONTROL
from models.metrics import decode as decode_metrics
from models.partition.sharding import TENANT, partition_name
from services.feed.publish import Publisher
from services.feed.publish_bodies import FIELDS
from services.stores.redis.feed import RedisFeed
from services.stores.redis.options import RedisOptions
from services.wiring.bootstrap import PUBLISHER_ACTOR
from tests.api.gateway_in_process import System

#: Long enough for a busy machine; nothing is measured by it.
PATIENCE_S = 20.0
Record = dict[str, Any]
LISTS = ("open", "resolved", "closed")


class Reader:
    """`picture` has what it knows, by id; `told` all messages it heard."""

    def __init__(self, port: int, prefix: str) -> None:
        self.base = f"{prefix}:{{feed}}:"
        self.port = port
        self.picture: dict[str, Record] = {}
        self.told: list[Record] = []
        self._client: Redis | None = None

    @property
    def client(self) -> Redis:
        assert self._client is not None
        return self._client

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[Reader]:
        self._client = Redis(port=self.port, protocol=2, decode_responses=True)
        ready = asyncio.Event()
        task = asyncio.create_task(self._follow(ready))
        try:
            await asyncio.wait_for(ready.wait(), PATIENCE_S)
            yield self
        finally:
            while not task.done():  # the client's asyncio.wait_for can lose a cancellation in Python 3.11
                task.cancel()
                await asyncio.wait([task], timeout=0.2)
            await self._client.aclose()

    async def _follow(self, ready: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(RedisError, OSError):
                async with self.client.pubsub() as channel:
                    await channel.subscribe(self.base + "changes")
                    async for message in channel.listen():
                        if message["type"] == "subscribe":  # now, and whenever the connection is a new one
                            await self._read_all()
                            ready.set()
                        elif message["type"] == "message":
                            self.told.append(said := json.loads(message["data"]))
                            if said["event"] == "reset":
                                await self._read_all()
                            else:
                                self._take(said["incident"])
            await asyncio.sleep(0.05)

    async def _read_all(self) -> None:
        self.picture = {}
        for name in LISTS:
            for record in await self.listed(name):
                self._take(record)

    async def listed(self, name: str) -> list[Record]:
        """The records of a list, in its order."""
        ids: Any = await self.client.zrange(self.base + name, 0, -1)
        keys = [f"{self.base}incident:{each}" for each in ids]
        found = await self.client.mget(keys) if keys else []
        return [json.loads(each) for each in found if each is not None]

    def _take(self, record: Record) -> None:
        known = self.picture.get(record["id"])
        if known is None or _age(known) <= _age(record):
            self.picture[record["id"]] = record

    @property
    def shown(self) -> dict[str, Record]:
        """What it would show: neither closed ones nor parts of others."""
        return {
            each["id"]: each
            for each in self.picture.values()
            if each["state"] != "Closed" and each["merged_into"] is None
        }


def _age(record: Record) -> tuple[int, str]:
    return record["version"], record["updated_at"]


async def shown_by_api(ours: System) -> dict[str, Record]:
    """The same by GET /v1/incidents, reduced to the fields that a record has."""
    found: dict[str, Record] = {}
    query = "?limit=1000"
    while True:
        answer = json.loads((await ours.get(f"/v1/incidents{query}")).body)
        for each in answer["items"]:
            if each["state"] != "Closed":
                found[each["id"]] = {name: each[name] for name in FIELDS}
        if answer["next"] is None:
            return found
        query = f"?limit=1000&cursor={answer['next']}"


async def same(reader: Reader, ours: System) -> dict[str, Record]:
    """Wait until the reader's picture and the lists in Redis are what the API shows: that."""
    last: object = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                wanted = await shown_by_api(ours)
                with contextlib.suppress(RedisError, OSError):
                    listed = {each["id"]: each for name in LISTS[:2] for each in await reader.listed(name)}
                    told = [
                        name for name in await reader.client.hkeys(reader.base + "state") if "at:" in name
                    ]
                    if reader.shown == wanted == listed and len(told) == ours.settings.state.partitions:
                        return wanted
                    last = (reader.shown, listed, wanted)
                await asyncio.sleep(0.05)
    raise AssertionError(f"reader, lists, API: {last}")


async def until(holds: Callable[[], Awaitable[object]], what: str) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while not await holds():
                await asyncio.sleep(0.02)
            return
    raise AssertionError(f"{what}: not within {PATIENCE_S:g} s")


async def publish(
    ours: System, url: str, prefix: str, *, keep_closed_s: float = 3600.0, tenant: str = TENANT
) -> None:
    """Start the publisher of this system."""
    options = RedisOptions(url, prefix, timeout_s=1.0, connect_timeout_s=1.0, section="publish.redis")
    partitions = [partition_name(index) for index in range(ours.settings.state.partitions)]

    def publisher(host: Host) -> Actor:
        return Publisher(
            host,
            dict(zip(partitions, ours.shards, strict=True)),
            ours.stores.log,
            ours.stores.archive,
            RedisFeed(options, keep_closed_s, ours.clock),
            ControlTail(ours.stores.log(CONTROL)),
            ours.clock,
            tenant=tenant,
        )

    await ours.cluster.start(PUBLISHER_ACTOR, publisher)


async def kill(ours: System) -> None:
    """End the publisher as SIGKILL would: it says nothing, and does nothing more."""
    publisher = ours.cluster.kill(PUBLISHER_ACTOR)
    assert isinstance(publisher, Publisher)
    await publisher.cease()
    await publisher.stop()


async def counted(ours: System, metric: str) -> dict[str, float]:
    """What the publisher counts under this name, by the value of its label."""
    publisher = ours.cluster.get(PUBLISHER_ACTOR)
    assert isinstance(publisher, Publisher)
    reading = decode_metrics(await publisher.metrics(b""))
    samples = [each for each in (*reading.counters, *reading.gauges) if each.name == metric]
    return {"".join(each.labels.values()): each.value for each in samples}
