"""Heartbeats over HTTP: made, beaten, missed, and what an alert that is a beat does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.api.gateway_in_process import (
    FIRST_SHARD_SERVICE,
    SECOND_SHARD_SERVICE,
    MemoryStores,
    Reply,
    System,
    alert,
    another_gateway,
    system,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/heartbeats"
#: Nobody waits so long: a condition that does not come about fails the test.
PATIENCE_S = 10.0
HOUR = 3600.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ours() -> AsyncIterator[System]:
    async with system() as started:
        yield started


async def send(ours: System, method: str, path: str, body: object = None, **headers: str) -> Reply:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if body is not None and "content_type" not in headers:
        sent.append((b"content-type", b"application/json"))
    return await ours.request(method, path, [data], sent)


async def make(ours: System, name: str, **fields: object) -> dict[str, Any]:
    body = {"interval": "1h", "grace": "1m", "service": FIRST_SHARD_SERVICE, "severity": "P1", **fields}
    answer = await send(ours, "PUT", f"{PATH}/{name}", body, x_actor="ada")
    assert answer.status in (200, 201), answer
    found: dict[str, Any] = answer.json
    return found


async def shown(ours: System, name: str) -> dict[str, Any]:
    answer = await ours.get(f"{PATH}/{name}")
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json
    return found


async def beat(ours: System, name: str) -> None:
    answer = await send(ours, "GET", f"{PATH}/{name}/beat")
    assert (answer.status, answer.body) == (200, b"OK\n"), answer


async def until(
    ours: System, name: str, holds: Callable[[dict[str, Any]], bool], *, fast: bool = False
) -> dict[str, Any]:
    """`fast`: the clock runs twenty times faster meanwhile, and everybody is heard."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds(found := await shown(ours, name)):
            if fast:
                # More at once would count as a gap.
                ours.clock.heard_s += 4.0
            await asyncio.sleep(0.2 if fast else 0.02)
    return found


async def test_one_is_made_shown_listed_changed_and_deleted(ours: System) -> None:
    made = await make(ours, "crud", runbook="https://r/1", labels={"team": "db"})
    changed = await make(ours, "crud", interval="2h")
    listed = (await ours.get(f"{PATH}?state=new")).items
    gone = await send(ours, "DELETE", f"{PATH}/crud")
    after = await ours.get(f"{PATH}/crud")

    assert (made["state"], made["interval"], made["grace"], made["changed_by"]) == ("new", "1h", "1m", "ada")
    assert (made["runbook"], made["labels"], made["last_beat_at"], made["due_at"]) == ("https://r/1", {"team": "db"}, None, None)  # fmt: skip
    assert changed["interval"] == "2h" and changed["runbook"] == ""
    assert [each["name"] for each in listed] == ["crud"]
    assert (gone.status, after.status) == (204, 404)


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("a b", {"interval": "1h"}, "name: expected"),
        ("x", {}, "interval"),
        ("x", {"interval": "soon"}, "interval"),
        ("x", {"interval": "1s"}, "interval: expected 5s to 366d"),
        ("x", {"interval": "1h", "matchers": ["severity!=none"]}, "at least one must not match"),
        ("x", {"interval": "1h", "every": "1h"}, "every"),
        ("x", {"interval": "1h", "labels": {"alertname": "x"}}, "labels"),
    ],
)
async def test_what_is_wrong_is_said(ours: System, name: str, body: object, words: str) -> None:
    answer = await send(ours, "PUT", f"{PATH}/{name.replace(' ', '%20')}".replace("%20", " "), body)

    assert answer.status == 400 and words in answer.body.decode()


async def test_a_beat_can_come_in_any_way_that_a_job_has(ours: System) -> None:
    await make(ours, "ways")
    for method, path, body, headers in (
        ("GET", f"{PATH}/ways/beat", None, {}),
        ("HEAD", f"{PATH}/ways/beat", None, {}),
        ("POST", f"{PATH}/ways/beat", None, {}),
        ("POST", f"{PATH}/ways/beat", b"took 3 s", {"content_type": "application/x-www-form-urlencoded"}),
        ("POST", f"{PATH}/beat", {"heartbeats": ["ways"]}, {}),
    ):
        answer = await send(ours, method, path, body, **headers)
        assert answer.status == 200, (method, path, answer)
    ping = await send(ours, "GET", "/v2/heartbeats/ways/ping")

    found = await shown(ours, "ways")
    assert (ping.status, ping.json["result"]) == (202, "PONG - Heartbeat received")
    assert (
        found["state"] == "up"
        and found["last_beat_at"] is not None
        and found["due_at"] > found["last_beat_at"]
    )


async def test_a_beat_of_what_there_is_not_is_404_and_no_dead_letter(ours: System) -> None:
    answers = [
        await send(ours, "GET", f"{PATH}/nobody/beat"),
        await send(ours, "POST", f"{PATH}/beat", {"heartbeats": ["nobody"]}),
        await send(ours, "GET", "/v2/heartbeats/nobody/ping"),
    ]

    assert [each.status for each in answers] == [404, 404, 404]
    assert "llm-im heartbeats set" in answers[0].json["detail"]
    assert await ours.letters(0) == []


async def test_other_methods_are_refused_by_name(ours: System) -> None:
    answer = await send(ours, "DELETE", f"{PATH}/ways/beat")

    assert answer.status == 405 and answer.headers["allow"] == "GET,HEAD,POST"


async def test_one_made_by_another_gateway_is_known_at_once() -> None:
    async with system() as ours, another_gateway(ours) as other:
        await make(ours, "elsewhere")

        await beat(other, "elsewhere")


async def test_it_is_missed_and_returns_and_everybody_hears_of_it() -> None:
    async with system() as ours:
        await make(
            ours, "backup", service=SECOND_SHARD_SERVICE, labels={"team": "db"}, interval="15s", grace="1s"
        )
        await beat(ours, "backup")

        missed = await until(ours, "backup", lambda found: found["state"] == "missed", fast=True)
        incident = (await ours.get(f"/v1/incidents/{missed['incident_id']}")).json
        assert incident["title"] == f"Heartbeat backup is missed ({SECOND_SHARD_SERVICE})"
        assert (incident["service"], incident["labels"]["team"]) == (SECOND_SHARD_SERVICE, "db")
        assert missed["missed_at"] is not None

        await beat(ours, "backup")
        after = (await ours.get(f"/v1/incidents/{missed['incident_id']}")).json
        assert after["state"] == "Resolved"
        assert (await shown(ours, "backup"))["state"] == "up"


async def test_a_failure_opens_an_incident_with_what_the_job_says() -> None:
    async with system() as ours:
        await make(ours, "job")
        answer = await send(ours, "POST", f"{PATH}/job/fail", b"exit status 2", content_type="text/plain")

        found = await shown(ours, "job")
        incident = (await ours.get(f"/v1/incidents/{found['incident_id']}")).json
        assert (answer.status, found["state"]) == (200, "missed")
        assert incident["description"] == "exit status 2"

        paused = await send(ours, "POST", f"{PATH}/job/pause")
        assert paused.json["state"] == "paused"
        await until(ours, "job", lambda found: found["incident_id"] is None)
        resumed = await send(ours, "POST", f"{PATH}/job/resume")
        assert resumed.json["state"] in ("up", "late")


async def test_deleting_it_resolves_its_incident() -> None:
    async with system() as ours:
        await make(ours, "job")
        await send(ours, "POST", f"{PATH}/job/fail")
        identity = (await shown(ours, "job"))["incident_id"]

        await send(ours, "DELETE", f"{PATH}/job")

        async with asyncio.timeout(PATIENCE_S):
            while (await ours.get(f"/v1/incidents/{identity}")).json["state"] != "Resolved":
                await asyncio.sleep(0.02)


async def test_the_shard_of_its_former_service_misses_it_no_more() -> None:
    async with system() as ours:
        await make(ours, "job", interval="20s", grace="0s")
        await send(ours, "POST", f"{PATH}/job/fail")
        identity = (await shown(ours, "job"))["incident_id"]

        await make(ours, "job", interval="1h", service=SECOND_SHARD_SERVICE)
        await beat(ours, "job")

        async with asyncio.timeout(PATIENCE_S):
            while (await ours.get(f"/v1/incidents/{identity}")).json["state"] != "Resolved":
                await asyncio.sleep(0.02)
        for _look in range(10):
            ours.clock.heard_s += 4.0
            await asyncio.sleep(0.1)
        assert [each["state"] for each in (await ours.get("/v1/incidents")).items] == ["Resolved"]


async def test_nothing_is_missed_because_we_were_away() -> None:
    stores = MemoryStores()
    async with system(stores) as before:
        await make(before, "backup")
        await beat(before, "backup")
        clock = before.clock

    clock.heard_s += 3 * HOUR
    async with system(stores, clock=clock, lifecycle={"expiry_grace": "1s"}) as ours:
        await ours.ready()
        clock.heard_s += 4.0
        await asyncio.sleep(0.5)
        assert (await shown(ours, "backup"))["state"] == "up"

        await make(ours, "backup", interval="20s", grace="0s")
        await until(ours, "backup", lambda found: found["state"] == "missed", fast=True)


async def test_a_killed_shard_knows_what_was_heard() -> None:
    async with system() as ours:
        await make(ours, "backup")
        await beat(ours, "backup")
        last = (await shown(ours, "backup"))["last_beat_at"]

        for name in ours.shards:
            await ours.crash(name)
            await ours.cluster.restart(name)
        await ours.ready()
        assert (await shown(ours, "backup"))["last_beat_at"] == last


async def test_the_settings_have_some_which_people_pause_and_do_not_change() -> None:
    expected = [{"name": "backup", "interval": "1d", "service": "db", "matchers": ["alertname=Backup"]}]
    async with system(heartbeats={"expected": expected}) as ours:
        async with asyncio.timeout(PATIENCE_S):
            while (await ours.get(f"{PATH}/backup")).status == 404:
                await asyncio.sleep(0.05)

        found = await shown(ours, "backup")
        changed = await send(ours, "PUT", f"{PATH}/backup", {"interval": "1h"})
        deleted = await send(ours, "DELETE", f"{PATH}/backup")
        paused = await send(ours, "POST", f"{PATH}/backup/pause")

        assert (found["interval"], found["service"], found["from_settings"]) == ("1d", "db", True)
        assert found["matchers"] == ['alertname="Backup"']
        assert (changed.status, deleted.status, paused.json["state"]) == (409, 409, "paused")
        assert "heartbeats.expected" in changed.json["detail"]


# -- alerts that are beats --


WATCHDOG = alert("Watchdog", "prometheus", severity="none")


async def test_an_alert_that_matches_is_a_beat_and_no_incident() -> None:
    async with system() as ours:
        await make(ours, "prometheus", matchers=["alertname=Watchdog"])

        both = await ours.post("/v1/alerts", [WATCHDOG, alert("Down")])
        many = await ours.post("/api/v2/alerts", [WATCHDOG])
        found = await shown(ours, "prometheus")

        assert [each["decision"] for each in both.items] == ["filtered", "opened"]
        assert both.items[0]["reason"] == "it is the beat of prometheus"
        assert (both.status, both.items[0]["incident_id"], many.status) == (202, None, 200)
        assert await ours.names() == {"Down"}
        assert found["state"] == "up" and found["last_beat_at"] is not None


async def test_an_alert_that_has_ended_is_no_beat() -> None:
    async with system() as ours:
        await make(ours, "prometheus", matchers=["alertname=Watchdog"])

        answer = await ours.post("/v1/alerts", [{**WATCHDOG, "status": "resolved"}])

        assert answer.items[0]["decision"] == "unknown_resolve"
        assert (await shown(ours, "prometheus"))["state"] == "new"


async def test_the_answered_at_once_way_takes_beats_out_too(both_ways: str) -> None:
    async with system() as ours:
        for _ in range(3):
            await ours.post("/api/v2/alerts", [alert("Down")])
        await make(ours, "prometheus", matchers=["alertname=Watchdog"])
        for _ in range(3):
            answer = await ours.post("/api/v2/alerts", [WATCHDOG])
            assert answer.status == 200

        assert await ours.names() == {"Down"}
        assert (await shown(ours, "prometheus"))["state"] == "up"


async def test_a_beat_that_no_shard_takes_is_sent_again() -> None:
    async with system(server={"hold": 0.2}) as ours:
        await make(ours, "prometheus", matchers=["alertname=Watchdog"])
        for name in ours.shards:
            await ours.crash(name)

        alerted = await ours.post("/api/v2/alerts", [WATCHDOG])
        beaten = await send(ours, "GET", f"{PATH}/prometheus/beat")

        assert (alerted.status, beaten.status) == (503, 503)
        assert beaten.headers["retry-after"] == "1"
