"""Rate limits: who sends too fast is told so by every door, nothing of it is stored, others are not held up, and the limits are
those of the whole system."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from models.errors import RateLimited
from models.settings.all import Settings
from services.cli.commands.status import _limits
from services.ingest.arrival import Sender
from services.proto import incident_pb2 as pb
from tests.api.gateway_in_process import JSON, Reply, System, alert, another_gateway, system
from tests.api.queue_peers import NatsPeer
from tests.api.test_alert_stream import alerts, heard, opened
from tests.api.test_grpc import listening, message
from tests.api.test_guard import create

pytestmark = pytest.mark.asyncio

V2, V1 = "/api/v2/alerts", "/v1/alerts"
ONE = {"gateways": 1}
SLOW = {"max_sender_rate": "10/m", "burst": "1m"}


async def sent(ours: System, count: int, name: str = "A", door: str = V2, secret: str = "") -> Reply:
    headers = [(b"content-type", JSON.encode())]
    if secret:
        headers.append((b"authorization", f"Bearer {secret}".encode()))
    body = json.dumps([alert(f"{name}{number}") for number in range(count)]).encode()
    return await ours.request("POST", door, [body], headers)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("door", [V2, V1])
async def test_who_sends_too_fast_is_told_when_to_come_again_and_nothing_of_it_is_stored(door: str) -> None:
    async with system(server=ONE, resource_limits=SLOW) as ours:
        first = await sent(ours, 9, door=door)
        into_debt = await sent(ours, 3, "B", door=door)
        refused = await sent(ours, 1, "C", door=door)

        assert (first.status, first.headers["ratelimit"]) in [(200, '"sender";r=1'), (202, '"sender";r=1')]
        assert into_debt.status in (200, 202)
        assert (refused.status, refused.headers["ratelimit-policy"]) == (429, '"sender";q=10;w=60')
        # Two owed and one to come, at six seconds each.
        assert int(refused.headers["retry-after"]) in (17, 18)
        assert "anonymous may send 10/m alerts" in refused.body.decode()
        assert "C0" not in await ours.names() and not await ours.letters(0)
        told = (await ours.get("/metrics")).body.decode()
        labels = '{actor="gateway-test",limit="sender",token="anonymous"}'
        assert f"llm_im_rate_limited_total{labels} 1\n" in told
        assert f"llm_im_rate_limit{labels} 0.16666666666666666\n" in told

        ours.clock.ahead_s += int(refused.headers["retry-after"])
        assert (await sent(ours, 1, "C", door=door)).status in (200, 202)


async def test_where_nothing_is_limited_no_answer_says_so_and_nobody_asks(ours: System) -> None:
    answer = await sent(ours, 3)

    assert "ratelimit" not in answer.headers and not ours.gateway.station.limits._senders


async def test_what_cannot_be_read_counts_as_one() -> None:
    async with system(server=ONE, resource_limits=SLOW) as ours:
        answers = [await ours.post(V2, b"[{") for _ in range(12)]

        assert [each.status for each in answers] == [400] * 10 + [429] * 2
        assert len(await ours.letters(10)) == 10


async def test_each_token_has_its_own_limit_and_some_have_another() -> None:
    rates = {"max_sender_rate": "2/h", "burst": "1h", "sender_rates": {"ci": "1/h", "prometheus": "none"}}
    async with system(server=ONE, resource_limits=rates) as ours:
        admin = (await create(ours, "admin", "admin"))["token"]
        for name, allowed in (("ci", 1), ("other", 2), ("prometheus", 4)):
            secret = (await create(ours, name, "ingest:alertmanager", by=admin))["token"]
            statuses = [(await sent(ours, 1, secret=secret)).status for _ in range(4)]
            assert statuses == [200] * allowed + [429] * (4 - allowed)


async def test_limits_change_while_it_runs() -> None:
    async with system(server=ONE, resource_limits=SLOW) as ours:
        assert [(await sent(ours, 10)).status, (await sent(ours, 1)).status] == [200, 429]

        common = {"state": {"partitions": 2}, "server": ONE}
        wanted = {**common, "resource_limits": {"max_ingestion_rate": "1000/s"}}
        await ours.gateway.change_settings(Settings.model_validate(wanted), "ops")
        answer = await sent(ours, 1)
        assert (answer.status, answer.headers["ratelimit-policy"]) == (200, '"all";q=1000;w=1')

        await ours.gateway.change_settings(Settings.model_validate(common), "ops")
        assert "ratelimit" not in (await sent(ours, 1)).headers


async def test_two_gateways_let_through_together_what_one_would() -> None:
    limits = {"max_ingestion_rate": "100/s"}
    async with system(resource_limits=limits) as ours, another_gateway(ours) as theirs:
        loop, passed = asyncio.get_running_loop(), 0
        began = loop.time()

        async def flood(gateway: System) -> None:
            nonlocal passed
            while loop.time() < began + 1.5:
                if (await sent(gateway, 1)).status == 200:
                    passed += 1
                await asyncio.sleep(0.002)

        await asyncio.gather(flood(ours), flood(theirs))
        took_s = loop.time() - began

        # The burst, the rate, and what each took before it heard of the other: a tenth of a second's worth.
        assert passed <= 100 + 100 * took_s + 2 * 100 * 0.2
        # Not half of it either.
        assert passed >= 100 + 50 * took_s


async def test_one_of_two_gateways_may_use_all_of_it() -> None:
    limits = {"max_sender_rate": "100/h", "burst": "1h"}
    async with system(resource_limits=limits) as ours, another_gateway(ours) as theirs:
        passed = 0
        async with asyncio.timeout(30):
            # At first it has half; that the other one sends nothing it hears within a moment.
            while passed < 95:
                passed += (await sent(ours, 1)).status == 200
                await asyncio.sleep(0.001)

        # What the other has used up is used up here too, but for what passes before this one hears.
        passed = 0
        async with asyncio.timeout(30):
            while (await sent(theirs, 1)).status == 200:
                passed += 1
                await asyncio.sleep(0.05)
        assert passed <= 50


async def test_while_control_is_away_each_gateway_lets_its_part_through() -> None:
    async with system(resource_limits={"max_sender_rate": "100/h", "burst": "1h"}) as ours:
        ours.cluster.kill("control-a")
        answers = []
        for _ in range(60):
            answers.append((await sent(ours, 1)).status)
            await asyncio.sleep(0.001)

        # An hour's worth: a busy machine is not long enough at it for one more.
        assert (answers.count(200), answers.count(429)) == (50, 10)


async def test_who_sends_little_is_let_in_while_another_uses_up_what_all_may_send() -> None:
    async with system(server=ONE, resource_limits={"max_ingestion_rate": "100/s"}) as ours:
        limits = ours.gateway.station.limits
        loud, quiet = Sender("loud"), Sender("quiet")
        refused = {loud.name: 0, quiet.name: 0}

        def ask(sender: Sender, count: int) -> None:
            try:
                limits.take(sender, count)
            except RateLimited:
                refused[sender.name] += 1

        for _ in range(100):
            for _ in range(20):
                ask(loud, 10)
            ask(quiet, 1)
            ours.clock.ahead_s += 0.05
            limits._divide(ours.clock.monotonic())

        # 20 a second of the 100, of which half is theirs.
        assert refused["quiet"] == 0 and refused["loud"] > 1900
        assert limits._all is not None and limits._all.level > -60


async def test_a_stream_that_is_too_fast_is_read_more_slowly_and_nothing_is_refused() -> None:
    async with (
        system(server=ONE, resource_limits=SLOW) as ours,
        opened(await ours.listen()) as client,
    ):
        for number in range(3):
            await client.send(json.dumps({"id": number, "alerts": alerts(number * 10, 10)}))
        first: dict[str, Any] = await heard(client)
        assert (first["id"], first["status"]) == (0, 202)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.recv(), 0.1)

        for number in (1, 2):
            ours.clock.ahead_s += 60
            later = await heard(client)
            assert (later["id"], later["status"]) == (number, 202)


async def test_pagerduty_senders_are_told_as_pagerduty_does() -> None:
    async with system(server=ONE, resource_limits=SLOW) as ours:
        event = {
            "routing_key": "k" * 32,
            "event_action": "trigger",
            "payload": {"summary": "down", "source": "db-1", "severity": "critical"},
        }
        answers = [await ours.post("/v2/enqueue", {**event, "dedup_key": f"{n}"}) for n in range(11)]

        assert [each.status for each in answers] == [202] * 10 + [429]
        assert answers[-1].json["status"] == "throttle exceeded" and answers[-1].headers["retry-after"]


async def test_status_shows_the_limits_in_force_and_what_they_refused() -> None:
    limits = {"max_ingestion_rate": "5000/s", "sender_rates": {"anonymous": "1/h"}}
    async with system(server=ONE, resource_limits=limits) as ours:
        await sent(ours, 1)
        await sent(ours, 1)
        found = _limits((await ours.get("/metrics")).body.decode().splitlines())

    assert found == [
        {"sender": None, "alerts_per_second": 5000.0, "refused": 0},
        {"sender": "anonymous", "alerts_per_second": 1 / 3600, "refused": 1},
    ]


async def test_grpc_tells_who_is_too_fast_and_reads_streams_more_slowly() -> None:
    async with listening(SLOW, **ONE) as (ours, client):
        for number in range(10):
            await client.sentinel.SubmitAlert(message(number))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.sentinel.SubmitAlert(message(10))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers = dict(refused.value.trailing_metadata() or ())
        assert 0 < int(trailers["grpc-retry-pushback-ms"]) <= 6000

        stream = asyncio.ensure_future(client.stream([message(number) for number in range(20, 30)]))
        await asyncio.sleep(0.1)
        assert not stream.done()
        ours.clock.ahead_s += 60
        assert [ack.status for ack in await stream] == [pb.ACK_STATUS_ACCEPTED] * 10


async def test_over_grpc_alerts_are_counted_and_what_cannot_be_read_as_one() -> None:
    async with listening(SLOW) as (ours, client):
        await client.sentinel.SubmitAlert(message(1, affected_services=[f"s{n}" for n in range(12)]))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.sentinel.SubmitAlert(message(2))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

        ours.clock.ahead_s += 60
        codes = []
        for _ in range(11):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await client.sentinel.SubmitBatch(pb.AlertBatch(batch_id="x" * 5000))
            codes.append(refused.value.code())
        assert codes[0] is grpc.StatusCode.INVALID_ARGUMENT
        assert codes[-1] is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.timeout(60)
async def test_a_queue_is_read_no_faster_than_the_limit_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    peer = NatsPeer(tmp_path)
    peer.start()
    try:
        topic = peer.topic()
        await peer.create(topic)
        limits = {"max_ingestion_rate": "600/m"}
        async with system(messaging=peer.settings(topic), resource_limits=limits) as ours:
            await peer.publish(topic, [json.dumps([alert(f"A{n}")]).encode() for n in range(25)])
            async with asyncio.timeout(30):
                while len(await ours.names()) < 25:
                    await asyncio.sleep(0.05)
                while await peer.left(topic):
                    await asyncio.sleep(0.05)
            assert not await ours.letters(0)
    finally:
        peer.end()
