"""The longest time without a durable answer after SIGKILL of a shard, of a gateway, of HAProxy (claim c).

    python -m benchmarks.failover [--turns 5] [--quick]

One partition, so that a dead shard leaves nobody else to answer; two gateways. A sender with retries offers 3,000
alerts/s open loop; in the middle of each turn one process is killed. The gap is between two 2xx answers.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.bodies import Bodies
from benchmarks.harness import RESULTS, Target, generate
from benchmarks.load import Spec
from benchmarks.own import Own, own, say, write
from services.machine import launch

RATE_ALERTS_S = 3000
BATCH = 16
SERIES = 20_000
TURN_S = 12.0
KILL_AFTER_S = 5.0
#: Between turns: the killed process is back and the others have calmed down.
SETTLE_S = 3.0


def actor_pid(system: Own, name: str) -> int:
    """Who listens on an actor's socket."""
    instance = launch.running(system.data)
    assert instance is not None
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(Path(instance.private_dir) / f"{name}.sock"))
        pid, _uid, _gid = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def titled_pid(system: Own, words: str) -> int:
    """The first process of this instance whose command line has these words."""
    instance = launch.running(system.data)
    assert instance is not None
    mark = f"LLM_IM_INSTANCE={instance.instance_id}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if words in (folder / "cmdline").read_text() and mark in (folder / "environ").read_bytes():
                    return int(folder.name)
            except OSError:
                continue
    raise RuntimeError(f"no process of the instance is titled {words!r}")


KINDS: dict[str, Callable[[Own], int]] = {
    "shard": lambda system: actor_pid(system, "shard-0000-a"),
    "gateway": lambda system: titled_pid(system, "ServeReplica:llm-im:Gateways"),
    "haproxy": lambda system: titled_pid(system, "haproxy.cfg"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one turn each")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    cells: list[dict[str, object]] = []
    with own(STATE__PARTITIONS="1") as system:
        bodies = Bodies("repeats", SERIES, BATCH, passes=1)
        spec = Spec(
            bodies,
            mode="open",
            concurrency=16,
            duration_s=TURN_S,
            rate_per_s=RATE_ALERTS_S / BATCH,
            retry=True,
            preload=bodies,
            warmup_s=0.5,
        )
        generate(Target("ours", system.url), spec)
        for kind, find in KINDS.items():
            gaps, failed = [], 0
            for _ in range(1 if arguments.quick else arguments.turns):
                killer = threading.Timer(
                    KILL_AFTER_S, lambda find=find: os.kill(find(system), signal.SIGKILL)
                )
                killer.start()
                result = generate(
                    Target("ours", system.url),
                    Spec(
                        bodies,
                        mode="open",
                        concurrency=16,
                        duration_s=TURN_S,
                        rate_per_s=RATE_ALERTS_S / BATCH,
                        retry=True,
                        warmup_s=0.0,
                    ),
                )["measured"]
                killer.join()
                gaps.append(result.longest_gap_s)
                failed += result.failed
                time.sleep(SETTLE_S)
            cells.append(
                {
                    "killed": kind,
                    "gaps_s": gaps,
                    "median_s": median(gaps),
                    "worst_s": max(gaps),
                    "failed_requests": failed,
                    "n": len(gaps),
                }
            )
            say(
                f"{kind}: longest gap {median(gaps):.2f} s (worst {max(gaps):.2f}), failed {failed}, n={len(gaps)}"
            )
    write("failover", cells, arguments.results)


if __name__ == "__main__":
    main()
