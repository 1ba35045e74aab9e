"""POST /v1/incidents/bulk: one verb for many incidents, each answered for itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from models.errors import Unavailable
from models.incidents.verbs import Comment
from services.api.v1 import bulk
from services.api.v1.verb_table import BULK_VERBS
from tests.api.gateway_in_process import Reply, System, alert
from tests.api.stand_in import NOW, StandIn, archived, incident

NOBODY = "019b8000-0000-7000-8000-000000000000"
PATH = "/v1/incidents/bulk"


async def opened(ours: System, count: int, service: str = "api", **labels: str) -> list[str]:
    """`count` new incidents of `service`."""
    sent = [alert(f"{service}{number}", service, **labels) for number in range(count)]
    return [str(each["incident_id"]) for each in (await ours.post("/v1/alerts", sent)).items]


async def ask(ours: System, body: object, headers: Mapping[str, str] = {}) -> Reply:
    return await ours.post(PATH, body, headers=headers)


def answered(reply: Reply) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(reply.body)
    return found


@pytest.mark.asyncio
async def test_all_of_them_are_done_on_every_shard(ours: System) -> None:
    ids = await opened(ours, 30) + await opened(ours, 30, "db")

    reply = await ask(ours, {"verb": "Acknowledge", "incidents": ids, "body": {"for": "1h"}})

    assert reply.status == 200
    assert [each["incident"] for each in answered(reply)["items"]] == ids
    assert (answered(reply)["done"], answered(reply)["failed"]) == (60, 0)
    listed = (await ours.get("/v1/incidents?limit=100")).items
    assert all(each["acknowledged"] for each in listed)


@pytest.mark.asyncio
async def test_one_that_is_refused_costs_no_other(ours: System) -> None:
    [one, two] = await opened(ours, 2)
    await ours.post(f"/v1/incidents/{one}/resolve", {})

    reply = await ask(ours, {"verb": "acknowledge", "incidents": [one, NOBODY, two, two]})

    assert reply.status == 207
    items = answered(reply)["items"]
    assert [(each["incident"], each["status"]) for each in items] == [(one, 409), (NOBODY, 404), (two, 200)]
    assert "reopen it first" in items[0]["detail"] and items[0]["version"] is None
    assert (items[2]["detail"], items[2]["version"] > 0) == ("", True)


@pytest.mark.asyncio
async def test_a_filter_says_which(ours: System) -> None:
    await opened(ours, 3)
    db = await opened(ours, 2, "db", team="x")

    reply = await ask(
        ours,
        {
            "verb": "comment",
            "where": {"match": 'team="x"', "state": ["triaged", "Detected"]},
            "body": {"text": "a"},
        },
    )

    assert {each["incident"] for each in answered(reply)["items"]} == set(db)


@pytest.mark.asyncio
async def test_a_filter_that_nothing_holds_for_is_done_with_nothing(ours: System) -> None:
    reply = await ask(ours, {"verb": "close", "where": {"service": "nothing"}})

    assert (reply.status, answered(reply)["items"]) == (200, [])


@pytest.mark.asyncio
async def test_a_filter_that_holds_for_too_many_changes_nothing_and_names_the_bound(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "BULK_MAX", 3)
    await opened(ours, 4)

    reply = await ask(ours, {"verb": "comment", "where": {"service": "api"}, "body": {"text": "a"}})

    assert reply.status == 400 and "more than 3 incidents match" in answered(reply)["detail"]
    listed = (await ours.get("/v1/incidents")).items
    assert not [each for each in listed if "CommentAdded" in json.dumps(each["timeline"])]


@pytest.mark.asyncio
async def test_sent_again_by_its_name_it_does_only_what_was_not_done(ours: System) -> None:
    ids = await opened(ours, 3)
    body = {"verb": "comment", "incidents": ids, "body": {"text": "once"}}

    await ask(ours, {**body, "incidents": ids[:2]}, {"Idempotency-Key": "k"})
    again = await ask(ours, body, {"Idempotency-Key": "k"})
    other = await ask(ours, {**body, "body": {"text": "other"}}, {"Idempotency-Key": "k"})

    assert (again.status, answered(again)["done"]) == (200, 3)
    assert [each["status"] for each in answered(other)["items"]] == [422] * 3
    for each in (await ours.get("/v1/incidents")).items:
        assert json.dumps(each["timeline"]).count("CommentAdded") == 1


def test_incidents_of_the_archive_are_not_found_by_a_filter() -> None:
    stand_in = StandIn(incidents=[incident("a")])
    asyncio.run(stand_in.archive.put([archived(incident("a", number=1, at=NOW + 1))]))

    answer = TestClient(stand_in.app()).post(
        PATH, json={"verb": "comment", "where": {"service": "a"}, "body": {"text": "x"}}
    )

    assert (answer.status_code, answer.json()["done"]) == (200, 1)
    assert [command.verb for _shard, command in stand_in.told] == [Comment("x")]


def test_a_shard_that_is_away_is_told_item_by_item() -> None:
    one = incident("a")
    stand_in = StandIn(incidents=[one], answers=Unavailable("it is restarting"))

    answer = TestClient(stand_in.app()).post(
        PATH, json={"verb": "close", "incidents": [str(UUID(bytes=one.id))]}
    )

    assert answer.status_code == 207
    assert [(each["status"], each["detail"]) for each in answer.json()["items"]] == [
        (503, "it is restarting")
    ]


def test_the_verbs_that_are_about_one_incident_only_are_not_taken() -> None:
    assert not {"merge", "unmerge", "split"} & set(BULK_VERBS)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"verb": "close"}, ["incidents"]),
        ({"verb": "close", "incidents": [NOBODY], "where": {"service": "a"}}, ["incidents"]),
        ({"verb": "close", "incidents": []}, ["incidents"]),
        ({"verb": "close", "incidents": [NOBODY] * 1001}, ["incidents"]),
        ({"verb": "close", "incidents": ["x"]}, ["incidents.0"]),
        ({"verb": "close", "where": {}}, ["where"]),
        ({"verb": "close", "where": {"merged": True}}, ["where"]),
        ({"verb": "close", "where": {"service": [], "text": ""}}, ["where"]),
        ({"verb": "close", "where": {"sevrity": "P0"}}, ["where.sevrity"]),
        ({"verb": "close", "where": {"severity": "P7"}}, ["where.severity.0"]),
        ({"verb": "close", "where": {"match": "~"}}, ["match"]),
        ({"verb": "close", "where": {"limit": 5}}, ["where.limit"]),
        ({"verb": "merge", "incidents": [NOBODY]}, ["verb"]),
        ({"verb": "fly", "incidents": [NOBODY]}, ["verb"]),
        ({"verb": "comment", "incidents": [NOBODY]}, ["body.text"]),
        ({"verb": "comment", "incidents": [NOBODY], "body": {"text": "a", "txt": 1}}, ["body.txt"]),
        ({"verb": "comment", "incidents": [NOBODY], "body": {"text": 10**30}}, ["body.text"]),
        ({"verb": "comment", "incidents": [NOBODY], "body": "x"}, ["body"]),
        ({"verb": "close", "incidents": [NOBODY], "why": 1}, ["why"]),
        ([], ["body"]),
    ],
)
def test_a_wrong_field_is_400_and_named_before_anything_is_done(body: object, fields: list[str]) -> None:
    stand_in = StandIn()

    answer = TestClient(stand_in.app()).post(PATH, json=body)

    assert answer.status_code == 400, answer.text
    assert [each["field"] for each in answer.json()["errors"]] == fields
    assert not stand_in.told


def test_a_condition_is_400() -> None:
    answer = TestClient(StandIn().app()).post(
        PATH, json={"verb": "close", "incidents": [NOBODY]}, headers={"If-Match": '"1"'}
    )

    assert answer.status_code == 400
