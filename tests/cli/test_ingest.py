"""`llm-im ingest try`: what becomes of alerts on their way in. No system runs here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_commands import run

pytestmark = pytest.mark.usefixtures("elsewhere")

RULES = """
[state]
partitions = 1

[[ingest.relabel]]
name = "service of the pod"
from = "pod"
extract = '(.+)-[0-9a-f]{6,10}-[a-z0-9]{5}'
service = "$1"

[[ingest.relabel]]
name = "team"
from = "service"
map = "TEAMS"

[[ingest.relabel]]
name = "replicas are one"
drop = ["prometheus_replica"]

[[ingest.filters]]
name = "no dev"
ignored_labels = ["env=dev"]

[[ingest.filters]]
name = "quiet ci"
token = "ci"
matchers = ['alertname=~".+"']

[[inhibition.rules]]
name = "cluster down"
source = ["alertname=ClusterDown"]
target = ["team=ml"]
"""


@pytest.fixture(autouse=True)
def rules(elsewhere: Path) -> None:
    (elsewhere / "teams.csv").write_text("service,team\nllm-api,ml\n")
    (elsewhere / "llm-im.toml").write_text(RULES.replace("TEAMS", str(elsewhere / "teams.csv")))


def file(*alerts: dict[str, Any]) -> str:
    Path("a.json").write_text(json.dumps([*alerts]))
    return "a.json"


def down(**labels: str) -> dict[str, Any]:
    return {"labels": {"alertname": "HighLatency", "pod": "llm-api-7d9f8c6b5-x2x1z", **labels}}


def test_each_stage_is_shown() -> None:
    alert = down(prometheus_replica="a", severity="critical") | {"annotations": {"summary": "p99 over 5 s"}}

    shown = run("ingest", "try", file(alert), "--as", "alertmanager")

    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines() == [
        "format    alertmanager: 1 alert",
        "",
        "firing    p99 over 5 s (llm-api)",
        "before    alertname=HighLatency, pod=llm-api-7d9f8c6b5-x2x1z, prometheus_replica=a, severity=critical",
        "rule      service of the pod: service=llm-api",
        "rule      team: team=ml",
        "rule      replicas are one: prometheus_replica goes (was a)",
        "after     alertname=HighLatency, pod=llm-api-7d9f8c6b5-x2x1z, severity=critical, service=llm-api, team=ml",
        "filter    no filter drops it",
        "service   llm-api (label service)",
        "shard     shard/0000, of 1 in a new system; slot 1155",
        'group     {service="llm-api", alertname="HighLatency", cluster="", namespace=""}',
        "severity  P1, Performance, impact major",
        "by        severity: label (critical); type: words (latency, p99, high); impact: severity",
        "muted     while a source fires of cluster down",
    ]


def test_what_a_filter_drops_goes_no_further_and_an_end_does() -> None:
    dev = down(env="dev")

    shown = run("ingest", "try", file(dev, dev | {"endsAt": "2026-01-01T00:00:00Z"}), "--as", "alertmanager")

    first, second = shown.stdout.split("\n\n")[1:]
    assert first.splitlines()[-1] == 'filter    dropped by no dev: env="dev" is ignored'
    assert (
        'filter    env="dev" is ignored, but what ends an alert is never dropped\nservice   llm-api' in second
    )


def test_a_filter_of_a_token_is_asked_for_that_token() -> None:
    def verdict(*more: str) -> dict[str, Any]:
        [alert] = json.loads(run("ingest", "try", file(down()), "--json", *more).stdout)["alerts"]
        found: dict[str, Any] = alert["filter"]
        return found

    assert verdict()["dropped"] is False
    assert verdict("--sender", "ci") == {"dropped": True, "by": "quiet ci", "why": 'alertname=~".+"'}


def test_what_can_not_be_read_or_applied_is_told_and_the_exit_code_says_so() -> None:
    refused = run("ingest", "try", file({"labels": {}}), "--as", "alertmanager")
    not_applied = run("ingest", "try", file({"labels": {"pod": "x" * 2000}}), "--as", "alertmanager")
    Path("teams.csv").write_text("service,team\nllm-api\n")
    wrong = run("ingest", "try", file(down()))
    check = run("config", "check")

    assert (refused.exit_code, refused.stderr) == (1, "alert 0   at least one label pair required\n")
    assert not_applied.exit_code == 1
    assert "rule      service of the pod: NOT APPLIED: " in not_applied.stdout
    assert wrong.exit_code != 0
    for said in (wrong.stderr, check.stdout):
        assert "ingest.relabel[1].map: " in said
        assert "teams.csv: line 2: expected 2 columns as in the header, it has 1" in said


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (
            "drop = []",
            "ingest.relabel[0]: expected one of extract, map, set or service, drop, rename in each rule",
        ),
        ('drop = ["a"]\nset = { a = "b" }', "ingest.relabel[0]: expected one of extract, map"),
        (
            "from = 'a'\nextract = '(a'\nservice = '$1'",
            "ingest.relabel[0].extract: expected a regular expression",
        ),
        ("from = 'a'\nextract = 'a'\nservice = '$1'", "ingest.relabel[0]: '$1': there is no group 1"),
        ("from = 'a'\nextract = '(a)'", "ingest.relabel[0]: extract: expected set or service beside it"),
        ("extract = '(a)'\nservice = '$1'", "ingest.relabel[0]: extract: expected from beside it"),
        (
            "from = 'a'\nmap = 'teams.csv'",
            "ingest.relabel[0].map: expected an absolute path, not 'teams.csv'",
        ),
        ("drop = ['a']\nformat = 'falcon'", "ingest.relabel[0].format: there is no format 'falcon'"),
        ("drop = ['a']\nmatchers = ['a']", "ingest.relabel[0].matchers: bad matcher format: a"),
        ("dorp = ['a']", "ingest.relabel[0].dorp: there is no such setting; did you mean drop?"),
    ],
)
def test_config_check_says_where_a_rule_is_wrong(rule: str, why: str) -> None:
    Path("llm-im.toml").write_text(f'[[ingest.relabel]]\nname = "x"\n{rule}\n')

    found = run("config", "check")

    assert found.exit_code == 1
    assert why in found.output
