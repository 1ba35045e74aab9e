"""Who sent an alert is known; a bound token sends and ends what its matchers allow; a key is its sender's own."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from services.times import timestamp
from tests.api.gateway_in_process import (
    FIRST_SHARD_SERVICE,
    SECOND_SHARD_SERVICE,
    Reply,
    System,
    alert,
    system,
)
from tests.api.test_guard import call, create

LABELS = {"alertname": "DBDown", "service": "db", "severity": "critical", "team": "data"}
ENDED = "2020-01-01T00:00:00Z"


@pytest_asyncio.fixture
async def senders() -> AsyncIterator[tuple[System, dict[str, str]]]:
    """A system with tokens on; secrets by name: admin, prometheus, ci (any labels), and bound, for team data."""
    async with system() as ours:
        secrets = {"admin": (await create(ours, "admin", "admin"))["token"]}
        for name, scopes, match in (
            ("prometheus", ["ingest:alertmanager"], []),
            ("ci", ["ingest:v1"], []),
            ("bound", ["ingest:*"], ['team="data"']),
        ):
            made = await create(ours, name, *scopes, by=secrets["admin"], match=match)
            secrets[name] = made["token"]
        yield ours, secrets


async def post(ours: System, path: str, secret: str | None, alerts: object, **headers: str) -> Reply:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    if secret is not None:
        more["Authorization"] = f"Bearer {secret}"
    return await ours.post(path, alerts, headers=more)


async def read(ours: System, path: str, secret: str | None) -> dict[str, Any]:
    answer = await call(ours, "GET", path, secret)
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


async def alerts_of(ours: System, secret: str | None) -> list[dict[str, Any]]:
    fired = await read(ours, "/v1/alerts?firing=true", secret)
    items: list[dict[str, Any]] = fired["items"]
    return items


async def timeline(ours: System, secret: str | None) -> dict[str, str]:
    listed = await read(ours, "/v1/incidents", secret)
    (incident,) = listed["items"]
    found = await read(ours, f"/v1/incidents/{incident['id']}/timeline", secret)
    return {entry["event_type"]: entry["actor"] for entry in found["items"]}


# Who it was


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_who_ended_the_alert_of_another_is_named(senders: tuple[System, dict[str, str]]) -> None:
    ours, secrets = senders
    await post(ours, "/api/v2/alerts", secrets["prometheus"], [{"labels": LABELS}])
    answer = await post(ours, "/v1/alerts", secrets["ci"], {"labels": LABELS, "status": "resolved"})

    assert answer.json["items"][0]["decision"] == "resolved"
    named = await timeline(ours, secrets["admin"])
    assert (named["Created"], named["Resolved"]) == ("prometheus", "ci")
    (ended,) = (await read(ours, "/v1/alerts", secrets["admin"]))["items"]
    assert ended["sender"] == "ci"
    why = {made["decision"]: made["sender"] for made in ended["why"]}
    assert (why["opened"], why["resolved"]) == ("prometheus", "ci")


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_without_tokens_it_was_anonymous(ours: System) -> None:
    await post(ours, "/v1/alerts", None, {"labels": LABELS})

    assert (await timeline(ours, None))["Created"] == "anonymous"
    assert (await alerts_of(ours, None))[0]["sender"] == "anonymous"


# Bound tokens


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_a_bound_token_sends_and_ends_what_its_matchers_allow(
    senders: tuple[System, dict[str, str]],
) -> None:
    ours, secrets = senders
    fired = await post(ours, "/v1/alerts", secrets["bound"], {"labels": LABELS})
    ended = await post(ours, "/v1/alerts", secrets["bound"], {"labels": LABELS, "status": "resolved"})

    assert [each.json["items"][0]["decision"] for each in (fired, ended)] == ["opened", "resolved"]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_of_a_mixed_request_too_resolved_ends_whatever_clock_it_is_by(
    senders: tuple[System, dict[str, str]],
) -> None:
    ours, secrets = senders
    foreign = {"labels": {**LABELS, "team": "web"}}
    ahead, less_ahead = time.time() + 120, time.time() + 60
    await post(ours, "/v1/alerts", secrets["bound"], {"labels": LABELS, "starts_at": timestamp(ahead)})
    ending = {"labels": LABELS, "starts_at": timestamp(less_ahead), "status": "resolved"}
    answer = await post(ours, "/v1/alerts", secrets["bound"], [foreign, ending])

    assert [item.get("decision") for item in answer.items] == [None, "resolved"]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(
    ("path", "ending"),
    [
        ("/v1/alerts", {"status": "resolved"}),
        ("/v1/alerts", {"ends_at": ENDED}),
        ("/api/v2/alerts", {"endsAt": ENDED}),
    ],
)
@pytest.mark.parametrize("team", [{"team": "web"}, {}, {"team": "data "}])
@pytest.mark.asyncio
async def test_a_bound_token_neither_sends_nor_ends_anything_else(
    senders: tuple[System, dict[str, str]], path: str, ending: dict[str, str], team: dict[str, str]
) -> None:
    ours, secrets = senders
    labels = {"alertname": "Checkout", "service": "web", **team}
    await post(ours, "/api/v2/alerts", secrets["prometheus"], [{"labels": labels}])
    # What a gateway has met before is refused all the same.
    for _ in range(2):
        fires = await post(ours, path, secrets["bound"], [{"labels": {**labels, "instance": "b"}}])
        ends = await post(ours, path, secrets["bound"], [{"labels": labels, **ending}])
        assert [fires.status, ends.status] == [403, 403]
        assert b"team=" in ends.body
        assert b"bound" in ends.body

    (left,) = await alerts_of(ours, secrets["admin"])
    assert left["labels"] == labels


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_of_a_mixed_request_the_allowed_alerts_are_stored_and_the_others_named(
    senders: tuple[System, dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    ours, secrets = senders
    body = [{"labels": {**LABELS, "team": "web"}}, {"labels": LABELS}, {"labels": {}}]

    with caplog.at_level(logging.WARNING):
        answer = await post(ours, "/v1/alerts", secrets["bound"], body)
        again = await post(ours, "/api/v2/alerts", secrets["bound"], body)

    assert answer.status == 207
    items = answer.json["items"]
    assert [item["status"] for item in items] == [403, 202, 400]
    assert (answer.json["stored"], answer.json["refused"]) == (1, 2)
    assert again.status == 400
    assert b"alert 0: the token" in again.body
    assert len(await alerts_of(ours, secrets["admin"])) == 1
    metrics = (await call(ours, "GET", "/metrics", secrets["admin"])).body.decode()
    (line,) = [
        line
        for line in metrics.splitlines()
        if line.startswith("llm_im_alerts_forbidden_total") and 'door="v1"' in line
    ]
    assert 'token="bound"' in line
    assert line.endswith(" 1.0") or line.endswith(" 1")
    # What is forbidden is no dead letter: the sender could fill their store with it.
    assert len(await ours.letters(2)) == 2


@pytest.mark.parametrize(
    ("scopes", "match", "words"),
    [
        (["respond", "ingest:v1"], ['team="a"'], "can resolve anything"),
        (["read"], ['team="a"'], "ingest:"),
        (["ingest:v1"], ["team"], "bad matcher format"),
    ],
)
@pytest.mark.asyncio
async def test_a_binding_that_is_none_is_refused(
    senders: tuple[System, dict[str, str]], scopes: list[str], match: list[str], words: str
) -> None:
    ours, secrets = senders
    body = {"name": "x", "scopes": scopes, "match": match}
    answer = await call(ours, "POST", "/v1/tokens", secrets["admin"], body)

    assert answer.status == 400
    assert words in answer.body.decode()


@pytest.mark.asyncio
async def test_the_list_of_tokens_shows_what_each_is_bound_to(senders: tuple[System, dict[str, str]]) -> None:
    ours, secrets = senders
    found = await read(ours, "/v1/tokens", secrets["admin"])

    assert {each["name"]: each["match"] for each in found["items"]} == {
        "admin": [],
        "bound": ['team="data"'],
        "ci": [],
        "prometheus": [],
    }


# Idempotency-Key


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_a_key_is_its_senders_own(senders: tuple[System, dict[str, str]]) -> None:
    ours, secrets = senders
    key: Mapping[str, str] = {"Idempotency_Key": "build-1001"}
    junk = await post(
        ours, "/v1/alerts", secrets["ci"], {"labels": {"alertname": "Junk", "service": "db"}}, **key
    )
    given = await post(ours, "/v1/alerts", secrets["bound"], {"labels": LABELS}, **key)
    repeated = await post(ours, "/v1/alerts", secrets["bound"], {"labels": LABELS}, **key)

    assert [each.status for each in (junk, given, repeated)] == [202, 202, 202]
    assert [each.json["items"][0]["decision"] for each in (given, repeated)] == ["opened", "duplicate"]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(
    "ending",
    [{"status": "resolved"}, {"ends_at": ENDED, "status": "resolved"}, {"ends_at": "2090-01-01T00:00:00Z"}],
)
@pytest.mark.asyncio
async def test_the_same_key_with_another_end_is_not_taken_for_a_duplicate(
    ours: System, ending: dict[str, str]
) -> None:
    key: Mapping[str, str] = {"Idempotency_Key": "build-1001"}
    await post(ours, "/v1/alerts", None, {"labels": LABELS}, **key)
    answer = await post(ours, "/v1/alerts", None, {"labels": LABELS, **ending}, **key)

    assert answer.status == 422
    assert b"other alerts or ends" in answer.body


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_a_request_sent_again_is_a_duplicate_though_its_default_end_moved(ours: System) -> None:
    key: Mapping[str, str] = {"Idempotency_Key": "build-1001"}
    for path in ("/v1/alerts", "/api/v2/alerts"):
        first = await post(ours, path, None, [{"labels": {**LABELS, "path": path}}], **key)
        ours.clock.heard_s += 7.0
        again = await post(ours, path, None, [{"labels": {**LABELS, "path": path}}], **key)
        assert [first.status, again.status] in ([202, 202], [200, 200])


@pytest.mark.parametrize("path", ["/v1/alerts", "/api/v2/alerts"])
@pytest.mark.asyncio
async def test_what_sending_again_mends_is_told_before_a_key_that_was_used_for_something_else(
    path: str,
) -> None:
    async with system(server={"hold": 0.2}) as ours:
        await post(ours, path, None, [alert("A", FIRST_SHARD_SERVICE)], idempotency_key="build-1")
        ours.cluster.kill(ours.shards[1])
        both = [alert("B", FIRST_SHARD_SERVICE), alert("C", SECOND_SHARD_SERVICE)]
        answer = await post(ours, path, None, both, idempotency_key="build-1")

    # By 422 a sender would give up, and C be lost.
    assert (answer.status, "retry-after" in answer.headers) == (503, True)
