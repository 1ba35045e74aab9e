"""Clocks that are wrong: ours, for a moment or since another host wrote the store, and those of senders."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
import structlog.testing
from aiohttp import web

from actors.shard import IncidentShard
from models.shard.messages import Tick
from services.ingest import skew
from tests.api.gateway_in_process import MemoryStores, SettableClock, System, alert, system

SHARED = pytest.mark.asyncio(loop_scope="module")
V2, V1 = "/api/v2/alerts", "/v1/alerts"
HOUR_S = 3600.0


def at(seconds: float) -> str:
    """So many seconds from now, by a clock that is right."""
    return datetime.fromtimestamp(time.time() + seconds, UTC).isoformat().replace("+00:00", "Z")


def fires(name: str, **more: object) -> list[dict[str, object]]:
    """What Prometheus sends of an alert that fires: its end is four minutes away."""
    return [alert(name, severity="critical") | {"endsAt": at(240)} | more]


@asynccontextmanager
async def a_pager() -> AsyncIterator[tuple[str, list[tuple[str, str]]]]:
    """A receiver of notifications: its URL, and of each the alert's name and the reason."""
    got: list[tuple[str, str]] = []

    async def take(request: web.Request) -> web.Response:
        told = json.loads(await request.read())
        got.append((told["commonLabels"]["alertname"], told["incident"]["reason"]))
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", got
    finally:
        await runner.cleanup()


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(15):
        while not await holds():
            await asyncio.sleep(0.02)


async def leap(ours: System, clock: SettableClock, by_s: float) -> None:
    """The clock says something else from now on, and every shard has looked at it."""
    clock.heard_s += by_s
    shards = [ours.cluster.get(name) for name in ours.shards]
    assert all(isinstance(shard, IncidentShard) for shard in shards)

    async def seen() -> bool:
        return all(abs(shard.shard.now - clock.now()) < 5 for shard in shards)  # type: ignore[union-attr]

    await until(seen)


async def metric(ours: System, name: str) -> list[str]:
    text = (await ours.get("/metrics")).body.decode()
    return [line for line in text.splitlines() if line.startswith(name + "{")]


@pytest.mark.asyncio
async def test_a_clock_that_was_an_hour_ahead_for_a_moment_costs_no_alert_and_says_nothing_is_over() -> None:
    clock = SettableClock()
    async with a_pager() as (url, got), system(clock=clock, notify={"webhook": {"url": url}}) as ours:
        assert (await ours.post(V2, fires("Before"))).status == 200
        await until(lambda: asyncio.sleep(0, got == [("Before", "opened")]))

        with structlog.testing.capture_logs() as lines:
            await leap(ours, clock, HOUR_S)
            assert (await ours.post(V2, fires("Before"))).status == 200
            await asyncio.sleep(0.3)
            await leap(ours, clock, -HOUR_S)

        for name in ("Before", "After"):
            assert (await ours.post(V2, fires(name))).status == 200
        (item,) = (await ours.post(V1, {"labels": {"alertname": "AfterV1", "severity": "critical"}})).items
        assert item["decision"] == "opened"
        await until(lambda: asyncio.sleep(0, len(got) == 3))
        assert await ours.names() == {"Before", "After", "AfterV1"}
        assert sorted(got) == [("After", "opened"), ("AfterV1", "opened"), ("Before", "opened")]
        incident = (await ours.get(f"/v1/incidents/{item['incident_id']}")).json
        created = datetime.fromisoformat(incident["created_at"].replace("Z", "+00:00"))
        assert abs(created.timestamp() - time.time()) < 60
        assert (await ours.get("/health/ready")).json["status"] == "ready"
        assert sum(float(line.split()[-1]) for line in await metric(ours, "llm_im_clock_set_back_total")) == 2
        assert {line["log_level"] for line in lines if "clock was ahead" in line["event"]} == {"error"}


@pytest.mark.parametrize("fast_s", [60.0, HOUR_S, 86400.0, 365 * 86400.0])
@pytest.mark.asyncio
async def test_a_store_that_a_fast_clock_wrote_is_right_from_the_start_on(fast_s: float) -> None:
    stores, clock = MemoryStores(), SettableClock()
    clock.heard_s = fast_s
    async with system(stores, clock=clock) as ours:
        # Its sender has the same clock.
        assert (await ours.post(V2, [alert("Fast") | {"endsAt": at(fast_s + 240)}])).status == 200

    async with system(stores) as ours:
        assert (await ours.post(V2, fires("Fast"))).status == 200
        assert (await ours.post(V2, fires("Right"))).status == 200
        (item,) = (await ours.post(V1, {"labels": {"alertname": "RightV1"}})).items

        assert item["decision"] == "opened"
        assert await ours.names() == {"Fast", "Right", "RightV1"}
        for incident in (await ours.get("/v1/incidents")).json["items"]:
            assert incident["created_at"] <= at(1)


@pytest.mark.asyncio
async def test_a_shard_that_is_ahead_of_its_clock_and_does_not_notice_is_degraded_and_says_why() -> None:
    clock = SettableClock()
    async with system(clock=clock) as ours:
        shard = ours.cluster.get(ours.shards[1])
        assert isinstance(shard, IncidentShard)
        shard._tick = Tick(False)  # no tick comes any more
        await asyncio.sleep(0.2)
        shard.shard.state.now += 120

        answer = await ours.get("/health/ready")

        assert answer.json["status"] == "degraded"
        assert "s ahead of its clock" in answer.json["reasons"]["shard/0001"]
        assert max(float(line.split()[-1]) for line in await metric(ours, "llm_im_clock_ahead_seconds")) > 100


# -- clocks of senders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("begins", [{}, {"starts_at": -600.0}, {"starts_at": 0.0}, {"starts_at": 120.0}])
@pytest.mark.parametrize(
    "ends",
    [
        {},
        {"ends_at": -30.0},
        {"ends_at": -7200.0},
        {"ends_at": 30.0},
        {"starts_at": 120.0},
        {"starts_at": 0.0},
    ],
)
@SHARED
async def test_resolved_ends_what_fires(
    begins: dict[str, float], ends: dict[str, float], shared: System
) -> None:
    labels = {"alertname": f"Ends {begins} {ends}", "service": "clocks"}
    written = [{name: at(seconds) for name, seconds in times.items()} for times in (begins, ends)]
    (opened,) = (await shared.post(V1, {"labels": labels, **written[0]})).items

    answer = await shared.post(V1, {"labels": labels, "status": "resolved", **written[1]})

    assert opened["decision"] == "opened"
    assert [(item["status"], item["decision"]) for item in answer.items] == [(202, "resolved")]


@pytest.mark.parametrize("times", [{}, {"ends_at": 30.0}, {"ends_at": -30.0}, {"starts_at": 120.0}])
@SHARED
async def test_resolved_opens_nothing(times: dict[str, float], shared: System) -> None:
    labels = {"alertname": f"Never {times}", "service": "clocks"}
    written = {name: at(seconds) for name, seconds in times.items()}

    (item,) = (await shared.post(V1, {"labels": labels, "status": "resolved", **written})).items

    assert (item["decision"], item["incident_id"]) == ("unknown_resolve", None)


@pytest.mark.asyncio
async def test_a_sender_that_is_hours_behind_is_named_and_once_it_is_right_again_no_longer() -> None:
    behind = {"generatorURL": "http://user:secret@prom-a.example:9090/graph?g0.expr=up"}
    async with system() as ours:
        with structlog.testing.capture_logs() as lines:
            for minute in range(3):
                sent = fires("Behind", startsAt=at(-3 * HOUR_S), endsAt=at(-3 * HOUR_S + 240 + 60 * minute))
                assert (await ours.post(V2, [sent[0] | behind])).status == 200
                assert (
                    await ours.post(V2, fires("Right", generatorURL="http://prom-b.example/"))
                ).status == 200
        assert await ours.names() == {"Right"}
        (line,) = await metric(ours, "llm_im_sender_clock_skew_seconds")
        assert 'source="prom-a.example:9090"' in line and float(line.split()[-1]) < -2.8 * HOUR_S
        (told,) = [line for line in lines if "a sender's clock" in line["event"]]
        assert told["source"] == "prom-a.example:9090" and told["log_level"] == "warning"

        assert (await ours.post(V2, [fires("Behind")[0] | behind])).status == 200

        async def is_right() -> bool:
            (line,) = await metric(ours, "llm_im_sender_clock_skew_seconds")
            return line.split()[-1] == "0"

        await until(is_right)


@pytest.mark.asyncio
async def test_a_sender_whose_alerts_begin_in_the_future_is_ahead() -> None:
    async with system() as ours:
        body = {"labels": {"alertname": "Ahead"}, "starts_at": at(300), "source": "llm-sentinel"}
        assert (await ours.post(V1, body)).status == 202

        (line,) = await metric(ours, "llm_im_sender_clock_skew_seconds")

    assert 'source="llm-sentinel"' in line and 290 < float(line.split()[-1]) <= 300


@pytest.mark.asyncio
async def test_ends_that_are_said_again_and_queues_of_seconds_say_nothing_of_a_clock() -> None:
    async with system() as ours:
        ended, later = at(-600), at(-30)
        for end in (ended, ended, later, later):
            assert (
                await ours.post(V2, [alert("Over") | {"startsAt": at(-900), "endsAt": end}])
            ).status == 200

        assert not await metric(ours, "llm_im_sender_clock_skew_seconds")


@pytest.mark.asyncio
async def test_senders_past_the_bound_share_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skew, "SOURCES_MAX", 3)
    async with system() as ours:
        for number in range(10):
            body = {"labels": {"alertname": f"A{number}"}, "starts_at": at(300), "source": f"sender-{number}"}
            assert (await ours.post(V1, body)).status == 202

        lines = await metric(ours, "llm_im_sender_clock_skew_seconds")

    assert len(lines) == 4 and any('source="others"' in line for line in lines)


@pytest.mark.asyncio
async def test_senders_whose_clocks_are_right_do_not_take_the_place_of_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(skew, "SOURCES_MAX", 3)
    async with system() as ours:
        for number in range(10):
            ended = alert(f"A{number}") | {"ends_at": at(-1), "source": f"right-{number}"}
            assert (await ours.post(V1, ended)).status == 202
        ahead = {"labels": {"alertname": "B"}, "starts_at": at(300), "source": "ahead"}
        assert (await ours.post(V1, ahead)).status == 202

        (line,) = await metric(ours, "llm_im_sender_clock_skew_seconds")

    assert 'source="ahead"' in line
