"""`python -m tests.simulation --seed N` repeats a run and prints its story; `--seeds 10000` runs many, on all cores."""

from __future__ import annotations

import argparse
import os
import sys
import time
from multiprocessing import get_context

from tests.simulation.many import COMMAND, Outcome, run_chunk
from tests.simulation.mutations import MUTATIONS
from tests.simulation.world import World

#: Seeds one process does before it reports.
CHUNK = 25


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat this run and print its story")
    parser.add_argument("--seeds", type=int, default=1000, help="how many runs (default 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument(
        "--break", dest="mutation", default="", choices=["", *MUTATIONS], help="break the system on purpose"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    if given.seed is not None:
        return _one(given.seed, given.mutation)
    begun = time.monotonic()
    chunks = [
        (first, min(CHUNK, given.first + given.seeds - first), given.mutation)
        for first in range(given.first, given.first + given.seeds, CHUNK)
    ]
    found: list[Outcome] = []
    reached: dict[str, int] = {}
    # Fresh interpreters now and then: a run leaves its dead behind.
    with get_context("spawn").Pool(given.processes, maxtasksperchild=20) as pool:
        for failed, counts in pool.imap_unordered(run_chunk, chunks):
            for outcome in failed:
                found.append(outcome)
                print(
                    f"seed {outcome.seed}: {outcome.violations[0]}\n    {COMMAND} --seed {outcome.seed}",
                    flush=True,
                )
            for name, count in counts.items():
                reached[name] = reached.get(name, 0) + count
    took_s = time.monotonic() - begun
    print(", ".join(f"{name} {count}" for name, count in sorted(reached.items())))
    print(
        f"{given.seeds} seeds in {took_s:.0f} s on {given.processes} processes: {given.seeds / took_s * 60:.0f} a minute, "
        f"{len(found)} broken"
    )
    return 1 if found else 0


def _one(seed: int, mutation: str) -> int:
    world = World(seed, mutation=mutation, tell=True)
    violations = world.run()
    print("\n".join(world.lines or []))
    print(
        f"seed {seed}: {world.reached()['acknowledged']} alerts acknowledged, {len(violations)} laws broken"
    )
    for how in violations:
        print(f"  {how}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
