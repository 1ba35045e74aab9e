"""Two tenants who share every shard, a gateway each: what is one's, the other does not meet by any door."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from actors.shard import IncidentShard
from models.partition.sharding import TENANT, SlotMap, slot_of
from models.ports import DeadLetter
from services.api.v1.verb_table import VERBS
from services.times import timestamp
from tests.api.gateway_in_process import System, alert, another_gateway, system
from tests.api.test_pressure import until
from tests.api.test_stream import by_sse

pytestmark = pytest.mark.asyncio

OTHER = "acme"
TENANTS = (TENANT, OTHER)
#: How long alerts fire of which nobody says that they ended.
ENDS_S = 4.0
#: Times of the lifecycle, so that a test can go through it by a few steps of the clock.
SHORT = {"close_after": 10, "reopen_window": 10}

Both = tuple[System, System]


@pytest_asyncio.fixture
async def both() -> AsyncIterator[Both]:
    # A review that is due tomorrow would keep what is closed out of the archive until then.
    soon = {"review_after": "0s"}
    async with system(lifecycle=SHORT, verification=soon) as ours, another_gateway(ours, OTHER) as theirs:
        yield ours, theirs


def service_of(tenant: str, shard: int) -> str:
    """A service of the tenant that lives in this shard."""
    slots = SlotMap.even(2)
    names = (f"service{number}" for number in range(100))
    return next(name for name in names if slots.owners[slot_of(tenant, name)] == shard)


async def fire(at: System, name: str, service: str, **more: object) -> str:
    """An alert of its own incident; that one's id, once it is classified."""
    answer = await at.post("/v1/alerts", [{**alert(name, service), **more}])
    identity = str(answer.items[0]["incident_id"])

    async def is_judged() -> bool:
        return bool((await shown(at, identity))["state"] != "Detected")

    async with asyncio.timeout(10):
        while not await is_judged():
            await asyncio.sleep(0.01)
    return identity


async def shown(at: System, identity: str) -> dict[str, Any]:
    answer = await at.get(f"/v1/incidents/{identity}")
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


async def listed(at: System, query: str = "") -> set[str]:
    return {str(each["id"]) for each in (await at.get(f"/v1/incidents{query}")).items}


async def lines(at: System, identity: str) -> list[tuple[object, object]]:
    timeline = (await at.get(f"/v1/incidents/{identity}/timeline")).items
    return [(each["event_type"], each["description"]) for each in timeline]


async def test_one_alert_sent_to_both_is_two_incidents_of_which_each_sees_its_own(both: Both) -> None:
    made = [await fire(at, "Down", "api") for at in both]

    assert made[0] != made[1]
    for at, own, foreign in ((both[0], made[0], made[1]), (both[1], made[1], made[0])):
        assert await listed(at) == await listed(at, "?state=Triaged&service=api") == {own}
        assert [each["labels"] for each in await at.alerts()] == [{"alertname": "Down", "service": "api"}]
        assert [each["incident_id"] for each in (await at.get("/v1/alerts")).items] == [own]
        stats = json.loads((await at.get("/v1/stats")).body)
        assert (stats["open"], stats["by_service"]) == (1, [{"service": "api", "open": 1}]), stats
        assert foreign not in (await at.get("/v1/incidents")).body.decode()


async def test_whatever_is_asked_of_or_done_to_the_others_incident_is_404(both: Both) -> None:
    ours, theirs = both
    own, foreign = await fire(ours, "Down", "api"), await fire(theirs, "Down", "api")
    before = await shown(theirs, foreign)

    answers = {
        path: (await ours.get(f"/v1/incidents/{foreign}{path}")).status
        for path in ("", "/alerts", "/timeline")
    }
    for verb in VERBS:
        example = dict(verb.example)
        if "incident" in example:
            example["incident"] = own
        answers[verb.name] = (await ours.post(f"/v1/incidents/{foreign}/{verb.name}", example)).status
        if "incident" in example:
            example["incident"] = foreign
            answers[f"{verb.name} with it"] = (
                await ours.post(f"/v1/incidents/{own}/{verb.name}", example)
            ).status

    assert {name: status for name, status in answers.items() if status != 404} == {}
    assert await shown(theirs, foreign) == before
    assert len(await lines(theirs, foreign)) == 3
    assert len(await lines(ours, own)) == 3


async def test_each_is_told_by_its_stream_of_all_that_became_of_its_own_and_of_nothing_else(
    both: Both,
) -> None:
    made: list[list[str]] = []
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(by_sse(await at.listen())) for at in both]
        for stream in streams:
            await stream.next("ready")
        for at, tenant in zip(both, TENANTS, strict=True):
            services = [service_of(tenant, 0), service_of(tenant, 1), service_of(tenant, 0)]
            ends_at = timestamp(at.clock.now() + ENDS_S)
            made.append(
                [await fire(at, f"A{place}", name, ends_at=ends_at) for place, name in enumerate(services)]
            )
            whole, part, _alone = made[-1]
            assert (await at.post(f"/v1/incidents/{whole}/merge", {"incident": part})).status == 200
            assert (await at.post(f"/v1/incidents/{whole}/comment", {"text": "looking"})).status == 200
        for at, its in zip(both, made, strict=True):
            for identity in its:
                async with asyncio.timeout(15):
                    while (await shown(at, identity))["state"] != "Resolved":
                        await asyncio.sleep(0.05)

        for at, its, stream in zip(both, made, streams, strict=True):
            wanted = {identity: await lines(at, identity) for identity in its}
            told: dict[str, list[tuple[object, object]]] = {}
            for _ in range(sum(map(len, wanted.values()))):
                message = await stream.next()
                told.setdefault(message["incident"]["id"], []).append((message["kind"], message["text"]))
            assert told == wanted


async def test_each_finds_its_own_in_the_archive(both: Both) -> None:
    made = [await fire(at, "Down", "api") for at in both]
    for at in both:
        await at.post("/v1/alerts", [{**alert("Down", "api"), "status": "resolved"}])
    both[0].clock.heard_s += 60.0
    shards = [both[0].cluster.get(name) for name in both[0].shards]

    def is_empty() -> bool:
        return not any(shard.shard.state.incidents for shard in shards if isinstance(shard, IncidentShard))

    await until(is_empty)
    for at, own, foreign in ((both[0], made[0], made[1]), (both[1], made[1], made[0])):
        assert (await shown(at, own))["state"] == "Closed"
        assert (await at.get(f"/v1/incidents/{foreign}")).status == 404
        assert (await at.get(f"/v1/incidents/{foreign}/alerts")).status == 404
        assert await listed(at, "?state=Closed") == {own}
        refused = await at.post(f"/v1/incidents/{foreign}/comment", {"text": "hello"})
        assert refused.status == 404


async def test_one_idempotency_key_of_both_names_two_requests(both: Both) -> None:
    headers = {"Idempotency-Key": "same"}
    for at in both:
        receipt = await at.post("/v1/alerts", [alert("Down", "api")], headers=headers)
        made = await at.post("/v1/incidents", {"service": "api", "title": "by hand"}, headers=headers)
        assert (receipt.items[0]["decision"], made.status) == ("opened", 201)

    assert [len(await listed(at)) for at in both] == [2, 2]


async def test_what_can_not_be_read_is_kept_under_whose_it_is(both: Both) -> None:
    for at in both:
        assert (await at.post("/v1/alerts", b"[")).status == 400

    letters = await both[0].letters(2)

    assert sorted(each.tenant for each in letters if isinstance(each, DeadLetter)) == sorted(TENANTS)


async def test_both_go_on_where_they_were_after_their_shard_was_killed(both: Both) -> None:
    made = [await fire(at, "Down", "api") for at in both]
    before = [await lines(at, identity) for at, identity in zip(both, made, strict=True)]

    for name in both[0].shards:
        await both[0].crash(name)
        await both[0].cluster.restart(name)
    await both[0].ready()

    assert [await lines(at, identity) for at, identity in zip(both, made, strict=True)] == before
    assert [await listed(at) for at in both] == [{each} for each in made]


async def test_a_silence_mutes_its_tenants_alerts_alone(both: Both) -> None:
    ours, theirs = both
    body = {"matchers": ['service="api"'], "duration": "1h", "force": True}
    answer = await ours.post("/v1/silences", body, headers={"Idempotency-Key": "same"})
    identity = answer.json["silence"]["id"]
    again = await theirs.post(
        "/v1/silences", {**body, "matchers": ['service="other"']}, headers={"Idempotency-Key": "same"}
    )
    made = [await fire(at, "Down", "api") for at in both]

    assert (answer.status, again.status) == (201, 201)
    assert identity not in (await theirs.get("/v1/silences")).body.decode()
    assert (await theirs.get(f"/v1/silences/{identity}")).status == 404
    assert (await theirs.request("DELETE", f"/v1/silences/{identity}", [b""], [])).status == 404
    async with asyncio.timeout(15):
        while not (await shown(ours, made[0]))["muted"]:
            await asyncio.sleep(0.05)
    assert (await shown(theirs, made[1]))["muted"] is None


async def states(at: System) -> dict[str, str]:
    """What Alertmanager's API says of each alert: active, or suppressed."""
    return {each["labels"]["alertname"]: each["status"]["state"] for each in await at.alerts()}


async def suppressed(at: System, name: str) -> None:
    async with asyncio.timeout(10):
        while (await states(at))[name] != "suppressed":
            await asyncio.sleep(0.05)


async def test_a_silence_is_seen_by_its_own_tenant_and_mutes_its_alerts_alone(both: Both) -> None:
    ours, theirs = both
    for at in both:
        await fire(at, "Down", "api")
    wanted = {"matchers": ['alertname="Down"'], "duration": "2h", "comment": "deploy", "force": True}

    made = await ours.post("/v1/silences", wanted)
    await suppressed(ours, "Down")

    path = made.headers["location"]
    assert await states(theirs) == {"Down": "active"}
    assert [len((await at.get("/v1/silences")).items) for at in both] == [1, 0]
    assert json.loads((await theirs.get("/api/v2/silences")).body) == []
    assert ((await ours.get(path)).status, (await theirs.get(path)).status) == (200, 404)
    assert (await theirs.request("DELETE", path, [b""], [])).status == 404


async def test_an_alert_inhibits_those_of_its_own_tenant_alone() -> None:
    rule = {"name": "away", "source": ["alertname=Away"], "target": ["alertname=Slow"]}
    async with system(inhibition={"rules": [rule]}) as ours, another_gateway(ours, OTHER) as theirs:
        await fire(ours, "Away", "api")
        for at in (ours, theirs):
            await fire(at, "Slow", "api")

        await suppressed(ours, "Slow")

        assert await states(theirs) == {"Slow": "active"}
