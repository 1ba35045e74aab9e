"""The live stream over real sockets: what is told, from where on, to whom, and what is said of the stream itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from models.errors import Damaged
from models.partition.frames import digest_of
from models.stream.cursor import Cursor, encode_cursor
from services.api.stream import stream
from services.api.stream.params import SSE
from services.feed import follow, tail, watch
from services.stores.memory.log import MemoryEventLog
from tests.api.gateway_in_process import (
    FIRST_SHARD_SERVICE,
    SECOND_SHARD_SERVICE,
    MemoryStores,
    System,
    alert,
)

pytestmark = pytest.mark.asyncio

PATH = "/v1/stream/incidents"
Message = dict[str, Any]
#: Long enough for a busy machine; nothing is measured by it.
PATIENCE_S = 15.0


class Stream:
    """One client: messages in the order they came, however they came."""

    def __init__(self, read: Callable[[], Awaitable[Message]]) -> None:
        self.read = read
        self.seen: list[Message] = []

    async def next(self, event: str = "incident") -> Message:
        """The next message of this kind; others are passed over and kept."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = await self.read()
                self.seen.append(message)
                if message["event"] == event:
                    return message

    async def take(self, count: int) -> list[Message]:
        return [await self.next() for _ in range(count)]

    async def until(self, kind: str) -> list[Message]:
        """Everything told up to and with the first of this kind."""
        found = [await self.next()]
        while found[-1]["kind"] != kind:
            found.append(await self.next())
        return found


@contextlib.asynccontextmanager
async def by_sse(
    port: int, query: dict[str, object] | None = None, headers: dict[str, str] | None = None
) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"GET {target(query)} HTTP/1.1", "Host: 127.0.0.1", f"Accept: {SSE}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert head.startswith("http/1.1 200"), head
    assert "content-type: text/event-stream" in head
    gathered = bytearray()

    async def read() -> Message:
        while True:
            event, found, rest = gathered.partition(b"\n\n")
            if not found:
                size = int((await reader.readline()).strip(), 16)
                chunk = await reader.readexactly(size)
                await reader.readline()
                if not size:
                    raise EOFError
                gathered.extend(chunk)
                continue
            gathered[:] = rest
            fields = dict(line.split(": ", 1) for line in event.decode().split("\n"))
            if "data" not in fields:
                assert fields == {"retry": str(stream.RETRY_MS)}
                continue
            message: Message = json.loads(fields["data"])
            assert (fields["event"], fields["id"]) == (message["event"], message["cursor"])
            return message

    try:
        yield Stream(read)
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def by_websocket(
    port: int, query: dict[str, object] | None = None, headers: dict[str, str] | None = None
) -> AsyncIterator[Stream]:
    url = f"ws://127.0.0.1:{port}{target(query)}"
    async with websockets.connect(url, additional_headers=headers) as connection:
        yield of(connection)


def of(connection: ClientConnection) -> Stream:
    async def read() -> Message:
        message: Message = json.loads(await connection.recv())
        return message

    return Stream(read)


def target(query: dict[str, object] | None) -> str:
    return PATH + ("?" + urlencode(query, doseq=True, quote_via=quote) if query else "")


TRANSPORTS = pytest.mark.parametrize("transport", [by_sse, by_websocket], ids=["sse", "websocket"])
Transport = Callable[..., contextlib.AbstractAsyncContextManager[Stream]]


async def fire(ours: System, *names: str, service: str = FIRST_SHARD_SERVICE, **labels: str) -> None:
    answer = await ours.post("/v1/alerts", [alert(name, service, **labels) for name in names])
    assert answer.status == 202, answer


async def end(ours: System, name: str, **labels: str) -> None:
    answer = await ours.post("/v1/alerts", [{**alert(name, **labels), "status": "resolved"}])
    assert answer.status == 202, answer


@TRANSPORTS
async def test_an_incident_is_told_from_its_beginning_to_its_end(ours: System, transport: Transport) -> None:
    async with transport(await ours.listen()) as client:
        ready = await client.next("ready")
        await fire(ours, "Down", team="ml")
        told = await client.until("StateChanged")
        await end(ours, "Down", team="ml")
        (resolved,) = await client.until("Resolved")
        rest = await client.until("TaskPlanned")

    timeline = (await ours.get(f"/v1/incidents/{resolved['incident']['id']}/timeline")).items
    shown = (await ours.get(f"/v1/incidents/{resolved['incident']['id']}")).json
    assert isinstance(shown, dict)
    assert [(each["at"], each["kind"], each["actor"], each["text"]) for each in [*told, resolved, *rest]] == [
        (line["timestamp"], line["event_type"], line["actor"], line["description"]) for line in timeline
    ]
    assert len({message["cursor"] for message in [ready, *told, resolved, *rest]}) == 6
    assert resolved["incident"] == {
        name: shown[name]
        for name in (
            "id", "service", "title", "severity", "state", "incident_type", "labels", "assignees", "updated_at",
        )
    } | {"version": resolved["incident"]["version"]}  # fmt: skip
    assert (resolved["details"], resolved["reason"]) == ({"method": "Automated"}, "all its alerts ended")


@TRANSPORTS
async def test_a_client_that_comes_back_misses_nothing_and_hears_nothing_twice(
    stored: System, transport: Transport
) -> None:
    port = await stored.listen()
    async with transport(port) as client:
        await client.next("ready")
        for number in range(4):
            await fire(
                stored, f"Alert{number}", service=(FIRST_SHARD_SERVICE, SECOND_SHARD_SERVICE)[number % 2]
            )
        whole = await client.take(12)

    # Away after each message, those in the middle of a frame among them: the tail ends and begins in between.
    for place, message in enumerate(whole):
        async with transport(port, {"cursor": message["cursor"]}) as client:
            rest = await client.take(len(whole) - place - 1)
            beside = {each["cursor"] for each in client.seen if each["event"] != "ready"}

        assert sorted(map(identity, rest)) == sorted(map(identity, whole[place + 1 :]))
        assert len(beside) == len(rest)


def identity(message: Message) -> tuple[str, str, str]:
    return (message["incident"]["id"], message["at"], message["kind"])


async def test_last_event_id_goes_before_the_cursor_of_the_address(ours: System) -> None:
    port = await ours.listen()
    async with by_sse(port) as client:
        first = await client.next("ready")
        await fire(ours, "Down")
        told = await client.take(3)

    async with by_sse(port, {"cursor": first["cursor"]}, {"Last-Event-ID": told[1]["cursor"]}) as client:
        (rest,) = await client.take(1)

    assert identity(rest) == identity(told[2])


@TRANSPORTS
async def test_only_what_is_wanted_is_told(ours: System, transport: Transport) -> None:
    query = {
        "kind": ["created", "RESOLVED"],
        "match": ['team=~"m.*"', "zone!=b"],
        "service": ["api", "other"],
    }
    async with transport(await ours.listen(), query) as client:
        await client.next("ready")
        await fire(ours, "Other", team="web")
        await fire(ours, "Elsewhere", service=SECOND_SHARD_SERVICE, team="ml")
        await fire(ours, "Zoned", team="ml", zone="b")
        await fire(ours, "Down", team="ml")
        await end(ours, "Other", team="web")
        await fire(ours, "Last", team="ml")
        told = await client.take(2)

    assert [(each["kind"], each["incident"]["title"]) for each in told] == [
        ("Created", "Down (api)"),
        ("Created", "Last (api)"),
    ]


async def test_an_incident_is_seen_leaving_a_filter_by_who_has_just_come(ours: System) -> None:
    port = await ours.listen()
    await fire(ours, "Down")
    async with by_sse(port) as client:
        await client.next("ready")
        await fire(ours, "Mark")
        await client.until("StateChanged")

    # Nobody watched when it opened, and the tail remembers nothing of it.
    async with by_sse(port, {"state": "triaged"}) as client:
        await client.next("ready")
        await end(ours, "Down")
        (told,) = await client.take(1)

    assert (told["kind"], told["incident"]["state"], told["details"]) == (
        "Resolved",
        "Resolved",
        {"method": "Automated"},
    )


@TRANSPORTS
async def test_a_quiet_stream_says_that_it_is_there(
    ours: System, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "HEARTBEAT_S", 0.05)
    async with transport(await ours.listen(), {"kind": "Split"}) as client:
        ready = await client.next("ready")
        await fire(ours, "Down")
        beats = [await client.next("heartbeat")]
        while beats[-1]["cursor"] == ready["cursor"] or beats[-1]["behind"]:
            beats.append(await client.next("heartbeat"))

    # Its cursor goes on, though nothing was told: who is quiet for days does not fall behind.
    assert beats[-1]["stalled"] == {}


@TRANSPORTS
async def test_a_cursor_whose_frames_are_gone_is_reset_by_name_and_goes_on(
    ours: System, transport: Transport
) -> None:
    port = await ours.listen()
    async with transport(port) as client:
        old = await client.next("ready")
    for number in range(5):
        await fire(ours, f"Alert{number}")
    truncate(ours, "shard/0000", 3)

    async with transport(port, {"cursor": old["cursor"], "kind": "created"}) as client:
        reset = await client.next("reset")
        await fire(ours, "Afterwards")
        (told,) = await client.take(1)

    assert reset["reason"] == "truncated"
    assert "list the incidents again" in reset["detail"]
    assert told["incident"]["title"] == "Afterwards (api)"


def truncate(ours: System, partition: str, up_to: int) -> None:
    """Drop the first appends, as a shard does behind its snapshots."""
    assert isinstance(ours.stores, MemoryStores)
    kept = ours.stores.store.partition(partition)
    while kept.appends[0].last_seq <= up_to:
        dropped = kept.appends.pop(0)
        assert dropped.frames is not None
        kept.anchor_seq, kept.anchor_digest = dropped.last_seq, digest_of(dropped.frames[-1])


async def test_a_client_too_far_behind_is_reset(ours: System, monkeypatch: pytest.MonkeyPatch) -> None:
    port = await ours.listen()
    async with by_sse(port) as client:
        old = await client.next("ready")
    monkeypatch.setattr(watch, "MAX_LAG_FRAMES", 3)
    for number in range(5):
        await fire(ours, f"Alert{number}")

    async with by_sse(port, {"cursor": old["cursor"]}) as client:
        reset = await client.next("reset")

    assert reset["reason"] == "behind"


@pytest.mark.parametrize(
    ("cursor", "reason"), [(Cursor(7, (1, 1)), "slots"), (Cursor(1, (10**6, 1)), "unknown")]
)
async def test_a_cursor_that_fits_no_log_of_ours_any_more_is_reset(
    ours: System, cursor: Cursor, reason: str
) -> None:
    async with by_sse(await ours.listen(), {"cursor": encode_cursor(cursor)}) as client:
        reset = await client.next("reset")
        await fire(ours, "Down")
        (told, *_rest) = await client.take(1)

    assert (reset["reason"], told["kind"]) == (reason, "Created")


async def test_a_burst_larger_than_what_is_held_is_told_whole(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "HELD_MAX", 20)
    monkeypatch.setattr(follow, "READ_BYTES", 2000)
    async with by_sse(await ours.listen(), {"kind": "created"}) as client:
        await client.next("ready")
        for start in range(0, 300, 100):
            await fire(ours, *[f"Alert{number}" for number in range(start, start + 100)])
        told = await client.take(300)

    assert [each["incident"]["title"] for each in told] == [f"Alert{number} (api)" for number in range(300)]


async def test_a_slow_reader_is_let_go_by_name_and_resumes_without_a_gap(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SLOW_S", 0.3)
    monkeypatch.setattr(stream, "LAST_WORD_S", PATIENCE_S)
    port = await ours.listen()
    async with by_sse(port, {"kind": "created"}) as client:
        await client.next("ready")
        # More than the buffers of a socket take: each incident brings 30 kB of labels.
        names = [f"Alert{number}" for number in range(400)]
        for name in names:
            await fire(ours, name, **{f"label{number}": "x" * 1000 for number in range(30)})
        await let_go(ours, "slow")
        dropped = await client.next("dropped")
        with pytest.raises(EOFError):
            await client.read()
        seen = [each for each in client.seen if each["event"] == "incident"]

    async with by_sse(port, {"kind": "created", "cursor": dropped["cursor"]}) as client:
        rest = await client.take(len(names) - len(seen))

    assert dropped["reason"] == "slow"
    assert 0 < len(seen) < len(names)
    assert [each["incident"]["title"] for each in seen + rest] == [f"{name} (api)" for name in names]


async def let_go(ours: System, reason: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while f'llm_im_stream_dropped_total{{actor="gateway-test",reason="{reason}"}}' not in (
            (await ours.get("/metrics")).body.decode()
        ):
            await asyncio.sleep(0.1)


@TRANSPORTS
async def test_clients_hear_that_their_gateway_leaves(ours: System, transport: Transport) -> None:
    async with transport(await ours.listen()) as client:
        await client.next("ready")
        await ours.gateway.tails.stop()
        dropped = await client.next("dropped")
        ended: type[Exception] = EOFError if transport is by_sse else websockets.ConnectionClosed
        with pytest.raises(ended) as closed:
            await client.read()

    assert dropped["reason"] == "leaving"
    if isinstance(closed.value, websockets.ConnectionClosed):
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "leaving")


@TRANSPORTS
async def test_a_client_whose_token_is_revoked_hears_no_more(
    ours: System, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "CHECK_S", 0.0)
    admin = bearer(await token(ours, "admin"))
    sender = bearer(await token(ours, "ingest:*", headers=admin))
    reader = await token(ours, "read", headers=admin)
    port = await ours.listen()

    async with transport(port, {"kind": "created"}, bearer(reader)) as client:
        ready = await client.next("ready")
        key = (b"authorization", admin["Authorization"].encode())
        revoked = await ours.request("DELETE", f"/v1/tokens/{reader['id']}", [b""], [key])
        await ours.post("/v1/alerts", [alert("Secret")], headers=sender)
        dropped = await client.next("dropped")

    assert revoked.status == 204
    assert (dropped["reason"], dropped["cursor"]) == ("token", ready["cursor"])
    assert all(each["event"] != "incident" for each in client.seen)


@pytest.mark.parametrize("origin", ["https://mallory.example", "http://127.0.0.1:1", "null"])
async def test_without_tokens_a_page_of_another_site_can_not_listen(ours: System, origin: str) -> None:
    port = await ours.listen()
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(f"ws://127.0.0.1:{port}{PATH}", additional_headers={"Origin": origin})

    assert refused.value.response.status_code == 403
    async with by_websocket(port, headers={"Origin": f"http://127.0.0.1:{port}"}) as client:
        await client.next("ready")


async def test_a_websocket_asks_for_the_scope_of_reads(ours: System) -> None:
    admin = bearer(await token(ours, "admin"))
    sender = bearer(await token(ours, "ingest:*", headers=admin))
    url = f"ws://127.0.0.1:{await ours.listen()}{PATH}"

    for headers, status in (({}, 401), (sender, 403)):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(url, additional_headers=headers)
        assert refused.value.response.status_code == status


@TRANSPORTS
async def test_who_watched_without_a_token_is_let_go_when_tokens_are_asked_for(
    ours: System, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "CHECK_S", 0.0)
    monkeypatch.setattr(watch, "HEARTBEAT_S", 0.05)
    async with transport(await ours.listen()) as client:
        await client.next("ready")
        await token(ours, "admin")
        dropped = await client.next("dropped")

    assert dropped["reason"] == "token"


async def token(ours: System, scope: str, headers: dict[str, str] | None = None) -> dict[str, str]:
    body = {"name": scope.replace("*", "any"), "scopes": [scope]}
    answer = await ours.post("/v1/tokens", body, headers=headers or {})
    assert answer.status == 201, answer
    made: dict[str, str] = json.loads(answer.body)
    return made


def bearer(made: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {made['token']}"}


@TRANSPORTS
async def test_matchers_that_are_too_much_work_end_their_own_stream_only(
    ours: System, transport: Transport
) -> None:
    port = await ours.listen()
    query = {"kind": "created", "match": 'text=~".*(a|b|c)(.{40}){20}"'}
    async with transport(port, {"kind": "created"}) as other, transport(port, query) as client:
        await other.next("ready")
        ready = await client.next("ready")
        await fire(ours, "Down", text="abc" * 900)
        dropped = await client.next("dropped")
        (told,) = await other.take(1)

    assert (dropped["reason"], dropped["cursor"]) == ("matchers", ready["cursor"])
    assert told["incident"]["title"] == "Down (api)"


async def test_more_clients_than_a_gateway_takes_are_asked_to_come_again(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "CLIENTS_MAX", 1)
    port = await ours.listen()
    async with by_sse(port) as client:
        await client.next("ready")
        refused = await ours.get(PATH)
        with pytest.raises(websockets.InvalidStatus) as turned_away:
            await websockets.connect(f"ws://127.0.0.1:{port}{PATH}")

    assert (refused.status, refused.headers["retry-after"]) == (503, "5")
    assert turned_away.value.response.status_code == 503
    while ours.gateway.tails._watches:  # until it is seen that the first one left
        await asyncio.sleep(0.01)
    async with by_sse(port) as client:
        await client.next("ready")


async def test_nothing_is_read_while_nobody_watches(ours: System) -> None:
    port = await ours.listen()
    async with by_websocket(port) as client:
        await client.next("ready")
        assert ours.gateway.tails._tasks
    async with asyncio.timeout(PATIENCE_S):
        while ours.gateway.tails._tasks:
            await asyncio.sleep(0.01)

    assert 'llm_im_stream_clients{actor="gateway-test"} 0' in (await ours.get("/metrics")).body.decode()


async def test_a_stream_goes_on_over_a_crash_of_its_shard(ours: System) -> None:
    async with by_sse(await ours.listen(), {"kind": "created"}) as client:
        await client.next("ready")
        await fire(ours, "Before")
        await ours.crash(ours.shards[0])
        await fire(ours, "Other", service=SECOND_SHARD_SERVICE)
        await ours.cluster.restart(ours.shards[0])
        await ours.ready()
        await fire(ours, "After")
        told = await client.take(3)

    assert sorted(each["incident"]["title"] for each in told) == ["After (api)", "Before (api)", "Other (db)"]


async def test_a_damaged_log_stops_its_own_events_only_and_is_named(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "HEARTBEAT_S", 0.2)
    async with by_sse(await ours.listen(), {"kind": "created"}) as client:
        await client.next("ready")
        log = ours.gateway.tails.logs[0].event_log
        assert isinstance(log, MemoryEventLog)

        async def fails(*_arguments: object) -> list[tuple[int, bytes]]:
            raise Damaged("shard/0000", 5, "checksum does not match")

        monkeypatch.setattr(log, "read", fails)
        await fire(ours, "Hidden")
        await fire(ours, "Shown", service=SECOND_SHARD_SERVICE)
        (told,) = await client.take(1)
        beat = await client.next("heartbeat")

    assert told["incident"]["title"] == "Shown (db)"
    assert list(beat["stalled"]) == ["shard/0000"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("cursor=nonsense", "cursor"),
        ("cursor=" + "A" * 70_000, "cursor"),
        ("cursor=" + encode_cursor(Cursor(1, (1, 1, 1))), "cursor"),
        ("state=open", "state"),
        ("severity=P9", "severity"),
        ("type=Weather", "type"),
        ("kind=Guessed", "kind"),
        ("match=a", "match"),
        ("match=" + quote('a=~"["'), "match"),
        ("match=" + quote('a=~"(x{1000}){1000}"'), "match"),
        ("&".join(["service=a"] * 200), "service"),
    ],
)
async def test_what_can_not_be_read_is_refused_with_its_name_in_both_forms(
    shared: System, query: str, field: str
) -> None:
    answer = await shared.get(f"{PATH}?{query}")
    problem = answer.json
    assert isinstance(problem, dict)
    port = await shared.listen()
    if len(query) < 60_000:  # longer than a request line may be
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"ws://127.0.0.1:{port}{PATH}?{query}")
        assert refused.value.response.status_code == 400
        assert json.loads(bytes(refused.value.response.body or b""))["detail"] == problem["detail"]

    assert answer.status == 400
    assert problem["detail"].startswith(field)


@pytest.mark.parametrize(
    "cursor",
    [
        "nonsense",
        "A" * 20_000,
        encode_cursor(Cursor(1, (1, 1, 1))),
        encode_cursor(Cursor(1, (1,))),
        "\xe4",
        "!",
        "MTIz",
    ],
    ids=["words", "long", "more partitions", "fewer", "not ASCII", "not base64", "something else"],
)
@pytest.mark.parametrize("place", ["last-event-id", "cursor"])
async def test_a_browser_whose_cursor_can_not_be_read_hears_a_reset_and_goes_on(
    ours: System, cursor: str, place: str
) -> None:
    headers = {"Last-Event-ID": cursor.encode().decode("latin-1")} if place == "last-event-id" else {}
    query: dict[str, object] = {"cursor": cursor} if place == "cursor" else {}

    async with by_sse(await ours.listen(), query, headers) as client:
        await client.next("ready")
        reset = await client.next("reset")
        await fire(ours, "Later")
        (told,) = await client.take(1)

    assert (reset["reason"], told["incident"]["title"][:5]) == ("unknown", "Later")


async def test_a_browser_for_which_there_is_no_place_is_told_so_and_to_come_back(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "CLIENTS_MAX", 0)
    given = [(b"accept", b"text/event-stream"), (b"last-event-id", b"here")]

    answer = await ours.request("GET", PATH, [b""], given)

    assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
    lines = answer.body.decode().splitlines()
    assert lines[:2] == [f"retry: {stream.BUSY_RETRY_MS}", "event: dropped"]
    word = json.loads(lines[2].removeprefix("data: "))
    assert (word["reason"], word["cursor"]) == ("busy", "here")
    assert not any(line.startswith("id:") for line in lines)


@TRANSPORTS
async def test_a_quiet_stream_ends_soon_after_its_token(ours: System, transport: Transport) -> None:
    admin = bearer(await token(ours, "admin"))
    reader = await token(ours, "read", headers=admin)

    async with transport(await ours.listen(), {}, bearer(reader)) as client:
        await client.next("ready")
        began = asyncio.get_running_loop().time()
        key = (b"authorization", admin["Authorization"].encode())
        await ours.request("DELETE", f"/v1/tokens/{reader['id']}", [b""], [key])
        dropped = await client.next("dropped")
        took_s = asyncio.get_running_loop().time() - began

    assert dropped["reason"] == "token"
    assert took_s < 5  # half a second here; a heartbeat, which is what it waited for, comes after 10 s


async def test_another_form_than_events_is_not_acceptable(shared: System) -> None:
    answer = await shared.request("GET", PATH, [b""], [(b"accept", b"application/json, text/html;q=0.5")])

    assert answer.status == 406


async def test_both_forms_are_described(shared: System) -> None:
    document = (await shared.get("/openapi.json")).json
    assert isinstance(document, dict)
    described = document["paths"][PATH]["get"]

    schema = described["responses"]["200"]["content"][SSE]["schema"]
    assert {each["$ref"].rpartition("/")[2] for each in schema["anyOf"]} <= set(
        document["components"]["schemas"]
    )
    assert "WebSocket" in described["description"]
    assert {each["name"] for each in described["parameters"]} == {
        "state", "severity", "type", "service", "match", "kind", "cursor", "last-event-id",
    }  # fmt: skip
