"""How fast a shard's log is on each store, beside SQLite in alternating turns of one run.

    python -m benchmarks.stores [--quick]

Appends as a shard makes them: frames of 64 alerts each that repeat known series, alone (one sender) and sixteen in one
append (group commit under load). Then the whole log is read back as recovery does. Every store is set up to keep what
it acknowledges: SQLite and PostgreSQL sync each commit, Redis each write.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

from benchmarks.fill import Filler, alerts
from benchmarks.harness import RESULTS
from benchmarks.own import say, write
from benchmarks.peers import postgres, redis
from models.ports import EventLog
from models.shard.settings import ShardSettings
from services.stores.choice import open_stores

BATCH = 64
SERIES = 20_000
GROUPS = (1, 16)
#: Appends of one turn. Many short turns: what else the machine does then spoils pairs, not the median.
APPENDS = 200
TURNS = 15
PARTITION = "shard/0000"


@dataclass(slots=True)
class Turn:
    """What one turn on one store took."""

    appends_per_s: float
    alerts_per_s: float
    p99_ms: float
    read_alerts_per_s: float


@dataclass(slots=True)
class Store:
    name: str
    open: Callable[[str], EventLog]
    turns: list[Turn] = field(default_factory=list)


def frames_of(group: int, appends: int) -> list[list[bytes]]:
    """The frames of each append, each frame a request of 64 alerts; the first appends bring the series."""
    filler = Filler(PARTITION, ShardSettings(max_open=10_000_000))
    known = alerts(SERIES, 1000)
    now = time.time() - 600
    made: list[list[bytes]] = []
    for number in range(appends):
        made.append([])
        for place in range(group):
            start = (number * group + place) * BATCH % SERIES
            made[-1].append(filler.tell(known[start : start + BATCH], now + number / 1000))
    return made


async def turn(log: EventLog, appends: Sequence[Sequence[bytes]], unmeasured: int) -> Turn:
    epoch = (await log.open("benchmark", time.time(), 3600.0)).epoch
    seq, took_s = 1, []
    for frames in appends:
        begun = time.perf_counter()
        await log.append(epoch, seq, frames)
        took_s.append(time.perf_counter() - begun)
        seq += len(frames)
    measured = took_s[unmeasured:]
    alerts_each = BATCH * len(appends[0])
    begun = time.perf_counter()
    after = 0
    while page := await log.read(after):
        after = page[-1][0]
    read_s = time.perf_counter() - begun
    await log.close()
    rate = len(measured) / sum(measured)
    return Turn(rate, rate * alerts_each, quantiles(measured, n=100)[-1] * 1000, after * BATCH / read_s)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a quarter of the appends, 3 turns")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    appends, turns = (APPENDS // 4, 3) if arguments.quick else (APPENDS, TURNS)
    cells: list[dict[str, object]] = []
    with (
        tempfile.TemporaryDirectory(prefix="llm-im-stores-") as folder,
        redis() as server,
        postgres() as database,
    ):

        def on_sqlite(name: str) -> EventLog:
            return open_stores({"backend": "sqlite", "folder": str(Path(folder, name))}).log(PARTITION)

        def on_redis(name: str) -> EventLog:
            return open_stores({"backend": "redis", "url": server.url, "prefix": name}).log(PARTITION)

        def on_postgres(name: str) -> EventLog:
            schema = f"bench_{name.replace('-', '_')}"
            place = {"backend": "postgres", "url": database.url, "schema": schema}
            return open_stores(place).log(PARTITION)

        for group in GROUPS:
            # New series make frames of another size: they are brought first, and not measured.
            unmeasured = SERIES // BATCH // group + 1
            given = frames_of(group, unmeasured + appends)
            stores = [Store("sqlite", on_sqlite), Store("redis", on_redis), Store("postgres", on_postgres)]
            for number in range(turns):
                for store in stores:
                    log = store.open(f"{group}-{number}")
                    store.turns.append(asyncio.run(turn(log, given, unmeasured)))
            cells += [cell(group, store, stores[0], given[-1]) for store in stores]
    write("stores", cells, arguments.results)


def cell(group: int, store: Store, sqlite: Store, frames: Sequence[bytes]) -> dict[str, object]:
    def ratios(what: Callable[[Turn], float]) -> list[float]:
        return [what(own) / what(other) for own, other in zip(store.turns, sqlite.turns, strict=True)]

    appends, reads = ratios(lambda each: each.alerts_per_s), ratios(lambda each: each.read_alerts_per_s)
    found: dict[str, object] = {
        "store": store.name,
        "frames_an_append": group,
        "alerts_a_frame": BATCH,
        "append_bytes": sum(map(len, frames)),
        "n": len(store.turns),
        "alerts_per_s": median(each.alerts_per_s for each in store.turns),
        "append_p99_ms": median(each.p99_ms for each in store.turns),
        "read_alerts_per_s": median(each.read_alerts_per_s for each in store.turns),
        "appends_over_sqlite": {"median": median(appends), "least": min(appends), "most": max(appends)},
        "reads_over_sqlite": {"median": median(reads), "least": min(reads), "most": max(reads)},
    }
    say(
        f"{store.name:<8} {group:>2} x 64 alerts an append: {found['alerts_per_s']:>9,.0f} alerts/s,"
        f" P99 {found['append_p99_ms']:.1f} ms, {median(appends):.2f} x SQLite ({min(appends):.2f} to"
        f" {max(appends):.2f}); read back {found['read_alerts_per_s']:,.0f} alerts/s, {median(reads):.2f} x"
    )
    return found


if __name__ == "__main__":
    main()
