"""`llm-im policy test`: what would be said of an action. No system runs here, and nothing is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_commands import run
from tests.contract.playbook_world import INCIDENT, POLICIES

pytestmark = pytest.mark.usefixtures("elsewhere")
FILES = ("--policy", str(POLICIES / "incidents.rego"), "--policy", str(POLICIES / "data.json"))


def asked(*words: str, incident: Any = INCIDENT) -> Any:
    Path("incident.json").write_text(incident if isinstance(incident, str) else json.dumps(incident))
    return run("policy", "test", "--incident", "incident.json", *words)


def test_an_action_is_allowed_denied_or_needs_approval() -> None:
    allowed = asked("--action", "service_restart", *FILES)
    frozen = asked("--action", "service_restart", "--param", "service=billing", *FILES)
    unapproved = asked("--action", "rollback", *FILES)
    approved = asked("--action", "rollback", "--approved-by", "alice", *FILES)

    assert [each.exit_code for each in (allowed, frozen, unapproved, approved)] == [0, 7, 6, 0]
    assert allowed.stdout.splitlines() == [
        "allowed         a known repair",
        "policy          rego: allowed, with timeout constrained: a known repair",
        'constraints     {"timeout": {"max": 120}}',
    ]
    assert frozen.stdout.startswith("denied          billing is frozen")
    assert "approvers       alice, bob" in unapproved.stdout


def test_the_settings_count_and_the_request_can_be_seen() -> None:
    Path("llm-im.toml").write_text(
        '[integrations.llm_edge_agent.remediation]\nallowed_actions = ["Restart"]\n[playbooks]\nenvironment = "staging"\n'
    )
    result = asked("--action", "scale", "--param", "replicas=3", "--json")

    said = json.loads(result.stdout)
    assert (result.exit_code, said["outcome"]) == (7, "denied")
    assert "allowed_actions" in said["settings"]["refused"]
    assert said["request"]["proposed_action"]["parameters"] == {"replicas": 3}
    assert said["request"]["context"]["environment"] == "staging"


def test_without_a_policy_what_the_settings_allow_is_allowed() -> None:
    result = asked("--action", "service_restart")

    assert (result.exit_code, result.stdout) == (0, "allowed\npolicy          none is configured\n")


def test_a_policy_server_that_is_away_denies() -> None:
    Path("llm-im.toml").write_text(
        '[integrations.llm_governance_core]\nenabled = true\nendpoint = "http://127.0.0.1:1/v1/data/incidents"\n'
    )
    result = asked("--action", "service_restart")

    assert result.exit_code == 7
    assert "could not be asked" in result.stdout


@pytest.mark.parametrize(
    ("words", "incident", "code", "said"),
    [
        (("--action", "reboot"), INCIDENT, 1, "there is no action 'reboot'"),
        (("--action", "scale", "--param", "replicas=many"), INCIDENT, 1, "scale: replicas: expected int"),
        (("--action", "scale", "--param", "replicas"), INCIDENT, 2, "expected NAME=VALUE"),
        (("--action", "wait", "--param", 'duration="{{ nothing }}"'), INCIDENT, 1, "duration"),
        (("--action", "service_restart"), "[1]", 2, "expected an incident"),
        (("--action", "service_restart"), "{", 2, "not JSON"),
        (("--action", "service_restart", "--policy", "none.rego"), INCIDENT, 1, "none.rego: can't be read"),
    ],
)
def test_what_cannot_be_read_is_named(words: tuple[str, ...], incident: Any, code: int, said: str) -> None:
    result = asked(*words, incident=incident)

    assert result.exit_code == code
    assert said in result.stderr
