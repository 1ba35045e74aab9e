"""POST /v1/alerts: one object, an array or a line each, packed or not, answered item by item."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable

import pytest
import zstandard

from models.ports import DeadLetter
from tests.api.gateway_in_process import (
    JSON,
    NDJSON,
    MemoryStores,
    SettableClock,
    SqliteStores,
    Stores,
    System,
    alert,
    system,
)

PATH = "/v1/alerts"
SHARED = pytest.mark.asyncio(loop_scope="module")


@SHARED
async def test_one_object_is_one_alert_and_the_answer_names_its_incident(shared: System) -> None:
    answer = await shared.post(PATH, alert("One", severity="critical"))

    assert answer.status == 202
    assert answer.headers["content-type"] == "application/json"
    [item] = answer.items
    assert item["index"] == 0 and item["status"] == 202 and item["decision"] == "opened"
    assert item["reason"] == "first alert of its group: opened an incident"
    incident = await shared.get(f"/v1/incidents/{item['incident_id']}")
    assert incident.status == 200
    assert incident.json["labels"] == {"alertname": "One", "service": "api", "severity": "critical"}


@SHARED
async def test_an_array_is_answered_in_its_order_over_both_shards(shared: System) -> None:
    answer = await shared.post(
        PATH, [alert(f"Array{number}", ("api", "db")[number % 2]) for number in range(10)]
    )

    assert answer.status == 202
    assert [item["index"] for item in answer.items] == list(range(10))
    assert answer.json["stored"] == 10
    assert len({item["incident_id"] for item in answer.items}) == 10


def lines(name: str, count: int) -> list[str]:
    return [json.dumps(alert(f"{name}{number}")) for number in range(count)]


@SHARED
@pytest.mark.parametrize(
    ("name", "body", "count"),
    [
        ("lines", "\n".join(lines("lines", 3)), 3),
        ("a last line end", "\n".join(lines("lines", 3)) + "\n", 3),
        ("a byte order mark before lines", "\ufeff" + "\n".join(lines("lines", 3)), 3),
        ("files with a mark each, put together", "\n\ufeff".join(["", *lines("lines", 3)]), 3),
        ("a byte order mark after a blank line", "\r\n\ufeff" + lines("lines", 1)[0], 1),
        ("a byte order mark before an object", "\ufeff" + lines("lines", 1)[0], 1),
        ("a byte order mark before an array", "\ufeff" + json.dumps([alert("pretty"), alert("pretty2")]), 2),
        ("blank lines", "\n\n" + "\n \n".join(lines("lines", 3)) + "\n\n", 3),
        ("CR LF", "\r\n".join(lines("lines", 3)) + "\r\n", 3),
        ("one line", lines("lines", 1)[0], 1),
        ("one object over many lines", json.dumps(alert("pretty", x="{\n}"), indent=4), 1),
        ("the same without indentation", json.dumps(alert("pretty"), indent=0), 1),
        ("an array over many lines", json.dumps([alert("pretty"), alert("pretty2")], indent=2), 2),
        ("an empty array", "[]", 0),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
@pytest.mark.parametrize("content_type", [JSON, NDJSON, "application/jsonl"])
async def test_all_shapes_are_read(
    shared: System, name: str, body: str, count: int, content_type: str
) -> None:
    answer = await shared.post(PATH, body.encode(), content_type=content_type)

    assert answer.status == 202, answer
    assert len(answer.items) == count


@SHARED
@pytest.mark.parametrize("bad", ["{", '{"labels":{"a":"b"}', "hello", "[1]", '{"labels":{"a":"\x01"}}'])
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_line_that_is_no_json_costs_only_itself(shared: System, bad: str, place: int) -> None:
    sent = lines("neighbour", 2)
    sent.insert(place, bad)

    answer = await shared.post(PATH, "\n".join(sent).encode(), content_type=NDJSON)

    if place == 0 and bad.startswith("["):
        # It begins like an array, and is none.
        assert answer.status == 400
        return
    assert answer.status == 207
    assert [item["status"] for item in answer.items] == [
        400 if number == place else 202 for number in range(3)
    ]


@SHARED
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "zstd", "identity"])
@pytest.mark.parametrize("members", [1, 3])
async def test_packed_bodies_are_unpacked_to_the_last_member(
    shared: System, encoding: str, members: int
) -> None:
    parts = [f"{line}\n".encode() for line in lines(f"{encoding.strip('x-')}{members}x", 600 * members)]
    packers: dict[str, Callable[[bytes], bytes]] = {"zstd": zstandard.compress, "identity": bytes}
    pack = packers.get(encoding, gzip.compress)
    packed = b"".join(pack(b"".join(parts[start::members])) for start in range(members))

    answer = await shared.post(PATH, packed, content_type=NDJSON, headers={"Content-Encoding": encoding})

    assert answer.status == 202
    assert len(answer.items) == 600 * members


@SHARED
async def test_some_bad_is_207_all_bad_is_400_each_with_its_reason(shared: System) -> None:
    some = await shared.post(PATH, [alert("Some"), {"labels": {}}, {"labels": {"a": 1}}])
    none = await shared.post(PATH, [{"labels": {}}, 5])

    assert some.status == 207
    assert some.json["stored"] == 1 and some.json["refused"] == 2 and some.json["failed"] == 0
    assert some.items[1] == {"index": 1, "status": 400, "error": "labels: at least one label is required"}
    assert some.items[2]["error"] == "labels.a: expected a string: Expected `str`, got `int`"
    assert none.status == 400
    assert [item["status"] for item in none.items] == [400, 400]


@SHARED
@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ("label", "label: not a field of an alert; did you mean labels?"),
        ("start_at", "start_at: not a field of an alert; did you mean starts_at?"),
        ("endAt", "endAt: not a field of an alert; did you mean endsAt?"),
        ("zzz", "zzz: not a field of an alert"),
        ("x" * 5000, "not a field of an alert"),
        ("a`b", "not a field of an alert"),
        ("", ": not a field of an alert"),
    ],
)
async def test_an_unknown_field_is_named_with_the_nearest_known_one(
    shared: System, sent: str, words: str
) -> None:
    answer = await shared.post(PATH, {**alert("Typo"), sent: "x"})

    assert answer.status == 400
    told = str(answer.items[0]["error"])
    assert words in told and len(told) < 300


@SHARED
async def test_both_spellings_of_times_are_taken(shared: System) -> None:
    for spelling in ({"starts_at": "2026-01-02T03:04:05Z"}, {"startsAt": "2026-01-02T03:04:05Z"}):
        answer = await shared.post(PATH, {**alert("Spelling", spelling=next(iter(spelling))), **spelling})
        assert answer.status == 202

    shown = await shared.alerts("?filter=alertname=Spelling")
    assert {each["startsAt"] for each in shown} == {"2026-01-02T03:04:05.000Z"}


@SHARED
async def test_an_alert_fires_until_it_is_resolved_and_a_wrong_status_is_named(shared: System) -> None:
    await shared.post(PATH, alert("Status"))
    assert (await shared.alerts("?filter=alertname=Status"))[0]["endsAt"] == "0001-01-01T00:00:00.000Z"

    wrong = await shared.post(PATH, {**alert("Status"), "status": "solved" * 100})
    right = await shared.post(PATH, {**alert("Status"), "status": "resolved"})

    assert wrong.status == 400 and "status" in str(wrong.items[0]["error"])
    assert right.items[0]["decision"] == "resolved"
    assert not await shared.alerts("?filter=alertname=Status")


# -- deliveries ------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_delivery_that_comes_again_gets_the_same_incidents_and_makes_no_event(stored: System) -> None:
    key = {"Idempotency-Key": "delivery-1"}
    batch = [alert("A"), alert("B", "db")]

    first = await stored.post(PATH, batch, headers=key)
    again = await stored.post(PATH, batch, headers=key)
    for name in stored.shards:
        await stored.cluster.get(name).stop()  # type: ignore[union-attr]
        await stored.cluster.restart(name)
    await stored.ready()
    after_restart = await stored.post(PATH, batch, headers=key)

    assert first.status == again.status == after_restart.status == 202
    ids = [item["incident_id"] for item in first.items]
    for answer in (again, after_restart):
        assert [item["incident_id"] for item in answer.items] == ids
        assert [item["decision"] for item in answer.items] == ["duplicate", "duplicate"]
    for identity in ids:
        [shown] = (await stored.get(f"/v1/incidents/{identity}/alerts")).json["items"]
        assert sum(why["count"] for why in shown["why"]) == 1


@pytest.mark.asyncio
async def test_a_delivery_is_known_after_its_shard_was_killed_before_the_ids_were_written_down(
    stored: System,
) -> None:
    key = {"Idempotency-Key": "delivery-2"}
    first = await stored.post(PATH, alert("A"), headers=key)

    for name in stored.shards:
        await stored.crash(name)
        await stored.cluster.restart(name)
    await stored.ready()
    again = await stored.post(PATH, alert("A"), headers=key)

    assert again.status == 202
    assert again.items[0]["decision"] == "duplicate"
    assert again.items[0]["incident_id"] == first.items[0]["incident_id"]


@pytest.mark.asyncio
async def test_a_key_that_comes_again_with_other_alerts_is_422_and_loses_nothing_silently(
    ours: System,
) -> None:
    key = {"Idempotency-Key": "one"}
    await ours.post(PATH, [alert("A")], headers=key)
    await ours.post("/api/v2/alerts", [alert("A")], headers=key)

    answer = await ours.post(PATH, [alert("A"), alert("B"), alert("C", "db")], headers=key)
    alone = await ours.post(PATH, [alert("B")], headers=key)
    as_alertmanager = await ours.post("/api/v2/alerts", [alert("B")], headers=key)

    # Each shard part for itself: the other shard had nothing of that key.
    assert answer.status == 207
    assert [item["status"] for item in answer.items] == [422, 422, 202]
    assert "delivery id" in str(answer.items[1]["error"])
    assert alone.status == as_alertmanager.status == 422
    assert "retry-after" not in alone.headers
    assert await ours.names() == {"A", "C"}


@pytest.mark.asyncio
async def test_a_large_delivery_goes_in_parts_and_is_still_one(ours: System) -> None:
    key = {"Idempotency-Key": "large"}
    batch = [alert("Large", pod=f"p{number}") for number in range(5000)]

    first = await ours.post(PATH, batch, headers=key)
    again = await ours.post(PATH, batch, headers=key)
    other = await ours.post(PATH, [alert("Other")], headers={"Idempotency-Key": "large#2048"})

    assert first.status == again.status == 202
    assert {item["decision"] for item in again.items} == {"duplicate"}
    assert [item["incident_id"] for item in again.items] == [item["incident_id"] for item in first.items]
    assert other.items[0]["decision"] == "opened"


@pytest.mark.asyncio
async def test_deliveries_of_one_key_that_come_at_once_count_once(ours: System) -> None:
    answers = await asyncio.gather(
        *[ours.post(PATH, alert("Once"), headers={"Idempotency-Key": "once"}) for _ in range(20)]
    )

    assert {answer.status for answer in answers} == {202}
    assert sorted(str(answer.items[0]["decision"]) for answer in answers) == ["duplicate"] * 19 + ["opened"]
    assert len({answer.items[0]["incident_id"] for answer in answers}) == 1


# -- dead letters ----------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_what_cannot_be_read_is_kept_with_its_reason(stored: System) -> None:
    await stored.post(PATH, [alert("Good"), {"labels": {"a": 1}}])
    await stored.post(PATH, b"no json", content_type=NDJSON)
    await stored.post("/api/v2/alerts", [{"labels": {"": "x"}}])

    letters: list[DeadLetter] = await stored.letters(3)  # type: ignore[assignment]

    assert [(letter.door, letter.content_type) for letter in letters] == [
        ("v1", JSON),
        ("v1", NDJSON),
        ("alertmanager", JSON),
    ]
    assert letters[0].reason == "labels.a: expected a string: Expected `str`, got `int`"
    assert json.loads(letters[0].payload) == {"labels": {"a": 1}}
    assert letters[1].payload == b"no json"
    assert json.loads(letters[2].payload)["labels"] == {"": "x"}


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_dead_letters_are_bounded_by_size_and_age(kind: str, tmp_path: object) -> None:
    stores: Stores = SqliteStores(tmp_path) if kind == "sqlite" else MemoryStores()  # type: ignore[arg-type]
    clock = SettableClock()
    bounds = {"max_bytes": 20_000, "max_age": "1h", "max_payload_bytes": 1000}
    async with system(stores, clock=clock, dead_letters=bounds) as ours:
        for number in range(60):
            await ours.post(PATH, b"%02d" % number + b"x" * 5000)
            await ours.letters(1)
        async with asyncio.timeout(5):
            while True:
                letters: list[DeadLetter] = await ours.letters(1)  # type: ignore[assignment]
                if letters[-1].payload[:2] == b"59":
                    break
                await asyncio.sleep(0.01)

        assert 5 < len(letters) < 20
        assert all(len(letter.payload) == 1000 and letter.truncated for letter in letters)
        clock.ahead_s += 3601
        assert await ours.dead_letters.page(0, 100) == []


@pytest.mark.asyncio
async def test_a_flood_of_bad_alerts_is_counted_and_stops_nothing(ours: System) -> None:
    flood = await ours.post(PATH, b"[" + b",".join([b"{}"] * 50_000) + b"]")
    good = await ours.post(PATH, alert("Good"))

    assert flood.status == 400 and good.status == 202
    text = (await ours.get("/metrics")).body.decode()
    counts = {
        line.split("{")[0]: float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if "dead_letters" in line and line[0] != "#"
    }
    assert counts["llm_im_dead_letters_total"] + counts["llm_im_dead_letters_lost_total"] == 50_000
