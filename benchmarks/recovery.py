"""How long a shard takes from the start of its process until it answers again (claim d).

    python -m benchmarks.recovery [--quick]

A million alerts over 20,000 series in batches of 64, in the log of one partition on SQLite: without any snapshot,
and with the snapshot at its oldest (one frame before the next would begin). Also a million alerts that are all new: with
snapshots at the pace of the settings and the end at its worst, when the next one is written and only its mark is missing; and
without any, which a shard never leaves behind.
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
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import structlog

from actors.runtime.clock import SystemClock
from actors.shard import ShardOptions
from actors.snapshots import Pace, Snapshots
from benchmarks.fill import Filler, alerts
from benchmarks.harness import RESULTS, ROOT
from benchmarks.own import say, write
from models.metrics import Meter
from models.partition.checkpoint import META, SNAPSHOT_VERSION
from models.ports import EventLog, Mark
from models.shard.settings import ShardSettings
from services.stores.choice import Place, open_stores

BATCH = 64
GROUP = 16
ALERTS, SERIES = 1_000_000, 20_000
#: The settings' defaults: a snapshot begins after so many frames, or events.
SNAPSHOT_EVERY_FRAMES = 20_000
SNAPSHOT_EVERY_EVENTS = 150_000
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
    shard = IncidentShard(Host("shard-0000-a", LocalCluster(), lambda why: None), ShardOptions(name, shards=["shard-0000-a"]),
        ShardSettings(max_open=10_000_000), log, archive, DeliveryWindow(ids, 600.0), SystemClock())
    await shard.start()
    while not json.loads(await shard.status(b""))["ready"]:
        await asyncio.sleep(0.005)
    ready = time.monotonic()
    said = json.loads(await shard.status(b""))
    await shard.stop()
    print(json.dumps({"import_s": imported - begun, "recover_s": ready - imported, "total_s": ready - begun, "cpu_s": time.process_time(), **said}))
asyncio.run(main())
"""


class Paced:
    """The snapshots that a shard's actor takes, a group of messages after the other."""

    def __init__(self, log: EventLog, epoch: int) -> None:
        options = ShardOptions(PARTITION)
        pace = Pace(
            options.snapshot_every_frames,
            options.snapshot_every_events,
            options.snapshot_every_bytes,
            options.snapshot_every_s,
        )
        logger = structlog.get_logger()
        self._snapshots = Snapshots(log, Meter("benchmark"), SystemClock(), logger, lambda _task: None, pace)
        self._log, self._epoch = log, epoch
        self._events = 0

    async def appended(self, filler: Filler, frames: Sequence[bytes]) -> bool:
        """These are in the log. True at the worst moment: a snapshot is about to get its mark."""
        self._snapshots.decided(filler.events - self._events)
        self._events = filler.events
        self._snapshots.appended(len(frames), sum(map(len, frames)))
        if filler.shard.checkpoint.is_running and self._snapshots.share >= 1 and await self._log.marks():
            return True
        await self._snapshots.write_slice(filler.shard, self._epoch, filler.digest)
        return False

    async def stop(self) -> None:
        await self._snapshots.stop()


async def fill(place: Place, total: int, series: int, *, snapshot: bool = False, pace: bool = False) -> int:
    """Write the log; returns frames that recovery replays. With `pace` it is longer than `total`, until the worst moment."""
    log = open_stores(place).log(PARTITION)
    opened = await log.open("benchmark", time.time(), 0.0)
    filler = Filler(PARTITION, SETTINGS)
    # With `pace` it goes on until the snapshot is written that is due next, and the first of all is behind it.
    more = max(series, SNAPSHOT_EVERY_EVENTS) - series + 2 * SNAPSHOT_EVERY_EVENTS if pace else 0
    known = alerts(series + more, min(series, 1000))
    frames: list[bytes] = []
    now = time.time() - 600
    paced = Paced(log, opened.epoch) if pace else None
    snapshot_at = max(series // BATCH + 1, total // BATCH - SNAPSHOT_EVERY_FRAMES + 1) if snapshot else -1
    count, is_worst = 0, not pace
    while count * BATCH < total or not is_worst:
        first = count * BATCH % len(known)
        frames.append(filler.tell(known[first : first + BATCH], now + count * BATCH / 20_000))
        count += 1
        if len(frames) == GROUP or count == snapshot_at:
            await log.append(opened.epoch, filler.shard.seq - len(frames) + 1, frames)
            if paced is not None:
                is_worst = await paced.appended(filler, frames)
            frames = []
        if count == snapshot_at:
            await _snapshot(log, opened.epoch, filler)
    if frames:
        await log.append(opened.epoch, filler.shard.seq - len(frames) + 1, frames)
    behind = count - max(0, snapshot_at)
    if paced is not None:
        await paced.stop()
        behind = count - (await log.marks())[0].seq
    await log.release(opened.epoch)
    await log.close()
    return behind


async def _snapshot(log: EventLog, epoch: int, filler: Filler) -> None:
    shard = filler.shard
    shard.checkpoint.touch(META, 0)
    shard.checkpoint.begin()
    while records := shard.checkpoint.slice(256 * 1024):
        await log.put_records(epoch, 1, records)
    checksum = shard.checkpoint.census().checksum()
    await log.close_snapshot(epoch, Mark(1, shard.seq, filler.digest, SNAPSHOT_VERSION, checksum))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, 2 turns")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    scale = 10 if arguments.quick else 1
    cases = [
        ("20,000 series, no snapshot", ALERTS // scale, SERIES // scale, {}),
        ("20,000 series, snapshot at its oldest", ALERTS // scale, SERIES // scale, {"snapshot": True}),
        ("a million new series, snapshot at its oldest", ALERTS // scale, ALERTS // scale, {"pace": True}),
        ("a million new series, no snapshot", ALERTS // scale, ALERTS // scale, {}),
    ]
    cells: list[dict[str, object]] = []
    place: Place
    for name, total, series, how in cases:
        with tempfile.TemporaryDirectory(prefix="llm-im-recovery-") as folder:
            place = {"backend": "sqlite", "folder": folder}
            replayed = asyncio.run(fill(place, total, series, **how))
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
            f" {median(float(str(turn['cpu_s'])) for turn in turns):.2f} s of CPU;"
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
