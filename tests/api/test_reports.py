"""GET /v1/incidents/{id}/report: it says what happened, in each form, and no text of a stranger is more than text."""

from __future__ import annotations

import asyncio
from html.parser import HTMLParser
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from models.incidents.incident import IncidentState, Resolution
from services.reports.report import ALERTS_LISTED, span
from tests.api.for_verbs import opened
from tests.api.gateway_in_process import Reply, System, alert
from tests.api.stand_in import NOW, StandIn, archived, handled, incident
from tests.api.stand_in import alert as seen

HOSTILE = "<script>alert(1)</script> [x](javascript:x) | @all `a` \u202e <img src=x onerror=y> #1"


async def report(ours: System, identity: str, form: str = "json") -> Reply:
    answer = await ours.get(f"/v1/incidents/{identity}/report?format={form}")
    assert answer.status == 200, answer
    return answer


@pytest.mark.asyncio
async def test_it_says_what_happened_who_did_what_and_how_fast(ours: System) -> None:
    identity = await opened(ours, alerts=2)
    as_ana = {"X-Actor": "ana"}
    ours.clock.heard_s += 120
    await ours.post(f"/v1/incidents/{identity}/acknowledge", {}, headers=as_ana)
    await ours.post(
        f"/v1/incidents/{identity}/assign", {"add": ["bob"], "roles": {"scribe": "bob"}}, headers=as_ana
    )
    await ours.post(
        f"/v1/incidents/{identity}/comment", {"text": "Out of memory."}, headers={"X-Actor": "cleo"}
    )
    await ours.post(
        f"/v1/incidents/{identity}/update",
        {"audience": "customers", "text": "We are on it."},
        headers=as_ana,
    )
    ours.clock.heard_s += 3600
    await ours.post(
        f"/v1/incidents/{identity}/resolve",
        {"root_cause": "a batch too large", "notes": "Rolled back."},
        headers=as_ana,
    )

    made = (await report(ours, identity)).json
    shown = (await ours.get(f"/v1/incidents/{identity}")).json

    [episode] = made["episodes"]
    assert made["incident"] == shown
    assert (episode["acknowledged_by"], episode["resolved_by"], episode["resolution_method"]) == (
        "ana",
        "ana",
        "Manual",
    )
    assert 120 <= episode["acknowledge"]["took_s"] < 180
    assert 3720 <= episode["resolve"]["took_s"] < 3900
    assert episode["acknowledge"]["target_s"] is not None and episode["acknowledge"]["met"] is True
    assert (made["cause"], made["notes"]) == ("a batch too large", "Rolled back.")
    assert [(each["name"], each["roles"], each["assigned"]) for each in made["people"]] == [
        ("ana", [], False),
        ("bob", ["scribe"], True),
        ("cleo", [], False),
    ]
    assert made["timeline"] == shown["timeline"]
    assert (len(made["alerts"]), made["alerts_total"]) == (2, 2)
    assert [each["text"] for each in made["updates"]] == ["We are on it."]
    assert "acknowledged by ana after 2 min" in made["summary"]
    assert "resolved by ana after 1 h 2 min" in made["summary"]


@pytest.mark.asyncio(loop_scope="module")
async def test_what_was_muted_and_why_is_in_it(shared: System) -> None:
    made = await shared.post(
        "/v1/silences", {"matchers": ['service="hushed"'], "duration": "1h", "comment": "deploy"}
    )
    assert made.status == 201
    identity = await opened(shared, "hushed")
    async with asyncio.timeout(20):
        while not (found := (await report(shared, identity)).json)["muted"]:
            await asyncio.sleep(0.02)

    assert "deploy" in found["muted"][0]["description"]
    assert found["alerts"][0]["muted"] is True


@pytest.mark.asyncio(loop_scope="module")
async def test_texts_of_strangers_are_only_text(shared: System) -> None:
    sent = await shared.post(
        "/v1/alerts", [{**alert("X", "api"), "annotations": {"summary": HOSTILE, "description": HOSTILE}}]
    )
    identity = str(sent.items[0]["incident_id"])
    await shared.post(f"/v1/incidents/{identity}/comment", {"text": HOSTILE.replace("\u202e", "")})

    page = await report(shared, identity, "html")
    text = (await report(shared, identity, "markdown")).body.decode()

    class Tags(HTMLParser):
        seen: set[str] = set()
        text = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.seen.add(tag)
            assert not {name for name, _ in attrs} - {
                "scope",
                "lang",
                "charset",
                "http-equiv",
                "content",
                "name",
            }

        def handle_data(self, data: str) -> None:
            self.text += data

    reader = Tags()
    reader.feed(page.body.decode())
    assert not reader.seen & {"script", "img", "a", "link", "iframe"}
    assert "<script>alert(1)</script>" in reader.text
    assert "\u202e" not in reader.text + text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["content-type"].startswith("text/html")
    assert "<script>" not in text and "[x](" not in text and "@all" not in text
    for line in text.splitlines():
        assert line.startswith("|") or "|" not in line.replace("\\|", "")


@pytest.mark.asyncio(loop_scope="module")
async def test_all_forms_say_the_same(shared: System) -> None:
    identity = await opened(shared, alerts=3)
    await shared.post(f"/v1/incidents/{identity}/comment", {"text": "first line\nsecond line"})

    made = (await report(shared, identity)).json
    text = (await report(shared, identity, "markdown")).body.decode()
    page = (await report(shared, identity, "html")).body.decode()

    for each in made["timeline"]:
        moment = each["timestamp"][:19].replace("T", " ")
        assert moment in text and moment in page
    assert "first line second line" in text
    assert text.startswith(f"# {made['incident']['severity']} ")


def test_an_archived_incident_has_one_too() -> None:
    stand_in = StandIn()
    one = handled(incident("a", resolved_at=NOW + 60), answered_at=NOW + 30)
    one.resolution = Resolution(one.resolved_at, "ana", "Manual", "notes", "cause")
    many = [seen("a", incident=one.id, pod=str(number)) for number in range(ALERTS_LISTED + 5)]
    asyncio.run(stand_in.archive.put([archived(one, many)]))

    client = TestClient(stand_in.app())
    path = f"/v1/incidents/{UUID(bytes=one.id)}/report"
    made = client.get(path).json()

    assert made["incident"]["state"] == IncidentState.CLOSED.value
    assert (made["cause"], made["episodes"][0]["acknowledge"]["took_s"]) == ("cause", 30.0)
    assert (len(made["alerts"]), made["alerts_total"]) == (ALERTS_LISTED, ALERTS_LISTED + 5)
    assert "And 5 more." in client.get(f"{path}?format=markdown").text
    assert client.get(f"/v1/incidents/{UUID(int=1)}/report").status_code == 404
    assert client.get(f"{path}?format=pdf").json()["errors"][0]["field"] == "format"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0.2, "0 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (4321, "1 h 12 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_a_length_of_time_is_written_as_people_say_it(seconds: float | None, words: str) -> None:
    assert span(seconds) == words
