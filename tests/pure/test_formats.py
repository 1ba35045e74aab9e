"""The formats' laws: what an alert says decides its key, however it is written; whatever is sent, read() answers."""

from __future__ import annotations

import json
import math
import random

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.alerts import alert
from models.alerts.alert import (
    TOGETHER_LEAST,
    Content,
    _fingerprints,
    alert_key,
    fingerprint,
    fingerprints,
    series_id,
)
from models.errors import Malformed, TooLarge
from models.partition.sharding import slot_of
from models.settings.all import Settings
from models.shard.messages import Claim
from services.ingest.formats import json_arrays
from services.ingest.formats import remembered as remembering
from services.ingest.formats.alertmanager import AlertmanagerFormat
from services.ingest.formats.fields import read_time
from services.ingest.formats.format import Format, Request, Shared
from services.ingest.formats.json_arrays import SLICE_ALERTS
from services.ingest.formats.reading import Reading
from services.ingest.formats.remembered import Memory, Remembered
from services.ingest.formats.v1 import V1Format

NOW = 1767323045.678
SETTINGS = Settings()
MANY = settings(max_examples=100, deadline=None, database=None)
Readers = list[Format]

names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,6}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
label_sets = st.dictionaries(names, texts, min_size=1, max_size=6)
times = st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00.000Z"])
alerts = st.fixed_dictionaries(
    {"labels": label_sets},
    optional={
        "annotations": st.dictionaries(names, texts, max_size=3),
        "startsAt": times,
        "endsAt": st.just("2026-02-01T00:00:00Z"),
        "generatorURL": texts,
    },
)


def read(form: Format, body: bytes) -> Reading:
    """What a format makes of a body that came at NOW."""
    return form.read(Request(form.path, body, NOW))


def readers() -> Readers:
    """One of each format, with nothing remembered."""
    services = ("service", "job")
    return [
        AlertmanagerFormat(Shared(Remembered("default", services), SETTINGS)),
        V1Format(Shared(Remembered("default", services), SETTINGS)),
    ]


def written(value: object, chance: random.Random) -> str:
    """`value` as JSON in one of the many ways there are: any order of keys, any blanks, any escapes."""

    def blank() -> str:
        return "".join(chance.choices(" \n\t\r", k=chance.choice([0, 0, 1, 3])))

    def text(one: str) -> str:
        if chance.random() < 0.5:
            return json.dumps(one, ensure_ascii=chance.random() < 0.5)
        units = one.encode("utf-16-be", "surrogatepass")
        return '"' + "".join(f"\\u{units[at]:02X}{units[at + 1]:02x}" for at in range(0, len(units), 2)) + '"'

    if isinstance(value, dict):
        items = [*value.items()]
        chance.shuffle(items)
        inner = [
            f"{blank()}{json.dumps(key)}{blank()}:{blank()}{written(one, chance)}{blank()}"
            for key, one in items
        ]
        return "{" + ",".join(inner) + "}"
    return text(str(value))


def only(reading: Reading) -> tuple[bytes, int, float, Content]:
    """Key, slot, end and content of the one alert of a request."""
    assert not reading.faults, reading.faults
    [memory] = reading.memories
    content = msgspec.msgpack.decode(reading.body(0), type=Content)
    return memory.key, memory.slot, reading.ends[0], content


@MANY
@given(alert=alerts, seed=st.integers(0, 2**32))
def test_the_same_alert_in_any_order_blanks_and_escapes_is_the_same(
    alert: dict[str, object], seed: int
) -> None:
    chance = random.Random(seed)
    for reader in readers():
        plain = only(read(reader, f"[{json.dumps(alert)}]".encode()))
        other = only(read(reader, f"[{written(alert, chance)}]".encode()))

        assert other == plain
        assert plain[0][:16] == series_id("default", alert["labels"])  # type: ignore[arg-type]


@MANY
@given(alert=alerts)
def test_an_alert_that_is_remembered_is_read_as_the_first_time(alert: dict[str, object]) -> None:
    body = f"[{json.dumps(alert)}]".encode()
    for reader in readers():
        first, second = read(reader, body), read(reader, body)

        assert second.memories[0] is first.memories[0]
        assert only(second) == only(first)
    for reader in readers():
        # By a gateway that has never met it, too.
        assert only(read(reader, body))[0][:16] == only(first)[0][:16]


@MANY
@given(one=label_sets, other=label_sets)
@example(one={"a": "b", "c": "d"}, other={"a": "b\x00c\x00d"})
@example(one={"a": "1:b"}, other={"a1": ":b"})
@example(one={"a": "b", "bb": "c"}, other={"a": "b", "b": "bc"})
@example(one={"a": "\u00e9"}, other={"a": "e\u0301"})
def test_different_labels_never_share_a_key(one: dict[str, str], other: dict[str, str]) -> None:
    for reader in readers():
        keys = [
            read(reader, json.dumps([{"labels": labels}]).encode()).memories[0].key for labels in (one, other)
        ]
        assert (keys[0][:16] == keys[1][:16]) == (one == other)


@MANY
@given(alert=alerts, change=st.sampled_from(["annotations", "generatorURL", "startsAt"]))
def test_another_annotation_url_or_start_is_another_key_of_the_same_series(
    alert: dict[str, object], change: str
) -> None:
    values = {
        "annotations": {"changed": "yes"},
        "generatorURL": "http://changed",
        "startsAt": "2026-01-01T00:00:01Z",
    }
    for reader in readers():
        before = only(read(reader, json.dumps([alert]).encode()))
        after = only(read(reader, json.dumps([{**alert, change: values[change]}]).encode()))

        assert before[0][:16] == after[0][:16]
        assert (before[0] == after[0]) == (alert.get(change) == values[change])


@MANY
@given(
    body=st.binary(max_size=400)
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
                "ud83d",
                "\\ud83d\\ude00",
                "\\ud800",
                '"labels"',
                '"a"',
                "\n",
                " ",
                "1e999",
                "-",
                "null",
                '"labels":{"a":"b"}',
                '"startsAt":"2026-01-01T00:00:00Z"',
                "\x00",
                "é",
                '"\\\\ud800"',
            ]
        ),
        max_size=30,
    ).map(lambda parts: "".join(parts).encode())
)
@example(body=b"[" * 200_000)
@example(body=b'{"labels":' * 100_000)
@example(body=b'[{"labels":{"a":"b"},"annotations":' + b"[" * 50_000)
@example(body=b'"' + b"\\" * 99_999)
@example(body=bytes(200_000))
def test_read_raises_nothing_but_malformed(body: bytes) -> None:
    for reader in readers():
        try:
            reading = read(reader, body)
        except Malformed as error:
            assert 0 < len(str(error)) < 600
            continue
        assert reading.count == len(reading.places) + len(reading.faults)
        assert sorted([*reading.places, *(fault.index for fault in reading.faults)]) == [
            *range(reading.count)
        ]
        assert all(0 < len(fault.message) < 600 for fault in reading.faults)


@settings(max_examples=40, deadline=None, database=None)
@given(
    kinds=st.lists(
        st.sampled_from(["good", "brace", "comma", "long", "number", "empty", "bad", "half", "utf8"]),
        min_size=1,
        max_size=40,
    ),
    seed=st.integers(0, 2**32),
)
def test_an_array_read_in_pieces_is_read_as_in_one(kinds: list[str], seed: int) -> None:
    chance = random.Random(seed)
    elements = {
        "good": b'{"labels":{"a":"g"}}',
        "brace": b'{"labels":{"a":"},{"},"x":"},"}',
        "comma": b'{"labels":{"a":",,,,"},"x":[1,{"y":2},3]}',
        "long": b'{"labels":{"a":"' + b"x},{" * 200 + b'"}}',
        "number": b"5",
        "empty": b"{}",
        "bad": b'{"labels":{"":"x"}}',
        "half": b'{"labels":{"a":"\\ud800"}}',
        "utf8": b'{"labels":{"a":"\xff"}}',
    }
    body = (
        b"["
        + b",".join(
            chance.choice([b"", b" ", b"\n"]) + elements[kind] + chance.choice([b"", b" "]) for kind in kinds
        )
        + b"]"
    )
    whole = [outcome(reader, body) for reader in readers()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_arrays, "WHOLE_BYTES", 8)
        patch.setattr(json_arrays, "PIECE_BYTES", chance.choice([8, 30, 64, 200]))
        patch.setattr(json_arrays, "SLICE_ALERTS", chance.choice([1, 2, 7]))

        assert [outcome(reader, body) for reader in readers()] == whole
        for broken in (
            body[:-1],
            body[:-1] + b",]",
            b"[," + body[1:],
            body + b"x",
            body.replace(b'"labels"', b"labels", 1),
        ):
            for reader in readers():
                if broken != body:
                    with pytest.raises(Malformed):
                        read(reader, broken)


def outcome(reader: Format, body: bytes) -> tuple[object, ...]:
    reading = read(reader, body)
    return (
        reading.count,
        reading.places,
        [memory.key for memory in reading.memories],
        reading.ends,
        [reading.body(column) for column in range(len(reading.places))],
        [(fault.index, fault.message) for fault in reading.faults],
    )


def test_the_place_of_an_error_is_told_in_the_whole_body() -> None:
    body = b"[" + b'{"labels":{"a":"b"}},' * 20_000 + b'{"labels":nope}]'

    for reader in readers():
        with pytest.raises(
            Malformed, match=rf"byte {body.index(b'nope') + 1}\b|byte {body.index(b'nope')}\b"
        ):
            read(reader, body)


def test_more_alerts_than_are_taken_are_too_large_and_no_memory_goes_to_them() -> None:
    for reader in readers():
        for body in (b"[" + b"{}," * 1_000_000 + b"{}]", b"[" + b"1," * 1_000_000 + b"1]"):
            with pytest.raises(TooLarge, match="over 100000 alerts"):
                read(reader, body)


def test_a_step_of_a_large_body_is_short() -> None:
    body = json.dumps([{"labels": {"alertname": "A", "n": str(number)}} for number in range(20_000)]).encode()

    for reader in readers():
        steps = reader.steps(Request(reader.path, body, NOW))
        count = 0
        try:
            while True:
                next(steps)
                count += 1
        except StopIteration as over:
            assert over.value.count == 20_000
        assert count >= 20_000 // SLICE_ALERTS


def test_both_formats_give_one_alert_one_series_and_slot() -> None:
    body = b'[{"labels":{"alertname":"A","service":"s"}}]'

    one, other = (read(reader, body).memories[0] for reader in readers())

    assert one.key[:16] == other.key[:16]
    assert one.slot == other.slot
    assert fingerprint({"alertname": "A1", "severity": "critical"}) == "70ae0576423d1244"


@MANY
@given(found=st.lists(label_sets, max_size=5), longest=st.integers(0, 3000))
def test_fingerprints_of_many_are_those_of_each(found: list[dict[str, str]], longest: int) -> None:
    def by_the_book(labels: dict[str, str]) -> str:
        value = 0xCBF29CE484222325
        for name in sorted(labels):
            for byte in name.encode() + b"\xff" + labels[name].encode() + b"\xff":
                value = (value ^ byte) * 0x100000001B3 % 2**64
        return f"{value:016x}"

    some = [{**labels, "n": str(number)} for number in range(TOGETHER_LEAST) for labels in (*found, {})]
    some.append({"long": "x" * longest})

    _fingerprints.clear()
    assert fingerprints(some) == fingerprints(some) == [by_the_book(labels) for labels in some]


def test_fingerprints_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert, "FINGERPRINTS_MAX", 100)

    for start in range(0, 1000, 40):
        fingerprints([{"n": str(number)} for number in range(start, start + 60)])

    assert len(_fingerprints) <= 100


def test_remembered_times_and_alerts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "TIMES_MAX", 100)
    remembered = Remembered("default", ("service",), max_alerts=100)
    reader = AlertmanagerFormat(Shared(remembered, SETTINGS))

    for number in range(1000):
        end = f"2026-02-01T{number // 60 % 24:02}:{number % 60:02}:00Z"
        read(reader, json.dumps([{"labels": {"n": str(number)}, "endsAt": end}]).encode())

    assert len(remembered.young) + len(remembered._old) <= 200
    assert len(remembered.times) <= 100
    assert len(remembered._labels_met) <= 100

    for number in range(1000):
        for _ in range(2):
            remembered.labels(b'{"n":"%d"}' % number)
    assert 0 < len(remembered._labels) + len(remembered._old_labels) <= 2 * (100 // remembering.LABELS_PART)


def test_labels_that_were_read_before_keep_their_key_and_slot() -> None:
    remembered = Remembered("default", ("service",))
    reader = AlertmanagerFormat(Shared(remembered, SETTINGS))

    def learned(service: str, said: str) -> Memory:
        alert = {"labels": {"service": service, "n": "1"}, "annotations": {"value": said}}
        return read(reader, json.dumps([alert]).encode()).memories[0]

    for said in "abc":
        for service in ("api", "db"):
            content = Content({"service": service, "n": "1"}, {"value": said}, 0.0, "", "alertmanager")
            found = learned(service, said)
            assert found.key == alert_key("default", content, 0.0)
            assert found.slot == slot_of("default", service)


def test_other_labels_than_were_read_have_a_key_of_their_own() -> None:
    remembered = Remembered("default", ("service",))
    remembered.labels(b'{"service":"api"}')

    found = remembered.learn(b"1", Content({"service": "db"}, {}, 0.0), 10)

    assert found.key[:16] == series_id("default", {"service": "db"})
    assert found.slot == slot_of("default", "db")


@pytest.mark.parametrize(
    ("written", "at"),
    [
        ("2016-12-31T23:59:60Z", 1483228800.0),
        ("2016-12-31T23:59:60.5Z", 1483228800.5),
        ("2017-01-01T00:59:60+01:00", 1483228800.0),
        ("2016-12-31t23:59:60z", 1483228800.0),
        ("2016-12-31T23:59:60", 1483228800.0),
        ("9999-12-31T23:59:59Z", math.inf),
        ("9999-12-31T00:00:00+00:00", math.inf),
        ("9999-12-31T23:59:59-23:59", math.inf),
        ("9999-12-31T23:59:59.999999999Z", math.inf),
        ("2100-01-01T00:00:01Z", math.inf),
        ("2100-01-01T00:00:00Z", 4102444800.0),
    ],
)
def test_a_leap_second_is_the_one_after_and_an_end_after_2100_is_none(written: str, at: float) -> None:
    for reader in readers():
        body = json.dumps([{"labels": {"a": "b"}, "endsAt": written}])

        assert only(read(reader, body.encode()))[2] == at


@pytest.mark.parametrize(
    "written", ["2016-12-31T23:60:00Z", "2016-12-31T23:59:61Z", "2016-12-31T23:59:59+01:60", "9999-12-31"]
)
def test_what_is_no_time_is_none(written: str) -> None:
    for reader in readers():
        body = json.dumps([{"labels": {"a": "b"}, "endsAt": written}])

        (fault,) = read(reader, body.encode()).faults
        assert written in fault.message


def test_a_start_after_2100_is_a_mistake_also_where_an_end_said_the_same() -> None:
    for reader in readers():
        never = "9999-12-31T00:00:00Z"
        read(reader, json.dumps([{"labels": {"a": "b"}, "endsAt": never}]).encode())

        (fault,) = read(reader, json.dumps([{"labels": {"a": "b"}, "startsAt": never}]).encode()).faults

        assert "between 1970 and 2100" in fault.message


@pytest.mark.parametrize(
    ("times", "word", "end"),
    [
        ({}, Claim.RESOLVED_NOW, NOW),
        ({"starts_at": "2026-01-02T03:06:05Z"}, Claim.RESOLVED_NOW, NOW),
        ({"ends_at": "2026-01-02T03:04:15Z"}, Claim.RESOLVED_NOW, NOW + 0.0),
        ({"ends_at": "9999-12-31T00:00:00Z"}, Claim.RESOLVED_NOW, NOW),
        ({"ends_at": "2026-01-02T03:00:00Z"}, Claim.RESOLVED, 1767322800.0),
        (
            {"starts_at": "2026-01-02T03:06:05Z", "ends_at": "2026-01-02T03:00:00Z"},
            Claim.RESOLVED,
            1767322800.0,
        ),
    ],
)
def test_what_is_said_to_be_resolved_ends_now_at_the_latest(
    times: dict[str, str], word: Claim, end: float
) -> None:
    _alertmanager, v1 = readers()

    reading = read(v1, json.dumps({"labels": {"a": "b"}, "status": "resolved", **times}).encode())

    assert not reading.faults
    assert (reading.said, reading.ends) == (bytes([word]), [min(end, NOW)])


@pytest.mark.parametrize(
    "text",
    ["9999-12-31T99:00:00Z", "9999-12-31T24:00:00Z", "9999-12-31T23:60:00Z", "9999-12-31T23:59:61Z", "9999-12-31T23:59:59+24:00"],
)  # fmt: skip
def test_the_last_day_is_never_only_at_a_time_that_it_has(text: str) -> None:
    with pytest.raises(Malformed, match="endsAt: expected a time"):
        read_time(f'"{text}"'.encode(), "endsAt")
