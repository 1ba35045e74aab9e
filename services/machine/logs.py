"""How every process logs: one line per event, JSON or for a console, to the instance's log file
(services/machine/log_file.py), or to stderr without one. Called once in each process.

However often something happens, no process writes more than LINES_MAX lines a second of one event: the rest is counted,
and the count is logged when the second is over.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict

from actors.runtime.direct import FOLDER_VARIABLE
from services.machine.environment import RAY_FOLDER
from services.machine.log_file import FILE_VARIABLE, LogFile, sweep

#: Lines of one event a second. A person reads none of more, and a store that fails under an alert storm says so
#: thousands of times a second.
LINES_MAX = 20
WINDOW_S = 1.0
#: Events told apart within a second; ours are a few dozen. More can only be a fault, and share one count.
EVENTS_MAX = 1000
_OTHERS = "other events"


def configure(level: str, style: str) -> None:
    """`level` is DEBUG .. ERROR, `style` json or console. Safe to call again."""
    if (private := os.environ.get(FOLDER_VARIABLE)) is not None:
        sweep(Path(private) / RAY_FOLDER / "session_latest" / "logs")
    # The process's own, and written to: in a replica Serve puts a stream in the place of sys.stderr that drops what is
    # below its own level, and a print() in the place of Python's that spoils the line.
    named = os.environ.get(FILE_VARIABLE)
    out = sys.__stderr__ or sys.stderr if named is None else LogFile(Path(named))
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=out.isatty())
    )
    set_level(level)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *([] if named is None else [_with_pid]),
            _at_level,
            Flood(_tell_left_out),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        # All levels: a logger keeps its class once it was used, so the level is asked for each line.
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, out)),
        cache_logger_on_first_use=True,
    )


def set_level(level: str) -> None:
    """Write lines of this level and above from now on."""
    global _level
    _level = logging.getLevelNamesMapping()[level]


_level = logging.INFO


def _at_level(_logger: object, _method: str, event: EventDict) -> EventDict:
    if logging.getLevelNamesMapping()[str(event["level"]).upper()] < _level:
        raise structlog.DropEvent
    return event


def _with_pid(_logger: object, _method: str, event: EventDict) -> EventDict:
    event["pid"] = os.getpid()
    return event


def _tell_left_out(event: str, level: str, count: int) -> None:
    # At the level of what was left out: somebody who logs only errors must see how many there were.
    getattr(structlog.get_logger(), level)("log lines suppressed", of=event, count=count)


class Flood:
    """A processor that passes the first LINES_MAX lines of an event in a second, and reports how many it left out.

    `tell(event, level, count)` is called from a thread of its own when the second is over, so that the count is
    reported even if that event never comes again.
    """

    def __init__(self, tell: Callable[[str, str, int], None], *, window_s: float = WINDOW_S) -> None:
        self._tell = tell
        self._window_s = window_s
        self._since = 0.0
        self._seen: Counter[str] = Counter()
        self._left_out: dict[str, str] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def __call__(self, _logger: object, _method: str, event: EventDict) -> EventDict:
        name = str(event["event"])
        with self._lock:
            age_s = time.monotonic() - self._since
            if age_s >= self._window_s and self._timer is None:
                self._begin()
                age_s = 0.0
            if name not in self._seen and len(self._seen) >= EVENTS_MAX:
                name = _OTHERS
            self._seen[name] += 1
            if self._seen[name] <= LINES_MAX:
                return event
            self._left_out.setdefault(name, str(event["level"]))
            if self._timer is None:
                self._timer = threading.Timer(max(0.0, self._window_s - age_s), self._over)
                self._timer.daemon = True
                self._timer.start()
        raise structlog.DropEvent

    def _begin(self) -> None:
        self._since = time.monotonic()
        self._seen.clear()
        self._left_out.clear()

    def _over(self) -> None:
        with self._lock:
            told = [(name, level, self._seen[name] - LINES_MAX) for name, level in self._left_out.items()]
            self._begin()
            self._timer = None
        for name, level, count in told:
            self._tell(name, level, count)
