"""The agents' streams of one process: takes each in, looks at the shards for what is to be sent, says which streams it has, and tells
of agents that stay away. For a gateway, whose agents connect to it, and whoever else has streams of agents.

What is to be sent is asked for with one bounded question to each shard that has an agent of ours, ten times a second: an answer without
work takes some microseconds of the shard. The tails of the logs (services/feed/watch.py) would decode everything that alerts lead to.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from actors.runtime.ending import end
from models.edge.agent import HEALTHY, OFFLINE
from models.edge.questions import (
    EdgeNotice,
    EdgeNoticePage,
    EdgeWorkPage,
    GetEdgeWork,
    ListEdgeNotices,
)
from models.errors import Busy, Conflict, IncidentManagerError, Stale, Unavailable
from models.shard.edge_messages import ConnectEdge, DisconnectEdge, HoldEdges, TellEdge
from services.edge import words
from services.edge.ground import Ground
from services.edge.stream import NEWER, AgentStream, Link, admitted
from services.ingest.arrival import Sender

log = structlog.get_logger()

#: How often a shard is asked for what is to be sent: an action reaches its agent within this time.
LOOK_S = 0.1
#: How often shards hear which streams are open: a tenth of what they take for gone (LEASE_S).
HOLD_S = 1.0
#: Streams of one process. Each costs some kilobytes, and nothing while it is quiet.
STREAMS_MAX = 5000
#: A stream that ended is reported for so long; after that its shard finds out by itself.
GOODBYE_S = 5.0
#: Who sends the alert that an agent stays away.
_OWN = Sender("edge bridge")


class EdgeDesk:
    """start() before the first stream, stop() after the last. `name` is the process's, as shards know it."""

    def __init__(self, name: str, ground: Ground) -> None:
        self.shards = ground.shards
        self._ground = ground
        self._name = name
        self._streams: dict[str, AgentStream] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._farewells: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(each) for each in (self._look_for_ever(), self._hold_for_ever())]

    async def stop(self) -> None:
        """End what is left of the streams. Safe to call twice."""
        for stream in [*self._streams.values()]:
            stream.end(Unavailable("the gateway stops"))
        await end(self._tasks)
        self._tasks = []
        if self._farewells:
            await asyncio.wait([*self._farewells], timeout=GOODBYE_S)
        await end([*self._farewells])

    async def attend(self, link: Link, sender: Sender, first: bytes) -> None:
        """Serve one stream to its end, from its first message on. Raises Malformed, Forbidden, Busy, Unavailable, and Stale when a newer stream of the agent takes
        its place."""
        agent = admitted(sender, words.agent_in(words.read(first)))
        if len(self._streams) >= STREAMS_MAX:
            raise Busy(f"{STREAMS_MAX} streams of edge agents are open, the most at once")
        stream = AgentStream(self._ground, link, agent, sender)
        await self.shards.tell(agent, ConnectEdge(self.shards.tenant, agent, self._name, stream.id))
        if (older := self._streams.get(agent)) is not None:
            older.end(Stale(NEWER))
        self._streams[agent] = stream
        self._count()
        log.info("edge agent connected", agent=agent, sender=sender.name)
        hearing = asyncio.get_running_loop().create_task(stream.hear(first))
        leaving = asyncio.get_running_loop().create_task(stream.over.wait())
        why = "it closed its stream"
        try:
            await asyncio.wait((hearing, leaving), return_when=asyncio.FIRST_COMPLETED)
            if stream.why is not None:
                why = str(stream.why)
                raise stream.why
            await hearing
        except asyncio.CancelledError:
            why = "its connection broke"
            raise
        except IncidentManagerError as error:
            why = str(error)
            raise
        finally:
            stream.over.set()
            if self._streams.get(agent) is stream:
                del self._streams[agent]
            self._count()
            await end([each for each in (hearing, leaving, stream.sending) if each is not None])
            log.info("edge agent disconnected", agent=agent, why=why)
            gone = DisconnectEdge(self.shards.tenant, agent, stream.id, why)
            farewell = asyncio.get_running_loop().create_task(self._say_goodbye(agent, gone))
            self._farewells.add(farewell)
            farewell.add_done_callback(self._farewells.discard)

    # -- what is to be sent ----------------------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for found in await asyncio.gather(
                *(self._look(place) for place in self._places()), return_exceptions=True
            ):
                self._tell_bug(found)

    async def _look(self, place: int) -> None:
        with contextlib.suppress(Busy, Unavailable):
            page = await self.shards.ask(place, GetEdgeWork(self.shards.tenant, self._name), EdgeWorkPage)
            for work in page.items:
                stream = self._streams.get(work.agent)
                if stream is not None and stream.id == work.stream:
                    stream.send(work)

    async def _hold_for_ever(self) -> None:
        while True:
            await asyncio.sleep(HOLD_S)
            held = [self._hold(place, agents) for place, agents in self._places().items()]
            told = [self._tell_notices(place) for place in self.shards.all]
            for found in await asyncio.gather(*held, *told, return_exceptions=True):
                self._tell_bug(found)

    async def _hold(self, place: int, agents: list[str]) -> None:
        """Say which streams are open, and end those that are not their agent's any more: it opened one at another gateway."""
        streams = {
            self._streams[agent].id: self._streams[agent] for agent in agents if agent in self._streams
        }
        pairs = [(each.agent, identity) for identity, each in streams.items()]
        with contextlib.suppress(Busy, Unavailable):
            await self.shards.tell_at(place, HoldEdges(self.shards.tenant, pairs))
            question = GetEdgeWork(self.shards.tenant, self._name, pairs)
            for lost in (await self.shards.ask(place, question, EdgeWorkPage)).lost:
                streams[lost].end(Stale(NEWER))

    # -- agents that stay away -------------------------------------------------------------------------------

    async def _tell_notices(self, place: int) -> None:
        with contextlib.suppress(Busy, Unavailable):
            page = await self.shards.ask(place, ListEdgeNotices(self.shards.tenant), EdgeNoticePage)
            for notice in page.items:
                await self._tell_notice(notice)

    async def _tell_notice(self, notice: EdgeNotice) -> None:
        """Store the alert that an agent is away, or its end. Every gateway may: it is the same alert."""
        status = OFFLINE if notice.away else notice.status or HEALTHY
        detail = "it has not been connected since then" if notice.away else "it is connected again"
        said = words.health_as_json(notice.agent, status, detail, {}, notice.since if notice.away else 0.0)
        await self._ground.store([said], _OWN)
        try:
            told = TellEdge(self.shards.tenant, notice.agent, notice.since, notice.away)
            await self.shards.tell(notice.agent, told)
        except Conflict:
            if notice.away:
                # It came back meanwhile, and whoever told that may have been faster.
                back = words.health_as_json(notice.agent, HEALTHY, "it is connected again", {}, 0.0)
                await self._ground.store([back], _OWN)
            return
        if notice.away:
            log.warning("edge agent stays away", agent=notice.agent)

    # ----------------------------------------------------------------------------------------------------------

    def _places(self) -> dict[int, list[str]]:
        """The shards that have our agents, each with those."""
        found: dict[int, list[str]] = {}
        for agent in self._streams:
            found.setdefault(self.shards.place_of(agent), []).append(agent)
        return found

    async def _say_goodbye(self, agent: str, gone: DisconnectEdge) -> None:
        with contextlib.suppress(IncidentManagerError):
            await self.shards.tell(agent, gone)

    def _count(self) -> None:
        self._ground.meter.set("llm_im_edge_streams", len(self._streams))

    @staticmethod
    def _tell_bug(found: object) -> None:
        if isinstance(found, Exception):
            log.error("bug: edge agents can't be looked after", exc_info=found)
