"""People on call over HTTP, and a page that reaches them: gateway, control partition, shard, responder and receivers in one process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, tzinfo
from typing import Any

import pytest
import pytest_asyncio

from models.errors import Malformed
from tests.api.gateway_in_process import MemoryStores, Reply, System, alert, system
from tests.api.test_notifying import Receiver, a_receiver, gauge, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Contacts go by these; nobody is told by them unless a test says so.
RECEIVERS = {
    "ops": {"type": "webhook", "url": "http://127.0.0.1:9/hook"},
    "sms": {"type": "webhook", "url": "http://127.0.0.1:9/hook"},
    "mail": {
        "type": "email",
        "host": "127.0.0.1",
        "tls": "none",
        "sender": "im@example.org",
        "to": ["x@example.org"],
    },
    "pd": {"type": "pagerduty", "routing_key": "0" * 32},
}
WEEK = {"name": "week", "people": ["ana", "ben"], "every": "1w", "starts": "2026-01-05T09:00"}
ROSTER: dict[str, Any] = {
    "people": {
        "ana": {
            "full_name": "Ana Alvarez",
            "time_zone": "Europe/Madrid",
            "contacts": [
                {"receiver": "sms", "address": "+34600"},
                {"receiver": "mail", "address": "ana@example.org"},
            ],
        },
        "ben": {"contacts": [{"receiver": "sms", "address": "+49170"}]},
    },
    "schedules": {"primary": {"time_zone": "Europe/Berlin", "layers": [WEEK]}},
    "escalations": {
        "critical": {
            "levels": [
                {"tell": ["schedule:primary"], "timeout": "5m"},
                {"tell": ["person:ben", "receiver:ops"]},
            ],
            "repeat": 1,
            "fallback": ["receiver:ops"],
        }
    },
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ours() -> AsyncIterator[System]:
    async with system(notify={"receivers": RECEIVERS, "route": {"receivers": ["ops"]}}) as started:
        assert (await send(started, "PUT", "/v1/roster", ROSTER)).status == 200
        yield started


async def send(ours: System, method: str, path: str, body: object = None, **headers: str) -> Reply:
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if body is not None:
        sent.append((b"content-type", b"application/json"))
    return await ours.request(method, path, [b"" if body is None else json.dumps(body).encode()], sent)


# -- what there is ---------------------------------------------------------------------------------------------


async def test_a_person_is_made_changed_shown_and_deleted_with_an_etag(ours: System) -> None:
    path = "/v1/people/cleo"
    made = await send(ours, "PUT", path, {"contacts": [{"receiver": "ops"}]})
    stale = await send(ours, "PUT", path, {"full_name": "C"}, if_match='"99999"')
    changed = await send(ours, "PUT", path, {"full_name": "Cleo"}, if_match=made.headers["etag"])
    repeated = await send(ours, "PUT", path, {"full_name": "Cleo"})
    listed = [each["name"] for each in (await ours.get("/v1/people")).items]
    gone = await send(ours, "DELETE", path)

    assert (made.status, stale.status, changed.status, gone.status) == (201, 412, 200, 204)
    assert changed.json["contacts"] == [] and changed.json["full_name"] == "Cleo"
    assert repeated.headers["etag"] == changed.headers["etag"] != made.headers["etag"]
    assert listed == ["ana", "ben", "cleo"] and (await ours.get(path)).status == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("people/a%20b", {}, 400, "expected a name"),
        ("people/x", {"time_zone": "Mars/Olympus"}, 400, "time_zone: expected a name such as Europe/Berlin"),
        (
            "people/x",
            {"contacts": [{"receiver": "fax"}]},
            400,
            "there is no receiver 'fax'; there are mail, ops",
        ),
        ("people/x", {"contacts": [{"receiver": "mail", "address": "nobody"}]}, 400, "expected an address"),
        ("people/x", {"contacts": [{"receiver": "pd", "address": "x"}]}, 400, "takes no address"),
        ("people/x", {"phone": "1"}, 400, "phone"),
        ("schedules/x", {"layers": []}, 400, "layers"),
        ("schedules/x", {"layers": [{**WEEK, "people": ["zoe"]}]}, 409, "names zoe"),
        ("schedules/x", {"layers": [{**WEEK, "every": "90m"}]}, 400, "whole hours"),
        ("schedules/x", {"layers": [{**WEEK, "hours": [{"from": "25:00"}]}]}, 400, "from"),
        ("escalations/x", {"levels": [{"tell": ["ana"]}]}, 400, "expected person:NAME"),
        ("escalations/x", {"levels": [{"tell": ["schedule:x"]}]}, 409, "no such schedule"),
        ("escalations/x", {"levels": [{"tell": ["receiver:x"]}]}, 400, "there is no receiver 'x'"),
        ("escalations/x", {"levels": [{"tell": ["person:ana"], "timeout": "1s"}]}, 400, "10s to 7d"),
    ],
)
async def test_what_is_wrong_is_said(ours: System, path: str, body: object, status: int, words: str) -> None:
    answer = await send(ours, "PUT", f"/v1/{path}".replace("%20", " "), body)

    assert (answer.status, words in answer.body.decode()) == (status, True), answer.body


async def test_who_is_named_somewhere_can_t_be_removed(ours: System) -> None:
    answers = [await send(ours, "DELETE", f"/v1/{each}") for each in ("people/ana", "schedules/primary")]

    assert [each.status for each in answers] == [409, 409]
    assert "schedule primary names ana" in answers[0].json["detail"]
    assert "escalation policy critical names schedule:primary" in answers[1].json["detail"]


async def test_a_file_is_taken_as_a_whole_or_not_at_all_and_again_changes_nothing(ours: System) -> None:
    again = (await send(ours, "PUT", "/v1/roster", ROSTER)).json
    wrong = {
        **ROSTER,
        "people": {**ROSTER["people"], "zoe": {}},
        "schedules": {"primary": {"layers": [{**WEEK, "people": ["nobody"]}]}},
    }
    refused = await send(ours, "PUT", "/v1/roster", wrong)
    tried = (await send(ours, "PUT", "/v1/roster", {"people": {"zoe": {}}, "dry_run": True})).json

    assert sorted(again["unchanged"]) == ["person:ana", "person:ben", "policy:critical", "schedule:primary"]
    assert again["created"] == again["changed"] == again["removed"] == []
    assert refused.status == 409
    assert tried["created"] == ["person:zoe"]
    assert [each["name"] for each in (await ours.get("/v1/people")).items] == ["ana", "ben"]


async def test_pruning_removes_what_a_file_does_not_name(ours: System) -> None:
    await send(ours, "PUT", "/v1/people/zoe", {})

    plan = (await send(ours, "PUT", "/v1/roster", {**ROSTER, "prune": True})).json

    assert plan["removed"] == ["person:zoe"]


# -- who is on call --------------------------------------------------------------------------------------------


async def test_it_says_who_is_on_call_until_when_and_who_is_next(ours: System) -> None:
    found = (await ours.get("/v1/oncall?at=2026-01-06T12:00:00Z")).items

    assert found == [
        {
            "schedule": "primary",
            "person": "ana",
            "layer": "week",
            "override": None,
            "until": "2026-01-12T08:00:00.000Z",
            "next": "ben",
            "time_zone": "Europe/Berlin",
            "problem": None,
        }
    ]


async def test_a_schedule_that_cannot_be_reckoned_says_so_beside_the_others(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zone_of(name: str) -> tzinfo:
        if name == "Europe/Berlin":
            raise Malformed("time_zone: expected a name such as UTC, got 'Europe/Berlin'")
        return UTC

    other = {"time_zone": "UTC", "layers": [{**WEEK, "people": ["ben"]}]}
    assert (await send(ours, "PUT", "/v1/schedules/nights", other)).status == 201
    # As where the log was written on a machine that knows more time zones.
    monkeypatch.setattr("services.api.people.zone_of", zone_of)

    nights, primary = (await ours.get("/v1/oncall?at=2026-01-06T12:00:00Z")).items
    await send(ours, "DELETE", "/v1/schedules/nights")

    assert (nights["person"], nights["problem"]) == ("ben", None)
    assert primary["person"] is None and "Europe/Berlin" in primary["problem"]


async def test_an_override_counts_at_once_and_is_taken_back(ours: System) -> None:
    path = "/v1/schedules/primary/overrides"
    before = (await ours.get("/v1/oncall")).items[0]["person"]
    other = {"ana": "ben", "ben": "ana"}[before]
    made = await send(
        ours,
        "POST",
        path,
        {"person": other, "ends_in": "2h", "reason": "dentist"},
        x_actor="ada",
        idempotency_key="k1",
    )
    again = await send(
        ours,
        "POST",
        path,
        {"person": other, "ends_in": "2h", "reason": "dentist"},
        x_actor="ada",
        idempotency_key="k1",
    )
    during = (await ours.get("/v1/oncall")).items[0]
    listed = (await ours.get(path)).items
    gone = await send(ours, "DELETE", f"{path}/{made.json['id']}")

    assert (made.status, again.json["id"], gone.status) == (201, made.json["id"], 204)
    assert (during["person"], during["override"]) == (other, made.json["id"])
    assert [(each["by"], each["reason"]) for each in listed] == [("ada", "dentist")]
    assert (await ours.get("/v1/oncall")).items[0]["person"] == before
    assert (await send(ours, "DELETE", f"{path}/{made.json['id']}")).status == 404


async def test_shifts_have_no_holes_and_gaps_are_problems(ours: System) -> None:
    hours = {"days": ["mon"], "from": "09:00", "to": "17:00"}
    await send(ours, "PUT", "/v1/schedules/gappy", {"layers": [{**WEEK, "hours": [hours]}]})
    found = (
        await ours.get("/v1/schedules/gappy/shifts?from=2026-01-05T00:00:00Z&until=2026-01-06T00:00:00Z")
    ).items
    problems = (await ours.get("/v1/oncall/check")).items
    await send(ours, "DELETE", "/v1/schedules/gappy")

    assert [(each["starts_at"][11:16], each["person"]) for each in found] == [
        ("00:00", None),
        ("09:00", "ana"),
        ("17:00", None),
    ]
    assert any("schedule gappy: nobody is on call from" in str(each) for each in problems)
    assert (await ours.get("/v1/schedules/gappy/shifts")).status == 404


async def test_a_calendar_is_icalendar_with_folded_lines(ours: System) -> None:
    for path in ("/v1/schedules/primary/calendar.ics", "/v1/people/ana/calendar.ics"):
        answer = await ours.get(path)
        lines = answer.body.split(b"\r\n")

        assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "text/calendar")
        assert lines[0] == b"BEGIN:VCALENDAR" and lines[-2:] == [b"END:VCALENDAR", b""]
        assert max(map(len, lines)) <= 75
        assert lines.count(b"BEGIN:VEVENT") == lines.count(b"END:VEVENT") > 3
        assert b"SUMMARY:ana on call (primary)" in lines


async def test_addresses_are_shown_to_those_who_respond_only() -> None:
    async with system(notify={"receivers": RECEIVERS, "route": {"receivers": ["ops"]}}) as ours:
        await send(ours, "PUT", "/v1/roster", ROSTER)
        admin = (
            await send(ours, "POST", "/v1/tokens", {"name": "a", "scopes": ["admin", "read", "respond"]})
        ).json["token"]
        whole = {"authorization": f"Bearer {admin}"}
        reader = (await send(ours, "POST", "/v1/tokens", {"name": "r", "scopes": ["read"]}, **whole)).json[
            "token"
        ]
        seen = (await send(ours, "GET", "/v1/people/ana", authorization=f"Bearer {reader}")).json
        shown = (await send(ours, "GET", "/v1/people/ana", **whole)).json
        refused = await send(ours, "PUT", "/v1/people/ana", {}, authorization=f"Bearer {reader}")
        by_query = await ours.get(f"/v1/people/ana/calendar.ics?token={reader}")
        elsewhere = await ours.get(f"/v1/people/ana?token={reader}")

    assert [each["address"] for each in seen["contacts"]] == ["***", "***"]
    assert [each["address"] for each in shown["contacts"]] == ["+34600", "ana@example.org"]
    assert (refused.status, by_query.status, elsewhere.status) == (403, 200, 401)


async def test_all_of_it_is_there_after_a_restart() -> None:
    stores = MemoryStores()
    settings = {"receivers": RECEIVERS, "route": {"receivers": ["ops"]}}
    async with system(stores, notify=settings) as ours:
        await send(ours, "PUT", "/v1/roster", ROSTER)
        before = [(await ours.get(f"/v1/{each}")).items for each in ("people", "schedules", "escalations")]
    async with system(stores, notify=settings) as ours:
        after = [(await ours.get(f"/v1/{each}")).items for each in ("people", "schedules", "escalations")]

    assert before == after and len(before[0]) == 2


# -- a page ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def paged(timeout: str = "10s") -> AsyncIterator[tuple[System, Receiver, Receiver]]:
    """A system whose root route names a policy: first who is on call, by telephone, then ben. The ops channel is told as well."""
    async with a_receiver() as ops, a_receiver() as sms:
        receivers = {"ops": {"type": "webhook", "url": ops.url}, "sms": {"type": "webhook", "url": sms.url}}
        settings = {
            "receivers": receivers,
            "route": {"receivers": ["ops"], "escalation": "critical"},
            "retry_first": 0.05,
            "interval": 0.2,
        }
        people = {
            "ana": {"contacts": [{"receiver": "sms", "address": "+34600"}]},
            "ben": {"contacts": [{"receiver": "sms", "address": "+49170"}]},
        }
        layer = {"name": "always", "people": ["ana"], "every": "1w", "starts": "2026-01-05T09:00"}
        levels = [
            {"tell": ["schedule:primary"], "timeout": timeout},
            {"tell": ["person:ben"], "timeout": timeout},
        ]
        async with system(notify=settings) as ours:
            roster = {
                "people": people,
                "schedules": {"primary": {"layers": [layer]}},
                "escalations": {"critical": {"levels": levels}},
            }
            answer = await send(ours, "PUT", "/v1/roster", roster)
            assert answer.status == 200, answer.body
            yield ours, ops, sms


def told(sms: Receiver) -> list[tuple[str, str]]:
    return [(body["incident"].get("to", ""), body["incident"]["reason"]) for body in sms.got]


async def incident(ours: System) -> dict[str, Any]:
    (found,) = (await ours.get("/v1/incidents")).items
    return found


async def lines(ours: System, identity: str) -> list[str]:
    found = (await ours.get(f"/v1/incidents/{identity}/timeline")).items
    return [
        f"{each['event_type']}: {each['description']}"
        for each in found
        if each["event_type"].startswith("Escalation")
    ]


async def test_a_p0_reaches_who_is_on_call_and_without_an_acknowledgement_the_next() -> None:
    async with paged() as (ours, ops, sms):
        await ours.post("/v1/alerts", [alert("Down", severity="critical")])
        await until(lambda: sms.got)
        assert told(sms) == [("+34600", "level 1 of critical")]
        ours.clock.heard_s += 4.5
        await asyncio.sleep(0.3)
        ours.clock.heard_s += 4.5
        await asyncio.sleep(0.3)
        ours.clock.heard_s += 4.5
        await until(lambda: len(sms.got) > 1)
        found = await incident(ours)
        await until(lambda: ops.got)
        said = await lines(ours, found["id"])
        after = await incident(ours)
        route = (await send(ours, "POST", "/v1/routes/test", {"severity": "P0"})).json
        text = (await ours.get(f"/v1/incidents/{found['id']}/timeline")).body.decode()

    assert told(sms) == [("+34600", "level 1 of critical"), ("+49170", "level 2 of critical")]
    assert "to" not in ops.got[0]["incident"]
    assert found["escalation"]["policy"] == route["escalation"] == "critical"
    assert after["escalation"]["status"] == "running" and after["escalation"]["told"][0] == "ana by sms"
    assert "EscalationTold: level 1: told ana by sms" in said
    assert "+34600" not in text


async def test_an_acknowledgement_keeps_the_next_one_asleep_and_the_end_is_told_to_who_was_woken() -> None:
    async with paged() as (ours, _ops, sms):
        await ours.post("/v1/alerts", [alert("Down", severity="critical")])
        await until(lambda: sms.got)
        found = await incident(ours)
        await send(ours, "POST", f"/v1/incidents/{found['id']}/acknowledge", {}, x_actor="ana")
        for _ in range(4):
            ours.clock.heard_s += 4.5
            await asyncio.sleep(0.15)
        await send(
            ours, "POST", f"/v1/incidents/{found['id']}/resolve", {"notes": "restarted"}, x_actor="ana"
        )
        await until(lambda: len(sms.got) > 1)
        said = await lines(ours, found["id"])

    assert told(sms) == [("+34600", "level 1 of critical"), ("+34600", "resolved")]
    assert "EscalationStopped: acknowledged by ana" in said


async def test_a_shard_that_dies_pages_nobody_twice_and_forgets_nobody() -> None:
    async with paged("1h") as (ours, _ops, sms):
        sms.statuses = [503]
        await ours.post("/v1/alerts", [alert("Down", severity="critical")])
        await until(lambda: sms.refused)
        name = ours.shards[0]
        await ours.crash(name)
        await ours.cluster.restart(name)
        await ours.ready()
        await until(lambda: sms.got)
        await asyncio.sleep(0.5)
        pages = await gauge(ours, "llm_im_pages_total")

    assert told(sms) == [("+34600", "level 1 of critical")]
    assert pages >= 1


async def test_a_route_s_policy_can_t_be_deleted_and_its_absence_is_a_problem() -> None:
    async with paged() as (ours, _ops, _sms):
        refused = await send(ours, "DELETE", "/v1/escalations/critical")
    settings = {"receivers": RECEIVERS, "route": {"receivers": ["ops"], "escalation": "absent"}}
    async with system(notify=settings) as other:
        problems = (await other.get("/v1/oncall/check")).json["items"]

    assert refused.status == 409 and "route root of the settings names" in refused.json["detail"]
    assert problems == ["route root names escalation policy absent, and there is none of that name"]
