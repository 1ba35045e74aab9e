"""Ten simulated days at 100,000 incidents a day: what they leave on disk and in memory (claim h).

    python -m benchmarks.ten_days [--days 10] [--quick]          (40 s a day)

A real shard actor on real SQLite files, its clock turned by hand: incidents open, are classified, repeat, resolve
after ten minutes, close after an hour and go to the archive. One partition takes all of it.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import msgspec

from actors.classifier import ClassifierActor
from actors.delivery import DeliveryWindow
from actors.runtime.host import Host
from actors.runtime.local import LocalCluster
from actors.shard import IncidentShard, ShardOptions
from benchmarks.fill import Filled, alerts
from benchmarks.harness import RESULTS
from benchmarks.own import say, write
from models.classification.rules import Classifier
from models.shard.messages import AlertsArrived, encode
from models.shard.settings import ShardSettings
from services.stores.sqlite.archive import SqliteArchive
from services.stores.sqlite.delivery import SqliteDeliveryIds
from services.stores.sqlite.log import SqliteEventLog

DAY_S = 86400
PER_DAY = 100_000
#: Simulated time between two turns of the clock.
STEP_S = 60
REPEATS = 3
OPEN_FOR_S = 600
PARTITION = "shard/0000"
START = 1_800_000_000.0


class HandClock:
    """Port Clock, turned by hand. What is measured (reception gaps, a store that hangs) is measured in real time."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return time.monotonic()


async def run(days: int, per_day: int, folder: Path) -> dict[str, object]:
    clock, cluster = HandClock(), LocalCluster()
    archive = SqliteArchive(folder, PARTITION)
    holder: list[IncidentShard] = []

    def make(host: Host) -> IncidentShard:
        options = ShardOptions(PARTITION, classifiers=["classifier-0"])
        stores = (
            SqliteEventLog(folder, PARTITION),
            archive,
            DeliveryWindow(SqliteDeliveryIds(folder, PARTITION), 600),
        )
        holder.append(IncidentShard(host, options, ShardSettings(expiry_grace_s=0.0), *stores, clock))
        return holder[-1]

    await cluster.start("classifier-0", lambda host: ClassifierActor(host, Classifier()))
    await cluster.start("shard-0000-a", make)
    shard = holder[0]
    while b'"ready":true' not in await shard.status(b""):
        await asyncio.sleep(0.01)
    last_step = days * DAY_S // STEP_S
    calls = 0

    async def tell(batch: list[Filled], ends: float) -> None:
        nonlocal calls
        calls += 1
        message = AlertsArrived(
            calls.to_bytes(16, "big"),
            "default",
            "alertmanager",
            [each.key for each in batch],
            [ends] * len(batch),
            [each.body for each in batch],
        )
        await shard.tell(msgspec.msgpack.encode([encode(message)]))

    young: list[tuple[float, list[Filled]]] = []
    opened = 0
    begun = time.monotonic()
    peak = 0
    each_day: list[dict[str, object]] = []
    for step in range(last_step + 120):
        clock.at = START + step * STEP_S
        if step and step % (DAY_S // STEP_S) == 0:
            each_day.append(
                {
                    "incidents_in_shard": len(shard.shard.state.incidents),
                    "resident_bytes": resident_bytes(),
                    "disk_bytes": disk_bytes(folder),
                    "took_s": round(time.monotonic() - begun, 1),
                }
            )
        if step < last_step:
            per_step = per_day * (step + 1) * STEP_S // DAY_S - opened
            batch = alerts(per_step, per_step, run=f"{step}", name=f"Alert{step}x", starts_at=clock.at)
            opened += len(batch)
            young.append((clock.at, batch))
        for at, batch in young:
            age_s = clock.at - at
            if age_s >= OPEN_FOR_S:
                await tell(batch, clock.at - 1)
            elif age_s <= REPEATS * STEP_S:
                await tell(batch, clock.at + 300)
        young = [(at, batch) for at, batch in young if clock.at - at < OPEN_FOR_S]
        # The shard looks at its deadlines ten times a second of real time; give it the chance.
        await asyncio.sleep(0.11 if step % 30 == 0 else 0)
        peak = max(peak, len(shard.shard.state.incidents))
    for _ in range(600):
        if not shard.shard.state.incidents:
            break
        clock.at += STEP_S
        await shard.beat(b"")
        await asyncio.sleep(0.11)
    resident = resident_bytes()
    left = len(shard.shard.state.incidents)
    found = {
        "days": days,
        "incidents": opened,
        "incidents_left_in_shard": left,
        "most_incidents_in_shard": peak,
        "archived": await archive.count(),
        "resident_bytes": resident,
        "took_s": round(time.monotonic() - begun, 1),
        "at_the_end_of_each_day": each_day,
    }
    await cluster.stop()
    found["disk_bytes"] = disk_bytes(folder)
    return found


def resident_bytes() -> int:
    """Of this process: shard, classifier and what plays the senders."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def disk_bytes(folder: Path) -> dict[str, int]:
    """By file and, of the archive, folder of files."""
    found: dict[str, int] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            name = file.relative_to(folder).parts[0]
            found[name] = found.get(name, 0) + file.stat().st_size
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="one day of 10,000")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llm-im-days-") as folder:
        days, per_day = (1, 10_000) if arguments.quick else (arguments.days, PER_DAY)
        found = asyncio.run(run(days, per_day, Path(folder)))
    disk = found["disk_bytes"]
    total = sum(disk.values()) if isinstance(disk, dict) else 0
    say(f"{found['incidents']:,} incidents in {found['days']} days: {total / 1e6:.0f} MB on disk, {found}")
    write("ten_days", [found], arguments.results)


if __name__ == "__main__":
    main()
