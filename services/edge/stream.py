"""One agent's stream: reads what the agent says, one message after the other, and sends what it is to do. Made by desk.py.

A message is dealt with before the next is read, so a stream never has more in memory than that. What an agent says of an action is in
the log of its shard before its next message is read; an agent whose stream breaks says it again on the next one, since it is asked again.
"""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

import structlog

from models.alerts.matchers import compile_matchers
from models.edge.agent import ACCEPTED, DETAIL_MAX, HEALTHY, EdgeAction, check_agent_id
from models.edge.questions import EdgeWork
from models.errors import (
    Busy,
    Conflict,
    Forbidden,
    IncidentManagerError,
    Malformed,
    NotFound,
    Refused,
    Stale,
    Unavailable,
)
from models.incidents.incident import id_text
from models.shard.edge_messages import AnswerEdge, DeliverEdge, ReportEdge, WithdrawEdge
from models.shard.messages import Decision
from services.edge import words
from services.edge.ground import Ground
from services.ingest.arrival import Sender
from services.proto import incident_pb2 as pb

log = structlog.get_logger()

#: An agent that does not read for so long is disconnected: what it is to do waits for its next stream.
SLOW_S = 15.0
STREAM_BYTES = 16
#: What an agent is told that sends again.
RETRY_MS = 1000
#: Of a configuration, as an agent may claim to have it: the next ones are above it, and must fit into the protocol.
VERSION_MAX = 2**53
NEWER = "a newer stream of this agent is open"


class Link(Protocol):
    """The two ends of a stream."""

    async def read(self) -> bytes | None:
        """The next message of the agent, None at the end."""

    async def write(self, *messages: bytes) -> None:
        """Send messages to it. Waits while it does not read."""


class AgentStream:
    """`agent` is whose stream it is. It is over once `over` is set, with `why` if we end it."""

    def __init__(self, ground: Ground, link: Link, agent: str, sender: Sender) -> None:
        self.agent = agent
        self.id = os.urandom(STREAM_BYTES)
        self.sender = sender
        self.over = asyncio.Event()
        self.why: IncidentManagerError | None = None
        self.sending: asyncio.Task[None] | None = None
        self._ground = ground
        self._link = link
        #: Actions that were given to it here.
        self._given: dict[str, EdgeAction] = {}
        self._status: str | None = None
        #: The configuration and the health check that were sent to it here last.
        self._version, self._check = 0, ""

    def end(self, why: IncidentManagerError) -> None:
        """Let it end with this. The first call counts."""
        if not self.over.is_set():
            self.why = why
            self.over.set()

    # -- what the agent says -------------------------------------------------------------------------------

    async def hear(self, first: bytes) -> None:
        """All that it says until the end. Raises what ends the stream."""
        message: bytes | None = first
        while message is not None:
            await self._take(words.read(message))
            message = await self._link.read()

    async def _take(self, message: pb.EdgeToIncidentMsg) -> None:
        named = words.agent_in(message)
        if named and named != self.agent:
            raise Forbidden(f"agent_id: this stream is of agent {self.agent!r}")
        match message.WhichOneof("message"):
            case "alert":
                await self._alert(message.alert.alert)
            case "health":
                await self._health(message.health)
            case _:
                await self._result(message.action_result)

    async def _alert(self, alert: pb.AlertMessage) -> None:
        ack = pb.AlertAck(alert_id=alert.alert_id, status=pb.ACK_STATUS_ACCEPTED)
        try:
            decision, incident_id = await self._ground.store(
                words.alert_as_json(self.agent, alert), self.sender, alert.trace_context
            )
        except (Busy, Unavailable) as error:
            ack.status, ack.reason = pb.ACK_STATUS_RETRY, str(error)
            ack.retry_after_ms = int(getattr(error, "retry_after_s", 0.0) * 1000) or RETRY_MS
        except Refused as error:
            ack.status, ack.reason = pb.ACK_STATUS_DROPPED, str(error)
        else:
            ack.incident_id = id_text(incident_id) if incident_id else ""
            if decision in (Decision.REPEATED, Decision.DUPLICATE):
                ack.status = pb.ACK_STATUS_DUPLICATE
        if alert.alert_id:
            await self.write(words.ack_message(ack))

    async def _health(self, health: pb.EdgeHealthUpdate) -> None:
        status, detail = words.status_of(health), health.detail[:DETAIL_MAX]
        report = ReportEdge(
            self._ground.shards.tenant,
            self.agent,
            self.id,
            status,
            detail,
            words.services_of(health),
            words.can_do_of(health),
            min(max(0, health.config_version), VERSION_MAX),
            health.request_id[:100],
        )
        try:
            await self._ground.shards.tell(self.agent, report)
        except Conflict as error:
            raise Stale(NEWER) from error
        if status != HEALTHY or status != self._status:
            # A heartbeat of one that is well says nothing new.
            at = words.seconds(health.timestamp)
            said = words.health_as_json(self.agent, status, detail, dict(health.metrics), at)
            if not await self._store(said):
                status = ""
        self._status = status

    async def _result(self, result: pb.ActionResult) -> None:
        status, detail, outputs = words.result_of(result)
        answer = AnswerEdge(self._ground.shards.tenant, self.agent, result.action_id, status, detail, outputs)
        try:
            await self._ground.shards.tell(self.agent, answer)
        except (NotFound, Conflict) as error:
            log.warning(
                "edge agent answers for an action that it was not given",
                agent=self.agent,
                action=result.action_id[:200],
                why=str(error),
            )
            self._ground.meter.count("llm_im_edge_answers_unknown_total")
            return
        action = self._given.get(result.action_id) or await self._ground.shards.action(
            self.agent, result.action_id
        )
        if status != ACCEPTED and action is not None:
            self._given.pop(result.action_id, None)
            self._ground.meter.count("llm_im_edge_actions_total", type=action.type, outcome=status)
            said = words.result_as_json(self.agent, action, status, detail)
            await self._store(said)

    async def _store(self, said: words.Json) -> bool:
        """Have what follows from a message stored as an alert. What it said is known to its shard in any case."""
        try:
            await self._ground.store([said], self.sender)
        except IncidentManagerError as error:
            log.warning("what an edge agent says is not stored as an alert", agent=self.agent, why=str(error))
            return False
        return True

    # -- what it is to do ----------------------------------------------------------------------------------

    def send(self, work: EdgeWork) -> None:
        """Send it what its shard has for it, unless that is under way."""
        if (self.sending is None or self.sending.done()) and not self.over.is_set():
            self.sending = asyncio.get_running_loop().create_task(self._send(work))

    async def _send(self, work: EdgeWork) -> None:
        try:
            if work.config is not None:
                version, values = work.config
                if version != self._version and await self._may(
                    DeliverEdge(self._tenant, self.agent, self.id, config=version)
                ):
                    self._version = version
                    await self.write(words.config_message(version, values))
            if work.check is not None:
                identity, service = work.check
                if identity != self._check and await self._may(
                    DeliverEdge(self._tenant, self.agent, self.id, check=identity)
                ):
                    self._check = identity
                    await self.write(words.check_message(identity, service))
            for action in work.actions:
                await self._send_action(action)
        except (Busy, Unavailable):
            return  # the next look tries again
        except TimeoutError:
            self.end(Unavailable(f"nothing was read for {SLOW_S:g} s"))
        except Exception:
            log.exception("bug: an edge agent could not be sent what it is to do", agent=self.agent)
            self.end(Unavailable("a bug of the server"))

    async def _send_action(self, action: EdgeAction) -> None:
        if action.id in self._given:
            return
        if not await self._ground.shards.is_wanted(action.incident_id, action.key):
            why = "the run that asked for it is over, or was cancelled"
            await self._ground.shards.tell(self.agent, WithdrawEdge(self._tenant, self.agent, action.id, why))
            return
        # In the log before it leaves: what is not there was never sent.
        if await self._may(DeliverEdge(self._tenant, self.agent, self.id, action.id)):
            self._given[action.id] = action
            await self.write(words.action_message(action, self._ground.clock.now()))

    async def _may(self, deliver: DeliverEdge) -> bool:
        try:
            await self._ground.shards.tell(self.agent, deliver)
        except Conflict:
            return False
        except Unavailable:
            # It may be in the log as sent, and is not: on the next stream all of it comes again.
            self.end(Unavailable("its shard does not answer: connect again"))
            raise
        return True

    async def write(self, message: bytes) -> None:
        """Raises TimeoutError when the agent does not read."""
        async with asyncio.timeout(SLOW_S):
            await self._link.write(message)

    @property
    def _tenant(self) -> str:
        return self._ground.shards.tenant


def admitted(sender: Sender, agent: str) -> str:
    """The agent, if a sender may speak for it: a token may be bound to agents as to other labels. Raises Malformed, Forbidden."""
    if not agent:
        raise Malformed("agent_id: expected one in the first message of a stream")
    check_agent_id(agent)
    bound = [each for each in sender.match if each[0] == "agent"]
    if bound and not compile_matchers(bound)({"agent": agent}):
        raise Forbidden(f"the token {sender.name!r} may not speak for agent {agent!r}")
    return agent
