"""The front door: HAProxy with what services/machine/haproxy.py makes of Ray's configuration, gateways behind it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.machine import haproxy
from services.machine.closed_door import closed_door
from tests.api.event_source import CLOSED, EventSource
from tests.api.front_door import SLOW_HEADERS_S, FrontDoor, template
from tests.api.gateway_in_process import System, alert, system
from tests.ports import free_port

STREAM = "/v1/stream/incidents"
#: What a person waits for a probe; on a quiet machine it is some milliseconds.
SOON_S = 5.0


@pytest.fixture
def door(tmp_path: Path) -> Iterator[FrontDoor]:
    with FrontDoor(tmp_path, with_probes=True) as found:
        yield found


def ask(
    port: int, path: str, *, source: str = "127.0.0.1", method: str = "GET", **headers: str
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON_S, source_address=(source, 0))
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextlib.contextmanager
def idle(port: int, count: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections on which nothing more is said."""
    opened = []
    try:
        for _ in range(count):
            with contextlib.suppress(ConnectionError):  # those that are over a bound
                one = socket.create_connection(("127.0.0.1", port), timeout=SOON_S)
                opened.append(one)
                one.sendall(sent)
        yield opened
    finally:
        for each in opened:
            each.close()


def refused_soon(port: int) -> bool:
    """Whether a request is cut off within SOON_S: each thread of HAProxy counts what it took in when it comes to it, which may be
    after another thread let the next connection through."""
    until = time.monotonic() + SOON_S
    while time.monotonic() < until:
        try:
            ask(port, "/health/live")
        except (OSError, http.client.HTTPException):
            return True
    return False


async def in_thread(port: int, path: str, **more: str) -> tuple[int, bytes]:
    return await asyncio.to_thread(ask, port, path, **more)


# Connections


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "], ids=["silent", "half a request"]
)
@pytest.mark.asyncio
async def test_with_thousands_of_idle_connections_probes_and_senders_are_answered(
    ours: System, door: FrontDoor, sent: bytes
) -> None:
    door.start([await ours.listen()])

    def flooded() -> list[float]:
        with idle(door.port, 4200, sent) as opened:
            assert len(opened) == 4200
            took = []
            for port in (door.port, door.probe_port):
                began = time.monotonic()
                assert ask(port, "/health/live") == (200, b'{"status":"live"}')
                took.append(time.monotonic() - began)
            return took

    assert max(await asyncio.to_thread(flooded)) < SOON_S


@pytest.mark.asyncio
async def test_one_address_can_not_have_all_connections_and_probes_have_their_own(
    ours: System, tmp_path: Path
) -> None:
    files = haproxy.FILES_SPARE + 200 * haproxy.FILES_EACH
    with FrontDoor(tmp_path, with_probes=True, files=files) as door:
        door.start([await ours.listen()])

        def flooded() -> list[tuple[int, bytes]]:
            with idle(door.port, 150):
                assert refused_soon(door.port)
                return [
                    ask(door.port, "/health/live", source="127.0.0.2"),
                    ask(door.probe_port, "/health/live"),
                ]

        assert [status for status, _body in await asyncio.to_thread(flooded)] == [200, 200]


@pytest.mark.asyncio
async def test_the_port_for_probes_answers_probes_alone(ours: System, door: FrontDoor) -> None:
    door.start([await ours.listen()])
    paths = [
        "/health/live",
        "/health/ready",
        "/-/healthy",
        "/-/ready",
        "/v1/incidents",
        "/metrics",
        "/-/routes",
        "//v1/tokens",
    ]

    found = {path: (await in_thread(door.probe_port, path))[0] for path in paths}

    assert found == dict(zip(paths, [200] * 4 + [404] * 4, strict=True))


@pytest.mark.asyncio
async def test_headers_that_do_not_come_end_a_connection(ours: System, door: FrontDoor) -> None:
    door.start([await ours.listen()])

    def waited() -> float:
        began = time.monotonic()
        with idle(door.port, 1, b"GET / HT") as (one,):
            one.settimeout(3 * SLOW_HEADERS_S + SOON_S)
            assert b" 408 " in one.recv(4096)
        return time.monotonic() - began

    assert await asyncio.to_thread(waited) < SLOW_HEADERS_S + SOON_S


@pytest.mark.asyncio
async def test_a_body_may_take_longer_than_headers(ours: System, door: FrontDoor) -> None:
    door.start([await ours.listen()])
    body = json.dumps([alert("Slow")]).encode()
    head = f"POST /v1/alerts HTTP/1.1\r\nHost: a.localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)

    writer.write(head.encode())
    await asyncio.sleep(SLOW_HEADERS_S + 1)
    writer.write(body)

    assert b" 202 " in await reader.readline()
    writer.close()


@pytest.mark.asyncio
async def test_clear_text_http_2_is_not_spoken(ours: System, door: FrontDoor) -> None:
    door.start([await ours.listen()])
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)

    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    answer = await reader.read(4096)
    writer.close()

    assert not answer or answer.startswith(b"HTTP/1.1 4")


@pytest.mark.asyncio
async def test_who_was_refused_is_told_by_the_address_that_asked(
    ours: System, door: FrontDoor, capsys: pytest.CaptureFixture[str]
) -> None:
    door.start([await ours.listen()])

    status, _body = await in_thread(door.port, "/v1/incidents", source="127.0.0.9", Host="evil.example")

    assert status == 403
    assert "sender=127.0.0.9" in capsys.readouterr().out


@pytest.mark.asyncio
async def test_a_slash_too_many_and_packing_go_through_the_door(ours: System, door: FrontDoor) -> None:
    door.start([await ours.listen()])

    def asked() -> list[int]:
        answers = []
        for path in ("//api/v2/alerts", "/api/v2/alerts/", "//v1/alerts//"):
            connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=SOON_S)
            connection.request(
                "POST", path, json.dumps([alert("Down")]), {"Content-Type": "application/json"}
            )
            answers.append(connection.getresponse().status)
            connection.close()
        return [
            *answers,
            ask(door.port, "//v1/incidents/")[0],
            ask(door.port, "//v1/incidents/", method="HEAD")[0],
        ]

    assert await asyncio.to_thread(asked) == [200, 200, 202, 200, 200]
    assert (await in_thread(door.port, "/openapi.json", **{"Accept-Encoding": "gzip"}))[1].startswith(
        b"\x1f\x8b"
    )


@pytest.mark.parametrize("files", [1024, 4096, 20_000, 1_048_576])
def test_connections_fit_the_open_files_there_are(files: int) -> None:
    found = haproxy.connections_of(files)

    assert 1 <= found <= haproxy.CONNECTIONS_MAX
    assert found == 1 or found * haproxy.FILES_EACH + haproxy.FILES_SPARE <= files


@pytest.mark.parametrize("gateways", [[], [1], [1, 2]])
@pytest.mark.parametrize("probe_port", [None, 81])
def test_what_serve_writes_can_be_hardened_twice(
    tmp_path: Path, gateways: list[int], probe_port: int | None
) -> None:
    config = template(tmp_path, 80, gateways)

    once = haproxy.harden(config, front_host="127.0.0.1", error_file="/e", probe_port=probe_port)

    assert haproxy.harden(once, front_host="127.0.0.1", error_file="/e", probe_port=probe_port) == once
    assert f"timeout http-request {haproxy.SLOW_HEADERS_S}s" in once
    assert once.count("frontend probes") == (probe_port is not None)
    assert once.count("use_backend http-llm-im") == bool(gateways) * (2 if probe_port else 1)


# A restart, as a page in a browser sees it


@pytest.mark.asyncio
async def test_a_browsers_stream_outlives_a_restart(door: FrontDoor) -> None:
    async with EventSource(f"http://127.0.0.1:{door.port}{STREAM}") as source:
        await asyncio.sleep(0.3)  # nobody listens: a network error
        door.start([])  # HAProxy is there before a gateway is known
        while source.opened < 2:
            assert source.state != CLOSED, source.failure
            await asyncio.sleep(0.02)
        async with system() as ours:
            door.start([await ours.listen()])
            await source.heard("ready")
            await ours.post("/v1/alerts", [alert("First")])
            assert "First" in await source.heard("incident")
        # Its gateway has stopped: HAProxy has one that does not answer, then one that is down, then none.
        await asyncio.sleep(2)
        assert source.state != CLOSED, source.failure
        door.stop()
        await asyncio.sleep(0.3)
        door.start([])
        async with system() as ours:
            door.start([await ours.listen()])
            await source.heard("ready", 2)
            await ours.post("/v1/alerts", [alert("Second", service="db")])
            while "Second" not in " ".join(data for _name, data in source.events):
                assert source.state != CLOSED, source.failure
                await asyncio.sleep(0.02)


@pytest.mark.asyncio
async def test_a_browsers_stream_outlives_resharding() -> None:
    port = free_port()
    async with (
        EventSource(f"http://127.0.0.1:{port}{STREAM}") as source,
        closed_door("127.0.0.1", port) as is_closed,
    ):
        assert is_closed
        while source.opened < 2:
            assert source.state != CLOSED, source.failure
            await asyncio.sleep(0.02)
        status, body = await in_thread(port, "/v1/incidents")

    assert (status, json.loads(body)["error"]) == (503, "unavailable")


@pytest.mark.asyncio
async def test_without_a_gateway_only_an_event_stream_is_told_to_come_back_by_200(door: FrontDoor) -> None:
    def asked() -> list[tuple[int, bytes]]:
        return [
            ask(door.port, STREAM, Accept="text/event-stream"),
            ask(door.port, "//v1/stream/incidents/", Accept="text/html, Text/Event-Stream;q=0.5"),
            ask(door.port, STREAM, Accept="*/*"),
            ask(door.port, STREAM + "/x", Accept="text/event-stream"),
            ask(door.port, "/v1/incidents", Accept="text/event-stream"),
            ask(door.port, "/api/v2/alerts", method="POST"),
        ]

    for gateways in ([], [free_port()]):  # none is known; one that does not answer
        door.start(gateways)
        await asyncio.sleep(1)  # until its checks have found it down

        found = await asyncio.to_thread(asked)

        assert [status for status, _body in found] == [200, 200, 503, 503, 503, 503]
        assert found[0][1] == found[1][1] == b"retry: 2000\n\n"
