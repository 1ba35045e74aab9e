"""Edge agents whose slot is here, and what each is to do: the outbox. What is known of an agent: models/edge/agent.py.

What is to be sent is asked for by the gateway that has the agent's stream (GetEdgeWork). It says what it is about to send
(DeliverEdge), and sends it once that is in the log: so what is not in the log as delivered was never sent, and expires or is withdrawn
without a doubt. On the next stream of the agent everything comes again that has no final answer, by the same id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

import msgspec

from models.edge.agent import (
    ACCEPTED,
    AWAY_OWED,
    AWAY_TOLD,
    BACK_OWED,
    DELIVERED,
    EXPIRED,
    IN_DOUBT,
    QUEUED,
    QUIET,
    SUCCEEDED,
    TIMEOUT_MAX_S,
    WITHDRAWN,
    EdgeAction,
    EdgeAgent,
)
from models.errors import Busy, Conflict, NotFound, Refused
from models.partition.sharding import slot_of
from models.partition.timers import Timers
from models.shard.component import Component, EventOf, RecordOf, on
from models.shard.core import Core, Whose
from models.shard.edge_messages import (
    AnswerEdge,
    AskEdge,
    CheckEdge,
    ConfigureEdge,
    ConnectEdge,
    DeliverEdge,
    DisconnectEdge,
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
    HoldEdges,
    ReportEdge,
    TellEdge,
    WithdrawEdge,
)
from models.shard.edge_state import EDGE, FOLDS, EdgeStore, key_of
from models.shard.events import ClockSetBack
from models.shard.messages import Done, Failed, Reply, Tick

#: Agents of one shard: a large fleet over two shards. One costs some kilobytes.
AGENTS_MAX = 10_000
#: Actions of one agent, those of the last day included: an agent that is asked for more is not helped by more.
ACTIONS_MAX = 500
#: Bytes of all actions of a shard, about.
BYTES_MAX = 64 * 1024 * 1024
#: A stream that no gateway says it has for so long is closed: ten times what lies between two of its calls.
LEASE_S = 10.0
#: An action that is over is kept so long, so that one that is asked for again is known. No run lasts longer.
ACTION_KEPT_S = 86_400.0
#: An agent that is away is kept so long.
AGENT_KEPT_S = 30 * 86_400.0
#: Agents that one tick looks at: 10 us each.
DUE_MAX = 500
#: Looked at again after so long, if what was due has to wait (we ourselves were down).
AGAIN_S = 1.0


class EdgeOutbox(Component):
    name = "edge outbox"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        self.store = EdgeStore(shard.state)
        #: When each agent is next looked at.
        self._timers = Timers()
        #: When a gateway last said that it has the stream, and since when this process could be told. Only live.
        self._held: dict[bytes, float] = {}
        self._began_at = 0.0

    def find(self, tenant: str, agent: str) -> EdgeAgent | None:
        return self.store.find(tenant, agent)

    # -- streams -------------------------------------------------------------------------------------------

    def _connect(self, message: ConnectEdge, now: float) -> Reply:
        key = key_of(message.tenant, message.agent)
        agent = self.store.agents.get(key)
        if agent is None and len(self.store.agents) >= AGENTS_MAX:
            return _failed(Busy(f"{AGENTS_MAX} edge agents are known to this shard, the most it keeps"))
        self._held[key] = now
        if agent is None or agent.stream != message.stream:
            self.shard.do(EdgeConnected(message.tenant, message.agent, message.gateway, message.stream), now)
            agent = self.store.agents[key]
            if agent.notice in (AWAY_OWED, AWAY_TOLD):
                # Also one that is only owed: whoever was asked to tell it may be about to.
                self.shard.do(EdgeNoticed(agent.tenant, agent.id, BACK_OWED), now)
        return Done()

    def _disconnect(self, message: DisconnectEdge, now: float) -> Reply:
        agent = self.find(message.tenant, message.agent)
        if agent is not None and agent.stream == message.stream:
            self.shard.do(EdgeDisconnected(message.tenant, message.agent, message.why), now)
        return Done()

    def _hold(self, message: HoldEdges, now: float) -> Reply:
        for identity, stream in message.streams:
            key = key_of(message.tenant, identity)
            agent = self.store.agents.get(key)
            if agent is not None and agent.stream == stream:
                self._held[key] = now
        return Done()

    def _report(self, message: ReportEdge, now: float) -> Reply:
        agent = self.find(message.tenant, message.agent)
        if agent is None or agent.stream != message.stream:
            return _failed(Conflict("another stream of this agent is newer"))
        check = message.check if message.check == agent.check.id and not agent.check.answered_at else ""
        said = (
            message.status, message.detail, message.services, message.can_do, message.config_version
        )  # fmt: skip
        known = (agent.status, agent.detail, agent.services, agent.can_do, agent.config_version)
        if check or said != known:
            self.shard.do(EdgeReported(message.tenant, message.agent, *said, check), now)
        return Done()

    # -- actions -------------------------------------------------------------------------------------------

    def _ask(self, message: AskEdge, now: float) -> Reply:
        agent = self.find(message.tenant, message.agent)
        if agent is not None and message.action in agent.actions:
            return Done()
        try:
            agent = self._able(agent, message)
        except Refused as refused:
            return _failed(refused)
        if message.same_as and _done_before(agent, message.same_as) is not None:
            return Done()
        self.shard.do(
            EdgeActionQueued(
                message.tenant,
                message.agent,
                message.action,
                message.key,
                message.incident_id,
                message.type,
                message.service,
                message.parameters,
                now + min(max(0.0, message.timeout_s), TIMEOUT_MAX_S),
                message.same_as,
            ),
            now,
        )
        return Done()

    def _able(self, agent: EdgeAgent | None, message: AskEdge) -> EdgeAgent:
        """The agent, if it can be asked. Raises NotFound, Conflict, Busy."""
        if agent is None:
            raise NotFound(f"edge agent {message.agent!r} is not known: it has never connected")
        if agent.can_do and message.type not in agent.can_do:
            raise Conflict(f"edge agent {agent.id!r} does not do {message.type}")
        if agent.services and message.service not in agent.services:
            raise Conflict(f"edge agent {agent.id!r} does not name service {message.service[:100]!r}")
        if message.same_as:
            for each in agent.actions.values():
                if each.same_as == message.same_as and (each.is_open or each.state == IN_DOUBT):
                    raise Conflict(
                        "an earlier try may have been done, and it must be done once: not repeated"
                    )
        if len(agent.actions) >= ACTIONS_MAX:
            raise Busy(
                f"edge agent {agent.id!r} was asked for {ACTIONS_MAX} actions within a day, the most at once"
            )
        if self.store.size >= BYTES_MAX:
            raise Busy("the edge agents of this shard have as many actions as it keeps")
        return agent

    def _deliver(self, message: DeliverEdge, now: float) -> Reply:
        agent = self.find(message.tenant, message.agent)
        if agent is None or agent.stream != message.stream:
            return _failed(Conflict("another stream of this agent is newer"))
        config, check = agent.config, agent.check
        if message.action:
            action = agent.actions.get(message.action)
            is_noted = (
                action is not None
                and action.is_open
                and action.stream == message.stream
                and now < action.deadline
            )
            is_wanted = action is not None and action in agent.to_deliver(now)
        elif message.config:
            is_noted = message.config == config.version and config.stream == message.stream
            is_wanted = message.config == config.version and agent.wants_config
        else:
            is_noted = message.check == check.id and check.stream == message.stream
            is_wanted = message.check == check.id and agent.wants_check
        if is_noted:
            # Whoever repeats this never got the answer, and so has not sent it.
            return Done()
        if not is_wanted:
            return _failed(Conflict("it is not to be sent any more"))
        self.shard.do(
            EdgeDelivered(
                message.tenant, message.agent, message.stream, message.action, message.config, message.check
            ),
            now,
        )
        return Done()

    def _answer(self, message: AnswerEdge, now: float) -> Reply:
        agent = self.find(message.tenant, message.agent)
        action = None if agent is None else agent.actions.get(message.action)
        if action is None:
            return _failed(NotFound("this agent was not asked for such an action, or that was a day ago"))
        if action.state in (QUEUED, EXPIRED, WITHDRAWN):
            return _failed(Conflict(f"this action was never given to the agent: it is {action.state}"))
        is_news = action.state in (DELIVERED, ACCEPTED, IN_DOUBT) and message.status != action.state
        if not is_news or (message.status == ACCEPTED and action.state != DELIVERED):
            return Done()
        self._change(message, action, message.status, now, message.detail, message.outputs)
        return Done()

    def _withdraw(self, message: WithdrawEdge, now: float) -> Reply:
        agent = self.find(message.tenant, message.agent)
        action = None if agent is None else agent.actions.get(message.action)
        if action is not None and action.state == QUEUED:
            self._change(message, action, WITHDRAWN, now, message.why)
        return Done()

    def _change(
        self,
        about: Any,
        action: EdgeAction,
        state: str,
        now: float,
        detail: str,
        outputs: dict[str, str] | None = None,
    ) -> None:
        self.shard.do(
            EdgeActionChanged(about.tenant, about.agent, action.id, state, detail, outputs or {}), now
        )

    # -- people --------------------------------------------------------------------------------------------

    def _configure(self, message: ConfigureEdge, now: float) -> Reply:
        agent = self.find(message.tenant, message.agent)
        if agent is None:
            return _failed(NotFound("there is no such edge agent"))
        before = agent.config
        if not before.version or before.values != message.values:
            # Above what the agent has, whoever gave it that: it takes none that is not newer.
            version = max(before.version, agent.config_version) + 1
            self.shard.do(
                EdgeConfigured(message.tenant, message.agent, version, message.values, message.by), now
            )
        return Done()

    def _check(self, message: CheckEdge, now: float) -> Reply:
        agent = self.find(message.tenant, message.agent)
        if agent is None:
            return _failed(NotFound("there is no such edge agent"))
        if agent.check.id != message.check:
            self.shard.do(
                EdgeCheckAsked(message.tenant, message.agent, message.check, message.service, message.by),
                now,
            )
        return Done()

    # -- away and back -------------------------------------------------------------------------------------

    def _tell(self, message: TellEdge, now: float) -> Reply:
        agent = self.find(message.tenant, message.agent)
        owed = AWAY_OWED if message.away else BACK_OWED
        if agent is None or agent.notice != owed or agent.since != message.since:
            return _failed(Conflict("something else is to be told of this agent now"))
        after = AWAY_TOLD if message.away else QUIET
        self.shard.do(EdgeNoticed(message.tenant, message.agent, after), now)
        return Done()

    # -- time ----------------------------------------------------------------------------------------------

    def tick(self, tick: Tick, now: float) -> None:
        for key in self._timers.due(now, DUE_MAX):
            agent = self.store.agents.get(key)
            if agent is None:
                continue
            self._due(key, agent, now, tick.in_gap)
            if key in self.store.agents:
                # What could not be decided now, because we ourselves hear nobody, is looked at again.
                self._timers.set(key, max(self._next_at(key, agent), now + AGAIN_S))

    def _due(self, key: bytes, agent: EdgeAgent, now: float, in_gap: bool) -> None:
        about = _About(agent.tenant, agent.id)
        for action in [*agent.actions.values()]:
            if action.is_open and action.deadline <= now:
                if action.state == QUEUED:
                    self._change(about, action, EXPIRED, now, "it was not given to the agent in time")
                else:
                    self._change(
                        about, action, IN_DOUBT, now, "the agent did not say in time what became of it"
                    )
        if not in_gap:
            if agent.is_connected and self._held_at(key) + LEASE_S <= now:
                self.shard.do(
                    EdgeDisconnected(agent.tenant, agent.id, "the gateway that had its stream is gone"), now
                )
            if self._is_missed(agent, now):
                self.shard.do(EdgeNoticed(agent.tenant, agent.id, AWAY_OWED), now)
        over = [each.id for each in agent.actions.values() if _forget_at(each) <= now]
        is_lost = not agent.is_connected and agent.since + AGENT_KEPT_S <= now and agent.notice != AWAY_OWED
        whole = is_lost and len(over) == len(agent.actions)
        if over or whole:
            self.shard.do(EdgeForgotten(agent.tenant, agent.id, over, whole), now)

    def _is_missed(self, agent: EdgeAgent, now: float) -> bool:
        return (
            not agent.is_connected
            and agent.notice in (QUIET, BACK_OWED)
            and 0 < self.shard.settings.edge_offline_after_s <= now - agent.since
            # As with alerts: while we were down nobody could be heard.
            and now >= self.state.no_expiry_before
        )

    def _next_at(self, key: bytes, agent: EdgeAgent) -> float:
        """When an agent is next looked at."""
        times = [each.deadline if each.is_open else _forget_at(each) for each in agent.actions.values()]
        if agent.is_connected:
            times.append(self._held_at(key) + LEASE_S)
        else:
            times.append(agent.since + AGENT_KEPT_S)
            if agent.notice in (QUIET, BACK_OWED) and self.shard.settings.edge_offline_after_s > 0:
                missed_at = agent.since + self.shard.settings.edge_offline_after_s
                times.append(max(missed_at, self.state.no_expiry_before))
        return min(times)

    def _held_at(self, key: bytes) -> float:
        return max(self._held.get(key, 0.0), self._began_at)

    def started(self, now: float, is_set_back: bool) -> None:
        self._held = {}
        self._began_at = now
        self._look_at_all()

    def settings_changed(self) -> None:
        self._look_at_all()

    def _look_at_all(self) -> None:
        for agent in self.store.agents.values():
            self._look_at(agent)

    def _look_at(self, agent: EdgeAgent) -> None:
        key = key_of(agent.tenant, agent.id)
        self._timers.set(key, self._next_at(key, agent))

    def _after_set_back(self, event: ClockSetBack) -> None:
        self.started(event.after, True)

    # -- live and in replay --------------------------------------------------------------------------------

    def _fold(self, event: Any, now: float) -> None:
        self.store.fold(event, now)
        key = key_of(event.tenant, event.agent)
        agent = self.store.agents.get(key)
        self._timers.set(key, 0.0 if agent is None else self._next_at(key, agent))

    def _fold_set_back(self, event: ClockSetBack, _now: float) -> None:
        self.store.set_back(event)
        self._look_at_all()

    # -- snapshots, and slots that move ----------------------------------------------------------------------

    def _capture(self, key: int | bytes) -> bytes | None:
        agent = self.store.agents.get(key) if isinstance(key, bytes) else None
        return None if agent is None else _encoder.encode(agent)

    def _load(self, _key: int | bytes, record: bytes, _version: int) -> None:
        self.store.load(_decoder.decode(record))

    def slots_held(self) -> Iterable[int]:
        return {slot_of(each.tenant, each.id) for each in self.store.agents.values()}

    def carries_slot(self, slot: int) -> bytes | None:
        found = self.store.of_slot(slot)
        return _encoder.encode(found) if found else None

    def brings_slot(self, slot: int, record: bytes) -> None:
        for agent in _list_decoder.decode(record):
            self.store.take(agent)
            self._look_at(agent)

    def drops_slot(self, slot: int) -> None:
        for agent in self.store.of_slot(slot):
            self.store.drop(agent)

    messages = {
        ConnectEdge: _connect,
        DisconnectEdge: _disconnect,
        HoldEdges: _hold,
        ReportEdge: _report,
        AskEdge: _ask,
        DeliverEdge: _deliver,
        AnswerEdge: _answer,
        WithdrawEdge: _withdraw,
        ConfigureEdge: _configure,
        CheckEdge: _check,
        TellEdge: _tell,
    }
    follows = {ClockSetBack: _fold_set_back}
    after = {ClockSetBack: _after_set_back}
    records = (RecordOf(EDGE, _capture, _load),)
    events: ClassVar[Sequence[EventOf[Any]]] = tuple(map(partial(on, fold=_fold, whose=Whose.TENANT), FOLDS))


class _About(msgspec.Struct):
    """Whose action it is, where no message says it."""

    tenant: str
    agent: str


def result_of(agent: EdgeAgent, action: str, same_as: str) -> EdgeAction | None:
    """What became of an action: of the one that was asked for, else of the try that was done before."""
    found = agent.actions.get(action)
    return found if found is not None or not same_as else _done_before(agent, same_as)


def _done_before(agent: EdgeAgent, same_as: str) -> EdgeAction | None:
    return next(
        (each for each in agent.actions.values() if each.same_as == same_as and each.state == SUCCEEDED), None
    )


def _forget_at(action: EdgeAction) -> float:
    return float("inf") if action.is_open else action.ended_at + ACTION_KEPT_S


def _failed(refused: Refused) -> Failed:
    return Failed(type(refused).__name__, str(refused), getattr(refused, "retry_after_s", 0.0))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(EdgeAgent)
_list_decoder = msgspec.msgpack.Decoder(list[EdgeAgent])
