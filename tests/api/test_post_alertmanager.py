"""POST /api/v2/alerts beside Debian's Alertmanager 0.25: the same requests to both, the answers and alerts compared.

What 0.25 does not know yet is tested without it: names in UTF-8 (0.28), `mutedBy` (0.29).
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from models.alerts.matchers import write_matcher
from tests.api.gateway_in_process import JSON, Reply, System, send

PATH = "/api/v2/alerts"
SHARED = pytest.mark.asyncio(loop_scope="module")
pytestmark = pytest.mark.usefixtures("both_ways")


def at(minutes: float) -> str:
    """So many minutes from now, as Prometheus writes it."""
    moment = datetime.now(UTC) + timedelta(minutes=minutes)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Both:
    """One request to Alertmanager and to ours."""

    def __init__(self, alertmanager: int, ours: System) -> None:
        self.alertmanager = alertmanager
        self.ours = ours

    async def post(
        self, body: object, content_type: str | None = JSON, method: str = "POST"
    ) -> tuple[Reply, Reply]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {} if content_type is None else {"Content-Type": content_type}
        theirs = await asyncio.to_thread(send, self.alertmanager, method, PATH, raw, headers)
        mine = await self.ours.request(
            method, PATH, [raw], [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        )
        return theirs, mine

    async def shown(self, case: str) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        """The firing alerts with label case=`case` of each."""
        query = f"{PATH}?filter=case={case}"
        theirs = await asyncio.to_thread(send, self.alertmanager, "GET", query, b"", {})
        return json.loads(theirs.body), json.loads((await self.ours.get(query)).body)


@pytest.fixture
def both(alertmanager: int, shared: System) -> Both:
    return Both(alertmanager, shared)


def seconds(stamp: object) -> float:
    return datetime.fromisoformat(str(stamp).replace("Z", "+00:00")).timestamp()


def alike(theirs: list[dict[str, object]], mine: list[dict[str, object]]) -> None:
    """The same alerts: what they say exactly, given times to the millisecond, times of arrival within two seconds."""
    assert [each["fingerprint"] for each in mine] == [each["fingerprint"] for each in theirs]
    for one, other in zip(theirs, mine, strict=True):
        assert list(other) == list(one)
        for name in ("labels", "annotations"):
            assert other[name] == one[name]
        assert other["status"] == {**one["status"], "mutedBy": []}  # type: ignore[dict-item]
        assert other.get("generatorURL") == one.get("generatorURL")
        for name in ("startsAt", "endsAt", "updatedAt"):
            assert abs(seconds(other[name]) - seconds(one[name])) < 2, (name, one[name], other[name])


GOOD: dict[str, list[dict[str, Any]]] = {
    "labels alone": [{"labels": {"alertname": "A"}}],
    "everything": [
        {
            "labels": {"alertname": "A", "service": "db", "severity": "critical"},
            "annotations": {"summary": "down", "description": "it is\nvery down"},
            "startsAt": at(-10),
            "endsAt": at(10),
            "generatorURL": "http://prometheus.example/graph?g0.expr=up",
        }
    ],
    "several": [{"labels": {"alertname": f"A{number}", "service": f"s{number}"}} for number in range(20)],
    "an empty label value, which is no label": [{"labels": {"alertname": "A", "gone": ""}}],
    "an empty annotation, which is one": [
        {"labels": {"alertname": "A"}, "annotations": {"empty": "", "full": "x"}}
    ],
    "times of Go's zero": [
        {"labels": {"alertname": "A"}, "startsAt": "0001-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z"}
    ],
    "times that are null": [{"labels": {"alertname": "A"}, "startsAt": None, "endsAt": None}],
    "a start alone": [{"labels": {"alertname": "A"}, "startsAt": at(-60)}],
    "a time of another zone": [
        {"labels": {"alertname": "A"}, "startsAt": "2026-01-02T05:04:05.678901234+02:00", "endsAt": at(5)}
    ],
    "a time without a zone, which is UTC": [
        {"labels": {"alertname": "A"}, "startsAt": "2026-01-02T03:04:05"}
    ],
    "a start that is the end": [
        {"labels": {"alertname": "A"}, "startsAt": at(30)[:17] + "00Z", "endsAt": at(30)[:17] + "00Z"}
    ],
    "one that has ended": [{"labels": {"alertname": "A"}, "startsAt": at(-10), "endsAt": at(-5)}],
    "an end in the past alone": [{"labels": {"alertname": "A"}, "endsAt": at(-5)}],
    "unknown fields": [{"labels": {"alertname": "A"}, "status": "firing", "fingerprint": 5, "x": [{}]}],
    "unlikely names": [{"labels": {"__proto__": "x", "_": "y", "A1": "z"}}],
    "unlikely values": [
        {"labels": {"alertname": '\u0000\u0001\n\t"\\', "emoji": "🔥", "long": "x" * 10_000}}
    ],
    "the same alert twice": [
        {"labels": {"alertname": "A"}, "annotations": {"n": "1"}, "startsAt": at(-5)[:17] + "00Z"},
        {"labels": {"alertname": "A"}, "annotations": {"n": "2"}, "startsAt": at(-5)[:17] + "00Z"},
    ],
}


@SHARED
@pytest.mark.parametrize("case", GOOD)
async def test_what_alertmanager_takes_is_taken_and_shown_alike(
    both: Both, case: str, both_ways: str
) -> None:
    tag = f"{both_ways}{list(GOOD).index(case)}"
    batch = [{**each, "labels": {**each["labels"], "case": tag}} for each in GOOD[case]]

    theirs, mine = await both.post(batch)

    assert (theirs.status, theirs.body, theirs.headers.get("content-type")) == (200, b"", None)
    assert (mine.status, mine.body, mine.headers.get("content-type")) == (200, b"", None)
    alike(*await both.shown(tag))


@SHARED
async def test_of_equal_keys_the_last_wins(both: Both) -> None:
    for body in (
        b'[{"labels":{"alertname":"first","alertname":"last","case":"twice"}}]',
        b'[{"annotations":{"a":"first"},"labels":{"alertname":"x","case":"twice"},"annotations":{"a":"last"}}]',
    ):
        theirs, mine = await both.post(body)
        assert theirs.status == mine.status == 200
    alike(*await both.shown("twice"))


@SHARED
async def test_a_resend_moves_the_end_and_a_resolve_takes_it_off_the_list(both: Both) -> None:
    labels = {"alertname": "Again", "case": "again"}
    start = at(-5)

    for batch in (
        [{"labels": labels, "startsAt": start, "endsAt": at(4)}],
        [{"labels": labels, "startsAt": start, "endsAt": at(8)}],
    ):
        assert {reply.status for reply in await both.post(batch)} == {200}
    alike(*await both.shown("again"))
    assert {
        reply.status
        for reply in await both.post([{"labels": labels, "startsAt": start, "endsAt": at(-0.01)}])
    } == {200}

    theirs, mine = await both.shown("again")
    assert theirs == mine == []


ENDS = {
    "an end alone": ({}, {"endsAt": at(-0.5)}),
    "an end of an hour ago": ({}, {"endsAt": at(-60)}),
    "both times": ({}, {"startsAt": at(-20), "endsAt": at(-10)}),
    "the start of the alert": ({"startsAt": at(-5)}, {"startsAt": at(-5), "endsAt": at(-1)}),
    "the start of the alert, given no longer": ({"startsAt": at(-5)}, {"endsAt": at(-1)}),
    "an end before the start": ({"startsAt": at(-5)}, {"endsAt": at(-10)}),
    "a start to come": ({"startsAt": at(2)}, {"endsAt": at(-1)}),
}


@SHARED
@pytest.mark.parametrize("case", ENDS)
async def test_an_end_that_has_passed_resolves_whatever_the_start_is(both: Both, case: str) -> None:
    tag = f"ends{list(ENDS).index(case)}"
    labels = {"alertname": "Ends", "case": tag}
    before, after = ENDS[case]
    assert {reply.status for reply in await both.post([{"labels": labels, **before}])} == {200}
    assert [len(shown) for shown in await both.shown(tag)] == [1, 1]

    assert {reply.status for reply in await both.post([{"labels": labels, **after}])} == {200}

    assert await both.shown(tag) == ([], [])


@SHARED
@pytest.mark.parametrize(
    "end", ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999-12:00", "2200-01-01T00:00:00Z"]
)
async def test_an_end_after_2100_is_none(both: Both, end: str) -> None:
    tag = f"never{hash(end)}"

    replies = await both.post([{"labels": {"alertname": "Never", "case": tag}, "endsAt": end}])

    assert [reply.status for reply in replies] == [200, 200]
    assert [len(shown) for shown in await both.shown(tag)] == [1, 1]
    (ours,) = (await both.shown(tag))[1]
    assert ours["endsAt"] == "0001-01-01T00:00:00.000Z"


@SHARED
async def test_an_alert_sent_again_without_a_start_keeps_its_first(both: Both) -> None:
    labels = {"alertname": "Startless", "case": "startless"}

    for _ in range(2):
        assert {reply.status for reply in await both.post([{"labels": labels}])} == {200}
        await asyncio.sleep(0.3)

    theirs, mine = await both.shown("startless")
    alike(theirs, mine)
    assert seconds(mine[0]["updatedAt"]) - seconds(mine[0]["startsAt"]) > 0.2


@SHARED
async def test_an_alert_with_an_end_to_come_and_no_start_began_now_where_alertmanager_says_at_its_end(
    both: Both,
) -> None:
    end = at(60)

    await both.post([{"labels": {"alertname": "A", "case": "endalone"}, "endsAt": end}])

    [theirs], [mine] = await both.shown("endalone")
    assert mine["endsAt"] == theirs["endsAt"] == end
    assert theirs["startsAt"] == end
    assert abs(seconds(mine["startsAt"]) - seconds(mine["updatedAt"])) < 1


BUSINESS = {
    "no labels": [{"labels": {}}],
    "only empty labels": [{"labels": {"a": ""}}],
    "an empty label name": [{"labels": {"": "x"}}],
    "an empty annotation name": [{"labels": {"a": "b"}, "annotations": {"": "x"}}],
    "a start after the end": [{"labels": {"a": "b"}, "startsAt": at(10), "endsAt": at(5)}],
}


@SHARED
@pytest.mark.parametrize("case", BUSINESS)
async def test_what_is_wrong_with_one_alert_is_told_in_alertmanagers_words(both: Both, case: str) -> None:
    theirs, mine = await both.post(BUSINESS[case])

    assert (mine.status, mine.json, mine.headers["content-type"]) == (
        400,
        theirs.json,
        theirs.headers["content-type"],
    )
    assert theirs.status == 400 and isinstance(theirs.json, str)


@SHARED
async def test_of_a_mixed_batch_the_good_ones_are_stored_and_the_bad_ones_named(both: Both) -> None:
    batch = [
        {"labels": {"alertname": "Good1", "case": "mixed"}},
        {"labels": {"": "x", "case": "mixed"}},
        {"labels": {}},
        {"labels": {"alertname": "Good2", "case": "mixed", "service": "db"}},
    ]

    theirs, mine = await both.post(batch)

    assert theirs.status == mine.status == 400
    assert theirs.json == 'invalid label set: invalid name ""; at least one label pair required'
    assert (
        mine.json == 'alert 1: invalid label set: invalid name ""; alert 2: at least one label pair required'
    )
    alike(*await both.shown("mixed"))
    assert len((await both.shown("mixed"))[1]) == 2


#: Label names as Prometheus 3 and OpenTelemetry send them, and their fingerprints by the book (FNV-1a of sorted pairs).
UTF8_NAMES = {
    "dots": {"alertname": "A", "service.name": "llm-api", "k8s.pod.name": "p-1"},
    "other scripts": {"λ": "x", "температура": "y"},
    "what matchers quote": {"a b": "1", 'quo"te': "2", "back\\slash": "3", "{=~}": "4"},
    "control characters": {"a\n": "x", "a\u0000": "y"},
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", UTF8_NAMES)
@pytest.mark.parametrize("path", [PATH, "/v1/alerts"])
async def test_a_label_may_have_any_name_in_utf8(shared: System, case: str, path: str) -> None:
    tag = f"utf8-{list(UTF8_NAMES).index(case)}-{len(path)}"
    labels = {**UTF8_NAMES[case], "case": tag}

    answer = await shared.post(path, [{"labels": labels, "annotations": {"an.note": "x"}}])
    filters = "&".join(
        "filter=" + quote(write_matcher((name, "=", value)))
        for name, value in labels.items()
        if "\0" not in name
    )
    shown = json.loads((await shared.get(f"{PATH}?{filters}")).body)

    assert answer.status in (200, 202)
    assert [(each["labels"], each["annotations"]) for each in shown] == [(labels, {"an.note": "x"})]
    assert shown[0]["fingerprint"] == by_the_book(labels)


def by_the_book(labels: dict[str, str]) -> str:
    value = 0xCBF29CE484222325
    for name in sorted(labels, key=str.encode):
        for byte in name.encode() + b"\xff" + labels[name].encode() + b"\xff":
            value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


FORM = {
    "no array": b'{"labels":{"a":"b"}}',
    "a string": b'"x"',
    "half an array": b'[{"labels":{"a":"b"}},',
    "a trailing comma": b'[{"labels":{"a":"b"}},]',
    "a control character": b'[{"labels":{"a":"x\x01y"}}]',
    "NaN": b'[{"labels":{"a":NaN}}]',
    "100,000 brackets": b"[" * 100_000,
}


@SHARED
@pytest.mark.parametrize("case", FORM)
async def test_a_body_that_cannot_be_read_is_told_in_the_other_shape(both: Both, case: str) -> None:
    theirs, mine = await both.post(FORM[case])

    assert mine.status == theirs.status == 400
    assert list(mine.json) == list(theirs.json) == ["code", "message"]
    assert mine.json["code"] == theirs.json["code"] == 400


@SHARED
@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-ndjson", "application/x-www-form-urlencoded", "", None]
)
async def test_another_content_type_is_refused_in_the_same_words(
    both: Both, content_type: str | None
) -> None:
    theirs, mine = await both.post(b"[]", content_type)

    assert (mine.status, mine.json) == (415, theirs.json)


@SHARED
@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON"])
async def test_json_by_another_spelling_is_taken(both: Both, content_type: str) -> None:
    assert [reply.status for reply in await both.post(b"[]", content_type)] == [200, 200]


@SHARED
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_another_method_is_refused_in_the_same_words(both: Both, method: str) -> None:
    theirs, mine = await both.post(b"[]", method=method)

    assert mine.status == theirs.status == 405
    assert mine.json["code"] == theirs.json["code"] == 405
    assert set(mine.headers["allow"].split(",")) == set(theirs.headers["allow"].split(","))


#: What we answer otherwise, on purpose: (body, Alertmanager's status, ours, why).
DIFFERENT: dict[str, tuple[bytes, int, int, str]] = {
    "labels left out": (
        b"[{}]",
        422,
        400,
        "one alert's fault: its neighbours are kept, so the answer is about alerts",
    ),
    "a wrong type in one alert": (
        b'[{"labels":{"a":1}}]',
        400,
        400,
        "told as a string: its neighbours are kept",
    ),
    "an empty body": (b"", 422, 400, "no JSON is one thing"),
    "null": (b"null", 200, 400, "no array"),
    "something behind the array": (b"[] x", 200, 400, "no JSON"),
    "a start of 1960": (
        b'[{"labels":{"case":"d"},"startsAt":"1960-01-01T00:00:00Z"}]',
        200,
        400,
        "a mistake of unit or clock",
    ),
    "a start after the end that we give": (
        json.dumps([{"labels": {"case": "d"}, "startsAt": at(60)}]).encode(),
        400,
        200,
        "the start is by its sender's clock, the end by ours",
    ),
    "bad UTF-8": (b'[{"labels":{"case":"\xff"}}]', 200, 400, "two alerts would become one"),
    "half a surrogate pair": (b'[{"labels":{"case":"\\ud800"}}]', 200, 400, "likewise"),
    "null as a value": (b'[{"labels":{"case":"d","a":null}}]', 200, 400, "a wrong type"),
    "field names in other letters": (b'[{"Labels":{"case":"d"}}]', 200, 400, "JSON names are exact"),
    "a generator that is no URL": (
        b'[{"labels":{"case":"d"},"generatorURL":"::"}]',
        422,
        200,
        "no reason to lose an alert",
    ),
}


@SHARED
@pytest.mark.parametrize("case", DIFFERENT)
async def test_where_we_differ_it_is_known_and_never_a_5xx(both: Both, case: str) -> None:
    body, their_status, our_status, _why = DIFFERENT[case]

    theirs, mine = await both.post(body)

    assert (theirs.status, mine.status) == (their_status, our_status)


@SHARED
async def test_a_byte_order_mark_is_passed_over(shared: System) -> None:
    raw = b"\xef\xbb\xbf" + json.dumps([{"labels": {"alertname": "Marked", "service": "api"}}]).encode()

    assert (await shared.post(PATH, raw)).status == 200
