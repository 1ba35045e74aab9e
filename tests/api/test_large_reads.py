"""GET /api/v2/alerts and its groups hold little in memory, however large the answer; what comes is whole, or no 200."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from models.errors import Unavailable
from models.incidents.query import AlertPage, ListAlerts, decode_answer, encode
from models.incidents.views import PAGE_BYTES_MAX
from services.api import spool
from services.api.alertmanager import reads as alertmanager
from services.api.spool import MEMORY_BYTES, Spool
from tests.api.gateway_in_process import System, system


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def large() -> AsyncIterator[System]:
    """Eighty alerts of 200 kB over both shards, and twenty common ones: far more than memory holds of an answer."""
    async with system() as ours:
        for number in range(100):
            text = {f"l{each}": f"{number % 7}" + "x" * 13_000 for each in range(15)} if number % 5 else {}
            labels = {"alertname": f"A{number}", "service": "db" if number % 2 else "api", **text}
            answer = await ours.post("/v1/alerts", {"labels": labels})
            assert answer.status == 202, answer
        yield ours


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    gc.collect()
    assert Spool._waiting == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_an_answer_larger_than_memory_should_hold_is_whole_and_in_order(large: System) -> None:
    answer = await large.get("/api/v2/alerts")

    assert answer.status == 200
    assert len(answer.body) > 1.5 * MEMORY_BYTES
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert answer.headers["content-type"] == "application/json"
    prints = [each["fingerprint"] for each in json.loads(answer.body)]
    assert len(prints) == 100
    assert prints == sorted(prints)


@pytest.mark.asyncio(loop_scope="module")
async def test_groups_of_such_an_answer_are_whole_too(large: System) -> None:
    answer = await large.get("/api/v2/alerts/groups")

    assert answer.status == 200
    assert int(answer.headers["content-length"]) == len(answer.body)
    groups = json.loads(answer.body)
    assert [len(group["alerts"]) for group in groups] == [1] * 100
    assert groups[0]["receiver"] == {"name": "llm-im"}
    assert {group["labels"]["alertname"] for group in groups} == {f"A{number}" for number in range(100)}


@pytest.mark.asyncio(loop_scope="module")
async def test_no_page_of_a_shard_is_much_larger_than_its_bound(large: System) -> None:
    after, pages = -1, 0
    while True:
        found = await large.gateway._ask(0, encode(ListAlerts("default", after)))
        page = decode_answer(found)
        assert isinstance(page, AlertPage)
        assert len(found) < 2 * PAGE_BYTES_MAX
        pages += 1
        if page.next_after is None:
            break
        after = page.next_after
    assert pages > 1


@pytest.mark.asyncio(loop_scope="module")
async def test_the_lists_of_v1_go_on_over_short_pages(large: System) -> None:
    found, cursor = [], ""
    while True:
        page = json.loads((await large.get(f"/v1/alerts?limit=1000{cursor}")).body)
        found += page["items"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    listed = json.loads((await large.get("/v1/incidents?limit=1000")).body)

    assert len({each["fingerprint"] for each in found}) == len(found) == 100
    assert len(listed["items"]) == 100 or listed["next"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_shard_that_fails_half_way_makes_it_no_list(
    large: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, asked = large.gateway.reads.asking._ask, 0

    async def fails(shard: int, query: bytes) -> bytes:
        nonlocal asked
        asked += 1
        if asked > 3:
            raise Unavailable("it went away")
        return await ask(shard, query)

    monkeypatch.setattr(large.gateway.reads.asking, "_ask", fails)
    for path in ("/api/v2/alerts", "/api/v2/alerts/groups"):
        asked = 0
        answer = await large.get(path)
        assert answer.status == 503
        assert b"it went away" in answer.body


@pytest.mark.asyncio(loop_scope="module")
async def test_an_answer_past_every_bound_is_refused(large: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "ANSWER_BYTES_MAX", MEMORY_BYTES)
    assert (await large.get("/api/v2/alerts")).status == 400
    monkeypatch.undo()
    monkeypatch.setattr(spool, "ANSWERS_BYTES_MAX", MEMORY_BYTES)
    busy = await large.get("/api/v2/alerts")
    assert busy.status == 503
    assert "retry-after" in busy.headers
    monkeypatch.undo()
    monkeypatch.setattr(alertmanager, "ORDER_BYTES_MAX", 1000)
    assert (await large.get("/api/v2/alerts/groups")).status == 400


@pytest.mark.asyncio(loop_scope="module")
async def test_many_at_once_are_all_whole(large: System) -> None:
    answers = await asyncio.gather(
        *[large.get("/api/v2/alerts?filter=alertname=~A[0-4].*") for _ in range(4)]
    )

    assert {answer.body for answer in answers} == {answers[0].body}
    assert len(json.loads(answers[0].body)) == 45
