"""Who holds connections and shows no token keeps nobody out who has one: over gRPC, over gRPC with TLS, and over the WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from structlog.testing import capture_logs

from services.ingest.doors.grpc import connection as connections
from services.ingest.doors.grpc import door as doors
from services.ingest.doors.grpc import strangers
from services.ingest.doors.grpc.framing import framed
from services.ingest.doors.grpc.strangers import OF_ONE_MAX, STRANGERS_MAX
from tests.api.gateway_in_process import System, system
from tests.api.test_alert_stream import PATH, alerts, bearer, opened, token, told
from tests.api.test_grpc import ACCEPTED, Client, message
from tests.api.test_grpc_abuse import ONE, Raw, door_of
from tests.api.test_tls import over_grpc, submit
from tests.authority import Authority
from tests.ports import free_port

pytestmark = pytest.mark.asyncio

#: As many as there are places.
MANY = doors.CONNECTIONS_MAX
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
WATCH = "/grpc.health.v1.Health/Watch"


@contextlib.asynccontextmanager
async def holding(port: int, *said: bytes, count: int = MANY) -> AsyncIterator[list[socket.socket]]:
    """So many connections, each of which says one of these and then nothing, from as many addresses of loopback as that takes."""
    loop = asyncio.get_running_loop()
    held = [socket.socket() for _ in range(count)]
    try:
        for number, each in enumerate(held):
            each.setblocking(False)
            each.bind((f"127.0.1.{1 + number // OF_ONE_MAX}", 0))
            await loop.sock_connect(each, ("127.0.0.1", port))
            await loop.sock_sendall(each, said[number % len(said)])
        yield held
    finally:
        for each in held:
            each.close()


@contextlib.asynccontextmanager
async def guarded(**server: Any) -> AsyncIterator[tuple[System, int, dict[str, str]]]:
    """A system that asks for tokens, its gRPC port, and a token for alerts."""
    port = free_port()
    async with system(server={"grpc": True, "grpc_port": port, **server}) as ours:
        admin = (await token(ours, "admin", "admin"))["token"]
        made = await ours.post(
            "/v1/tokens",
            {"name": "sentinel", "scopes": ["ingest:llm-sentinel", "ingest:v1"]},
            headers={"Authorization": f"Bearer {admin}"},
        )
        yield ours, port, made.json


async def sends(port: int, made: dict[str, str], number: int = 1) -> int:
    """The status of an alert that is sent by a connection of its own."""
    client = Client(port)
    async with client.channel, asyncio.timeout(10):
        metadata = [("authorization", bearer(made)["Authorization"])]
        return int((await client.sentinel.SubmitAlert(message(number), metadata=metadata)).status)


async def until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def refused(ours: System, reason: str) -> float:
    key = ("llm_im_requests_refused_total", (("door", "grpc"), ("reason", reason)))
    return cast(float, cast(Any, ours.gateway.meter)._counters.get(key, 0))


async def test_with_a_token_one_gets_in_while_strangers_hold_as_many_connections_as_there_are() -> None:
    async with guarded() as (ours, port, made):
        door = door_of(ours)
        lasting = Client(port)
        metadata = [("authorization", bearer(made)["Authorization"])]
        async with lasting.channel:
            assert (await lasting.sentinel.SubmitAlert(message(0), metadata=metadata)).status == ACCEPTED
            async with holding(port, GREETING) as held:
                await until(lambda: refused(ours, "no token shown") >= MANY - STRANGERS_MAX)
                with capture_logs() as logs:
                    assert await sends(port, made) == ACCEPTED
                    assert (
                        await lasting.sentinel.SubmitAlert(message(2), metadata=metadata)
                    ).status == ACCEPTED
                    await until(lambda: any("turned away" in each["event"] for each in logs))
                assert len(door._strangers) <= STRANGERS_MAX
                # The first were told why, in HTTP/2's words.
                held[0].settimeout(10)
                assert b"no token was shown" in await asyncio.to_thread(_all_of, held[0])
            await until(lambda: len(door.connections) == 1)
        await until(lambda: not door.connections)
        assert not door._homes._held


def _all_of(held: socket.socket) -> bytes:
    found = b""
    while more := held.recv(1 << 16):
        found += more
    return found


async def test_nor_do_those_in_the_way_who_never_finish_a_tls_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, bound in ((doors, "CONNECTIONS_MAX", 128), (strangers, "STRANGERS_MAX", 32)):
        monkeypatch.setattr(module, name, bound)
    authority = Authority(tmp_path / "ca")
    client = authority.issue("prometheus")
    async with over_grpc(authority, authority.issue("server"), "ask") as (ours, port):
        door = door_of(ours)
        async with holding(port, b"", b"\x16\x03\x01\x02\x00\x01", count=128):
            await until(lambda: len(door._strangers) == 32)
            assert await submit(port, authority, client) == grpc.StatusCode.OK
        await until(lambda: not door._strangers)
        await until(lambda: not door.connections)


async def test_one_that_was_turned_away_and_says_nothing_holds_no_file_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "STRANGERS_MAX", 1)
    authority = Authority(tmp_path / "ca")
    context = ssl.create_default_context(cafile=str(authority.file))
    context.set_alpn_protocols(["h2"])

    def held(port: int) -> ssl.SSLSocket:
        found = socket.create_connection(("127.0.0.1", port), timeout=10)
        return context.wrap_socket(found, server_hostname="127.0.0.1")

    def is_closed(first: ssl.SSLSocket) -> bool:
        first.settimeout(None)
        # Beneath TLS, which would answer that it has read the end.
        with contextlib.suppress(ConnectionResetError):
            while os.read(first.fileno(), 1 << 16):
                pass
        return True

    async with over_grpc(authority, authority.issue("server"), "ask") as (ours, port):
        first = await asyncio.to_thread(held, port)
        second = await asyncio.to_thread(held, port)
        try:
            await until(lambda: len(door_of(ours)._strangers) == 1)
            async with asyncio.timeout(15):
                assert await asyncio.to_thread(is_closed, first)
        finally:
            first.close()
            second.close()


async def test_a_gateway_that_stops_does_not_wait_for_handshakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "LEAVE_S", 60.0)
    authority = Authority(tmp_path / "ca")
    async with over_grpc(authority, authority.issue("server"), "ask") as (ours, port):
        door = door_of(ours)
        async with holding(port, b"", count=20), asyncio.timeout(30):
            await until(lambda: len(door._strangers) == 20)
            await door.stop()
        assert not door.connections


async def test_a_stranger_that_asks_nothing_goes_and_who_has_shown_a_token_may_be_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doors, "LOOK_S", 0.02)
    async with guarded() as (ours, port, made):
        known, watching = await Raw.to(port), await Raw.to(port)
        known.ask(1, ONE, authorization=bearer(made)["Authorization"])
        known.h2.send_data(1, framed(message(1).SerializeToString()), end_stream=True)
        await known.flush()
        assert (await known.status())[b"grpc-status"] == b"0"
        # What needs no token is no reason to go while it lasts.
        watching.ask(1, WATCH)
        watching.h2.send_data(1, framed(b""), end_stream=True)
        await watching.flush()
        await until(lambda: door_of(ours).open_calls == 1)

        monkeypatch.setattr(connections, "STRANGER_S", 0.1)
        for _ in range(2):
            await (await Raw.to(port)).until_closed()

        assert len(door_of(ours).connections) == 2
        assert len(door_of(ours)._strangers) == 1


async def test_a_wrong_token_makes_nobody_known() -> None:
    async with guarded() as (ours, port, _made):
        raw = await Raw.to(port)
        raw.ask(1, ONE, authorization="Bearer llmim_wrong")
        raw.h2.send_data(1, framed(message(1).SerializeToString()), end_stream=True)
        await raw.flush()

        assert (await raw.status())[b"grpc-status"] == b"16"
        assert len(door_of(ours)._strangers) == 1


async def test_one_sender_leaves_connections_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "CONNECTIONS_MAX", 8)
    async with guarded() as (ours, port, made):
        raws = [await Raw.to(port) for _ in range(8)]
        statuses = []
        for raw in raws:
            raw.ask(1, ONE, authorization=bearer(made)["Authorization"])
            raw.h2.send_data(1, framed(message(1).SerializeToString()), end_stream=True)
            await raw.flush()
            statuses.append((await raw.status())[b"grpc-status"])

        assert statuses == [b"0"] * 6 + [b"14"] * 2
        # Those two are strangers still, whose places are anybody's.
        await Raw.to(port)
        assert refused(ours, "no token shown") == 1
        assert len(door_of(ours).connections) == 8


async def test_a_websocket_with_a_token_opens_while_strangers_hold_on() -> None:
    async with guarded() as (ours, _grpc, made):
        port = await ours.listen()
        begun = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        whole = f"{begun}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        async with (
            holding(port, begun.encode(), whole.encode()),
            opened(port, headers=bearer(made)) as client,
        ):
            assert (await told(client, {"id": 1, "alerts": alerts(0, 1)}))["status"] == 202
            assert len(cast(Any, ours.gateway)._websocket._connections) == 1


async def test_who_asks_whether_it_serves_is_told_though_others_use_up_what_anybody_may_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doors, "OPEN_CALLS_MAX", 6)
    async with guarded() as (ours, port, made):
        door = door_of(ours)
        one, many = await Raw.to(port), await Raw.to(port)
        for raw, streams in ((one, (1,)), (many, (1, 3, 5, 7, 9))):
            for stream in streams:
                raw.ask(stream, WATCH)
                raw.h2.send_data(stream, framed(b""), end_stream=True)
            await raw.flush()
        await until(lambda: door.open_calls == 6)

        probe = await Raw.to(port)
        probe.ask(1, "/grpc.health.v1.Health/Check")
        probe.h2.send_data(1, framed(b""), end_stream=True)
        await probe.flush()

        assert (await probe.status())[b"grpc-status"] == b"0"
        assert b"no token was shown" in await many.until_closed()
        assert len(door.connections) == 2
        assert await sends(port, made) == ACCEPTED
        await until(lambda: door.open_calls == 1)
