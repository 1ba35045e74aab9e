"""Our own system for a benchmark: started by `llm-im up` in a fresh folder, ended by `llm-im down`; and what a
benchmark writes when it is no comparison. Used by the benchmarks that kill, restart or fill it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.harness import RESULTS, ROOT, commit, machine
from benchmarks.peers import free_port

UP_TIMEOUT_S = 180


@dataclass(frozen=True, slots=True)
class Own:
    """A running system of ours."""

    url: str
    data: Path
    environment: dict[str, str]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def cli(self, *words: str) -> str:
        """Run `llm-im` beside it; its output. Raises CalledProcessError."""
        done = subprocess.run(
            [sys.executable, "-m", "services.cli", *words, "--data", str(self.data)],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=UP_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"llm-im {' '.join(words)}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
        return done.stdout

    def up(self) -> float:
        """Start it (again); seconds until `llm-im up` returned."""
        begun = time.monotonic()
        self.cli("up", "--port", str(self.port))
        return time.monotonic() - begun


@contextmanager
def own(**settings: str) -> Iterator[Own]:
    """A system of ours in a temporary folder. `settings` as environment names without prefix: STATE__PARTITIONS="4"."""
    folder = Path(tempfile.mkdtemp(prefix="llm-im-bench-"))
    environment = {**os.environ, **{f"LLM_IM_{name}": value for name, value in settings.items()}}
    system = Own(f"http://127.0.0.1:{free_port()}", folder / "var", environment)
    # `timeout` and a closed terminal end what they started too, not only this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        system.up()
        yield system
    finally:
        system.cli("down")
        shutil.rmtree(folder, ignore_errors=True)


def write(name: str, cells: list[dict[str, object]], folder: Path = RESULTS) -> None:
    """`<folder>/<name>.json` with machine, commit and date, and the same as one line on stdout."""
    document = {
        "name": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **commit(),
        "machine": machine(),
        "cells": cells,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document), flush=True)


def say(text: str) -> None:
    """A line for a person; stdout is for programs."""
    print(text, file=sys.stderr, flush=True)
