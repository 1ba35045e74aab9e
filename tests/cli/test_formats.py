"""`llm-im formats`: what formats there are, and what one makes of a file. No system runs here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.ingest.formats.table import all_formats
from tests.cli.test_commands import run
from tests.format_cases import WEBHOOKS, raw, samples

pytestmark = pytest.mark.usefixtures("elsewhere")


def put(name: str, body: object) -> str:
    Path(name).write_bytes(raw(body))
    return name


def test_list_names_every_format_with_its_paths() -> None:
    rows = json.loads(run("formats", "list", "--json").stdout)

    assert [row["format"] for row in rows] == list(all_formats())
    assert {row["format"]: row["paths"] for row in rows}["opsgenie"][1] == "/v2/alerts/{identifier}/close"
    shown = run("formats", "list")
    assert shown.exit_code == 0 and "datadog" in shown.stdout


def test_try_shows_what_a_file_would_make_and_how_it_was_known() -> None:
    result = run("formats", "try", put("a.json", samples("falco")["cases"][0]["body"]))

    assert result.exit_code == 0
    assert result.stdout.splitlines()[:5] == [
        "format    falco: 1 alert",
        "",
        "firing    A shell was spawned in a container",
        "service   inference",
        "severity  P2 Warning",
    ]


@pytest.mark.parametrize("name", WEBHOOKS)
def test_try_as_json_says_the_same_as_the_server(name: str) -> None:
    case = samples(name)["cases"][0]
    headers = [word for key, value in case.get("headers", {}).items() for word in ("-H", f"{key}:{value}")]

    result = run("formats", "try", put("a.json", case["body"]), "--as", name, *headers, "--json")

    said = json.loads(result.stdout)
    assert (result.exit_code, said["format"], said["refused"]) == (0, name, [])
    assert {alert["labels"]["alertname"] for alert in said["alerts"]} == {row[0] for row in case["firing"]}
    assert {alert["status"] for alert in said["alerts"]} == {"firing"}


def test_try_says_why_a_file_would_be_refused() -> None:
    unknown = run("formats", "try", put("a.json", {"alert_id": 1, "alert_transiton": "Triggered"}))
    wrong = run(
        "formats", "try", put("b.json", {"rule": "x", "output": "y", "priority": "odd"}), "--as", "falco"
    )
    no_format = run("formats", "try", "a.json", "--as", "nothing")
    no_file = run("formats", "try", "missing.json")

    assert unknown.exit_code == 1 and "The nearest format is 'datadog'" in unknown.stderr
    assert wrong.exit_code == 1 and "priority: expected one of emergency" in wrong.stderr
    assert no_format.exit_code == 2 and "llm-im formats list" in no_format.stderr
    assert no_file.exit_code == 2 and "can't read missing.json" in no_file.stderr


def test_try_goes_by_the_mappings_of_the_settings() -> None:
    Path("llm-im.toml").write_text(
        '[[formats.mappings]]\nname = "ours"\nwhen = "kind"\nalertname = "kind"\nservice = "app"\nstatus = "state"\n'
    )
    body = put("a.json", {"kind": "Down", "app": "rag", "state": "ok"})

    by_shape, by_name = (
        json.loads(run("formats", "try", body, *more, "--json").stdout) for more in ((), ("--as", "ours"))
    )

    assert by_shape == by_name
    assert (by_name["format"], by_name["alerts"][0]["status"]) == ("mapped", "resolved")
