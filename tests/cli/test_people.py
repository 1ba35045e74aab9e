"""`llm-im people|oncall|escalation`: what is asked, and what a person and a program see of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.incident_server import Answer, IncidentServer, identity, incident

AT = "2026-01-31T12:00:00.000Z"
ANA: dict[str, Any] = {
    "name": "ana", "full_name": "Ana \x1b[2J", "time_zone": "Europe/Madrid", "version": 3,
    "contacts": [{"receiver": "mail", "address": "ana@example.org"}, {"receiver": "ops", "address": ""}],
}  # fmt: skip
ON_CALL: dict[str, Any] = {
    "schedule": "primary", "person": "ana", "layer": "week", "override": None, "until": AT, "next": "ben", "time_zone": "UTC",
}  # fmt: skip
PLAN: dict[str, Any] = {
    "created": ["person:ana"], "changed": ["schedule:primary"], "removed": [], "unchanged": [], "problems": [],
}  # fmt: skip
POLICY: dict[str, Any] = {
    "name": "critical", "levels": [{"tell": ["schedule:primary"], "timeout": "5m"}, {"tell": ["person:ben"], "timeout": "10m"}],
    "repeat": 2, "fallback": ["receiver:ops"], "ack_timeout": "1h", "version": 1,
}  # fmt: skip
YAML = """
people:
  ana: {contacts: [{receiver: mail, address: ana@example.org}]}
schedules:
  primary:
    layers: [{name: week, people: [ana], every: 1w, starts: 2026-11-30T09:00}]
escalations:
"""
TOML = """
[people.ana]
contacts = [{receiver = "mail", address = "ana@example.org"}]
[[schedules.primary.layers]]
name = "week"
people = ["ana"]
every = "1w"
starts = 2026-11-30T09:00:00
"""


def test_people_are_listed_and_steer_no_terminal(run: Run, incidents: IncidentServer) -> None:
    incidents.next_answers.append(Answer(200, {"items": [ANA]}))
    heads, line = run("people", "list").stdout.splitlines()

    assert heads.split() == ["NAME", "FULL", "NAME", "TIME", "ZONE", "CONTACTS"]
    assert "\x1b" not in line and line.endswith("mail=ana@example.org, ops")


def test_what_is_not_named_of_a_person_stays(run: Run, incidents: IncidentServer) -> None:
    incidents.next_answers += [Answer(200, ANA), Answer(200, ANA)]
    run("people", "set", "ana", "--time-zone", "UTC")

    assert incidents.asked[1].body == {
        "full_name": ANA["full_name"],
        "time_zone": "UTC",
        "contacts": ANA["contacts"],
    }


def test_a_new_person_is_reached_by_what_is_named(run: Run, incidents: IncidentServer) -> None:
    incidents.next_answers += [Answer(404, {"detail": "none"}), Answer(201, ANA)]
    run("people", "set", "ana", "-c", "mail=ana@example.org", "-c", "ops")

    assert incidents.asked[1].path == "/v1/people/ana"
    assert incidents.asked[1].body == {"contacts": ANA["contacts"]}


@pytest.mark.parametrize(("name", "text"), [("a.yaml", YAML), ("a.toml", TOML)])
def test_a_file_is_sent_as_it_is_and_the_plan_is_shown(
    run: Run, incidents: IncidentServer, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    incidents.next_answers.append(Answer(200, PLAN | {"problems": ["ana has no contacts"]}))
    result = run("people", "apply", str(tmp_path / name))

    sent = incidents.asked[0].body
    assert sent["people"] == {"ana": {"contacts": [{"receiver": "mail", "address": "ana@example.org"}]}}
    assert sent["schedules"]["primary"]["layers"][0]["starts"].startswith("2026-11-30T09:00")
    assert (sent["dry_run"], sent["prune"]) == (False, False)
    assert result.stdout.splitlines() == ["+ person:ana", "~ schedule:primary"]
    assert "ana has no contacts" in result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("people: [", "not YAML"),
        ("persons: {}", "expected people, schedules, escalations"),
        ("- a", "expected people"),
    ],
)
def test_a_file_that_is_none_is_a_usage_error(run: Run, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    result = run("people", "apply", str(tmp_path / "a.yaml"))

    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr


def test_pruning_without_anybody_to_ask_says_what_it_would_remove(
    run: Run, incidents: IncidentServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.cli.shared.confirm.terminal", lambda: None)
    (tmp_path / "a.yaml").write_text(YAML)
    plan = PLAN | {"removed": ["person:zoe"]}
    incidents.next_answers += [Answer(200, plan), Answer(200, plan)]
    refused = run("people", "apply", str(tmp_path / "a.yaml"), "--prune")
    done = run("people", "apply", str(tmp_path / "a.yaml"), "--prune", "--yes")

    assert refused.exit_code == 2 and "person:zoe" in refused.stderr and "--yes" in refused.stderr
    assert [each.body["dry_run"] for each in incidents.asked] == [True, False]
    assert "- person:zoe" in done.stdout


def test_an_export_can_be_applied_and_hides_nothing(
    run: Run, incidents: IncidentServer, tmp_path: Path
) -> None:
    incidents.next_answers += [
        Answer(200, {"items": [each]}) for each in (ANA, {"name": "primary", "layers": []}, POLICY)
    ]
    found = json.loads(run("people", "export").stdout)
    hidden = ANA | {"contacts": [{"receiver": "mail", "address": "***"}]}
    incidents.next_answers += [
        Answer(200, {"items": [each] if each else []}) for each in (hidden, None, None)
    ]
    refused = run("people", "export")

    assert found["people"]["ana"]["contacts"] == ANA["contacts"] and "version" not in found["people"]["ana"]
    assert (refused.exit_code, refused.stdout) == (7, "")


def test_it_says_who_is_on_call_and_who_is_next(run: Run, incidents: IncidentServer) -> None:
    nobody = ON_CALL | {"schedule": "nights", "person": None, "layer": None, "until": None, "next": None}
    not_known = nobody | {"schedule": "rest", "problem": "time_zone: there is none"}
    incidents.next_answers.append(Answer(200, {"at": AT, "items": [ON_CALL, nobody, not_known]}))
    _heads, first, second, third = run("oncall", "who").stdout.splitlines()

    assert first.split()[:2] == ["primary", "ana"] and "ben" in first
    assert second.split()[:2] == ["nights", "nobody"]
    assert third.split()[:2] == ["rest", "unknown"] and "time_zone" in third


def test_an_override_is_made_for_a_while_and_says_how_to_take_it_back(
    run: Run, incidents: IncidentServer
) -> None:
    made = {
        "id": "0f",
        "schedule": "primary",
        "person": "ben",
        "starts_at": AT,
        "ends_at": AT,
        "made_at": AT,
        "by": "ada",
        "reason": "",
    }
    incidents.next_answers += [Answer(201, made), Answer(204, None)]
    result = run("oncall", "override", "primary", "ben", "--for", "8h", "--reason", "dentist")
    gone = run("oncall", "cancel", "primary", "0f")

    assert incidents.asked[0].path == "/v1/schedules/primary/overrides"
    assert incidents.asked[0].body == {"person": "ben", "reason": "dentist", "ends_in": "28800s"}
    assert "llm-im oncall cancel primary 0f" in result.stderr
    assert (gone.exit_code, incidents.asked[1].path) == (0, "/v1/schedules/primary/overrides/0f")
    assert run("oncall", "override", "primary", "ben").exit_code == 2


def test_a_check_that_finds_something_fails(run: Run, incidents: IncidentServer) -> None:
    incidents.next_answers += [
        Answer(200, {"items": ["schedule primary: nobody"]}),
        Answer(200, {"items": []}),
    ]

    assert (found := run("oncall", "check")).exit_code == 1 and "nobody" in found.stdout
    assert run("oncall", "check").exit_code == 0


def test_a_policy_is_shown_with_who_would_be_told_now(run: Run, incidents: IncidentServer) -> None:
    incidents.next_answers += [Answer(200, POLICY), Answer(200, {"at": AT, "items": [ON_CALL]})]
    lines = run("escalation", "show", "critical").stdout.splitlines()

    assert "schedule:primary (ana now), 5m to acknowledge" in lines[0]
    assert "receiver:ops" in lines[3] and "1h" in lines[4]


def test_what_there_is_not_names_the_list(run: Run, incidents: IncidentServer) -> None:
    incidents.next_answers.append(Answer(404, {"detail": "there is no schedule 'x'"}))
    result = run("oncall", "shifts", "x")

    assert result.exit_code == 5 and "llm-im oncall schedules" in result.stderr


def test_an_incident_says_who_was_paged_and_who_is_next(run: Run, incidents: IncidentServer) -> None:
    paged = {
        "policy": "critical", "status": "running", "level": 2, "round": 1, "next_at": AT, "told": ["ana by sms"], "why": "opened",
    }  # fmt: skip
    incidents.hold(incident(1, escalation=paged))
    shown = run("incidents", "show", identity(1)).stdout

    assert f"critical, level 2 at {AT}" in shown and "ana by sms" in shown
