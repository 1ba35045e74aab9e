"""The lanes of `make test`: what runs together, on how many workers, and how long it may take. Called by the Makefile.

    python -m tests.lanes                  # all, in two tracks
    python -m tests.lanes check stores     # these
    python -m tests.lanes api -- -x        # what follows goes to pytest
    python -m tests.lanes -- -k kill       # one pytest over all folders, without workers: for what a few words select

A lane over its budget fails, so that the suite stays fast without anybody watching it. What is judged is the time that the lane
would take with this machine to itself: the CPU time of its processes and the time in which the machine had nothing to do, over the
number of cores. Others who compute at the same time make the clock on the wall go further, and this one not: they only take from
the idle time. A test that sleeps shows as much as one that computes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
#: One JUnit file a lane: for CI, and for the table at the end.
RESULTS = ROOT / "var" / "test-results"
BYTECODE = ROOT / "var" / "bytecode"
#: Two, also where there are more cores: the tests that start servers and look at times were made for two. Files in the order of
#: their names, so that a run can be repeated; by the number of their tests, those with one long test would come last, alone.
#: A worker that dies fails its lane there and then: pytest-xdist would start another, and wait at the end for what the first had.
WORKERS = ("-n", "2", "--dist", "loadscope", "--no-loadscope-reorder", "--max-worker-restart", "0")
COUNTS = ("tests", "failures", "errors", "skipped")
#: Exit codes of pytest: all is well, somebody typed ctrl-c, and nothing was selected.
OK, INTERRUPTED, NONE_SELECTED = 0, 2, 5
OVER_BUDGET = FAILED = 1
#: A lane in whose time the machine had nothing to do for so many times its budget hangs.
HANGS_AT = 2
#: How often it is looked whether a lane waits for nothing, and how long its processes get to say where they stand.
LOOK_S, TELL_S = 1.0, 10.0


@dataclass(frozen=True, slots=True)
class Lane:
    name: str
    paths: tuple[str, ...]
    #: What it takes on a quiet machine of two cores, and a good half more: CI's may be the slower one.
    budget_s: float
    #: Without workers: one test after the other, each with the machine to itself.
    workers: tuple[str, ...] = WORKERS
    #: What runs beside pytest, one after the other.
    beside: tuple[tuple[str, ...], ...] = ()


LINT = (
    ("-m", "ruff", "check", "."),
    ("-m", "ruff", "format", "--check", "."),
    ("-m", "mypy"),
    ("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"),
)
LANES = {
    lane.name: lane
    for lane in (
        Lane("check", ("tests/test_*.py", "tests/pure"), 240, beside=LINT),
        Lane("stores", ("tests/contract",), 300),
        Lane("api", ("tests/api",), 700),
        Lane("cli", ("tests/cli",), 170),
        Lane("browser", ("tests/browser",), 80),
        Lane("sim", ("tests/simulation",), 450),
        # Each of these owns a Ray, of a dozen processes: one at a time.
        Lane("ray", ("tests/cluster",), 500, workers=()),
    )
}
#: First these, side by side, each in this order: what computes without a pause, and what mostly waits for servers and processes.
TRACKS = (("check", "sim"), ("stores", "cli", "browser"))
#: Then these, each with the machine to itself: they start servers and a Ray of a dozen processes, kill them, and look at who goes on.
ALONE = ("api", "ray")


@dataclass(slots=True)
class Ran:
    lane: Lane
    code: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    alone_s: float = 0.0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))

    @property
    def is_over(self) -> bool:
        return self.alone_s > self.lane.budget_s

    @property
    def has_failed(self) -> bool:
        return self.code != OK or self.is_over


def main(words: Sequence[str]) -> int:
    names, passed = _split(words)
    if passed and not names:
        return _python(("-m", "pytest", *passed))
    unknown = set(names) - set(LANES)
    if unknown:
        print(f"no such lane: {', '.join(sorted(unknown))}; there are {', '.join(LANES)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    ran = [run(LANES[names[0]], passed)] if len(names) == 1 else _side_by_side(names or [*LANES], passed)
    print(table(ran, time.monotonic() - began), flush=True)
    return max((each.code or (OVER_BUDGET if each.is_over else OK) for each in ran), default=OK)


def _side_by_side(names: Sequence[str], passed: Sequence[str]) -> list[Ran]:
    running: set[subprocess.Popen[bytes]] = set()
    # What is typed at the terminal reaches the lanes themselves, each of which ends and says how far it got.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: _interrupt(running))
    tracks = [[LANES[name] for name in track if name in names] for track in TRACKS]
    with ThreadPoolExecutor(len(tracks)) as pool:
        ran = {
            each.lane.name: each
            for track in pool.map(lambda track: _in_turn(track, passed, running), tracks)
            for each in track
        }
    if all(each.code != INTERRUPTED for each in ran.values()):
        alone = _in_turn([LANES[name] for name in ALONE if name in names], passed, running)
        ran |= {each.lane.name: each for each in alone}
    return [ran[name] for name in LANES if name in ran]


def _interrupt(running: set[subprocess.Popen[bytes]]) -> None:
    for each in running:
        each.send_signal(signal.SIGINT)


def _in_turn(
    lanes: Sequence[Lane], passed: Sequence[str], running: set[subprocess.Popen[bytes]]
) -> list[Ran]:
    ran: list[Ran] = []
    for lane in lanes:
        ran.append(_apart(lane, passed, running))
        if ran[-1].code == INTERRUPTED:
            break
    return ran


def _apart(lane: Lane, passed: Sequence[str], running: set[subprocess.Popen[bytes]]) -> Ran:
    """In a process of its own, which knows what its children computed; what it says is shown in one piece when it ends."""
    told, results = RESULTS / f"{lane.name}.log", RESULTS / f"{lane.name}.json"
    results.unlink(missing_ok=True)
    print(f"lane {lane.name} runs; it writes {told.relative_to(ROOT)}", flush=True)
    command = [sys.executable, "-m", "tests.lanes", lane.name, "--", *passed]
    with (
        told.open("wb") as log,
        subprocess.Popen(
            command, cwd=ROOT, env=_environment(), stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        running.add(process)
        code = process.wait()
        running.discard(process)
    print(told.read_text("utf-8", "replace"), end="", flush=True)
    if not results.exists():
        return Ran(lane, code or FAILED)
    return Ran(lane, **json.loads(results.read_bytes()))


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    at = list(words).index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def run(lane: Lane, passed: Sequence[str]) -> Ran:
    ran = Ran(lane)
    began, cpu_before, idle_before = time.monotonic(), _cpu_s(), _idle_s()
    with ThreadPoolExecutor(1) as others:
        checked = others.map(_told, () if passed else lane.beside)
        code = _pytest(lane, passed, idle_before)
        ran.code = OK if code == NONE_SELECTED and passed else code
        for told, code in checked:
            print(told, end="", flush=True)
            ran.code = ran.code or code
    ran.wall_s, ran.cpu_s = time.monotonic() - began, _cpu_s() - cpu_before
    ran.alone_s = min(ran.wall_s, (ran.cpu_s + _idle_s() - idle_before) / (os.cpu_count() or 1))
    results = RESULTS / f"{lane.name}.xml"
    if results.exists():
        suite = ElementTree.parse(results).getroot().find("testsuite")
        assert suite is not None
        ran.counts = {name: int(suite.get(name, "0")) for name in COUNTS}
    figures = {name: getattr(ran, name) for name in ("code", "wall_s", "cpu_s", "alone_s", "counts")}
    (RESULTS / f"{lane.name}.json").write_text(json.dumps(figures))
    return ran


def _pytest(lane: Lane, passed: Sequence[str], idle_before: float) -> int:
    """Its exit code. A lane that hangs is ended, and says where it stood."""
    results = RESULTS / f"{lane.name}.xml"
    results.unlink(missing_ok=True)
    paths = [str(each) for path in lane.paths for each in sorted(ROOT.glob(path))]
    words = (
        "-m", "pytest", *lane.workers, "--hypothesis-profile=lane", "--durations=15", "--durations-min=1",
        f"--junitxml={results}", *passed, *paths,
    )  # fmt: skip
    # A group of its own, so that all of it can be ended: what is typed at the terminal has to be handed on.
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, env=_environment(), process_group=0) as running:
        while True:
            try:
                return running.wait(LOOK_S)
            except KeyboardInterrupt:
                os.killpg(running.pid, signal.SIGINT)
            except subprocess.TimeoutExpired:
                if (_idle_s() - idle_before) / (os.cpu_count() or 1) > HANGS_AT * lane.budget_s:
                    print(f"\nlane {lane.name} hangs: ended", file=sys.stderr, flush=True)
                    _end(running)


def _end(running: subprocess.Popen[bytes]) -> None:
    """End it and all in its group. pytest's fault handler prints the stacks of who is aborted."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGABRT)
        give_up_at = time.monotonic() + TELL_S
        # Its workers still tell where they stand when pytest itself has gone.
        while time.monotonic() < give_up_at:
            running.poll()
            time.sleep(0.1)
            os.killpg(running.pid, 0)
        os.killpg(running.pid, signal.SIGKILL)


def _python(words: Sequence[str]) -> int:
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=_environment(), check=False).returncode


def _told(words: Sequence[str]) -> tuple[str, int]:
    """What it says, to be shown when nobody else writes, and its exit code."""
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=_environment(), check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return done.stdout, done.returncode


def _environment() -> dict[str, str]:
    """Ours, but that Python keeps what it compiled, under var/ where nobody minds: each pytest, each of its workers and each
    `llm-im` of a test would compile all of it anew, which is a tenth of all the time."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(BYTECODE)}


def _cpu_s() -> float:
    """Of all that was started here and has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _idle_s() -> float:
    """How long the cores of this machine had nothing to do, all of them added up; 0 where that is not told."""
    try:
        first = Path("/proc/stat").read_text("ascii").splitlines()[0]
    except OSError:
        return 0.0
    idle, waits_for_disk = re.findall(r"\d+", first)[3:5]
    return (int(idle) + int(waits_for_disk)) / os.sysconf("SC_CLK_TCK")


def table(ran: Sequence[Ran], took_s: float) -> str:
    """One line a lane, and a last one in the words of pytest's own, which .ci/run shows."""
    lines = ["", f"{'lane':8}{'tests':>7}{'CPU s':>8}{'wall s':>8}{'alone s':>9}{'budget s':>10}"]
    for each in ran:
        told = f"  failed ({each.code})" if each.code else "  OVER ITS BUDGET" if each.is_over else ""
        lines.append(
            f"{each.lane.name:8}{each.counts['tests']:7}{each.cpu_s:8.0f}{each.wall_s:8.0f}{each.alone_s:9.0f}"
            f"{each.lane.budget_s:10.0f}{told}"
        )
    lines.append("alone: with this machine to itself, which the budget is for")
    total = {name: sum(each.counts[name] for each in ran) for name in COUNTS}
    bad = total["failures"] + total["errors"]
    said = (
        [f"{sum(each.has_failed for each in ran)} lanes failed"]
        if any(each.has_failed for each in ran)
        else []
    )
    said += [f"{bad} failed"] if bad else []
    said += [f"{total['tests'] - bad - total['skipped']} passed", f"{total['skipped']} skipped"]
    lines.append(f"{', '.join(said)} in {took_s:.2f}s")
    return "\n".join(lines)


if __name__ == "__main__":
    # As ctrl-c: pytest ends the servers that its tests started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
