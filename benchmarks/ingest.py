"""How many alerts a second are taken, beside Alertmanager on the same machine in alternating turns (claim a).

    python -m benchmarks.ingest --ours http://127.0.0.1:9093 [--quick] [--tune]

Repeats over 20,000 open series at 1, 16, 64 and 256 alerts a request; 20,000 new series in 1,000 groups;
20,000 new series each in a group of its own. Without --ours only Alertmanager runs; --twin puts a second
Alertmanager in our place, which must come out at about 1.0 x and shows how far the measurement itself
wanders.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bodies import Bodies
from benchmarks.harness import RESULTS, TURNS, Comparison, Target, compare, report
from benchmarks.load import Spec
from benchmarks.peers import alertmanager

SERIES = 20_000
GROUPS = 1_000
BATCHES = (1, 16, 64, 256)
#: Where Alertmanager does best on two cores, or nearly. A server that groups commits wants more: use --tune.
CONCURRENCY = {1: 64, 16: 8, 64: 4, 256: 4}
NEW_BATCH = 64
#: A turn: several collections of Go's garbage, hundreds of our group commits.
TURN_S = 3.0
QUICK_TURNS, QUICK_TURN_S = 3, 1.5
#: New series are sent once; this only ends a server that hangs.
NEW_LIMIT_S = 120.0


def run(
    targets: Sequence[Target],
    *,
    turns: int,
    turn_s: float,
    tune: bool,
    batches: Sequence[int] = BATCHES,
    concurrency: int = 0,
    repeats_only: bool = False,
) -> list[Comparison]:
    """Every cell on every target. Repeats come first: new series leave a larger table behind."""
    cells = []
    for batch in batches:
        spec = Spec(
            Bodies("repeats", SERIES, batch),
            concurrency=concurrency or CONCURRENCY.get(batch, 8),
            duration_s=turn_s,
            preload=Bodies("repeats", SERIES, 256),
        )
        cells.append(compare(f"repeats, {batch} a request", targets, spec, turns=turns, tune=tune))
    if repeats_only:
        return cells
    shapes = ((f"new series in {GROUPS:,} groups", GROUPS), ("new series, a group each", SERIES))
    for name, groups in shapes:
        spec = Spec(
            Bodies("new_series", SERIES, NEW_BATCH, groups=groups),
            once=True,
            concurrency=concurrency or CONCURRENCY[NEW_BATCH],
            duration_s=NEW_LIMIT_S,
        )
        cells.append(compare(f"{name}, {NEW_BATCH} a request", targets, spec, turns=turns, tune=tune))
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ours", metavar="URL", help="our server, already running")
    parser.add_argument("--twin", action="store_true", help="a second Alertmanager in our place")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TURNS} turns of {QUICK_TURN_S:g} s")
    parser.add_argument("--tune", action="store_true", help="find each server's best concurrency first")
    parser.add_argument("--concurrency", type=int, default=0)
    parser.add_argument("--batches", type=int, nargs="*", default=BATCHES)
    parser.add_argument("--repeats-only", action="store_true", help="no new series")
    parser.add_argument("--turns", type=int)
    parser.add_argument("--turn-s", type=float)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for ingest.json")
    arguments = parser.parse_args()
    turns = arguments.turns or (QUICK_TURNS if arguments.quick else TURNS)
    turn_s = arguments.turn_s or (QUICK_TURN_S if arguments.quick else TURN_S)

    with ExitStack() as stack:
        peer = stack.enter_context(alertmanager())
        targets = [Target(peer.name, peer.url)]
        if arguments.ours:
            targets.insert(0, Target("ours", arguments.ours))
        elif arguments.twin:
            twin = stack.enter_context(alertmanager(name="twin"))
            targets.insert(0, Target(twin.name, twin.url))
        cells = run(
            targets,
            turns=turns,
            turn_s=turn_s,
            tune=arguments.tune,
            batches=arguments.batches,
            concurrency=arguments.concurrency,
            repeats_only=arguments.repeats_only,
        )
    report("ingest", cells, arguments.results)


if __name__ == "__main__":
    main()
