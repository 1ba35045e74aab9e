"""Alerts over a WebSocket: each frame is answered by its id, nothing is stored twice, and nobody holds up his neighbour."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from actors.runtime.ending import end
from services.ingest.doors import websocket as door
from tests.api.gateway_in_process import System, system

PATH = door.PATH


@contextlib.asynccontextmanager
async def opened(
    port: int, query: str = "", headers: Mapping[str, str] | None = None
) -> AsyncIterator[ClientConnection]:
    url = f"ws://127.0.0.1:{port}{PATH}{query}"
    async with websockets.connect(url, additional_headers=headers) as connection:
        ready = json.loads(await connection.recv())
        assert ready == {"ready": True, "window": door.WINDOW, "max_frame_bytes": 1024 * 1024}
        yield connection


async def told(connection: ClientConnection, frame: object) -> dict[str, Any]:
    await connection.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))
    return await heard(connection)


async def heard(connection: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(10):
        found: dict[str, Any] = json.loads(await connection.recv())
        return found


def alerts(first: int, count: int, **more: object) -> list[dict[str, Any]]:
    return [{"labels": {"alertname": "A", "service": f"s{n}"}, **more} for n in range(first, first + count)]


async def names(ours: System) -> set[str]:
    return {each["labels"]["service"] for each in await ours.alerts()}


@pytest.mark.asyncio
async def test_each_frame_is_answered_by_its_id_as_a_post_would_be(ours: System) -> None:
    async with opened(await ours.listen()) as client:
        first = await told(client, {"id": "a", "alerts": alerts(0, 2)})
        again = await told(client, json.dumps({"id": 7, "alerts": alerts(0, 3)}).encode())
        mixed = await told(client, {"alerts": [*alerts(0, 1), {"labels": {}}]})

    assert (first["id"], first["status"], first["body"]["stored"]) == ("a", 202, 2)
    assert [each["decision"] for each in first["body"]["items"]] == ["opened", "opened"]
    assert (again["id"], [each["decision"] for each in again["body"]["items"]]) == (
        7,
        ["repeated", "repeated", "opened"],
    )
    assert (mixed["id"], mixed["status"], mixed["body"]["refused"]) == (None, 207, 1)
    assert len(await ours.letters()) == 1


@pytest.mark.asyncio
async def test_many_frames_at_once_are_all_stored(ours: System) -> None:
    frames = 5 * door.WINDOW
    async with opened(await ours.listen()) as client:
        for number in range(frames):
            await client.send(json.dumps({"id": number, "alerts": alerts(number * 3, 3)}))
        answers = [await heard(client) for _ in range(frames)]

    assert sorted(each["id"] for each in answers) == [*range(frames)]
    assert {each["status"] for each in answers} == {202}
    assert len(await names(ours)) == 3 * frames


@pytest.mark.asyncio
async def test_an_end_never_overtakes_its_beginning(ours: System) -> None:
    async with opened(await ours.listen()) as client:
        for number in range(40):
            await client.send(json.dumps({"id": f"{number}", "alerts": alerts(number, 1)}))
            over = {"id": f"{number} over", "alerts": alerts(number, 1, status="resolved")}
            await client.send(json.dumps(over))
        answers = {each["id"]: each for each in [await heard(client) for _ in range(80)]}

    decided = {answers[f"{number} over"]["body"]["items"][0]["decision"] for number in range(40)}
    assert decided == {"resolved"}
    assert await names(ours) == set()


@pytest.mark.asyncio
async def test_a_frame_sent_again_after_a_break_is_stored_once(ours: System) -> None:
    port = await ours.listen()
    frame = {"id": 1, "alerts": alerts(0, 2)}
    async with opened(port, "?stream=edge-7") as client:
        before = await told(client, frame)
    over = alerts(0, 2, status="resolved")
    async with opened(port, "?stream=edge-7") as client:
        await told(client, {"id": 2, "alerts": over})
        # What it opened is over by now: taken anew it would open it again.
        after = await told(client, frame)
        unnamed = await told(client, {"alerts": over})
    async with opened(port, "?stream=edge-8") as client:
        other = await told(client, frame)

    assert {each["decision"] for each in after["body"]["items"]} <= {"duplicate", "opened"}
    assert [each["incident_id"] for each in after["body"]["items"]] == [
        each["incident_id"] for each in before["body"]["items"]
    ]
    assert (unnamed["status"], "id: expected" in unnamed["body"]["detail"]) == (400, True)
    assert {each["decision"] for each in other["body"]["items"]} == {"reopened"}


@pytest.mark.parametrize(
    ("frame", "wrong"),
    [
        ("", "truncated"),
        ("[]", "Expected `object`"),
        ('{"id":1}', "alerts"),
        ('{"id":[1],"alerts":[]}', "id"),
        ('{"id":1,"alerts":[],"alert":1}', "unknown field `alert`"),
        ('{"id":1,"alerts":7}', "expected"),
        (b"\xff\xfe\x00", "JSON"),
        ("[" * 100_000, ""),
    ],
)
@pytest.mark.asyncio
async def test_a_frame_that_cannot_be_read_is_refused_kept_and_harms_nothing(
    ours: System, frame: str | bytes, wrong: str
) -> None:
    async with opened(await ours.listen()) as client:
        refused = await told(client, frame)
        fine = await told(client, {"id": "fine", "alerts": alerts(0, 1)})

    assert (refused["status"], fine["status"]) == (400, 202)
    assert wrong in refused["body"]["detail"]
    assert len(await ours.letters()) == 1


@pytest.mark.asyncio
async def test_a_message_over_the_bound_ends_its_connection(ours: System) -> None:
    port = await ours.listen()
    async with opened(port) as client:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await told(client, "[" * (1024 * 1024 + 1))
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009  # message too big
    async with opened(port) as client:
        assert (await told(client, {"id": 1, "alerts": alerts(0, 1)}))["status"] == 202


@pytest.mark.asyncio
async def test_frames_that_were_taken_are_stored_though_their_sender_is_gone(ours: System) -> None:
    port = await ours.listen()
    client = await websockets.connect(f"ws://127.0.0.1:{port}{PATH}")
    for number in range(10):
        await client.send(json.dumps({"id": number, "alerts": alerts(number, 1)}))
    async with asyncio.timeout(10):
        while "ready" in json.loads(await client.recv()):
            pass  # what follows is the first answer
    client.transport.abort()

    async with asyncio.timeout(10):
        while ours.gateway._websocket._connections:
            await asyncio.sleep(0.01)
    assert "s0" in await names(ours)


@pytest.mark.asyncio
async def test_a_client_that_reads_no_answers_is_not_read_either_and_goes(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "SLOW_S", 0.5)
    port = await ours.listen()
    _reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
    writer.write(
        f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    body = json.dumps({"alerts": alerts(0, 500)}).encode()
    head = b"\x81\xfe" if len(body) < 65536 else b"\x81\xff"
    length = len(body).to_bytes(2 if len(body) < 65536 else 8, "big")
    frame = head + length + b"\0\0\0\0" + body

    async def send() -> None:
        while True:
            writer.write(frame)
            await writer.drain()

    sending = asyncio.create_task(send())
    async with asyncio.timeout(30):
        while not ours.gateway._websocket._connections:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        while ours.gateway._websocket._connections:
            await asyncio.sleep(0.01)
    await end([sending])
    writer.close()
    async with opened(port) as client:
        assert (await told(client, {"id": 1, "alerts": alerts(0, 1)}))["status"] == 202


async def token(ours: System, name: str, scope: str, by: str = "") -> dict[str, str]:
    headers = {"Authorization": f"Bearer {by}"} if by else {}
    made = await ours.post("/v1/tokens", {"name": name, "scopes": [scope]}, headers=headers)
    assert made.status == 201, made
    found: dict[str, str] = made.json
    return found


def bearer(made: Mapping[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {made['token']}"}


@pytest.mark.asyncio
async def test_tokens_pages_and_names_of_connections_are_checked_before_it_opens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with system() as ours:
        port = await ours.listen()
        admin = (await token(ours, "admin", "admin"))["token"]
        reads = bearer(await token(ours, "wall", "read", admin))
        good = bearer(await token(ours, "sentinel", "ingest:v1", admin))
        cases: list[tuple[int, str, Mapping[str, str]]] = [
            (401, "", {}),
            (403, "", reads),
            (403, "", {**good, "Origin": "https://elsewhere.example"}),
            (400, "?stream=", good),
            (400, "?stream=a&stream=b", good),
        ]
        for status, query, headers in cases:
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(f"ws://127.0.0.1:{port}{PATH}{query}", additional_headers=headers)
            assert refused.value.response.status_code == status
        monkeypatch.setattr(door, "CONNECTIONS_MAX", 1)
        async with opened(port, headers=good) as client:
            assert (await told(client, {"id": 1, "alerts": alerts(0, 1)}))["status"] == 202
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(f"ws://127.0.0.1:{port}{PATH}", additional_headers=good)
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["Retry-After"] == "1"


@pytest.mark.asyncio
async def test_a_token_that_is_revoked_ends_its_connection() -> None:
    async with system() as ours:
        port = await ours.listen()
        admin = (await token(ours, "admin", "admin"))["token"]
        made = await token(ours, "sentinel", "ingest:v1", admin)
        async with opened(port, headers=bearer(made)) as client:
            assert (await told(client, {"id": 1, "alerts": alerts(0, 1)}))["status"] == 202
            gone = await ours.request(
                "DELETE", f"/v1/tokens/{made['id']}", [], [(b"authorization", f"Bearer {admin}".encode())]
            )
            assert gone.status < 300, gone
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await told(client, {"id": 2, "alerts": alerts(1, 1)})
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == door.TOKEN


@pytest.mark.asyncio
async def test_a_gateway_that_stops_answers_what_it_took() -> None:
    async with system() as ours:
        async with opened(await ours.listen(), "?stream=a") as client:
            for number in range(door.WINDOW):
                await client.send(json.dumps({"id": number, "alerts": alerts(number, 1)}))
            first = await heard(client)
            await ours.gateway._websocket.stop()
            answers = [first]
            with pytest.raises(websockets.ConnectionClosed) as closed:
                while True:
                    answers.append(await heard(client))
        stored = await names(ours)
    assert {each["status"] for each in answers} == {202}
    assert stored == {f"s{each['id']}" for each in answers}
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == door.LEAVING
