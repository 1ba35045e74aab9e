"""Compares servers fairly: the same load on each in turn (A, B, A, B, ...), and says by how much they differ.

Two runs an hour apart on a shared machine differ by more than most improvements; a turn and the next one do
not. So a comparison is the ratio of each pair of turns, its median and range. The generator is a process of
its own. Used by benchmarks.ingest and benchmarks.sustained. Tables go to stderr for people, one JSON line to
stdout for programs.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import TypedDict

from benchmarks.load import CpuClock, Result, Spec

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
#: Many short turns rather than few long ones: load from elsewhere then spoils pairs, not the median. An
#: odd number, so that the median is a turn that was measured.
TURNS = 11
#: What a server does after its last answer (dispatch, collection, checkpoint) should not be in the other
#: one's turn.
SETTLE_S = 0.5
#: More of the machine than this in use between turns, and somebody else is working on it.
RESTLESS = 0.2
#: How long a turn waits for that to end; then it is run all the same, and the table says so.
PATIENCE_S = 20.0
#: Beyond a generator's own duration: building the bodies, the preload, the last timeouts.
GENERATOR_EXTRA_S = 900
#: The moment that all alerts of a run are of: each turn's generator is a new process, and an alert with another startsAt is
#: no repeat.
NOW = time.time()
#: Of one try while looking for the best concurrency.
TRY_S = 1.5
LADDER = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Target:
    """A server that is running. url: without a path for `POST /api/v2/alerts`."""

    name: str
    url: str
    concurrency: int = 0  # 0: the spec's


@dataclass(frozen=True, slots=True)
class Comparison:
    """The turns of one load on each target, in the order of the targets."""

    name: str
    spec: Spec
    targets: Sequence[Target]
    turns: dict[str, list[Result]]
    tried: dict[str, dict[int, float]] = field(default_factory=dict)  # target: concurrency: alerts/s
    rest_busy: list[float] = field(default_factory=list)  # machine's busy share in the pauses between turns

    def medians(self) -> dict[str, float]:
        """Alerts a second of each target's middle turn."""
        return {name: median(turn.alerts_per_s for turn in turns) for name, turns in self.turns.items()}

    def ratios(self) -> list[float]:
        """First target over second, turn by turn; empty with one target."""
        if len(self.targets) < 2:
            return []
        first, second = (self.turns[target.name] for target in self.targets[:2])
        return [
            round(a.alerts_per_s / b.alerts_per_s, 3) for a, b in zip(first, second, strict=True) if b.alerts
        ]

    def as_dict(self) -> dict[str, object]:
        ratios = self.ratios()
        return {
            "name": self.name,
            "spec": asdict(self.spec),
            "targets": [asdict(target) for target in self.targets],
            "n": min(len(turns) for turns in self.turns.values()),
            "median_alerts_per_s": self.medians(),
            "ratio": {
                "median": median(ratios),
                "middle_half": middle_half(ratios),
                "range": [min(ratios), max(ratios)],
                "turns": ratios,
            }
            if ratios
            else None,
            "machine_busy_at_rest": self.rest_busy,
            "tried_concurrency": self.tried,
            "turns": {name: [asdict(turn) for turn in turns] for name, turns in self.turns.items()},
        }

    def table(self) -> str:
        lines = [f"{self.name}"]
        for target in self.targets:
            turns = self.turns[target.name]
            latencies = [turn.latency_ms for turn in turns if turn.latency_ms]
            spread = (
                "  ".join(
                    f"{key} {median(one[key] for one in latencies):.1f}"
                    for key in ("p50", "p99", "p99_9", "max")
                )
                if latencies
                else "no answers"
            )
            lines.append(
                f"  {target.name:<14} c={target.concurrency or self.spec.concurrency:<4}"
                f"{median(turn.alerts_per_s for turn in turns):>9,.0f} alerts/s"
                f"  [{' '.join(f'{turn.alerts_per_s:,.0f}' for turn in turns)}]"
                f"  ms: {spread}  failed {sum(turn.failed for turn in turns)}"
                f"  generator {median(turn.cpu_share for turn in turns):.0%} of a core"
                f"  machine {median(turn.machine_busy for turn in turns):.0%}"
                f"  stolen {max(turn.machine_stolen for turn in turns):.1%}"
            )
        rest_busy = median(self.rest_busy or [0.0])
        if rest_busy > RESTLESS:
            lines.append(f"  the machine is {rest_busy:.0%} busy between turns: do not publish this")
        if ratios := self.ratios():
            low, high = middle_half(ratios)
            lines.append(
                f"  {self.targets[0].name} / {self.targets[1].name}: {median(ratios):.2f} x"
                f"  (middle half {low:.2f}-{high:.2f}, all {min(ratios):.2f}-{max(ratios):.2f},"
                f" n={len(ratios)})"
            )
        return "\n".join(lines)


class Report(TypedDict):
    """The file in benchmarks/results, and the JSON line."""

    name: str
    date: str
    commit: str
    dirty: bool
    machine: dict[str, object]
    cells: list[dict[str, object]]


def compare(
    name: str, targets: Sequence[Target], spec: Spec, *, turns: int = TURNS, tune: bool = False
) -> Comparison:
    """Warm every target up (the preload goes here), then give each its turn, `turns` times over.

    tune: first find the concurrency that suits each target best. What is to be new gets a fresh run_id every turn, the same
    one for all targets; the times in all of them are of one moment. Raises RuntimeError if a generator fails, as when nothing
    listens.
    """
    spec = replace(spec, bodies=replace(spec.bodies, now=NOW))
    if spec.preload is not None:
        spec = replace(spec, preload=replace(spec.preload, now=NOW))
    first = fresh(spec if spec.once else replace(spec, duration_s=min(spec.duration_s, TRY_S)))
    for target in targets:
        generate(target, first)
    spec = replace(spec, preload=None)
    tried: dict[str, dict[int, float]] = {}
    if tune:
        targets, tried = _tuned(targets, spec)

    rest_busy: list[float] = []
    results: dict[str, list[Result]] = {target.name: [] for target in targets}
    for _ in range(turns):
        turn_spec = fresh(spec)
        for target in targets:
            rest_busy.append(_rest())
            results[target.name].append(generate(target, turn_spec)["measured"])
    comparison = Comparison(name, spec, targets, results, tried, rest_busy)
    print(comparison.table(), file=sys.stderr, flush=True)
    return comparison


def generate(target: Target, spec: Spec) -> dict[str, Result]:
    """One run of the generator in its own process; its phases by name. The process is gone when this
    returns."""
    if target.concurrency:
        spec = replace(spec, concurrency=target.concurrency)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", "--url", target.url, "--spec", "-"],
        cwd=ROOT,
        input=spec.to_json(),
        capture_output=True,
        text=True,
        timeout=spec.duration_s + GENERATOR_EXTRA_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the generator failed on {target.name} ({target.url}): {done.stderr[-2000:]}")
    return {name: Result(**fields) for name, fields in json.loads(done.stdout).items()}


def report(name: str, cells: Sequence[Comparison], folder: Path = RESULTS) -> Report:
    """Write `<folder>/<name>.json` and print the same as one line."""
    document = Report(
        name=name,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=str(commit()["commit"]),
        dirty=bool(commit()["dirty"]),
        machine=machine(),
        cells=[cell.as_dict() for cell in cells],
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document), flush=True)
    return document


def middle_half(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile: what is left when the turns somebody else spoilt are set aside."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return round(low, 3), round(high, 3)


def commit() -> dict[str, object]:
    """What was measured: {"commit", "dirty"}."""
    return {
        "commit": _git("rev-parse", "--verify", "HEAD") or "none",
        "dirty": bool(_git("status", "--porcelain")),
    }


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "memory_gb": round(memory_bytes / 1e9, 1),
        "python": platform.python_version(),
        "load_1m": os.getloadavg()[0],
    }


_runs = 0


def fresh(spec: Spec) -> Spec:
    """The spec with a run_id nobody has used: start second and a count, of constant length."""
    global _runs
    if spec.bodies.kind == "repeats":
        return spec
    _runs += 1
    run_id = f"{int(time.time()) & 0xFFFFFF:06x}{_runs & 0xFF:02x}"
    return replace(spec, bodies=replace(spec.bodies, run_id=run_id))


def _tuned(targets: Sequence[Target], spec: Spec) -> tuple[list[Target], dict[str, dict[int, float]]]:
    """Each target with the concurrency of its best try. All targets at one rung before the next: the same
    weather."""
    tried: dict[str, dict[int, float]] = {target.name: {} for target in targets}
    for concurrency in LADDER:
        rung = fresh(replace(spec, duration_s=spec.duration_s if spec.once else TRY_S, warmup_s=0.5))
        for target in targets:
            result = generate(replace(target, concurrency=concurrency), rung)["measured"]
            tried[target.name][concurrency] = result.alerts_per_s
    best = {name: max(rates, key=rates.__getitem__) for name, rates in tried.items()}
    return [replace(target, concurrency=best[target.name]) for target in targets], tried


def _rest() -> float:
    """The pause before a turn, longer while the machine is busy. Returns how busy it was at the end of it."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        clock = CpuClock()
        time.sleep(SETTLE_S)
        busy = clock.read()[1]
        if busy <= RESTLESS or time.monotonic() > give_up:
            return busy


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
