"""Laws of all senders' formats: each sample is recognised as what it is, whatever is sent is read or refused in words, and what is
nested, huge, doubled or of a wrong type is never a fault of ours.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.alerts.alert import Content
from models.errors import Busy, Malformed, TooLarge, Unauthorized
from models.settings.all import Settings
from services.ingest.formats.events import EventsFormat
from services.ingest.formats.format import Format, Request, Shared, at_once
from services.ingest.formats.json_format import JsonFormat
from services.ingest.formats.reading import Reading
from services.ingest.formats.remembered import Remembered
from services.ingest.formats.table import open_formats
from tests.format_cases import WEBHOOKS, samples

NOW = 1769864400.0
MANY = settings(max_examples=300, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
CASES = [(name, case) for name in WEBHOOKS for case in samples(name)["cases"]]
BODIES = [
    (name, case["body"])
    for name, case in CASES
    if not isinstance(case["body"], str) and not case.get("headers")
]


def opened(**formats: object) -> dict[str, Format]:
    given = Settings.model_validate({"formats": formats})
    return open_formats(Shared(Remembered("default", tuple(given.grouping.service_labels)), given))


FORMS = opened()


def request(form: Format, body: bytes, **more: Any) -> Request:
    return Request(form.path, body, NOW, content_type=more.pop("content_type", "application/json"), **more)


def run(form: Format, asked: Request) -> Reading:
    """prepare() and read(), with nothing to wait for."""
    if form.prepares:
        waiting = form.prepare(asked)
        with pytest.raises(StopIteration):
            waiting.send(None)
    return at_once(form.steps(asked))


def contents(reading: Reading) -> list[Content]:
    return [
        msgspec.msgpack.decode(reading.body(column), type=Content) for column in range(len(reading.places))
    ]


@pytest.mark.parametrize("name", WEBHOOKS)
def test_a_body_without_a_name_is_recognised_as_what_it_is(name: str) -> None:
    wrong = []
    for case in samples(name)["cases"]:
        if case.get("path") or case.get("content_type") == "message/rfc822" or not case["body"]:
            continue
        headers = {key.lower().encode(): value.encode() for key, value in case.get("headers", {}).items()}
        body = case["body"]
        by = [kind.name for kind in WEBHOOKS.values() if kind.recognises(body, headers)]
        if by != [name] and "ce-specversion" not in case.get("headers", {}):
            wrong.append((body, by))

    assert not wrong


def test_no_body_is_recognised_by_two_formats() -> None:
    doubly = [
        (name, by)
        for name, body in BODIES
        if len(by := [kind.name for kind in WEBHOOKS.values() if kind.recognises(body, {})]) > 1
    ]

    assert not doubly


def test_an_array_is_known_by_its_first_element() -> None:
    """Nothing else of one is read to find out what it is (services/ingest/formats/events.py)."""
    others = [{}, {"labels": {"alertname": "Down"}}, *(body for _name, body in BODIES)]
    for _name, body in BODIES:
        whole = [*body, *others] if isinstance(body, list) else [body, *others]
        by = [kind.name for kind in WEBHOOKS.values() if kind.recognises(whole, {})]
        assert by == [kind.name for kind in WEBHOOKS.values() if kind.recognises(whole[:1], {})]
        if by:
            assert recognised(FORMS, json.dumps(whole).encode()) == by[0]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'\xef\xbb\xbf [{"labels": {"a": "b"}}, 7]', "v1"),
        (b'[{"labels": {"a": "b"}}, {"labels": "\\ud800"}]', "v1"),
        (b'[{"specversion": "1.0"}, {"labels": {}}]', "cloudevents"),
    ],
)
def test_what_is_wrong_with_another_element_is_its_formats_to_say(body: bytes, named: str) -> None:
    assert recognised(FORMS, body) == named


@pytest.mark.parametrize(
    "body", [b'[{"labels": {"a": "b"}}, ', b'[{"labels": {"a": "b"}}, {"x": NaN}]', b'[{"a": 1, "a": 2}, {}]']
)
def test_what_is_no_json_is_told_before_it_is_recognised(body: bytes) -> None:
    with pytest.raises(Malformed):
        recognised(FORMS, body)


def test_a_mapping_may_look_at_all_of_an_array() -> None:
    mapping = {"name": "second", "when": "[1].mine", "alertname": "a", "service": "b"}
    forms = opened(mappings=[mapping])

    assert recognised(forms, b'[{"x": 1}, {"mine": true}]') == "mapped"
    assert recognised(forms, b'[{"labels": {}}, {"x": true}]') == "v1"


def recognised(forms: Mapping[str, Format], body: bytes) -> str:
    events = forms["events"]
    assert isinstance(events, EventsFormat)
    return events.target(request(events, body))[0].name


#: What stands in the place of anything.
HOSTILE: st.SearchStrategy[Any] = st.sampled_from(
    [
        None, True, False, 0, -1, 1e308, -1e308, 10**40, 2**63, "", " ", "x" * 70_000, "\ud800", "\x00", "\u202e", "$ALERT_ID",
        "NaN", "1e999", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", [], {}, [[]], [None], {"": ""}, {"a": {"b": {"c": {"d": {"e": 1}}}}},
        ["a", 1, {}], {"labels": 7}, "{", "[1", "2026-13-45T99:99:99Z", {"x" * 2000: "y"},
    ]
)  # fmt: skip


def places(value: object) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    found: list[tuple[Any, Any]] = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in pairs:
        found += [(value, key), *places(each)]
    return found


@MANY
@given(data=st.data())
def test_whatever_stands_in_a_field_is_read_or_refused_in_words(data: st.DataObject) -> None:
    name, body = data.draw(st.sampled_from(BODIES))
    body = json.loads(json.dumps(body))
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(body) or [([None], 0)]))
        # A copy: the next round may change what is in it.
        hostile = copy.deepcopy(data.draw(HOSTILE))
        if isinstance(container, dict) and data.draw(st.booleans()):
            container.pop(key, None)
        elif isinstance(container, dict) or key < len(container):
            container[key] = hostile
    try:
        text = json.dumps(body, ensure_ascii=True).encode()
    except (ValueError, RecursionError):
        return
    for form in (FORMS[name], FORMS["events"]):
        refused_in_words(form, text)


@MANY
@given(
    body=st.one_of(
        st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))
    )
)
def test_any_bytes_are_read_or_refused_in_words(body: bytes) -> None:
    for name, form in FORMS.items():
        if isinstance(form, JsonFormat):
            refused_in_words(form, body)
            if name == "email":
                refused_in_words(form, body, content_type="message/rfc822")
            if name == "otlp-logs":
                refused_in_words(form, body, content_type="application/x-protobuf")


HOSTILE_BODIES = {
    "deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep array": b"[" * 100_000 + b"]" * 100_000,
    "NaN": b'{"title":NaN}',
    "Infinity": b"[-Infinity]",
    "digits": b'{"title":' + b"9" * 10_000 + b"}",
    "twice": b'{"title":"a","title":"b"}',
    "twice within": b'{"a":{"b":1,"b":2}}',
    "no UTF-8": b'{"title":"\xff"}',
    "half": b'{"title":"\\ud800"}',
    "half a name": b'{"\\uD800":"title"}',
    "empty": b"",
    "a number": b"7",
    "null": b"null",
    "cut": b'{"title":"a',
    "two": b'{"a":1}{"b":2}',
}


@pytest.mark.parametrize("what", HOSTILE_BODIES)
def test_hostile_json_is_refused_by_every_format(what: str) -> None:
    for form in FORMS.values():
        if isinstance(form, JsonFormat):
            reading = refused_in_words(form, HOSTILE_BODIES[what])

            assert reading is None or not reading.places, form.name


def refused_in_words(form: Format, body: bytes, **more: Any) -> Reading | None:
    """What a format makes of a body; None when it refuses it as it may."""
    try:
        reading = run(form, request(form, body, **more))
    except (Malformed, TooLarge, Busy, Unauthorized) as error:
        assert str(error).encode()
        return None
    for content in contents(reading):
        assert content.labels.get("alertname") or form.name in ("alertmanager-webhook", "grafana", "events")
        assert all(
            isinstance(each, str) for each in [*content.labels.values(), *content.annotations.values()]
        )
        assert math.isfinite(content.starts_at)
    for fault in reading.faults:
        assert fault.message.encode()
    return reading
