"""Alerts over gRPC, by the clients that people have (grpcio): what is acknowledged is stored, in order, and nobody harms another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, cast

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from services.proto import incident_pb2 as pb
from services.proto import incident_pb2_grpc as rpc
from tests.api.gateway_in_process import System, system
from tests.ports import free_port

ACCEPTED, DUPLICATE = pb.ACK_STATUS_ACCEPTED, pb.ACK_STATUS_DUPLICATE
DROPPED, RETRY = pb.ACK_STATUS_DROPPED, pb.ACK_STATUS_RETRY
AT = 1_769_860_800_000


class Client:
    """A channel, and the stubs on it."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None) -> None:
        self.port = port
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.metadata = [*(headers or {}).items()]
        self.sentinel: Any = cast(Any, rpc.SentinelAlertsStub)(self.channel)
        self.shield: Any = cast(Any, rpc.ShieldIncidentsStub)(self.channel)

    async def stream(self, messages: Iterable[pb.AlertMessage]) -> list[pb.AlertAck]:
        """All at once; the answers, to the end."""
        async with asyncio.timeout(20):
            call = self.sentinel.StreamAlerts(iter(messages), metadata=self.metadata)
            return [ack async for ack in call]


@contextlib.asynccontextmanager
async def listening(limits: Mapping[str, Any] = {}, **server: Any) -> AsyncIterator[tuple[System, Client]]:
    port = free_port()
    async with system(server={"grpc": True, "grpc_port": port, **server}, resource_limits=limits) as ours:
        client = Client(port)
        async with client.channel:
            yield ours, client


def message(number: int, **more: Any) -> pb.AlertMessage:
    given = {"severity": pb.SEVERITY_P1, "description": "slow answers", "affected_services": [f"s{number}"]}
    return pb.AlertMessage(alert_id=f"a-{number}", source="llm-sentinel", timestamp=AT, **{**given, **more})


async def services(ours: System) -> set[str]:
    return {each["labels"]["service"] for each in await ours.alerts()}


@pytest.mark.asyncio
async def test_health_and_reflection_answer_their_clients() -> None:
    async with listening() as (ours, client):
        health = health_pb2_grpc.HealthStub(client.channel)
        for name in ("", "llm.incident.v1.SentinelAlerts"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health.Check(health_pb2.HealthCheckRequest(service="no.such"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND

        def reflected() -> tuple[list[str], list[str]]:
            with grpc.insecure_channel(f"127.0.0.1:{client.port}") as channel:
                found = ProtoReflectionDescriptorDatabase(channel)
                file = found.FindFileContainingSymbol("llm.incident.v1.SentinelAlerts")
                return list(found.get_services()), [each.name for each in file.service]

        names, described = await asyncio.to_thread(reflected)
        assert {"grpc.health.v1.Health", "llm.incident.v1.ShieldIncidents"} <= {*names}
        assert "SentinelAlerts" in described

        watched = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watched.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.create_task(ours.gateway.doors["grpc"].stop())
        assert (await watched.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await stopping


@pytest.mark.asyncio
async def test_one_alert_is_stored_once_and_is_the_series_that_its_json_is() -> None:
    async with listening() as (ours, client):
        first = await client.sentinel.SubmitAlert(message(1, type=pb.ALERT_TYPE_PERFORMANCE))
        again = await client.sentinel.SubmitAlert(message(1, type=pb.ALERT_TYPE_PERFORMANCE))
        as_json = {
            "alert_id": "a-1",
            "source": "llm-sentinel",
            "timestamp": AT,
            "type": "Performance",
            "severity": "P1",
            "description": "slow answers",
            "affected_services": ["s1"],
        }
        posted = await ours.post("/v1/events/llm-sentinel", as_json)
        (alert,) = await ours.alerts()
        over = await client.sentinel.SubmitAlert(message(1, type=pb.ALERT_TYPE_PERFORMANCE, resolved=True))
        left = await ours.alerts()

    assert (first.status, again.status, over.status) == (ACCEPTED, DUPLICATE, ACCEPTED)
    assert first.alert_id == "a-1"
    assert posted.items[0]["decision"] == "repeated"
    assert {first.incident_id, again.incident_id, over.incident_id} == {posted.items[0]["incident_id"]}
    assert alert["startsAt"] == "2026-01-31T12:00:00.000Z"
    assert left == []


@pytest.mark.asyncio
async def test_a_token_is_asked_for_and_its_scope() -> None:
    async with listening() as (ours, client):
        made = await ours.post("/v1/tokens", {"name": "admin", "scopes": ["admin"]})
        admin = {"authorization": f"Bearer {made.json['token']}"}
        found = {}
        for name, scope in (("good", "ingest:llm-sentinel"), ("other", "ingest:llm-shield")):
            made = await ours.post("/v1/tokens", {"name": name, "scopes": [scope]}, headers=admin)
            found[name] = made.json
        cases = (
            (None, grpc.StatusCode.UNAUTHENTICATED),
            ("Bearer wrong", grpc.StatusCode.UNAUTHENTICATED),
            (f"Bearer {found['other']['token']}", grpc.StatusCode.PERMISSION_DENIED),
        )
        for header, code in cases:
            metadata = [] if header is None else [("authorization", header)]
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await client.sentinel.SubmitAlert(message(1), metadata=metadata)
            assert refused.value.code() is code
        metadata = [("authorization", f"Bearer {found['good']['token']}")]
        ack = await client.sentinel.SubmitAlert(message(1), metadata=metadata)
        assert ack.status == ACCEPTED

        call = client.sentinel.StreamAlerts(metadata=metadata)
        await call.write(message(2))
        assert (await call.read()).status == ACCEPTED
        path, given = f"/v1/tokens/{found['good']['id']}", (b"authorization", admin["authorization"].encode())
        assert (await ours.request("DELETE", path, [], [given])).status < 300
        with pytest.raises(grpc.aio.AioRpcError) as revoked:
            await call.write(message(3))
            await call.read()
            await call
        assert revoked.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.asyncio
async def test_a_batch_is_answered_alert_by_alert_and_stored_once() -> None:
    async with listening() as (ours, client):
        batch = pb.AlertBatch(
            batch_id="b-1", alerts=[message(1), message(2, severity=0), message(3, description="")]
        )
        first = await client.sentinel.SubmitBatch(batch)
        ends = pb.AlertBatch(alerts=[message(1, resolved=True), message(2, severity=0, resolved=True)])
        await client.sentinel.SubmitBatch(ends)
        # What it opened is over by now: taken anew it would open it again.
        again = await client.sentinel.SubmitBatch(batch)
        left = await services(ours)
        other = pb.AlertBatch(batch_id="b-1", alerts=[message(7), message(8)])
        with pytest.raises(grpc.aio.AioRpcError) as collided:
            await client.sentinel.SubmitBatch(other)
        with pytest.raises(grpc.aio.AioRpcError) as unnamed:
            await client.sentinel.SubmitBatch(pb.AlertBatch(batch_id="x" * 300, alerts=[message(1)]))
        letters = await ours.letters(3)

    assert [(each.alert_id, each.status) for each in first.acks] == [
        ("a-1", ACCEPTED),
        ("a-2", ACCEPTED),
        ("a-3", DROPPED),
    ]
    assert first.acks[2].reason.startswith("description: expected")
    assert [each.incident_id for each in again.acks] == [each.incident_id for each in first.acks]
    assert left == set()
    assert collided.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert unnamed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(letters) == 3


@pytest.mark.asyncio
async def test_a_stream_is_answered_in_order_and_goes_on_after_a_bad_message() -> None:
    async with listening() as (ours, client):
        sent = [message(n) if n % 100 else message(n, description="") for n in range(1000)]
        acks = await client.stream(sent)
        found = await services(ours)
        raw: Any = client.channel.stream_stream("/llm.incident.v1.SentinelAlerts/StreamAlerts")
        unread = [
            pb.AlertAck.FromString(each)
            async for each in raw(iter([b"\xff\xff", message(5000).SerializeToString()]))
        ]
        letters = await ours.letters(11)

    assert [each.alert_id for each in acks] == [f"a-{n}" for n in range(1000)]
    assert {each.status for n, each in enumerate(acks) if n % 100} == {ACCEPTED}
    assert {each.status for each in acks[::100]} == {DROPPED}
    assert found == {f"s{n}" for n in range(1000) if n % 100}
    assert [(each.status, each.reason) for each in unread] == [
        (DROPPED, "expected a message AlertMessage of protobuf"),
        (ACCEPTED, ""),
    ]
    assert len(letters) == 11


@pytest.mark.asyncio
async def test_an_end_never_overtakes_its_beginning() -> None:
    async with listening() as (ours, client):
        sent = [each for n in range(300) for each in (message(n), message(n, resolved=True))]
        acks = await client.stream(sent)
        left = await ours.alerts()
    assert {each.status for each in acks} == {ACCEPTED}
    assert all(each.incident_id for each in acks)
    assert left == []


@pytest.mark.asyncio
async def test_batches_in_a_stream_are_answered_in_order() -> None:
    async with listening() as (ours, client):
        batches = [
            pb.AlertBatch(batch_id=f"b-{n}", alerts=[message(n * 10 + m) for m in range(10)])
            for n in range(50)
        ]
        batches[7] = pb.AlertBatch(batch_id="\n", alerts=[message(70)])
        answers = [each async for each in client.sentinel.StreamBatches(iter(batches))]
        again = [each async for each in client.sentinel.StreamBatches(iter(batches[:5]))]
        found = await services(ours)
    assert [each.batch_id for each in answers] == ["" if n == 7 else f"b-{n}" for n in range(50)]
    assert (answers[7].acks[0].status, answers[7].acks[0].reason[:9]) == (DROPPED, "batch_id:")
    assert {ack.status for n, each in enumerate(answers) if n != 7 for ack in each.acks} == {ACCEPTED}
    assert [[ack.incident_id for ack in each.acks] for each in again] == [
        [ack.incident_id for ack in each.acks] for each in answers[:5]
    ]
    assert found == {f"s{n}" for n in range(500) if not 70 <= n < 80}


@pytest.mark.asyncio
async def test_incidents_of_shield_are_taken() -> None:
    async with listening() as (ours, client):
        incident = pb.SecurityIncident(
            id="i-1",
            timestamp=AT,
            threat_type=pb.THREAT_TYPE_DATA_EXFILTRATION,
            severity=pb.SECURITY_SEVERITY_CRITICAL,
            affected_assets=[pb.Asset(id="x", type="model", name="rag-index")],
            indicators=[pb.Indicator(type="ip", value="203.0.113.7")],
            mitigation_status=pb.MITIGATION_STATUS_IN_PROGRESS,
            context={"title": "Documents left"},
        )
        ack = await client.shield.SubmitIncident(incident)
        posted = await ours.post(
            "/v1/events/llm-shield",
            {
                "id": "i-1",
                "timestamp": AT,
                "threat_type": "DataExfiltration",
                "severity": "Critical",
                "affected_assets": [{"id": "x", "type": "model", "name": "rag-index"}],
                "indicators": [{"type": "ip", "value": "203.0.113.7"}],
                "mitigation_status": "InProgress",
                "context": {"title": "Documents left"},
            },
        )
        incident.mitigation_status = pb.MITIGATION_STATUS_MITIGATED
        acks = [each async for each in client.shield.StreamIncidents(iter([incident, pb.SecurityIncident()]))]
        left = await ours.alerts()
    assert (ack.status, posted.items[0]["decision"]) == (ACCEPTED, "repeated")
    assert [each.status for each in acks] == [ACCEPTED, DROPPED]
    assert acks[1].reason.startswith("id: expected")
    assert left == []


@pytest.mark.asyncio
async def test_what_is_wrong_and_what_passes_is_told_by_code_and_details() -> None:
    async with listening(hold="100ms") as (ours, client):
        with pytest.raises(grpc.aio.AioRpcError) as wrong:
            await client.sentinel.SubmitAlert(message(1, description=""))
        for shard in ours.shards:
            await ours.crash(shard)
        with pytest.raises(grpc.aio.AioRpcError) as away:
            await client.sentinel.SubmitAlert(message(1))
        acks = await client.stream([message(1), message(2)])
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await cast(Any, client.channel.unary_unary("/llm.incident.v1.SentinelAlerts/No"))(b"")

    violation, wait = BadRequest(), RetryInfo()
    assert _detail(wrong.value).details[0].Unpack(violation)
    assert wrong.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violation.field_violations[0].field == "description"
    assert away.value.code() is grpc.StatusCode.UNAVAILABLE
    assert _detail(away.value).details[0].Unpack(wait)
    assert wait.retry_delay.ToMilliseconds() >= 1000
    assert [(each.status, each.retry_after_ms > 0) for each in acks] == [(RETRY, True), (RETRY, True)]
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


def _detail(error: grpc.aio.AioRpcError) -> Status:
    trailers = dict(error.trailing_metadata() or ())
    return Status.FromString(trailers["grpc-status-details-bin"])
