"""Plain requests are answered in the HTTP protocol itself (services/ingest/doors/hot.py), and by the same words: what is there of
it on the wire. What becomes of their alerts is tested both ways elsewhere (fixture `both_ways`)."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from uvicorn.server import ServerState

from models.errors import Malformed
from services.ingest.doors import hot
from services.ingest.doors import http as http_door
from services.ingest.formats.alertmanager import AlertmanagerFormat
from services.machine.http_protocol import Protocol
from tests.api import gateway_in_process
from tests.api.front_door import FrontDoor
from tests.api.gateway_in_process import SqliteStores, System, alert, system
from tests.api.on_wire import Wire, connected, known, raw

pytestmark = pytest.mark.asyncio

PATH = "/api/v2/alerts"
HEADERS = [
    (b"host", b"127.0.0.1"),
    (b"user-agent", b"Prometheus/2.42.0"),
    (b"content-type", b"application/json"),
]


def request(*alerts: dict[str, object], headers: Sequence[tuple[bytes, bytes]] = HEADERS) -> bytes:
    return raw("POST", PATH, headers, json.dumps(alerts).encode())


def open_to(ours: System, *, learned: bool = True, state: ServerState | None = None) -> tuple[Protocol, Wire]:
    """A connection on which requests with HEADERS are plain."""
    way = ours.gateway.hot
    if learned:
        known(way, "POST", PATH, HEADERS, b"[]")
    return connected(ours.gateway.app, way, state)


def under_way(ours: System) -> tuple[int, int]:
    return ours.gateway.http._requests, ours.gateway.http._room.held


async def test_the_second_request_with_a_head_is_plain_whatever_its_length_and_sender(ours: System) -> None:
    way = ours.gateway.hot
    for number in range(3):
        protocol, wire = open_to(ours, learned=False)
        protocol.data_received(request(alert(f"A{number}" * (number + 1))))
        assert [status for status, _headers, _body in await wire.answers()] == [200]

    assert way.taken == 2
    assert len(await ours.names()) == 3
    assert under_way(ours) == (0, 0)


async def test_both_ways_answer_alike_on_the_wire(ours: System) -> None:
    state = ServerState()
    state.default_headers = [(b"date", b"Mon, 30 Nov 2026 08:00:00 GMT"), (b"server", b"uvicorn")]
    protocol, wire = open_to(ours, learned=False, state=state)
    for _ in range(2):
        protocol.data_received(request(alert("A")))
        await wire.answers(len(wire._cut()) + 1)

    assert ours.gateway.hot.taken == 1
    first, second = wire.sent[: len(wire.sent) // 2], wire.sent[len(wire.sent) // 2 :]
    assert first == second
    assert state.total_requests == 2


async def test_requests_in_one_packet_are_answered_in_their_order(ours: System) -> None:
    protocol, wire = open_to(ours)
    get = b"GET /-/healthy HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    protocol.data_received(request(alert("A")))
    protocol.data_received(get + request(alert("B")))
    protocol.data_received(request({"labels": {}}) + get)

    answers = await wire.answers(5)

    assert [status for status, _headers, _body in answers] == [200, 200, 200, 400, 200]
    assert not wire.is_paused
    assert await ours.names() == {"A", "B"}


async def test_while_one_is_answered_no_more_is_read(ours: System) -> None:
    protocol, wire = open_to(ours)
    protocol.data_received(request(alert("A")))
    seen = [wire.is_paused]
    protocol.data_received(request(alert("B"))[:30])
    seen.append(wire.is_paused)

    await wire.answers(1)
    assert [*seen, wire.is_paused] == [False, True, False]
    protocol.data_received(request(alert("B"))[30:])
    assert [status for status, _headers, _body in await wire.answers(2)] == [200, 200]


async def test_a_request_in_any_two_pieces_is_a_request(ours: System) -> None:
    data = request(alert("Cut"))
    for at in range(1, len(data), 7):
        protocol, wire = open_to(ours)
        protocol.data_received(data[:at])
        await asyncio.sleep(0)
        protocol.data_received(data[at:])
        assert [status for status, _headers, _body in await wire.answers()] == [200], at
    assert ours.gateway.hot.taken == 0


async def test_a_body_that_looks_like_a_request_is_a_body(ours: System) -> None:
    """Also when its own request is answered before it has come whole."""
    inside = request(alert("Smuggled"))
    before, behind = len(b"POST /nowhere"), 0
    head = b"POST /nowhere HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % (
        len(inside) + before + behind
    )
    protocol, wire = open_to(ours)
    protocol.data_received(head + b"x" * before)
    await wire.answers()
    protocol.data_received(inside)
    await asyncio.sleep(0.05)

    assert len(wire._cut()) == 1
    assert ours.gateway.hot.taken == 0
    assert await ours.names() == set()


NOT_PLAIN: dict[str, bytes] = {
    "chunked": b"POST /api/v2/alerts HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    b"2\r\n[]\r\n0\r\n\r\n",
    "HTTP/1.0": b"POST /api/v2/alerts HTTP/1.0\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]",
    "a query": raw("POST", f"{PATH}?a=b", HEADERS, b"[]"),
    "another slash": raw("POST", f"/{PATH}", HEADERS, b"[]"),
    "another path": raw("POST", "/v1/alerts", HEADERS, b"[]"),
    "another method": raw("GET", PATH, HEADERS, b"[]"),
    "another type": raw("POST", PATH, [(b"host", b"127.0.0.1"), (b"content-type", b"text/plain")], b"[]"),
    "no type": raw("POST", PATH, [(b"host", b"127.0.0.1")], b"[]"),
    "a space more": raw("POST", PATH, [*HEADERS, (b"x-odd", b" two before")], b"[]"),
    "an absolute target": raw("POST", f"http://127.0.0.1{PATH}", HEADERS, b"[]"),
    **{
        name: raw("POST", PATH, [*HEADERS, (name.encode(), value)], b"[]")
        for name, value in {
            "connection": b"close",
            "content-encoding": b"identity",
            "expect": b"100-continue",
            "host": b"127.0.0.1",
            "idempotency-key": b"once",
            "origin": b"http://127.0.0.1",
            "te": b"trailers",
            "traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "upgrade": b"websocket",
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_PLAIN)
async def test_anything_unusual_goes_the_old_way_each_time(ours: System, name: str) -> None:
    way = ours.gateway.hot
    before = way.taken
    statuses = []
    for _ in range(3):
        protocol, wire = connected(ours.gateway.app, way)
        protocol.data_received(NOT_PLAIN[name])
        statuses += [status for status, _headers, _body in await wire.answers()]

    assert len(statuses) == 3 and len(set(statuses)) == 1
    assert way.taken == before


async def test_a_head_that_the_parser_read_otherwise_is_not_learned(ours: System) -> None:
    """A line folded, a bare line feed: what is between our own ends of a head is not what the parser saw."""
    for odd in (b"x-a: 1\r\n 2", b"x-a: 1\nx-b: 2", b"x-a:1"):
        data = request(alert("A")).replace(b"user-agent: Prometheus/2.42.0", odd)
        for _ in range(2):
            protocol, wire = connected(ours.gateway.app, ours.gateway.hot)
            protocol.data_received(data)
            await wire.answers()

    assert ours.gateway.hot.taken == 0


async def test_what_is_remembered_of_heads_is_bounded_and_holds_no_secret(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "HEADS_MAX", 5)
    secret = b"Bearer llmim_0123456789abcdef"
    for number in range(20):
        headers = [*HEADERS, (b"x-forwarded-for", b"10.0.0.%d" % number), (b"authorization", secret)]
        protocol, wire = connected(ours.gateway.app, ours.gateway.hot)
        protocol.data_received(request(alert("A"), headers=headers))
        await wire.answers()

    assert 0 < len(ours.gateway.hot._heads) <= 5
    assert secret not in repr(ours.gateway.hot._heads).encode()
    large = [*HEADERS, (b"x-large", b"x" * hot.HEAD_MAX_BYTES)]
    assert ours.gateway.hot.cut(request(alert("A"), headers=large)) is None


async def test_a_server_that_ends_answers_what_is_under_way_and_closes_behind_it(ours: System) -> None:
    busy, busy_wire = open_to(ours)
    idle, idle_wire = open_to(ours)
    busy.data_received(request(alert("A")))
    for each in (busy, idle):
        each.shutdown()

    assert idle_wire.is_closing() and not busy_wire.is_closing()
    ((status, headers, _body),) = await busy_wire.answers()
    assert (status, headers["connection"]) == (200, "close")
    assert busy_wire.is_closing()
    assert await ours.names() == {"A"}


async def test_a_sender_that_goes_away_leaves_nothing_behind_and_its_alerts_are_stored(ours: System) -> None:
    protocol, wire = open_to(ours)
    protocol.data_received(request(alert("A")))
    assert under_way(ours)[0] == 1
    wire.close()
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        while under_way(ours) != (0, 0):
            await asyncio.sleep(0.005)
    assert wire.sent == b""
    assert await ours.names() == {"A"}


async def test_a_quiet_connection_is_closed_after_its_time_and_a_busy_one_is_not(ours: System) -> None:
    protocol, wire = open_to(ours)
    protocol.timeout_keep_alive = 0.05  # type: ignore[assignment]
    await ours.crash(ours.shards[0])
    protocol.data_received(request(alert("A")))
    await asyncio.sleep(0.2)
    assert not wire.is_closing()
    await ours.cluster.restart(ours.shards[0])

    await wire.answers()
    await wire.until(wire.is_closing)


async def test_a_connection_that_is_used_at_once_is_not_cut_by_the_time_for_headers(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.machine.http_protocol.HEADERS_S", 0.05)
    protocol, wire = open_to(ours)
    protocol.data_received(request(alert("A")))
    await wire.answers()
    await asyncio.sleep(0.15)

    assert not wire.is_closing()


async def test_the_bounds_of_requests_and_bodies_hold_for_both_ways_together(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_door, "REQUESTS_MAX", 3)
    await ours.crash(ours.shards[0])
    waiting = [open_to(ours) for _ in range(3)]
    for number, (protocol, _wire) in enumerate(waiting):
        protocol.data_received(request(alert(f"A{number}")))
    protocol, wire = open_to(ours)
    protocol.data_received(request(alert("B")))

    ((status, headers, _body),) = await wire.answers()
    assert status == 503 and headers["retry-after"]
    assert not ours.gateway.http.has_room(1, "anonymous")
    await ours.cluster.restart(ours.shards[0])
    for _protocol, each in waiting:
        assert [status for status, _headers, _body in await each.answers()] == [200]
    assert under_way(ours) == (0, 0)
    assert ours.gateway.http.has_room(ours.settings.server.max_body_bytes, "anonymous")
    assert not ours.gateway.http.has_room(ours.settings.server.max_body_bytes + 1, "anonymous")


async def test_a_bug_closes_the_connection_and_leaves_nothing_behind(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_given: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(AlertmanagerFormat, "stored", broken)
    ours.gateway.station.lines[0].alerts = ours.gateway.station.lines[
        0
    ]._max_alerts  # everything is refused as Busy
    protocol, wire = open_to(ours)
    protocol.data_received(request(alert("A")))
    await wire.until(wire.is_closing)
    ours.gateway.station.lines[0].alerts = 0

    assert wire.sent == b""
    assert under_way(ours) == (0, 0)


async def test_a_format_that_refuses_all_of_it_says_so_the_old_way(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_given: object) -> object:
        raise Malformed("not like this")

    monkeypatch.setattr(AlertmanagerFormat, "steps", refuses)
    protocol, wire = open_to(ours)
    protocol.data_received(request(alert("A")))

    ((status, _headers, body),) = await wire.answers()
    assert status == 400 and b"not like this" in body
    assert ours.gateway.hot.taken == 0 and under_way(ours) == (0, 0)


# -- many at once ------------------------------------------------------------------------------------------


def sent_by(number: int) -> tuple[list[dict[str, object]], int]:
    """A request of sender `number`, and the status it should get."""
    name = f"S{number}"
    kinds: list[tuple[list[dict[str, object]], int]] = [
        ([alert(name)], 200),
        ([alert(name), alert(f"{name}b", "db")], 200),
        ([alert(name), {"labels": {}}], 400),
        ([{"labels": {"alertname": ""}}], 400),
        ([], 200),
        ([alert(f"{name}-{at}", "db" if at % 2 else "api") for at in range(20)], 200),
    ]
    return kinds[number % len(kinds)]


async def storm(ours: System, senders: int) -> set[str]:
    """What is firing after each of so many senders was answered twice as it should be, all at once."""

    async def one(number: int) -> None:
        alerts, wanted = sent_by(number)
        protocol, wire = open_to(ours)
        for count in (1, 2):
            protocol.data_received(request(*alerts))
            assert (await wire.answers(count))[-1][0] == wanted, (number, wire.sent)

    await asyncio.gather(*(one(number) for number in range(senders)))
    assert under_way(ours) == (0, 0)
    return {
        str(each["labels"]["alertname"])  # type: ignore[index]
        for number in range(senders)
        for each in sent_by(number)[0]
        if (each["labels"] or {}).get("alertname")  # type: ignore[attr-defined]
    }


async def test_of_hundreds_at_once_each_gets_its_own_answer_and_all_is_stored(stored: System) -> None:
    wanted = await storm(stored, 300)

    assert await stored.names() == wanted
    assert stored.gateway.hot.taken > 300


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_with_shards_that_die_in_the_middle_all_are_answered_and_nothing_is_lost(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ingest.line.CALL_TIMEOUT_S", 0.3)
    stores = SqliteStores(tmp_path) if kind == "sqlite" else None
    async with system(stores, server={"hold": 60.0}) as ours:
        sending = asyncio.ensure_future(storm(ours, 300))
        for shard in ours.shards * 2:
            await asyncio.sleep(0.02)
            await ours.crash(shard)
            await ours.cluster.restart(shard)
        wanted = await sending
        await ours.ready()

        assert await ours.names() == wanted
        # A group each: one that was opened twice would show as two.
        listed: list[Any] = []
        page = "/v1/incidents?limit=100"
        while page:
            found = (await ours.get(page)).json
            listed += found["items"]
            page = f"/v1/incidents?limit=100&cursor={found['next']}" if found.get("next") else ""
        assert len(listed) == len(wanted)


# -- through the front door --------------------------------------------------------------------------------


async def test_what_haproxy_passes_on_is_plain(ours: System, tmp_path: Path) -> None:
    with FrontDoor(tmp_path) as door:
        door.start([await ours.listen()])

        def post(count: int) -> list[int]:
            connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=5)
            statuses = []
            for number in range(count):
                body = json.dumps([alert(f"A{number}")])
                connection.request("POST", PATH, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
            connection.close()
            return statuses

        assert await asyncio.to_thread(post, 20) == [200] * 20
    assert ours.gateway.hot.taken == 19
    assert len(await ours.names()) == 20


async def test_the_suites_that_run_both_ways_do(ours: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_in_process, "WAY", "hot")
    assert (await ours.post(PATH, [alert("A")])).status == 200
    assert (await ours.post(PATH, [{"labels": {}}])).status == 400

    assert ours.gateway.hot.taken == 1
