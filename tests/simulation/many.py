"""Many runs in one process, with the garbage of the dead collected between them."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from tests.simulation.world import World

COMMAND = "python -m tests.simulation"
#: A run leaves some hundred thousand objects in cycles, 5 MB; collecting after each would cost as much as the run.
COLLECT_EVERY = 25


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run that broke a law."""

    seed: int
    violations: list[str]


def run_many(
    seeds: Iterable[int], *, mutation: str = "", stop_at_first: bool = False
) -> tuple[list[Outcome], dict[str, int]]:
    """The runs that broke a law, and how often each thing happened in all of them."""
    failed: list[Outcome] = []
    reached: dict[str, int] = {}
    collects = gc.isenabled()
    world: World | None = None
    gc.disable()
    gc.freeze()  # what was there before is none of the runs', and need not be gone through each time
    try:
        for count, seed in enumerate(seeds):
            world = World(seed, mutation=mutation)
            violations = world.run()
            if violations:
                failed.append(Outcome(seed, violations))
                if stop_at_first:
                    break
            for name, times in world.reached().items():
                reached[name] = reached.get(name, 0) + times
            if count % COLLECT_EVERY == COLLECT_EVERY - 1:
                _collect()
    finally:
        del world
        _collect()
        gc.unfreeze()
        if collects:
            gc.enable()
    return failed, reached


def _collect() -> None:
    with warnings.catch_warnings():
        # Some coroutines were killed before they ever ran: that is what killing is.
        warnings.simplefilter("ignore", RuntimeWarning)
        gc.collect()


def run_chunk(chunk: tuple[int, int, str]) -> tuple[list[Outcome], dict[str, int]]:
    """(first seed, how many, mutation) -> run_many() of them: a process's portion."""
    first, count, mutation = chunk
    return run_many(range(first, first + count), mutation=mutation)
