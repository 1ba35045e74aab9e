"""`llm-im routes` and `llm-im notify`: what is asked, and what a person and a program see of it."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.conftest import Run
from tests.cli.incident_server import Answer, IncidentServer

ROOT: dict[str, Any] = {
    "name": "root", "depth": 0, "asks": "takes everything", "receivers": ["ops"], "continues": False, "discards": False,
    "wait_s": None, "interval_s": 60.0, "repeat_s": 14400.0, "send_resolved": True, "escalate_to": [],
}  # fmt: skip
URGENT = ROOT | {
    "name": "urgent", "depth": 1, "asks": "severity P0", "receivers": ["pager"], "continues": True, "wait_s": 5.0,
    "repeat_s": 0.0, "send_resolved": False, "escalate_to": ["boss"],
}  # fmt: skip
NOISE = ROOT | {"name": "noise\x1b[2J", "depth": 1, "asks": "a=b", "receivers": [], "discards": True}


def test_the_tree_is_shown_as_one_and_steers_no_terminal(run: Run, incidents: IncidentServer) -> None:
    incidents.next_answers.append(Answer(200, {"items": [ROOT, NOISE, URGENT]}))

    lines = run("routes", "show").stdout.splitlines()

    assert incidents.asked[0].path == "/v1/routes"
    assert lines == [
        "root: takes everything -> ops; at most every 1m, again after 4h",
        "  noise\ufffd[2J: a=b -> nobody (discarded)",
        "  urgent: severity P0 -> pager; after 5s, at most every 1m; no resolves; escalates to boss; continues",
    ]


def test_a_question_says_who_is_told_and_why(run: Run, incidents: IncidentServer) -> None:
    chosen = {"receiver": "pager", "route": "urgent", "why": "route urgent: severity P0"}
    steps = [
        {"route": "root", "depth": 0, "took": True, "why": "route root: takes everything"},
        {"route": "urgent", "depth": 1, "took": True, "why": "route urgent: severity P0"},
        {"route": "rest", "depth": 1, "took": False, "why": "severity is P0, not P1"},
    ]
    body = {
        "told": [chosen],
        "escalate_to": [chosen | {"receiver": "boss"}],
        "discarded_by": None,
        "steps": steps,
    }
    incidents.next_answers += [Answer(200, body), Answer(200, body)]

    result = run("routes", "test", "team=db", "env=a=b", "-s", "P0", "--type", "Security", "--service", "api")
    as_json = run("routes", "test", "--json")

    assert incidents.asked[0].body == {
        "labels": {"team": "db", "env": "a=b"},
        "severity": "P0",
        "incident_type": "Security",
        "service": "api",
    }
    assert result.stdout.splitlines() == [
        "+ root: takes everything",
        "  + urgent: severity P0",
        "  - rest: severity is P0, not P1",
        "",
        "pager is told, by route urgent: severity P0",
        "boss is told as well if nobody acknowledges it in time",
    ]
    assert json.loads(as_json.stdout) == body


def test_a_label_that_is_none_is_a_mistake_of_usage(run: Run, incidents: IncidentServer) -> None:
    result = run("routes", "test", "team")

    assert result.exit_code == 2 and "expected LABEL=VALUE" in result.stderr and not incidents.asked


def test_a_receiver_that_takes_a_test_and_one_that_does_not(run: Run, incidents: IncidentServer) -> None:
    took = {"receiver": "ops", "ok": True, "detail": "https://a.b answered 200"}
    incidents.next_answers += [
        Answer(200, took),
        Answer(200, took | {"ok": False, "detail": "https://a.b answered 503"}),
    ]

    fine, bad = run("notify", "test", "ops"), run("notify", "test", "ops")

    assert incidents.asked[0].path == "/v1/receivers/ops/test"
    assert (fine.exit_code, fine.stdout.strip()) == (0, "ops took it: https://a.b answered 200")
    assert bad.exit_code == 1 and "ops did not take it: https://a.b answered 503" in bad.stderr


def test_the_receivers_are_listed_with_the_routes_that_name_them(run: Run, incidents: IncidentServer) -> None:
    ops = {"name": "ops", "type": "slack", "send_resolved": True, "routes": ["root", "rest"]}
    lone = {"name": "lone", "type": "email", "send_resolved": False, "routes": []}
    incidents.next_answers += [Answer(200, {"items": [lone, ops]})]

    assert run("notify", "receivers").stdout.splitlines() == [
        "lone (email): no route; no resolves",
        "ops (slack): root, rest",
    ]
