"""Queries that are written to take long: each is refused before it does."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from graphql import build_client_schema, execute_sync, get_introspection_query, parse, print_schema

from models.errors import TooLarge
from services.api.graphql import asked, bounds, engine, route
from services.api.graphql.weight import check
from tests.api.gateway_in_process import Reply, System, alert, another_gateway

#: Generous: what is refused takes a thousandth of it, and what is not would take hours.
REFUSED_WITHIN_S = 30.0
#: Reads until nothing happened between two of them.
TRIES = 50


async def post(ours: System, query: str) -> Reply:
    return await ours.post("/graphql", {"query": query})


def first_error(answer: Reply) -> dict[str, Any]:
    found: dict[str, Any] = answer.json["errors"][0]
    return found


def bomb(levels: int) -> str:
    """A text of a kilobyte that stands for 10**levels fields."""
    uses = " ".join(["...f{}"] * 10)
    parts = [
        f"fragment f{level} on Incident {{ {uses.replace('{}', str(level + 1))} }}" for level in range(levels)
    ]
    return " ".join(["{ incidents { items { ...f0 } } }", *parts, f"fragment f{levels} on Incident {{ id }}"])


ABUSE = {
    "deep": "{ incidents { items { alertPage { items { " * 1 + "why { " * 12 + "count" + " }" * 12 + " } } } } }",
    "very deep": "{ a " * 900 + "}" * 900,
    "deep in lists": '{ alerts(match: ' + "[" * 900 + "]" * 900 + ") { next } }",
    "aliases": "{ " + " ".join(f"a{number}: stats {{ open }}" for number in range(1000)) + " }",
    "as many fields at the top": "{ " + "stats { open } " * 400 + "}",
    "the same field again and again": "{ incidents { items { " + "id " * 3000 + "} } }",
    "words": "{ incidents { next } } # " + "x" * 10_000 + "\n" + ", " * 2000,
    "a circle of fragments": "{ incidents { ...a } } fragment a on IncidentPage { ...b } fragment b on IncidentPage { ...a }",
    "fragments of fragments": bomb(9),
    "fragments that nothing uses": "{ stats { open } } " + bomb(9).partition("} } ")[2],
    "a chain of fragments": "{ incidents { ...f0 } } " + " ".join(f"fragment f{n} on IncidentPage {{ ...f{n + 1} }}" for n in range(400)) + " fragment f400 on IncidentPage { next }",
    "the schema beside data": "{ __schema { queryType { name } } stats { open } }",
    "the schema under many names": "{ __schema { types { a: fields { name } b: fields { name } } } }",
    "the schema in circles": "{ __schema { types { " + "fields { type { " * 30 + "name" + " } }" * 30 + " } } }",
    "a number without an end": "{ incidents(first: " + "9" * 5000 + ") { next } }",
    "one as a default": "query($f: Int = " + "9" * 5000 + ") { incidents(first: $f) { next } }",
    "directives": "{ stats " + "@skip(if: false) " * 900 + "{ open } }",
}  # fmt: skip


@pytest.mark.parametrize("name", ABUSE)
@pytest.mark.asyncio(loop_scope="module")
async def test_it_is_refused_at_once(shared: System, name: str) -> None:
    query = ABUSE[name]
    if len(query) > bounds.QUERY_CHARS_MAX:
        query = query[: bounds.QUERY_CHARS_MAX]

    async with asyncio.timeout(REFUSED_WITHIN_S):
        answer = await post(shared, query)

    if name == "words":  # long, but no more than a query
        assert answer.json["data"] == {"incidents": {"next": None}}
    else:
        assert "data" not in answer.json, answer
        assert first_error(answer)["extensions"]["status"] == 400
        assert len(answer.json["errors"]) <= bounds.ERRORS_MAX


@pytest.mark.asyncio(loop_scope="module")
async def test_a_query_that_is_too_long_is_refused_by_its_length(shared: System) -> None:
    answer = await post(shared, "{ stats { open } } #" + "x" * bounds.QUERY_CHARS_MAX)

    assert answer.status == 400
    assert answer.json["errors"][0]["field"] == "query"


@pytest.mark.asyncio(loop_scope="module")
async def test_an_answer_of_too_many_fields_is_refused(
    shared: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shared.post("/v1/alerts", [alert(f"Many{number}", "api") for number in range(20)])
    monkeypatch.setattr(asked, "ANSWER_FIELDS_MAX", 50)

    few = await post(shared, "{ incidents(first: 10) { items { id title state } } }")
    many = await post(shared, "{ incidents(first: 20) { items { id title state } } }")

    assert len(few.json["data"]["incidents"]["items"]) == 10
    assert first_error(many)["extensions"]["type"].endswith("too-large")
    assert many.json["data"] == {"incidents": None}


@pytest.mark.asyncio(loop_scope="module")
async def test_an_answer_of_too_much_text_is_refused(shared: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field may have 256 KiB: so few fields that a gateway holds a gigabyte."""
    monkeypatch.setattr(asked, "ANSWER_CHARS_MAX", 30_000)
    long = [
        {**alert(f"Long{number}", "api"), "annotations": {"description": "x" * 2000}} for number in range(20)
    ]
    assert (await shared.post("/v1/alerts", long)).status == 202

    few = await post(
        shared, '{ alerts(match: "alertname=~\\"Long.*\\"", first: 10) { items { annotations } } }'
    )
    many = await post(
        shared, '{ alerts(match: "alertname=~\\"Long.*\\"", first: 20) { items { annotations } } }'
    )

    assert len(few.json["data"]["alerts"]["items"]) == 10
    assert first_error(many)["extensions"]["type"].endswith("too-large")
    assert many.json["data"] == {"alerts": None} and len(many.json["errors"]) == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_an_answer_that_needs_too_many_reads_is_refused(
    shared: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shared.post("/v1/alerts", [alert(f"Reads{number}", "api") for number in range(5)])
    monkeypatch.setattr(asked, "READS_MAX", 4)

    answer = await post(shared, "{ incidents(first: 5) { items { runs { id } } } }")

    assert first_error(answer)["extensions"]["type"].endswith("too-large")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_long_answer_lets_others_have_their_turn(
    shared: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answer in stretches of one item."""
    await shared.post("/v1/alerts", [alert(f"Turns{number}", "api") for number in range(10)])
    query = "{ incidents(first: 10) { items { id timeline { description } labels } next } }"
    whole_fields = bounds.SLICE_FIELDS
    for _ in range(TRIES):
        monkeypatch.setattr(asked, "SLICE_FIELDS", whole_fields)
        whole = await post(shared, query)
        monkeypatch.setattr(asked, "SLICE_FIELDS", 1)
        in_slices = await post(shared, query)
        if in_slices.json == whole.json:
            break
        await asyncio.sleep(0.1)  # a line of a timeline came in between: incidents are being judged

    assert in_slices.json == whole.json


@pytest.mark.asyncio
async def test_only_so_many_are_answered_at_once(ours: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "UNDER_WAY_MAX", 0)
    async with another_gateway(ours) as theirs:
        answer = await post(theirs, "{ stats { open } }")

    assert answer.status == 503
    assert "retry-after" in answer.headers


@pytest.mark.asyncio(loop_scope="module")
async def test_the_schema_is_described_to_one_at_a_time(
    shared: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most = 0, 0
    describe = execute_sync

    def counted(*given: Any) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.02)  # in a thread of its own, as the rest of it
        found = describe(*given)
        at_once -= 1
        return found

    await post(shared, "{ stats { open } }")  # the first request makes the schema
    monkeypatch.setattr(engine, "execute_sync", counted)

    answers = await asyncio.gather(*[post(shared, "{ __schema { queryType { name } } }") for _ in range(4)])

    assert [each.json["data"]["__schema"]["queryType"]["name"] for each in answers] == ["Query"] * 4
    assert most == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_a_bug_is_an_internal_error_that_says_nothing(
    shared: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_args: object, **_more: object) -> object:
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(shared.gateway.reads.listing, "page", broken)

    answer = await post(shared, "{ incidents { next } }")

    assert first_error(answer)["message"] == "Internal error"
    assert first_error(answer)["extensions"]["status"] == 500
    assert b"secret" not in answer.body


def test_bounds_are_named_in_what_is_told() -> None:
    names = " ".join(f"a{number}: open" for number in range(bounds.ALIASES_MAX + 1))

    with pytest.raises(TooLarge, match=f"at most {bounds.ALIASES_MAX} are answered"):
        check(parse(f"{{ stats {{ {names} }} }}"))


@pytest.mark.asyncio(loop_scope="module")
async def test_the_whole_schema_can_be_asked_for_by_tools(shared: System) -> None:
    answer = await post(shared, get_introspection_query(input_value_deprecation=True))

    assert "errors" not in answer.json, answer
    text = print_schema(build_client_schema(answer.json["data"]))
    assert "type Incident" in text and "acknowledge(" in text
