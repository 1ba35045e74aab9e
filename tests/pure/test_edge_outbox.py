"""The outbox of edge agents in their shard: what is asked for is given once a stream, ends once, and is in doubt when nobody can know."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.edge.agent import (
    ACCEPTED,
    AWAY_OWED,
    AWAY_TOLD,
    BACK_OWED,
    DELIVERED,
    EXPIRED,
    FAILED,
    IN_DOUBT,
    QUEUED,
    QUIET,
    SUCCEEDED,
    WITHDRAWN,
    EdgeAgent,
)
from models.edge.questions import (
    EdgeActionPage,
    EdgeNoticePage,
    EdgeWorkPage,
    GetEdgeAction,
    GetEdgeWork,
    ListEdgeNotices,
)
from models.incidents.views import answer
from models.partition.event import Event
from models.partition.sharding import slot_of
from models.shard.edge_messages import (
    AnswerEdge,
    AskEdge,
    CheckEdge,
    ConfigureEdge,
    ConnectEdge,
    DeliverEdge,
    DisconnectEdge,
    EdgeConnected,
    EdgeDelivered,
    HoldEdges,
    ReportEdge,
    TellEdge,
    WithdrawEdge,
)
from models.shard.edge_outbox import ACTION_KEPT_S, AGENT_KEPT_S, LEASE_S, EdgeOutbox
from models.shard.messages import Failed, GapEnded, Message, Tick
from models.shard.settings import ShardSettings
from models.shard.shard import Shard
from models.shard.slot_transfer import arrived, by_slot, leaving
from models.shard.tenants import by_tenant
from tests.scenario import Story, at
from tests.simulation.dump import difference, dump

SETTINGS = ShardSettings(edge_offline_after_s=30.0, expiry_grace_s=60.0)
T, A = "default", "edge-1"
INCIDENT = b"\7" * 16


class Edge(Story):
    """A story about one agent."""

    def __init__(self) -> None:
        super().__init__(SETTINGS)

    @property
    def agent(self) -> EdgeAgent:
        found = self.shard.of(EdgeOutbox).find(T, A)
        assert found is not None
        return found

    @property
    def seen(self) -> tuple[bool, str]:
        return self.agent.is_connected, self.agent.notice

    def connect(self, when: float, stream: bytes = b"s1", gateway: str = "g1") -> None:
        self.tell(when, ConnectEdge(T, A, gateway, stream))

    def hold(self, first: float, last: float, stream: bytes = b"s1") -> None:
        while first <= last:
            self.tell(first, HoldEdges(T, [(A, stream)]))
            self.tick(first)
            first += 1.0

    def ask(self, when: float, action: str = "k-0", **more: Any) -> str:
        asked: dict[str, Any] = {
            "type": "restart",
            "service": "api",
            "parameters": {},
            "timeout_s": 60.0,
            **more,
        }
        return self.refused(when, AskEdge(T, A, action, action, INCIDENT, **asked))

    def refused(self, when: float, message: Message) -> str:
        reply = self.tell(when, message).reply
        return reply.kind if isinstance(reply, Failed) else ""

    def work(self, gateway: str = "g1") -> list[str]:
        page = answer(self.shard, GetEdgeWork(T, gateway))
        assert isinstance(page, EdgeWorkPage)
        return [action.id for work in page.items for action in work.actions]

    def deliver(self, when: float, action: str = "k-0", stream: bytes = b"s1") -> str:
        return self.refused(when, DeliverEdge(T, A, stream, action))

    def answer(self, when: float, status: str, action: str = "k-0", **more: Any) -> str:
        return self.refused(when, AnswerEdge(T, A, action, status, **more))

    def state(self, action: str = "k-0") -> str:
        return self.agent.actions[action].state


def test_an_action_is_given_to_the_agents_stream_once_and_its_answer_ends_it() -> None:
    edge = Edge()
    edge.connect(at(0))
    assert edge.ask(at(1)) == ""
    assert edge.work() == ["k-0"]
    assert edge.work("another gateway") == []

    assert edge.deliver(at(2)) == ""
    assert edge.work() == []
    # Whoever gives it says so again when the answer was lost; the log has it once.
    assert edge.deliver(at(2)) == ""
    assert edge.deliver(at(2), stream=b"s0") == "Conflict"
    assert [type(event) for _, event in edge.events].count(EdgeDelivered) == 1
    assert edge.answer(at(3), ACCEPTED) == ""
    assert edge.answer(at(4), SUCCEEDED, detail="restarted", outputs={"pods": "3"}) == ""

    action = edge.agent.actions["k-0"]
    assert (action.state, action.detail, action.outputs, action.ended_at) == (
        SUCCEEDED, "restarted", {"pods": "3"}, at(4),
    )  # fmt: skip


def test_asked_for_again_it_is_the_action_that_is_there() -> None:
    edge = Edge()
    edge.connect(at(0))
    edge.ask(at(1), timeout_s=10.0)
    before = len(edge.events)
    assert edge.ask(at(5), timeout_s=10.0) == ""
    assert len(edge.events) == before
    edge.deliver(at(6))
    edge.answer(at(7), FAILED)
    edge.answer(at(8), SUCCEEDED)
    assert edge.ask(at(9)) == ""
    assert edge.state() == FAILED


def test_on_its_next_stream_an_agent_gets_what_has_no_answer_by_the_same_id() -> None:
    edge = Edge()
    edge.connect(at(0))
    for number in range(3):
        edge.ask(at(1), f"k-{number}")
        edge.deliver(at(1), f"k-{number}")
    edge.answer(at(2), ACCEPTED, "k-0")
    edge.answer(at(2), SUCCEEDED, "k-1")
    edge.tell(at(3), DisconnectEdge(T, A, b"s1"))
    assert edge.work() == []

    edge.connect(at(4), b"s2", "g2")
    assert edge.work("g2") == ["k-0", "k-2"]
    assert edge.deliver(at(5), "k-0", b"s2") == ""
    assert edge.state("k-0") == ACCEPTED


def test_the_newer_stream_is_the_one_that_counts() -> None:
    edge = Edge()
    edge.connect(at(0), b"s1", "g1")
    edge.connect(at(1), b"s2", "g2")
    edge.ask(at(2))
    assert edge.work("g1") == [] and edge.work("g2") == ["k-0"]
    assert edge.deliver(at(3), stream=b"s1") == "Conflict"
    assert edge.refused(at(3), ReportEdge(T, A, b"s1", "healthy")) == "Conflict"
    edge.tell(at(3), DisconnectEdge(T, A, b"s1"))
    assert edge.agent.stream == b"s2"
    page = answer(edge.shard, GetEdgeWork(T, "g1", [(A, b"s1"), (A, b"s2")]))
    assert isinstance(page, EdgeWorkPage) and page.lost == [b"s1"]


def test_what_was_never_given_expires_and_is_given_to_nobody_who_comes_later() -> None:
    edge = Edge()
    edge.connect(at(0))
    edge.tell(at(0), DisconnectEdge(T, A, b"s1"))
    edge.ask(at(1), timeout_s=10.0)
    edge.connect(at(12), b"s2")
    # Before any tick has looked.
    assert edge.deliver(at(12), stream=b"s2") == "Conflict"
    edge.tick(at(12))
    assert edge.state() == EXPIRED
    assert edge.work() == []
    assert edge.answer(at(13), SUCCEEDED) == "Conflict"


def test_what_was_given_and_not_answered_in_time_is_in_doubt_until_a_late_answer() -> None:
    edge = Edge()
    edge.connect(at(0))
    edge.ask(at(1), timeout_s=10.0)
    edge.deliver(at(2))
    edge.hold(at(3), at(12))
    assert edge.state() == IN_DOUBT
    assert edge.answer(at(20), SUCCEEDED) == ""
    assert edge.state() == SUCCEEDED


def test_only_what_was_not_given_away_is_withdrawn() -> None:
    edge = Edge()
    edge.connect(at(0))
    edge.ask(at(1), "k-0")
    edge.ask(at(1), "k-1")
    edge.deliver(at(2), "k-0")
    for action in ("k-0", "k-1", "unknown"):
        edge.tell(at(3), WithdrawEdge(T, A, action, "the run was cancelled"))
    assert (edge.state("k-0"), edge.state("k-1")) == (DELIVERED, WITHDRAWN)
    assert edge.work() == []


def test_an_agent_answers_only_for_what_it_was_given() -> None:
    edge = Edge()
    edge.connect(at(0))
    edge.tell(at(0), ConnectEdge(T, "edge-2", "g1", b"x1"))
    edge.ask(at(1))
    assert edge.answer(at(2), SUCCEEDED) == "Conflict"
    edge.deliver(at(2))
    assert edge.refused(at(3), AnswerEdge(T, "edge-2", "k-0", SUCCEEDED)) == "NotFound"
    assert edge.state() == DELIVERED


def test_what_must_be_done_once_for_all_tries_is_not_asked_for_while_a_try_is_in_doubt() -> None:
    edge = Edge()
    edge.connect(at(0))
    edge.ask(at(1), "k-0", type="rollback", same_as="k", timeout_s=10.0)
    edge.deliver(at(2), "k-0")
    assert edge.ask(at(3), "k-1", type="rollback", same_as="k") == "Conflict"
    edge.hold(at(3), at(12))
    assert edge.ask(at(13), "k-1", type="rollback", same_as="k") == "Conflict"

    edge.answer(at(14), SUCCEEDED, "k-0")
    assert edge.ask(at(15), "k-1", type="rollback", same_as="k") == ""
    page = answer(edge.shard, GetEdgeAction(T, A, "k-1", "k"))
    assert isinstance(page, EdgeActionPage) and [each.id for each in page.items] == ["k-0"]


def test_a_try_that_failed_for_sure_may_be_followed_by_another() -> None:
    edge = Edge()
    edge.connect(at(0))
    edge.ask(at(1), "k-0", type="rollback", same_as="k")
    edge.deliver(at(2), "k-0")
    edge.answer(at(3), FAILED, "k-0")
    assert edge.ask(at(4), "k-1", type="rollback", same_as="k") == ""
    assert edge.state("k-1") == QUEUED


@pytest.mark.parametrize(
    ("said", "asked", "why"),
    [
        ({"can_do": ["scale"]}, {}, "Conflict"),
        ({"services": ["db"]}, {}, "Conflict"),
        ({"can_do": ["restart"], "services": ["api"]}, {}, ""),
    ],
)
def test_an_agent_is_asked_only_for_what_it_says_it_can_do(said: Any, asked: Any, why: str) -> None:
    edge = Edge()
    assert edge.ask(at(0)) == "NotFound"
    edge.connect(at(0))
    edge.tell(at(0), ReportEdge(T, A, b"s1", "healthy", **said))
    assert edge.ask(at(1), **asked) == why


def test_a_heartbeat_that_says_nothing_new_makes_no_event() -> None:
    edge = Edge()
    edge.connect(at(0))
    edge.tell(at(1), ReportEdge(T, A, b"s1", "healthy", services=["api"]))
    before = len(edge.events)
    edge.tell(at(2), ReportEdge(T, A, b"s1", "healthy", services=["api"]))
    edge.hold(at(3), at(30))
    assert len(edge.events) == before


def test_a_configuration_is_sent_on_each_stream_until_the_agent_has_it() -> None:
    edge = Edge()
    edge.connect(at(0))
    edge.tell(at(0), ReportEdge(T, A, b"s1", "healthy", config_version=4))
    edge.tell(at(1), ConfigureEdge(T, A, {"a": "1"}, "ann"))
    edge.tell(at(1), ConfigureEdge(T, A, {"a": "1"}, "ann"))
    assert edge.agent.config.version == 5
    assert edge.refused(at(2), DeliverEdge(T, A, b"s1", config=5)) == ""
    assert edge.refused(at(2), DeliverEdge(T, A, b"s1", config=5)) == ""
    assert edge.refused(at(2), DeliverEdge(T, A, b"s1", config=4)) == "Conflict"
    edge.connect(at(3), b"s2")
    assert edge.agent.wants_config
    edge.tell(at(4), ReportEdge(T, A, b"s2", "healthy", config_version=5))
    assert not edge.agent.wants_config


def test_a_health_check_is_answered_by_its_id() -> None:
    edge = Edge()
    edge.connect(at(0))
    edge.tell(at(1), CheckEdge(T, A, "c1", "api", "ann"))
    assert edge.refused(at(2), DeliverEdge(T, A, b"s1", check="c1")) == ""
    edge.tell(at(3), ReportEdge(T, A, b"s1", "degraded", "slow", check="other"))
    assert not edge.agent.check.answered_at
    edge.tell(at(4), ReportEdge(T, A, b"s1", "degraded", "slow", check="c1"))
    assert (edge.agent.check.answered_at, edge.agent.check.status) == (at(4), "degraded")


def test_an_agent_that_stays_away_is_told_once_and_so_is_its_return() -> None:
    edge = Edge()
    edge.connect(at(0))
    edge.tell(at(10), DisconnectEdge(T, A, b"s1"))
    edge.ticks(at(11), at(39))
    assert edge.agent.notice == QUIET
    edge.ticks(at(40), at(41))
    assert edge.agent.notice == AWAY_OWED
    page = answer(edge.shard, ListEdgeNotices(T))
    assert isinstance(page, EdgeNoticePage) and [(each.agent, each.away) for each in page.items] == [
        (A, True)
    ]
    edge.tell(at(42), TellEdge(T, A, at(10), True))
    assert edge.agent.notice == AWAY_TOLD
    edge.connect(at(50), b"s2")
    assert edge.agent.notice == BACK_OWED
    assert edge.refused(at(51), TellEdge(T, A, at(10), True)) == "Conflict"
    edge.tell(at(51), TellEdge(T, A, at(50), False))
    assert edge.agent.notice == QUIET


def test_a_stream_that_no_gateway_holds_is_closed() -> None:
    edge = Edge()
    edge.connect(at(0))
    edge.hold(at(1), at(5))
    edge.ticks(at(6), at(5 + LEASE_S - 1))
    assert edge.agent.is_connected
    edge.ticks(at(5 + LEASE_S), at(6 + LEASE_S))
    assert not edge.agent.is_connected


def test_nobody_is_missed_while_we_ourselves_could_not_hear() -> None:
    edge = Edge()
    edge.connect(at(0))
    edge.ticks(at(1), at(120), in_gap=True)
    assert edge.seen == (True, QUIET)
    edge.restart(at(200))
    edge.ticks(at(200), at(258))
    assert edge.seen == (False, QUIET)
    edge.tell(at(259), GapEnded(at(250), "no gateway called"))
    edge.ticks(at(260), at(318))
    assert edge.agent.notice == QUIET
    edge.ticks(at(319), at(321))
    assert edge.agent.notice == AWAY_OWED


def test_what_is_long_over_is_forgotten_and_so_is_an_agent_that_never_came_back() -> None:
    edge = Edge()
    edge.connect(at(0))
    edge.ask(at(1))
    edge.deliver(at(2))
    edge.answer(at(3), SUCCEEDED)
    edge.tell(at(4), DisconnectEdge(T, A, b"s1"))
    edge.ticks(at(ACTION_KEPT_S), at(ACTION_KEPT_S + 5))
    assert not edge.agent.actions and not edge.shard.of(EdgeOutbox).store.size
    edge.tell(at(ACTION_KEPT_S + 6), TellEdge(T, A, at(4), True))
    edge.ticks(at(AGENT_KEPT_S), at(AGENT_KEPT_S + 6))
    assert not edge.shard.of(EdgeOutbox).store.agents


def test_each_frame_bears_the_tenant_of_its_agent() -> None:
    shard = Shard("shard/0000", SETTINGS)
    shard.started("shard-0000-a", at(0))
    for tenant in ("blue", "red"):
        step = shard.handle(ConnectEdge(tenant, A, "g1", b"s"), at(1))
    step = shard.handle(Tick(), at(60))
    assert {tenant for tenant, _events in by_tenant(shard, None, step.events)} == {"blue", "red"}
    assert isinstance(EdgeConnected("blue", A, "g1", b"s"), Event)


_agents = st.sampled_from(["edge-1", "edge-2"])
_streams = st.sampled_from([b"s1", b"s2"])
_actions = st.sampled_from(["k-0", "k-1", "l-0"])
_messages = st.one_of(
    st.builds(ConnectEdge, st.just(T), _agents, st.sampled_from(["g1", "g2"]), _streams),
    st.builds(DisconnectEdge, st.just(T), _agents, _streams),
    st.builds(HoldEdges, st.just(T), st.lists(st.tuples(_agents, _streams), max_size=2)),
    st.builds(
        ReportEdge, st.just(T), _agents, _streams, st.sampled_from(["healthy", "degraded"]),
        services=st.sampled_from([[], ["api"]]), config_version=st.integers(0, 2), check=st.sampled_from(["", "c1"]),
    ),
    st.builds(
        lambda agent, action, timeout, once: AskEdge(
            T, agent, action, action, INCIDENT, "restart", "api", {"a": "b"}, timeout, action[0] if once else ""
        ),
        _agents, _actions, st.sampled_from([1.0, 30.0, 3000.0]), st.booleans(),
    ),
    st.builds(DeliverEdge, st.just(T), _agents, _streams, _actions),
    st.builds(DeliverEdge, st.just(T), _agents, _streams, config=st.integers(1, 2)),
    st.builds(DeliverEdge, st.just(T), _agents, _streams, check=st.just("c1")),
    st.builds(AnswerEdge, st.just(T), _agents, _actions, st.sampled_from([ACCEPTED, SUCCEEDED, FAILED])),
    st.builds(WithdrawEdge, st.just(T), _agents, _actions, st.just("cancelled")),
    st.builds(ConfigureEdge, st.just(T), _agents, st.sampled_from([{"a": "1"}, {"a": "2"}]), st.just("ann")),
    st.builds(CheckEdge, st.just(T), _agents, st.sampled_from(["c1", "c2"]), st.just(""), st.just("ann")),
    st.builds(Tick, st.booleans()),
    st.just(GapEnded(at(0), "no gateway called")),
)  # fmt: skip


@given(
    steps=st.lists(
        st.tuples(st.sampled_from([0.1, 1.0, 15.0, 100.0, -50.0, ACTION_KEPT_S]), _messages), max_size=40
    ),
    begin=st.integers(0, 40),
)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_the_log_and_snapshots_give_the_same_outbox(
    steps: list[tuple[float, Message]], begin: int
) -> None:
    edge, now = Edge(), at(0)
    edge.tell(now, Tick())
    records: dict[str, bytes | None] = {}
    begun_at = 0
    for number, (after_s, message) in enumerate(steps):
        if number == begin:
            edge.shard.checkpoint.begin()
            begun_at = len(edge.events)
        now += after_s
        # Each step is compared with the replay of its events.
        edge.tell(now, message)
    if steps[begin:]:
        while page := edge.shard.checkpoint.slice(1):
            records.update(page)
        loaded = Shard("shard/0000", SETTINGS)
        loaded.load(sorted((key, each) for key, each in records.items() if each is not None))
        loaded.loaded()
        for then, event in edge.events[begun_at:]:
            loaded.apply(event, then)
        assert not difference(dump(edge.shard, now + 10), dump(loaded, now + 10))
    _moved_and_back(edge.shard)


def _moved_and_back(shard: Shard) -> None:
    """What moves with its slot is the same elsewhere, and nothing of it stays."""
    there = Shard("shard/0001", SETTINGS)
    before = msgspec.msgpack.encode([*shard.of(EdgeOutbox).store.agents.values()])
    for slot in {slot_of(T, each.id) for each in shard.of(EdgeOutbox).store.agents.values()}:
        for event in leaving(shard, slot, by_slot(shard)[slot], 2):
            shard.apply(event, shard.now)
            there.apply(arrived(event), shard.now)
    assert not shard.of(EdgeOutbox).store.agents and not shard.of(EdgeOutbox).store.size
    after = there.of(EdgeOutbox).store.agents
    assert sorted(msgspec.msgpack.decode(before)) == sorted(
        msgspec.msgpack.decode(msgspec.msgpack.encode([*after.values()]))
    )
