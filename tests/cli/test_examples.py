"""Every command that docs/cli.md and the help texts show does what it says, against a server."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from services.cli.main import app
from tests.cli.conftest import Run
from tests.cli.incident_server import IncidentServer, incident

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "cli.md").read_text("utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
#: What the documents call incidents: the server holds them under these ids.
NAMED = (
    "01994f3a-7c11-7a2b-8c3d-4e5f60718293",
    "01994f3a-7c11-7a2b-8c3d-7a2b8c3d4e5f",
    "01994f3a-7c11-7a2b-8c3d-8c3d4e5f6071",
)
#: About a system of this machine, or what this server has not: their words are read here, tests of their own act on them.
ELSEWHERE = ("up", "down", "log", "store", "backup", "tokens", "config", "silences", "formats")


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
    for name in ("prod", "laptop"):
        run("context", "add", name, "--url", incidents.url, "--force")
    (elsewhere / "config" / "llm-im" / "contexts.toml").chmod(0o600)


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
        if words[0] != "llm-im":
            given = '{"labels": {"alertname": "X"}}\n'
            continue
        if words[1] in ELSEWHERE:
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
        assert result.exit_code == 0, result.output
        given = result.stdout
