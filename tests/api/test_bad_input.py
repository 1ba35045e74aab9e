"""Whatever is sent: an answer that names what is wrong, the good neighbours stored, the next request served."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.api.gateway_in_process import JSON, NDJSON, Incomplete, Reply, System, alert, system

V2, V1 = "/api/v2/alerts", "/v1/alerts"
MiB = 1024 * 1024
SHARED = pytest.mark.asyncio(loop_scope="module")
MANY = settings(
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@dataclass(frozen=True)
class Bad:
    """An alert that can't be taken, and words that its refusal must hold. What takes long to make is made when it is sent."""

    given: str | Callable[[], str]
    words: str

    @property
    def raw(self) -> str:
        return self.given if isinstance(self.given, str) else self.given()


#: What one alert of a batch can have wrong while the batch is still JSON.
BAD_ALERTS = {
    "no labels at all": Bad("{}", "label"),
    "labels that are empty": Bad('{"labels":{}}', "label"),
    "labels that are null": Bad('{"labels":null}', "label"),
    "only empty values": Bad('{"labels":{"a":"","b":""}}', "label"),
    "labels that are an array": Bad('{"labels":["a"]}', "labels"),
    "labels that are a string": Bad('{"labels":"a=b"}', "labels"),
    "labels that are a number": Bad('{"labels":1e400}', "labels"),
    "a number as value": Bad('{"labels":{"alertname":"x","a":1}}', "labels.a"),
    "null as value": Bad('{"labels":{"a":null}}', "labels.a"),
    "an object as value": Bad('{"labels":{"a":{"b":"c"}}}', "labels.a"),
    "true as value": Bad('{"labels":{"a":true}}', "labels.a"),
    "an empty name": Bad('{"labels":{"":"x"}}', 'invalid name ""'),
    "a name of half a character": Bad('{"labels":{"a\\ud800":"x"}}', "labels"),
    "a name of 2 KB": Bad(json.dumps({"labels": {"a" * 2048: "x"}}), "labels"),
    "a value of 20 KB": Bad(json.dumps({"labels": {"a": "x" * 20_000}}), "labels.a"),
    "a label of 10 MB": Bad(lambda: json.dumps({"labels": {"a": "x" * 10_000_000}}), "labels"),
    "300 labels": Bad(json.dumps({"labels": {f"l{n}": "x" for n in range(300)}}), "labels: 300"),
    "a million labels": Bad(
        lambda: json.dumps({"labels": {f"l{n}": "" for n in range(1_000_000)}}), "labels"
    ),
    "half a surrogate pair": Bad('{"labels":{"a":"\\ud800"}}', "labels.a"),
    "the other half": Bad('{"labels":{"a":"x\\udc00y"}}', "labels.a"),
    "annotations that are a list": Bad('{"labels":{"a":"b"},"annotations":[]}', "annotations"),
    "an annotation that is a number": Bad('{"labels":{"a":"b"},"annotations":{"c":2}}', "annotations.c"),
    "an annotation of 100 KB": Bad(
        json.dumps({"labels": {"a": "b"}, "annotations": {"c": "x" * 100_000}}), "annotations.c"
    ),
    "a start of 1960": Bad('{"labels":{"a":"b"},"startsAt":"1960-01-01T00:00:00Z"}', "startsAt"),
    "a start of 2150": Bad('{"labels":{"a":"b"},"startsAt":"2150-01-01T00:00:00Z"}', "startsAt"),
    "an end of 1960": Bad('{"labels":{"a":"b"},"endsAt":"1960-01-01T00:00:00Z"}', "endsAt"),
    "the zero time of another zone": Bad(
        '{"labels":{"a":"b"},"endsAt":"0001-01-01T00:00:00+14:00"}', "endsAt"
    ),
    "a time that is a number": Bad('{"labels":{"a":"b"},"startsAt":1767323045}', "startsAt"),
    "a time that is a word": Bad('{"labels":{"a":"b"},"startsAt":"yesterday"}', "startsAt"),
    "a time that is a list": Bad('{"labels":{"a":"b"},"endsAt":[]}', "endsAt"),
    "a time of 100 KB": Bad(
        '{"labels":{"a":"b"},"startsAt":"2026-01-01T00:00:00.' + "0" * 100_000 + 'Z"}', "startsAt"
    ),
    "30 February": Bad('{"labels":{"a":"b"},"startsAt":"2026-02-30T00:00:00Z"}', "startsAt"),
    "an end before its start": Bad(
        '{"labels":{"a":"b"},"startsAt":"2026-01-02T00:00:00Z","endsAt":"2026-01-01T00:00:00Z"}', "start"
    ),
    "a generator that is a number": Bad('{"labels":{"a":"b"},"generatorURL":5}', "generator"),
    "a generator of 10 KB": Bad(
        json.dumps({"labels": {"a": "b"}, "generatorURL": "x" * 10_000}), "generator"
    ),
    "a number": Bad("1", "object"),
    "a string": Bad('"alert"', "object"),
    "null": Bad("null", "object"),
    "true": Bad("true", "object"),
    "an array": Bad("[[{}]]", "object"),
    "an array 900 deep": Bad("[" * 900 + "]" * 900, "object"),
}

#: Whole bodies that are no JSON at all, or not of the kind that is asked for.
BAD_BODIES = {
    "nothing": b"",
    "blanks": b" \r\n\t ",
    "a word": b"hello",
    "a number": b"42",
    "a string": b'"x"',
    "half an array": b'[{"labels":{"a":"b"}}',
    "half a string": b'[{"labels":{"a":"b',
    "a trailing comma": b'[{"labels":{"a":"b"}},]',
    "a leading comma": b'[,{"labels":{"a":"b"}}]',
    "two arrays": b"[][]",
    "a raw control character": b'[{"labels":{"a":"x\x01y"}}]',
    "a raw line end in a string": b'[{"labels":{"a":"x\ny"}}]',
    "NaN": b'[{"labels":{"a":NaN}}]',
    "Infinity": b'[{"labels":{"a":"b"},"x":-Infinity}]',
    "single quotes": b"[{'labels':{'a':'b'}}]",
    "a comment": b"[] // none",
    "a byte order mark alone": b"\xef\xbb\xbf",
    "two byte order marks": b'\xef\xbb\xbf\xef\xbb\xbf[{"labels":{"a":"b"}}]',
    "UTF-16": '[{"labels":{"a":"b"}}]'.encode("utf-16"),
    "NUL bytes": bytes(1000),
    "100,000 brackets": b"[" * 100_000,
    "100,000 braces": b'{"a":' * 100_000,
    "100,000 brackets in a label": b'[{"labels":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}]",
    "16 MiB of brackets": b"[" * (16 * MiB - 1),
    "an escape that is none": b'[{"labels":{"a":"\\x41"}}]',
    "a number with a leading zero": b'[{"labels":{"a":01}}]',
}


def is_refused_well(answer: Reply) -> bool:
    """A 4xx with words, in the shape of its door."""
    said = answer.json
    if answer.headers["content-type"] == "application/problem+json":
        return 400 <= answer.status < 500 and said["status"] == answer.status and bool(said["detail"])
    return 400 <= answer.status < 500 and bool(said)


async def still_serves(ours: System) -> None:
    answer = await ours.post(V2, [alert("StillHere")])
    assert answer.status == 200, answer
    assert not ours.cluster.deaths


def between(raw: str, first: str, last: str) -> bytes:
    """The bad alert between two good ones, for different shards. startsAt and the like are /v1's spelling too."""
    return f"[{json.dumps(alert(first))},{raw},{json.dumps(alert(last, 'db'))}]".encode(
        "utf-8", "surrogatepass"
    )


@pytest.mark.usefixtures("both_ways")
@SHARED
@pytest.mark.parametrize("name", BAD_ALERTS)
async def test_one_bad_alert_is_refused_by_item_and_field_and_its_neighbours_are_stored(
    shared: System, name: str
) -> None:
    bad = BAD_ALERTS[name]

    v2 = await shared.post(V2, between(bad.raw, f"First {name}", f"Last {name}"))
    stored_by_v2 = await shared.names()
    v1 = await shared.post(V1, between(bad.raw, f"First {name} by v1", f"Last {name} by v1"))

    assert v2.status == 400
    assert {f"First {name}", f"Last {name}"} <= stored_by_v2
    assert isinstance(v2.json, str) and v2.json.startswith("alert 1: "), v2.json[:200]
    words = bad.words.lower()
    assert words in v2.json.lower(), v2.json[:200]
    assert len(v2.body) < 1000
    assert v1.status == 207
    assert [item["status"] for item in v1.items] == [202, 400, 202]
    assert len(v1.body) < 2000
    told = str(v1.items[1]["error"]).lower().replace("_", "")
    assert any(word in told for word in (words, "object", "starts")), told
    assert {f"First {name} by v1", f"Last {name} by v1"} <= await shared.names()
    await still_serves(shared)


@pytest.mark.usefixtures("both_ways")
@SHARED
@pytest.mark.parametrize("name", BAD_BODIES)
@pytest.mark.parametrize("door", [V2, V1])
async def test_a_body_that_is_no_alerts_is_refused_with_words(shared: System, door: str, name: str) -> None:
    answer = await shared.post(door, BAD_BODIES[name])

    assert answer.status == 400, answer
    assert is_refused_well(answer)
    assert len(answer.body) < 1000
    await still_serves(shared)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
@pytest.mark.parametrize(
    "labels",
    [
        {"__proto__": "x", "constructor": "y", "prototype": "z"},
        {"alertname": "\u0000", "service": "nul\u0000l"},
        {"alertname": "x", "service": "s" * 16_000},
        {"alertname": "x" * 16_000},
        {"alertname": "🔥" * 4000, "service": "日本語"},
        {"alertname": "a\x7f\u0085\u2028\u2029\ufeff\uffff", "service": "../../etc/passwd"},
        {"alertname": "'; DROP TABLE log; --", "service": "{{7*7}}${jndi:x}%s%n<script>"},
        {"alertname": '\n\r\t\\"', "service": "\x1b[31m"},
        {"service": "", "alertname": "OnlyName"},
        {f"l{number}": "x" for number in range(256)},
    ],
    ids=str,
)
async def test_odd_labels_are_alerts_like_others_and_come_back_as_they_were(
    stored: System, labels: dict[str, str]
) -> None:
    for door in (V2, V1):
        answer = await stored.post(door, [{"labels": labels}])
        assert answer.status in (200, 202), answer

    [shown] = await stored.alerts()
    incidents = await stored.get("/v1/incidents")

    assert shown["labels"] == {name: value for name, value in labels.items() if value}
    assert incidents.status == 200
    assert (await stored.get("/api/v2/alerts/groups")).status == 200
    await still_serves(stored)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_bad_utf8_costs_one_alert_and_names_its_label(ours: System) -> None:
    body = between("@", "First", "Last").replace(b"@", b'{"labels":{"a":"caf\xe9"}}')

    answer = await ours.post(V2, body)

    assert answer.status == 400
    assert "alert 1: labels.a: expected a string: not UTF-8" in str(answer.json)
    assert await ours.names() == {"First", "Last"}


@pytest.mark.asyncio
async def test_a_million_alerts_in_one_request_are_refused_as_too_large(ours: System) -> None:
    one = b'{"labels":{"a":"b"}}'

    for body, content_type in (
        (b"[" + b",".join([b"{}"] * 1_000_000) + b"]", JSON),
        (b"[" + b",".join([b"1"] * 8_000_000) + b"]", JSON),
        (b"\n".join([one] * 700_000), NDJSON),
    ):
        answer = await ours.post(V1, body, content_type=content_type)
        assert answer.status == 413, answer
        if content_type == JSON:
            assert (await ours.post(V2, body)).status == 413
    await still_serves(ours)
    assert await ours.names() == {"StillHere"}


@pytest.mark.asyncio
@pytest.mark.parametrize("door", [V2, V1])
async def test_a_large_body_holds_up_no_neighbour(ours: System, door: str) -> None:
    batch = json.dumps(
        [
            {
                "labels": {
                    "alertname": "Large",
                    "service": "api",
                    "pod": f"pod-{number}",
                    "zone": "eu-west-1a",
                },
                "annotations": {"summary": "x" * 300},
            }
            for number in range(16 * MiB // 430)
        ]
    ).encode()
    assert 14 * MiB < len(batch) < 16 * MiB
    gaps: list[float] = []

    async def neighbour() -> None:
        while True:
            before = time.thread_time()  # what others do on this machine is no matter
            await asyncio.sleep(0)
            gaps.append(time.thread_time() - before)

    watching = asyncio.get_running_loop().create_task(neighbour())
    answer = await ours.post(door, batch)
    watching.cancel()

    assert answer.status in (200, 202), answer.body[:300]
    # Here the shards work in the same loop; in production they have processes of their own. A whole read at once
    # took a second.
    assert max(gaps) < 0.4, max(gaps)
    assert len((await ours.get("/v1/incidents")).json["items"]) == 1


# -- sizes and packing -----------------------------------------------------------------------------------------


SMALL = {"max_body_bytes": 64 * 1024, "body_timeout": 0.2}


async def endless(part: bytes = b"x" * 4096) -> AsyncIterator[bytes]:
    while True:
        yield part


@pytest.mark.asyncio
@pytest.mark.parametrize("door", [V2, V1])
async def test_a_body_over_the_limit_is_413_told_beforehand_or_met_on_the_way(door: str) -> None:
    async with system(server=SMALL) as ours:
        typed = (b"content-type", b"application/json")
        large = b"[" + b" " * 64 * 1024 + b"]"
        for answer in (
            await ours.request("POST", door, [large], [typed, (b"content-length", str(len(large)).encode())]),
            await ours.request("POST", door, [b"["], [typed, (b"content-length", b"9" * 5000)]),
            await ours.request("POST", door, [large], [typed]),
            await ours.request("POST", door, endless(), [typed]),
        ):
            assert answer.status == 413, answer
            assert is_refused_well(answer)
        assert (await ours.post(door, b"[" + b" " * (64 * 1024 - 2) + b"]")).status in (200, 202)
        await still_serves(ours)


def bomb(kind: str) -> bytes:
    """Packed it is under 1 MiB, unpacked far over."""
    blank = b"[" + b" " * (64 * 1024 - 1)
    match kind:
        case "gzip":
            return gzip.compress(b" " * 50_000_000)
        case "zstd":
            return zstandard.compress(b" " * 500_000_000)
        case "many members":
            return gzip.compress(blank) * 40
        case "many frames":
            return zstandard.compress(blank) * 40
        case "many empty members":
            return gzip.compress(b"", 9) * 10_100
    raise AssertionError(kind)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["gzip", "zstd", "many members", "many frames", "many empty members"])
async def test_a_bomb_is_413_and_does_not_go_off(kind: str) -> None:
    async with system(server={"max_body_bytes": 1 * MiB}) as ours:
        body = bomb(kind)
        assert len(body) < 1 * MiB
        encoding = "zstd" if kind in ("zstd", "many frames") else "gzip"
        begun = time.perf_counter()

        answer = await ours.post(V1, body, headers={"Content-Encoding": encoding})

        assert answer.status == 413, answer
        assert is_refused_well(answer)
        assert time.perf_counter() - begun < 10
        await still_serves(ours)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_packed_data_that_ends_early_or_is_none_is_refused_and_kept(
    ours: System, encoding: str
) -> None:
    lines = b"\n".join(json.dumps(alert(f"A{number}")).encode() for number in range(2000))
    packed = gzip.compress(lines) if encoding == "gzip" else zstandard.compress(lines)
    bodies = [
        packed[: len(packed) // 2],
        packed[:-1],
        packed[:3],
        b"",
        packed + b"garbage",
        b"plain",
        packed[5:],
    ]

    for body in bodies:
        answer = await ours.post(V1, body, content_type=NDJSON, headers={"Content-Encoding": encoding})
        assert answer.status == 400, (body[:20], answer)
        assert "body" in answer.json["detail"], answer
    letters = await ours.letters(len(bodies))

    assert {letter.payload for letter in letters} == {body[: 64 * 1024] for body in bodies}  # type: ignore[attr-defined]
    assert not await ours.alerts()
    await still_serves(ours)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_an_encoding_that_nobody_unpacks_is_415(ours: System) -> None:
    for encoding in ("br", "deflate", "gzip, gzip", "é"):
        for door in (V2, V1):
            answer = await ours.post(door, b"[]", headers={"Content-Encoding": encoding})
            assert answer.status == 415, answer
            assert is_refused_well(answer)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.asyncio
async def test_a_content_type_that_is_not_json_is_415(ours: System) -> None:
    for content_type in (
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "x" * 5000,
    ):
        for door in (V2, V1):
            answer = await ours.post(door, [alert("A")], content_type=content_type)
            assert answer.status == 415, answer
            assert is_refused_well(answer)
            assert len(answer.body) < 500
    assert (await ours.post(V2, [alert("A")], content_type="Application/JSON; charset=utf-8")).status == 200


# -- senders ---------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("begins", [b"", b'[{"labels":'], ids=["no byte", "some bytes"])
async def test_a_sender_that_stops_is_408_after_body_timeout(begins: bytes) -> None:
    async def late() -> AsyncIterator[bytes]:
        yield begins
        await asyncio.sleep(30)
        yield b"]"

    async with system(server=SMALL) as ours:
        for door in (V2, V1):
            answer = await ours.request("POST", door, late(), [(b"content-type", b"application/json")])
            assert answer.status == 408, answer
            assert answer.headers["connection"] == "close"
            assert is_refused_well(answer)
        await still_serves(ours)


@pytest.mark.asyncio
async def test_senders_that_stop_right_behind_their_headers_are_408_on_a_real_socket() -> None:
    async with system(server=SMALL) as ours:
        port = await ours.listen()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /v1/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        )

        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.read()

        assert head.startswith(b"HTTP/1.1 408 ")
        writer.close()
        await still_serves(ours)


@pytest.mark.asyncio
async def test_slow_but_steady_senders_are_not_cut_off_by_each_other() -> None:
    async with system(server={"body_timeout": 5.0}) as ours:

        async def steady(name: str) -> AsyncIterator[bytes]:
            body = json.dumps([alert(name)]).encode()
            for place in range(0, len(body), 10):
                yield body[place : place + 10]
                await asyncio.sleep(0.005)

        typed = [(b"content-type", b"application/json")]
        answers = await asyncio.gather(
            *[ours.request("POST", V2, steady(f"S{number}"), typed) for number in range(50)]
        )

        assert {answer.status for answer in answers} == {200}
        assert len(await ours.names()) == 50


@pytest.mark.asyncio
async def test_a_sender_that_goes_away_leaves_nothing_behind(ours: System) -> None:
    for _ in range(50):
        with pytest.raises(Incomplete):
            await ours.request(
                "POST",
                V2,
                [b'[{"labels":{"alertname":"Gone"}}'],
                [(b"content-type", b"application/json")],
                leaves=True,
            )

    await still_serves(ours)
    assert await ours.names() == {"StillHere"}
    assert ours.gateway.http._requests == 0
    assert ours.gateway.http._room.held == 0


@pytest.mark.asyncio
async def test_a_connection_cut_in_mid_body_leaves_nothing_behind(ours: System) -> None:
    port = await ours.listen()
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /api/v2/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b'Content-Length: 1000\r\n\r\n[{"labels":{"alertname":"Gone"}}'
        )
        await writer.drain()
        await asyncio.sleep(0.002)
        writer.transport.abort()

    async with asyncio.timeout(5):
        while ours.gateway.http._requests:
            await asyncio.sleep(0.01)
    assert ours.gateway.http._room.held == 0
    await still_serves(ours)


@pytest.mark.usefixtures("both_ways")
@SHARED
@pytest.mark.parametrize("door", [V2, V1])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"idempotency-key", b"x" * 256),
        (b"idempotency-key", b"x" * 100_000),
        (b"idempotency-key", b""),
        (b"idempotency-key", b"   "),
        (b"idempotency-key", b"a\tb"),
        (b"idempotency-key", b"a\x00b"),
        (b"idempotency-key", b"\x80\x9f"),
    ],
)
async def test_an_idempotency_key_that_is_none_is_400_and_named(
    shared: System, door: str, name: bytes, value: bytes
) -> None:
    answer = await shared.post(door, [alert("Keyless")], headers=[(name, value)])

    assert answer.status == 400
    assert "Idempotency-Key" in answer.body.decode()
    assert "Keyless" not in await shared.names()


@pytest.mark.usefixtures("both_ways")
@SHARED
@pytest.mark.parametrize(
    "headers",
    [
        [(b"traceparent", b"garbage")],
        [(b"traceparent", b"\xff" * 55)],
        [(b"traceparent", b"x" * 60_000)],
        [(b"traceparent", b"00-" + b"z" * 32 + b"-" + b"0" * 16 + b"-01")],
        [(b"idempotency-key", b"caf\xe9-\xff")],
        [(b"idempotency-key", b"one"), (b"idempotency-key", b"two")],
        [(b"content-length", b"5"), (b"content-length", b"7")],
        [(b"content-length", b"-1")],
        [(b"content-length", b"\xb2")],
        [(b"content-encoding", b"identity")],
        [(b"x-" + b"a" * 1000, b"\xff" * 10_000)],
        [(b"accept", b"\x00")],
        [(f"x-{number}".encode(), b"y") for number in range(1000)],
    ],
    ids=lambda headers: f"{headers[0][0][:20]!r}:{headers[0][1][:12]!r}",
)
async def test_headers_that_are_odd_are_passed_over(
    shared: System, headers: list[tuple[bytes, bytes]]
) -> None:
    for door, status in ((V2, 200), (V1, 202)):
        answer = await shared.post(door, [alert("Odd", door=door)], headers=headers)
        assert answer.status == status, answer

    assert len(await shared.alerts("?filter=alertname=Odd")) == 2


# -- properties ------------------------------------------------------------------------------------------------


def jsonish() -> st.SearchStrategy[object]:
    """Any JSON value, with the names that alerts have in unlikely places."""
    names = st.sampled_from(
        [
            "labels",
            "annotations",
            "startsAt",
            "endsAt",
            "starts_at",
            "generatorURL",
            "status",
            "source",
            "a",
            "",
            "é",
            "__proto__",
        ]
    )
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=20)
        | st.sampled_from(
            ["", "firing", "resolved", "0001-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "9999-99-99"]
        )
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5),
        max_leaves=12,
    )


alertish = st.fixed_dictionaries(
    {},
    optional={
        "labels": jsonish(),
        "annotations": jsonish(),
        "startsAt": jsonish(),
        "endsAt": jsonish(),
        "generatorURL": jsonish(),
        "status": jsonish(),
    },
)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[System, asyncio.Runner]]:
    """One system for all examples of a property, in a loop of its own."""
    with asyncio.Runner() as runner:
        manager = system()
        ours = runner.run(manager.__aenter__())
        yield ours, runner
        runner.run(manager.__aexit__(None, None, None))


@MANY
@given(raw=st.lists(jsonish() | alertish, max_size=4), seed=st.integers(0, 10**9))
@example(raw=[{"labels": {"alertname": "x"}, "endsAt": ""}], seed=0)
def test_whatever_json_an_alert_is_its_neighbours_are_stored(
    running: tuple[System, asyncio.Runner], raw: list[object], seed: int
) -> None:
    ours, runner = running
    first, last = f"F{seed}", f"L{seed}"
    body = json.dumps([alert(first), *raw, alert(last, "db")]).encode()

    async def story() -> None:
        v2 = await ours.post(V2, body)
        v1 = await ours.post(V1, body)

        assert v2.status in (200, 400)
        assert isinstance(v2.json, str) if v2.status == 400 else not v2.body
        assert v1.status in (202, 207)
        assert [item["index"] for item in v1.items] == list(range(len(raw) + 2))
        assert v1.items[0]["status"] == v1.items[-1]["status"] == 202
        for name in (first, last):
            assert await ours.alerts(f"?filter=alertname={name}")
        if v2.status == 400:
            told = {
                int(part.split(":")[0])
                for part in v2.json.split("alert ")[1:]
                if part.split(":")[0].isdigit()
            }
            assert told and told <= set(range(1, len(raw) + 1)) | {0}

    runner.run(story())


@MANY
@given(
    body=st.binary(max_size=300)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.lists(
        st.sampled_from(
            [
                "[",
                "]",
                "{",
                "}",
                '"',
                ",",
                ":",
                "\\",
                "\\u",
                "ud800",
                '"labels"',
                '{"a":"b"}',
                "\n",
                " ",
                "1",
                "null",
                '{"labels":{"a":"b"}}',
            ]
        ),
        max_size=25,
    ).map(lambda parts: "".join(parts).encode()),
    door=st.sampled_from([V2, V1]),
    content_type=st.sampled_from([JSON, NDJSON]),
    encoding=st.sampled_from([None, None, "gzip", "zstd"]),
)
def test_whatever_bytes_come_the_answer_is_2xx_or_4xx_in_the_doors_shape(
    running: tuple[System, asyncio.Runner], body: bytes, door: str, content_type: str, encoding: str | None
) -> None:
    ours, runner = running
    headers = {} if encoding is None else {"Content-Encoding": encoding}

    answer = runner.run(ours.post(door, body, content_type=content_type, headers=headers))

    assert answer.status < 500
    assert answer.status < 300 or is_refused_well(answer)
    assert not ours.cluster.deaths


@MANY
@given(
    value=st.text(max_size=60),
    kind=st.sampled_from(
        ["content-type", "content-encoding", "idempotency-key", "traceparent", "content-length"]
    ),
)
def test_whatever_a_header_says_the_answer_is_2xx_or_4xx(
    running: tuple[System, asyncio.Runner], value: str, kind: str
) -> None:
    ours, runner = running
    headers = [(kind.encode(), value.encode("utf-8", "surrogatepass"))]
    content_type = None if kind == "content-type" else JSON

    for door in (V2, V1):
        answer = runner.run(ours.post(door, [alert("A")], content_type=content_type, headers=headers))
        assert answer.status < 500
        assert answer.status < 300 or is_refused_well(answer)


@MANY
@given(starts=st.floats(-1e11, 1e12), ends=st.floats(-1e11, 1e12))
def test_whatever_its_times_an_alert_is_taken_or_named(
    running: tuple[System, asyncio.Runner], starts: float, ends: float
) -> None:
    ours, runner = running
    raw = {**alert("T"), "startsAt": stamp(starts), "endsAt": stamp(ends)}

    answer = runner.run(ours.post(V2, [raw]))

    assert answer.status in (200, 400)
    if answer.status == 400:
        assert any(
            word in str(answer.json) for word in ("startsAt", "endsAt", "start time must be before end time")
        )


def stamp(at: float) -> str:
    from datetime import UTC, datetime, timedelta

    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at)).isoformat()
    except OverflowError:
        return str(math.floor(at))
