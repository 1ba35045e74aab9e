"""Matchers of the command line become what REST is asked, exactly, or are refused by name."""

from __future__ import annotations

import re

import pytest

from models.alerts.matchers import parse_matcher
from models.incidents.incident import IncidentState, IncidentType, Severity
from services.cli.shared import filters
from services.cli.shared.exits import ExitCode, Failure
from tests.cli.conftest import Run
from tests.cli.incident_server import IncidentServer


def test_the_values_are_those_of_the_model() -> None:
    assert filters.VALUES["state"] == tuple(IncidentState)
    assert filters.VALUES["severity"] == tuple(each.name for each in Severity)
    assert filters.VALUES["type"] == tuple(IncidentType)


@pytest.mark.parametrize(
    ("words", "query"),
    [
        (["severity=P0"], [("severity", "P0")]),
        (["severity=p0"], [("severity", "P0")]),
        (["severity!=P4"], [("severity", name) for name in ("P0", "P1", "P2", "P3")]),
        (['severity=~"P[01]"'], [("severity", "P0"), ("severity", "P1")]),
        (["severity!~P[0-3]"], [("severity", "P4")]),
        (["state!=Closed", "state!=Resolved"], [("state", name) for name in filters.OPEN_STATES]),
        (["type=security"], [("type", "Security")]),
        (["state=~.*"], []),
        (["service=llm-api"], [("service", "llm-api")]),
        (['service=~"llm-.*"'], [("match", 'service=~"llm-.*"')]),
        (["service=llm-.*x", "service!=llm-b"], [("service", "llm-.*x"), ("match", 'service!="llm-b"')]),
        (["assignee=alice"], [("assignee", "alice")]),
        (["assignee="], [("assignee", "")]),
        (["team=inference", "env!=dev"], [("match", 'team="inference"'), ("match", 'env!="dev"')]),
        (['note="a \\"b\\" \\\\ c"'], [("match", 'note="a \\"b\\" \\\\ c"')]),
    ],
)  # fmt: skip
def test_matchers_become_parameters(words: list[str], query: list[tuple[str, str]]) -> None:
    assert filters.read(words).query == query


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["severity=P9"], "expected one of P0, P1, P2, P3, P4"),
        (["state=Invstigating"], "did you mean Investigating?"),
        (["severity=P0", "severity=P1"], "no severity matches all of these filters"),
        (["service=a", "service=b"], "an incident has only one service"),
        (["assignee!=alice"], "only one assignee=NAME"),
        (["assignee=~a.*"], "only one assignee=NAME"),
        (["assignee=alice", "assignee=bob"], "only one assignee=NAME"),
        (["title=~.*slow.*"], "--text WORDS"),
        (["created_at=2h"], "--since and --until"),
        (["id=4e5f"], "llm-im incidents show ID"),
        (["severity"], "expected NAME=VALUE"),
        (["team=~("], "expected NAME=VALUE"),
        (['team="a'], "unescaped double quote"),
    ],
)  # fmt: skip
def test_what_the_server_cannot_be_asked_is_refused_by_name(words: list[str], told: str) -> None:
    with pytest.raises(Failure, match=re.escape(told)) as refused:
        filters.read(words)

    assert refused.value.code is ExitCode.USAGE


@pytest.mark.parametrize(
    "value", ["plain", 'a "quoted" one', "back\\slash", "\\", '\\"', "two\nlines", "日本", "\\n", ""]
)
def test_a_matcher_survives_its_way_as_text(value: str) -> None:
    assert parse_matcher(filters.as_text(("team", "=", value))) == ("team", "=", value)


def test_options_and_matchers_hold_together(run: Run, incidents: IncidentServer) -> None:
    words = ["--severity", "P1", "--severity", "P2", "severity!=P2", "--open", "--text", "slow", "--merged",
             "--sort", "-updated_at", "--changed-since", "2026-01-31T12:00:00+02:00", "team=a"]  # fmt: skip

    assert run("incidents", "list", *words).exit_code == 0

    assert sorted(incidents.asked[0].query) == sorted(
        [
            *(("state", name) for name in filters.OPEN_STATES),
            ("severity", "P1"),
            ("match", 'team="a"'),
            ("updated_after", "2026-01-31T12:00:00+02:00"),
            ("text", "slow"),
            ("merged", "true"),
            ("sort", "-updated_at"),
            ("limit", "51"),
        ]
    )


def test_a_label_that_is_nearly_a_field_is_hinted_at_when_nothing_is_found(run: Run) -> None:
    assert (
        run("incidents", "list", "severty=P0").stderr
        == "severty was taken for a label; did you mean severity?\n"
    )


@pytest.mark.parametrize(
    "given", ["yesterday", "2026-01-31T12:00:00", "0m", "-5m", "5", "999d", "2h30", "1h1d", ""]
)
def test_a_time_that_is_none_is_refused(run: Run, incidents: IncidentServer, given: str) -> None:
    result = run("incidents", "list", f"--since={given}")

    assert result.exit_code == 2
    assert "--since:" in result.stderr
    assert not incidents.asked


def test_alerts_are_matched_by_labels_only(run: Run, incidents: IncidentServer) -> None:
    run("alerts", "list", "severity=critical", 'service=~"llm-.*"', "--ended")

    assert incidents.asked[0].query[:3] == [
        ("match", 'severity="critical"'), ("match", 'service=~"llm-.*"'), ("firing", "false"),
    ]  # fmt: skip
