"""Opsgenie's reads without its client: search queries, pages, tokens, and what is wrong in a request."""

from __future__ import annotations

import asyncio
import json
import time
from urllib.parse import quote, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import Malformed, TooLarge
from services.api.opsgenie import reads
from services.api.opsgenie.query import Alert, read_query
from tests.api.gateway_in_process import Reply, System, system
from tests.api.stand_in import StandIn
from tests.api.stand_in import alert as seen
from tests.api.test_format_doors import token

ALERT = Alert(
    id="3f",
    alias="Disk-7",
    message="Disk is full on db-7",
    description="95 % used",
    entity="db-7",
    source="cron",
    priority="P2",
    tags=["storage", "eu"],
    details={"region": "eu-1"},
    count=3,
    created_at=1_700_000_000.0,
    last_occurred_at=1_700_000_300.0,
    ended_at=0.0,
    sender="ci",
    closed_by="",
    incident_id=b"",
)


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("status:open", True),
        ("status : closed", False),
        ("tag:EU", True),
        ("tags = stor*", True),
        ("tag:stor", False),
        ("alias:Disk-7 AND priority:P2", True),
        ("alias:disk-7", False),
        ("alias:Disk*", True),
        ("disk full", True),
        ('"is full"', True),
        ('"full is"', False),
        ('message:"disk is full on db-7"', True),
        ("NOT tag:us", True),
        ("NOT (tag:us OR tag:eu)", False),
        ("tag:us OR tag:eu AND priority:P1", False),
        ("(tag:us OR tag:eu) AND priority:P2", True),
        ("createdAt > 1699999999999 AND createdAt<=1700000000000", True),
        ("lastOccurredAt < 1700000000000", False),
        ("count >= 3", True),
        ("details.key: region details.value: eu-1", True),
        ("acknowledged:false", True),
        ("owner:*", True),
        ("", True),
    ],
)
def test_a_query_asks_for_what_opsgenies_would(query: str, holds: bool) -> None:
    assert read_query(query).test(ALERT) is holds


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("teams:llm", "teams is not supported here; supported are acknowledged"),
        ("(status:open", r"a \( without its \)"),
        ("status:open)", r"a \) without its \("),
        ("status:open AND", "expected a condition"),
        ("OR tag:x", "expected a condition"),
        ("count:many", "expected a number"),
        ("createdAt > 24-05-2017", "milliseconds"),
        ("status > open", "takes : or ="),
        ('message:"open', "cannot be read from"),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(query: str, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        read_query(query)


@given(st.text(alphabet='()":=<>* \nANDORNOTtag.', max_size=60))
def test_no_text_breaks_the_reader_of_queries(text: str) -> None:
    try:
        read_query(text).test(ALERT)
    except Malformed:
        pass


def test_no_query_takes_long() -> None:
    begun = time.process_time()
    for query in ("(" * 1000, "NOT " * 250, '"' * 999, "a:" * 500):
        with pytest.raises((Malformed, TooLarge)):
            read_query(query)
    with pytest.raises(TooLarge):
        read_query("a" * 1001)
    for query in ("message:" + "*a" * 400, '"' * 1000, "a " * 500, "tag:a OR " * 100 + "tag:a"):
        read_query(query).test(ALERT)
    assert time.process_time() - begun < 5


async def ask(ours: System, path: str, secret: str = "") -> Reply:
    return await ours.request("GET", path, [b""], [(b"authorization", f"GenieKey {secret}".encode())])


async def create(ours: System, **body: object) -> None:
    assert (await ours.post("/v2/alerts", body)).status == 202


@pytest.mark.asyncio
async def test_pages_join_and_lead_on() -> None:
    async with system() as ours:
        for number in range(7):
            await create(ours, message=f"m{number}", alias=f"a{number}")
        # Another format has a label of the same name.
        await ours.post("/v1/alerts", [{"labels": {"alertname": "x", "service": "y", "alert_id": "3f"}}])

        seen: list[str] = []
        path = "/v2/alerts?limit=3&sort=alias&order=asc&query=" + quote("status:open AND m")
        while path:
            page = (await ours.get(path)).json
            seen += [each["alias"] for each in page["data"]]
            after = page["paging"].get("next", "")
            path = after and f"{urlsplit(after).path}?{urlsplit(after).query}"

        assert seen == [f"a{number}" for number in range(7)]
        assert (await ours.get("/v2/alerts/count")).json["data"] == {"count": 7}


@pytest.mark.asyncio
async def test_what_was_closed_and_comes_again_is_one_alert_that_is_open() -> None:
    async with system() as ours:
        await create(ours, message="down", alias="a")
        closed = await ours.post("/v2/alerts/a/close?identifierType=alias", {"user": "ann"})
        gone = (await ours.get("/v2/alerts/a?identifierType=alias")).json["data"]
        await create(ours, message="down", alias="a")
        again = (await ours.get("/v2/alerts")).json["data"]

        assert closed.status == 202
        assert (gone["status"], gone["report"]["closedBy"], gone["message"]) == ("closed", "ann", "down")
        assert [(each["status"], each["alias"]) for each in again] == [("open", "a")]


@pytest.mark.asyncio
async def test_reading_needs_the_scope_for_it_and_errors_have_opsgenies_shape() -> None:
    async with system() as ours:
        secret = await token(ours, "ingest:opsgenie")
        answers = {
            "no token": await ours.get("/v2/alerts"),
            "a key that may only send": await ask(ours, "/v2/alerts", secret),
            "one": await ask(ours, "/v2/alerts/a%2Fb?identifierType=alias", secret),
        }

        assert {how: answer.status for how, answer in answers.items()} == {
            "no token": 401,
            "a key that may only send": 403,
            "one": 403,
        }
        assert "scope 'read'" in answers["one"].json["message"]
        for answer in answers.values():
            assert set(answer.json) == {"message", "took", "requestId"}


@pytest.mark.asyncio
async def test_wrong_parameters_are_named() -> None:
    async with system() as ours:
        for query, field in (
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=x", "limit"),
            ("limit=" + "9" * 5000, "limit"),
            ("offset=-1", "offset"),
            ("offset=20000", "offset"),
            ("order=up", "order"),
            ("query=%28", "query"),
        ):
            answer = await ours.get(f"/v2/alerts?{query}")
            assert answer.status == 422, query
            assert json.loads(answer.body)["message"].startswith(field)
        wide = await ours.request("PATCH", "/v2/alerts/7/assign", [b""], [])
        assert (wide.status, "POST /v2/alerts," in wide.json["message"]) == (404, True)


@pytest.mark.asyncio
async def test_a_search_of_many_alerts_lets_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "SLICE_ALERTS", 2)
    stand_in = StandIn()
    stand_in.alerts = [
        msgspec.structs.replace(
            seen("api"), labels={"service": "api", "alert_id": f"id{number}"}, source="opsgenie"
        )
        for number in range(100)
    ]
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    going = asyncio.create_task(others())
    found = await reads._matching(stand_in.reads, read_query("status:open"))
    going.cancel()

    assert len(found) == 100
    assert turns >= 100
