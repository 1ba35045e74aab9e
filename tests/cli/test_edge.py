"""`llm-im edge`: what is asked, and what a person and a program see of it."""

from __future__ import annotations

from typing import Any

from tests.cli.conftest import Run
from tests.cli.incident_server import Answer, IncidentServer

AT = "2026-01-31T12:00:00.000Z"
ACTION: dict[str, Any] = {
    "id": "k-0", "type": "restart", "service": "llm-api", "incident_id": "0" * 36, "parameters": {}, "state": "in doubt",
    "detail": "no answer\x1b[2J", "outputs": {}, "queued_at": AT, "deadline": AT, "delivered_at": AT, "ended_at": AT,
}  # fmt: skip
AGENT: dict[str, Any] = {
    "id": "edge-1", "connected": True, "since": AT, "why_away": "", "first_seen_at": AT, "gateway": "gateway-1",
    "status": "degraded", "detail": "disk", "services": ["llm-api"], "can_do": ["restart"], "config_version": 1,
    "config": {"version": 2, "values": {"a": "1"}, "by": "ann", "at": AT}, "check": None, "open_actions": 3,
    "actions": [ACTION],
}  # fmt: skip


def checked(answered_at: str | None) -> dict[str, Any]:
    check = {
        "id": "c-1", "service": "", "by": "ann", "asked_at": AT, "answered_at": answered_at,
        "status": "healthy" if answered_at else "", "detail": "all well" if answered_at else "",
    }  # fmt: skip
    return AGENT | {"check": check}


def test_agents_are_listed(run: Run, incidents: IncidentServer) -> None:
    incidents.next_answers.append(Answer(200, {"items": [AGENT], "next": None}))
    result = run("edge", "agents")
    assert incidents.asked[0].path.startswith("/v1/edge/agents")
    heads, line = result.stdout.splitlines()
    assert heads.split() == ["AGENT", "STREAM", "SINCE", "HEALTH", "OPEN", "CONFIG", "SERVICES"]
    assert line.split()[:2] == ["edge-1", "connected"] and line.split()[-1] == "llm-api"


def test_one_is_shown_with_what_it_was_asked_to_do(run: Run, incidents: IncidentServer) -> None:
    incidents.next_answers.append(Answer(200, AGENT))
    shown = run("edge", "show", "edge-1").stdout
    assert "in doubt" in shown and "2 by ann" in shown
    assert "\x1b" not in shown


def test_a_configuration_is_all_of_its_values(run: Run, incidents: IncidentServer) -> None:
    incidents.next_answers.append(Answer(200, AGENT))
    result = run("edge", "config", "edge-1", "a=1", "b=x=y")
    assert incidents.asked[0].path == "/v1/edge/agents/edge-1/config"
    assert incidents.asked[0].body == {"values": {"a": "1", "b": "x=y"}}
    assert result.stdout == "edge-1: configuration 2: sent\n"
    assert run("edge", "config", "edge-1", "nonsense").exit_code == 2


def test_a_check_waits_for_its_answer(run: Run, incidents: IncidentServer) -> None:
    incidents.next_answers += [Answer(200, checked(None)), Answer(200, checked(AT))]
    result = run("edge", "check", "edge-1")
    assert [each.path for each in incidents.asked] == [
        "/v1/edge/agents/edge-1/health-check",
        "/v1/edge/agents/edge-1",
    ]
    assert result.stdout == "edge-1: healthy all well\n"
