"""From a silence to muted: through Alertmanager's API and ours, over two shards, with crashes, and inhibition between shards."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.api.gateway_in_process import FIRST_SHARD_SERVICE, SECOND_SHARD_SERVICE, System, alert, system

pytestmark = pytest.mark.asyncio

RULE = {"name": "down", "source": ["alertname=Down"], "target": ["alertname!=Down"], "equal": ["cluster"]}


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[str, list[dict[str, object]]]]:
    """A webhook's receiver: its URL and the bodies it got."""
    got: list[dict[str, object]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        got.append(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", got
    finally:
        server.close()


def settings(url: str, **more: object) -> dict[str, object]:
    quick = dict.fromkeys(("P0", "P1", "P2", "P3", "P4"), "0s")
    return {
        "notify": {"webhook": {"url": url}, "wait": quick, "interval": "0s"},
        "inhibition": {"rules": [RULE]},
        **more,
    }


async def silence(ours: System, *matchers: str, duration: str = "1h") -> str:
    body = {"matchers": list(matchers), "duration": duration, "comment": "test", "force": True}
    answer = await ours.post("/v1/silences", body)
    assert answer.status == 201, answer
    return str(answer.json["silence"]["id"])


async def until(wanted: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not wanted():
            await asyncio.sleep(0.02)


async def states(ours: System, query: str = "") -> dict[str, tuple[str, list[str], list[str]]]:
    return {
        f"{each['labels']['service']} {each['labels']['alertname']}": (
            each["status"]["state"], each["status"]["silencedBy"], each["status"]["inhibitedBy"],
        )
        for each in await ours.alerts(query)
    }  # fmt: skip


def told(got: list[dict[str, object]]) -> list[tuple[str, str]]:
    return [(str(each["commonLabels"]["service"]), str(each["incident"]["reason"])) for each in got]  # type: ignore[index]


async def test_what_is_silenced_is_told_to_nobody_shown_as_muted_and_told_when_that_ends() -> None:
    async with receiver() as (url, got), system(**settings(url)) as ours:  # type: ignore[arg-type]
        identity = await silence(ours, f"service={FIRST_SHARD_SERVICE}")
        began = time.monotonic()
        await asyncio.sleep(0.6)
        await ours.post(
            "/api/v2/alerts", [alert("Slow", FIRST_SHARD_SERVICE), alert("Slow", SECOND_SHARD_SERVICE)]
        )
        await until(lambda: bool(got))
        await asyncio.sleep(0.3)

        assert told(got) == [(SECOND_SHARD_SERVICE, "opened")], time.monotonic() - began
        assert await states(ours) == {
            f"{FIRST_SHARD_SERVICE} Slow": ("suppressed", [identity], []),
            f"{SECOND_SHARD_SERVICE} Slow": ("active", [], []),
        }
        assert list(await states(ours, "?silenced=false")) == [f"{SECOND_SHARD_SERVICE} Slow"]
        assert list(await states(ours, "?active=false")) == [f"{FIRST_SHARD_SERVICE} Slow"]
        groups = (await ours.get("/api/v2/alerts/groups?muted=false")).json
        assert [each["labels"]["service"] for each in groups] == [SECOND_SHARD_SERVICE]
        (incident,) = (await ours.get(f"/v1/incidents?service={FIRST_SHARD_SERVICE}")).items
        muted = incident["muted"]
        assert (muted["is_muted"], muted["withheld"]) == (True, "opened")
        assert [(each["silence"], each["comment"]) for each in muted["by"]] == [(identity, "test")]

        await ours.request("DELETE", f"/api/v2/silence/{identity}", [b""], [])
        await until(lambda: len(got) == 2, 2.0)
        assert told(got)[1] == (FIRST_SHARD_SERVICE, "opened")


async def test_a_silence_mutes_also_after_a_crash_of_its_shard_and_lets_go_when_its_time_is_over() -> None:
    async with receiver() as (url, got), system(**settings(url)) as ours:  # type: ignore[arg-type]
        await silence(ours, f"service={FIRST_SHARD_SERVICE}", duration="4s")
        await ours.crash(ours.shards[0])
        await ours.cluster.restart(ours.shards[0])
        await ours.ready()
        answer = await ours.post("/api/v2/alerts", [alert("Slow", FIRST_SHARD_SERVICE)])
        assert answer.status == 200
        await asyncio.sleep(1.0)
        assert got == []

        await until(lambda: bool(got), 6.0)
        assert told(got) == [(FIRST_SHARD_SERVICE, "opened")]


async def test_an_alert_of_one_shard_mutes_those_of_another_while_it_fires() -> None:
    async with receiver() as (url, got), system(**settings(url)) as ours:  # type: ignore[arg-type]
        down = alert("Down", FIRST_SHARD_SERVICE, cluster="eu")
        await ours.post("/api/v2/alerts", [down])
        await until(lambda: bool(got))
        await asyncio.sleep(0.5)
        await ours.post("/api/v2/alerts", [alert("Slow", SECOND_SHARD_SERVICE, cluster="eu")])
        await asyncio.sleep(0.5)

        found = await states(ours)
        assert found[f"{SECOND_SHARD_SERVICE} Slow"][0] == "suppressed"
        assert len(found[f"{SECOND_SHARD_SERVICE} Slow"][2]) == 1
        assert told(got) == [(FIRST_SHARD_SERVICE, "opened")]
        assert list(await states(ours, "?inhibited=false")) == [f"{FIRST_SHARD_SERVICE} Down"]

        await ours.post("/api/v2/alerts", [{**down, "endsAt": "2020-01-01T00:00:00Z"}])
        await until(lambda: (SECOND_SHARD_SERVICE, "opened") in told(got))
