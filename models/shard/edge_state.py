"""What a shard keeps of edge agents, and what each event makes of it (edge_messages.py). Records of their own in snapshots, one an agent.
Who decides: edge_outbox.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from models.edge.agent import (
    AWAY_OWED,
    BACK_OWED,
    DELIVERED,
    OPEN,
    QUEUED,
    EdgeAction,
    EdgeAgent,
    EdgeCheck,
    EdgeConfig,
)
from models.partition.checkpoint import RecordKind
from models.partition.event import Event
from models.partition.sharding import slot_of
from models.shard import clock
from models.shard.edge_messages import (
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
)
from models.shard.events import ClockSetBack
from models.shard.state import ShardState

EDGE = RecordKind("edge agents", has_ids=True)


def key_of(tenant: str, agent: str) -> bytes:
    """The key of an agent's record."""
    return f"{tenant}\0{agent}".encode()


class EdgeStore:
    """`agents` by their keys; `size`: bytes of all their actions, about. What follows from them: `work`, by gateway the agents that it
    has something to send to, and `owed`, those of which something is to be told."""

    def __init__(self, state: ShardState) -> None:
        self.agents: dict[bytes, EdgeAgent] = {}
        self.size = 0
        self.work: dict[str, dict[bytes, None]] = {}
        self.owed: dict[bytes, None] = {}
        self._touch = state.checkpoint.touch

    def find(self, tenant: str, agent: str) -> EdgeAgent | None:
        return self.agents.get(key_of(tenant, agent))

    def work_of(self, gateway: str) -> Iterator[EdgeAgent]:
        """The agents that a gateway has something to send to."""
        for key in self.work.get(gateway, ()):
            yield self.agents[key]

    def noticed(self, tenant: str) -> Iterator[EdgeAgent]:
        """The agents of which something is to be told."""
        for key in self.owed:
            if (agent := self.agents[key]).tenant == tenant:
                yield agent

    def of_slot(self, slot: int) -> list[EdgeAgent]:
        return [each for each in self.agents.values() if slot_of(each.tenant, each.id) == slot]

    def changing(self, event: Any) -> EdgeAgent:
        """The agent of an event, about to change."""
        key = key_of(event.tenant, event.agent)
        self._touch(EDGE, key)
        return self.agents[key]

    def fold(self, event: Any, now: float) -> None:
        """What an event makes of its agent."""
        FOLDS[type(event)](self, event, now)
        agent = self.find(event.tenant, event.agent)
        if agent is not None:
            self._index(agent)

    def take(self, agent: EdgeAgent) -> None:
        """An agent comes from a snapshot, or from another partition."""
        key = key_of(agent.tenant, agent.id)
        self._touch(EDGE, key)
        self.load(agent)

    def load(self, agent: EdgeAgent) -> None:
        """The same, of one that the store has."""
        self.agents[key_of(agent.tenant, agent.id)] = agent
        self.size += sum(each.size for each in agent.actions.values())
        self._index(agent)

    def drop(self, agent: EdgeAgent) -> None:
        """It is not here any more."""
        key = key_of(agent.tenant, agent.id)
        self._touch(EDGE, key)
        self._no_work(agent.gateway, key)
        self.owed.pop(key, None)
        self.size -= sum(each.size for each in agent.actions.values())
        del self.agents[key]

    def set_back(self, event: ClockSetBack) -> None:
        """The clock had been ahead."""
        for key, agent in self.agents.items():
            self._touch(EDGE, key)
            config, check = agent.config, agent.check
            agent.first_at, agent.since = clock.then(agent.first_at, event), clock.then(agent.since, event)
            config.at, check.at = clock.then(config.at, event), clock.then(check.at, event)
            check.answered_at = clock.then(check.answered_at, event)
            for action in agent.actions.values():
                action.queued_at = clock.then(action.queued_at, event)
                action.delivered_at = clock.then(action.delivered_at, event)
                action.ended_at = clock.then(action.ended_at, event)
                action.deadline = clock.due(action.deadline, event)

    def make(self, event: EdgeConnected, now: float) -> EdgeAgent:
        """The agent that connects, perhaps for the first time."""
        key = key_of(event.tenant, event.agent)
        self._touch(EDGE, key)
        agent = self.agents.get(key)
        if agent is None:
            agent = self.agents[key] = EdgeAgent(event.tenant, event.agent, now, now)
        self._no_work(agent.gateway, key)
        return agent

    def _index(self, agent: EdgeAgent) -> None:
        key = key_of(agent.tenant, agent.id)
        if agent.notice in (AWAY_OWED, BACK_OWED):
            self.owed[key] = None
        else:
            self.owed.pop(key, None)
        has_work = agent.is_connected and (
            agent.wants_config
            or agent.wants_check
            or any(each.is_open and each.stream != agent.stream for each in agent.actions.values())
        )
        if has_work:
            self.work.setdefault(agent.gateway, {})[key] = None
        else:
            self._no_work(agent.gateway, key)

    def _no_work(self, gateway: str, key: bytes) -> None:
        waiting = self.work.get(gateway)
        if waiting is not None and key in waiting:
            del waiting[key]
            if not waiting:
                del self.work[gateway]


def _connected(store: EdgeStore, event: EdgeConnected, now: float) -> None:
    agent = store.make(event, now)
    agent.gateway, agent.stream, agent.since, agent.why_away = event.gateway, event.stream, now, ""


def _disconnected(store: EdgeStore, event: EdgeDisconnected, now: float) -> None:
    agent = store.changing(event)
    agent.stream, agent.since, agent.why_away = b"", now, event.why


def _reported(store: EdgeStore, event: EdgeReported, now: float) -> None:
    agent = store.changing(event)
    agent.status, agent.detail = event.status, event.detail
    agent.services, agent.can_do, agent.config_version = (
        event.services, event.can_do, event.config_version,
    )  # fmt: skip
    if event.check:
        agent.check.answered_at, agent.check.status, agent.check.detail = now, event.status, event.detail


def _queued(store: EdgeStore, event: EdgeActionQueued, now: float) -> None:
    agent = store.changing(event)
    action = EdgeAction(
        event.action,
        event.key,
        event.incident_id,
        event.type,
        event.service,
        event.parameters,
        now,
        event.deadline,
        event.same_as,
    )
    agent.actions[event.action] = action
    store.size += action.size


def _delivered(store: EdgeStore, event: EdgeDelivered, now: float) -> None:
    agent = store.changing(event)
    if event.action:
        action = agent.actions[event.action]
        if action.state == QUEUED:
            action.state, action.delivered_at = DELIVERED, now
        action.stream = event.stream
    elif event.config:
        agent.config.stream = event.stream
    else:
        agent.check.stream = event.stream


def _action(store: EdgeStore, event: EdgeActionChanged, now: float) -> None:
    agent = store.changing(event)
    action = agent.actions[event.action]
    action.state, action.detail, action.outputs = event.state, event.detail, event.outputs
    if event.state not in OPEN:
        action.ended_at = now


def _configured(store: EdgeStore, event: EdgeConfigured, now: float) -> None:
    agent = store.changing(event)
    agent.config = EdgeConfig(event.version, event.values, event.by, now)


def _check(store: EdgeStore, event: EdgeCheckAsked, now: float) -> None:
    agent = store.changing(event)
    agent.check = EdgeCheck(event.check, event.service, event.by, now)


def _noticed(store: EdgeStore, event: EdgeNoticed, now: float) -> None:
    agent = store.changing(event)
    agent.notice = event.notice


def _forgotten(store: EdgeStore, event: EdgeForgotten, now: float) -> None:
    agent = store.changing(event)
    for identity in event.actions:
        store.size -= agent.actions.pop(identity).size
    if event.whole:
        store.drop(agent)


FOLDS: Mapping[type[Event], Callable[[EdgeStore, Any, float], None]] = {
    EdgeConnected: _connected,
    EdgeDisconnected: _disconnected,
    EdgeReported: _reported,
    EdgeActionQueued: _queued,
    EdgeDelivered: _delivered,
    EdgeActionChanged: _action,
    EdgeConfigured: _configured,
    EdgeCheckAsked: _check,
    EdgeNoticed: _noticed,
    EdgeForgotten: _forgotten,
}
