"""One sender that floods: another's requests go through, after a bounded part of the flood."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest

import services.ingest.doors.http
import services.ingest.line
from services.ingest.submit import Receipt
from tests.api.gateway_in_process import FIRST_SHARD_SERVICE, JSON, Reply, System, alert, system
from tests.api.test_guard import create
from tests.api.test_pressure import Gate, is_busy, until

pytestmark = pytest.mark.asyncio

V2 = "/api/v2/alerts"


async def senders(ours: System) -> tuple[str, str]:
    """Tokens of a loud one and a quiet one."""
    admin = (await create(ours, "admin", "admin"))["token"]
    loud = await create(ours, "loud", "ingest:alertmanager", by=admin)
    quiet = await create(ours, "quiet", "ingest:alertmanager", by=admin)
    return loud["token"], quiet["token"]


async def post(ours: System, secret: str, alerts: list[dict[str, Any]]) -> Reply:
    headers = [(b"content-type", JSON.encode()), (b"authorization", f"Bearer {secret}".encode())]
    return await ours.request("POST", V2, [json.dumps(alerts).encode()], headers)


def batch(name: str, count: int) -> list[dict[str, Any]]:
    return [alert(f"{name}-{number}", FIRST_SHARD_SERVICE) for number in range(count)]


@pytest.mark.usefixtures("both_ways")
async def test_who_sends_little_waits_for_one_turn_of_the_flood_not_for_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As many alerts as two requests have: the calls that are under way carry four of a hundred.
    monkeypatch.setattr(services.ingest.line, "CALL_ALERTS_MAX", 100)
    monkeypatch.setattr("services.ingest.turns.TURN_ALERTS", 50)
    async with system() as ours:
        loud, quiet = await senders(ours)
        gate = Gate(ours.cluster.get(ours.shards[0]))
        done: list[str] = []

        async def send(secret: str, name: str, count: int) -> None:
            assert (await post(ours, secret, batch(name, count))).status == 200
            done.append(name)

        line = ours.gateway.station.lines[0]
        flood = [asyncio.ensure_future(send(loud, f"L{number}", 50)) for number in range(100)]
        await until(lambda: line.alerts == 5000)
        other = asyncio.ensure_future(send(quiet, "Q", 1))
        await until(lambda: line.alerts == 5001)
        gate.opened.set()
        await asyncio.gather(*flood, other)

        # Two calls under way with two each, and one turn.
        assert done.index("Q") <= 8


@pytest.mark.usefixtures("both_ways")
async def test_who_floods_a_shard_that_stands_still_leaves_room_for_others() -> None:
    async with system(server={"max_inflight_alerts": 2000}) as ours:
        loud, quiet = await senders(ours)
        gate = Gate(ours.cluster.get(ours.shards[0]))

        flood = [asyncio.ensure_future(post(ours, loud, batch(f"L{number}", 10))) for number in range(150)]
        await until(lambda: sum(each.done() for each in flood) >= 75)
        refused = [each.result() for each in flood if each.done()]
        other = asyncio.ensure_future(post(ours, quiet, batch("Q", 100)))
        line = ours.gateway.station.lines[0]
        await until(lambda: line.alerts == 850)
        gate.opened.set()

        assert (await other).status == 200
        # Three quarters of the thousand that this shard's line holds.
        assert len(refused) == 75 and all(map(is_busy, refused))
        assert b"750 alerts of loud are waiting" in refused[0].body
        assert {each.status for each in await asyncio.gather(*flood)} == {200, 503}
        assert line.alerts == 0 and line._shares.held_by("loud") == 0


async def test_who_takes_all_the_places_of_a_gateway_leaves_one_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(services.ingest.doors.http, "REQUESTS_MAX", 40)
    async with system() as ours:
        loud, quiet = await senders(ours)
        gate = Gate(ours.cluster.get(ours.shards[0]))

        flood = [asyncio.ensure_future(post(ours, loud, batch(f"L{number}", 1))) for number in range(60)]
        await until(lambda: sum(each.done() for each in flood) >= 30)
        other = asyncio.ensure_future(post(ours, quiet, batch("Q", 1)))
        await until(lambda: ours.gateway.station.lines[0].alerts == 31)
        gate.opened.set()

        assert (await other).status == 200
        answers = await asyncio.gather(*flood)
        assert [each.status for each in answers].count(200) == 30
        assert ours.gateway.http._shares.held_by("loud") == 0
        assert ours.gateway.http._room.shares.held_by("loud") == 0


@pytest.mark.usefixtures("both_ways")
async def test_what_is_refused_leaves_nothing_that_waits_for_the_garbage_collector() -> None:
    async with system(server={"max_inflight_alerts": 20}) as ours:
        gate = Gate(ours.cluster.get(ours.shards[0]))
        headers = [(b"content-type", JSON.encode())]
        bodies = [json.dumps(batch(f"B{number}", 10)).encode() for number in range(10)]
        first = asyncio.ensure_future(ours.request("POST", V2, [bodies[0]], headers))
        await until(lambda: gate.waiting)
        gc.collect()
        gc.disable()
        try:
            gc.set_debug(gc.DEBUG_SAVEALL)
            for body in bodies:
                assert is_busy(await ours.request("POST", V2, [body], headers))
            gc.collect()
            left = [each for each in gc.garbage if isinstance(each, Receipt)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
            gate.opened.set()
        assert (await first).status == 200

        # A receipt has the parts of its request, and these its body.
        assert not left
