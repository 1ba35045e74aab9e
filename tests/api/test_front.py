"""A gateway asks its own front door at the address that it listens on; when it can't reach it, health says so and why."""

from __future__ import annotations

import asyncio
import socket

import pytest

from services.machine.front import authority, called_at
from services.wiring import gateway
from tests.api.gateway_in_process import system

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("listens_on", "called", "written"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1:80"),
        ("127.0.0.2", "127.0.0.2", "127.0.0.2:80"),
        ("10.1.2.3", "10.1.2.3", "10.1.2.3:80"),
        ("0.0.0.0", "127.0.0.1", "127.0.0.1:80"),
        ("::", "::1", "[::1]:80"),
        ("::1", "::1", "[::1]:80"),
        ("2001:db8::7", "2001:db8::7", "[2001:db8::7]:80"),
        ("host.example", "host.example", "host.example:80"),
    ],
)
async def test_where_it_listens_says_where_it_is_called(listens_on: str, called: str, written: str) -> None:
    assert called_at(listens_on) == called
    assert authority(called, 80) == written


@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
async def test_it_asks_there(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    try:
        server = await asyncio.start_server(answer, host, 0)
    except OSError as error:
        pytest.skip(f"{host}: {error}")
    async with server, system() as ours:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setattr(ours.gateway, "_front", (host, port))

        assert await ours.gateway._front_answers()

    assert f"Host: {authority(host, port)}\r\n".encode() in asked[0]


async def test_what_keeps_it_from_its_front_door_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "BEAT_S", 0.01)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        async with system() as ours, asyncio.timeout(20):
            while (await ours.get("/health/ready")).status != 200:
                await asyncio.sleep(0.01)
            monkeypatch.setattr(ours.gateway, "_front", taken.getsockname())

            while (told := (await ours.get("/health/ready")).json)["status"] != "degraded":
                await asyncio.sleep(0.01)
            ours.gateway._started = False
            starting = await ours.get("/health/ready")

    assert f"can't reach its own front port at {place}" in told["reasons"]["front door"]
    assert starting.status == 503
    assert f"can't reach its own front port at {place}" in starting.json["reasons"]["start"]
