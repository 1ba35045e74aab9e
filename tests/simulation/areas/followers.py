"""Those who follow the logs, one of each tenant: what they are told is the timelines of its incidents, and nothing else."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from models.errors import IncidentManagerError
from models.incidents.incident import Incident
from models.incidents.lines import CHANGED
from services.feed.follow import Follower, Gap
from services.stores.memory.archive import MemoryArchive
from services.stores.memory.log import MemoryEventLog
from tests.simulation.area import Area
from tests.simulation.settings import TENANTS, shard_name
from tests.simulation.watch import Watcher

if TYPE_CHECKING:
    from tests.simulation.world import World

#: One run of so many is followed: it costs a fifth of the run.
FOLLOWED_EVERY = 3
#: How often a log is looked at, and how many summaries a follower knows: all of a run, so that it asks for none of what it saw
#: begin.
POLL_S = 3.0
KNOWN_MAX = 1000


class Reader:
    """Follows one log for one tenant, from its beginning until a part was truncated before it was read."""

    def __init__(self, world: World, index: int, tenant: str) -> None:
        self.world = world
        self.index = index
        self.tenant = tenant
        self.told: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
        self.has_missed = False
        self._log = MemoryEventLog(world.store, world.watchers[shard_name(index)].partition)
        self._archive = MemoryArchive(world.store, self._log.partition)
        self.follower = self._from(0)

    async def live(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                page = await self.follower.read()
            except Gap:
                self.has_missed = True
                self.follower = self._from(await self._log.last_seq())
            except IncidentManagerError as error:
                self.world.story("a follower waits", tenant=self.tenant, why=error)
            else:
                for each in page.happenings:
                    if each.line.kind != CHANGED:
                        self.told[each.after.id].append((each.line.kind, each.line.text))

    def _from(self, seq: int) -> Follower:
        return Follower(self._log, self._ask, self._archived, self.tenant, seq, KNOWN_MAX)

    async def _ask(self, query: bytes) -> bytes:
        return await self.world.wire.call(shard_name(self.index), "ask", query, 5.0)

    async def _archived(self, identity: bytes) -> Incident | None:
        found = await self._archive.get(identity)
        return None if found is None else msgspec.msgpack.decode(found.record, type=Incident)


class Followers(Area):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.readers: list[Reader] = []

    def lives(self) -> list[Coroutine[Any, Any, None]]:
        if self.world.seed % FOLLOWED_EVERY:
            return []
        self.readers = [
            Reader(self.world, index, tenant) for index in range(self.world.shards) for tenant in TENANTS
        ]
        return [reader.live() for reader in self.readers]

    def holds_for(self, watcher: Watcher) -> None:
        known = {**watcher.gone, **watcher.mirror.state.incidents}
        for reader in self.readers:
            if self.world.watchers[shard_name(reader.index)] is not watcher:
                continue
            lag = watcher.seq - reader.follower.seq
            watcher.counts["followed"] = watcher.counts.get("followed", 0) + (not reader.has_missed)
            for identity, told in reader.told.items():
                if known[identity].tenant != reader.tenant:
                    watcher.fail(f"{reader.tenant} was told of {told[0][0]} of {known[identity].tenant}'s")
            for identity, incident in known.items():
                lines = [(line.kind, line.text) for line in incident.timeline]
                told = reader.told[identity] if incident.tenant == reader.tenant else []
                if incident.tenant != reader.tenant or reader.has_missed or told == lines:
                    continue
                if incident.timeline_dropped:
                    # A timeline keeps only the newest lines about relations; who follows it was told of all.
                    told, lines = _unrelated(told), _unrelated(lines)
                if (not lag and told != lines) or told != lines[: len(told)]:
                    watcher.fail(f"{reader.tenant} was told {told} of an incident of which is so {lines}")


def _unrelated(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [line for line in lines if line[0] != "IncidentRelated"]
