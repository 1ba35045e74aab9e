"""A million alerts a minute, held: latency at a constant offered rate with many series open (claim b).

    python -m benchmarks.sustained --ours http://127.0.0.1:9093 [--series 100000 500000] [--skew 0 0.8]

Open loop: 16,667 alerts/s in batches of 64 leave at their time whatever the server does, and latency counts
from that time. Each size is run evenly over the services and with 80 % of the series on one of them.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bodies import Bodies
from benchmarks.harness import RESULTS, Comparison, Target, compare, report
from benchmarks.load import Spec
from benchmarks.peers import alertmanager

RATE_PER_S = 1_000_000 / 60
BATCH = 64
SERIES = (100_000, 500_000)
SKEWS = (0.0, 0.8)
DURATION_S = 60.0
QUICK_SERIES, QUICK_DURATION_S = (20_000,), 5.0
#: As many senders as a large installation has Prometheus servers; more than the rate needs at 100 ms an
#: answer.
CONNECTIONS = 32
WARMUP_S = 3.0


def run(
    targets: Sequence[Target],
    *,
    series: int,
    skew: float,
    duration_s: float,
    rate_per_s: float = RATE_PER_S,
    turns: int = 1,
) -> Comparison:
    """Open the series (closed loop, not measured), then offer the rate for the duration."""
    # One pass: 60 s are a million alerts, and half a million series are 250 MB of bodies as it is.
    bodies = Bodies("repeats", series, BATCH, skew=skew, passes=1)
    spec = Spec(
        bodies,
        mode="open",
        concurrency=CONNECTIONS,
        duration_s=duration_s,
        rate_per_s=rate_per_s / BATCH,
        preload=bodies,
        warmup_s=WARMUP_S,
    )
    spread = f"{skew:.0%} on one service" if skew else "even"
    name = f"{rate_per_s:,.0f} alerts/s offered, {series:,} series open, {spread}"
    return compare(name, targets, spec, turns=turns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ours", metavar="URL", help="our server, already running")
    parser.add_argument("--no-alertmanager", action="store_true", help="ours only")
    parser.add_argument("--quick", action="store_true", help="20,000 series, 5 s")
    parser.add_argument("--series", type=int, nargs="*")
    parser.add_argument("--skew", type=float, nargs="*", default=SKEWS)
    parser.add_argument("--rate", type=float, default=RATE_PER_S, help="alerts a second")
    parser.add_argument("--duration-s", type=float)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for sustained.json")
    arguments = parser.parse_args()
    if arguments.no_alertmanager and not arguments.ours:
        parser.error("--no-alertmanager needs --ours")
    sizes = arguments.series or (QUICK_SERIES if arguments.quick else SERIES)
    duration_s = arguments.duration_s or (QUICK_DURATION_S if arguments.quick else DURATION_S)

    cells = []
    for series in sizes:
        for skew in arguments.skew:
            # A new Alertmanager for each: the number of series it holds is part of the question.
            with ExitStack() as stack:
                targets = [Target("ours", arguments.ours)] if arguments.ours else []
                if not arguments.no_alertmanager:
                    peer = stack.enter_context(alertmanager())
                    targets.append(Target(peer.name, peer.url))
                cells.append(
                    run(
                        targets,
                        series=series,
                        skew=skew,
                        duration_s=duration_s,
                        rate_per_s=arguments.rate,
                        turns=arguments.turns,
                    )
                )
    report("sustained", cells, arguments.results)


if __name__ == "__main__":
    main()
