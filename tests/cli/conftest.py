"""What the tests of the command line share: a folder and an environment of their own, a server, a way to run it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.cli.main import app
from tests.cli.incident_server import IncidentServer, serving
from tests.command_line import built_once

Run = Callable[..., Result]


@pytest.fixture(autouse=True, scope="session")
def _commands_are_built_once() -> Iterator[None]:
    with built_once():
        yield


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, no contexts and none of our variables: what the tester's shell has set must not matter."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("LLM_IM_", "RAY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LOGNAME", "alice")
    return tmp_path


@pytest.fixture
def incidents() -> Iterator[IncidentServer]:
    """A server with no incidents yet."""
    with serving() as made:
        yield made


@pytest.fixture
def run(incidents: IncidentServer, elsewhere: Path) -> Run:
    """`llm-im` with these words, against the server."""

    def called(*words: str, stdin: str | None = None, **env: str) -> Result:
        return CliRunner().invoke(
            app, list(words), input=stdin, prog_name="llm-im", env={"LLM_IM_URL": incidents.url, **env}
        )

    return called
