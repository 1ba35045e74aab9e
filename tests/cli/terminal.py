"""`llm-im` in a pseudo-terminal, as a person runs it: what they see, what they type, Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: The longest that anything may take unless a test says otherwise; machines under test are busy.
PATIENCE_S = 30.0
#: Colours and movements that rich writes.
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """One command in a terminal of its own; `seen` is all that it wrote."""

    def __init__(
        self,
        *words: str,
        columns: int = 100,
        lines: int = 40,
        piped: Sequence[str] = (),
        command: Sequence[str] = (),
        patience_s: float = PATIENCE_S,
        **env: str,
    ) -> None:
        self.patience_s = patience_s
        command = [*command] or [sys.executable, "-m", "services.cli", *words]
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # A test run that a shell put into the background ignores SIGINT, and would hand that on.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            if piped:
                read, write = os.pipe()
                os.write(write, "\n".join(piped).encode())
                os.close(write)
                os.dup2(read, 0)
            # Not execv: readline, which pytest imports, puts COLUMNS and LINES into the environment behind Python's back.
            os.execve(
                command[0], command, {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **env}
            )

    def until(self, text: str) -> str:
        """Read until `text` was written."""
        limit = time.monotonic() + self.patience_s
        while text not in self.plain:
            assert time.monotonic() < limit, f"{text!r} never came: {self.seen!r}"
            assert self._read(0.1) is not None, f"it ended without {text!r}: {self.seen!r}"
        return self.plain

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self) -> int:
        """Read all that is left; the exit code."""
        limit = time.monotonic() + self.patience_s
        while self._read(0.1) is not None:
            assert time.monotonic() < limit, f"it does not end: {self.seen!r}"
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)

    @property
    def plain(self) -> str:
        """What is read, without colours."""
        return ESCAPE.sub("", self.seen).replace("\r\n", "\n")

    def _read(self, wait_s: float) -> str | None:
        if not select.select([self.fd], [], [], wait_s)[0]:
            return ""
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: the other side is closed
            return None
        if not data:
            return None
        self.seen += data.decode("utf-8", "replace")
        return self.seen
