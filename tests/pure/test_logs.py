"""However often something happens, no process writes more than a bounded number of lines a second of it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import structlog

from services.machine.logs import EVENTS_MAX, LINES_MAX, Flood

ROOT = Path(__file__).resolve().parents[2]


def lines_of(code: str) -> list[dict[str, object]]:
    """What a process writes that does this after it configured its logging."""
    done = subprocess.run(
        [sys.executable, "-c", f"import structlog, time\nfrom services.machine import logs\nlog = structlog.get_logger()\n{code}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stderr.splitlines()]


class Told:
    """Stands for the log: what a Flood told, and what it passed."""

    def __init__(self, window_s: float = 0.05) -> None:
        self.told: list[tuple[str, str, int]] = []
        self.over = threading.Event()
        self.flood = Flood(self._tell, window_s=window_s)

    def _tell(self, event: str, level: str, count: int) -> None:
        self.told.append((event, level, count))
        self.over.set()

    def log(self, event: str, times: int = 1, level: str = "warning") -> int:
        """How many of so many lines pass."""
        passed = 0
        for _ in range(times):
            try:
                self.flood(None, level, {"event": event, "level": level})
                passed += 1
            except structlog.DropEvent:
                continue
        return passed


def test_an_alert_storm_on_a_broken_store_writes_a_bounded_number_of_lines_and_says_how_many_more() -> None:
    lines = lines_of(
        "logs.configure('INFO', 'json')\n"
        "for number in range(50_000): log.error('append failed', number=number)\n"
        "log.info('something else')\n"
        "time.sleep(1.2)"
    )

    stored = [line for line in lines if line["event"] == "append failed"]
    left_out = [line for line in lines if line["event"] == "log lines suppressed"]
    # 50,000 lines may take longer than one second; each second has its own twenty.
    assert len(stored) == LINES_MAX * len(left_out)
    assert [line["number"] for line in stored[:LINES_MAX]] == list(range(LINES_MAX))
    assert len(stored) + sum(int(str(line["count"])) for line in left_out) == 50_000
    assert {(line["of"], line["level"]) for line in left_out} == {("append failed", "error")}
    assert [line["event"] for line in lines].count("something else") == 1


def test_what_was_left_out_is_told_at_its_level_though_the_event_never_comes_again() -> None:
    told = Told()

    assert told.log("down", LINES_MAX + 7, "error") == LINES_MAX
    assert told.over.wait(5)

    assert told.told == [("down", "error", 7)]


def test_one_loud_event_silences_no_other() -> None:
    told = Told(window_s=30)

    told.log("loud", 1000)

    assert told.log("quiet", LINES_MAX) == LINES_MAX


def test_a_new_second_begins_anew() -> None:
    told = Told()
    told.log("down", LINES_MAX + 1)
    assert told.over.wait(5)

    assert told.log("down", LINES_MAX) == LINES_MAX


def test_events_without_end_share_one_bound() -> None:
    told = Told(window_s=30)

    passed = sum(told.log(f"event {number}") for number in range(EVENTS_MAX * 3))

    assert passed == EVENTS_MAX + LINES_MAX


def test_the_level_changes_for_loggers_that_were_used_already() -> None:
    lines = lines_of(
        "logs.configure('WARNING', 'json')\n"
        "bound = log.bind(actor='a')\n"
        "log.warning('one'); bound.warning('one'); log.info('no'); bound.debug('no')\n"
        "logs.set_level('DEBUG')\n"
        "log.info('two'); log.debug('two'); bound.debug('two')\n"
        "logs.set_level('ERROR')\n"
        "log.warning('no'); bound.error('three')\n"
    )

    assert [line["event"] for line in lines] == ["one", "one", "two", "two", "two", "three"]


def test_an_exception_counts_as_an_error_and_keeps_its_traceback() -> None:
    [line] = lines_of(
        "logs.configure('ERROR', 'json')\ntry: 1 / 0\nexcept ZeroDivisionError: log.exception('a bug')\n"
    )

    assert line["level"] == "error"
    assert "ZeroDivisionError" in str(line["exception"])


@pytest.mark.parametrize("style", ["json", "console"])
def test_both_styles_write_one_line_an_event(style: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c",
         f"import structlog\nfrom services.machine import logs\nlogs.configure('INFO', '{style}')\n"
         "structlog.get_logger().info('hello', text='two\\nlines')"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert len(done.stderr.splitlines()) == 1
    assert "hello" in done.stderr


def test_an_actor_starts_without_the_colours_of_a_terminal() -> None:
    """rich is a tenth of a killed shard's way back; who wants it has it all the same."""
    program = (
        "import actors.shard, sys; print([name for name in sys.modules if name.partition('.')[0] == 'rich']);"
        "import rich.console"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
