"""GET /v1/stats: each figure is what docs/http-api.md says it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from services.api.v1 import statistics
from tests.api.gateway_in_process import System, alert
from tests.api.stand_in import NOW, StandIn, archived, handled, incident


async def stats(ours: System, query: str = "") -> dict[str, Any]:
    answer = await ours.get(f"/v1/stats{query}")
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


@pytest.mark.asyncio
async def test_open_incidents_are_counted_by_what_they_are_and_who_has_them(ours: System) -> None:
    sent = await ours.post(
        "/v1/alerts",
        [alert("A", "api"), alert("B", "api"), alert("C", "db"), alert("D", "db"), alert("D", "db")],
    )
    [a, b, c, d, _again] = [str(each["incident_id"]) for each in sent.items]
    await ours.post(f"/v1/incidents/{a}/acknowledge", {})
    await ours.post(f"/v1/incidents/{a}/reclassify", {"severity": "P0", "incident_type": "Data"})
    await ours.post(f"/v1/incidents/{b}/assign", {"add": ["ana"]})
    await ours.post(f"/v1/incidents/{c}/assign", {"roles": {"scribe": "ana"}})
    await ours.post(f"/v1/incidents/{d}/resolve", {})

    found = await stats(ours)

    assert (found["open"], found["acknowledged"], found["unassigned"]) == (3, 1, 1)
    assert (found["by_state"]["Resolved"], sum(found["by_state"].values())) == (1, 4)
    assert (found["by_severity"]["P0"], sum(found["by_severity"].values())) == (1, 3)
    assert found["by_type"]["Data"] == 1
    assert found["by_service"] == [{"service": "api", "open": 2}, {"service": "db", "open": 1}]
    assert (found["opened"], found["resolved"], found["complete"]) == (4, 1, True)
    assert (found["time_to_acknowledge"]["count"], found["time_to_resolve"]["count"]) == (3, 1)
    assert (found["alerts"]["by_decision"], found["alerts"]["dedup_ratio"]) == (
        {"opened": 4, "repeated": 1},
        0.2,
    )


@pytest.mark.asyncio
async def test_filters_narrow_the_figures(ours: System) -> None:
    await ours.post("/v1/alerts", [alert("A", "api"), alert("C", "db")])

    assert (await stats(ours, "?service=db"))["by_service"] == [{"service": "db", "open": 1}]


@pytest.mark.asyncio
async def test_a_part_is_not_counted_beside_its_whole(ours: System) -> None:
    sent = await ours.post("/v1/alerts", [alert("A", "api"), alert("C", "db")])
    [whole, part] = [str(each["incident_id"]) for each in sent.items]
    await ours.post(f"/v1/incidents/{whole}/merge", {"incident": part})

    assert [(await stats(ours, query))["open"] for query in ("", "?merged=true")] == [1, 1]


@pytest.mark.asyncio
async def test_times_run_from_opening_to_the_first_answer_and_to_the_end(ours: System) -> None:
    sent = await ours.post("/v1/alerts", [alert("A", "api"), alert("B", "api")])
    for late_s, each in zip((100.0, 200.0), sent.items, strict=True):
        ours.clock.ahead_s += late_s
        await ours.post(f"/v1/incidents/{each['incident_id']}/acknowledge", {})
    ours.clock.ahead_s += 300.0
    await ours.post(f"/v1/incidents/{sent.items[0]['incident_id']}/resolve", {})

    found = await stats(ours)
    later = await stats(ours, "?window=200s")

    answered = found["time_to_acknowledge"]
    assert answered["count"] == 2
    assert (round(answered["p50_s"], -1), round(answered["p99_s"], -1)) == (100, 300)
    assert round(answered["mean_s"], -1) == 200
    assert (found["time_to_resolve"]["count"], round(found["time_to_resolve"]["mean_s"], -1)) == (1, 600)
    assert (later["time_to_acknowledge"]["count"], later["time_to_resolve"]["count"]) == (0, 1)


def test_what_closed_in_the_window_is_counted_from_the_archive() -> None:
    stand_in = StandIn()
    stand_in.clock.forward(1000)
    old = [
        handled(
            incident("a", number=n, at=NOW + n, resolved_at=NOW + n + 60, updated_at=NOW + n + 60),
            answered_at=NOW + n + 30,
        )
        for n in range(5)
    ]
    asyncio.run(stand_in.archive.put([archived(each) for each in old]))

    found = TestClient(stand_in.app()).get("/v1/stats").json()
    none = TestClient(stand_in.app()).get("/v1/stats?window=10s").json()

    assert (found["by_state"]["Closed"], found["opened"], found["resolved"]) == (5, 5, 5)
    assert (found["time_to_resolve"]["mean_s"], found["time_to_acknowledge"]["p90_s"]) == (60.0, 30.0)
    assert (none["by_state"]["Closed"], none["time_to_resolve"]["mean_s"]) == (0, None)


def test_more_in_the_archive_than_is_counted_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "ARCHIVED_MAX", 2)
    monkeypatch.setattr(statistics, "_PAGE", 2)
    stand_in = StandIn()
    asyncio.run(stand_in.archive.put([archived(incident("a", number=n)) for n in range(5)]))

    found = TestClient(stand_in.app()).get("/v1/stats").json()

    assert (found["complete"], found["by_state"]["Closed"]) == (False, 2)


@pytest.mark.parametrize("window", ["0s", "93d", "1", "-1h", "forever", "1e3s", "9" * 50 + "d"])
def test_a_window_that_is_none_is_400_and_named(window: str) -> None:
    answer = TestClient(StandIn().app()).get(f"/v1/stats?window={window}")

    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["errors"]] == ["window"]
