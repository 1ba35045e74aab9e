"""Who gets in: tokens on both doors, on every route, through rotation and revocation, with and without their writer."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.control import ControlActor
from actors.control_tail import FOLLOW_S
from models.control.issuing import TokensSeen
from models.errors import Broken, OutcomeUnknown
from models.ports import EventLog
from services.api.auth import OPEN_PATHS, Caller, refuse_unnamed, scopes_of_routes
from services.api.guard import LOOK_AGAIN_S
from services.api.v1.requests import BODY_MAX_BYTES
from services.api.v1.tokens import SCOPES
from services.stores.memory.log import MemoryEventLog
from services.wiring import bootstrap
from tests.api.gateway_in_process import (
    MemoryStores,
    Reply,
    SqliteStores,
    System,
    alert,
    another_gateway,
    system,
)
from tests.api.stand_in import StandIn

Headers = dict[str, str]
DOORS = {"/v1/alerts": "ingest:v1", "/api/v2/alerts": "ingest:alertmanager"}
#: A well-formed secret of no token.
WORDS = "llmim_0123456789ab_" + "w" * 43


def bearer(secret: str) -> Headers:
    return {"Authorization": f"Bearer {secret}"}


def basic(secret: str) -> Headers:
    return {"Authorization": "Basic " + base64.b64encode(f"prometheus:{secret}".encode()).decode()}


async def call(ours: System, method: str, path: str, secret: str | None = None, body: object = None) -> Reply:
    headers = [(b"content-type", b"application/json")] if body is not None else []
    if secret is not None:
        headers.append((b"authorization", f"Bearer {secret}".encode("latin-1")))
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return await ours.request(method, path, [content], headers)


async def create(
    ours: System, name: str, *scopes: str, by: str | None = None, **more: object
) -> dict[str, str]:
    answer = await call(ours, "POST", "/v1/tokens", by, {"name": name, "scopes": list(scopes), **more})
    assert answer.status == 201, answer
    made: dict[str, str] = json.loads(answer.body)
    return made


@pytest_asyncio.fixture
async def guarded() -> AsyncIterator[tuple[System, str]]:
    """A system with tokens on, and an admin's secret."""
    async with system() as ours:
        yield ours, (await create(ours, "admin", "admin"))["token"]


# On and off


@pytest.mark.asyncio
async def test_without_tokens_everybody_may_do_everything_by_the_name_they_give(ours: System) -> None:
    listed = await ours.request("GET", "/v1/tokens", [b""], [(b"x-actor", b"anna")])
    made = await ours.post("/v1/tokens", {"name": "a", "scopes": ["admin"]}, headers={"X-Actor": "anna"})

    assert (listed.status, made.status) == (200, 201)
    assert made.json["created_by"] == "anna"


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_the_first_token_switches_tokens_on_everywhere_at_once(ours: System) -> None:
    before = await ours.get("/v1/incidents")
    await create(ours, "admin", "admin")

    after = [await ours.get("/v1/incidents"), await ours.post("/v1/alerts", [alert("A")])]

    assert before.status == 200
    assert [each.status for each in after] == [401, 401]


@pytest.mark.asyncio
async def test_the_first_token_must_be_an_admins(ours: System) -> None:
    answer = await call(ours, "POST", "/v1/tokens", None, {"name": "p", "scopes": ["ingest:*"]})

    assert answer.status == 409
    assert (await ours.get("/v1/incidents")).status == 200


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(
    "more", [{"auth": {"required": True}}, {"server": {"http_host": "0.0.0.0"}},
             {"server": {"http_host": "::"}, "auth": {"required": False}}],
    ids=["required", "public", "public and not required"],
)  # fmt: skip
@pytest.mark.asyncio
async def test_tokens_are_on_without_one_where_the_settings_or_the_address_ask(
    more: dict[str, Any],
) -> None:
    async with system(**more) as ours:
        answers = [await ours.get("/v1/incidents"), await ours.post("/api/v2/alerts", [alert("A")])]

        assert [each.status for each in answers] == [401, 401]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_on_loopback_the_settings_can_switch_tokens_off() -> None:
    async with system(auth={"required": False}) as ours:
        await create(ours, "admin", "admin")

        assert (await ours.get("/v1/incidents")).status == 200


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_tokens_stay_on_when_the_last_one_is_revoked(guarded: tuple[System, str]) -> None:
    ours, admin = guarded
    identity = admin.split("_")[1]

    refused = await call(ours, "DELETE", f"/v1/tokens/{identity}", admin)
    assert refused.status == 409
    assert "?force=true" in refused.json["detail"]
    assert (await call(ours, "GET", "/v1/incidents", admin)).status == 200
    assert (await call(ours, "DELETE", f"/v1/tokens/{identity}?force=true", admin)).status == 204

    assert (await call(ours, "GET", "/v1/incidents", admin)).status == 401
    assert (await ours.get("/v1/incidents")).status == 401


# The doors


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize("given", [bearer, basic])
@pytest.mark.asyncio
async def test_a_door_takes_a_token_by_bearer_and_by_basic(
    guarded: tuple[System, str], path: str, given: object
) -> None:
    ours, admin = guarded
    secret = (await create(ours, "sender", DOORS[path], by=admin))["token"]

    answer = await ours.post(path, [alert("Down")], headers=given(secret))  # type: ignore[operator]

    assert answer.status in (200, 202)
    reader = (await create(ours, "reader", "read", by=admin))["token"]
    assert len((await call(ours, "GET", "/api/v2/alerts", reader)).json) == 1


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_a_door_without_a_token_answers_in_its_own_shape_and_stores_nothing(
    guarded: tuple[System, str],
) -> None:
    ours, admin = guarded

    theirs = await ours.post("/api/v2/alerts", [alert("Down")])
    own = await ours.post("/v1/alerts", [alert("Down")], headers=bearer(WORDS))

    assert theirs.status == own.status == 401
    assert theirs.headers["www-authenticate"] == own.headers["www-authenticate"] == 'Bearer realm="llm-im"'
    assert theirs.json == {"code": 401, "message": theirs.json["message"]}
    assert own.headers["content-type"] == "application/problem+json"
    assert own.json["type"] == "urn:llm-im:problem:unauthorized"
    assert (await call(ours, "GET", "/api/v2/alerts", admin)).json == []


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_a_door_names_the_scope_that_a_token_has_not(guarded: tuple[System, str]) -> None:
    ours, admin = guarded
    one = (await create(ours, "one", "ingest:v1", "read", by=admin))["token"]
    other = (await create(ours, "other", "ingest:alertmanager", by=admin))["token"]

    theirs = await ours.post("/api/v2/alerts", [alert("Down")], headers=bearer(one))
    own = await ours.post("/v1/alerts", [alert("Down")], headers=bearer(other))

    assert theirs.status == own.status == 403
    assert "'ingest:alertmanager'" in theirs.json["message"]
    assert "'ingest:v1'" in own.json["detail"]
    assert own.json["title"] == "Forbidden"


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_refused_senders_are_counted(guarded: tuple[System, str]) -> None:
    ours, admin = guarded
    await ours.post("/v1/alerts", [alert("Down")])
    await ours.get("/v1/incidents")

    page = (await call(ours, "GET", "/metrics", admin)).body.decode()

    assert 'door="v1",reason="unauthorized"} 1' in page
    assert 'door="api",reason="unauthorized"} 1' in page


# The rest


def every_route() -> list[tuple[str, str, str | None]]:
    return [each for each in scopes_of_routes(StandIn().app()) if each[1] not in OPEN_PATHS]


def test_every_route_names_a_scope_that_there_is() -> None:
    unnamed = [(method, path) for method, path, scope in every_route() if scope not in SCOPES]

    assert not unnamed


def test_an_application_with_a_route_that_names_none_does_not_start() -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_api_route("/v1/secrets", lambda: "all", methods=["GET"])
    app.add_api_websocket_route("/v1/stream", lambda socket: None)

    with pytest.raises(Broken, match=r"GET /v1/secrets, WEBSOCKET /v1/stream"):
        refuse_unnamed(app)


# test_stream.py has the WebSocket.
@pytest.mark.parametrize(
    ("method", "path", "scope"), [each for each in every_route() if each[0] != "WEBSOCKET"]
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_route_takes_no_less_than_its_scope(
    method: str, path: str, scope: str, shared: System
) -> None:
    guard = shared.gateway.guard
    without = Caller("without", frozenset(SCOPES) - {scope})
    url = (
        path.replace("{token_id}", "0" * 12)
        .replace("{silence_id}", "0" * 8)
        .replace("{incident_id}", "0" * 32)
    )

    guard._required = True
    try:
        nobody = await shared.request(method, url, [b""], [])
        admit = guard.admit
        guard.admit = _always(without)  # type: ignore[method-assign, assignment]
        lesser = await shared.request(method, url, [b"{}"], [(b"content-type", b"application/json")])
        guard.admit = admit  # type: ignore[method-assign]
    finally:
        guard._required = None

    assert nobody.status == 401
    assert lesser.status == 403
    said = (
        ""
        if method == "HEAD"
        else lesser.json["message" if path.startswith(("/api/v2", "/v2/alerts")) else "detail"]
    )
    assert method == "HEAD" or f"'{scope}'" in str(said)


def _always(caller: Caller) -> object:
    async def admit(header: bytes | None) -> Caller:
        return caller

    return admit


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
@pytest.mark.asyncio
async def test_a_probe_needs_no_token_and_a_wrong_one_does_not_hurt(
    guarded: tuple[System, str], path: str
) -> None:
    ours, _admin = guarded

    assert [(await ours.get(path)).status, (await call(ours, "GET", path, WORDS)).status] == [200, 200]


@pytest.mark.asyncio
async def test_a_gateway_still_hears_its_own_front_door(guarded: tuple[System, str]) -> None:
    ours, _admin = guarded
    ours.gateway._front = ("127.0.0.1", await ours.listen())

    assert await ours.gateway._front_answers()


@pytest.mark.asyncio
async def test_what_is_open_does_not_open_what_is_beside_it(guarded: tuple[System, str]) -> None:
    ours, _admin = guarded

    paths = [
        "/health/live/x",
        "/health",
        "/-/healthy/../v1/incidents",
        "//metrics",
        "/metrics",
        "/uix",
        "//v1//incidents/",
        "/nothing",
        "/docs",
    ]

    assert {path: (await ours.get(path)).status for path in paths} == dict.fromkeys(paths, 401)


@pytest.mark.asyncio
async def test_metrics_can_be_left_open_and_nothing_else_is() -> None:
    async with system(auth={"open_metrics": True}) as ours:
        await create(ours, "admin", "admin")

        assert (await ours.get("/metrics")).status == 200
        assert (await ours.get("/v1/incidents")).status == 401


@pytest.mark.asyncio
async def test_the_description_says_how_a_token_is_given(ours: System) -> None:
    document = json.loads((await ours.get("/openapi.json")).body)

    assert {"bearer", "basic"} == set(document["components"]["securitySchemes"])
    assert document["security"] == [{"bearer": []}, {"basic": []}, {}]


@pytest.mark.asyncio
async def test_the_name_on_the_token_is_the_actor_whatever_else_is_said(guarded: tuple[System, str]) -> None:
    ours, admin = guarded

    made = await ours.post(
        "/v1/tokens",
        {"name": "other", "scopes": ["read"]},
        headers={**bearer(admin), "X-Actor": "mallory"},
    )

    assert made.json["created_by"] == "admin"


@pytest.mark.asyncio
async def test_a_websocket_without_a_token_is_closed_before_it_is_open(guarded: tuple[System, str]) -> None:
    ours, _admin = guarded
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/stream/incidents", "headers": [], "query_string": b""}
    await ours.gateway.app(dict(scope), receive, send)  # type: ignore[arg-type]
    extended = {**scope, "extensions": {"websocket.http.response": {}}}
    await ours.gateway.app(extended, receive, send)  # type: ignore[arg-type]

    assert sent[0] == {"type": "websocket.close", "code": 1008, "reason": "a token is needed"}
    assert (sent[1]["type"], sent[1]["status"]) == ("websocket.http.response.start", 401)


# /v1/tokens


@pytest.mark.asyncio
async def test_a_token_is_made_listed_and_shown_without_its_secret(guarded: tuple[System, str]) -> None:
    ours, admin = guarded
    answer = await call(
        ours,
        "POST",
        "/v1/tokens",
        admin,
        {"name": "p", "scopes": ["read", "ingest:v1", "read"], "expires_in": "90d"},
    )
    made = json.loads(answer.body)

    listed = await call(ours, "GET", "/v1/tokens", admin)

    assert answer.headers["cache-control"] == "no-store"
    secret = made.pop("token")
    assert json.loads(listed.body)["items"][1] == made
    assert made["scopes"] == ["ingest:v1", "read"]
    assert made["created_by"] == "admin" and made["expires_at"] > made["created_at"]
    assert made["last_used_at"] is None
    assert secret.encode() not in listed.body and b"digest" not in listed.body


@pytest.mark.asyncio
async def test_a_name_is_given_once(guarded: tuple[System, str]) -> None:
    ours, admin = guarded

    answer = await call(ours, "POST", "/v1/tokens", admin, {"name": "admin", "scopes": ["read"]})

    assert answer.status == 409
    assert answer.json["type"] == "urn:llm-im:problem:conflict"


@pytest.mark.asyncio
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_web_page_can_not_make_a_browser_make_a_token(ours: System, content_type: str | None) -> None:
    # Another type would need a preflight, which nobody here answers.
    answer = await ours.post(
        "/v1/tokens", {"name": "mallory", "scopes": ["admin"]}, content_type=content_type
    )

    assert answer.status == 415
    assert (await ours.get("/v1/incidents")).status == 200


@pytest.mark.asyncio
async def test_a_reader_can_not_fill_a_gateway_through_the_token_routes(
    guarded: tuple[System, str],
) -> None:
    ours, admin = guarded
    reader = (await create(ours, "reader", "read", by=admin))["token"]
    long = b" " * (BODY_MAX_BYTES + 1)

    assert (await call(ours, "POST", "/v1/tokens", reader, long)).status == 403
    assert (await call(ours, "POST", "/v1/tokens", admin, long)).status == 413


@pytest.mark.asyncio
async def test_rotation_keeps_both_secrets_during_the_overlap(guarded: tuple[System, str]) -> None:
    ours, admin = guarded
    made = await create(ours, "p", "read", by=admin)

    answer = await call(ours, "POST", f"/v1/tokens/{made['id']}/rotate", admin, {"overlap": "60s"})
    new = json.loads(answer.body)["token"]
    during = [(await call(ours, "GET", "/v1/incidents", each)).status for each in (made["token"], new)]
    ours.clock.ahead_s += 60
    after = [(await call(ours, "GET", "/v1/incidents", each)).status for each in (made["token"], new)]

    assert answer.status == 200
    assert (during, after) == ([200, 200], [401, 200])


@pytest.mark.asyncio
async def test_rotation_without_a_body_overlaps_for_a_day(guarded: tuple[System, str]) -> None:
    ours, admin = guarded
    made = await create(ours, "p", "read", by=admin)

    answer = await call(ours, "POST", f"/v1/tokens/{made['id']}/rotate", admin)
    ours.clock.ahead_s += 86_000

    assert answer.status == 200
    assert (await call(ours, "GET", "/v1/incidents", made["token"])).status == 200


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_a_remembered_token_is_refused_from_the_moment_it_expires(guarded: tuple[System, str]) -> None:
    ours, admin = guarded
    secret = (await create(ours, "short", "ingest:v1", by=admin, expires_in="60s"))["token"]

    before = await ours.post("/v1/alerts", [alert("A")], headers=bearer(secret))
    ours.clock.ahead_s += 60
    after = await ours.post("/v1/alerts", [alert("A")], headers=bearer(secret))

    assert (before.status, after.status) == (202, 401)
    assert "'short' expired" in after.json["detail"]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_revoking_is_safe_to_repeat_and_ends_what_was_remembered(guarded: tuple[System, str]) -> None:
    ours, admin = guarded
    made = await create(ours, "p", "ingest:v1", by=admin)
    before = await ours.post("/v1/alerts", [alert("A")], headers=bearer(made["token"]))

    ends = [(await call(ours, "DELETE", f"/v1/tokens/{made['id']}", admin)).status for _ in range(2)]

    after = await ours.post("/v1/alerts", [alert("A")], headers=bearer(made["token"]))
    assert (before.status, ends, after.status) == (202, [204, 204], 401)


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/v1/tokens/0123456789ab"), ("POST", "/v1/tokens/0123456789ab/rotate")]
)
@pytest.mark.asyncio
async def test_a_token_that_there_is_not_is_a_404(
    guarded: tuple[System, str], method: str, path: str
) -> None:
    ours, admin = guarded

    assert (await call(ours, method, path, admin)).status == 404


GOOD = {"name": "x", "scopes": ["read"]}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"", ""), (b"{", ""), (b"[]", ""), (b"null", ""), (b'{"name": "\xff"}', ""),
        ({}, "name"), ({"name": "x"}, "scopes"), ({**GOOD, "scopes": []}, "scopes"),
        ({**GOOD, "scopes": ["root"]}, "scopes"), ({**GOOD, "scopes": "read"}, "scopes"),
        ({**GOOD, "scopes": ["read"] * 1000}, "scopes"), ({**GOOD, "name": ""}, "name"),
        ({**GOOD, "name": "x" * 129}, "name"), ({**GOOD, "name": 5}, "name"), ({**GOOD, "name": "a\x00b"}, "name"),
        (b'{"name": "\\ud800", "scopes": ["read"]}', ""), ({**GOOD, "name": "anonymous"}, "name"),
        ({**GOOD, "expires_in": "soon"}, "expires_in"), ({**GOOD, "expires_in": -5}, "expires_in"),
        ({**GOOD, "expires_in": "0s"}, "expires_in"), ({**GOOD, "expires_in": "999999999w"}, "expires_in"),
        ({**GOOD, "expires_in": "9" * 5000 + "d"}, "expires_in"), (b'{"name":"x","scopes":["read"],"expires_in":NaN}', ""),
        ({**GOOD, "token": "mine"}, "token"), ({**GOOD, "digest": "x"}, "digest"),
        (b'{"name":' + b"[" * 100_000, ""),
    ],
)  # fmt: skip
@pytest.mark.asyncio
async def test_a_token_that_can_not_be_made_is_a_400_that_names_the_field(
    guarded: tuple[System, str], body: object, names: str
) -> None:
    ours, admin = guarded

    answer = await call(ours, "POST", "/v1/tokens", admin, body)

    assert answer.status == 400, answer
    assert names in str(answer.json["detail"])


@pytest.mark.parametrize("overlap", ["x", -1, "31d", [], None, 1e300])
@pytest.mark.asyncio
async def test_an_overlap_that_is_none_is_a_400_that_names_it(
    guarded: tuple[System, str], overlap: object
) -> None:
    ours, admin = guarded
    identity = admin.split("_")[1]

    answer = await call(ours, "POST", f"/v1/tokens/{identity}/rotate", admin, {"overlap": overlap})

    assert answer.status == 400
    assert "overlap" in answer.json["detail"]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["read", "90d", "0s"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "scopes", "expires_in", "overlap", "x"]), inner),
    max_leaves=8,
)  # fmt: skip
FEW = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.asyncio
async def test_no_junk_makes_the_token_routes_fail(guarded: tuple[System, str]) -> None:
    ours, admin = guarded
    identity = admin.split("_")[1]
    asked: list[tuple[str, str, object, bytes]] = []

    @FEW
    @given(st.sampled_from(["/v1/tokens", f"/v1/tokens/{identity}/rotate", "/v1/tokens/%00", "/v1/tokens/" + "0" * 5000]),
           st.sampled_from(["POST", "GET", "DELETE", "PUT", "HEAD"]), JUNK, st.binary(max_size=80))  # fmt: skip
    def collect(path: str, method: str, body: object, header: bytes) -> None:
        asked.append((method, path, body, header))

    collect()
    for method, path, body, header in asked:
        good = await call(ours, method, path, admin, body)
        odd = await ours.request(method, path, [b"{}"], [(b"authorization", header)])
        assert good.status < 500, (method, path, body, good)
        assert odd.status == 401, (method, path, header, odd)


# Several gateways, and the writer away


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_another_gateway_knows_a_new_token_at_once_and_a_revoked_one_within_a_second(
    guarded: tuple[System, str],
) -> None:
    ours, admin = guarded
    async with another_gateway(ours) as other:
        assert (await call(other, "GET", "/v1/incidents", WORDS)).status == 401
        await asyncio.sleep(LOOK_AGAIN_S)
        made = await create(ours, "p", "read", by=admin)

        at_once = await call(other, "GET", "/v1/incidents", made["token"])
        await call(ours, "DELETE", f"/v1/tokens/{made['id']}", admin)
        async with asyncio.timeout(FOLLOW_S + 2):
            while (await call(other, "GET", "/v1/incidents", made["token"])).status != 401:
                await asyncio.sleep(0.02)

        assert at_once.status == 200


@pytest.mark.asyncio
async def test_a_gateway_that_meets_a_bug_in_the_log_hears_the_next_revocation(
    guarded: tuple[System, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, admin = guarded
    made = await create(ours, "p", "read", by=admin)
    async with another_gateway(ours) as other:
        assert (await call(other, "GET", "/v1/incidents", made["token"])).status == 200
        met = asyncio.Event()

        async def last_seq() -> int:
            monkeypatch.undo()
            met.set()
            raise ZeroDivisionError

        monkeypatch.setattr(other.gateway.station.tail._event_log, "last_seq", last_seq)
        await met.wait()
        await call(ours, "DELETE", f"/v1/tokens/{made['id']}", admin)

        async with asyncio.timeout(FOLLOW_S + 2):
            while (await call(other, "GET", "/v1/incidents", made["token"])).status != 401:
                await asyncio.sleep(0.02)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_tokens_are_checked_while_their_writer_is_away_and_changes_are_a_503() -> None:
    async with system(server={"hold": 0.2}) as ours:
        admin = (await create(ours, "admin", "admin"))["token"]
        ours.cluster.kill(bootstrap.CONTROL_ACTOR)

        read = await call(ours, "GET", "/v1/incidents", admin)
        sent = await ours.post("/v1/alerts", [alert("A")], headers=bearer(admin))
        made = await call(ours, "POST", "/v1/tokens", admin, {"name": "p", "scopes": ["read"]})

        assert (read.status, sent.status, made.status) == (200, 202, 503)
        assert made.headers["retry-after"] == "1"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_a_killed_writer_comes_back_with_every_token(kind: str, tmp_path: Path) -> None:
    async with system(SqliteStores(tmp_path) if kind == "sqlite" else MemoryStores()) as ours:
        admin = (await create(ours, "admin", "admin"))["token"]
        made = await create(ours, "p", "read", by=admin, expires_in="1h")
        killed = ours.cluster.kill(bootstrap.CONTROL_ACTOR)
        assert isinstance(killed, ControlActor) and killed._tasks
        for task in killed._tasks:
            task.cancel()

        await ours.cluster.restart(bootstrap.CONTROL_ACTOR)
        more = await create(ours, "q", "read", by=admin)

        listed = json.loads((await call(ours, "GET", "/v1/tokens", admin)).body)["items"]
        assert [each["name"] for each in listed] == ["admin", "p", "q"]
        answers = [(await call(ours, "GET", "/v1/incidents", each["token"])).status for each in (made, more)]
        assert answers == [200, 200]


class FailsOnce:
    """Faults of a memory log: one append fails, before or after it happened."""

    def __init__(self, when: str) -> None:
        self.when = when
        self.armed = False

    async def before(self, operation: str) -> None:
        await self._at("before", operation)

    async def after(self, operation: str) -> None:
        await self._at("after", operation)

    async def _at(self, when: str, operation: str) -> None:
        if self.armed and when == self.when and operation == "log.append":
            self.armed = False
            raise OutcomeUnknown("the disk went away")


class FaultyControl(MemoryStores):
    """Memory stores whose control log has these faults."""

    def __init__(self, faults: FailsOnce) -> None:
        super().__init__()
        self.faults = faults

    def log(self, partition: str) -> EventLog:
        if partition == "control":
            return MemoryEventLog(self.control_store, partition, self.faults)
        return super().log(partition)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.asyncio
async def test_a_token_whose_append_failed_is_made_once_all_the_same(when: str) -> None:
    faults = FailsOnce(when)
    async with system(FaultyControl(faults)) as ours:
        admin = (await create(ours, "admin", "admin"))["token"]
        faults.armed = True

        made = await create(ours, "p", "read", by=admin)

        assert not faults.armed
        listed = json.loads((await call(ours, "GET", "/v1/tokens", admin)).body)["items"]
        assert [each["name"] for each in listed] == ["admin", "p"]
        assert (await call(ours, "GET", "/v1/incidents", made["token"])).status == 200


@pytest.mark.asyncio
async def test_the_last_use_of_a_token_is_told_and_kept(guarded: tuple[System, str]) -> None:
    ours, admin = guarded
    made = await create(ours, "p", "ingest:v1", by=admin)
    await ours.post("/v1/alerts", [alert("A")], headers=bearer(made["token"]))

    uses = ours.gateway.guard.take_uses()
    await ours.gateway.station.tell_control(TokensSeen(uses))
    await ours.gateway.station.look()

    assert set(uses) == {made["id"], admin.split("_")[1]}
    listed = json.loads((await call(ours, "GET", "/v1/tokens", admin)).body)["items"]
    assert all(each["last_used_at"] for each in listed)
    assert (await ours.post("/v1/alerts", [alert("A")], headers=bearer(made["token"]))).status == 202


# Secrets


@pytest.mark.asyncio
async def test_no_secret_is_in_anything_that_is_written_answered_or_stored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    caplog.set_level(logging.DEBUG)
    answers: list[Reply] = []
    try:
        async with system(SqliteStores(tmp_path)) as ours:
            made = [await create(ours, "admin", "admin")]
            admin = made[0]["token"]
            made.append(await create(ours, "p", "ingest:v1", by=admin))
            rotated = await call(ours, "POST", f"/v1/tokens/{made[1]['id']}/rotate", admin, {"overlap": "0s"})
            made.append(json.loads(rotated.body))
            for secret in (each["token"] for each in made):
                for method, path in [("GET", "/v1/tokens"), ("GET", "/metrics"), ("GET", "/v1/incidents"),
                                     ("GET", "/api/v2/status"), ("POST", "/v1/tokens"), ("DELETE", "/v1/tokens/x"),
                                     ("POST", "/v1/alerts"), ("POST", "/api/v2/alerts"), ("GET", f"/v1/tokens/{secret[:6]}")]:  # fmt: skip
                    answers.append(await call(ours, method, path, secret, {"labels": {}}))
                    answers.append(
                        await ours.post(path, b"x", headers={"Authorization": f"Bearer {secret}x"})
                    )
                    answers.append(await ours.post(path, b"x", headers={"Authorization": f"Token {secret}"}))
    finally:
        structlog.reset_defaults()

    out, err = capfd.readouterr()
    everything = "".join(
        (out, err, caplog.text, *(f"{each.headers}{each.body!r}" for each in answers))
    ).encode()
    everything += b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    keys = [each["token"].split("_", 2)[2].encode() for each in made]
    assert b"TokenCreated" in everything and b"partition=control" in everything
    assert not [key for key in keys if key in everything]


@pytest.mark.asyncio
async def test_what_a_gateway_remembers_of_a_token_is_not_its_secret(guarded: tuple[System, str]) -> None:
    ours, admin = guarded
    await call(ours, "GET", "/v1/incidents", admin)

    remembered = repr(vars(ours.gateway.guard)) + repr(vars(ours.gateway.station.tail.state))

    assert ours.gateway.guard._known
    assert admin.split("_", 2)[2] not in remembered
