"""Starts tests/cluster/senders.py as a process of its own, and judges what it was told. Used by the kill tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.cluster.instance import ROOT, Cluster
from tests.cluster.senders import DRAIN_S, Config, Told


@dataclass(slots=True)
class Load:
    """A sender under way; `told` once it has ended."""

    config: Config
    process: subprocess.Popen[bytes]
    told: Told = field(default_factory=Told)


@contextmanager
def sending(cluster: Cluster, out: Path, *, seed: int, **options: object) -> Iterator[Load]:
    """Send within; after it `told` is filled in. The process is gone when this ends, whatever happens."""
    probes = [cluster.service_of_shard(shard, "probe") for shard in range(cluster.partitions)]
    config = Config(cluster.url, str(out), seed, probes, **options)  # type: ignore[arg-type]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.cluster.senders", json.dumps(asdict(config))],
        cwd=out.parent, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE,
    )  # fmt: skip
    load = Load(config, process)
    try:
        time.sleep(1.5)  # its imports, and a first round without trouble
        yield load
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(DRAIN_S + 10) == 0, "the sender failed, see its words above"
        load.told = read(out)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def read(path: Path) -> Told:
    told = Told(**json.loads(path.read_text()))
    told.acknowledged = {
        door: {int(number): count for number, count in counts.items()}
        for door, counts in told.acknowledged.items()
    }
    return told


def longest_gap(answers: Sequence[float], begin: float, end: float) -> float:
    """The longest time between two answers, in seconds, from the last before `begin` to the first after `end`."""
    first = max(0, bisect_left(answers, begin) - 1)
    last = bisect_right(answers, end)
    times = list(answers[first : last + 1])
    if len(times) < 2:
        return end - begin
    return max(later - earlier for earlier, later in pairwise(times))
