"""From `llm-im up` to the first durable answer (claim f): on empty data, and on what a kill left.

python -m benchmarks.start [--turns 3]
"""

from __future__ import annotations

import argparse
import json
import time
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from benchmarks.harness import RESULTS
from benchmarks.own import Own, own, say, write

TURNS = 3


def first_answer(system: Own) -> float:
    """Seconds from the start of `llm-im up` to a 200 for an alert posted after it."""
    begun = time.monotonic()
    system.up()
    connection = HTTPConnection("127.0.0.1", system.port, timeout=10)
    connection.request(
        "POST",
        "/api/v2/alerts",
        json.dumps([{"labels": {"alertname": "First", "service": "start"}}]),
        {"Content-Type": "application/json"},
    )
    status = connection.getresponse().status
    if status != 200:
        raise RuntimeError(f"the first alert was answered {status}")
    return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with own() as system:
        turns = []
        for _ in range(arguments.turns):
            system.cli("down")
            turns.append(round(first_answer(system), 2))
    say(f"up to first durable answer: {median(turns):.1f} s (worst {max(turns):.1f}), n={len(turns)}")
    write(
        "start",
        [{"case": "installed, up to first answer", "turns_s": turns, "median_s": median(turns)}],
        arguments.results,
    )


if __name__ == "__main__":
    main()
