"""What a backup takes, what restoring takes, and what a backup costs those who send alerts meanwhile.

    python -m benchmarks.backup [--quick] [--no-ingest]

A partition after a million alerts over 20,000 series with its snapshot at its oldest, and 200,000 archived incidents of a
month: made, made again (the archive did not change), verified, restored into an empty SQLite store. Then 5,000 alerts/s
offered to our own system, in alternating turns alone and beside a process that makes one backup after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec

from actors.runtime.clock import SystemClock
from benchmarks.bodies import Bodies
from benchmarks.harness import RESULTS, ROOT, Target, generate
from benchmarks.load import Spec
from benchmarks.own import own, say, write
from benchmarks.recovery import ALERTS, SERIES, fill
from models.control.events import SlotsAssigned
from models.incidents.incident import Incident, IncidentState, incident_id
from models.partition.frames import NO_DIGEST, encode_frame
from models.partition.sharding import SlotMap
from models.ports import ArchivedIncident
from services.stores.choice import Stores, open_stores
from services.upkeep.backup import target as targets
from services.upkeep.backup.create import Made, create
from services.upkeep.backup.restore import restore
from services.upkeep.backup.verify import verify

ARCHIVED, DAYS = 200_000, 30
RATE_PER_S, BATCH, TURNS, TURN_S = 5000.0, 64, 3, 20.0
INGEST_SERIES = 20_000
_encoder = msgspec.msgpack.Encoder()

_ENDLESS = """
import asyncio, os, sys
os.nice(15)
from actors.runtime.clock import SystemClock
from services.upkeep.backup.create import create
from services.upkeep.backup.target import Target
from services.stores.choice import open_stores
async def main():
    stores = open_stores({"backend": "sqlite", "folder": sys.argv[1]})
    while True:
        await create(stores, Target(sys.argv[2]), SystemClock(), backend="sqlite")
        print("made", flush=True)
asyncio.run(main())
"""


async def control(stores: Stores) -> None:
    """A control partition that says: one shard."""
    slots = SlotMap.even(1)
    log = stores.log("control")
    epoch = (await log.open("benchmark", time.time(), 0.0)).epoch
    event = SlotsAssigned(slots.version, array("H", slots.owners).tobytes())
    frame, _digest = encode_frame(1, time.time() - 3600, "default", None, [event], NO_DIGEST)
    await log.append(epoch, 1, [frame])
    await log.close()


async def archive(stores: Stores, count: int) -> None:
    """Closed incidents of a month, each with a line of text and one alert."""
    port = stores.archive("shard/0000")
    oldest = time.time() - 3600 - DAYS * 86400
    labels = {"alertname": "HighLatency", "service": "llm-api", "namespace": "production"}
    alerts = _encoder.encode([{"labels": labels, "startsAt": "2026-01-01T00:00:00Z", "status": "resolved"}])
    page: list[ArchivedIncident] = []
    for number in range(count):
        at = oldest + number * DAYS * 86400 / count
        identity = incident_id(number % 4096, at, 1, number, f"group-{number}")
        record = Incident(
            identity, number % 4096, "default", "llm-api", f"group-{number}", labels, f"HighLatency on pod {number}",
            "The error ratio of the last five minutes is over its threshold.", "alertmanager", labels, {}, at, at + 1800,
            state=IncidentState.CLOSED, closed_at=at + 1800,
        )  # fmt: skip
        page.append(
            ArchivedIncident(
                identity,
                "default",
                "llm-api",
                "Closed",
                2,
                "Latency",
                at,
                at + 1800,
                at + 1800,
                _encoder.encode(record),
                alerts,
            )
        )
        if len(page) == 1000:
            await port.put(page)
            page = []
    await port.put(page)
    await port.close()


async def whole(folder: Path, scale: int) -> list[dict[str, object]]:
    """Made, made again, verified, restored; a cell each."""
    place = {"backend": "sqlite", "folder": str(folder / "store")}
    await fill(place, ALERTS // scale, SERIES // scale, snapshot=True)
    stores = open_stores(place)
    await control(stores)
    await archive(stores, ARCHIVED // scale)
    target = targets.Target(str(folder / "kept"))
    source_bytes = sum(file.stat().st_size for file in (folder / "store").rglob("*"))
    cells: list[dict[str, object]] = []

    def cell(case: str, began: float, **more: object) -> None:
        took_s = time.monotonic() - began
        cells.append({"case": case, "seconds": took_s, "store_bytes": source_bytes, **more})
        say(f"{case}: {took_s:.2f} s {more or ''}")

    made: list[Made] = []
    for case in ("made", "made again, the archive as it was"):
        began = time.monotonic()
        made.append(await create(stores, target, SystemClock(), backend="sqlite"))
        cell(
            case,
            began,
            bytes=sum(made[-1].backup.files().values()),
            written_bytes=made[-1].written_bytes,
        )
    began = time.monotonic()
    checked = await verify(target, made[-1].backup)
    assert checked.is_whole, checked
    cell("verified", began)
    began = time.monotonic()
    into = open_stores({"backend": "sqlite", "folder": str(folder / "new")})
    done = await restore(into, target, made[-1].backup, SystemClock())
    cell("restored into SQLite", began, series=done.reached["shard/0000"].counts["series"])
    return cells


@contextmanager
def endless(store: Path, kept: Path) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-c", _ENDLESS, str(store), str(kept)], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        yield child
    finally:
        child.terminate()
        child.wait()


def ingest(turns: int, turn_s: float) -> list[dict[str, object]]:
    """Latency of 5,000 alerts/s, alone and beside backups without a pause."""
    found: dict[str, list[float]] = {"alone": [], "beside backups without a pause": []}
    made = 0
    bodies = Bodies("repeats", INGEST_SERIES, BATCH, passes=1)
    with own() as system:
        spec = Spec(
            bodies, mode="open", concurrency=16, duration_s=turn_s, rate_per_s=RATE_PER_S / BATCH, preload=bodies, warmup_s=2.0
        )  # fmt: skip
        target = Target("ours", system.url)
        for _ in range(turns):
            for case, samples in found.items():
                if case == "alone":
                    samples.append(_p99(target, spec))
                    continue
                with endless(system.data / "store", system.data / "kept") as child:
                    samples.append(_p99(target, spec))
                assert child.stdout is not None
                made += len(child.stdout.read().split())
                shutil.rmtree(system.data / "kept")
    for case, samples in found.items():
        say(f"{RATE_PER_S:,.0f} alerts/s {case}: P99 {median(samples):.1f} ms, n={len(samples)}")
    return [
        {"case": f"{RATE_PER_S:,.0f} alerts/s {case}", "p99_ms": samples, "median_p99_ms": median(samples), "backups": made}
        for case, samples in found.items()
    ]  # fmt: skip


def _p99(target: Target, spec: Spec) -> float:
    result = generate(target, spec)["measured"]
    assert not result.errors, result.errors
    return float(result.latency_ms["p99"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, one turn of 5 s")
    parser.add_argument("--no-ingest", action="store_true", help="without a running system")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llm-im-backup-") as folder:
        cells = asyncio.run(whole(Path(folder), 10 if arguments.quick else 1))
    if not arguments.no_ingest:
        cells += ingest(1 if arguments.quick else TURNS, 5.0 if arguments.quick else TURN_S)
    write("backup", cells, arguments.results)


if __name__ == "__main__":
    main()
