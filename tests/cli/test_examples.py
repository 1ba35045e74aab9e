"""Every command that docs/cli.md and the help texts show does what it says, against a server."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from models.settings.all import Settings
from services.cli.main import app
from tests.cli.conftest import Run
from tests.cli.incident_server import IncidentServer, incident
from tests.cli.response_answers import run_of

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
DOCUMENT = (ROOT / "docs" / "cli.md").read_text("utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
#: What the documents call incidents: the server holds them under these ids.
NAMED = (
    "01994f3a-7c11-7a2b-8c3d-4e5f60718293",
    "01994f3a-7c11-7a2b-8c3d-7a2b8c3d4e5f",
    "01994f3a-7c11-7a2b-8c3d-8c3d4e5f6071",
)
#: What they call a run, which waits for an approval, and the playbook that it runs.
RUN = "01994f3b-20d4-7a2b-8c3d-a91c07d2e5b4"
BOOK = """
name: restart-api
version: "1"
steps:
  - {id: ask, type: approval, approval: {within: 1h}}
  - {id: fix, type: remediation, actions: [{type: service_restart, service: llm-api}]}
"""
#: About a system of this machine, or what this server has not: their words are read here, tests of their own act on them.
ELSEWHERE = (
    "up",
    "down",
    "log",
    "store",
    "backup",
    "tokens",
    "config",
    "silences",
    "formats",
    "edge",
    "heartbeats",
    "ingest",
    "people",
    "oncall",
    "escalation",
    "analytics",
    "situations",
    "topology",
    "learn",
)
#: The same of single commands.
ELSEWHERE_TOO = (["incidents", "report"], ["incidents", "export"])
#: Of those, what needs no system.
HERE = (["config", "import-alertmanager"],)
#: By its beginning, what an example must say (in one line), and its exit code where that is an answer of its own (docs/cli.md).
ANSWERS = {
    "": ("", 0),
    "llm-im policy test --incident incident.json --action rollback --policy incidents.rego": (
        "needs approval",
        6,
    ),
    "llm-im policy test --incident incident.json --action rollback --approved-by": (
        "allowed a known repair",
        0,
    ),
    "llm-im policy test --incident incident.json --action scale": ("allowed policy none is configured", 0),
    "llm-im routes show": ("urgent: severity P0 or P1 -> pager", 0),
    "llm-im routes test": ("boss is told as well if nobody acknowledges it in time", 0),
    "llm-im notify receivers": ("ops (slack): root, vector stores, rest", 0),
    "llm-im notify test": ("ops took it: ", 0),
    "llm-im notify resend": ("told again", 0),
    "llm-im playbooks validate": ("", 0),
    "llm-im playbooks dry-run": ("run succeeded", 0),
    "llm-im playbooks dry-run embedder.yaml --incident incident.json --fail": (
        "health_check failed: as told",
        0,
    ),
    "llm-im playbooks dry-run critical.yaml --incident incident.json --fail": (
        "health_check failed: as told",
        0,
    ),
    "llm-im playbooks dry-run critical.yaml": ("service_restart skipped: not needed", 0),
    "llm-im playbooks simulate critical.yaml --fail": ("tries again (try 2)", 0),
    "llm-im playbooks simulate failover.yaml --fail": ("not approved within 300 s", 0),
    "llm-im playbooks schema": ('"$schema"', 0),
    "llm-im playbooks apply": ("Provider outage, failover to another model 1.0.0 applied: shadow", 0),
    "llm-im playbooks list": ("restart-api", 0),
    "llm-im playbooks show": ("type: service_restart", 0),
    "llm-im playbooks remove": ("restart-api removed", 0),
    "llm-im playbooks run": ("runs restart-api running", 0),
    "llm-im playbooks pause restart-api": ("restart-api is paused", 0),
    "llm-im playbooks pause a91c07d2e5b4": ("paused: restart-api paused", 0),
    "llm-im playbooks resume restart-api": ("restart-api is active", 0),
    "llm-im playbooks resume a91c07d2e5b4": ("goes on: restart-api running", 0),
    "llm-im playbooks cancel": ("restart-api cancelled", 0),
    "llm-im playbooks approve": ("approved: restart-api running", 0),
    "llm-im playbooks deny": ("denied: restart-api failed", 0),
    "llm-im playbooks history a91c07d2e5b4 --capture": ("line 2", 0),
    "llm-im playbooks history": ("waiting", 0),
    "llm-im playbooks stats": ("restart-api", 0),
    "llm-im config import-alertmanager": ("", 0),
}


def helped(group: Any) -> Iterator[str]:
    """The examples of every help text."""
    for command in group.commands.values():
        if hasattr(command, "commands"):
            yield from helped(command)
        for line in (command.help or "").splitlines():
            if "llm-im " in line and not line.strip().endswith("."):
                yield line.strip()


EXAMPLES = sorted({line for block in BLOCKS for line in block.splitlines() if line.strip()}
                  | set(helped(typer.main.get_command(app))))  # fmt: skip


@pytest.fixture(autouse=True)
def world(incidents: IncidentServer, elsewhere: Path, run: Run) -> None:
    incidents.hold(
        incident(1, id=NAMED[0]),
        incident(2, id=NAMED[1], state="Resolved", service="llm-api"),
        incident(3, id=NAMED[2], severity="P4"),
    )
    for number in range(3):
        incidents.tell(f"c{number}", 1, "something", of=NAMED[0])
    (elsewhere / "alerts.ndjson").write_text('{"labels": {"alertname": "X"}}\n')
    respond(incidents)
    put_files(elsewhere)
    for name in ("prod", "laptop"):
        run("context", "add", name, "--url", incidents.url, "--force")
    (elsewhere / "config" / "llm-im" / "contexts.toml").chmod(0o600)
    Path("my.toml").write_text("[playbooks]\nenabled = true\n")


def respond(incidents: IncidentServer) -> None:
    """The receivers and routes of docs/notifications.md, and a run that waits for an approval."""
    settings = tomllib.loads(first_block("notifications.md", "toml"))
    settings["notify"]["webhook"] = {"url": "https://example.org/hook"}
    response = incidents.response
    response.settings = Settings.model_validate(settings)
    response.apply(BOOK)
    response.runs[RUN] = run_of("restart-api", incidents.incidents[NAMED[0]], RUN)


def put_files(folder: Path) -> None:
    """The files that examples name."""
    books = shutil.copytree(ROOT / "playbooks", folder / "playbooks")
    shutil.copy(books / "critical-infrastructure-failure.yaml", folder / "critical.yaml")
    shutil.copy(books / "provider-outage-failover.yaml", folder / "failover.yaml")
    (folder / "embedder.yaml").write_text(first_block("playbooks.md", "yaml"))
    seen = incident(
        1, service="embedder", labels={"environment": "prod"}, annotations={"health_url": "http://embedder.internal/health"}
    )  # fmt: skip
    (folder / "incident.json").write_text(json.dumps(seen))
    (folder / "incidents.jsonl").write_text('{"title": "Quota exhausted", "severity": "P0"}\n')
    for name in ("incidents.rego", "data.json"):
        shutil.copy(DATA / "policies" / name, folder)
    shutil.copy(DATA / "alertmanager" / "configs" / "small.yml", folder / "alertmanager.yml")


def first_block(document: str, language: str) -> str:
    text = (ROOT / "docs" / document).read_text("utf-8")
    found = re.search(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_there_are_examples_of_every_command() -> None:
    shown = "\n".join(EXAMPLES)

    def names(group: Any, prefix: str) -> Iterator[str]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from names(command, f"{prefix} {name}")
            else:
                yield f"{prefix} {name}"

    assert not [name for name in names(typer.main.get_command(app), "llm-im") if name not in shown]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:50])
def test_a_shell_reads_it(block: str) -> None:
    done = subprocess.run(["bash", "-n", "-c", block], capture_output=True, text=True, check=False)

    assert done.stderr == ""


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_works(run: Run, incidents: IncidentServer, elsewhere: Path, example: str) -> None:
    given: str | None = None
    for part in re.sub(r"source <\((.*)\)", r"\1", example).split(" | "):
        words = shlex.split(part.partition(" > ")[0])
        if "<" in words:
            words, given = words[:-2], (elsewhere / words[-1]).read_text("utf-8")
        if words[0] != "llm-im":
            given = '{"labels": {"alertname": "X"}}\n'
            continue
        if words[1:3] in ELSEWHERE_TOO or (words[1] in ELSEWHERE and words[1:3] not in HERE):
            command: Any = typer.main.get_command(app)
            rest = words[1:]
            while hasattr(command, "commands"):
                command, rest = command.commands[rest[0]], rest[1:]
            command.make_context(words[1], rest)
            return
        if words[1:3] == ["incidents", "watch"] and "-n" not in words:
            words += ["-n", "1"]
        if "--where" in words and "--dry-run" not in words:
            words += ["--yes"]  # a person is asked
        if words[1:3] == ["context", "add"]:
            words += ["--force"]
        result = run(*words[1:], stdin=given)
        said, code = ANSWERS[max((each for each in ANSWERS if example.startswith(each)), key=len, default="")]
        assert (result.exit_code, said in " ".join(result.stdout.split())) == (code, True), result.output
        given = result.stdout


def test_a_reason_that_nobody_keeps_is_told(run: Run) -> None:
    of_playbook = run("playbooks", "pause", "restart-api", "--reason", "x")
    of_run = run("playbooks", "pause", RUN, "--reason", "x")

    assert (of_playbook.exit_code, "restart-api is paused" in of_playbook.stdout) == (0, True)
    assert "--reason is not kept" in of_playbook.stderr and not of_run.stderr
