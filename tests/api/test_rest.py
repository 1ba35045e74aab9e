"""/v1: incidents, their alerts and history, and problem documents for everything that goes wrong."""

from __future__ import annotations

import asyncio
import base64
from urllib.parse import quote
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from models.errors import Malformed
from models.incidents.filters import Sort
from models.incidents.incident import IncidentState, IncidentType, Resolution, Severity, TimelineEntry
from services.api.v1.cursors import decode_numbers, decode_place, decode_stop, encode_numbers, encode_place
from services.api.v1.verb_table import VERBS
from services.ingest.formats.paths import paths_of
from services.ingest.formats.table import all_formats
from tests.api.stand_in import AWAY, NOW, StandIn, alert, archived, incident

NOBODY = "019b8000-0000-7000-8000-000000000000"

#: The plan's field names (Appendix A), in its order.
APPENDIX_A = [
    *(
        "id",
        "created_at",
        "updated_at",
        "state",
        "severity",
        "incident_type",
        "source",
        "title",
        "description",
    ),
    *(
        "affected_resources",
        "labels",
        "related_incidents",
        "active_playbook",
        "resolution",
        "timeline",
        "assignees",
    ),
]


def client(stand_in: StandIn) -> TestClient:
    return TestClient(stand_in.app())


def services(page: dict[str, list[dict[str, str]]]) -> list[str]:
    return [each["service"] for each in page["items"]]


def test_an_incident_has_the_plans_names_first() -> None:
    one = incident()

    shown = client(StandIn(incidents=[one])).get(f"/v1/incidents/{UUID(bytes=one.id)}").json()

    assert list(shown)[: len(APPENDIX_A)] == APPENDIX_A


def test_an_incident_is_shown_whole() -> None:
    one = incident(
        severity=Severity.P1,
        state=IncidentState.RESOLVED,
        type=IncidentType.SECURITY,
        classified_by="rule:x",
        confidence=0.75,
        firing=1,
        resolved_at=NOW + 1,
        resolution=Resolution(NOW + 1, "series", "Automated", "all ended"),
        overflow=['{service="b"}'],
        overflow_count=5,
        timeline=[TimelineEntry(NOW, "Created", "shard", "opened", {"alert": "x"})],
        timeline_dropped=2,
    )
    stand_in = StandIn(incidents=[one], alerts=[alert(incident=one.id), alert(incident=one.id, x="1")])

    shown = client(stand_in).get(f"/v1/incidents/{UUID(bytes=one.id)}").json()

    assert shown["created_at"] == "2026-01-02T03:04:05.678Z"
    assert (shown["state"], shown["severity"], shown["incident_type"]) == ("Resolved", "P1", "Security")
    assert (shown["alerts"], shown["alerts_firing"]) == (2, 1)
    assert (shown["classified_by"], shown["confidence"]) == ("rule:x", 0.75)
    assert shown["overflow"] == {"members": ['{service="b"}'], "count": 5}
    assert shown["affected_resources"] == ["api"]
    assert (shown["resolved_at"], shown["closed_at"]) == ("2026-01-02T03:04:06.678Z", None)
    assert shown["resolution"]["resolution_method"] == "Automated"
    [entry] = shown["timeline"]
    assert (entry["event_type"], entry["metadata"], shown["timeline_dropped"]) == (
        "Created",
        {"alert": "x"},
        2,
    )


def test_incidents_come_newest_first_from_all_shards_and_the_archive() -> None:
    stand_in = StandIn(shards=3, incidents=[incident(f"s{n}", at=NOW + n) for n in (1, 4, 2, 5)])
    asyncio.run(
        stand_in.archive.put([archived(incident("s3", at=NOW + 3)), archived(incident("s0", at=NOW))])
    )

    page = client(stand_in).get("/v1/incidents").json()

    assert services(page) == ["s5", "s4", "s3", "s2", "s1", "s0"]
    assert page["next"] is None


@pytest.mark.parametrize("shard_page", [1000, 1, 2])
@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_pages_give_every_incident_once_and_in_order(limit: int, shard_page: int) -> None:
    # Several share a moment, so that the id decides.
    alive = [incident(f"s{n}", number=n, at=NOW + n // 4) for n in range(30)]
    stand_in = StandIn(shards=3, page=shard_page, incidents=alive)
    asyncio.run(
        stand_in.archive.put([archived(incident(f"o{n}", number=n, at=NOW + n // 3)) for n in range(20)])
    )
    asked = client(stand_in)

    met: list[str] = []
    cursor: str | None = None
    while True:
        page = asked.get(
            "/v1/incidents", params={"limit": limit} | ({"cursor": cursor} if cursor else {})
        ).json()
        met += [each["id"] for each in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break

    kept = [(each.created_at, each.id) for each in alive]
    kept += [(NOW + n // 3, incident(f"o{n}", number=n, at=NOW + n // 3).id) for n in range(20)]
    assert met == [str(UUID(bytes=each)) for _, each in sorted(kept, reverse=True)]


def test_an_incident_that_is_in_shard_and_archive_is_shown_once_as_the_shard_has_it() -> None:
    one = incident(title="the shard's")
    stand_in = StandIn(incidents=[one])
    asyncio.run(stand_in.archive.put([archived(msgspec.structs.replace(one, title="the archive's"))]))
    asked = client(stand_in)

    listed = asked.get("/v1/incidents").json()["items"]
    got = asked.get(f"/v1/incidents/{UUID(bytes=one.id)}").json()

    assert [each["title"] for each in listed] == ["the shard's"]
    assert got["title"] == "the shard's"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state=detected", ["a"]),
        ("state=RESOLVED&state=Detected", ["b", "a"]),
        ("state=closed", ["c"]),
        ("severity=p0", ["b"]),
        ("severity=P2&severity=P0", ["c", "b", "a"]),
        ("type=security", ["b"]),
        ("service=a&service=c", ["c", "a"]),
        ("service=A", []),
        ("state=detected&severity=P0", []),
        ("service=%00", []),
    ],
)
def test_incidents_are_filtered_in_any_case(query: str, found: list[str]) -> None:
    b = incident(
        "b", at=NOW + 1, state=IncidentState.RESOLVED, severity=Severity.P0, type=IncidentType.SECURITY
    )
    stand_in = StandIn(incidents=[incident("a"), b])
    asyncio.run(stand_in.archive.put([archived(incident("c", at=NOW + 2))]))

    answer = client(stand_in).get(f"/v1/incidents?{query}")

    assert (answer.status_code, services(answer.json())) == (200, found)


def test_an_archived_incident_is_found_with_its_alerts_and_its_history() -> None:
    one = incident(timeline=[TimelineEntry(NOW, "Created", "shard", "opened")])
    stand_in = StandIn()
    asyncio.run(
        stand_in.archive.put([archived(one, [alert(x=str(n), firing=False, ends_at=NOW) for n in range(20)])])
    )
    asked, path = client(stand_in), f"/v1/incidents/{UUID(bytes=one.id)}"

    got = asked.get(path).json()
    first = asked.get(f"{path}/alerts?limit=12").json()
    second = asked.get(f"{path}/alerts", params={"limit": 12, "cursor": first["next"]}).json()
    timeline = asked.get(f"{path}/timeline").json()

    assert (got["state"], got["alerts"]) == ("Closed", 20)
    assert [each["labels"]["x"] for each in first["items"] + second["items"]] == [str(n) for n in range(20)]
    assert second["next"] is None
    assert [each["event_type"] for each in timeline["items"]] == ["Created"]


def test_an_incidents_alerts_come_in_pages_with_the_reason_of_each() -> None:
    one = incident()
    stand_in = StandIn(incidents=[one], alerts=[alert(incident=one.id, x=str(n)) for n in range(5)])
    asked, path = client(stand_in), f"/v1/incidents/{UUID(bytes=one.id)}/alerts"

    first = asked.get(f"{path}?limit=3").json()
    second = asked.get(path, params={"cursor": first["next"]}).json()

    assert [each["labels"]["x"] for each in first["items"] + second["items"]] == ["0", "1", "2", "3", "4"]
    assert second["next"] is None
    assert first["items"][0]["why"] == [
        {
            "decision": "opened",
            "reason": "first alert of its group: opened an incident",
            "count": 1,
            "sender": None,
            "first_at": "2026-01-02T03:04:05.678Z",
            "last_at": "2026-01-02T03:04:05.678Z",
        },
        {
            "decision": "repeated",
            "reason": "same series and content as before: only its times moved",
            "count": 7,
            "sender": None,
            "first_at": "2026-01-02T03:04:06.678Z",
            "last_at": "2026-01-02T03:04:14.678Z",
        },
    ]


@pytest.mark.parametrize("is_archived", [False, True])
def test_an_incidents_alerts_are_narrowed_to_those_that_fire_or_ended(is_archived: bool) -> None:
    one = incident()
    alerts = [alert(incident=one.id, x=str(n), firing=n % 3 == 0) for n in range(12)]
    stand_in = StandIn() if is_archived else StandIn(incidents=[one], alerts=alerts)
    if is_archived:
        asyncio.run(stand_in.archive.put([archived(one, alerts)]))
    asked, path = client(stand_in), f"/v1/incidents/{UUID(bytes=one.id)}/alerts"

    def found(firing: str) -> list[int]:
        items, cursor = [], None
        while True:
            page = asked.get(
                path, params={"firing": firing, "limit": 3, **({"cursor": cursor} if cursor else {})}
            ).json()
            items += [int(each["labels"]["x"]) for each in page["items"]]
            if (cursor := page["next"]) is None:
                return items

    assert found("true") == [0, 3, 6, 9]
    assert found("false") == [1, 2, 4, 5, 7, 8, 10, 11]


def test_a_decision_of_a_newer_version_is_shown_by_its_number() -> None:
    one = incident()
    newer = msgspec.structs.replace(alert(incident=one.id), decisions=[(99, 1, NOW, NOW)])

    page = (
        client(StandIn(incidents=[one], alerts=[newer]))
        .get(f"/v1/incidents/{UUID(bytes=one.id)}/alerts")
        .json()
    )

    assert page["items"][0]["why"][0]["decision"] == "decision 99"


@pytest.mark.parametrize("tail", ["", "/alerts", "/timeline"])
def test_an_incident_that_is_nowhere_is_a_404_problem(tail: str) -> None:
    answer = client(StandIn()).get(f"/v1/incidents/{NOBODY}{tail}")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:llm-im:problem:no-such-incident"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/incidents/abc", "incident_id"),
        ("/v1/incidents/%00", "incident_id"),
        ("/v1/incidents/abc/alerts", "incident_id"),
        ("/v1/incidents/abc/timeline", "incident_id"),
        (f"/v1/incidents/{NOBODY}/alerts?limit=0", "limit"),
        (f"/v1/incidents/{NOBODY}/alerts?cursor=!", "cursor"),
        ("/v1/incidents?limit=0", "limit"),
        ("/v1/incidents?limit=1001", "limit"),
        ("/v1/incidents?limit=-1", "limit"),
        ("/v1/incidents?limit=1e3", "limit"),
        ("/v1/incidents?limit=" + "9" * 5000, "limit"),
        ("/v1/incidents?limit=x", "limit"),
        ("/v1/incidents?cursor=", "cursor"),
        ("/v1/incidents?cursor=%00", "cursor"),
        ("/v1/incidents?cursor=%C3%A9", "cursor"),
        ("/v1/incidents?cursor=" + "A" * 65, "cursor"),
        ("/v1/incidents?cursor=" + encode_numbers(5, 5), "cursor"),
        ("/v1/incidents?cursor=" + encode_place(Sort.NEWEST, (float("nan"), 1.0, bytes(16))), "cursor"),
        ("/v1/incidents?cursor=" + encode_place(Sort.NEWEST, (1.0, 1.0, bytes(15))), "cursor"),
        ("/v1/incidents?state=open", "state.0"),
        ("/v1/incidents?state=Detected&state=", "state.1"),
        ("/v1/incidents?severity=P5", "severity.0"),
        ("/v1/incidents?type=%00", "type.0"),
        ("/v1/incidents?" + "&".join(["service=a"] * 101), "service"),
    ],
)
def test_bad_input_is_a_400_problem_that_names_the_field(path: str, field: str) -> None:
    answer = client(StandIn()).get(path)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert [each["field"] for each in answer.json()["errors"]] == [field]


#: Built once: a new application for each example would take most of the time.
_EMPTY = client(StandIn())


@settings(deadline=None)
@given(st.text(), st.text(), st.text())
def test_no_text_in_a_request_is_a_fault_of_ours(one: str, two: str, three: str) -> None:
    asked = _EMPTY

    for answer in (
        asked.get("/v1/incidents", params={"cursor": one, "limit": two, "service": three}),
        asked.get("/v1/incidents", params={"state": one, "severity": two, "type": three}),
        asked.get("/v1/incidents/" + quote(one, safe=""), params={"x": two}),
        asked.get("/api/v2/alerts", params={"filter": [one, f"a=~{two}"], "receiver": three, "active": one}),
    ):
        assert answer.status_code < 500


@given(st.binary(max_size=40))
def test_any_bytes_are_a_cursor_or_malformed(data: bytes) -> None:
    text = base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    for decode in (lambda cursor: decode_place(cursor, Sort.NEWEST), decode_numbers, decode_stop):
        try:
            decode(text)
        except Malformed:
            pass


@pytest.mark.parametrize(
    "path", ["/v1/incidents", f"/v1/incidents/{NOBODY}", f"/v1/incidents/{NOBODY}/alerts"]
)
def test_a_shard_that_cannot_answer_makes_it_a_503_problem_that_names_it(path: str) -> None:
    answer = client(StandIn(incidents=[incident("a"), incident("b")], silent={0: AWAY, 1: AWAY})).get(path)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "cannot answer: it is restarting" in answer.json()["detail"]


def test_another_shards_silence_does_not_matter_to_one_incident() -> None:
    one = incident()
    stand_in = StandIn(incidents=[one])
    stand_in.silent = {1 - stand_in.shard_of_slot(one.slot): AWAY}

    answer = client(stand_in).get(f"/v1/incidents/{UUID(bytes=one.id)}")

    assert answer.status_code == 200


def test_a_wrong_method_is_a_405_problem_with_allow() -> None:
    answer = client(StandIn()).delete("/v1/incidents")

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET,POST")
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_wrong_method_for_the_door_is_a_405_problem_with_allow() -> None:
    answer = client(StandIn()).put("/v1/alerts")

    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"].split(",")


def test_an_unknown_path_is_a_404_problem() -> None:
    answer = client(StandIn()).get("/v1/nothing")

    assert (answer.status_code, answer.json()["instance"]) == (404, "/v1/nothing")
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_fault_of_ours_is_a_500_problem_without_its_inside() -> None:
    stand_in = StandIn(silent={0: RuntimeError("password=x"), 1: RuntimeError("password=x")})

    answer = TestClient(stand_in.app(), raise_server_exceptions=False).get("/v1/incidents")

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "password" not in answer.text


def test_openapi_has_our_routes_their_bodies_and_problems() -> None:
    schema = client(StandIn()).get("/openapi.json").json()

    by_formats = {path for form in all_formats().values() for path in paths_of(form)}
    assert {"/api/v2/alerts", "/v1/alerts", "/v2/alerts/{identifier}/close"} <= by_formats
    assert sorted(schema["paths"]) == sorted(
        [
            *by_formats,
            "/graphql",
            "/v1/analytics/incidents",
            "/v1/analytics/rows",
            "/v1/escalations",
            "/v1/escalations/{name}",
            "/v1/incidents/{incident_id}/report",
            "/v1/models",
            "/v1/models/rollback",
            "/v1/models/shadow",
            "/v1/models/train",
            "/v1/models/{version}",
            "/v1/models/{version}/file",
            "/v1/models/{version}/promote",
            "/v1/models/{version}/shadow",
            "/v1/oncall",
            "/v1/oncall/check",
            "/v1/people",
            "/v1/people/{name}",
            "/v1/people/{person}/calendar.ics",
            "/v1/roster",
            "/v1/schedules",
            "/v1/schedules/{name}",
            "/v1/schedules/{name}/calendar.ics",
            "/v1/schedules/{name}/overrides",
            "/v1/schedules/{name}/overrides/{override}",
            "/v1/schedules/{name}/shifts",
            "/v1/situations",
            "/v1/situations/{situation_id}",
            "/v1/topology",
            "/v1/topology/dependencies",
            "/v1/topology/path",
            "/v1/topology/service",
            "/v1/config/reload",
            "/v1/dead-letters",
            "/v1/dead-letters/replay",
            "/v1/dead-letters/{letter_id}",
            "/v1/dead-letters/{letter_id}/replay",
            "/v1/edge/agents",
            "/v1/edge/agents/{agent}",
            "/v1/edge/agents/{agent}/config",
            "/v1/edge/agents/{agent}/health-check",
            "/v1/heartbeats",
            "/v1/heartbeats/{name}",
            *(f"/v1/heartbeats/{{name}}/{verb}" for verb in ("pause", "resume")),
            "/v1/incidents",
            "/v1/incidents/bulk",
            "/v1/incidents/{incident_id}",
            "/v1/incidents/{incident_id}/alerts",
            "/v1/incidents/{incident_id}/runs",
            "/v1/incidents/{incident_id}/timeline",
            "/v1/playbooks",
            "/v1/playbooks/{name}",
            "/v1/playbooks/{name}/mode",
            "/v1/receivers",
            "/v1/repairs",
            "/v1/receivers/{receiver}/test",
            "/v1/routes",
            "/v1/routes/test",
            "/v1/runs",
            "/v1/runs/{run_id}",
            *(f"/v1/runs/{{run_id}}/{verb}" for verb in ("approve", "cancel", "deny", "pause", "resume")),
            "/v1/runs/{run_id}/captures/{capture_id}",
            "/v1/silences",
            "/v1/silences/preview",
            "/v1/silences/{silence_id}",
            "/v1/silences/{silence_id}/extend",
            "/v1/stats",
            "/v1/stream/incidents",
            "/v1/targets",
            "/v1/tasks",
            "/v1/tokens",
            "/v1/whoami",
            "/v1/tokens/{token_id}",
            "/v1/tokens/{token_id}/rotate",
            *(f"/v1/incidents/{{incident_id}}/{verb.name}" for verb in VERBS),
        ]
    )
    schemas = schema["components"]["schemas"]
    assert {"IncidentBody", "AlertBody", "Problem", "FieldProblem"} <= set(schemas)
    assert {verb.body.__name__ for verb in VERBS} | {"CreateBody", "BulkBody"} <= set(schemas)
    assert list(schemas["IncidentBody"]["properties"])[: len(APPENDIX_A)] == APPENDIX_A


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_there_are_no_pages_that_load_scripts_from_elsewhere(path: str) -> None:
    assert client(StandIn()).get(path).status_code == 404


def test_no_answer_says_what_serves_it() -> None:
    assert "server" not in client(StandIn()).get("/v1/incidents").headers
