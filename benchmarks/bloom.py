"""The filter in front of delivery ids on disk: false positives and cost, at capacity and across a rotation.

python -m benchmarks.bloom [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path

from actors import delivery
from actors.delivery import DeliveryWindow
from benchmarks.harness import RESULTS
from benchmarks.own import say, write
from models.shard.messages import AlertsArrived
from services.stores.memory.delivery_ids import MemoryDeliveryIds
from services.stores.memory.store import MemoryStore

PROBES = 200_000
WINDOW_S = 600.0


async def run(ids: int) -> dict[str, object]:
    """Fill one filter with `ids`, then ask for ids that were never added."""
    window = DeliveryWindow(MemoryDeliveryIds(MemoryStore(), "shard/0000"), WINDOW_S)
    begun = time.perf_counter()
    for start in range(0, ids, 1000):
        await window.add(
            [(f"default/v1/{number}", start / ids * WINDOW_S, b"x") for number in range(start, start + 1000)]
        )
    add_us = (time.perf_counter() - begun) / ids * 1e6
    probes = [
        AlertsArrived(b"", "default", "v1", [], [], [], delivery_id=f"default/v1/new-{n}")
        for n in range(PROBES)
    ]
    begun = time.perf_counter()
    await window.look_up(probes)
    probe_us = (time.perf_counter() - begun) / PROBES * 1e6
    known = [
        AlertsArrived(b"", "default", "v1", [], [], [], delivery_id=f"default/v1/{n}")
        for n in range(0, ids, 100)
    ]
    await window.look_up(known)
    missed = sum(window.mark(each).delivered_before is None for each in known)
    rate = window.false_positives / PROBES
    say(
        f"{ids:,} ids: {rate:.3%} false positives, add {add_us:.1f} us, look-up of a new id {probe_us:.1f} us, missed {missed}"
    )
    return {
        "ids": ids,
        "probes": PROBES,
        "false_positive_rate": rate,
        "add_us": add_us,
        "probe_us": probe_us,
        "missed": missed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the capacity")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    sizes = (
        [delivery.FILTER_CAPACITY // 10]
        if arguments.quick
        else [delivery.FILTER_CAPACITY, delivery.FILTER_CAPACITY * 3 // 2]
    )
    write("bloom", [asyncio.run(run(ids)) for ids in sizes], arguments.results)


if __name__ == "__main__":
    main()
