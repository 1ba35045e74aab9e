"""`llm-im playbooks validate|dry-run|simulate|schema`: no system runs here, but for an incident that is asked for by its id."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from models.playbook import fields
from models.playbook.budget import STEPS_MAX, TEXT_MAX
from models.playbook.document import CHARS_MAX, DEPTH_MAX, NODES_MAX
from models.playbook.schema import schema
from models.playbook.template import SOURCE_MAX
from tests.cli.conftest import Run
from tests.cli.incident_server import IncidentServer, identity
from tests.cli.incident_server import incident as incident_of

ROOT = Path(__file__).resolve().parents[2]
APPENDIX_B = str(ROOT / "tests" / "data" / "playbooks" / "appendix-b.yaml")
WRONG = "name: a\nversion: 1\nsteps:\n  - {id: b, type: remediation, actions: [{type: service_restrt}]}\n"
ODD = "name: odd\nversion: 1\nsteps:\n  - {id: a, type: diagnosis, needs: [], actions: [{type: comment, text: '{{ incident.titel }}'}]}\n"


def parent(name: str, child: str) -> str:
    return f"name: {name}\nversion: 1\nsteps:\n  - {{id: a, type: playbook, playbook: {child}}}\n"


@pytest.fixture
def incident(elsewhere: Path) -> str:
    Path("incident.json").write_text(
        json.dumps(
            {
                "id": "019ab000", "title": "API down", "severity": "P0", "incident_type": "Infrastructure", "service": "llm-api",
                "labels": {"service": "llm-api"}, "annotations": {"health_url": "https://llm-api.example/health"}, "assignees": ["ann"],
            }
        )
    )  # fmt: skip
    return "incident.json"


def test_validate_says_of_each_playbook_whether_it_is_all_right(run: Run) -> None:
    done = run("playbooks", "validate", str(ROOT / "playbooks"), APPENDIX_B)

    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 11
    assert (
        done.stdout.splitlines()[-1]
        == f"{APPENDIX_B}: Critical Infrastructure Failure Response 1.0.0 is all right"
    )


def test_validate_tells_mistakes_with_their_lines(run: Run) -> None:
    Path("wrong.yaml").write_text(WRONG)

    done = run("playbooks", "validate", "wrong.yaml", APPENDIX_B)
    told = json.loads(run("playbooks", "validate", "wrong.yaml", "--json").stdout)

    expected = "wrong.yaml:4: step b, action 1, type: there is no action 'service_restrt'; did you mean 'service_restart'?"
    assert (done.exit_code, done.stdout.splitlines()[0]) == (1, expected)
    assert told == [{"file": "wrong.yaml", "errors": [expected], "warnings": []}]


def test_validate_warns_of_what_the_settings_do_not_know(run: Run) -> None:
    Path("some.yaml").write_text(
        "name: some\nversion: 1\nsteps:\n  - id: fix\n    type: remediation\n    actions:\n"
        "      - {type: service_restart, service: billing}\n"
        "      - {type: service_restart, service: api-1}\n"
        "      - {type: script, script: dump}\n"
        "      - {type: webhook, message: x, receiver: nobody}\n"
        "      - {type: webhook, message: x, receiver: ops}\n"
        "      - {type: slack, message: x}\n"
    )
    Path("some.toml").write_text(
        '[notify.route]\nreceivers = ["ops"]\n[notify.receivers.ops]\ntype = "webhook"\nurl = "http://ops.internal/"\n'
        '[playbooks.services."api-*"]\nby = "http"\nurl = "http://deploy.internal/{action}"\n'
    )

    done = run("playbooks", "validate", "some.yaml", "--config", "some.toml", "--json")

    assert json.loads(done.stdout)[0]["warnings"] == [
        "some.yaml: step fix, action 1, service: the settings know no service 'billing' (playbooks.services)",
        "some.yaml: step fix, action 3, script: the settings allow no script 'dump'",
        "some.yaml: step fix, action 4, receiver: the settings have no webhook receiver 'nobody' (there are: ops)",
        "some.yaml: step fix, action 6, slack: the settings have no receiver of type slack",
    ]
    assert done.exit_code == 0
    assert run("playbooks", "validate", "some.yaml", "--config", "some.toml", "--strict").exit_code == 1


def test_validate_reads_stdin(run: Run) -> None:
    done = run("playbooks", "validate", "-", stdin=WRONG)

    assert (done.exit_code, done.stdout.partition(":")[0]) == (1, "stdin")


def test_warnings_are_no_mistakes_unless_one_says_so(run: Run) -> None:
    Path("odd.yaml").write_text(ODD)

    assert run("playbooks", "validate", "odd.yaml").exit_code == 0
    done = run("playbooks", "validate", "odd.yaml", "--strict")
    assert (done.exit_code, "did you mean 'title'? (warning)" in done.stdout) == (1, True)


def test_validate_sees_playbooks_that_run_each_other(run: Run) -> None:
    Path("a.yaml").write_text(parent("one", "two"))
    Path("b.yaml").write_text(parent("two", "one"))
    Path("c.yaml").write_text(parent("three", "thre"))

    done = run("playbooks", "validate", "a.yaml", "b.yaml", "c.yaml")

    assert done.exit_code == 1
    assert "a.yaml: playbooks run each other in a circle: one -> two -> one" in done.stdout
    assert "c.yaml: playbook 'thre' is not among these files; did you mean 'three'? (warning)" in done.stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("validate", "missing.yaml"), 5),
        (("validate", "."), 5),
        (("simulate", "missing.yaml"), 5),
        (("validate",), 2),
    ],
)
def test_what_is_not_there_is_said(run: Run, words: tuple[str, ...], code: int) -> None:
    done = run("playbooks", *words)

    assert done.exit_code == code
    assert "Traceback" not in done.output


def test_a_file_that_is_not_text_is_said(run: Run) -> None:
    Path("bytes.yaml").write_bytes(b"name: \xff\xfe\n")

    done = run("playbooks", "validate", "bytes.yaml")

    assert (done.exit_code, done.stdout) == (1, "bytes.yaml: not UTF-8\n")


def test_simulate_shows_the_path_when_actions_fail(run: Run) -> None:
    fails = (
        "--fail",
        "automated_remediation.health_check",
        "--fail",
        "automated_remediation.service_restart",
    )

    done = run("playbooks", "simulate", APPENDIX_B, *fails)
    told = json.loads(run("playbooks", "simulate", APPENDIX_B, *fails, "--json").stdout)

    assert done.exit_code == 0
    assert "failed, goes on with escalate (service_restart: as told)" in done.stdout
    steps = [(line["step"], line["what"]) for line in told["path"]]
    assert ("escalate", "severity_increase succeeded") in steps
    assert not any(step == "resolve" and "incident_resolve" in what for step, what in steps)
    assert told["path"][-1]["status"] == "failed"


def test_simulate_names_the_nearest_action(run: Run) -> None:
    done = run("playbooks", "simulate", APPENDIX_B, "--fail", "automated_remediation.health_chek")

    assert done.exit_code == 1
    assert "did you mean 'automated_remediation.health_check'?" in done.stderr


def test_dry_run_shows_what_each_action_would_be_given(run: Run, incident: str) -> None:
    done = run("playbooks", "dry-run", APPENDIX_B, "--incident", incident)
    told = json.loads(run("playbooks", "dry-run", APPENDIX_B, "--incident", incident, "--json").stdout)

    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == (
        "Critical Infrastructure Failure Response 1.0.0 is chosen: severity P0, type Infrastructure"
    )
    given = {line["what"]: line["params"] for line in told["path"] if "params" in line}
    assert given["health_check"] == {
        "endpoint": "https://llm-api.example/health",
        "expect": 200,
        "timeout": "30s",
    }
    assert given["pagerduty"]["message"] == "API down"
    assert told["chosen"] is True


def test_dry_run_says_what_cannot_be_known(run: Run, incident: str) -> None:
    Path(incident).write_text(Path(incident).read_text().replace("health_url", "helth_url"))

    done = run("playbooks", "dry-run", APPENDIX_B, "--incident", incident)

    assert (
        "health_check: endpoint: template: there is no 'health_url'; did you mean 'helth_url'?" in done.stdout
    )


def test_dry_run_takes_an_incident_of_the_running_system(run: Run, incidents: IncidentServer) -> None:
    incidents.hold(incident_of(1, title="API slow"))

    done = run("playbooks", "dry-run", APPENDIX_B, "--incident", identity(1))

    assert done.exit_code == 0
    assert "message: API slow" in done.stdout


REPLAYED = """
name: heal
version: "{version}"
trigger: {{service: {service}}}
steps:
  - id: fix
    type: remediation
    actions:
      - type: service_restart
        {then}
      - type: comment
        text: restarted
"""


def test_replay_compares_a_version_with_the_one_applied_by_past_incidents(
    run: Run, incidents: IncidentServer
) -> None:
    for number, service in ((1, "api"), (2, "db")):
        incidents.hold(incident_of(number, service=service, labels={"service": service}))
    deed = {"number": 0, "action": "service_restart", "status": "failed", "undo": False}
    incidents.runs[identity(1)] = [
        {"playbook": "heal", "version": "1", "status": "failed", "shadow": False, "steps": [{"id": "fix", "actions": [deed]}]}
    ]  # fmt: skip
    incidents.playbooks["heal"] = REPLAYED.format(version=1, service="api", then="timeout: 60s")
    Path("new.yaml").write_text(
        REPLAYED.format(version=2, service="[api, db]", then="on_failure: next_action")
    )

    table = run("playbooks", "replay", "new.yaml", "--since", "2020-01-01T00:00:00Z")
    told = json.loads(
        run("playbooks", "replay", "new.yaml", "--since", "2020-01-01T00:00:00Z", "--json").stdout
    )

    assert table.exit_code == 0
    assert (
        "2 incidents: chosen for 2, not 1 (1 more, 0 fewer); 1 of the recorded runs would have ended otherwise"
        in table.stdout
    )
    by_service = {row["service"]: row for row in told["items"]}
    assert by_service["api"]["old"]["status"] == "failed"
    assert by_service["api"]["new"]["status"] == "succeeded"
    assert by_service["api"]["new"]["assumed"] == ["fix.comment"]
    assert by_service["db"]["old"] == {
        "chosen": False, "why": "service is db, not api", "version": "", "status": "",
    }  # fmt: skip
    assert by_service["db"]["new"]["assumed"] == ["fix.service_restart", "fix.comment"]


def test_replay_of_a_playbook_that_is_not_applied_says_so(run: Run, incidents: IncidentServer) -> None:
    incidents.hold(incident_of(1, service="api"))
    Path("new.yaml").write_text(REPLAYED.format(version=2, service="api", then="timeout: 60s"))

    done = run("playbooks", "replay", "new.yaml", "--since", "2020-01-01T00:00:00Z")

    assert done.exit_code == 0
    assert "THEN (not applied)" in done.stdout


def test_schema_is_printed(run: Run) -> None:
    done = run("playbooks", "schema")

    assert json.loads(done.stdout) == schema()


# -- what docs/playbooks.md shows --

DOCUMENT = (ROOT / "docs" / "playbooks.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", DOCUMENT, flags=re.DOTALL)


@pytest.fixture
def example(elsewhere: Path) -> str:
    Path("embedder.yaml").write_text(next(block for kind, block in BLOCKS if kind == "yaml"))
    return "embedder.yaml"


def test_the_worked_example_does_what_its_page_shows(run: Run, example: str) -> None:
    Path("incident.json").write_text(
        json.dumps(
            {
                "title": "No embeddings for 2 minutes", "severity": "P1", "service": "embedder",
                "annotations": {"health_url": "http://embedder.internal/health"},
            }
        )
    )  # fmt: skip
    mistakes, simulated, rehearsed = [block for kind, block in BLOCKS if not kind]
    fails = ("--fail", "repair.health_check", "--fail", "repair.service_restart")

    assert run("playbooks", "simulate", example, *fails).stdout == simulated
    assert run("playbooks", "dry-run", example, "--incident", "incident.json").stdout == rehearsed

    text = Path(example).read_text()
    Path(example).write_text(
        text.replace("service_restart", "service_restrat").replace(
            "repair.status == 'failed'", "repare.status == 'failed'"
        )
    )
    assert run("playbooks", "validate", example).stdout == mistakes


def test_every_field_is_on_the_page_and_every_bound_is_right() -> None:
    tables = (fields.PLAYBOOK, fields.TRIGGER, fields.STEP, fields.ACTION, fields.RETRY, fields.APPROVAL)
    missing = [
        field.name
        for table in tables
        for field in table
        if f"`{field.name}`" not in DOCUMENT and f"{field.name}:" not in DOCUMENT
    ]
    missing += [
        name
        for name in (*fields.STEP_TYPES, *fields.TARGETS, *fields.BACKOFFS)
        if f"`{name}`" not in DOCUMENT
    ]

    assert missing == []
    for bound in (SOURCE_MAX, TEXT_MAX, STEPS_MAX, CHARS_MAX, NODES_MAX, DEPTH_MAX):
        assert f"{bound:,} " in DOCUMENT
