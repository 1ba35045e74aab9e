"""Several receivers in one process with gateway, shard and responder: who hears what, and /v1/routes, /v1/receivers, resend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from models.control.control import encode_message
from models.settings.secrets import MASKED
from tests.api.gateway_in_process import System, alert, system
from tests.api.test_notifying import Receiver, a_receiver, gauge, until

pytestmark = pytest.mark.asyncio

ROUTES: list[dict[str, Any]] = [
    {"name": "noise", "matchers": ["alertname=Watchdog"], "discard": True},
    {
        "name": "urgent",
        "severity": ["P0", "P1"],
        "receivers": ["pager"],
        "continue": True,
        "escalate_to": ["boss"],
    },
    {"matchers": ["service=~vector.*"], "receivers": ["db"]},
    {"receivers": ["ops"]},
]


@asynccontextmanager
async def told(*names: str, **notify: Any) -> AsyncIterator[tuple[System, dict[str, Receiver]]]:
    """A system with these receivers and ROUTES."""
    async with AsyncExitStack() as stack:
        found = {name: await stack.enter_async_context(a_receiver()) for name in names}
        receivers = {name: {"type": "webhook", "url": each.url} for name, each in found.items()}
        settings = {
            "receivers": receivers,
            "route": {"receivers": ["ops"]},
            "routes": ROUTES,
            "retry_first": 0.05,
            "interval": 0.2,
            **notify,
        }
        yield await stack.enter_async_context(system(notify=settings)), found


ALL = ("ops", "pager", "db", "boss")


async def test_each_receiver_hears_what_routes_choose_for_it_and_of_the_end() -> None:
    async with told(*ALL) as (ours, heard):
        await ours.post(
            "/v1/alerts",
            [
                alert("Down", severity="critical", service="vector-db"),
                alert("Down", severity="critical", service="llm-api"),
                alert("Watchdog", severity="critical", service="llm-api"),
            ],
        )
        await until(lambda: len(heard["pager"].got) == 2 and heard["db"].got and heard["ops"].got)
        await ours.post(
            "/v1/alerts", [alert("Down", severity="critical", service="vector-db") | {"status": "resolved"}]
        )
        await until(lambda: len(heard["pager"].got) == 3 and len(heard["db"].got) == 2)
        discarded = await gauge(ours, "llm_im_notifications_discarded_total")

    services = {name: [body["groupLabels"]["service"] for body in each.got] for name, each in heard.items()}
    assert services["db"] == ["vector-db", "vector-db"] and services["ops"] == ["llm-api"]
    assert sorted(services["pager"]) == ["llm-api", "vector-db", "vector-db"] and services["boss"] == []
    assert heard["db"].reasons() == ["opened", "resolved"]
    assert {body["receiver"] for body in heard["pager"].got} == {"pager"}
    assert discarded == 1


async def test_the_tree_and_what_it_chooses_are_read_without_telling_anybody() -> None:
    async with told(*ALL) as (ours, heard):
        tree = (await ours.get("/v1/routes")).json["items"]
        asked = {"labels": {"alertname": "Down"}, "severity": "p0", "service": "vector-db"}
        choice = (await ours.post("/v1/routes/test", asked)).json
        noise = (await ours.post("/v1/routes/test", {"labels": {"alertname": "Watchdog"}})).json
        receivers = (await ours.get("/v1/receivers")).json["items"]
        alertmanagers = (await ours.get("/api/v2/receivers")).json

    assert [(each["name"], each["depth"]) for each in tree][:3] == [("root", 0), ("noise", 1), ("urgent", 1)]
    assert tree[2]["escalate_to"] == ["boss"] and tree[2]["repeat_s"] == 14_400.0
    assert [each["receiver"] for each in choice["told"]] == ["pager", "db"]
    assert [each["receiver"] for each in choice["escalate_to"]] == ["boss"]
    assert [(each["route"], each["took"]) for each in choice["steps"]] == [
        ("root", True), ("noise", False), ("urgent", True), ("routes[2]", True)
    ]  # fmt: skip
    assert noise["told"] == [] and noise["discarded_by"] == "noise"
    assert {each["name"]: each["routes"] for each in receivers}["boss"] == ["urgent"]
    assert [each["name"] for each in alertmanagers] == ["llm-im", "boss", "db", "ops", "pager"]
    assert not any(each.got for each in heard.values())


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"severity": "P9"}, "severity"),
        ({"incident_type": "Network"}, "incident_type"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"lables": {}}, "lables"),
    ],
)
async def test_a_question_that_is_none_names_its_field(body: dict[str, object], field: str) -> None:
    async with told("ops", routes=[]) as (ours, _heard):
        answer = await ours.post("/v1/routes/test", body)

    assert answer.status == 400 and [each["field"] for each in answer.json["errors"]] == [field]


async def test_a_receiver_is_tried_with_a_message_that_says_that_it_is_a_test() -> None:
    async with told("ops", routes=[]) as (ours, heard):
        taken = await ours.post("/v1/receivers/ops/test", {})
        heard["ops"].statuses = [503]
        refused = await ours.post("/v1/receivers/ops/test", {})
        unknown = await ours.post("/v1/receivers/nobody/test", {})

    assert taken.json["ok"] and "test" in str(heard["ops"].got[0]).lower()
    assert not refused.json["ok"] and "503" in refused.json["detail"]
    assert unknown.status == 404 and "there are ops" in unknown.json["detail"]


async def test_without_notifications_a_test_says_why_there_is_none() -> None:
    async with system() as ours:
        answer = await ours.post("/v1/receivers/webhook/test", {})

    assert answer.status == 404


async def test_a_person_has_it_told_again_and_is_told_why_not() -> None:
    async with told(*ALL) as (ours, heard):
        answer = await ours.post("/v1/alerts", [alert("Down", severity="critical", service="llm-api")])
        path = f"/v1/incidents/{answer.items[0]['incident_id']}"
        await until(lambda: heard["pager"].got and heard["ops"].got)

        again = await ours.post(f"{path}/resend", {"receiver": "ops"})
        await until(lambda: len(heard["ops"].got) == 2)
        wrong = await ours.post(f"{path}/resend", {"receiver": "nobody"})
        await ours.post(f"{path}/resolve", {})
        over = await ours.post(f"{path}/resend", {})

    assert again.status == 200 and heard["ops"].reasons()[:2] == ["opened", "sent again"]
    assert wrong.status == 400 and "there are boss, db, ops, pager" in wrong.json["detail"]
    assert over.status == 409 and "only an open incident" in over.json["detail"]


async def test_receivers_and_routes_change_by_reload() -> None:
    async with told("ops", "db", routes=[]) as (ours, heard):
        settings = ours.settings.model_dump(mode="json", exclude_unset=True)
        receivers = {
            name: {"type": "webhook", "url": each.url, "max_alerts": 5} for name, each in heard.items()
        }
        settings["notify"] |= {
            "receivers": receivers | {"new": receivers["db"]},
            "routes": [{"severity": ["P0", "P1"], "receivers": ["new"]}],
        }
        changed = await ours.post("/v1/config/reload", settings)
        assert changed.status == 200, changed.json

        # Shard and responder follow the control log by themselves.
        async with asyncio.timeout(20):
            number = 0
            while not heard["db"].got:
                number += 1
                await ours.post(
                    "/v1/alerts", [alert(f"Down{number}", severity="critical", service="llm-api")]
                )
                await asyncio.sleep(0.2)

    assert heard["db"].got[0]["receiver"] == "new"
    # It was sent in clear, and the control log holds its mask.
    event = ours.gateway.station.tail.state.settings
    assert event is not None
    kept = encode_message(event)
    assert MASKED.encode() in kept
    assert not [each.url for each in heard.values() if each.url.encode() in kept]
