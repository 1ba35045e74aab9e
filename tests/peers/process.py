"""A test peer in a process of its own, which can be killed and started again. It reads what it is to say from a file, and writes what
it heard to another: both outlive it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.peers.collecting import until
from tests.peers.lines import read_lines
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


class Peer:
    """`module` is run with a port, the folder, and `more`. It writes a line into `heard` for what it hears, the first one once it
    listens."""

    def __init__(self, module: str, folder: Path, *more: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self._module = module
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None
        self.heard_file.touch()
        self.says_file.touch()

    @property
    def says_file(self) -> Path:
        return self.folder / "says.jsonl"

    @property
    def heard_file(self) -> Path:
        return self.folder / "heard.jsonl"

    def says(self, *messages: dict[str, Any]) -> None:
        with self.says_file.open("a") as file:
            file.writelines(f"{json.dumps(each)}\n" for each in messages)

    @property
    def heard(self) -> list[dict[str, Any]]:
        """What it heard in all its lives; a last line that is not whole yet is left out."""
        return read_lines(self.heard_file)

    async def start(self) -> None:
        lives = self._lives()
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, str(self.port), str(self.folder), *self._more],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        await until(lambda: self._lives() > lives, (self.folder / "log").read_text)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _lives(self) -> int:
        return sum("listens" in each for each in self.heard)

    async def __aenter__(self) -> Peer:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.kill()
