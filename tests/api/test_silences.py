"""/v1/silences: made, listed, extended, ended, and what one would mute."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from tests.api.gateway_in_process import (
    FIRST_SHARD_SERVICE,
    SECOND_SHARD_SERVICE,
    Reply,
    System,
    alert,
    another_gateway,
    system,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/silences"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ours() -> AsyncIterator[System]:
    async with system(silences={"force_at_least": 3}) as started:
        yield started


def wanted(**changes: object) -> dict[str, object]:
    made = {"matchers": ['service="nobody"'], "duration": "2h", "comment": "deploy"}
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


async def send(ours: System, method: str, path: str, body: object = None, **headers: str) -> Reply:
    data = b"" if body is None else json.dumps(body).encode()
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if body is not None:
        sent.append((b"content-type", b"application/json"))
    return await ours.request(method, path, [data], sent)


async def made(ours: System, **changes: object) -> str:
    answer = await send(ours, "POST", PATH, wanted(**changes))
    assert answer.status == 201, answer
    return str(answer.json["silence"]["id"])


async def test_a_silence_is_made_shown_and_listed(ours: System) -> None:
    answer = await send(ours, "POST", PATH, wanted(matchers=['shown="yes"', "pod=~web-.+"]), x_actor="ada")
    silence = answer.json["silence"]

    shown = await ours.get(f"{PATH}/{silence['id']}")
    listed = await ours.get(f'{PATH}?match=shown="yes"&created_by=ada')

    assert answer.headers["location"] == f"{PATH}/{silence['id']}"
    assert (silence["state"], silence["created_by"], silence["comment"]) == ("active", "ada", "deploy")
    assert silence["matchers"] == ['shown="yes"', 'pod=~"web-.+"']
    assert shown.json == silence and listed.items == [silence]
    assert (await ours.get(f"{PATH}?created_by=nobody")).items == []


async def test_it_is_the_same_silence_in_alertmanagers_api(ours: System) -> None:
    identity = await made(ours)

    shown = (await ours.get(f"/api/v2/silence/{identity}")).json

    assert shown["matchers"] == [{"isEqual": True, "isRegex": False, "name": "service", "value": "nobody"}]


async def test_pages_join_without_gaps_or_repeats(ours: System) -> None:
    for number in range(5):
        await made(ours, matchers=['paged="yes"'], comment=f"{number}")
    found: list[str] = []
    cursor = ""
    while True:
        page = (await ours.get(f"{PATH}?match=paged=yes&limit=2{cursor}")).json
        found += [each["comment"] for each in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"

    assert found == ["4", "3", "2", "1", "0"]


async def test_it_is_made_longer_and_shorter_under_its_id(ours: System) -> None:
    identity = await made(ours)
    end = (datetime.now(UTC) + timedelta(hours=9)).isoformat()

    longer = await send(ours, "POST", f"{PATH}/{identity}/extend", {"ends_at": end, "comment": "slow deploy"})
    shorter = await send(ours, "POST", f"{PATH}/{identity}/extend", {"duration": "5m"})

    assert (longer.status, shorter.status) == (200, 200)
    assert longer.json["id"] == shorter.json["id"] == identity
    assert longer.json["comment"] == shorter.json["comment"] == "slow deploy"
    assert longer.json["ends_at"] > shorter.json["ends_at"]


async def test_ending_it_is_safe_to_repeat_and_the_end_of_it(ours: System) -> None:
    identity = await made(ours)

    first, again = [await send(ours, "DELETE", f"{PATH}/{identity}") for _ in range(2)]
    longer = await send(ours, "POST", f"{PATH}/{identity}/extend", {"duration": "1h"})

    assert (first.status, again.status, longer.status) == (200, 200, 409)
    assert first.json == again.json
    assert first.json["state"] == "expired"
    assert identity not in [each["id"] for each in (await ours.get(PATH)).items]
    assert identity in [each["id"] for each in (await ours.get(f"{PATH}?state=expired")).items]


async def test_a_request_with_a_name_makes_one_silence(ours: System) -> None:
    answers = [await send(ours, "POST", PATH, wanted(comment="once"), idempotency_key="k1") for _ in range(2)]
    other = await send(ours, "POST", PATH, wanted(comment="twice"), idempotency_key="k1")

    assert answers[0].json["silence"] == answers[1].json["silence"]
    assert other.status == 422


async def test_what_it_would_mute_is_counted_over_all_shards(ours: System) -> None:
    for service in (FIRST_SHARD_SERVICE, SECOND_SHARD_SERVICE):
        await ours.post(
            "/api/v2/alerts", [alert("Slow", service, team="a"), alert("Slow", service, team="b", pod="x")]
        )

    found = (await send(ours, "POST", f"{PATH}/preview", {"matchers": ['alertname="Slow"', "team=a"]})).json
    every = (await send(ours, "POST", f"{PATH}/preview", {"matchers": ['alertname="Slow"']})).json

    assert (found["muted"], found["firing"], found["incident_count"]) == (2, 4, 2)
    assert [(each["muted"], each["firing"]) for each in found["incidents"]] == [(1, 2), (1, 2)]
    assert (found["needs_force"], every["needs_force"]) == (False, True)


async def test_one_that_mutes_most_of_what_fires_needs_force(ours: System) -> None:
    await ours.post("/api/v2/alerts", [alert("Slow", team=str(number)) for number in range(9)])
    body = wanted(matchers=['alertname="Slow"'], duration="1m")

    refused = await send(ours, "POST", PATH, body)
    forced = await send(ours, "POST", PATH, {**body, "force": True})

    assert refused.status == 409 and "--force" in refused.json["detail"]
    assert forced.status == 201


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"matchers": ["nonsense"]}, 400, "bad matcher format"),
        ({"matchers": []}, 400, "matchers"),
        ({"matchers": ['a=""']}, 400, "must not match the empty string"),
        ({"matchers": ["a=~("]}, 400, "missing closing )"),
        ({"duration": None}, 400, "ends_at: a silence must end"),
        ({"ends_at": "2020-01-01T00:00:00Z", "duration": None}, 400, "in the future"),
        ({"ends_at": "2090-01-01T00:00:00Z"}, 400, "not both"),
        ({"until": "never"}, 400, "until"),
        ({"annotations": {"a": "b" * 20_000}}, 400, "maximum size"),
    ],
)
async def test_what_is_no_silence_is_refused_by_name(
    ours: System, changes: dict[str, object], status: int, words: str
) -> None:
    answer = await send(ours, "POST", PATH, wanted(**changes))

    assert answer.status == status, answer
    assert words in answer.body.decode()


async def test_one_that_is_not_there_is_404(ours: System) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"

    answers = [
        await ours.get(f"{PATH}/{unknown}"),
        await send(ours, "DELETE", f"{PATH}/{unknown}"),
        await send(ours, "POST", f"{PATH}/{unknown}/extend", {"duration": "1h"}),
    ]

    assert [each.status for each in answers] == [404, 404, 404]


async def test_a_silence_made_at_one_gateway_is_there_at_another_at_once(ours: System) -> None:
    async with another_gateway(ours) as other:
        identity = await made(ours)

        assert (await other.get(f"{PATH}/{identity}")).status == 200
        assert (await send(other, "DELETE", f"{PATH}/{identity}")).json["state"] == "expired"
        assert (await ours.get(f"{PATH}/{identity}")).json["state"] == "expired"
