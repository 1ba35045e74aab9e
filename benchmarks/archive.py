"""Lists of closed incidents from a full archive, and what one takes on the disk: ten million on SQLite, in one partition
and in two, and fewer on PostgreSQL and Redis (claim: P99 of a list < 200 ms).

    python -m benchmarks.archive [--store sqlite] [--incidents 10000000] [--partitions 1] [--days 90] [--quick]
        [--folder DIR] [--url URL]

Incidents of three alerts each are made by the model, closed by it, and then varied: own id, times, service, severity, type
and labels, over --days days. Lists are asked as a gateway asks them, 100 a page, each record decoded and tested by the
filter, at random values; with more partitions all at once. Before each kind the files leave the page cache, as after a
quiet night, where they are ours to drop (SQLite). Each store is a run: its cell says of which commit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import msgspec

from benchmarks.fill import Filler, alerts
from benchmarks.harness import RESULTS, commit
from benchmarks.own import say, write
from benchmarks.peers import postgres, redis
from models.alerts.matchers import parse_matcher
from models.alerts.view import alert_view
from models.incidents.filters import IncidentFilter, Position, Sort, compile_filter
from models.incidents.incident import Incident, IncidentState, IncidentType, Severity, incident_id
from models.partition.sharding import slot_of
from models.ports import Archive, ArchivedIncident, ArchivePage, ArchiveQuery
from models.shard.effects import Classify
from models.shard.messages import Classification, Classified, Tick
from models.shard.settings import ShardSettings
from services.api.asking import decode_incident
from services.stores.choice import open_stores

INCIDENTS = {"sqlite": 10_000_000, "postgres": 1_000_000, "redis": 500_000}
SERVICES = 200
NAMES = 20
#: One in so many incidents bears a given `release`.
RELEASES = 5000
DAYS = 90  # the usual `lifecycle.retention`
DAY_S = 86_400.0
BEGUN = 1_780_000_000.0
BATCH = 5000
PAGE = 100
ROUNDS = 300
_encoder = msgspec.msgpack.Encoder()


def templates() -> list[tuple[Incident, bytes]]:
    """Closed incidents with their encoded alerts, as a shard hands them to its archive: one a service and name."""
    filler = Filler("shard/0000", ShardSettings(group_by=("alertname",), max_open=1_000_000))
    shard = filler.shard
    for name in range(NAMES):
        filler.tell(
            alerts(3 * SERVICES, SERVICES, services=SERVICES, name=f"Latency{name}Of", run=f"n{name}"),
            BEGUN,
            BEGUN + 60.0,
        )
    questions = [
        effect for effect in shard.started("benchmark", BEGUN).effects if isinstance(effect, Classify)
    ]
    verdicts = [
        Classification(each.incident_id, Severity.P2, IncidentType.APPLICATION, "users wait", "rule latency", 0.9, each.asked)
        for each in questions
    ]  # fmt: skip
    shard.handle(Classified(verdicts), BEGUN + 1.0)
    now = BEGUN + 1000.0
    while any(each.state is not IncidentState.CLOSED for each in shard.state.incidents.values()):
        now += 60.0
        shard.handle(Tick(), now)
    return [
        (
            each,
            _encoder.encode(
                [alert_view(shard.state.series, number) for number in shard.state.members[each.id]]
            ),
        )
        for each in shard.state.incidents.values()
    ]


def incidents(count: int, partition: int, partitions: int, days: int) -> Iterator[list[ArchivedIncident]]:
    """Batches of the incidents of one partition, in the order in which they were created."""
    chance = random.Random(partition)
    made_of = [each for each in templates() if slot_of("default", each[0].service) % partitions == partition]
    # A few services have most of the incidents.
    weights = [1.0 / (1 + number % SERVICES) for number in range(len(made_of))]
    severities = (
        [Severity.P0] + 4 * [Severity.P1] + 25 * [Severity.P2] + 40 * [Severity.P3] + 30 * [Severity.P4]
    )
    types = list(IncidentType)
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        batch = []
        for number, (like, of_it) in enumerate(chance.choices(made_of, weights, k=size), start):
            at = BEGUN + number * (days * DAY_S / count)
            resolved_at = at + chance.expovariate(1 / 3600.0)
            closed_at = resolved_at + 3600.0
            incident = msgspec.structs.replace(
                like,
                id=incident_id(like.slot, at, 1, number, like.group_key),
                labels={**like.labels, "release": f"r{number % RELEASES}"},
                created_at=at,
                opened_at=at,
                resolved_at=resolved_at,
                closed_at=closed_at,
                updated_at=closed_at,
                severity=chance.choice(severities),
                type=chance.choice(types),
            )
            batch.append(
                ArchivedIncident(
                    incident.id, incident.tenant, incident.service, incident.state, incident.severity, incident.type,
                    incident.created_at, incident.closed_at, incident.updated_at, _encoder.encode(incident), of_it,
                )
            )  # fmt: skip
        yield batch


async def fill(archives: Sequence[Archive], count: int, days: int) -> int:
    """Each partition's share, unless it is there already; the next batch is made while one is put. How many were put."""
    put = 0
    for partition, archive in enumerate(archives):
        share = count // len(archives)
        if await archive.count() == share:
            continue
        done, begun = 0, time.monotonic()
        batches = incidents(share, partition, len(archives), days)
        batch = next(batches, None)
        while batch:
            putting = asyncio.create_task(archive.put(batch))
            await asyncio.sleep(0)
            done, batch = done + len(batch), next(batches, None)
            await putting
            if done % 500_000 == 0:
                say(f"partition {partition}: {done:,} after {time.monotonic() - begun:.0f} s")
        put += done
    return put


#: A kind of list, at random values: order, filter, and from where on.
Kind = Callable[[random.Random], tuple[Sort, IncidentFilter, Position | None]]


def kinds(days: int) -> dict[str, Kind]:
    services = sorted({incident.service for incident, _alerts in templates()})

    def at(chance: random.Random, up_to: int = days) -> float:
        return BEGUN + chance.random() * up_to * DAY_S

    def service(chance: random.Random) -> list[str]:
        return [chance.choice(services)]

    def label(text: str) -> IncidentFilter:
        return IncidentFilter(matchers=[parse_matcher(text)])

    def day(chance: random.Random) -> IncidentFilter:
        since = at(chance, days - 1)
        return IncidentFilter(created_after=since, created_before=since + DAY_S)

    def deep(chance: random.Random) -> Position:
        when = at(chance)
        return when, when, b""

    newest = Sort.NEWEST
    return {
        "newest": lambda chance: (newest, IncidentFilter(), None),
        "a page deep in": lambda chance: (newest, IncidentFilter(), deep(chance)),
        "oldest": lambda chance: (Sort.OLDEST, IncidentFilter(), None),
        "of a service": lambda chance: (newest, IncidentFilter(services=service(chance)), None),
        "of thirty services": lambda chance: (newest, IncidentFilter(services=chance.sample(services, 30)), None),
        "of P0": lambda chance: (newest, IncidentFilter(severities=[0]), deep(chance)),
        "of a type": lambda chance: (newest, IncidentFilter(types=[chance.choice(list(IncidentType))]), deep(chance)),
        "of P0 of a service": lambda chance: (newest, IncidentFilter(services=service(chance), severities=[0]), None),
        "created on a day": lambda chance: (newest, day(chance), None),
        "P1 of a type on a day": lambda chance: (
            newest, msgspec.structs.replace(day(chance), severities=[1], types=[IncidentType.DATA]), None
        ),
        "a label of one in twenty": lambda chance: (
            newest, label(f'alertname=~"Latency{chance.randrange(NAMES)}Of.*"'), deep(chance)
        ),
        "a label of one in five thousand": lambda chance: (
            newest, label(f"release=r{chance.randrange(RELEASES)}"), deep(chance)
        ),
        "lately updated": lambda chance: (Sort.LATELY_UPDATED, IncidentFilter(), deep(chance)),
        "lately updated of a service": lambda chance: (
            Sort.LATELY_UPDATED, IncidentFilter(services=service(chance)), deep(chance)
        ),
        "lately updated of no service": lambda chance: (
            Sort.LATELY_UPDATED, IncidentFilter(services=["none"]), deep(chance)
        ),
        "worst first": lambda chance: (Sort.WORST, IncidentFilter(), None),
    }  # fmt: skip


async def asked(archives: Sequence[Archive], kind: Kind, chance: random.Random) -> int:
    """One list, of all partitions at once; how many incidents came."""
    sort, wanted, after = kind(chance)
    holds = compile_filter(wanted)
    query = ArchiveQuery(
        "default", PAGE, after, tuple(wanted.services), tuple(wanted.severities), tuple(wanted.types), sort,
        wanted.created_after, wanted.created_before, wanted.updated_after, wanted.updated_before,
        lambda record: holds(decode_incident(record)),
    )  # fmt: skip
    pages: list[ArchivePage] = await asyncio.gather(*(archive.page(query) for archive in archives))
    return min(PAGE, sum(len(page.items) for page in pages))


async def measure(
    archives: Sequence[Archive], days: int, rounds: int, forget: Callable[[], None]
) -> list[dict[str, object]]:
    cells: list[dict[str, object]] = []
    for name, kind in kinds(days).items():
        chance = random.Random(name)
        forget()
        took_ms, found = [], 0
        for _ in range(rounds):
            begun = time.perf_counter()
            found += await asked(archives, kind, chance)
            took_ms.append((time.perf_counter() - begun) * 1000)
        cuts = quantiles(took_ms, n=100)
        cells.append(
            {
                "list": name, "n": rounds, "p50_ms": round(cuts[49], 2), "p99_ms": round(cuts[98], 2),
                "max_ms": round(max(took_ms), 2), "found": round(found / rounds, 1),
            }
        )  # fmt: skip
        say(
            f"{name:<32} P50 {cuts[49]:7.1f} ms  P99 {cuts[98]:7.1f} ms  {found / rounds:5.1f} incidents a page"
        )
    return cells


@dataclass(frozen=True, slots=True)
class Full:
    """A store to be filled: its place, the bytes it takes on its disk (Redis: of memory), how to empty the page cache."""

    place: dict[str, object]
    takes_bytes: Callable[[], int]
    forget: Callable[[], None]


def of_sqlite(folder: Path) -> Full:
    def files() -> list[Path]:
        return [each for each in folder.rglob("*") if each.is_file()]

    def forget() -> None:
        for each in files():
            handle = os.open(each, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)

    return Full(
        {"backend": "sqlite", "folder": str(folder)},
        lambda: sum(each.stat().st_blocks * 512 for each in files()),
        forget,
    )


def of_postgres(url: str) -> Full:
    import psycopg

    def takes_bytes() -> int:
        with psycopg.connect(url, autocommit=True) as client:
            # Once tidied, as autovacuum does by and by: without it an index alone does not answer.
            for (table,) in client.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'bench'"
            ).fetchall():
                client.execute(f"VACUUM ANALYZE bench.{table}".encode())
            row = client.execute(
                "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'incidents%'"
            ).fetchone()
            return int(row[0]) if row else 0

    return Full({"backend": "postgres", "url": url, "schema": "bench"}, takes_bytes, lambda: None)


def of_redis(url: str) -> Full:
    from redis import Redis

    client = Redis.from_url(url)
    return Full(
        {"backend": "redis", "url": url}, lambda: int(client.info("memory")["used_memory"]), lambda: None
    )


async def run(
    store: str, full: Full, count: int, partitions: int, days: int, rounds: int
) -> dict[str, object]:
    stores = open_stores(full.place)
    archives = [stores.archive(f"shard/{number:04d}") for number in range(partitions)]
    begun = time.monotonic()
    put = await fill(archives, count, days)
    fill_s = time.monotonic() - begun
    for archive in archives:
        await archive.close()
    takes_bytes = full.takes_bytes()
    one = next(incidents(BATCH, 0, 1, days))
    archives = [stores.archive(f"shard/{number:04d}") for number in range(partitions)]
    lists = await measure(archives, days, rounds, full.forget)
    for archive in archives:
        await archive.close()
    cell: dict[str, object] = {
        "store": store, **commit(), "incidents": count, "partitions": partitions, "days": days,
        "fill_s": round(fill_s) if put else None,
        "record_bytes": round(sum(len(each.record) for each in one) / len(one)),
        "alerts_bytes": round(sum(len(each.alerts) for each in one) / len(one)),
        "stored_bytes_an_incident": round(takes_bytes / count), "lists": lists,
    }  # fmt: skip
    say(
        f"{store}: {count:,} incidents in {partitions} partitions, {cell['stored_bytes_an_incident']} bytes each"
    )
    return cell


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", choices=INCIDENTS, default="sqlite")
    parser.add_argument("--incidents", type=int)
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--days", type=int, default=DAYS, help="over how many days they are spread")
    parser.add_argument(
        "--folder", type=Path, help="SQLite: fill this folder and leave it, or measure it if it is full"
    )
    parser.add_argument("--url", help="PostgreSQL: this one and not one of our own, in the same way")
    parser.add_argument("--quick", action="store_true", help="20,000 incidents, 30 rounds")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    count = arguments.incidents or (20_000 if arguments.quick else INCIDENTS[arguments.store])
    rounds = 30 if arguments.quick else ROUNDS
    with ExitStack() as stack:
        if arguments.store == "redis":
            full = of_redis(stack.enter_context(redis()).url)
        elif arguments.store == "postgres":
            full = of_postgres(arguments.url or stack.enter_context(postgres()).url)
        elif arguments.folder:
            full = of_sqlite(arguments.folder)
        else:
            full = of_sqlite(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-im-archive-"))))
        cell = asyncio.run(run(arguments.store, full, count, arguments.partitions, arguments.days, rounds))
    path = arguments.results / "archive.json"
    # One run is one store, so many partitions and days: those of the others stay.
    before = json.loads(path.read_text("utf-8"))["cells"] if path.exists() else []
    others = [
        each
        for each in before
        if (each["store"], each["partitions"], each["days"])
        != (arguments.store, arguments.partitions, arguments.days)
    ]
    write("archive", [*others, cell], arguments.results)


if __name__ == "__main__":
    main()
