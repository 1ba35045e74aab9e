"""What a person sees of `llm-im config`, and how `llm-im up` refuses what is not built. No system runs here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from models.errors import Refused
from models.settings.keys import KEYS
from services.cli.shared.exits import ExitCode
from services.cli.shared.where import loaded_of
from services.machine import launch
from services.settings.load import shards_here
from tests.cli.test_commands import StandIn, run, server, silent_url

__all__ = ["server"]
pytestmark = pytest.mark.usefixtures("elsewhere")

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "tests/data/config"
RELOAD = "/v1/config/reload"


def put(text: str) -> None:
    Path("llm-im.toml").write_text(text, "utf-8")


# check


def test_check_of_nothing_is_good() -> None:
    result = run("config", "check")

    assert (result.exit_code, result.stdout) == (
        0,
        "good            no file: 0 settings differ from the default\n",
    )


def test_check_lists_what_is_told_what_is_not_active_and_what_up_refuses() -> None:
    put(
        '[deployment]\nmode = "worker"\nworker_type = "ingestion"\n[state]\nbackend = "redb"\n[failover]\nenabled = true\n'
    )

    result = run("config", "check")

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "notice          llm-im.toml: state.backend: redb is not available here; SQLite is used instead",
        "not active yet  deployment: mode, worker_type",
        "not active yet  failover: enabled",
        'up refuses      deployment.mode = "worker": only "standalone" is built',
        "up refuses      failover.enabled = true: not built yet",
        "WRONG           llm-im.toml: 4 settings differ from the default",
    ]


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (
            'backend = "redis"\nredis.url = "redis://u:1#pass-word@h"',
            "state.redis.url: within user and password write",
        ),
        (
            'backend = "postgres"\npostgres.url = "postgresql://u:%pass-word@h/d"',
            "state.postgres.url: within user",
        ),
        ('backend = "postgres"', "state.postgres.url: required"),
    ],
)
def test_check_of_what_up_could_never_start_with_is_1_and_up_says_where_it_was_said(
    state: str, says: str
) -> None:
    put(f"[state]\n{state}\n")

    checked, for_programs, started = run("config", "check"), run("config", "check", "--json"), run("up")

    assert (checked.exit_code, for_programs.exit_code, started.exit_code) == (1, 1, 1)
    assert f"up refuses      {says}" in checked.stdout and "WRONG" in checked.stdout
    assert says in json.loads(for_programs.stdout)["up_refuses"][0]
    assert ("llm-im.toml: " if "pass-word" in state else "default: ") + says in started.stderr
    assert "pass-word" not in checked.output + for_programs.output + started.output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[deployment]\nmode = "ha"', 'deployment.mode = "ha": only "standalone" is built'),
        ('[server]\nhttp_host = "0.0.0.0"', "server.http_host 0.0.0.0 can be reached from other machines, and no API token exists yet"),
        ('[server]\nhttp_host = "0.0.0.0"\n[auth]\nrequired = false', "auth.required = false lets everyone in"),
        ('[state]\nbackend = "redis"', "state.redis.url: required"),
    ],
)  # fmt: skip
def test_check_and_up_judge_alike(text: str, says: str) -> None:
    put(f"{text}\n")

    checked, started = run("config", "check"), run("up")

    assert (checked.exit_code, started.exit_code) == (1, 1)
    assert says in checked.stdout and says in started.stderr


def test_up_tells_all_that_it_refuses_at_once() -> None:
    put('[server]\nhttp_host = "0.0.0.0"\n[deployment]\nmode = "ha"\n')

    said = run("up").stderr.splitlines()

    assert len(said) == 3
    assert any("no API token exists yet" in line for line in said) and any(
        "standalone" in line for line in said
    )


def test_check_knows_whether_there_is_a_token() -> None:
    put('[server]\nhttp_host = "0.0.0.0"\n')
    before = run("config", "check")
    run("tokens", "create", "admin", "--scope", "admin", "--local")

    after = run("config", "check")

    assert (before.exit_code, after.exit_code) == (1, 0), after.output
    assert "tokens create admin --scope admin --local" in before.stdout


def test_check_says_what_it_could_not_look_at() -> None:
    put('[server]\nhttp_host = "0.0.0.0"\n[state]\nbackend = "redis"\nredis.url = "redis://127.0.0.1:1"\n')

    result = run("config", "check")

    assert result.exit_code == 0
    assert "not checked     whether there is an API token" in result.stdout


def test_several_mistakes_are_told_one_a_line() -> None:
    put('[server]\nhtp_port = 1\nhttp_host = 5\n[lifecycle]\nretention = "soon"\n')

    result = run("config", "check")

    assert result.exit_code == 1
    assert [line.split(": ")[0] + ": " + line.split(": ")[1] for line in result.stderr.splitlines()[1:]] == [
        "  llm-im.toml: server.htp_port", "  llm-im.toml: server.http_host", "  llm-im.toml: lifecycle.retention"]  # fmt: skip
    assert result.stderr.splitlines()[0] == "llm-im: 3 settings are wrong:"


def test_check_for_programs() -> None:
    result = run("config", "check", str(SAMPLES / "standalone.toml"), "--json")

    said = json.loads(result.stdout)
    assert (said["set"], said["not_active"], said["up_refuses"]) == (
        5,
        [],
        [],
    )
    assert len(said["notices"]) == 2


def test_check_of_a_mistake_is_1_and_says_it_on_stderr() -> None:
    put("[server]\nhtp_port = 1\n")

    result = run("config", "check")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "llm-im: llm-im.toml: server.htp_port: there is no such setting; did you mean server.http_port?\n"
    )


# show


def test_show_has_every_value_and_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    put("[server]\ngateways = 3\n")
    monkeypatch.setenv("LLM_IM_NOTIFY__WAIT__P2", "1m")

    result = run("config", "show", "--port", "81")

    rows = {line.split("  ")[0]: line.split() for line in result.stdout.splitlines()}
    assert rows["server.http_port"] == ["server.http_port", "81", "--port"]
    assert rows["server.gateways"] == ["server.gateways", "3", "llm-im.toml"]
    assert rows["notify.wait.P2"] == ["notify.wait.P2", '"1m"', "LLM_IM_NOTIFY__WAIT__P2"]
    assert rows["state.partitions"] == ["state.partitions", str(shards_here()), "default"]
    assert {key.name for key in KEYS.values() if not key.is_later} < {*rows}


def test_show_of_what_is_changed_leaves_defaults_out() -> None:
    put("[server]\ngateways = 3\n[sidecar]\nlocal_only = true\n")

    result = run("config", "show", "--changed", "--json")

    assert json.loads(result.stdout) == [
        {"key": "server.gateways", "value": 3, "source": "file", "where": "llm-im.toml", "active": True,
         "changes_by": "restart"},
        {"key": "sidecar.local_only", "value": True, "source": "file", "where": "llm-im.toml", "active": False,
         "changes_by": "restart"},
    ]  # fmt: skip


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_show_masks_secrets(form: list[str]) -> None:
    put(
        '[notify.webhook]\nurl = "https://example.org/s3cr3t"\n[state]\nconnection_string = "postgresql://u:s3cr3t@h/d"\n'
    )

    result = run("config", "show", *form)

    assert result.output.count("********") == 2
    assert "s3cr3t" not in result.output


def test_show_tells_other_names_as_notices_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYMENT_MODE", "ha")

    result = run("config", "show")

    assert result.stderr == "notice: DEPLOYMENT_MODE is read as deployment.mode\n"
    assert "DEPLOYMENT_MODE (not active yet)" in result.stdout


def test_text_that_would_steer_a_terminal_is_shown_plain() -> None:
    put('[telemetry]\nservice_name = "\\u001b[2J"\n')

    assert "\x1b" not in run("config", "show").output


# schema


def test_the_schema_is_a_json_schema_that_describes_every_setting() -> None:
    schema = json.loads(run("config", "schema").stdout)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$defs"]["Server"]["properties"]["hold"]["description"]
    assert schema["$defs"]["Lifecycle"]["properties"]["reopen_window"]["x-reload"] is True
    assert schema["$defs"]["Sidecar"]["x-not-active-yet"] is True


def test_the_schema_as_markdown_is_what_the_documentation_has() -> None:
    assert run("config", "schema", "--markdown").stdout in (ROOT / "docs/configuration.md").read_text("utf-8")


# reload


def test_reload_sends_what_is_in_force_without_secrets_and_says_what_changed(server: StandIn) -> None:
    put('[notify.webhook]\nurl = "https://example.org/s3cr3t"\n[notify.wait]\nP2 = "1m"\n')
    server.answers[RELOAD] = [(200, {"changed": [{"key": "notify.wait.P2", "before": "30s", "after": "1m"}]})]

    result = run("config", "reload", "--url", server.url)

    assert result.exit_code == 0, result.output
    assert result.stdout == (
        'notify.wait.P2: "30s" -> "1m"\n1 setting changed; every process uses it within about 2 s\n'
    )
    [(path, body)] = server.asked
    sent = json.loads(body)
    assert path == RELOAD
    assert sent["notify"]["wait"]["P2"] == 60.0
    assert b"s3cr3t" not in body and sent["notify"]["webhook"]["url"].startswith("https://secret.invalid/")
    # Only `llm-im up` knows what its flags said.
    assert "path" not in sent["state"] and "http_port" not in sent["server"]


def test_reload_sends_what_the_file_or_a_flag_says_of_flags(server: StandIn, tmp_path: Path) -> None:
    put("[server]\nhttp_port = 81\n")
    server.answers[RELOAD] = [(200, {"changed": []})]

    result = run("config", "reload", "--url", server.url, "--data", "here")

    sent = json.loads(server.asked[0][1])
    assert result.stdout == "nothing to change: the system already runs with these settings\n"
    assert (sent["state"]["path"], sent["server"]["http_port"]) == (str(tmp_path / "here"), 81)


def test_reload_that_is_refused_tells_the_reason(server: StandIn) -> None:
    server.answers[RELOAD] = [(409, {"detail": "server.gateways: changed, and that needs a restart"})]

    result = run("config", "reload", "--url", server.url)

    assert result.exit_code == ExitCode.CONFLICT
    assert result.stderr == (
        f"llm-im: {server.url} answered 409: server.gateways: changed, and that needs a restart\n"
    )


def test_reload_without_the_control_partition_is_4_and_where_nothing_runs_3(server: StandIn) -> None:
    server.answers[RELOAD] = [(503, {"detail": "control-a is away"})]

    assert run("config", "reload", "--url", server.url).exit_code == 4
    assert run("config", "reload", "--url", silent_url()).exit_code == 3


def test_reload_of_a_mistake_sends_nothing(server: StandIn) -> None:
    put("[server]\nhttp_port = 0\n")

    assert run("config", "reload", "--url", server.url).exit_code == 1
    assert not server.asked


# up


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_up_starts_nothing_else_than_it_was_told(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def start(*_args: object, **_more: object) -> None:
        started.append(sample.stem)
        raise Refused("not in this test")

    monkeypatch.setattr(launch, "start_local", start)

    result = run("up", "--config", str(sample), "--data", str(tmp_path / "data"))

    assert result.exit_code == 1
    if sample.stem in ("standalone", "llm_shield"):
        assert started
        assert ("SQLite is used instead" in result.stderr) == (sample.stem == "standalone")
    else:
        assert not started
        assert (
            "nothing was started, because these settings can't be used or are not built yet:" in result.stderr
        )
        assert f"{sample}: " in result.stderr


def test_a_drill_tells_nobody_and_runs_no_playbook(tmp_path: Path) -> None:
    file = tmp_path / "llm-im.toml"
    file.write_text("[playbooks]\nenabled = true\n")

    loaded = loaded_of(file, no_notify=True)

    assert (loaded.settings.notify.enabled, loaded.settings.playbooks.enabled) == (False, False)
    assert loaded_of(file).settings.playbooks.enabled


def test_the_reference_is_written_between_its_marks(tmp_path: Path) -> None:
    document = tmp_path / "doc.md"
    document.write_text(
        "before\n<!-- from models/settings/ by `make docs`; change it there -->\nold\n<!-- to here -->\nafter\n"
    )

    subprocess.run([sys.executable, "-m", "services.settings.reference", str(document)], cwd=ROOT, check=True)

    text = document.read_text()
    assert text.startswith("before\n<!-- from") and text.endswith("<!-- to here -->\nafter\n")
    assert "\nold\n" not in text and "| `http_port` | `8080` |" in text
