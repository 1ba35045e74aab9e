"""Edge agents over a whole system: an agent that speaks gRPC (grpcio), actions of playbooks that it does, and what becomes of both
when something breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import msgspec
import pytest
import pytest_asyncio

from actors.runtime.clock import SystemClock
from actors.targets import Targets
from models.partition.sharding import TENANT
from models.playbook.work import SUCCEEDED, Do, Done, Work
from models.settings.processes import RESPONDER
from models.settings.secrets import revealed
from services.edge.shards import EdgeShards, lines_to
from services.playbooks.open import open_worker
from services.playbooks.worker import PlaybookWorker
from services.proto import incident_pb2 as pb
from services.proto import incident_pb2_grpc as rpc
from tests.api.gateway_in_process import System, another_gateway, system
from tests.api.test_playbooks import known, opened, send, until
from tests.ports import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLAYBOOK = """
name: {name}
version: "1"
trigger: {{service: "{service}"}}
metadata: {{description: asks the edge agent}}
steps:
  - id: fix
    type: remediation
    actions:
      - {action}
"""
#: Not typed by its maker.
STUB: Any = rpc.EdgeIncidentBridgeStub
EDGE = {name: {"by": "edge", "agent": f"agent-of-{name}", "max_replicas": 5} for name in "abcdefgh"}


class Late:
    """Port Worker, made once there are shards to ask."""

    def __init__(self) -> None:
        self.worker: PlaybookWorker | None = None
        self.asked: list[Do] = []

    async def work(self, work: Work, trace: str | None = None) -> Done:
        if isinstance(work, Do):
            self.asked.append(work)
        assert self.worker is not None
        return await self.worker.work(work, trace)

    async def close(self) -> None:
        if self.worker is not None:
            await self.worker.close()


def worker_of(ours: System) -> PlaybookWorker:
    """What a responder has: everything real."""
    given = revealed(ours.settings.given_to(RESPONDER))
    lines = lines_to(ours.shards, ours.cluster, ours.clock, hold_s=5.0)
    edge = EdgeShards(lines, lambda: ours.gateway.station.submitter.slots, TENANT)
    return open_worker(given, {}, SystemClock(), Targets(SystemClock()), edge=edge)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def with_edge(late: Late | None = None, **more: Any) -> AsyncIterator[System]:
    late = late or Late()
    server = {"grpc": True, "grpc_port": free_port()}
    playbooks = {"enabled": True, "services": EDGE}
    async with system(playbooks=playbooks, server=server, worker=late, **more) as started:
        late.worker = worker_of(started)
        yield started


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def late() -> Late:
    return Late()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def ours(late: Late) -> AsyncIterator[System]:
    async with with_edge(late) as started:
        yield started


class Agent:
    """An edge agent as docs/edge.md shows it: it remembers the results of what it did, by the id of the action."""

    def __init__(self, ours: System, name: str, token: str = "") -> None:
        self.name = name
        self.port = ours.settings.server.grpc_port
        self.metadata = [("authorization", f"Bearer {token}")] if token else []
        self.got: list[pb.RemediationAction] = []
        self.did: list[str] = []
        self.configs: list[pb.ConfigUpdate] = []
        self.checks: list[pb.HealthCheckRequest] = []
        self.acks: list[pb.AlertAck] = []
        self.results: dict[str, pb.ActionResult] = {}
        #: What it does; None: it takes the action, and does not get done.
        self.does: Callable[[pb.RemediationAction], pb.ActionResult | None] = lambda action: self.result(
            action
        )
        self.code: grpc.StatusCode | None = None
        self._channel: Any = None
        self._call: Any = None
        self._task: asyncio.Task[None] | None = None

    def result(
        self, action: pb.RemediationAction, status: Any = pb.ACTION_STATUS_SUCCEEDED, detail: str = "done"
    ) -> pb.ActionResult:
        return pb.ActionResult(
            action_id=action.action_id,
            status=status,
            detail=detail,
            outputs={"pods": "3"},
        )

    async def connect(self, **health: Any) -> Agent:
        # A connection of its own each time.
        self._channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{self.port}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
        stub: Any = STUB(self._channel)
        self._call = stub.IncidentStream(metadata=self.metadata)
        # One that is refused at once says so to whoever reads.
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self.say(
                health=pb.EdgeHealthUpdate(
                    agent_id=self.name, **{"status": pb.HEALTH_STATUS_HEALTHY, **health}
                )
            )
        self._task = asyncio.get_running_loop().create_task(self._listen(self._call))
        return self

    async def refused_with(self, *, says: bool) -> grpc.StatusCode:
        """How a stream of it ends at once. A write that comes after the refusal would hide why."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            call = STUB(channel).IncidentStream(metadata=self.metadata)
            if says:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    health = pb.EdgeHealthUpdate(agent_id=self.name, status=pb.HEALTH_STATUS_HEALTHY)
                    await call.write(pb.EdgeToIncidentMsg(health=health))
            code: grpc.StatusCode = await call.code()
            return code

    async def say(self, **message: Any) -> None:
        await self._call.write(pb.EdgeToIncidentMsg(**message))

    async def alert(self, **alert: Any) -> pb.AlertAck:
        before = len(self.acks)
        await self.say(alert=pb.EdgeAlert(agent_id=self.name, alert=pb.AlertMessage(**alert)))
        await eventually(lambda: len(self.acks) > before)
        return self.acks[-1]

    async def leave(self) -> None:
        """As a process that is killed: it says nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

    async def ended(self) -> grpc.StatusCode:
        async with asyncio.timeout(20):
            while self.code is None:
                await asyncio.sleep(0.01)
        return self.code

    async def _listen(self, call: Any) -> None:
        try:
            async for message in call:
                match message.WhichOneof("message"):
                    case "action":
                        await self._act(message.action)
                    case "config":
                        self.configs.append(message.config)
                    case "health_check":
                        self.checks.append(message.health_check)
                    case "alert_ack":
                        self.acks.append(message.alert_ack)
            self.code = grpc.StatusCode.OK
        except grpc.aio.AioRpcError as error:
            self.code = error.code()

    async def _act(self, action: pb.RemediationAction) -> None:
        self.got.append(action)
        if (known := self.results.get(action.action_id)) is None:
            known = self.does(action)
            if known is None:
                return
            self.did.append(action.action_id)
            self.results[action.action_id] = known
        await self.say(action_result=known)


@contextlib.asynccontextmanager
async def connected(ours: System, name: str, **health: Any) -> AsyncIterator[Agent]:
    agent = Agent(ours, name)
    try:
        yield await agent.connect(**health)
    finally:
        await agent.leave()


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def seen(ours: System, name: str, holds: Callable[[Any], bool]) -> Any:
    """What the API says of an agent, once it is as wanted."""
    async with asyncio.timeout(20):
        while True:
            answer = await ours.get(f"/v1/edge/agents/{name}")
            if answer.status == 200 and holds(answer.json):
                return answer.json
            await asyncio.sleep(0.02)


async def run_for(ours: System, service: str, action: str) -> str:
    """An incident of a service for which a playbook asks its agent for something."""
    name = f"ask-{service}"
    source = PLAYBOOK.format(name=name, service=service, action=action)
    answer = await send(ours, "POST", "/v1/playbooks", {"source": source})
    assert answer.status == 200, answer
    await known(ours, name)
    return await opened(ours, "Down", service)


async def run_over(ours: System, incident: str) -> Any:
    path = f"/v1/incidents/{incident}/runs"
    page = await until(ours, path, lambda page: page["items"] and page["items"][-1]["ended_at"])
    return page["items"][-1]


def action_of(run: Any) -> Any:
    return run["steps"][0]["actions"][0]


# -- actions ---------------------------------------------------------------------------------------------------


async def test_a_playbook_restarts_a_service_by_its_agent_and_the_run_has_the_result(ours: System) -> None:
    async with connected(ours, "agent-of-a", services=["a"], can_do=[pb.ACTION_TYPE_RESTART]) as agent:
        await seen(ours, "agent-of-a", lambda found: found["can_do"] == ["restart"])
        incident = await run_for(ours, "a", "{type: service_restart, service: a, method: rolling}")
        run = await run_over(ours, incident)
        found = await seen(ours, "agent-of-a", lambda found: bool(found["actions"]))

    (given,) = agent.got
    assert (given.type, given.target_service, given.incident_id) == (pb.ACTION_TYPE_RESTART, "a", incident)
    assert given.parameters == {"method": "rolling"} or "method" in given.parameters
    assert given.timeout_seconds > 0
    assert run["status"] == "succeeded", run
    assert "agent-of-a: done" in action_of(run)["detail"]
    assert [each["state"] for each in found["actions"]] == ["succeeded"]
    assert found["actions"][0]["id"] == given.action_id


async def test_an_action_waits_for_an_agent_that_is_away_and_comes_again_until_it_is_answered(
    ours: System,
) -> None:
    agent = await Agent(ours, "agent-of-b").connect()
    await seen(ours, "agent-of-b", lambda found: found["connected"])
    await agent.leave()
    await seen(ours, "agent-of-b", lambda found: not found["connected"])
    incident = await run_for(ours, "b", "{type: scale, service: b, replicas: 9, timeout: 5m}")
    await seen(ours, "agent-of-b", lambda found: found["open_actions"] == 1)

    # It takes it, and is gone before it answers.
    agent.does = lambda _action: None
    await agent.connect()
    await eventually(lambda: len(agent.got) == 1)
    await agent.leave()
    agent.does = lambda action: agent.result(action)
    await agent.connect()
    run = await run_over(ours, incident)
    await agent.leave()

    assert [each.action_id for each in agent.got] == [agent.got[0].action_id] * 2
    assert len(agent.did) == 1
    # Never beyond what the settings allow.
    assert agent.got[0].parameters["replicas"] == "5"
    assert run["status"] == "succeeded"


async def test_what_was_not_given_in_time_is_given_to_nobody_who_comes_later(ours: System) -> None:
    agent = await Agent(ours, "agent-of-c").connect()
    await seen(ours, "agent-of-c", lambda found: found["connected"])
    await agent.leave()
    await seen(ours, "agent-of-c", lambda found: not found["connected"])
    incident = await run_for(ours, "c", "{type: service_restart, service: c, timeout: 4s}")
    run = await run_over(ours, incident)
    await agent.connect()
    found = await seen(ours, "agent-of-c", lambda found: found["connected"])
    await agent.leave()

    assert run["status"] == "failed"
    assert "not given to the agent in time" in action_of(run)["detail"]
    assert [each["state"] for each in found["actions"]] == ["expired"]
    assert agent.got == []


async def test_what_was_given_and_not_answered_in_time_may_have_been_done(ours: System) -> None:
    async with connected(ours, "agent-of-d") as agent:
        agent.does = lambda _action: None
        await seen(ours, "agent-of-d", lambda found: found["connected"])
        incident = await run_for(ours, "d", "{type: service_restart, service: d, timeout: 5s}")
        run = await run_over(ours, incident)
        assert len(agent.got) == 1
        assert "may have been done" in action_of(run)["detail"]


async def test_a_failure_is_told_with_the_agents_words_and_is_an_alert_until_a_success(ours: System) -> None:
    async with connected(ours, "agent-of-e") as agent:
        agent.does = lambda action: agent.result(action, pb.ACTION_STATUS_FAILED, "no such unit")
        await seen(ours, "agent-of-e", lambda found: found["connected"])
        run = await run_over(ours, await run_for(ours, "e", "{type: service_restart, service: e}"))
        assert action_of(run)["detail"] == "edge agent agent-of-e: no such unit"
        alert = await alert_of(ours, "EdgeActionFailed", "agent-of-e")
        assert alert["labels"]["service"] == "e"
        await agent.say(action_result=agent.result(agent.got[0]))
        # What is over stays as it is, and the alert too.
        found = await seen(ours, "agent-of-e", lambda found: bool(found["actions"]))
        assert found["actions"][-1]["state"] == "failed"


async def test_a_responder_that_knows_nothing_of_an_earlier_one_finds_the_action_that_is_there(
    late: Late, ours: System
) -> None:
    async with connected(ours, "agent-of-f") as agent:
        agent.does = lambda _action: None
        await seen(ours, "agent-of-f", lambda found: found["connected"])
        incident = await run_for(ours, "f", "{type: rollback, service: f}")
        await eventually(lambda: len(agent.got) == 1)
        asked = next(each for each in late.asked if each.key == agent.got[0].action_id)
        other = worker_of(ours)
        working = asyncio.create_task(other.work(msgspec.structs.replace(asked, again=True)))
        await asyncio.sleep(0.5)

        await agent.say(action_result=agent.result(agent.got[0], detail="back to 41"))
        done, run = await working, await run_over(ours, incident)
        await other.close()
    assert (done.status, done.detail) == (SUCCEEDED, "edge agent agent-of-f: back to 41")
    assert run["status"] == "succeeded", run
    assert len(agent.got) == 1


async def test_a_gateway_that_stops_in_the_middle_leaves_the_action_to_the_next_one() -> None:
    async with with_edge() as ours, another_gateway(ours) as other:
        agent = Agent(ours, "agent-of-g")
        agent.does = lambda _action: None
        await agent.connect()
        await seen(ours, "agent-of-g", lambda found: found["connected"])
        incident = await run_for(ours, "g", "{type: service_restart, service: g}")
        await eventually(lambda: len(agent.got) == 1)
        has = (await ours.get("/v1/edge/agents/agent-of-g")).json["gateway"]
        stops, stays = (ours, other) if has == ours.gateway.name else (other, ours)
        await stops.gateway.stop()
        assert await agent.ended() in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
        await agent.leave()
        agent.does = lambda action: agent.result(action)
        await agent.connect()
        run = await run_over(stays, incident)
        await agent.leave()
    assert run["status"] == "succeeded", run
    assert len(agent.got) == 2 and len(agent.did) == 1


async def test_a_run_that_is_cancelled_withdraws_what_was_not_given_away(ours: System) -> None:
    agent = await Agent(ours, "agent-of-h").connect()
    await seen(ours, "agent-of-h", lambda found: found["connected"])
    await agent.leave()
    await seen(ours, "agent-of-h", lambda found: not found["connected"])
    incident = await run_for(ours, "h", "{type: service_restart, service: h, timeout: 5m}")
    await seen(ours, "agent-of-h", lambda found: found["open_actions"] == 1)
    (run,) = (await ours.get(f"/v1/incidents/{incident}/runs")).items
    answer = await send(ours, "POST", f"/v1/runs/{run['id']}/cancel", {"reason": "no need"})
    assert answer.status == 200, answer
    await agent.connect()
    over = await run_over(ours, incident)
    found = await seen(ours, "agent-of-h", lambda found: not found["open_actions"])
    await agent.leave()

    assert over["status"] == "cancelled"
    assert [each["state"] for each in found["actions"]] == ["withdrawn"]
    assert agent.got == []


# -- streams ---------------------------------------------------------------------------------------------------


async def test_the_newer_of_two_streams_wins(ours: System) -> None:
    async with connected(ours, "twice") as first:
        await seen(ours, "twice", lambda found: found["connected"])
        async with connected(ours, "twice") as second:
            assert await first.ended() is grpc.StatusCode.ABORTED
            await second.alert(
                alert_id="1", type=pb.ALERT_TYPE_DATA, severity=pb.SEVERITY_P3, description="x"
            )
            assert (await seen(ours, "twice", lambda _found: True))["connected"]


async def test_the_newer_stream_wins_at_another_gateway_too() -> None:
    async with with_edge() as ours, another_gateway(ours) as other:
        for number in range(20):
            first = await Agent(ours, f"roaming-{number}").connect()
            second = await Agent(ours, f"roaming-{number}").connect()
            desks = [each.gateway._edge for each in (ours, other)]
            await eventually(lambda desks=desks: sum(len(desk._streams) for desk in desks) >= 1)  # type: ignore[misc]
            assert await first.ended() is grpc.StatusCode.ABORTED
            await second.leave()
            await first.leave()
            if number >= 4:
                break


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"health": pb.EdgeHealthUpdate(status=pb.HEALTH_STATUS_HEALTHY)}, grpc.StatusCode.INVALID_ARGUMENT),
        (
            {"health": pb.EdgeHealthUpdate(agent_id="a b", status=pb.HEALTH_STATUS_HEALTHY)},
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        ({"health": pb.EdgeHealthUpdate(agent_id="ok")}, grpc.StatusCode.INVALID_ARGUMENT),
        (
            {
                "health": pb.EdgeHealthUpdate(
                    agent_id="ok", status=pb.HEALTH_STATUS_HEALTHY, services=["x"] * 300
                )
            },
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        ),
        ({}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_stream_that_can_not_be_read_ends_with_the_field_named(
    ours: System, message: Any, code: grpc.StatusCode
) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ours.settings.server.grpc_port}") as channel:
        stub: Any = STUB(channel)
        call = stub.IncidentStream()
        await call.write(pb.EdgeToIncidentMsg(**message))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    assert refused.value.code() is code


async def test_a_token_may_speak_for_its_agents_alone() -> None:
    async with with_edge() as ours:
        made = await send(ours, "POST", "/v1/tokens", {"name": "admin", "scopes": ["admin"]})
        admin = f"Bearer {made.json['token']}"
        found = {}
        for name, scopes, match in (
            ("bound", ["ingest:llm-edge-agent"], ['agent=~"edge-[12]"', 'service!="theirs"']),
            ("other", ["ingest:v1"], []),
        ):
            body = {"name": name, "scopes": scopes, "match": match}
            made = await send(ours, "POST", "/v1/tokens", body, authorization=admin)
            assert made.status in (200, 201), made
            found[name] = made.json["token"]

        for token, agent, code in (
            ("", "edge-1", grpc.StatusCode.UNAUTHENTICATED),
            (found["other"], "edge-1", grpc.StatusCode.PERMISSION_DENIED),
            (found["bound"], "edge-3", grpc.StatusCode.PERMISSION_DENIED),
        ):
            refused = Agent(ours, agent, token)
            assert await refused.refused_with(says=agent == "edge-3") is code
        good = await Agent(ours, "edge-2", found["bound"]).connect()
        ack = await good.alert(alert_id="1", type=pb.ALERT_TYPE_DATA, affected_services=["theirs"])
        assert ack.status == pb.ACK_STATUS_DROPPED
        assert "the token 'bound' may neither send nor resolve it" in ack.reason
        await good.say(
            action_result=pb.ActionResult(agent_id="edge-1", action_id="x", status=pb.ACTION_STATUS_SUCCEEDED)
        )
        assert await good.ended() is grpc.StatusCode.PERMISSION_DENIED
        await good.leave()


# -- alerts ----------------------------------------------------------------------------------------------------


async def test_an_alert_is_one_series_by_stream_and_as_json_and_is_acknowledged(ours: System) -> None:
    async with connected(ours, "sender") as agent:
        given = {"type": pb.ALERT_TYPE_PERFORMANCE, "severity": pb.SEVERITY_P2, "description": "slow"}
        first = await agent.alert(alert_id="s-1", affected_services=["edge-api"], **given)
        again = await agent.alert(alert_id="s-1", affected_services=["edge-api"], **given)
        as_json = {
            "agent_id": "sender", "alert_id": "s-1", "type": "performance", "severity": "P2",
            "description": "slow", "service": "edge-api",
        }  # fmt: skip
        posted = await send(ours, "POST", "/v1/events/llm-edge-agent", {"alert": as_json})
        over = await agent.alert(alert_id="s-1", affected_services=["edge-api"], resolved=True, **given)
    assert (first.status, again.status) == (pb.ACK_STATUS_ACCEPTED, pb.ACK_STATUS_DUPLICATE)
    assert posted.items[0]["decision"] in ("repeated", "changed"), posted
    assert posted.items[0]["incident_id"] == first.incident_id == over.incident_id
    await no_alert(ours, "performance", "sender")


async def test_an_agent_that_is_not_well_is_an_alert_until_it_is(ours: System) -> None:
    async with connected(ours, "ill") as agent:
        await agent.say(health=pb.EdgeHealthUpdate(status=pb.HEALTH_STATUS_DEGRADED, detail="disk is full"))
        alert = await alert_of(ours, "EdgeAgentHealth", "ill")
        assert alert["annotations"]["description"] == "disk is full"
        await agent.say(health=pb.EdgeHealthUpdate(status=pb.HEALTH_STATUS_HEALTHY))
        await no_alert(ours, "EdgeAgentHealth", "ill")


async def test_an_agent_that_stays_away_is_an_alert_until_it_is_back() -> None:
    async with with_edge(integrations={"llm_edge_agent": {"offline_after": "1s"}}) as ours:
        agent = await Agent(ours, "lost").connect()
        await seen(ours, "lost", lambda found: found["connected"])
        await agent.leave()
        alert = await alert_of(ours, "EdgeAgentHealth", "lost")
        assert alert["annotations"]["summary"] == "Edge agent lost is offline"
        await agent.connect()
        await no_alert(ours, "EdgeAgentHealth", "lost")
        await agent.leave()


# -- people ----------------------------------------------------------------------------------------------------


async def test_a_configuration_is_sent_until_the_agent_has_it(ours: System) -> None:
    async with connected(ours, "configured") as agent:
        await seen(ours, "configured", lambda found: found["connected"])
        body = {"values": {"log_level": "debug"}}
        answer = await send(ours, "POST", "/v1/edge/agents/configured/config", body)
        again = await send(ours, "POST", "/v1/edge/agents/configured/config", body)
        assert (answer.status, answer.json["config"]["version"]) == (200, 1)
        assert again.json["config"]["version"] == 1
        await eventually(lambda: len(agent.configs) == 1)
        await agent.leave()
        await agent.connect()
        await eventually(lambda: len(agent.configs) == 2)
        await agent.say(health=pb.EdgeHealthUpdate(status=pb.HEALTH_STATUS_HEALTHY, config_version=1))
        found = await seen(ours, "configured", lambda found: found["config_version"] == 1)
        await agent.leave()
        await agent.connect(config_version=1)
        await seen(ours, "configured", lambda found: found["connected"])
        await asyncio.sleep(0.3)
    assert found["config"] | {"at": None} == {
        "version": 1, "values": {"log_level": "debug"}, "by": "anonymous", "at": None,
    }  # fmt: skip
    # On the last connection it said at once that it has it; it may have been on its way before that was heard.
    assert {(each.version, each.values["log_level"]) for each in agent.configs} == {(1, "debug")}


async def test_an_agent_that_claims_the_last_version_there_is_still_gets_its_configuration(
    ours: System,
) -> None:
    async with connected(ours, "boastful", config_version=2**63 - 1) as agent:
        await seen(ours, "boastful", lambda found: found["config_version"] > 0)
        answer = await send(
            ours, "POST", "/v1/edge/agents/boastful/config", {"values": {"log_level": "debug"}}
        )
        assert answer.status == 200, answer
        await eventually(lambda: len(agent.configs) == 1)


async def test_a_health_check_is_answered(ours: System) -> None:
    async with connected(ours, "checked") as agent:
        await seen(ours, "checked", lambda found: found["connected"])
        answer = await send(ours, "POST", "/v1/edge/agents/checked/health-check", {"service": "llm-api"})
        assert answer.status == 200, answer
        await eventually(lambda: len(agent.checks) == 1)
        (check,) = agent.checks
        assert (check.target_service, check.request_id) == ("llm-api", answer.json["check"]["id"])
        await agent.say(
            health=pb.EdgeHealthUpdate(
                status=pb.HEALTH_STATUS_DEGRADED, detail="3 of 4", request_id=check.request_id
            )
        )
        found = await seen(ours, "checked", lambda found: found["check"]["answered_at"])
    assert (found["check"]["status"], found["check"]["detail"]) == ("degraded", "3 of 4")


async def test_agents_are_listed_and_one_that_is_not_known_is_said_so(ours: System) -> None:
    async with connected(ours, "listed-1"), connected(ours, "listed-2"):
        await seen(ours, "listed-2", lambda found: found["connected"])
        await seen(ours, "listed-1", lambda found: found["connected"])
        listed = (await ours.get("/v1/edge/agents")).items
    names = [each["id"] for each in listed]
    assert names == sorted(names)
    assert {"listed-1", "listed-2"} <= {*names}
    for answer in (
        await ours.get("/v1/edge/agents/nobody"),
        await send(ours, "POST", "/v1/edge/agents/nobody/config", {"values": {}}),
        await send(ours, "POST", "/v1/edge/agents/nobody/health-check", {}),
    ):
        assert answer.status == 404, answer


# ----------------------------------------------------------------------------------------------------------------


async def alert_of(ours: System, name: str, agent: str) -> Any:
    async with asyncio.timeout(20):
        while True:
            for each in await ours.alerts():
                if (each["labels"]["alertname"], each["labels"].get("agent")) == (name, agent):
                    return each
            await asyncio.sleep(0.05)


async def no_alert(ours: System, name: str, agent: str) -> None:
    async with asyncio.timeout(20):
        while any(
            (each["labels"]["alertname"], each["labels"].get("agent")) == (name, agent)
            for each in await ours.alerts()
        ):
            await asyncio.sleep(0.05)
