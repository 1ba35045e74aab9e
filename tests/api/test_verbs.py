"""What people do over /v1: every verb, its conditions, its names, and what is wrong with what they send."""

from __future__ import annotations

import asyncio
import json
from typing import Any, get_type_hints
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from actors.runtime.untraced import NoTracer
from actors.shard import IncidentShard
from models.errors import (
    Busy,
    Conflict,
    Forbidden,
    Full,
    IncidentManagerError,
    Malformed,
    NotFound,
    Refused,
    Stale,
    TooLarge,
    Unavailable,
)
from models.incidents import verbs
from models.incidents.incident import Child, TimelineEntry
from models.shard.messages import CommandDone
from services.api.traced import Traced
from services.api.v1.verb_table import VERBS, VerbRoute
from tests.api.for_verbs import opened, ready_for
from tests.api.gateway_in_process import FIRST_SHARD_SERVICE, SECOND_SHARD_SERVICE, Reply, System
from tests.api.stand_in import StandIn, archived, handled, incident

NOBODY = "019b8000-0000-7000-8000-000000000000"


async def do(ours: System, incident_id: str, verb: str, body: object = None, **headers: str) -> Reply:
    """POST a verb. Headers as if_match="...", idempotency_key="..."."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await ours.post(f"/v1/incidents/{incident_id}/{verb}", {} if body is None else body, headers=named)


def fields(answer: Reply) -> list[str]:
    """The fields that a problem names."""
    assert answer.headers["content-type"] == "application/problem+json"
    return [each["field"] for each in json.loads(answer.body)["errors"]]


def shown(answer: Reply) -> dict[str, Any]:
    """The incident of an answer."""
    assert answer.status in (200, 201, 202), answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


@pytest.mark.asyncio(loop_scope="module")
# What a resend does needs receivers: tests/api/test_routing.py.
@pytest.mark.parametrize(
    "verb", [verb for verb in VERBS if verb.name != "resend"], ids=lambda verb: verb.name
)
async def test_the_example_of_every_verb_is_taken(shared: System, verb: VerbRoute) -> None:
    one, other, name = await ready_for(shared, verb.name)
    example = dict(verb.example)
    if "incident" in example:
        example["incident"] = other
    if "alerts" in example:
        example["alerts"] = [name]

    answer = await do(shared, one, verb.name, example)

    assert answer.status == (201 if verb.makes_another else 200), answer
    assert answer.headers["etag"] == f'"{shown(answer)["version"]}"'


@pytest.mark.asyncio(loop_scope="module")
async def test_the_incident_shows_what_was_done_to_it(shared: System) -> None:
    one, other = await opened(shared), await opened(shared, SECOND_SHARD_SERVICE)

    await do(shared, one, "acknowledge", {"until": "2099-01-01T00:00:00Z"}, x_actor="ana")
    await do(shared, one, "assign", {"add": ["bo", "cy"], "remove": ["cy"], "roles": {"scribe": "di"}})
    await do(shared, one, "label", {"set": {"team": "inference"}, "remove": ["alertname"]})
    await do(shared, one, "reclassify", {"severity": "p0", "incident_type": "SECURITY", "impact": "all"})
    await do(shared, one, "link", {"incident": other})
    await do(shared, one, "update", {"audience": "customers", "text": "slow", "next_due_in": "1h"})
    await do(shared, one, "comment", {"text": "two\nlines"}, x_actor="ana")
    it = shown(await shared.get(f"/v1/incidents/{one}"))

    assert (it["acknowledged"]["by"], it["acknowledged"]["until"]) == ("ana", "2099-01-01T00:00:00.000Z")
    assert (it["assignees"], it["roles"], it["state"]) == (["bo"], {"scribe": "di"}, "Investigating")
    assert it["labels"]["team"] == "inference" and "alertname" not in it["labels"]
    assert (it["severity"], it["incident_type"], it["impact"]) == ("P0", "Security", "all")
    assert it["said"] == {"severity": "P0", "incident_type": "Security", "impact": "all"}
    assert it["judged"]["incident_type"] != "Security"
    assert it["related_incidents"] == [other]
    assert [(each["audience"], each["text"]) for each in it["updates"]] == [("customers", "slow")]
    assert it["update_due_at"] == it["updates"][0]["next_due_at"]
    assert [line["actor"] for line in it["timeline"] if line["event_type"] == "CommentAdded"] == ["ana"]


@pytest.mark.asyncio(loop_scope="module")
async def test_what_people_said_is_the_classifiers_again_when_cleared(shared: System) -> None:
    one = await opened(shared)
    await do(shared, one, "reclassify", {"severity": "P0", "incident_type": "Data"})

    it = shown(await do(shared, one, "reclassify", {"clear": ["severity", "Incident_Type"]}))

    assert it["said"] == {"severity": None, "incident_type": None, "impact": None}
    assert it["severity"] == it["judged"]["severity"] != "P0"


@pytest.mark.asyncio(loop_scope="module")
async def test_an_incident_made_by_hand_is_found_where_the_answer_says(shared: System) -> None:
    body = {
        "service": "db",
        "title": "It is odd",
        "labels": {"team": "x", "service.name": "y"},
        "assignees": ["ana"],
    }

    made = await shared.post("/v1/incidents", {**body, "severity": "p1"}, headers={"X-Actor": "bo"})
    found = await shared.get(made.headers["location"])

    assert made.status == 201 and made.headers["etag"]
    it = shown(found)
    assert (it["title"], it["service"], it["severity"], it["created_by"]) == ("It is odd", "db", "P1", "bo")
    assert (it["labels"]["team"], it["labels"]["service.name"], it["assignees"]) == ("x", "y", ["ana"])
    assert (it["alerts"], it["group_key"]) == (0, "")


# -- over two incidents ------------------------------------------------------------------------------------------


@pytest.mark.asyncio(loop_scope="module")
async def test_a_merged_incident_shows_the_alerts_of_both_in_pages(shared: System) -> None:
    whole = await opened(shared, alerts=3)
    parts = [await opened(shared, service, 2) for service in (SECOND_SHARD_SERVICE, FIRST_SHARD_SERVICE)]
    for part in parts:
        answer = await do(shared, whole, "merge", {"incident": part})
        assert answer.status == 200, answer

    it = shown(await shared.get(f"/v1/incidents/{whole}"))
    met: list[tuple[str, str]] = []
    cursor = ""
    while True:
        page = await shared.get(f"/v1/incidents/{whole}/alerts?limit=2{cursor}")
        met += [(str(each["incident_id"]), str(each["fingerprint"])) for each in page.items]
        if (following := json.loads(page.body)["next"]) is None:
            break
        cursor = f"&cursor={following}"

    assert (it["alerts"], it["alerts_firing"]) == (7, 7)
    assert {(each["incident"], each["pending"]) for each in it["parts"]} == {(part, "") for part in parts}
    assert [each for each, _name in met] == [whole] * 3 + [part for part in sorted(parts) for _ in range(2)]
    assert len({name for _each, name in met}) == 7


@pytest.mark.asyncio(loop_scope="module")
async def test_a_list_shows_the_whole_for_its_parts_unless_asked(shared: System) -> None:
    whole, part = await opened(shared), await opened(shared, SECOND_SHARD_SERVICE)
    await do(shared, whole, "merge", {"incident": part})

    listed = {each["id"] for each in (await shared.get("/v1/incidents?limit=1000")).items}
    with_parts = {
        each["id"]: each for each in (await shared.get("/v1/incidents?merged=true&limit=1000")).items
    }

    assert whole in listed and part not in listed
    assert with_parts[part]["merged_into"] == whole
    [told] = [each for each in (await shared.get("/v1/incidents?limit=1000")).items if each["id"] == whole]
    assert told["alerts"] == 2


@pytest.mark.asyncio(loop_scope="module")
async def test_a_merge_that_the_other_refuses_is_409_with_its_reason(shared: System) -> None:
    whole, part, third = [await opened(shared) for _ in range(3)]
    await do(shared, part, "merge", {"incident": third})

    answer = await do(shared, whole, "merge", {"incident": part})

    assert answer.status == 409
    assert "has children of its own" in json.loads(answer.body)["detail"]
    assert shown(await shared.get(f"/v1/incidents/{whole}"))["parts"] == []


@pytest.mark.asyncio
async def test_a_merge_whose_other_half_is_still_owed_is_202() -> None:
    one, other = incident("api"), incident("db")
    pending = handled(one, children={other.id: Child(pending="merge")})
    stand_in = StandIn(incidents=[pending, other], answers=CommandDone(one.id, 0))

    answer = TestClient(stand_in.app()).post(
        f"/v1/incidents/{UUID(bytes=one.id)}/merge", json={"incident": str(UUID(bytes=other.id))}
    )

    assert answer.status_code == 202
    assert [part["pending"] for part in answer.json()["parts"]] == ["merge"]


def test_an_old_refusal_is_not_taken_for_one_of_today() -> None:
    other = incident("db")
    about = {"incident": str(UUID(bytes=other.id))}
    lines = [
        TimelineEntry(1.0, "MergeRefused", "ana", "no", about),
        TimelineEntry(2.0, "Merged", "ana", "in", about),
        TimelineEntry(3.0, "Unmerged", "ana", "out", about),
    ]
    one = incident("api", timeline=lines)
    stand_in = StandIn(incidents=[one, other], answers=CommandDone(one.id, 0))

    answer = TestClient(stand_in.app()).post(f"/v1/incidents/{UUID(bytes=one.id)}/unmerge", json=about)

    assert answer.status_code == 200


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("verb", ["link", "merge"])
async def test_an_other_incident_that_is_not_there_is_404_and_named(shared: System, verb: str) -> None:
    one = await opened(shared)

    answer = await do(shared, one, verb, {"incident": NOBODY})

    assert (answer.status, fields(answer)) == (404, ["incident"])


@pytest.mark.asyncio(loop_scope="module")
async def test_alerts_that_are_split_off_are_in_the_new_incident_and_named_by_fingerprint(
    shared: System,
) -> None:
    one = await opened(shared, alerts=3)
    names = [each["fingerprint"] for each in (await shared.get(f"/v1/incidents/{one}/alerts")).items]

    answer = await do(shared, one, "split", {"alerts": names[:2], "title": "Other"})
    unknown = await do(shared, one, "split", {"alerts": [names[2], "0" * 16]})

    made = shown(answer)
    assert answer.headers["location"] == f"/v1/incidents/{made['id']}"
    assert (made["title"], made["split_from"], made["alerts"]) == ("Other", one, 2)
    assert shown(await shared.get(f"/v1/incidents/{one}"))["alerts"] == 1
    assert (unknown.status, fields(unknown)) == (404, ["alerts.1"])


# -- conditions and names ----------------------------------------------------------------------------------------


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ('"{now}"', 200),
        ('W/"{now}"', 200),
        ("*", 200),
        ('"999", "{now}"', 200),
        ('"999"', 412),
        ('"998", "999"', 412),
        ('"abc"', 412),
        ('""', 412),
        ('"99999999999999999999999999"', 412),
        ("{now}", 400),
        ("", 400),
        ('"1', 400),
        ('"1",', 400),
        (",".join(['"1"'] * 21), 400),
    ],
)
async def test_a_change_that_is_meant_for_another_version_is_not_made(
    shared: System, condition: str, status: int
) -> None:
    one = await opened(shared)
    now = shown(await do(shared, one, "comment", {"text": "first"}))["version"]

    answer = await do(
        shared, one, "comment", {"text": "second"}, if_match=condition.replace("{now}", str(now))
    )

    assert answer.status == status, answer
    assert shown(await shared.get(f"/v1/incidents/{one}"))["version"] == now + (status == 200)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("comment", {"text": "once"}),
        ("acknowledge", {"for": "1h"}),
        ("update", {"audience": "a", "text": "b", "next_due_in": "5m"}),
    ],
)
async def test_a_request_with_a_name_is_done_once_however_often_it_is_sent(
    shared: System, verb: str, body: dict[str, str]
) -> None:
    one = await opened(shared)

    first = await do(shared, one, verb, body, idempotency_key="a")
    await asyncio.sleep(0.01)
    again = await do(shared, one, verb, body, idempotency_key="a")

    assert (first.status, again.status) == (200, 200)
    assert shown(first)["version"] == shown(again)["version"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("condition", ['"{now}"', '"{now}", "999"'])
async def test_a_conditional_request_with_a_name_is_answered_alike_when_sent_again(
    shared: System, condition: str
) -> None:
    one = await opened(shared)
    now = shown(await do(shared, one, "comment", {"text": "first"}))["version"]
    if_match = condition.replace("{now}", str(now))

    answers = [
        await do(shared, one, "comment", {"text": "once"}, if_match=if_match, idempotency_key="c")
        for _ in range(2)
    ]

    assert [each.status for each in answers] == [200, 200]
    assert [shown(each)["version"] for each in answers] == [now + 1] * 2


@pytest.mark.asyncio(loop_scope="module")
async def test_a_split_with_a_name_is_done_once(shared: System) -> None:
    one = await opened(shared, alerts=2)
    [name, _other] = [each["fingerprint"] for each in (await shared.get(f"/v1/incidents/{one}/alerts")).items]

    made = [await do(shared, one, "split", {"alerts": [name]}, idempotency_key="s") for _ in range(2)]
    never = await do(shared, one, "split", {"alerts": ["0" * 16]}, idempotency_key="other")

    assert made[0].headers["location"] == made[1].headers["location"]
    assert never.status == 404


@pytest.mark.asyncio(loop_scope="module")
async def test_a_name_stands_for_one_body_of_one_caller_at_one_path(shared: System) -> None:
    one, other = await opened(shared), await opened(shared)
    await do(shared, one, "comment", {"text": "a"}, idempotency_key="k", x_actor="ana")

    another_body = await do(shared, one, "comment", {"text": "b"}, idempotency_key="k", x_actor="ana")
    another_caller = await do(shared, one, "comment", {"text": "b"}, idempotency_key="k", x_actor="bo")
    another_path = await do(shared, other, "comment", {"text": "b"}, idempotency_key="k", x_actor="ana")

    assert [each.status for each in (another_body, another_caller, another_path)] == [422, 200, 200]


@pytest.mark.asyncio(loop_scope="module")
async def test_making_an_incident_with_a_name_makes_one(shared: System) -> None:
    body = {"service": "api", "title": "once"}
    made = [await shared.post("/v1/incidents", body, headers={"Idempotency-Key": "one"}) for _ in range(2)]

    assert made[0].status == made[1].status == 201
    assert made[0].headers["location"] == made[1].headers["location"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_condition_where_there_is_no_one_incident_is_400(shared: System) -> None:
    made = await shared.post("/v1/incidents", {"service": "a", "title": "b"}, headers={"If-Match": '"1"'})

    assert (made.status, fields(made)) == (400, ["If-Match"])


# -- who can't be told -------------------------------------------------------------------------------------------


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
async def test_a_verb_for_an_incident_that_is_nowhere_is_404(shared: System, verb: VerbRoute) -> None:
    example = {**verb.example, **({"incident": await opened(shared)} if "incident" in verb.example else {})}

    answer = await do(shared, NOBODY, verb.name, example)

    assert answer.status == 404, answer


@pytest.mark.asyncio
async def test_an_incident_of_another_tenant_is_nowhere(ours: System) -> None:
    one, theirs = await opened(ours), await opened(ours)
    actor = ours.cluster.get(ours.shards[ours.gateway.reads.asking.shard_of(UUID(theirs).bytes)])
    assert isinstance(actor, IncidentShard)
    actor.shard.state.incidents[UUID(theirs).bytes].tenant = "other"

    answers = [await ours.get(f"/v1/incidents/{theirs}{tail}") for tail in ("", "/alerts", "/timeline")]
    answers += [await do(ours, theirs, verb.name, {**verb.example, **_of(verb, one)}) for verb in VERBS]
    answers += [await do(ours, one, verb, {"incident": theirs}) for verb in ("link", "merge")]
    listed = [
        *(await ours.get("/v1/incidents?merged=true")).items,
        *(await ours.get("/v1/incidents?sort=severity")).items,
    ]
    alerts = (await ours.get("/v1/alerts")).items

    assert {answer.status for answer in answers} == {404}
    assert {each["id"] for each in listed} == {each["incident_id"] for each in alerts} == {one}
    assert json.loads((await ours.get("/v1/stats")).body)["open"] == 1


def _of(verb: VerbRoute, other: str) -> dict[str, str]:
    """What a verb's example names, if it names another incident."""
    return {"incident": other} if "incident" in verb.example else {}


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_an_archived_incident_can_only_be_read(verb: VerbRoute) -> None:
    one, other = incident("api"), incident("db")
    stand_in = StandIn(incidents=[other], answers=NotFound("there is no such incident, or it is archived"))
    asyncio.run(stand_in.archive.put([archived(one)]))
    example = {
        **verb.example,
        **({"incident": str(UUID(bytes=other.id))} if "incident" in verb.example else {}),
    }

    answer = TestClient(stand_in.app()).post(f"/v1/incidents/{UUID(bytes=one.id)}/{verb.name}", json=example)

    assert answer.status_code == 409
    assert "is archived: it can only be read" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (Malformed("text: must not be empty"), 400, "malformed"),
        (TooLarge("set: at most 64 labels an incident"), 400, "too-large"),
        (Forbidden("this needs a token"), 403, "forbidden"),
        (NotFound("incident is not one of its children"), 404, "not-found"),
        (Conflict("it is Closed: reopen it first"), 409, "conflict"),
        (Stale("it has version 2 and not 1"), 412, "stale"),
        (Refused("this Idempotency-Key was used before"), 422, "refused"),
        (Busy("too much waits", 3.0), 503, "busy"),
        (Unavailable("it is restarting"), 503, "unavailable"),
        (Full("the disk is full"), 503, "unavailable"),
    ],
)
def test_what_a_shard_refuses_is_a_problem_of_its_own(
    error: IncidentManagerError, status: int, kind: str
) -> None:
    one = incident()
    stand_in = StandIn(incidents=[one], answers=error)

    answer = TestClient(stand_in.app()).post(f"/v1/incidents/{UUID(bytes=one.id)}/close", json={})

    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:llm-im:problem:{kind}")
    assert answer.json()["detail"] == str(error)
    assert ("retry-after" in answer.headers) == (status == 503)


def test_a_command_goes_to_the_shard_of_its_incident_with_the_callers_name_and_trace() -> None:
    one = incident("db")
    stand_in = StandIn(incidents=[one])
    trace = "0af7651916cd43dd8448eb211c80319c"

    TestClient(Traced(stand_in.app(), NoTracer())).post(
        f"/v1/incidents/{UUID(bytes=one.id)}/close",
        json={"reason": "done"},
        headers={"X-Actor": "ana", "If-Match": '"7"', "traceparent": f"00-{trace}-b7ad6b7169203331-01"},
    )

    [(shard, command)] = stand_in.told
    assert shard == stand_in.shard_of_slot(one.slot)
    assert (command.actor, command.reason, command.if_version) == ("ana", "done", 7)
    assert (command.verb, command.trace_id, len(command.call_id)) == (verbs.Close(), trace, 16)


@pytest.mark.asyncio
async def test_a_shard_that_is_away_makes_a_verb_503_and_repeating_it_with_a_name_is_safe(
    ours: System,
) -> None:
    one = await opened(ours)
    name = ours.shards[0 if ours.gateway.reads.asking.shard_of(UUID(one).bytes) == 0 else 1]
    ours.gateway.station.lines[ours.shards.index(name)]._hold_s = 0.2
    await ours.crash(name)

    away = await do(ours, one, "comment", {"text": "a"}, idempotency_key="k")

    assert (away.status, away.headers["retry-after"]) == (503, "1")


# -- bad input ---------------------------------------------------------------------------------------------------

LONG = "x" * 10_000
#: A field's value, and whether a name takes it (text that people write in lines takes more).
NAUGHTY: list[str] = [
    "", " ", "\t", "\n", "\x00", "a\x00b", "\x1b[31mred", "\x7f", "\u0085", "\u200b", "\u202eabc", "\ufeff",
    "Ω≈ç√∫", "田中さん", "👩‍👩‍👧‍👦", "Ṱ̺̺̕o͞ ̷i̲̬n̝̗v̟̜o", "\U0010ffff", "'; DROP TABLE incidents; --", "<script>alert(1)</script>",
    "../../etc/passwd", "%s%n", "{{7*7}}", "null", "NaN", "-0", "1e309", "{", "\\", '"', LONG,
]  # fmt: skip


def _texts(verb: VerbRoute) -> list[str]:
    return [
        name
        for name, hint in get_type_hints(verb.body).items()
        if "str" in str(hint) and name != "__pydantic_config__"
    ]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
async def test_no_text_in_any_field_is_a_fault_of_ours(shared: System, verb: VerbRoute) -> None:
    one = await opened(shared, alerts=2)
    names = [name.removesuffix("_") for name in _texts(verb)]

    for name in [*names, "incident", "nothing"]:
        values: list[object] = [1.5, -(2**70), True, None, [[]], [None], {"a": [{}]}]
        for text in NAUGHTY:
            values += [text, [text], {text: text}]
        for value in values:
            answer = await do(shared, one, verb.name, {**verb.example, name: value})
            assert answer.status < 500, (name, value, answer)
            if answer.status >= 400:
                assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("verb", "body", "named"),
    [
        ("comment", {"text": "a", "txt": "b"}, ["txt"]),
        ("comment", {}, ["text"]),
        ("comment", {"text": ""}, ["text"]),
        ("comment", {"text": " \n"}, ["text"]),
        ("comment", {"text": "a\x00"}, ["text"]),
        ("comment", {"text": "\x1b[31m"}, ["text"]),
        ("comment", {"text": LONG}, ["text"]),
        ("comment", {"text": 5}, ["text"]),
        ("acknowledge", {"until": "yesterday"}, ["until"]),
        ("acknowledge", {"until": "2020-01-01T00:00:00Z"}, ["until"]),
        ("acknowledge", {"until": 1767323045}, ["until"]),
        ("acknowledge", {"for": "a while"}, ["for"]),
        ("acknowledge", {"for": "999999999w"}, ["for"]),
        ("acknowledge", {"for": "1h", "until": "2099-01-01T00:00:00Z"}, ["for"]),
        ("acknowledge", {"reason": "x" * 1025}, ["reason"]),
        ("assign", {"add": ["a\nb"]}, ["add.0"]),
        ("assign", {"add": "ana"}, ["add"]),
        ("assign", {"add": [str(n) for n in range(51)]}, ["add"]),
        ("assign", {"roles": {"": "ana"}}, ["roles."]),
        ("label", {"set": {" ": "c"}}, ["set. "]),
        ("label", {"set": {"a": None}}, ["set.a"]),
        ("label", {"set": {f"l{n}": "x" for n in range(65)}}, ["set"]),
        ("reclassify", {"severity": "P5"}, ["severity"]),
        ("reclassify", {"severity": 0}, ["severity"]),
        ("reclassify", {"clear": ["title"]}, ["clear.0"]),
        ("link", {"incident": "x"}, ["incident"]),
        ("link", {}, ["incident"]),
        ("split", {"alerts": []}, ["alerts"]),
        ("split", {"alerts": ["xyz"]}, ["alerts.0"]),
        ("split", {"alerts": ["0" * 16] * 5001}, ["alerts"]),
        ("resolve", {"method": "magic"}, ["method"]),
        ("update", {"audience": "a", "text": "b", "next_due_at": "2020-01-01T00:00:00Z"}, ["next_due_at"]),
    ],
)
async def test_a_wrong_field_is_400_and_named(
    shared: System, verb: str, body: dict[str, object], named: list[str]
) -> None:
    one = await opened(shared)

    answer = await do(shared, one, verb, body)

    assert (answer.status, fields(answer)) == (400, named)
    assert "pattern" not in answer.body.decode()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"null", 400),
        (b"[]", 400),
        (b"5", 400),
        (b"{", 400),
        (b'{"text": "\\ud800"}', 400),
        (b'{"text": "\xff"}', 400),
        (b'{"text": NaN}', 400),
        (b"[" * 100_000, 400),
        (b'{"text": "' + b"x" * 300_000 + b'"}', 413),
    ],
)
async def test_a_body_that_is_none_is_a_problem(shared: System, body: bytes, status: int) -> None:
    one = await opened(shared)

    answer = await do(shared, one, "comment", body)

    assert answer.status == status and answer.headers["content-type"] == "application/problem+json"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_body_that_a_web_page_could_send_from_elsewhere_is_415(
    shared: System, content_type: str | None
) -> None:
    one = await opened(shared)

    answer = await shared.post(f"/v1/incidents/{one}/close", b"{}", content_type=content_type)

    assert answer.status == 415


@pytest.mark.asyncio(loop_scope="module")
async def test_a_verb_without_a_body_is_one_with_nothing_in_it(shared: System) -> None:
    one = await opened(shared)

    assert (await do(shared, one, "acknowledge", b"")).status == 200


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ["", "x" * 129, "a\x01b"])
async def test_a_callers_name_that_is_none_is_400_or_nobodys(shared: System, name: str) -> None:
    one = await opened(shared)

    answer = await do(shared, one, "acknowledge", {}, x_actor=name)

    assert (
        (answer.status, shown(answer)["acknowledged"]["by"]) == (200, "anonymous")
        if not name
        else (answer.status == 400)
    )


@pytest.mark.asyncio(loop_scope="module")
async def test_more_comments_than_an_incident_holds_are_409(shared: System) -> None:
    one = await opened(shared)
    text = "x" * verbs.TEXT_MAX

    answers = [
        await do(shared, one, "comment", {"text": text})
        for _ in range(verbs.WRITTEN_BYTES_MAX // verbs.TEXT_MAX + 2)
    ]

    assert {answer.status for answer in answers} == {200, 409}
    assert answers[-1].status == 409
