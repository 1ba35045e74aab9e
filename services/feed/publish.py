"""The publisher: one actor that keeps the feed in Redis, for programs that have a Redis client and nothing of ours.

It reads the logs of all shards beside their writers, so nobody waits for it: while it or its Redis is down, alerts are
accepted as usual, and it continues from where it was. Started by services/wiring/bootstrap.py when publish.redis.url is
set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import structlog

from actors.control_tail import ControlTail
from actors.runtime.ending import end
from actors.runtime.host import Host
from models.errors import IncidentManagerError, Unavailable
from models.metrics import Meter
from models.metrics import encode as encode_metrics
from models.partition.sharding import TENANT
from models.ports import Archive, Clock, EventLog
from services.feed.follow import Ask
from services.feed.publish_shard import FeedAway, ShardFeed
from services.stores.redis.feed import FeedMoved, RedisFeed

log = structlog.get_logger()
T = TypeVar("T")

#: A shard answers summaries in a few milliseconds, and may have a group before them.
QUERY_TIMEOUT_S = 5.0


class Publisher:
    """`shards` has the actor of each partition; the feed shows one tenant's incidents. `control` is followed and closed by this actor."""

    def __init__(
        self,
        host: Host,
        shards: Mapping[str, str],
        open_log: Callable[[str], EventLog],
        open_archive: Callable[[str], Archive],
        feed: RedisFeed,
        control: ControlTail,
        clock: Clock,
        *,
        tenant: str = TENANT,
    ) -> None:
        self.meter = Meter(host.name)
        self._host = host
        self._feed = feed
        self._control = control
        self._clock = clock
        self._why_away = ""
        self._away_since = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._shards = [
            ShardFeed(
                partition,
                shards.keys(),
                open_log,
                open_archive(partition),
                self._asking(actor),
                self._slots,
                feed,
                self._through,
                self._take,
                clock,
                self.meter,
                tenant,
            )
            for partition, actor in shards.items()
        ]

    async def start(self) -> None:
        self._control.start()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(each.run()) for each in self._shards]

    async def stop(self) -> None:
        """What was not published yet is published after the next start. Safe to call twice."""
        await self.cease()
        for each in self._shards:
            await each.close()
        await self._feed.close()
        await self._control.close()

    async def cease(self) -> None:
        """End the work and leave everything as it is."""
        tasks, self._tasks = self._tasks, []
        await end(tasks)

    async def metrics(self, _payload: bytes) -> bytes:
        """This actor's reading, encoded."""
        self.meter.set("llm_im_publish_away", 1 if self._why_away else 0)
        self.meter.set("llm_im_publish_behind_frames", sum(each.behind for each in self._shards))
        return encode_metrics(self.meter.read())

    def _asking(self, actor: str) -> Ask:
        async def ask(query: bytes) -> bytes:
            return await self._host.peers.call(actor, "ask", query, QUERY_TIMEOUT_S)

        return ask

    async def _slots(self) -> int:
        if self._control.state.slots is None:
            await self._control.follow()
        if self._control.state.slots is None:
            raise Unavailable("there is no slot map yet")
        return self._control.state.slots.version

    async def _take(self, slots: int) -> dict[str, str]:
        return await self._through(self._feed.take(slots))

    async def _through(self, work: Awaitable[T]) -> T:
        """What Redis answers, once it is told whether it does. Raises FeedAway, FeedMoved."""
        try:
            found = await work
        except FeedMoved:
            self._answers("")
            raise
        except IncidentManagerError as error:
            self._answers(str(error))
            raise FeedAway(str(error)) from error
        self._answers("")
        return found

    def _answers(self, why_not: str) -> None:
        now = self._clock.monotonic()
        if why_not and not self._why_away:
            self._away_since = now
            log.warning("the feed's Redis is unreachable, nothing else is affected", why=why_not)
        elif not why_not and self._why_away:
            log.info("the feed's Redis is back", away_s=round(now - self._away_since, 1))
        self._why_away = why_not
