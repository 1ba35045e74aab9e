"""Plain requests and tokens: what a stranger sends is not learned, and a head that was learned lets nobody in by itself."""

from __future__ import annotations

import json

import pytest

from services.ingest.doors import hot
from services.ingest.formats.alertmanager import AlertmanagerFormat
from tests.api.gateway_in_process import System, alert, system
from tests.api.on_wire import connected, raw
from tests.api.test_format_doors import token

pytestmark = pytest.mark.asyncio

PATH = "/api/v2/alerts"
HEADERS = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]


async def sent(ours: System, secret: str, name: str = "A", *more: tuple[bytes, bytes]) -> int:
    headers = [*HEADERS, *more, (b"authorization", f"Bearer {secret}".encode())]
    protocol, wire = connected(ours.gateway.app, ours.gateway.hot)
    protocol.data_received(raw("POST", PATH, headers, json.dumps([alert(name)]).encode()))
    ((status, _headers, _body),) = await wire.answers()
    return status


async def test_what_strangers_send_is_not_learned_and_pushes_nothing_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hot, "HEADS_MAX", 3)
    async with system() as ours:
        secret = await token(ours, "ingest:alertmanager")
        way = ours.gateway.hot
        assert [await sent(ours, secret) for _ in range(3)] == [200] * 3
        taken = way.taken
        assert taken and len(way._heads) == 1

        for number in range(10):
            assert await sent(ours, f"llmim_0123456789ab_{number:043}") == 401
        assert await sent(ours, secret) == 200

        assert way.taken == taken + 1 and len(way._heads) == 1


async def test_past_the_bound_the_oldest_head_goes_and_one_that_is_there_pushes_nothing_out(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "HEADS_MAX", 3)
    way = ours.gateway.hot
    for number in (1, 2, 3):
        await sent(ours, "", "A", (b"x-client", b"%d" % number))
    kept = list(way._heads)
    # It is left to HttpDoor, and its head is met again.
    monkeypatch.setattr(hot, "AT_ONCE_BYTES", 0)
    await sent(ours, "", "A", (b"x-client", b"1"))
    assert list(way._heads) == kept
    await sent(ours, "", "A", (b"x-client", b"4"))
    assert list(way._heads)[:2] == kept[1:]


async def test_a_revoked_and_an_expired_token_are_refused_at_once() -> None:
    async with system() as ours:
        admin = (await ours.post("/v1/tokens", {"name": "admin", "scopes": ["admin"]})).json
        by_admin = {"Authorization": f"Bearer {admin['token']}"}

        async def made(name: str, **more: object) -> tuple[str, str]:
            wanted = {"name": name, "scopes": ["ingest:alertmanager"], **more}
            found = (await ours.post("/v1/tokens", wanted, headers=by_admin)).json
            return found["token"], found["id"]

        gone, gone_id = await made("gone")
        late, _late_id = await made("late", expires_in="1h")
        stays, _stays_id = await made("stays")
        for secret in (gone, late, stays):
            assert [await sent(ours, secret) for _ in range(3)] == [200] * 3
        taken = ours.gateway.hot.taken
        assert taken

        deleted = await ours.request(
            "DELETE",
            f"/v1/tokens/{gone_id}",
            [b""],
            [(b"authorization", by_admin["Authorization"].encode())],
        )
        assert deleted.status in (200, 204)
        ours.clock.heard_s += 3601
        assert await sent(ours, gone) == 401
        assert await sent(ours, late) == 401
        assert await sent(ours, stays) == 200


async def test_a_bug_in_reading_is_answered_as_by_the_old_way(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await sent(ours, "") == 200

    def broken(*_given: object) -> object:
        raise RuntimeError("a bug")

    monkeypatch.setattr(AlertmanagerFormat, "steps", broken)
    assert await sent(ours, "") == 500
    monkeypatch.undo()
    assert await sent(ours, "") == 200
    assert ours.gateway.http._requests == 0 and ours.gateway.http._room.held == 0
