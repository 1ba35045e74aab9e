"""/v1/analytics: figures and rows over shards and archive, bounded, by the filters of all lists."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from models.alerts import matchers, patterns
from models.incidents.filters import IncidentFilter
from models.incidents.incident import Resolution
from services.analytics import gather
from services.api.v1 import analytics, statistics
from services.times import timestamp
from tests.api.for_verbs import opened
from tests.api.gateway_in_process import System, alert
from tests.api.stand_in import AWAY, NOW, StandIn, archived, handled, incident


async def figures(ours: System, query: str = "") -> dict[str, Any]:
    answer = await ours.get(f"/v1/analytics/incidents{query}")
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json
    return found


@pytest.mark.asyncio
async def test_incidents_of_all_shards_are_counted_by_what_was_done_about_them(ours: System) -> None:
    one, _two, three = (
        await opened(ours, "api", alerts=2),
        await opened(ours, "api"),
        await opened(ours, "db"),
    )
    ours.clock.ahead_s += 100.0
    await ours.post(f"/v1/incidents/{one}/acknowledge", {})
    ours.clock.ahead_s += 100.0
    await ours.post(f"/v1/incidents/{one}/resolve", {})
    await ours.post(f"/v1/incidents/{three}/label", {"set": {"team": "data"}})

    found = await figures(ours, "?by=service")
    teams = await figures(ours, "?by=label&label=team")
    narrowed = await figures(ours, "?service=db")

    total = found["total"]
    assert (total["incidents"], total["over"], total["answered"], total["alerts"]) == (3, 1, 1, 4)
    assert (total["noise"], total["noise_share"], total["alerts_per_incident"]) == (0, 0.0, 1.33)
    assert round(total["time_to_acknowledge"]["p50_s"], -1) == 100
    assert round(total["time_to_resolve"]["mean_s"], -1) == 200
    assert [(each["key"], each["incidents"]) for each in found["groups"]] == [("api", 2), ("db", 1)]
    assert [(each["key"], each["incidents"]) for each in teams["groups"]] == [("", 2), ("data", 1)]
    assert (narrowed["total"]["incidents"], narrowed["groups"]) == (1, [])
    assert found["complete"] is True


@pytest.mark.asyncio
async def test_when_it_began_is_known_from_the_alert_that_opened_it(ours: System) -> None:
    def starting(name: str, ago_s: float) -> dict[str, Any]:
        at = timestamp(ours.clock.now() - ago_s)
        return {**alert(name, "api"), "starts_at": at}

    sent = await ours.post(
        "/v1/alerts", [starting("A", 90.0), starting("B", -60.0), alert("C", "api"), starting("A", 500.0)]
    )
    assert sent.status == 202, sent

    rows = {each["labels"]["alertname"]: each for each in (await ours.get("/v1/analytics/rows")).items}
    shown = (await ours.get(f"/v1/incidents/{rows['A']['id']}")).json
    found = (await figures(ours))["total"]["time_to_detect"]

    assert 90 <= rows["A"]["detect_s"] < 100
    assert rows["B"]["detect_s"] is None  # its sender's clock is ahead
    assert rows["C"]["detect_s"] is None
    assert shown["began_at"] < shown["created_at"]
    assert (found["count"], found["p50_s"]) == (1, rows["A"]["detect_s"])


def _closed(number: int, seconds: float) -> Any:
    one = incident("a", number=number, at=NOW + number, resolved_at=NOW + number + seconds)
    one.resolution = Resolution(one.resolved_at, "system", "Automated", "")
    return handled(one, answered_at=NOW + number + 30)


def test_what_closed_is_counted_from_the_archive_and_nothing_twice() -> None:
    stand_in = StandIn()
    stand_in.clock.forward(1000)
    closed = [_closed(number, 60.0) for number in range(5)]
    # On its way: in the archive, and still in its shard.
    stand_in.incidents.append(closed[0])
    asyncio.run(stand_in.archive.put([archived(each) for each in closed]))
    client = TestClient(stand_in.app())

    found = client.get("/v1/analytics/incidents").json()["total"]
    none = client.get("/v1/analytics/incidents?window=10s").json()["total"]

    assert (found["incidents"], found["over"]) == (5, 5)
    assert (found["time_to_resolve"]["mean_s"], found["time_to_acknowledge"]["p90_s"]) == (60.0, 30.0)
    assert (none["incidents"], none["time_to_resolve"]["mean_s"], none["noise_share"]) == (0, None, None)


def test_more_than_are_counted_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "ROWS_MAX", 2)
    monkeypatch.setattr(gather, "PAGE", 2)
    stand_in = StandIn(page=2)
    stand_in.clock.forward(1000)
    asyncio.run(stand_in.archive.put([archived(_closed(number, 1.0)) for number in range(5)]))

    found = TestClient(stand_in.app()).get("/v1/analytics/incidents").json()

    assert (found["complete"], found["total"]["incidents"]) == (False, 2)


def test_a_pattern_that_a_page_can_afford_all_of_them_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its steps are bounded by is the page: a large archive is no reason to refuse it."""
    monkeypatch.setattr(matchers, "Budget", partial(patterns.Budget, work_max=150))
    monkeypatch.setattr(gather, "PAGE", 2)
    monkeypatch.setattr(statistics, "_PAGE", 2)
    stand_in = StandIn()
    stand_in.clock.forward(1000)
    closed = [
        msgspec.structs.replace(_closed(number, 1.0), labels={"team": f"{number:03}-" * 8})
        for number in range(40)
    ]
    asyncio.run(stand_in.archive.put([archived(each) for each in closed]))
    client = TestClient(stand_in.app())

    found = client.get('/v1/analytics/incidents?match=team=~".*9-.*"')
    stats = client.get('/v1/stats?match=team=~".*9-.*"')

    assert (found.status_code, stats.status_code) == (200, 200), (found.text, stats.text)
    assert found.json()["total"]["incidents"] == stats.json()["by_state"]["Closed"] == 4


@pytest.mark.asyncio
async def test_of_each_incident_only_what_is_counted_is_held() -> None:
    """50,000 of them are: their labels may be a hundred times as large."""
    stand_in = StandIn()
    labels = {"team": "x", "text": "y" * 10_000}
    stand_in.incidents += [incident("a", number=1, labels=labels), incident("b", number=2, labels={})]
    await stand_in.archive.put([archived(incident("c", number=3, labels=labels))])

    rows = (await gather.gather(stand_in.reads.asking, IncidentFilter(), "team")).items
    plain = (await gather.gather(stand_in.reads.asking, IncidentFilter())).items

    assert {each.service: each.labels for each in rows} == {"a": {"team": "x"}, "b": {}, "c": {"team": "x"}}
    assert {each.title for each in rows} == {""}
    assert [each.labels for each in plain] == [{}, {}, {}]


def test_groups_past_the_limit_are_counted() -> None:
    stand_in = StandIn()
    stand_in.clock.forward(1000)
    stand_in.incidents += [incident(f"s{number}", number=number) for number in range(5)]

    found = TestClient(stand_in.app()).get("/v1/analytics/incidents?by=service&limit=2").json()

    assert (len(found["groups"]), found["other_groups"], found["total"]["incidents"]) == (2, 3, 5)


def test_rows_come_in_pages_that_join() -> None:
    stand_in = StandIn(page=2)
    stand_in.incidents += [incident(f"s{number}", number=number, at=NOW + number) for number in range(3)]
    asyncio.run(stand_in.archive.put([archived(_closed(number, 60.0)) for number in range(3, 6)]))
    client = TestClient(stand_in.app())

    rows: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = client.get(f"/v1/analytics/rows?limit=2{cursor}").json()
        rows += page["items"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"

    assert [each["service"] for each in rows] == ["a", "a", "a", "s2", "s1", "s0"]
    assert (rows[0]["resolve_s"], rows[0]["acknowledge_s"], rows[0]["answered"]) == (60.0, 30.0, True)
    assert rows[-1]["resolved_at"] is None


@pytest.mark.parametrize(
    ("query", "field"),
    [("?window=93d", "window"), ("?window=0s", "window"), ("?by=moon", "by"), ("?by=label", "label"), ("?label=team", "label"),
     ("?limit=0", "limit"), ("?state=x", "state.0"), ("?other=1", "other")],
)  # fmt: skip
def test_a_wrong_parameter_is_named(query: str, field: str) -> None:
    answer = TestClient(StandIn().app()).get(f"/v1/analytics/incidents{query}")

    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["errors"]] == [field]


def test_a_shard_that_cannot_answer_is_named() -> None:
    stand_in = StandIn(silent={1: AWAY})

    answer = TestClient(stand_in.app()).get("/v1/analytics/incidents")

    assert answer.status_code == 503
    assert "shard" in answer.json()["detail"]


def test_only_so_many_are_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analytics, "AT_ONCE", 0)

    answer = TestClient(StandIn().app()).get("/v1/analytics/incidents")

    assert answer.status_code == 503 and answer.headers["retry-after"]


def test_a_child_is_not_counted_beside_its_parent() -> None:
    stand_in = StandIn()
    stand_in.clock.forward(10)
    parent = incident("a")
    child = handled(incident("b", number=1), merged_into=parent.id)
    stand_in.incidents += [parent, msgspec.structs.replace(child)]
    client = TestClient(stand_in.app())

    assert [
        client.get(f"/v1/analytics/incidents{query}").json()["total"]["incidents"]
        for query in ("", "?merged=true")
    ] == [1, 2]
