"""The whole system on each store, beside SQLite in alternating turns of one run.

    python -m benchmarks.backends [--quick] [--only ingest|latency|recovery]

Three instances of our own at once, each with a fresh store that keeps what it acknowledges (benchmarks.stores says how).
Repeats over 20,000 open series at 64 alerts a request as fast as they are taken, and the latency of an answer at 5,000
alerts a second offered, over HTTP. Then a million alerts are recovered from each store, as in benchmarks.recovery: over
20,000 series and all new, without any snapshot.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import ingest, recovery, sustained
from benchmarks.harness import RESULTS, Comparison, Target, middle_half
from benchmarks.own import own, say, write
from benchmarks.peers import Peer, postgres, redis
from services.stores.choice import Place

BATCH = 64
#: Connections that offer 64 alerts each: a store across a socket groups more commits when more wait.
CONCURRENCY = (4, 16)
RATE_PER_S = 5000.0
SERIES = 20_000
TURNS, TURN_S, LATENCY_S = 7, 3.0, 10.0
QUICK_TURNS, QUICK_TURN_S = 3, 1.5
PARTS = ("ingest", "latency", "recovery")


def over_http(
    redis_at: Peer, postgres_at: Peer, parts: Sequence[str], quick: bool
) -> list[dict[str, object]]:
    """Throughput and latency of an instance on each store."""
    turns, turn_s = (QUICK_TURNS, QUICK_TURN_S) if quick else (TURNS, TURN_S)
    cells: list[dict[str, object]] = []
    with ExitStack() as stack:
        systems = {
            "sqlite": stack.enter_context(own()),
            "redis": stack.enter_context(own(STATE__BACKEND="redis", STATE__REDIS__URL=redis_at.url)),
            "postgres": stack.enter_context(
                own(STATE__BACKEND="postgres", STATE__POSTGRES__URL=postgres_at.url)
            ),
        }
        targets = [Target(name, system.url) for name, system in systems.items()]
        for concurrency in CONCURRENCY if "ingest" in parts else ():
            cells += beside_sqlite(
                f"{BATCH} a request, {concurrency} connections",
                *ingest.run(
                    targets, turns=turns, turn_s=turn_s, tune=False, batches=[BATCH], concurrency=concurrency,
                    repeats_only=True,
                ),
            )  # fmt: skip
        if "latency" in parts:
            duration_s = 2 * turn_s if quick else LATENCY_S
            offered = sustained.run(
                targets, series=SERIES, skew=0.0, duration_s=duration_s, rate_per_s=RATE_PER_S, turns=turns
            )
            cells += beside_sqlite(f"{RATE_PER_S:,.0f} alerts/s offered, {BATCH} a request", offered)
    return cells


def beside_sqlite(case: str, found: Comparison) -> list[dict[str, object]]:
    """A cell a store: medians of its turns, and its rate over SQLite's turn beside it."""
    cells: list[dict[str, object]] = []
    for target in found.targets:
        turns, sqlite = found.turns[target.name], found.turns["sqlite"]
        over = [own.alerts_per_s / other.alerts_per_s for own, other in zip(turns, sqlite, strict=True)]
        cells.append(
            {
                "store": target.name,
                "case": case,
                "n": len(turns),
                "alerts_per_s": median(turn.alerts_per_s for turn in turns),
                "over_sqlite": {"median": median(over), "middle_half": middle_half(over), "turns": over},
                "latency_ms": {
                    name: median(turn.latency_ms[name] for turn in turns)
                    for name in ("p50", "p99", "p99_9", "max")
                },
                "failed": sum(turn.failed for turn in turns),
                "machine_busy_at_rest": median(found.rest_busy),
                "machine_stolen": max(turn.machine_stolen for turn in turns),
            }
        )
        say(
            f"{target.name:<8} {case}: {median(turn.alerts_per_s for turn in turns):>9,.0f} alerts/s,"
            f" {median(over):.2f} x SQLite, P99 {median(turn.latency_ms['p99'] for turn in turns):.1f} ms"
        )
    return cells


def recovered(redis_at: Peer, postgres_at: Peer, quick: bool) -> list[dict[str, object]]:
    """Seconds from the start of a shard's process until it answers, on each store in turn."""
    alerts = recovery.ALERTS // (10 if quick else 1)
    cells: list[dict[str, object]] = []
    for name, series in (("20,000 series", SERIES), ("all new", alerts)):
        with tempfile.TemporaryDirectory(prefix="llm-im-bench-") as folder:
            run = f"recovery_{series}"
            places: dict[str, Place] = {
                "sqlite": {"backend": "sqlite", "folder": folder},
                "redis": {"backend": "redis", "url": redis_at.url, "prefix": run},
                "postgres": {"backend": "postgres", "url": postgres_at.url, "schema": run},
            }
            turns: dict[str, list[float]] = {store: [] for store in places}
            for place in places.values():
                asyncio.run(recovery.fill(place, alerts, series, snapshot=False))
            for _turn in range(QUICK_TURNS if quick else recovery.TURNS):
                for store, place in places.items():
                    turns[store].append(float(str(recovery.turn(place)["total_s"])))
        for store, taken in turns.items():
            cells.append(
                {
                    "store": store,
                    "case": f"recovery of {alerts:,} alerts, {name}, no snapshot",
                    "n": len(taken),
                    "median_s": median(taken),
                    "worst_s": max(taken),
                    "turns_s": taken,
                }
            )
            say(
                f"{store:<8} recovery of {alerts:,} alerts, {name}: {median(taken):.2f} s (worst {max(taken):.2f})"
            )
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns, a tenth of the alerts")
    parser.add_argument("--only", choices=PARTS, action="append", help="leave the other parts out")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for backends.json")
    arguments = parser.parse_args()
    parts = arguments.only or PARTS
    cells: list[dict[str, object]] = []
    with redis() as redis_at, postgres() as postgres_at:
        if set(parts) & {"ingest", "latency"}:
            cells += over_http(redis_at, postgres_at, parts, arguments.quick)
        if "recovery" in parts:
            cells += recovered(redis_at, postgres_at, arguments.quick)
    write("backends", cells, arguments.results)


if __name__ == "__main__":
    main()
