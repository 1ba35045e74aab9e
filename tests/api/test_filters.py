"""Filters of the settings: what they drop is accepted and counted, and what ends an alert always gets through."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
import websockets

from tests.api.gateway_in_process import System, alert, system
from tests.api.test_reload import reload

pytestmark = pytest.mark.asyncio

DEV = {"name": "no dev", "ignored_labels": ["env=dev"]}
INFO = {"name": "no info", "min_severity": "P3"}


def counted(ours: System, metric: str) -> dict[tuple[str, ...], float]:
    """A counter of the gateway by the values of its labels."""
    return {
        tuple(each.labels.values()): each.value
        for each in ours.gateway.meter.read().counters
        if each.name == metric
    }


def dropped(ours: System) -> dict[tuple[str, ...], float]:
    """How many alerts were dropped, by door, filter and reason."""
    return counted(ours, "llm_im_alerts_filtered_total")


async def followed(ours: System) -> None:
    """Once the gateway goes by what was reloaded."""
    await ours.gateway.station.look()


async def test_what_a_filter_drops_is_accepted_said_and_counted() -> None:
    async with system(ingest={"filters": [DEV, INFO]}) as ours:
        answer = await ours.post(
            "/v1/alerts",
            [alert("A", env="dev"), alert("B", severity="info"), alert("C", severity="warning"), alert("D")],
        )

        assert answer.status == 202
        assert {key: answer.json[key] for key in ("stored", "filtered", "refused", "failed")} == {
            "stored": 2, "filtered": 2, "refused": 0, "failed": 0,
        }  # fmt: skip
        said = [(each["status"], each["decision"], each["reason"]) for each in answer.items]
        assert said[:2] == [
            (202, "filtered", "dropped by the filter 'no dev': env=\"dev\" is ignored"),
            (202, "filtered", "dropped by the filter 'no info': P4 (info) is less severe than P3"),
        ]
        assert [each[1] for each in said[2:]] == ["opened", "opened"]
        assert await ours.names() == {"C", "D"}
        assert dropped(ours) == {
            ("v1", "no dev", "ignored_labels"): 1,
            ("v1", "no info", "min_severity"): 1,
        }


async def test_prometheus_is_told_nothing_and_sends_no_error_again(both_ways: str) -> None:
    async with system(ingest={"filters": [DEV]}) as ours:
        both = [alert("A", env="dev"), alert("B")]

        first = await ours.post("/api/v2/alerts", both)
        again = await ours.post("/api/v2/alerts", both)
        alone = await ours.post("/api/v2/alerts", both[:1])

        assert [(each.status, each.body) for each in (first, again, alone)] == [(200, b"")] * 3
        assert await ours.names() == {"B"}
        assert dropped(ours) == {("alertmanager", "no dev", "ignored_labels"): 3}


async def test_a_filter_is_for_its_format_and_its_token_only() -> None:
    falco = {"rule": "Shell", "output": "a shell", "priority": "Notice", "output_fields": {}}
    filters = [
        {"name": "quiet falco", "format": "falco", "min_severity": "P1"},
        {"name": "quiet ci", "token": "ci", "matchers": ['alertname=~".*"']},
    ]
    async with system(ingest={"filters": filters}) as ours:
        answers = [
            await ours.post("/v1/events/falco", falco),
            await ours.post("/v1/events", falco),
            await ours.post("/v1/alerts", alert("A", severity="info")),
        ]

        assert [each.items[0]["decision"] for each in answers] == ["filtered", "filtered", "opened"]


async def test_the_plans_section_filters_what_llm_sentinel_sends() -> None:
    def sent(level: str, **labels: str) -> dict[str, object]:
        return {
            "alert_id": f"a-{level}-{len(labels)}", "severity": level, "alert_type": "LatencySpike",
            "affected_services": ["llm-api"], "labels": labels, "description": "slow", "timestamp": 1_785_000_000_000,
        }  # fmt: skip

    filters = {"min_severity": "P3", "ignored_labels": ["env=dev"]}
    async with system(integrations={"llm_sentinel": {"filters": filters}}) as ours:
        answers = [
            await ours.post("/v1/events/llm-sentinel", each)
            for each in (sent("P4"), sent("P2", env="dev"), sent("P2"))
        ]

        assert [each.items[0]["decision"] for each in answers] == ["filtered", "filtered", "opened"], answers


async def test_alerts_in_frames_of_a_websocket_are_filtered_alike() -> None:
    async with system(ingest={"filters": [DEV]}) as ours:
        port = await ours.listen()
        async with websockets.connect(f"ws://127.0.0.1:{port}/v1/stream/alerts") as stream:
            await stream.recv()
            await stream.send(json.dumps({"id": 1, "alerts": [alert("A", env="dev"), alert("B")]}))
            answer = json.loads(await stream.recv())

        assert (answer["status"], answer["body"]["filtered"]) == (202, 1)
        assert await ours.names() == {"B"}


async def test_a_filter_that_comes_later_lets_the_end_of_what_is_open_through(ours: System) -> None:
    down = alert("Down", env="dev")
    await ours.post("/v1/alerts", down)
    assert (await reload(ours, {"ingest": {"filters": [DEV]}})).status == 200
    await followed(ours)

    again = await ours.post("/v1/alerts", down)
    ended = await ours.post("/v1/alerts", down | {"status": "resolved"})

    assert again.items[0]["decision"] == "filtered"
    assert ended.items[0]["decision"] == "resolved"
    assert await ours.names() == set()


async def test_the_end_of_what_was_dropped_is_no_error() -> None:
    async with system(ingest={"filters": [DEV]}) as ours:
        answer = await ours.post("/v1/alerts", alert("Down", env="dev") | {"status": "resolved"})

        assert (answer.status, answer.items[0]["decision"]) == (202, "unknown_resolve")


async def test_a_reload_takes_a_filter_away_again() -> None:
    async with system(ingest={"filters": [DEV]}) as ours:
        down = alert("Down", env="dev")
        assert (await ours.post("/v1/alerts", down)).items[0]["decision"] == "filtered"
        assert (await reload(ours, {})).status == 200
        await followed(ours)

        assert (await ours.post("/v1/alerts", down)).items[0]["decision"] == "opened"


async def test_what_a_filter_can_not_judge_in_time_is_not_dropped() -> None:
    costly = {"name": "costly", "ignored_labels": ['note=~"[ab]*a[ab]{14}"']}
    letters = "".join(random.Random(1).choices("ab", k=8000))
    async with system(ingest={"filters": [costly]}) as ours:
        cheap = await ours.post("/v1/alerts", alert("A", note="a" * 15))
        dear = await asyncio.wait_for(
            ours.post("/v1/alerts", alert("A", note=f"{letters}a{letters[:14]}")), 5
        )

        assert [each.items[0]["decision"] for each in (cheap, dear)] == ["filtered", "opened"]


async def test_a_filter_for_a_format_that_there_is_not_is_refused(ours: System) -> None:
    answer = await reload(ours, {"ingest": {"filters": [DEV | {"format": "falcon"}]}})

    assert answer.status == 400
    assert "ingest.filters[0].format: there is no format 'falcon'" in answer.body.decode()
