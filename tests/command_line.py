"""`llm-im`, typed in this process, beside a system that may run in it too: a process of its own takes 0.7 s to import what it needs.

    run = CommandLine(f"http://127.0.0.1:{port}", "silences")
    assert "no matching silences" in await run("list")
    refused = await run("add", "service=api", code=6)

A process is for what a process has: a terminal, signals, an exit while somebody reads, two commands at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
import typer.main
import typer.testing
from typer.testing import CliRunner

from services.cli.main import app

#: stdout, stdin and the environment are the process's: one command at a time.
_ONE = threading.Lock()


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str


class CommandLine:
    """Commands that begin with `first`, against the server at `url`."""

    def __init__(self, url: str, *first: str, **environment: str) -> None:
        self._first = first
        self._environment = {"LLM_IM_URL": url, **environment}

    async def __call__(self, *words: str, code: int = 0, stdin: str = "") -> str:
        """What it says on stdout, and then on stderr; it must end with this code."""
        said = await self.said(*words, stdin=stdin)
        assert said.code == code, (words, said)
        return said.out + said.err

    async def said(self, *words: str, stdin: str = "") -> Said:
        return await asyncio.to_thread(self._type, words, stdin)

    async def json(self, *words: str, stdin: str = "") -> Any:
        return json.loads(await self(*words, "--json", stdin=stdin))

    def _type(self, words: tuple[str, ...], stdin: str) -> Said:
        with _ONE, _log_lines_elsewhere(), built_once():
            others: dict[str, str | None] = {name: None for name in os.environ if name.startswith("LLM_IM_")}
            typed = CliRunner().invoke(
                app,
                [*self._first, *words],
                input=stdin,
                prog_name="llm-im",
                env={**others, **self._environment},
            )
        if isinstance(typed.exception, Exception):
            raise typed.exception
        return Said(typed.exit_code, typed.stdout, typed.stderr)


@contextlib.contextmanager
def _log_lines_elsewhere() -> Iterator[None]:
    """What the system logs meanwhile is no part of what the command says."""
    before = structlog.get_config()["logger_factory"]
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.__stderr__))
    try:
        yield
    finally:
        structlog.configure(logger_factory=before)


#: Typer reads all our functions anew for each run, 60 ms; what it makes of them keeps nothing of a run.
_built = functools.cache(typer.main.get_command)


@contextlib.contextmanager
def built_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", _built)
        yield
