"""`llm-im targets`: what is asked, and what a person and a program see of it."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.incident_server import Answer, IncidentServer

WORKS = {
    "target": "receiver:ops-slack", "responder": "responder-0", "state": "closed", "since": "2026-01-31T12:00:00.000Z",
    "broken_since": None, "retry_at": None, "failures": 0, "last_error": "", "last_error_at": None, "in_flight": 3,
    "max_in_flight": 32, "rate_per_s": 50.0,
}  # fmt: skip
FAILS = WORKS | {
    "target": "receiver:pager", "state": "open", "broken_since": "2026-01-31T12:00:00.000Z", "retry_at": "2099-01-31T12:00:00.000Z",
    "failures": 7, "last_error": "https://pager.test answered 503\x1b[2J", "last_error_at": "2026-01-31T12:00:00.000Z",
    "in_flight": 0, "rate_per_s": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def held(incidents: IncidentServer) -> None:
    body: dict[str, Any] = {"items": [WORKS, FAILS], "silent": ["responder-1"]}
    incidents.next_answers.append(Answer(200, body))


def test_whoever_fails_is_seen_at_once_and_who_did_not_answer_is_said(
    run: Run, incidents: IncidentServer
) -> None:
    result = run("targets")

    assert incidents.asked[0].path == "/v1/targets"
    heads, works, fails = result.stdout.splitlines()
    assert heads.split() == [
        "TARGET",
        "STATE",
        "SINCE",
        "BROKEN",
        "RETRY",
        "FAILURES",
        "IN",
        "FLIGHT",
        "RATE",
        "LAST",
        "ERROR",
    ]
    assert works.split()[:2] == ["receiver:ops-slack", "closed"] and works.split()[-5:] == [
        "3",
        "of",
        "32",
        "50/s",
        "-",
    ]
    assert fails.split()[:2] == ["receiver:pager", "open"] and "answered 503\ufffd[2J" in fails
    assert result.stderr == "responder-1 does not answer: its targets are missing\n"


def test_only_those_that_fail(run: Run) -> None:
    assert run("targets", "--broken", "-o", "id").stdout == "receiver:pager\n"


def test_none_that_fails_is_said(run: Run, incidents: IncidentServer) -> None:
    incidents.next_answers[0] = Answer(200, {"items": [WORKS], "silent": []})

    assert run("targets", "--broken").stdout == "no target is broken\n"


def test_programs_get_all_of_it(run: Run, incidents: IncidentServer) -> None:
    incidents.next_answers.append(incidents.next_answers[0])

    assert json.loads(run("targets", "--json").stdout)["items"] == [WORKS, FAILS]
    rows = list(csv.DictReader(io.StringIO(run("targets", "-o", "csv").stdout)))
    assert [(row["target"], row["state"], row["failures"]) for row in rows] == [
        ("receiver:ops-slack", "closed", "0"),
        ("receiver:pager", "open", "7"),
    ]
