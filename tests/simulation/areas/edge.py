"""Edge agents that lose their streams, are slow and forget, and somebody who has them do things.

What was asked for is given to its agent, in order, and ends once; nothing is given that the log does not have as given, or that was
withdrawn; what an agent answered is what the log has. An agent's configuration and health check arrive too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from models.edge.agent import FAILED, IN_DOUBT, OPEN, REJECTED, SUCCEEDED, WITHDRAWN, EdgeAgent
from models.errors import IncidentManagerError, Refused, Unavailable
from models.metrics import Meter
from models.partition.event import Event
from models.partition.sharding import TENANT
from models.shard.edge_messages import (
    AskEdge,
    CheckEdge,
    ConfigureEdge,
    EdgeActionChanged,
    EdgeActionQueued,
    EdgeCheckAsked,
    EdgeConfigured,
    EdgeConnected,
    EdgeDelivered,
    EdgeDisconnected,
    EdgeForgotten,
    EdgeNoticed,
    EdgeReported,
    WithdrawEdge,
)
from models.shard.edge_outbox import EdgeOutbox
from models.shard.messages import Message
from services.edge.desk import EdgeDesk
from services.edge.shards import EdgeShards
from services.ingest.arrival import ANONYMOUS
from services.proto import incident_pb2 as pb
from tests.simulation.area import Area
from tests.simulation.gateway import Gateway
from tests.simulation.wire import dead

if TYPE_CHECKING:
    from tests.simulation.watch import Watcher
    from tests.simulation.world import World

AGENTS = ("edge-a", "edge-b")
#: A gateway tries for 5 s to have it in the log, and a call takes up to 5 s more.
ARRIVES_S = 12.0
#: What a stream breaks with.
_BROKEN = b"broken"
_ENDS = {
    pb.ACTION_STATUS_SUCCEEDED: SUCCEEDED,
    pb.ACTION_STATUS_FAILED: FAILED,
    pb.ACTION_STATUS_REJECTED: REJECTED,
}


class Link:
    """The two ends of a stream: what is under way is lost when it breaks."""

    def __init__(self) -> None:
        self.up: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.down: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes | None:
        message = await self.up.get()
        if message == _BROKEN:
            raise Unavailable("the stream broke")
        return message

    async def write(self, *messages: bytes) -> None:
        for message in messages:
            self.down.put_nowait(message)


class Shards(EdgeShards):
    """As a gateway has them; whether an action is still wanted, whoever asked for it knows."""

    def __init__(self, gateway: Gateway, cancelled: set[str]) -> None:
        super().__init__(gateway.lines, lambda: gateway.submitter.slots, TENANT)
        self._cancelled = cancelled

    async def is_wanted(self, incident_id: bytes, key: str) -> bool:
        return key not in self._cancelled


class Ground:
    """What streams stand on, without an intake: that alerts are stored once is the area of alerts."""

    def __init__(self, world: World, shards: Shards) -> None:
        self.shards, self.clock, self.meter = shards, world.clock, Meter("edge")
        self._world = world

    async def store(self, _said: object, _sender: object, _trace: str = "") -> tuple[None, bytes]:
        if self._world.is_troubled and self._world.rng.random() < 0.1:
            raise Unavailable("the intake is away")
        return None, b""


@dataclass
class Agent:
    """An agent, and what it remembers until it dies."""

    name: str
    link: Link | None = None
    version: int = 0
    check: str = ""
    done: dict[str, int] = field(default_factory=dict)
    under_way: set[str] = field(default_factory=set)
    #: On this stream: the actions that came, and the place of the last one.
    heard: set[str] = field(default_factory=set)
    place: int = -1

    def say(self, message: pb.EdgeToIncidentMsg) -> None:
        if self.link is not None:
            self.link.up.put_nowait(message.SerializeToString())

    def health(self) -> pb.EdgeToIncidentMsg:
        check, self.check = self.check, ""
        return pb.EdgeToIncidentMsg(
            health=pb.EdgeHealthUpdate(
                agent_id=self.name,
                status=pb.HEALTH_STATUS_HEALTHY,
                config_version=self.version,
                request_id=check,
            )
        )

    def answer(self, action: str, status: int) -> None:
        result = pb.ActionResult(agent_id=self.name, action_id=action, status=status)  # type: ignore[arg-type]
        self.say(pb.EdgeToIncidentMsg(action_result=result))


class Edge(Area):
    events = frozenset(
        {
            EdgeConnected, EdgeDisconnected, EdgeReported, EdgeActionQueued, EdgeDelivered, EdgeActionChanged, EdgeConfigured,
            EdgeCheckAsked, EdgeNoticed, EdgeForgotten,
        }
    )  # fmt: skip
    troubles = ("edge stream", "edge agent")

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.agents = {name: Agent(name) for name in AGENTS}
        self._desks: dict[Gateway, EdgeDesk] = {}
        self._served: list[Coroutine[Any, Any, None]] = []
        #: Keys that nobody waits for any more.
        self._cancelled: set[str] = set()
        #: Actions that a shard said it has, and the agent of each.
        self._asked: dict[str, str] = {}
        # By the log: the place of each action in its agent's queue, how it stands, what was given on which streams.
        self._places: dict[str, int] = {}
        self._queued = 0
        self._states: dict[str, str] = {}
        self._given: set[tuple[str, bytes]] = set()
        self._forgotten: set[str] = set()
        #: All that agents ever answered for each.
        self._answers: dict[str, set[str]] = {}

    def lives(self) -> list[Coroutine[Any, Any, None]]:
        return [*(self._live(agent) for agent in self.agents.values()), self._ask_for_ever()]

    def strike(self, trouble: str) -> None:
        agent = self.world.rng.choice(list(self.agents.values()))
        if trouble == "edge agent":
            self.world.story(f"{agent.name} dies and forgets")
            agent.done.clear()
            agent.under_way.clear()
        if agent.link is not None:
            agent.link.up.put_nowait(_BROKEN)

    def close(self) -> None:
        for each in self._served:
            # Its `finally` waits for something, and there is nothing any more.
            with contextlib.suppress(RuntimeError):
                each.close()

    # -- agents --------------------------------------------------------------------------------------------

    async def _live(self, agent: Agent) -> None:
        """Connects to some gateway, again and again."""
        world, rng = self.world, self.world.rng
        while True:
            gateway = world.gateway()
            if gateway is not None:
                link = agent.link = Link()
                agent.place = -1
                agent.heard.clear()
                served = self._serve(gateway, link, agent.health().SerializeToString())
                self._served.append(served)
                over = world.loop.spawn_call(gateway.process, served, lambda: dead("its gateway"))
                await self._stream(agent, link, over)
                agent.link = None
                with contextlib.suppress(IncidentManagerError):
                    await over
            # The last is longer than `edge_offline_after_s`.
            await asyncio.sleep(rng.choice((0.1, 0.5, 2.0, 6.0)))

    async def _serve(self, gateway: Gateway, link: Link, first: bytes) -> None:
        desk = self._desks.get(gateway)
        if desk is None:
            ground: Any = Ground(self.world, Shards(gateway, self._cancelled))
            desk = self._desks[gateway] = EdgeDesk(gateway.name, ground)
            desk.start()
        await desk.attend(link, ANONYMOUS, first)

    async def _stream(self, agent: Agent, link: Link, over: asyncio.Future[None]) -> None:
        """Until it breaks."""
        world, rng = self.world, self.world.rng
        while not over.done():
            coming = world.loop.create_task(link.down.get())
            await asyncio.wait({coming, over}, timeout=3.0, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                self._hear(agent, pb.IncidentToEdgeMsg.FromString(coming.result()))
                if world.is_troubled and rng.random() < 0.05:
                    link.up.put_nowait(_BROKEN)
            else:
                coming.cancel()
                agent.say(agent.health())

    def _hear(self, agent: Agent, message: pb.IncidentToEdgeMsg) -> None:
        match message.WhichOneof("message"):
            case "action":
                self._hear_action(agent, message.action.action_id)
            case "config":
                # The same comes again on a stream on which the agent has not said yet that it has it.
                if message.config.version < agent.version:
                    self.world.fail(f"{agent.name} is given configuration {message.config.version} again")
                agent.version = message.config.version
                agent.say(agent.health())
            case _:
                agent.check = message.health_check.request_id
                agent.say(agent.health())

    def _hear_action(self, agent: Agent, action: str) -> None:
        rng = self.world.rng
        if not any(given == action for given, _stream in self._given):
            self.world.fail(f"{action} reached {agent.name} before the log has it as given")
        if (state := self._states.get(action)) == WITHDRAWN:
            self.world.fail(f"{action} reached {agent.name} and is {state}")
        if (place := self._places[action]) <= agent.place:
            self.world.fail(f"{action} reached {agent.name} after what was asked for later")
        agent.place = place
        agent.heard.add(action)
        if (known := agent.done.get(action)) is not None:
            self._answer(agent, action, known)
        elif action not in agent.under_way:
            agent.under_way.add(action)
            if rng.random() < 0.4:
                agent.answer(action, pb.ACTION_STATUS_ACCEPTED)
            self.world.spawn(self._do(agent, action, rng.choice((0.0, 0.3, 4.0))))

    async def _do(self, agent: Agent, action: str, for_s: float) -> None:
        await asyncio.sleep(for_s)
        if action in agent.under_way:
            agent.under_way.discard(action)
            agent.done[action] = self.world.rng.choice([*_ENDS])
            self._answer(agent, action, agent.done[action])

    def _answer(self, agent: Agent, action: str, status: int) -> None:
        self._answers.setdefault(action, set()).add(_ENDS[status])  # type: ignore[index]
        agent.answer(action, status)

    # -- who has them do things ----------------------------------------------------------------------------

    async def _ask_for_ever(self) -> None:
        world, rng, count = self.world, self.world.rng, 0
        while not world.is_settling:
            await asyncio.sleep(rng.uniform(0.3, 2.0))
            count += 1
            agent, action = rng.choice(AGENTS), f"act-{count}"
            fate = rng.random()
            if fate < 0.1:
                world.spawn(self._steer(ConfigureEdge(TENANT, agent, {"level": str(count)}, "ann")))
            elif fate < 0.2:
                world.spawn(self._steer(CheckEdge(TENANT, agent, f"check-{count}", "", "ann")))
            else:
                world.spawn(self._have_done(agent, action, rng.choice((2.0, 10.0, 30.0))))

    async def _have_done(self, agent: str, action: str, timeout_s: float) -> None:
        rng = self.world.rng
        message = AskEdge(
            TENANT, agent, action, f"key-{action}", b"\7" * 16, "restart", "", {"n": action}, timeout_s
        )
        while not await self._tell(message):
            if rng.random() < 0.2:
                return
            await asyncio.sleep(1.0)
        self._asked[action] = agent
        if rng.random() < 0.25:
            await asyncio.sleep(rng.choice((0.0, 0.5, 3.0)))
            self._cancelled.add(message.key)
            if rng.random() < 0.5:
                await self._tell(WithdrawEdge(TENANT, agent, action, "cancelled"))

    async def _steer(self, message: Any) -> None:
        await self._tell(message)

    async def _tell(self, message: Any) -> bool:
        """Whether the shard has it for sure."""
        gateway = self.world.gateway()
        if gateway is None:
            return False
        try:
            await self.world.loop.spawn_call(
                gateway.process, self._told(gateway, message), lambda: dead(gateway.name)
            )
        except Refused as error:
            self.world.story("an edge agent may not", why=error)
            return False
        except IncidentManagerError:
            return False
        return True

    async def _told(self, gateway: Gateway, message: Any) -> None:
        assert isinstance(message, Message)
        await Shards(gateway, self._cancelled).tell(message.agent, message)  # type: ignore[attr-defined]

    # -- what must hold ------------------------------------------------------------------------------------

    def seen(self, watcher: Watcher, event: Event) -> None:
        match event:
            case EdgeActionQueued():
                if event.action in self._places:
                    self.world.fail(f"{event.action} is asked for twice")
                self._queued += 1
                self._places[event.action] = self._queued
            case EdgeDelivered() if event.action:
                if self._states.get(event.action, "queued") not in OPEN:
                    self.world.fail(f"{event.action} is given and is {self._states[event.action]}")
                if (event.action, event.stream) in self._given:
                    self.world.fail(f"{event.action} is given twice on one stream")
                self._given.add((event.action, event.stream))
                self.world.spawn(self._arrives(watcher, event, self.agents[event.agent].link))
            case EdgeActionChanged():
                before = self._states.get(event.action, "queued")
                if before not in OPEN and (before, event.state in _ENDS.values()) != (IN_DOUBT, True):
                    self.world.fail(f"{event.action} is {event.state} after it was {before}")
                if event.state in _ENDS.values() and event.state not in self._answers.get(event.action, ()):
                    self.world.fail(f"{event.action} is {event.state}, which its agent never said")
                self._states[event.action] = event.state
            case EdgeForgotten():
                # By a clock that is a day ahead, perhaps: then it may be asked for anew.
                self._forgotten |= {*event.actions}
                for action in event.actions:
                    self._places.pop(action, None)
                    self._states.pop(action, None)
            case _:
                pass

    async def _arrives(self, watcher: Watcher, event: EdgeDelivered, link: Link | None) -> None:
        """What the log has as given reaches its agent, unless the stream breaks first."""
        await asyncio.sleep(ARRIVES_S)
        agent, ours = watcher.mirror.of(EdgeOutbox).find(TENANT, event.agent), self.agents[event.agent]
        action = None if agent is None else agent.actions.get(event.action)
        if agent is None or action is None or not action.is_open or link is None or ours.link is not link:
            return
        if agent.stream == action.stream == event.stream and event.action not in ours.heard:
            self.world.fail(f"{event.action} is given to {agent.id} by the log, and never reached it")

    def holds(self) -> None:
        known: dict[str, EdgeAgent] = {
            each.id: each
            for watcher in self.world.watchers.values()
            for each in watcher.mirror.of(EdgeOutbox).store.agents.values()
        }
        for name, agent in known.items():
            ours = self.agents[name]
            if not agent.is_connected:
                self.world.fail(f"{name} is away at the end")
            if agent.config.version > ours.version:
                self.world.fail(f"{name} has configuration {ours.version}, not {agent.config.version}")
            if agent.check.id and not agent.check.answered_at:
                self.world.fail(f"{name} was never asked how it is")
            for action in agent.actions.values():
                if action.is_open:
                    self.world.fail(f"{action.id} of {name} is {action.state} at the end")
        for asked, name in self._asked.items():
            if asked not in self._forgotten and (name not in known or asked not in known[name].actions):
                self.world.fail(f"{asked} of {name} was taken, and is forgotten")
