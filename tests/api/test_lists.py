"""Lists of incidents and alerts over /v1: filters, orders, pages over shards and archive."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from datetime import datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from models.incidents.filters import IncidentFilter, Sort, compile_filter, place_of
from models.incidents.incident import Child, Incident, IncidentState, IncidentType, Severity
from services.api.v1 import listing
from services.api.v1.cursors import (
    decode_numbers,
    decode_place,
    decode_stop,
    encode_numbers,
    encode_place,
    encode_stop,
)
from tests.api.gateway_in_process import System, alert
from tests.api.stand_in import NOW, StandIn, archived, handled, incident
from tests.api.stand_in import alert as shown_alert

WORDS = ("Latency of the gateway", "model down", "LATENCY again", "Straße gesperrt")
#: 2026-01-02T03:04:05.678Z is NOW.
SECOND = {n: f"2026-01-02T03:04:{5 + n:02}.678Z" for n in range(50)}


def some(count: int, seed: int = 1) -> list[Incident]:
    """Incidents of all kinds; many share a moment."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        one = incident(
            f"s{chance.randrange(5)}",
            number=number,
            at=NOW + chance.randrange(20),
            severity=chance.choice(list(Severity)),
            type=chance.choice(list(IncidentType)),
            state=chance.choice([IncidentState.TRIAGED, IncidentState.RESOLVED]),
            title=chance.choice(WORDS),
            labels={"team": chance.choice("xyz")},
            assignees=chance.choice([[], ["ana"], ["ana", "bo"]]),
            updated_at=NOW + chance.randrange(20, 40),
        )
        if chance.random() < 0.2:
            one = handled(one, merged_into=bytes(16))
        found.append(one)
    return found


def walk(stand_in: StandIn, query: str, limit: int = 100) -> list[str]:
    """The ids of all pages."""
    asked = TestClient(stand_in.app())
    met: list[str] = []
    cursor = ""
    while True:
        answer = asked.get(f"/v1/incidents?limit={limit}&{query}{cursor}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) <= limit
        met += [each["id"] for each in page["items"]]
        if page["next"] is None:
            return met
        cursor = f"&cursor={page['next']}"


FILTERS: list[tuple[str, IncidentFilter]] = [
    ("", IncidentFilter()),
    ("merged=true", IncidentFilter(with_children=True)),
    ("text=laten", IncidentFilter(text="laten")),
    ("text=STRASSE", IncidentFilter(text="STRASSE")),
    ("assignee=bo", IncidentFilter(assignees=["bo"])),
    ("assignee=&assignee=bo", IncidentFilter(assignees=["", "bo"])),
    ("match=team%3Dx", IncidentFilter(matchers=[("team", "=", "x")])),
    ("match=team%3D~%22x|y%22&match=service!=s1", IncidentFilter(matchers=[("team", "=~", "x|y"), ("service", "!=", "s1")])),
    (f"created_after={SECOND[5]}&created_before={SECOND[9]}", IncidentFilter(created_after=NOW + 5, created_before=NOW + 9)),
    (f"updated_after={SECOND[25]}&updated_before={SECOND[33]}", IncidentFilter(updated_after=NOW + 25, updated_before=NOW + 33)),
    (
        "severity=P0&severity=p3&type=security&type=data&state=Triaged&state=closed&service=s1&service=s2",
        IncidentFilter(
            states=["Triaged", "Closed"], severities=[0, 3], types=["Security", "Data"], services=["s1", "s2"]
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize("sort", Sort)
@pytest.mark.parametrize(("query", "wanted"), FILTERS, ids=[query or "none" for query, _wanted in FILTERS])
def test_pages_hold_what_the_filter_does_in_the_order_asked_for(
    query: str, wanted: IncidentFilter, sort: Sort
) -> None:
    alive, old = some(80), some(60, seed=2)
    stand_in = StandIn(shards=3, page=7, incidents=alive)
    kept = [archived(each) for each in old]
    asyncio.run(stand_in.archive.put(kept))

    met = walk(stand_in, f"{query}&sort={quote(sort)}", limit=9)

    decoded = [handled_as_closed(each) for each in old if each.id not in {one.id for one in alive}]
    holds = compile_filter(wanted)
    expected = sorted(
        (each for each in [*alive, *decoded] if holds(each)),
        key=lambda each: place_of(each, sort),
        reverse=sort.goes_down,
    )
    assert met == [str(UUID(bytes=each.id)) for each in expected]


def handled_as_closed(one: Incident) -> Incident:
    """An incident as archived() keeps it."""
    from msgspec.structs import replace

    return replace(one, state=IncidentState.CLOSED, closed_at=one.created_at + 1)


def test_a_filter_that_seldom_holds_is_followed_up_until_it_has_looked_at_all() -> None:
    alive = [incident("a", number=n, at=NOW + n) for n in range(50)]
    rare = incident("a", number=99, at=NOW - 1, title="the one")
    stand_in = StandIn(shards=1, page=3, incidents=[*alive, rare])

    page = TestClient(stand_in.app()).get("/v1/incidents?text=the one&limit=1").json()

    assert [each["title"] for each in page["items"]] == ["the one"]


@pytest.mark.parametrize("sort", [Sort.NEWEST, Sort.WORST, Sort.LATELY_UPDATED])
def test_a_page_that_took_too_long_is_short_and_its_cursor_leads_on(
    sort: Sort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LIST_TIME_S", -1.0)
    alive = [incident(f"s{n}", number=n, at=NOW + n) for n in range(20)]
    stand_in = StandIn(shards=2, page=3, incidents=alive)

    first = TestClient(stand_in.app()).get(f"/v1/incidents?limit=10&sort={sort}").json()
    all_of_them = walk(stand_in, f"sort={sort}", limit=10)

    assert len(first["items"]) < 10 and first["next"]
    assert all_of_them == [str(UUID(bytes=each.id)) for each in reversed(alive)]


def test_an_incident_that_goes_to_the_archive_between_two_pages_is_met_once() -> None:
    alive = [incident("a", number=n, at=NOW + n) for n in range(6)]
    stand_in = StandIn(shards=1, incidents=list(alive))
    asked = TestClient(stand_in.app())

    first = asked.get("/v1/incidents?limit=3").json()
    for gone in (alive[0], alive[5]):
        asyncio.run(stand_in.archive.put([archived(gone)]))
        stand_in.incidents.remove(gone)
    second = asked.get(f"/v1/incidents?limit=10&cursor={first['next']}").json()

    met = [each["id"] for each in first["items"] + second["items"]]
    assert met == [str(UUID(bytes=each.id)) for each in reversed(alive)]


@pytest.mark.parametrize("sort", list(Sort))
def test_an_incident_that_was_reopened_on_its_way_to_the_archive_is_not_listed_as_closed(sort: Sort) -> None:
    once = incident("a", state=IncidentState.CLOSED, version=5)
    now = incident("a", state=IncidentState.INVESTIGATING, version=6, updated_at=NOW + 60)
    stand_in = StandIn(incidents=[now])
    asyncio.run(stand_in.archive.put([archived(once)]))
    asked = TestClient(stand_in.app())

    closed = asked.get(f"/v1/incidents?state=Closed&sort={sort}").json()["items"]
    every = walk(stand_in, f"sort={sort}", limit=1)

    assert (closed, every) == ([], [str(UUID(bytes=now.id))])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("sevrity=P0", "sevrity"),
        ("sort=size", "sort"),
        ("text=" + "x" * 1025, "text"),
        ("match=~", "match"),
        ("match=a%3D~%22(%22", "match"),
        ("&".join(["match=a=b"] * 65), "match"),
        ("created_after=yesterday", "created_after"),
        ("created_before=", "created_before"),
        ("updated_after=1e9", "updated_after"),
        ("updated_before=9999-01-01T00:00:00Z", "updated_before"),
        ("merged=perhaps", "merged"),
        ("assignee=" + "x" * 129, "assignee.0"),
        ("cursor=" + encode_place(Sort.WORST, (1.0, 1.0, bytes(16))), "cursor"),
        ("cursor=" + encode_numbers(0, 1), "cursor"),
        ("cursor=" + encode_stop(bytes(16), 1), "cursor"),
        ("limit=100000000000000000000", "limit"),
    ],
)
def test_a_parameter_that_is_none_is_400_and_named(query: str, field: str) -> None:
    answer = TestClient(StandIn().app()).get(f"/v1/incidents?{query}")

    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["errors"]] == [field]


@given(
    st.sampled_from(list(Sort)),
    st.floats(allow_nan=False, allow_infinity=False),
    st.binary(min_size=16, max_size=16),
)
def test_a_cursor_comes_back_as_it_was(sort: Sort, at: float, identity: bytes) -> None:
    place = (at, at if sort.is_by_creation else -at, identity)

    assert decode_place(encode_place(sort, place), sort) == place
    assert len(encode_place(sort, place)) <= 64
    assert decode_numbers(encode_numbers(3, -1)) == (3, -1)
    assert decode_stop(encode_stop(identity, 2**40)) == (identity, 2**40)


#: Built once: a new application for each example would take most of the time.
_EMPTY = TestClient(StandIn().app())
_FIVE = TestClient(StandIn(incidents=[incident(number=number) for number in range(5)]).app())


# Each asks fifteen times.
@settings(deadline=None, max_examples=40)
@given(st.text(), st.text())
def test_no_text_in_a_filter_is_a_fault_of_ours(one: str, two: str) -> None:
    for params in (
        {"text": one, "assignee": two, "match": one},
        {"created_after": one, "updated_before": two},
        {"sort": one, "merged": two},
        {"match": f"a=~{one}"},
        {one: two},
    ):
        for path in ("/v1/incidents", "/v1/stats", "/v1/alerts"):
            assert _EMPTY.get(path, params=params).status_code < 500


def test_a_pattern_that_takes_too_many_steps_is_400_and_named() -> None:
    pattern = "match=" + quote('team=~"' + "(a|b|c){1000}" * 20 + '"')

    answer = _EMPTY.get(f"/v1/incidents?{pattern}")

    assert answer.status_code == 400, answer.text


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "path", ["/v1/incidents?", "/v1/incidents?sort=severity&", "/v1/stats?", "/v1/alerts?"]
)
async def test_a_pattern_that_a_shard_finds_too_slow_is_400_and_not_503(ours: System, path: str) -> None:
    chance = random.Random(5)
    sent = [alert("A", "api", x="".join(chance.choices("ab", k=3000)))]
    await ours.post("/v1/alerts", sent)

    answer = await ours.get(path + "match=" + quote('x=~".*a.{400}"'))

    assert answer.status == 400, answer
    assert "takes more than" in json.loads(answer.body)["detail"]


# -- alerts ------------------------------------------------------------------------------------------------------


def test_all_alerts_come_in_pages_over_all_shards() -> None:
    alerts = [shown_alert(f"s{n % 7}", n=str(n), firing=n % 3 > 0) for n in range(40)]
    asked = TestClient(StandIn(shards=3, page=4, alerts=alerts).app())

    met: list[str] = []
    cursor = ""
    while True:
        page = asked.get(f"/v1/alerts?limit=6&match=service%3D~%22s[0-4]%22{cursor}").json()
        met += [each["labels"]["n"] for each in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"

    assert sorted(met) == sorted(str(n) for n in range(40) if n % 7 < 5)


@pytest.mark.parametrize(("firing", "count"), [("", 6), ("?firing=true", 4), ("?firing=false", 2)])
def test_alerts_that_ended_are_among_them_unless_left_out(firing: str, count: int) -> None:
    alerts = [shown_alert("a", n=str(n), firing=n % 3 > 0) for n in range(6)]

    page = TestClient(StandIn(alerts=alerts).app()).get(f"/v1/alerts{firing}").json()

    assert len(page["items"]) == count


@pytest.mark.asyncio
async def test_alerts_are_shown_with_their_incident_from_every_shard(ours: System) -> None:
    sent = await ours.post("/v1/alerts", [alert("A", "api"), alert("B", "db")])

    page = await ours.get("/v1/alerts")

    assert {each["incident_id"] for each in page.items} == {each["incident_id"] for each in sent.items}


# -- parts -------------------------------------------------------------------------------------------------------


def test_the_alerts_of_archived_parts_count_too() -> None:
    part = incident("db", firing=0)
    whole = handled(incident("api", firing=1), children={part.id: Child(is_open=False)})
    stand_in = StandIn(incidents=[whole], alerts=[shown_alert("api", incident=whole.id)])
    asyncio.run(
        stand_in.archive.put([archived(part, [shown_alert("db", incident=part.id, n=n) for n in "12"])])
    )
    asked = TestClient(stand_in.app())

    it: dict[str, Any] = asked.get(f"/v1/incidents/{UUID(bytes=whole.id)}").json()
    alerts = asked.get(f"/v1/incidents/{UUID(bytes=whole.id)}/alerts").json()

    assert (it["alerts"], it["alerts_firing"]) == (3, 1)
    assert [each["incident_id"] for each in alerts["items"]] == [
        str(UUID(bytes=each)) for each in (whole.id, part.id, part.id)
    ]


def test_a_part_that_left_between_two_pages_is_passed_over() -> None:
    parts = sorted([incident("db", number=n) for n in range(3)], key=lambda each: each.id)
    whole = handled(incident("api"), children={part.id: Child() for part in parts})
    stand_in = StandIn(
        shards=1,
        incidents=[whole, *parts],
        alerts=[shown_alert("db", incident=part.id, n=str(n)) for part in parts for n in range(2)],
    )
    asked, path = TestClient(stand_in.app()), f"/v1/incidents/{UUID(bytes=whole.id)}/alerts"

    first = asked.get(f"{path}?limit=3").json()
    assert whole.handling is not None
    del whole.handling.children[parts[1].id]
    rest = asked.get(path, params={"cursor": first["next"]}).json()

    ids = [str(UUID(bytes=part.id)) for part in parts]
    assert [each["incident_id"] for each in first["items"] + rest["items"]] == [
        ids[0], ids[0], ids[1], ids[2], ids[2],
    ]  # fmt: skip
    assert json.dumps(rest["next"]) == "null"


@given(
    order=st.integers(0, len(Sort) - 1),
    first=st.floats(allow_nan=True),
    created_at=st.floats(allow_nan=True),
    identity=st.binary(min_size=16, max_size=16),
    sort=st.sampled_from(Sort),
)
@settings(max_examples=200, deadline=None)
def test_a_cursor_that_nobody_made_is_a_place_or_is_refused_by_name(
    order: int, first: float, created_at: float, identity: bytes, sort: Sort
) -> None:
    cursor = (
        base64.urlsafe_b64encode(msgspec.msgpack.encode((order, first, created_at, identity)))
        .decode()
        .rstrip("=")
    )

    answer = _FIVE.get(f"/v1/incidents?sort={sort}&limit=2&cursor={cursor}")

    assert answer.status_code == 200 or answer.json()["detail"].startswith("cursor: ")
    assert answer.status_code in (200, 400)


@pytest.mark.asyncio
@pytest.mark.parametrize("sort", [Sort.NEWEST, Sort.OLDEST])
@pytest.mark.parametrize("first", [0.0, 4e9])
async def test_a_place_that_speaks_against_itself_is_none(ours: System, sort: Sort, first: float) -> None:
    for number in range(5):
        await ours.post("/v1/alerts", [alert(f"Down{number}")])
    at = datetime.fromisoformat((await ours.get("/v1/incidents")).json["items"][2]["created_at"]).timestamp()

    for place in ((first, at, b"\x7f" * 16), (at, first, b"\x7f" * 16)):
        answer = await ours.get(f"/v1/incidents?sort={sort}&limit=2&cursor={encode_place(sort, place)}")

        assert (answer.status, answer.json["errors"][0]["field"]) == (400, "cursor")
