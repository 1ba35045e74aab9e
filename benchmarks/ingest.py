"""How many alerts a second are taken, beside Alertmanager on the same machine in alternating turns (claim a).

    python -m benchmarks.ingest [--quick] [--tune]

Repeats over 20,000 open series at 1, 16, 64 and 256 alerts a request; the same with annotations that change each time;
20,000 new series in 1,000 groups; 20,000 new series each in a group of its own.

It starts and ends its own system. --ours URL takes one that runs, with lifecycle.max_concurrent_incidents above ROOM:
past that a new group joins an overflow incident, which is other work, and the run fails. --against URL puts another one
of ours in Alertmanager's place: an older commit's, say. --twin puts a second Alertmanager in our place, which must come
out at about 1.0 x and shows how far the measurement itself wanders.
"""

import argparse
import re
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bodies import CHANGING_PASSES, Bodies
from benchmarks.harness import RESULTS, TURNS, Comparison, Target, compare, report
from benchmarks.load import Spec
from benchmarks.own import own
from benchmarks.peers import alertmanager

SERIES = 20_000
GROUPS = 1_000
BATCHES = (1, 16, 64, 256)
#: Where Alertmanager does best on two cores, or nearly. A server that groups commits wants more: use --tune.
CONCURRENCY = {1: 64, 16: 8, 64: 4, 256: 4}
NEW_BATCH = 64
#: Open incidents that a whole run leaves behind, warm-ups and --tune included, with as much to spare for uneven shards.
ROOM = 1_000_000
#: The preload goes to every gateway: each learns by itself.
PRELOAD_ROUNDS = 3
_OVERFLOWED = re.compile(
    r'^llm_im_alerts_decided_total\{[^}]*decision="overflowed"[^}]*\} (\S+)', re.MULTILINE
)
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
            preload_rounds=PRELOAD_ROUNDS,
        )
        cells.append(compare(f"repeats, {batch} a request", targets, spec, turns=turns, tune=tune))
    if repeats_only:
        return cells
    spec = Spec(
        Bodies("changing", SERIES, NEW_BATCH, passes=CHANGING_PASSES),
        concurrency=concurrency or CONCURRENCY[NEW_BATCH],
        duration_s=turn_s,
        preload=Bodies("repeats", SERIES, 256),
        warmup_s=0,
    )
    name = f"annotations that change each time, {NEW_BATCH} a request"
    cells.append(compare(name, targets, spec, turns=turns, tune=tune))
    shapes = ((f"new series in {GROUPS:,} groups", GROUPS), ("new series, a group each", SERIES))
    for name, groups in shapes:
        spec = Spec(
            Bodies("new_series", SERIES, NEW_BATCH, groups=groups),
            once=True,
            concurrency=concurrency or CONCURRENCY[NEW_BATCH],
            duration_s=NEW_LIMIT_S,
        )
        cells.append(compare(f"{name}, {NEW_BATCH} a request", targets, spec, turns=turns, tune=tune))
    for target in targets:
        if count := _overflowed(target):
            raise RuntimeError(
                f"{target.name}: {count:,.0f} alerts overflowed, so this is no measurement: "
                f"set lifecycle.max_concurrent_incidents to {ROOM} and start with fresh data"
            )
    return cells


def _overflowed(target: Target) -> float:
    """Alerts of a system of ours that found no room for an incident of their own."""
    with urllib.request.urlopen(f"{target.url}/metrics", timeout=10) as answer:
        return sum(map(float, _OVERFLOWED.findall(answer.read().decode())))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ours", metavar="URL", help="our server, already running")
    parser.add_argument("--against", metavar="URL", help="another of ours in Alertmanager's place")
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
        if arguments.against:
            targets = [Target("other", arguments.against)]
        else:
            peer = stack.enter_context(alertmanager())
            targets = [Target(peer.name, peer.url)]
        if arguments.twin:
            twin = stack.enter_context(alertmanager(name="twin"))
            targets.insert(0, Target(twin.name, twin.url))
        else:
            url = (
                arguments.ours or stack.enter_context(own(LIFECYCLE__MAX_CONCURRENT_INCIDENTS=str(ROOM))).url
            )
            targets.insert(0, Target("ours", url))
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
