"""POST /graphql: it shows and does what /v1 does, by the same words and checks."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from graphql import GraphQLInputObjectType, GraphQLObjectType, get_named_type

from services.api.graphql import bounds
from services.api.graphql.engine import Engine
from services.api.graphql.types import camel, given_by
from services.api.v1.bodies import AlertBody, IncidentBody, TimelineBody
from services.api.v1.heartbeats import HeartbeatBody
from services.api.v1.list_params import FilterParams, ListParams
from services.api.v1.run_bodies import RunBody
from services.api.v1.silences import SilenceBody
from services.api.v1.stats import StatsBody
from services.api.v1.verb_bodies import CreateBody
from services.api.v1.verb_table import VERBS
from tests.api.for_verbs import opened, ready_for
from tests.api.gateway_in_process import Reply, System, alert, another_gateway, system

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = Engine().schema
#: Nobody listens there: what is to be told to it is owed.
NOTIFY = {"webhook": {"url": "http://127.0.0.1:9/hook"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def telling() -> AsyncIterator[System]:
    """A system with a receiver."""
    async with system(notify=NOTIFY) as started:
        yield started


async def post(ours: System, query: str, headers: dict[str, str] | None = None, **variables: object) -> Reply:
    return await ours.post("/graphql", {"query": query, "variables": variables}, headers=headers or {})


async def asked(
    ours: System, query: str, headers: dict[str, str] | None = None, **variables: object
) -> dict[str, Any]:
    """The data of an answer without errors."""
    answer = await post(ours, query, headers, **variables)
    assert answer.status == 200 and "errors" not in answer.json, answer
    found: dict[str, Any] = answer.json["data"]
    return found


def shown(name: str) -> GraphQLObjectType:
    found = SCHEMA.type_map[name]
    assert isinstance(found, GraphQLObjectType)
    return found


# Parity with /v1


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("Incident", IncidentBody),
        ("Alert", AlertBody),
        ("TimelineEntry", TimelineBody),
        ("Silence", SilenceBody),
        ("Heartbeat", HeartbeatBody),
        ("Run", RunBody),
        ("Stats", StatsBody),
    ],
)
def test_every_field_of_a_body_is_a_field_with_its_description(name: str, body: type) -> None:
    kind = shown(name)

    for each in fields(body):
        assert kind.fields[camel(each.name)].description, each.name


def test_every_verb_is_a_mutation_that_takes_what_its_body_does() -> None:
    assert SCHEMA.mutation_type is not None
    found = SCHEMA.mutation_type.fields

    assert list(found) == ["create", *(verb.name for verb in VERBS)]
    for name, body in [("create", CreateBody), *((verb.name, verb.body) for verb in VERBS)]:
        taken = get_named_type(found[name].args["input"].type)
        assert isinstance(taken, GraphQLInputObjectType)
        assert list(taken.fields) == [each.name for each in given_by(body)]


def test_every_filter_and_parameter_of_a_list_is_an_argument() -> None:
    assert SCHEMA.query_type is not None
    arguments = SCHEMA.query_type.fields["incidents"].args
    narrowed = get_named_type(arguments["filter"].type)

    assert isinstance(narrowed, GraphQLInputObjectType)
    assert list(narrowed.fields) == [camel(name) for name in FilterParams.model_fields]
    own = set(ListParams.model_fields) - set(FilterParams.model_fields)
    assert own == {"sort", "limit", "cursor"}
    assert list(arguments) == ["filter", "sort", "first", "after"]


def _leaves(kind: GraphQLObjectType, depth: int = 3) -> str:
    """A selection of all fields of a type that need no argument."""
    parts = []
    for name, field in kind.fields.items():
        inner = get_named_type(field.type)
        if not isinstance(inner, GraphQLObjectType):
            parts.append(name)
        elif depth:
            parts.append(f"{name} {{ {_leaves(inner, depth - 1)} }}")
    return " ".join(parts)


@pytest.mark.asyncio(loop_scope="module")
async def test_an_incident_is_what_v1_shows(telling: System) -> None:
    identity = await opened(telling, alerts=2)
    await telling.post(f"/v1/incidents/{identity}/acknowledge", {"for": "2h"})
    await telling.post(f"/v1/incidents/{identity}/assign", {"roles": {"scribe": "ana"}})
    body = (await telling.get(f"/v1/incidents/{identity}")).json

    found = (await asked(telling, f'{{ incident(id: "{identity}") {{ {_leaves(shown("Incident"))} }} }}'))[
        "incident"
    ]

    def camels(value: Any, keys: bool = True) -> Any:
        if isinstance(value, dict):
            return {camel(name) if keys else name: camels(each, keys) for name, each in value.items()}
        return [camels(each) for each in value] if isinstance(value, list) else value

    for name, value in body.items():
        is_map = name in ("labels", "group_labels", "annotations", "roles", "timeline")
        if name == "timeline":
            value = [{camel(key): each for key, each in line.items()} for line in value]
        assert found[camel(name)] == (value if is_map else camels(value)), name


# Queries


@pytest.mark.asyncio(loop_scope="module")
async def test_every_field_of_every_query_can_be_asked_for(telling: System) -> None:
    """With at least one of each, so that none of them is of a type that its values are not."""
    identity = await opened(telling, "whole")
    await telling.post(f"/v1/incidents/{identity}/comment", {"text": "x"})
    assert SCHEMA.query_type is not None

    for name, field in SCHEMA.query_type.fields.items():
        kind = get_named_type(field.type)
        assert isinstance(kind, GraphQLObjectType)
        given = f'(id: "{identity}")' if name == "incident" else ""
        await asked(telling, f"{{ {name}{given} {{ {_leaves(kind, 4)} }} }}")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_list_takes_the_filters_sorts_and_cursors_of_v1(telling: System) -> None:
    for number in range(3):
        await telling.post("/v1/alerts", [alert(f"Listed{number}", "paging")])
    query = """query($after: String, $first: Int) {
        incidents(filter: {service: "paging", match: ["alertname=~\\"Listed.*\\""]}, sort: OLDEST, first: $first, after: $after) {
            items { title labels } next } }"""

    first = (await asked(telling, query, first=2))["incidents"]
    rest = (await asked(telling, query, first=2, after=first["next"]))["incidents"]
    by_rest = (
        await telling.get(f"/v1/incidents?service=paging&sort=created_at&limit=2&cursor={first['next']}")
    ).json

    names = [each["labels"]["alertname"] for each in first["items"] + rest["items"]]
    assert names == ["Listed0", "Listed1", "Listed2"]
    assert rest["next"] is None
    assert [each["title"] for each in by_rest["items"]] == [each["title"] for each in rest["items"]]


@pytest.mark.asyncio(loop_scope="module")
async def test_one_query_gets_an_incident_with_its_alerts_notes_runs_and_notifications(
    telling: System,
) -> None:
    identity = await opened(telling, alerts=3)
    await telling.post(
        f"/v1/incidents/{identity}/comment", {"text": "Out of memory."}, headers={"X-Actor": "ana"}
    )

    found = (
        await asked(
            telling,
            """query($id: ID!) { incident(id: $id) {
                alerts
                alertPage(first: 2, firing: true) { items { fingerprint incidentId labels why { decision count } } next }
                notes { by text at }
                runs { id }
                notifications { receiver owed told dueAt }
            } }""",
            id=identity,
        )
    )["incident"]
    by_rest = (await telling.get(f"/v1/incidents/{identity}/alerts?limit=2")).json

    page = found["alertPage"]
    assert (found["alerts"], found["runs"]) == (3, [])
    assert [each["fingerprint"] for each in page["items"]] == [
        each["fingerprint"] for each in by_rest["items"]
    ]
    assert page["next"] == by_rest["next"]
    assert [(each["by"], each["text"]) for each in found["notes"]] == [("ana", "Out of memory.")]
    assert [each["receiver"] for each in found["notifications"]] == ["webhook"]


@pytest.mark.asyncio(loop_scope="module")
async def test_alerts_silences_heartbeats_runs_and_stats_are_those_of_v1(telling: System) -> None:
    await opened(telling, "many")
    made = await telling.post(
        "/v1/silences", {"matchers": ['service="nobody"'], "duration": "1h", "comment": "x"}
    )
    assert made.status == 201, made
    put = await telling.request(
        "PUT", "/v1/heartbeats/job", [b'{"interval": "1d"}'], [(b"content-type", b"application/json")]
    )
    assert put.status == 201, put

    found = await asked(
        telling,
        """{ alerts(match: ["service=\\"many\\""], firing: true) { items { labels } }
             silences(state: [active]) { items { id matchers comment state } }
             heartbeats { items { name state interval } }
             runs(active: false) { items { id } next }
             stats(filter: {service: "many"}, window: "1h") { open bySeverity byService { service open } timeToResolve { count meanS } } }""",
    )
    silences = (await telling.get("/v1/silences")).items
    stats = (await telling.get("/v1/stats?service=many&window=1h")).json

    assert {each["labels"]["service"] for each in found["alerts"]["items"]} == {"many"}
    assert [each["id"] for each in found["silences"]["items"]] == [each["id"] for each in silences]
    assert found["heartbeats"]["items"] == [{"name": "job", "state": "new", "interval": "1d"}]
    assert found["runs"] == {"items": [], "next": None}
    assert found["stats"]["open"] == stats["open"] == 1
    assert found["stats"]["bySeverity"] == stats["by_severity"]


@pytest.mark.asyncio
async def test_a_tenant_sees_its_own(ours: System) -> None:
    await ours.post("/v1/alerts", [alert("A", "api")])

    async with another_gateway(ours, "other") as theirs:
        [mine, other] = [await asked(each, "{ incidents { items { title } } }") for each in (ours, theirs)]

    assert (len(mine["incidents"]["items"]), other["incidents"]["items"]) == (1, [])


# Mutations


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_every_verb_can_be_done(telling: System, verb: Any) -> None:
    one, other, fingerprint = await ready_for(telling, verb.name)
    given = json.loads(json.dumps(verb.example))
    if "incident" in given:
        given["incident"] = other
    if "alerts" in given:
        given["alerts"] = [fingerprint]
    if verb.name == "resend":
        given["receiver"] = ""
    kind = get_named_type(SCHEMA.mutation_type.fields[verb.name].args["input"].type)  # type: ignore[union-attr]

    found = await asked(
        telling,
        f"mutation($id: ID!, $input: {kind}!) {{ {verb.name}(id: $id, input: $input) {{ changed settled incident {{ id version }} }} }}",
        id=one,
        input={camel(name): value for name, value in given.items()},
    )

    done = found[verb.name]
    assert done["changed"] is (verb.name != "unacknowledge")  # nobody had
    assert done["settled"] is True
    assert (done["incident"]["id"] == one) is not verb.makes_another


@pytest.mark.asyncio(loop_scope="module")
async def test_an_incident_is_opened_by_hand(telling: System) -> None:
    found = await asked(
        telling,
        'mutation { create(input: {service: "api", title: "slow", severity: P1, labels: {team: "x"}}) { incident { title severity labels createdBy } } }',
        {"X-Actor": "ana"},
    )

    assert found["create"]["incident"] == {
        "title": "slow",
        "severity": "P1",
        "labels": {"team": "x"},
        "createdBy": "ana",
    }


@pytest.mark.asyncio(loop_scope="module")
async def test_a_change_that_repeats_changes_nothing_and_says_so(telling: System) -> None:
    identity = await opened(telling)
    query = f'mutation {{ acknowledge(id: "{identity}") {{ changed incident {{ version }} }} }}'

    first, again = (await asked(telling, query))["acknowledge"], (await asked(telling, query))["acknowledge"]

    assert (first["changed"], again["changed"]) == (True, False)
    assert first["incident"] == again["incident"]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_idempotency_key_names_each_change_of_a_request(telling: System) -> None:
    identity = await opened(telling)
    query = f"""mutation {{
        one: comment(id: "{identity}", input: {{text: "first"}}) {{ changed }}
        two: comment(id: "{identity}", input: {{text: "second"}}) {{ changed }} }}"""

    for _ in range(2):
        await asked(telling, query, {"Idempotency-Key": "k1"})

    notes = (await asked(telling, f'{{ incident(id: "{identity}") {{ notes {{ text }} }} }}'))["incident"][
        "notes"
    ]
    assert [each["text"] for each in notes] == ["first", "second"]


# Errors


def problem(answer: Reply, place: int = 0) -> tuple[str, int]:
    found = answer.json["errors"][place]["extensions"]
    return found["type"].removeprefix("urn:llm-im:problem:"), found["status"]


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_shard_refuses_is_told_as_v1_tells_it(telling: System) -> None:
    identity = await opened(telling)
    stale = await post(telling, f'mutation {{ acknowledge(id: "{identity}", version: 999) {{ changed }} }}')
    closed = await post(telling, f'mutation {{ close(id: "{identity}") {{ changed }} }}')
    by_rest = (await telling.post(f"/v1/incidents/{identity}/close", {})).json

    assert problem(stale) == ("stale", 412)
    assert problem(closed) == ("conflict", 409)
    assert closed.json["errors"][0]["message"] == by_rest["detail"]
    assert closed.json["data"] == {"close": None}


@pytest.mark.asyncio(loop_scope="module")
async def test_one_field_that_fails_leaves_the_others(telling: System) -> None:
    answer = await post(
        telling,
        '{ incident(id: "01a20993-901b-7483-ab53-7cb8d1609881") { id } incidents(first: 1) { items { id } } }',
    )

    assert problem(answer) == ("no-such-incident", 404)
    assert answer.json["data"]["incident"] is None
    assert answer.json["data"]["incidents"] is not None


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("{ incidents(first: 0) { next } }", "first"),
        ('{ incidents(filter: {createdAfter: "then"}) { next } }', "createdAfter"),
        ('{ incidents(after: "x") { next } }', "after"),
        ('{ incidents(filter: {match: ["("]}) { next } }', "match"),
        ('{ incident(id: "5") { id } }', "id"),
        ('{ stats(window: "1y") { open } }', "window"),
        ('mutation { comment(id: "01a20993-901b-7483-ab53-7cb8d1609881", input: {text: ""}) { changed } }', "text"),
        ('mutation { acknowledge(id: "01a20993-901b-7483-ab53-7cb8d1609881", input: {for: "1m", until: "2000-01-01T00:00:00Z"}) { changed } }', "for"),
    ],
)  # fmt: skip
@pytest.mark.asyncio(loop_scope="module")
async def test_a_wrong_argument_is_named(telling: System, query: str, field: str) -> None:
    answer = await post(telling, query)

    assert problem(answer) == ("malformed", 400)
    [error] = answer.json["errors"]
    assert [each["field"] for each in error["extensions"]["errors"]] == [field]
    assert error["message"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    "query",
    ["{", "{ nothing }", "{ incidents { items } }", "query($a: Int!) { incidents(first: $a) { next } }",
     "subscription { incidents { next } }", "{ incidents(filter: {state: [Bad]}) { next } }"],
)  # fmt: skip
@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_no_query_is_400_for_those_who_speak_graphql(telling: System, query: str) -> None:
    plain = await post(telling, query)
    own = await post(telling, query, {"Accept": "application/graphql-response+json, */*"})

    assert (plain.status, plain.headers["content-type"]) == (200, "application/json")
    assert (own.status, own.headers["content-type"]) == (400, "application/graphql-response+json")
    assert plain.json == own.json
    assert "data" not in plain.json and problem(plain) == ("malformed", 400)


@pytest.mark.asyncio(loop_scope="module")
async def test_no_web_page_can_make_a_browser_send_one(telling: System) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", None):
        answer = await telling.post("/graphql", {"query": "{ stats { open } }"}, content_type=content_type)
        assert answer.status == 415
    assert (await telling.get("/graphql?query={stats{open}}")).status == 405


@pytest.mark.parametrize(
    "body", [[{"query": "{ stats { open } }"}], "text", {"query": 5}, {"query": "{a}", "id": 1}, {}]
)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_no_request_is_a_problem(telling: System, body: object) -> None:
    answer = await telling.post("/graphql", body)

    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")


# What docs/graphql.md shows

COMMANDS = [
    line
    for block in re.findall(
        r"```sh\n(.*?)```", (ROOT / "docs" / "graphql.md").read_text("utf-8"), flags=re.DOTALL
    )
    for line in block.splitlines()
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_the_document_tells_to_type_is_answered(telling: System, command: str) -> None:
    words = shlex.split(command.replace('"ID"', f'"{await opened(telling)}"'))
    assert words[:3] == ["curl", "-sS", "http://127.0.0.1:8080/graphql"] and words[3] == "--json"

    answer = await telling.post("/graphql", words[4].encode())

    assert answer.status == 200 and "errors" not in answer.json, answer


def test_the_bounds_in_the_document_are_those_of_the_code() -> None:
    document = (ROOT / "docs" / "graphql.md").read_text("utf-8")

    for row in (
        f"| {bounds.QUERY_CHARS_MAX:,} and {bounds.TOKENS_MAX:,} |",
        f"| {bounds.DEPTH_MAX}; {bounds.SCHEMA_DEPTH_MAX} for the schema |",
        f"| {bounds.FIELDS_MAX} |",
        f"| {bounds.ROOTS_MAX}; {bounds.ALIASES_MAX}; {bounds.FRAGMENTS_MAX} |",
        f"| {bounds.ANSWER_FIELDS_MAX:,}; {bounds.ANSWER_CHARS_MAX:,} |",
        f"| {bounds.READS_MAX} |",
        f"| {bounds.TIME_MAX_S:g} s |",
        f"| {bounds.UNDER_WAY_MAX} |",
    ):
        assert row in document, row


# Access


@pytest.mark.asyncio
async def test_a_token_may_do_in_graphql_what_it_may_do_in_v1(ours: System) -> None:
    def bearer(secret: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {secret}"}

    admin = (await ours.post("/v1/tokens", {"name": "admin", "scopes": ["admin"]})).json["token"]
    secrets = {
        scope: (
            await ours.post("/v1/tokens", {"name": scope[:6], "scopes": [scope]}, headers=bearer(admin))
        ).json["token"]
        for scope in ("read", "respond", "ingest:v1")
    }
    read, change = (
        "{ stats { open } }",
        'mutation { create(input: {service: "a", title: "b"}) { incident { createdBy } } }',
    )

    statuses = {
        scope: [(await post(ours, query, bearer(secret))).status for query in (read, change)]
        for scope, secret in secrets.items()
    }

    assert statuses == {"read": [200, 403], "respond": [200, 200], "ingest:v1": [403, 403]}
    assert (await post(ours, "{ __schema { queryType { name } } }")).status == 401
    made = await asked(ours, change, bearer(secrets["respond"]))
    assert made["create"]["incident"]["createdBy"] == "respon"


def test_a_gateway_starts_without_the_library() -> None:
    """It is imported by the first request."""
    code = "import sys, services.wiring.gateway; assert 'graphql' not in sys.modules, 'imported'"

    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)
