"""Where the lines of services/machine/logs.py go in an instance of ours: one file of the data folder for all its processes, of bounded
size. And the bound on what dead processes leave in Ray's own folder of logs, which Ray has none for.

A file of our own and not stderr: Ray passes that through a pipe once it rotates, and what is in the pipe when a process is
killed is lost, the very lines that say why.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
import threading
from pathlib import Path

#: The environment variable that names the file; absent where others keep our stderr.
FILE_VARIABLE = "LLM_IM_INSTANCE_LOG"
#: Of the file, and of the one before it: some hundred thousand lines.
LOG_BYTES = 32 * 1024 * 1024
#: Files of ended processes kept in Ray's folder, of three or four a process. An actor that dies again and again leaves
#: 20 kB each time.
DEAD_FILES_KEPT = 100

_OF_PROCESS = re.compile(r"[-_](\d+)\.(?:log|out|err)(?:\.\d+)?$")


class LogFile:
    """A file that many processes append lines to. When it is full it becomes PATH.1, and a new one begins. What can't be
    written goes to stderr; write() never raises."""

    def __init__(self, path: Path, max_bytes: int = LOG_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._handle = -1
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        """A whole line; lines of several processes do not mix."""
        with self._lock:
            try:
                os.write(self._current(), text.encode("utf-8", "backslashreplace"))
            except OSError:
                with contextlib.suppress(OSError, ValueError):
                    (sys.__stderr__ or sys.stderr).write(text)

    def flush(self) -> None:
        """Nothing waits here."""

    def isatty(self) -> bool:
        return False

    def _current(self) -> int:
        if self._handle < 0 or not self._is_named():
            self._reopen()
        if os.fstat(self._handle).st_size >= self._max_bytes:
            # One of the processes moves it, the others find that it was moved.
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            if self._is_named():
                os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))
            self._reopen()
        return self._handle

    def _is_named(self) -> bool:
        """Whether the open file still bears the name."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._handle))
        except FileNotFoundError:
            return False

    def _reopen(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self._handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def sweep(folder: Path, kept: int = DEAD_FILES_KEPT) -> None:
    """Remove the oldest files of ended processes from Ray's folder of logs, and of Serve's below it, down to `kept` of each.
    Each process calls it when it starts, which is when files are added. Never raises."""
    for place in (folder, folder / "serve"):
        with contextlib.suppress(OSError):
            left = [
                entry
                for entry in os.scandir(place)
                if entry.is_file(follow_symlinks=False) and _is_dead(entry.name)
            ]
            left.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
            for entry in left[kept:]:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def _is_dead(name: str) -> bool:
    if name.startswith("replica_"):
        return True  # of Serve's, without a pid: none that lives is older than a hundred others
    found = _OF_PROCESS.search(name)
    return found is not None and not os.path.exists(f"/proc/{found[1]}")
