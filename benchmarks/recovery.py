"""How long a shard takes from the start of its process until it answers again (claim d).

    python -m benchmarks.recovery [--quick]

A million alerts over 20,000 series in batches of 64, in the log of one partition on SQLite: without any snapshot,
and with the snapshot at its oldest (one frame before the next would begin). Also a million alerts that are all new.
The process is a fresh Python that imports, opens, loads and replays exactly what an actor does; Ray's own part of a
restart is in benchmarks.failover.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.fill import Filler, alerts
from benchmarks.harness import RESULTS, ROOT
from benchmarks.own import say, write
from models.partition.checkpoint import META, SNAPSHOT_VERSION
from models.ports import EventLog, Mark
from models.shard.settings import ShardSettings
from services.stores.choice import Place, open_stores

BATCH = 64
GROUP = 16
ALERTS, SERIES = 1_000_000, 20_000
#: services/bootstrap's default: a snapshot begins after so many frames.
SNAPSHOT_EVERY_FRAMES = 20_000
TURNS = 5
PARTITION = "shard/0000"
SETTINGS = ShardSettings(max_open=10_000_000)

_CHILD = """
import time; begun = time.monotonic()
import asyncio, json, sys
from actors.runtime.clock import SystemClock
from actors.delivery import DeliveryWindow
from actors.runtime.host import Host
from actors.runtime.local import LocalCluster
from actors.shard import IncidentShard, ShardOptions
from models.shard.settings import ShardSettings
from services.stores.choice import open_stores
place = json.loads(sys.argv[1])
stores = open_stores(place)
name = "shard/0000"
log, archive, ids = stores.log(name), stores.archive(name), stores.delivery_ids(name)
imported = time.monotonic()
async def main():
    shard = IncidentShard(Host("shard-0000-a", LocalCluster(), lambda why: None), ShardOptions(name),
        ShardSettings(max_open=10_000_000), log, archive, DeliveryWindow(ids, 600.0), SystemClock())
    await shard.start()
    while not json.loads(await shard.status(b""))["ready"]:
        await asyncio.sleep(0.005)
    ready = time.monotonic()
    said = json.loads(await shard.status(b""))
    await shard.stop()
    print(json.dumps({"import_s": imported - begun, "recover_s": ready - imported, "total_s": ready - begun, **said}))
asyncio.run(main())
"""


async def fill(place: Place, total: int, series: int, *, snapshot: bool) -> int:
    """Write the log; returns frames that recovery replays."""
    log = open_stores(place).log(PARTITION)
    opened = await log.open("benchmark", time.time(), 0.0)
    filler = Filler(PARTITION, SETTINGS)
    known = alerts(series, min(series, 1000))
    frames: list[bytes] = []
    now = time.time() - 600
    snapshot_at = max(series // BATCH + 1, total // BATCH - SNAPSHOT_EVERY_FRAMES + 1) if snapshot else -1
    count = 0
    for start in range(0, total, BATCH):
        first = start % series
        frames.append(filler.tell(known[first : first + BATCH], now + start / 20_000))
        count += 1
        if len(frames) == GROUP or count == snapshot_at:
            await log.append(opened.epoch, filler.shard.seq - len(frames) + 1, frames)
            frames = []
        if count == snapshot_at:
            await _snapshot(log, opened.epoch, filler)
    if frames:
        await log.append(opened.epoch, filler.shard.seq - len(frames) + 1, frames)
    await log.release(opened.epoch)
    await log.close()
    return count - max(0, snapshot_at)


async def _snapshot(log: EventLog, epoch: int, filler: Filler) -> None:
    shard = filler.shard
    shard.checkpoint.touch(META, 0)
    shard.checkpoint.begin()
    while records := shard.checkpoint.slice(256 * 1024):
        await log.put_records(epoch, 1, records)
    checksum = shard.checkpoint.census().checksum()
    await log.close_snapshot(epoch, Mark(1, shard.seq, filler._digest, SNAPSHOT_VERSION, checksum))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, 2 turns")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    scale = 10 if arguments.quick else 1
    cases = [
        ("20,000 series, no snapshot", ALERTS // scale, SERIES // scale, False),
        ("20,000 series, snapshot at its oldest", ALERTS // scale, SERIES // scale, True),
        ("a million new series, no snapshot", ALERTS // scale, ALERTS // scale, False),
    ]
    cells: list[dict[str, object]] = []
    place: Place
    for name, total, series, snapshot in cases:
        with tempfile.TemporaryDirectory(prefix="llm-im-recovery-") as folder:
            place = {"backend": "sqlite", "folder": folder}
            replayed = asyncio.run(fill(place, total, series, snapshot=snapshot))
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
            turns = [turn(place) for _ in range(2 if arguments.quick else TURNS)]
        totals = [float(str(turn["total_s"])) for turn in turns]
        cells.append(
            {
                "case": name,
                "alerts": total,
                "series": series,
                "frames_replayed": replayed,
                "disk_bytes": size,
                "median_s": median(totals),
                "worst_s": max(totals),
                "turns": turns,
            }
        )
        say(
            f"{name}: {median(totals):.2f} s (worst {max(totals):.2f}), of it imports {turns[0]['import_s']:.2f} s;"
            f" {replayed:,} frames replayed, {size / 1e6:.0f} MB on disk, n={len(turns)}"
        )
    write("recovery", cells, arguments.results)


def turn(place: Place) -> dict[str, object]:
    """One start of the process over a log that is there: seconds, and what the shard says of itself."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, json.dumps(place)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
