"""Requests as they lie on the wire: trailers, headers that are there twice, headers that do not come."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from services.machine import http_protocol
from tests.api.gateway_in_process import System, alert
from tests.api.test_guard import WORDS, bearer, create, guarded

__all__ = ["guarded"]
pytestmark = pytest.mark.asyncio

BODY = b'[{"labels":{"alertname":"Down"}}]'


async def exchange(port: int, *parts: bytes) -> bytes:
    """All that is answered to these parts, sent one after the other, until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # Who is refused by its headers may hear of it before its body is sent.
    with contextlib.suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01 if len(parts) > 1 else 0)
    answer = await reader.read()
    writer.close()
    return answer


async def first_line(port: int, *parts: bytes) -> bytes:
    """The status line of what is answered to these parts."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.01)
    line = await reader.readline()
    writer.close()
    return line


def chunked(path: str, headers: str, trailers: str) -> list[bytes]:
    """A POST whose body comes in a chunk, with trailers behind it."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{headers}"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    return [head.encode(), b"%x\r\n%b\r\n" % (len(BODY), BODY), f"0\r\n{trailers}\r\n".encode()]


@pytest.mark.parametrize("apart", [False, True], ids=["in one packet", "apart"])
@pytest.mark.parametrize("path", ["/v1/alerts", "/api/v2/alerts"])
async def test_a_token_in_a_trailer_is_none(guarded: tuple[System, str], path: str, apart: bool) -> None:
    ours, admin = guarded
    port = await ours.listen()

    parts = chunked(path, "", f"Authorization: Bearer {admin}\r\n")
    line = await first_line(port, *(parts if apart else [b"".join(parts)]))

    assert line.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    "trailer", ["Authorization: Bearer " + WORDS, "Content-Encoding: gzip", "Content-Type: text/plain", "Host: evil.example"]
)  # fmt: skip
async def test_a_trailer_takes_the_place_of_no_header(guarded: tuple[System, str], trailer: str) -> None:
    ours, admin = guarded
    port = await ours.listen()

    parts = chunked("/v1/alerts", f"Authorization: Bearer {admin}\r\n", f"{trailer}\r\n")

    assert (await first_line(port, b"".join(parts))).startswith(b"HTTP/1.1 202")


async def test_the_request_after_one_with_trailers_has_its_own_headers(guarded: tuple[System, str]) -> None:
    ours, admin = guarded
    port = await ours.listen()
    first = b"".join(chunked("/v1/alerts", "", "X-Nothing: 1\r\n"))
    second = (
        f"GET /v1/incidents HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {admin}\r\nConnection: close\r\n\r\n"
    )

    answer = await exchange(port, first, second.encode())

    assert answer.startswith(b"HTTP/1.1 401") and b"HTTP/1.1 200" in answer


ONCE = ["Authorization", "Content-Type", "Content-Encoding", "Host", "Origin"]


@pytest.mark.parametrize("name", ONCE)
@pytest.mark.parametrize(
    "path", ["/v1/alerts", "/api/v2/alerts", "/v1/tokens", "/v1/incidents", "/health/live"]
)
async def test_of_a_header_that_may_be_there_once_two_are_refused_everywhere(
    guarded: tuple[System, str], path: str, name: str
) -> None:
    ours, admin = guarded
    given = [(name.lower().encode(), b"gzip"), (name.lower().encode(), b"gzip")]
    key = [] if name == "Authorization" else [(b"authorization", f"Bearer {admin}".encode())]

    answer = await ours.request("POST", path, [BODY], [*key, *given], host=None)

    assert answer.status == 400
    assert f"{name}: expected this header once".encode() in answer.body


@pytest.mark.parametrize("good_first", [True, False])
@pytest.mark.parametrize(
    "path", ["/v1/alerts", "/api/v2/alerts", "/v1/incidents", "/api/v2/silences", "/v1/stream/incidents"]
)
async def test_of_two_tokens_neither_is_taken(
    guarded: tuple[System, str], path: str, good_first: bool
) -> None:
    ours, admin = guarded
    both = [(b"authorization", f"Bearer {each}".encode()) for each in (admin, WORDS)]
    both = both if good_first else both[::-1]

    posted = await ours.request("POST", path, [BODY], [*both, (b"content-type", b"application/json")])
    read = await ours.request("GET", path, [b""], both)

    assert (posted.status, read.status) == (400, 400)
    assert admin.encode() not in posted.body + read.body


async def test_headers_that_may_be_there_often_are_taken(ours: System) -> None:
    often = [
        (b"accept", b"text/plain"),
        (b"accept", b"*/*"),
        (b"x-forwarded-for", b"a"),
        (b"x-forwarded-for", b"b"),
    ]

    posted = await ours.post("/v1/alerts", [alert("A")], headers=often)

    assert posted.status == 202
    assert (await ours.request("GET", "/v1/incidents", [b""], often)).status == 200


@pytest.mark.parametrize(
    "sent", [b"", b"GET /health/live HT", b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-Slow: "]
)
async def test_a_connection_whose_headers_do_not_come_is_closed(
    ours: System, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEADERS_S", 0.2)
    port = await ours.listen()

    async with asyncio.timeout(10):
        assert await exchange(port, sent) == b""


async def test_headers_of_a_later_request_must_come_in_time_too(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEADERS_S", 0.5)
    port = await ours.listen()

    async with asyncio.timeout(10):
        answer = await exchange(
            port, b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /health/live HTTP/1.1\r\nHo"
        )

    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_body_and_a_pause_between_requests_may_take_longer_than_headers(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEADERS_S", 0.2)
    port = await ours.listen()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST /v1/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

    for _ in range(2):
        writer.write(head % len(BODY))
        await asyncio.sleep(0.6)
        writer.write(BODY)
        line = await reader.readline()
        assert line.startswith(b"HTTP/1.1 202")
        head_text = await reader.readuntil(b"\r\n\r\n")
        size = next(
            int(each.split(b":")[1])
            for each in head_text.split(b"\r\n")
            if each.lower().startswith(b"content-length")
        )
        await reader.readexactly(size)
        await asyncio.sleep(0.6)
    writer.close()


# What an answer tells, and what it does not


async def test_401_says_the_same_of_an_id_that_is_known_and_of_one_that_is_not(
    guarded: tuple[System, str],
) -> None:
    ours, admin = guarded
    known = f"llmim_{admin.split('_')[1]}_" + "w" * 43
    revoked = await create(ours, "gone", "read", by=admin)
    await ours.request(
        "DELETE", f"/v1/tokens/{revoked['id']}", [b""], [(b"authorization", f"Bearer {admin}".encode())]
    )

    said = []
    for secret in (known, WORDS, revoked["token"], "nonsense"):
        answers = [
            await ours.post("/v1/alerts", [alert("A")], headers=bearer(secret)),
            await ours.request(
                "GET", "/v1/incidents", [b""], [(b"authorization", f"Bearer {secret}".encode())]
            ),
        ]
        assert [each.status for each in answers] == [401, 401]
        said.append([each.json["detail"] for each in answers])

    assert all(each == said[0] for each in said)


async def test_who_is_refused_is_in_the_log_with_where_it_came_from_and_counted(
    guarded: tuple[System, str], capsys: pytest.CaptureFixture[str]
) -> None:
    ours, admin = guarded
    reader = (await create(ours, "wall", "read", by=admin))["token"]
    from_afar = {"X-Forwarded-For": "10.0.0.1, 192.0.2.7"}
    capsys.readouterr()

    await ours.post("/v1/alerts", [alert("A")], headers={**bearer(WORDS), **from_afar})
    await ours.post("/v1/alerts", [alert("A")], headers={**bearer(reader), **from_afar})
    await ours.post("/v1/incidents", {}, headers={**bearer(reader), **from_afar})
    await ours.get("/v1/incidents")

    lines = [line for line in capsys.readouterr().out.splitlines() if "request refused" in line]
    assert len(lines) == 4
    assert all("192.0.2.7" in line and "10.0.0.1" not in line for line in lines[:3])
    assert ["status=401" in line for line in lines] == [True, False, False, True]
    assert "door=v1" in lines[0] and f"token_id={WORDS.split('_')[1]}" in lines[0]
    assert "'wall'" in lines[1] and "token=wall" in lines[2] and "path=/v1/incidents" in lines[2]
    assert WORDS not in "".join(lines) and reader not in "".join(lines)
    page = (
        await ours.request("GET", "/metrics", [b""], [(b"authorization", f"Bearer {admin}".encode())])
    ).body
    for door, reason in (
        ("v1", "unauthorized"),
        ("v1", "forbidden"),
        ("api", "unauthorized"),
        ("api", "forbidden"),
    ):
        assert f'door="{door}",reason="{reason}"}} 1'.encode() in page


async def test_a_flood_of_refused_requests_fills_no_log(
    guarded: tuple[System, str], capsys: pytest.CaptureFixture[str]
) -> None:
    ours, _admin = guarded
    capsys.readouterr()

    for _ in range(300):
        await ours.get("/v1/incidents")

    lines = [line for line in capsys.readouterr().out.splitlines() if "request refused" in line]
    assert 1 <= len(lines) < 100


# Targets that name a host


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://evil.example", "127.0.0.1", 400),
        ("http://127.0.0.1", "evil.example", 400),
        ("http://evil.example", "evil.example", 403),
        ("http://evil.example", None, 403),
        ("http://someone@evil.example:8080", "127.0.0.1", 400),
        ("http://LOCALHOST.:80", "localhost", 200),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", 200),
        ("http://[::1]", None, 200),
        ("", "127.0.0.1", 200),
    ],
)
async def test_a_host_in_the_target_counts(ours: System, target: str, host: str | None, status: int) -> None:
    port = await ours.listen()
    named = "" if host is None else f"Host: {host}\r\n"

    line = await first_line(port, f"GET {target}/v1/incidents HTTP/1.1\r\n{named}\r\n".encode())

    assert int(line.split()[1]) == status
