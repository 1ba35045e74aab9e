"""What a web page can make a browser do here: by a name that leads here, by a WebSocket, across origins."""

from __future__ import annotations

import pytest
import websockets

from services.api.v1.tokens import SCOPES
from tests.api.gateway_in_process import JSON, Reply, System, alert, system
from tests.api.test_guard import bearer, create, guarded

__all__ = ["guarded"]

ON_SHARED = pytest.mark.asyncio(loop_scope="module")

STREAM = "/v1/stream/incidents"
#: Each a door, a read or a change; with what a page of ours would send.
CALLS = [
    ("POST", "/v1/tokens", b'{"name":"x","scopes":["admin"]}'),
    ("GET", "/v1/tokens", b""),
    ("GET", "/v1/incidents", b""),
    ("GET", "/api/v2/alerts", b""),
    ("GET", "/api/v2/status", b""),
    ("POST", "/api/v2/alerts", b'[{"labels":{"alertname":"A"}}]'),
    ("POST", "/v1/alerts", b'[{"labels":{"alertname":"A"}}]'),
    ("POST", "//v1/alerts/", b'[{"labels":{"alertname":"A"}}]'),
    ("POST", "/v1/config/reload", b"{}"),
    ("GET", STREAM, b""),
    ("GET", "/metrics", b""),
    ("GET", "/nothing", b""),
]
PROBES = ["/health/live", "/health/ready", "/-/healthy", "/-/ready", "/openapi.json"]


async def by_name(
    ours: System, host: str | None, method: str, path: str, body: bytes = b"", **more: str
) -> Reply:
    headers = [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in more.items()]
    if body:
        headers.append((b"content-type", JSON.encode()))
    if host is not None:
        headers.append((b"host", host.encode("latin-1")))
    return await ours.request(method, path, [body], headers, host=None)


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
@pytest.mark.parametrize(
    "host", ["evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", ""]
)
@ON_SHARED
async def test_without_tokens_a_name_that_its_owner_points_here_gets_nothing(
    shared: System, method: str, path: str, body: bytes, host: str
) -> None:
    answer = await by_name(shared, host, method, path, body, origin=f"http://{host}")

    assert answer.status == 403
    assert b"server.hosts" in answer.body
    assert "A" not in await shared.names()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8080", "192.0.2.7", "[::1]:8080", "localhost", "LOCALHOST.:8080", "llm.localhost:8080", None],
)
@ON_SHARED
async def test_addresses_and_the_machines_own_names_are_served(shared: System, host: str | None) -> None:
    answers = [
        await by_name(shared, host, "GET", "/v1/incidents"),
        await by_name(shared, host, "POST", "/v1/alerts", b'[{"labels":{"alertname":"B"}}]'),
    ]

    assert [each.status for each in answers] == [200, 202]


@pytest.mark.asyncio
async def test_a_name_that_the_settings_give_is_served_and_no_other() -> None:
    async with system(server={"hosts": ["Alerts.example"]}) as ours:
        named = [
            await by_name(ours, "alerts.EXAMPLE:8080", "GET", "/v1/incidents"),
            await by_name(ours, "alerts.example", "POST", "/api/v2/alerts", b"[]"),
        ]
        other = await by_name(ours, "x.alerts.example", "GET", "/v1/incidents")

    assert ([each.status for each in named], other.status) == ([200, 200], 403)


@pytest.mark.parametrize("path", PROBES)
@ON_SHARED
async def test_probes_are_answered_by_any_name(shared: System, path: str) -> None:
    assert (await by_name(shared, "evil.example", "GET", path)).status == 200


@pytest.mark.asyncio
async def test_with_tokens_any_name_will_do(guarded: tuple[System, str]) -> None:
    ours, admin = guarded

    answer = await by_name(ours, "alerts.example", "GET", "/v1/incidents", authorization=f"Bearer {admin}")

    assert answer.status == 200


# WebSockets


async def status_of(port: int, origin: str, host: str, **headers: str) -> int:
    """Of a WebSocket's opening: 101 when it is taken. The library names the host itself, so this writes its own."""
    import asyncio

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(
        f"GET {STREAM} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n".encode()
    )
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://LOCALHOST:8080", "localhost:8080", 101),
        ("http://localhost:8080", "LOCALHOST:8080", 101),
        ("https://localhost", "localhost:443", 101),
        ("https://localhost:443", "localhost", 101),
        ("http://127.0.0.1:80", "127.0.0.1", 101),
        ("http://[::1]:8080", "[0:0:0:0:0:0:0:1]:8080", 101),
        ("https://wall.example", "127.0.0.1:8080", 101),
        ("https://WALL.example:443", "127.0.0.1:8080", 101),
        ("http://wall.example", "127.0.0.1:8080", 403),
        ("https://wall.example:444", "127.0.0.1:8080", 403),
        ("http://localhost:8081", "localhost:8080", 403),
        ("http://localhost", "localhost:8080", 403),
        ("https://evil.example", "localhost:8080", 403),
        ("http://localhost:8080@evil.example", "localhost:8080", 403),
        ("null", "localhost:8080", 403),
    ],
)
@pytest.mark.asyncio
async def test_a_websockets_origin_is_compared_as_one(origin: str, host: str, status: int) -> None:
    async with system(server={"origins": ["https://wall.example"]}) as ours:
        assert await status_of(await ours.listen(), origin, host) == status


@pytest.mark.asyncio
async def test_a_page_of_another_site_can_not_use_credentials_that_a_browser_keeps(
    guarded: tuple[System, str],
) -> None:
    ours, admin = guarded
    port = await ours.listen()

    elsewhere = await status_of(port, "https://evil.example", f"127.0.0.1:{port}", **bearer(admin))

    assert elsewhere == 403
    async with websockets.connect(
        f"ws://127.0.0.1:{port}{STREAM}",
        additional_headers={**bearer(admin), "Origin": f"http://127.0.0.1:{port}"},
    ) as client:
        assert '"ready"' in str(await client.recv())


# CORS

WALL = "https://wall.example"


@ON_SHARED
async def test_without_the_setting_no_page_elsewhere_is_let_read(shared: System) -> None:
    answer = await by_name(shared, "127.0.0.1", "GET", "/v1/incidents", origin=WALL)
    asked = await by_name(
        shared, "127.0.0.1", "OPTIONS", "/v1/incidents", origin=WALL, access_control_request_method="GET"
    )

    assert (answer.status, asked.status) == (200, 405)
    assert not any(name.startswith("access-control") for name in {**answer.headers, **asked.headers})


@pytest.mark.parametrize("path", ["/v1/incidents", "/v1/alerts", "/api/v2/alerts", "/health/ready"])
@pytest.mark.asyncio
async def test_a_page_that_the_settings_name_may_ask_and_read(path: str) -> None:
    async with system(server={"origins": ["https://WALL.example:443"]}) as ours:
        read = await by_name(ours, "127.0.0.1", "GET", path, origin=WALL)
        asked = await by_name(
            ours, "127.0.0.1", "OPTIONS", path, origin=WALL, access_control_request_method="POST",
            access_control_request_headers="authorization, content-type, if-match, idempotency-key",
        )  # fmt: skip
        other = await by_name(ours, "127.0.0.1", "GET", path, origin="https://evil.example")

    assert read.headers["access-control-allow-origin"] == asked.headers["access-control-allow-origin"] == WALL
    assert "access-control-allow-credentials" not in asked.headers
    assert asked.status == 200 and "POST" in asked.headers["access-control-allow-methods"]
    assert "access-control-allow-origin" not in other.headers
    assert "Origin" in read.headers["vary"]


@pytest.mark.asyncio
async def test_a_page_that_is_named_can_send_alerts_and_reads_why_it_was_refused() -> None:
    async with system(server={"origins": [WALL]}) as ours:
        stored = await ours.post("/v1/alerts", [alert("A")], headers={"Origin": WALL})
        await create(ours, "admin", *SCOPES)
        refused = await ours.post("/v1/alerts", [alert("A")], headers={"Origin": WALL})

    assert (stored.status, refused.status) == (202, 401)
    assert (
        stored.headers["access-control-allow-origin"]
        == refused.headers["access-control-allow-origin"]
        == WALL
    )


@pytest.mark.parametrize(
    ("origin", "is_let"),
    [("HTTPS://Wall.example:443", True), ("https://wall.example:444", False), ("null", False)],
)
@pytest.mark.asyncio
async def test_a_page_that_is_named_is_known_however_its_origin_is_written(origin: str, is_let: bool) -> None:
    async with system(server={"origins": [WALL]}) as ours:
        read = await by_name(ours, "127.0.0.1", "GET", "/v1/incidents", origin=origin)
        asked = await by_name(
            ours, "127.0.0.1", "OPTIONS", "/v1/incidents", origin=origin,
            access_control_request_method="POST", access_control_request_private_network="true",
        )  # fmt: skip

    told = [each.headers.get("access-control-allow-origin") for each in (read, asked)]
    assert (told, asked.status) == (([origin] * 2, 200) if is_let else ([None] * 2, 400))
    # What a verb says of itself is for pages as well.
    assert "Incident-Changed" in read.headers["access-control-expose-headers"]
