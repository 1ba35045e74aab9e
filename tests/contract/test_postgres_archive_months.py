"""What the archive in PostgreSQL makes of its tables: one a partition and month, what an older version left, who comes at the
same moment, and the servers that keep one table."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from types import ModuleType
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from models.errors import Unavailable
from models.incidents.filters import Sort
from models.ports import ArchivedIncident, ArchiveQuery
from services.stores.memory.archive import MemoryArchive
from services.stores.memory.store import MemoryStore
from services.stores.postgres import archive as postgres_archive
from services.stores.postgres import archive_months as postgres_archive_months
from services.stores.postgres import lane
from services.stores.postgres import schema as postgres_schema
from services.stores.postgres.archive import PostgresArchive
from services.stores.postgres.options import PostgresOptions
from services.stores.postgres.server import server_of
from services.stores.shared.archive_months import ids_of, month_of
from tests.contract.conftest import NUMBERS, PARTITION
from tests.contract.postgres_peers import Server, url
from tests.contract.proxy import Proxy
from tests.contract.test_archive import MONTH_S, incident, pages, spread
from tests.contract.test_sqlite_archive_files import made_in
from tests.contract.trouble import refused

ALL = ArchiveQuery("default", 1000, sort=Sort.OLDEST)
OTHER = "shard/0008"
#: The newest migration before there were months.
BEFORE_MONTHS = 2


class Tables:
    """One new schema on the server: archives in it, each with connections of its own as another process would, and what
    tables there are."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.schema = f"months_{next(NUMBERS)}"
        self._opened: list[PostgresArchive] = []

    def archive(self, partition: str = PARTITION, port: int | None = None) -> PostgresArchive:
        options = PostgresOptions(
            url(port or self.server.port), self.schema, max_connections=8 + len(self._opened)
        )
        self._opened.append(PostgresArchive(options, partition))
        return self._opened[-1]

    def under(self, parent: str) -> list[str]:
        rows = self.server.ask(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
            f" WHERE inhparent = '{self.schema}.{parent}'::regclass ORDER BY 1"
        )
        return [str(name) for (name,) in rows]

    def all(self) -> set[str]:
        rows = self.server.ask("SELECT tablename FROM pg_tables WHERE schemaname = %s", self.schema)
        return {str(name) for (name,) in rows if str(name).startswith("incidents")}

    async def close(self) -> None:
        for each in self._opened:
            await each.close()


@pytest_asyncio.fixture
async def tables(postgres_server: Server) -> AsyncIterator[Tables]:
    made = Tables(postgres_server)
    yield made
    await made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for locks are short, and given up after three of them."""
    monkeypatch.setattr(postgres_archive_months, "LOCK_WAIT_MS", 20)
    monkeypatch.setattr(lane, "ATTEMPTS", 3)


def some(month: int, count: int = 5, **changes: object) -> list[ArchivedIncident]:
    return [made_in(2026, month, number, **changes) for number in range(count)]


# --- where an incident is ---


@pytest.mark.parametrize("identity", [b"", b"\xff" * 16, b"\x01\xb0", made_in(2026, 11, -1).incident_id])
def test_an_id_is_between_the_ends_of_its_month_and_months_join(identity: bytes) -> None:
    first, end = ids_of(month_of(identity))

    assert first <= identity < end
    assert end > b"\xff" * 16 or ids_of(month_of(end))[0] == end


@pytest.mark.asyncio
async def test_an_incident_is_in_the_table_of_its_partition_and_of_the_month_its_id_was_made_in(
    tables: Tables,
) -> None:
    archive, other = tables.archive(), tables.archive(OTHER)
    last_of_october = made_in(2026, 11, -1)

    await archive.put([made_in(2026, 12, 1), last_of_october, made_in(2026, 10, 1)])
    await other.put([made_in(2026, 11, 1)])

    assert tables.under("incidents_by_month") == ["incidents_shard_0007", "incidents_shard_0008"]
    assert tables.under("incidents_shard_0007") == [
        "incidents_shard_0007_2026_10", "incidents_shard_0007_2026_12",
    ]  # fmt: skip
    assert tables.under("incidents_shard_0008") == ["incidents_shard_0008_2026_11"]
    assert await archive.get(last_of_october.incident_id) == last_of_october
    assert await other.get(last_of_october.incident_id) is None


@pytest.mark.asyncio
async def test_ids_of_no_real_time_and_partitions_of_any_name_have_their_tables_too(tables: Tables) -> None:
    strange = "corr'elator/\"Ünï; DROP_"
    archive, plain = tables.archive(strange), tables.archive()
    far = [incident(0, incident_id=b"\x00" * 16), incident(1, incident_id=b"\xff" * 16)]

    await archive.put(far)
    await plain.put(far)

    assert await archive.read(b"") == await plain.read(b"") == far
    assert await archive.drop_before(1e12, 10) == 2
    assert await plain.count() == 2


# --- forgetting ---


@pytest.mark.asyncio
async def test_a_month_of_which_all_is_past_goes_as_a_table_and_the_one_at_the_edge_by_rows(
    tables: Tables,
) -> None:
    archive, reader, other = tables.archive(), tables.archive(), tables.archive(OTHER)
    october, november = some(10), some(11)
    await archive.put([*october, *november])
    await other.put(october)
    assert await reader.count() == 10

    dropped = await archive.drop_before(november[2].closed_at, 100)

    assert dropped == 7
    assert tables.under("incidents_shard_0007") == ["incidents_shard_0007_2026_11"]
    assert tables.all() == {
        "incidents_before_months", "incidents_by_month", "incidents_shard_0007", "incidents_shard_0007_2026_11",
        "incidents_shard_0008", "incidents_shard_0008_2026_10",
    }  # fmt: skip
    assert await reader.read(b"") == november[2:]
    assert await reader.get(october[0].incident_id) is None
    assert await other.read(b"") == october


@pytest.mark.asyncio
async def test_months_are_dropped_one_after_the_other_until_enough_is_forgotten(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_archive_months, "COUNTED_AT_ONCE", 2)
    archive = tables.archive()
    await archive.put([each for month in (8, 9, 10, 11) for each in some(month)])

    dropped = [await archive.drop_before(made_in(2026, 11, 2).closed_at, 7) for _ in range(3)]

    assert dropped == [10, 7, 0]
    assert await archive.read(b"") == some(11)[2:]


@pytest.mark.asyncio
async def test_a_month_that_was_dropped_begins_anew(tables: Tables) -> None:
    archive, reader = tables.archive(), tables.archive()
    first, second = some(10, 2)
    await archive.put([first])
    assert await reader.count() == 1
    assert await archive.drop_before(first.closed_at, 100) == 0

    assert await archive.drop_before(first.closed_at + 1, 100) == 1
    await archive.put([second])

    assert await reader.read(b"") == [second]


@pytest.mark.asyncio
async def test_a_month_that_all_were_removed_from_goes_when_something_is_forgotten(tables: Tables) -> None:
    archive = tables.archive()
    await archive.put(some(10))
    await archive.remove([each.incident_id for each in some(10)])

    assert await archive.drop_before(1.0, 10) == 0

    assert tables.under("incidents_shard_0007") == []


@pytest.mark.asyncio
async def test_a_month_is_kept_when_a_later_one_is_put_into_it_between_looking_and_dropping(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, late = tables.archive(), replace(made_in(2026, 10, 9), closed_at=9e9)
    await archive.put(some(10))
    meanwhile(monkeypatch, (postgres_archive_months, "counted"), lambda: tables.archive().put([late]))

    assert await archive.drop_before(some(10)[4].closed_at + 1, 100) == 5  # row by row

    assert await archive.read(b"") == [late]


@pytest.mark.asyncio
async def test_a_month_that_another_writer_dropped_between_looking_and_dropping_is_no_error(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, other = tables.archive(), tables.archive()
    await archive.put([*some(10), *some(11)])
    cut = some(10)[4].closed_at + 1
    meanwhile(monkeypatch, (postgres_archive_months, "counted"), lambda: other.drop_before(cut, 100))

    assert await archive.drop_before(cut, 100) == 0

    assert await archive.read(b"") == some(11)


@pytest.mark.asyncio
async def test_a_month_that_another_writer_dropped_between_looking_and_putting_is_made_again(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, other = tables.archive(), tables.archive()
    await archive.put(some(10))
    meanwhile(monkeypatch, (postgres_archive, "storable"), lambda: other.drop_before(9e9, 100))

    await archive.put([made_in(2026, 10, 9)])

    assert await archive.read(b"") == [made_in(2026, 10, 9)]


def meanwhile(
    monkeypatch: pytest.MonkeyPatch,
    step: tuple[ModuleType, str],
    work: Callable[[], Coroutine[Any, Any, object]],
) -> None:
    """Let that happen once, right before this function."""
    real = getattr(*step)

    def first_work(*given: Any, **named: Any) -> object:
        monkeypatch.setattr(*step, real)
        asyncio.run(work())
        return real(*given, **named)

    monkeypatch.setattr(*step, first_work)


# --- at the same moment ---


@pytest.mark.asyncio
async def test_writers_of_one_and_of_several_partitions_that_come_first_at_once_make_each_table_once(
    tables: Tables,
) -> None:
    writers = [tables.archive(partition) for partition in (PARTITION, PARTITION, OTHER, OTHER)]
    await asyncio.gather(*(each.count() for each in writers))
    given = [[made_in(2026, month, number) for month in (10, 11)] for number in range(4)]

    with psycopg.connect(tables.server.url) as beside:
        # All four wait here, and go on together.
        beside.execute(f"LOCK TABLE ONLY {tables.schema}.incidents_by_month IN SHARE MODE".encode())
        putting = [
            asyncio.create_task(each.put(some_of_them))
            for each, some_of_them in zip(writers, given, strict=True)
        ]
        await asyncio.sleep(0.15)
    await asyncio.gather(*putting)

    assert tables.under("incidents_by_month") == ["incidents_shard_0007", "incidents_shard_0008"]
    for own, first, second in (("0007", 0, 1), ("0008", 2, 3)):
        assert tables.under(f"incidents_shard_{own}") == [
            f"incidents_shard_{own}_2026_10", f"incidents_shard_{own}_2026_11",
        ]  # fmt: skip
        wanted = sorted([*given[first], *given[second]], key=lambda each: each.incident_id)
        assert await writers[first].read(b"") == wanted


@pytest.mark.asyncio
async def test_a_month_is_made_beside_who_reads_and_who_writes(tables: Tables) -> None:
    archive = tables.archive()
    await archive.put(some(10))

    with psycopg.connect(tables.server.url) as reads, psycopg.connect(tables.server.url) as writes:
        reads.execute(f"SELECT count(*) FROM {tables.schema}.incidents".encode())
        writes.execute(f"DELETE FROM {tables.schema}.incidents_by_month WHERE tenant = 'none'".encode())
        await archive.put(some(11))

    assert await archive.read(b"") == [*some(10), *some(11)]


@pytest.mark.asyncio
async def test_a_month_that_can_not_be_made_for_now_leaves_nothing_and_is_made_later(
    tables: Tables, impatient: None
) -> None:
    archive = tables.archive()
    await archive.put(some(10))
    before = tables.all()

    with psycopg.connect(tables.server.url) as beside:
        beside.execute(f"LOCK TABLE ONLY {tables.schema}.incidents_shard_0007 IN SHARE MODE".encode())
        refusal = await refused(archive.put([*some(10), *some(11)]))
        during = tables.all()
    await archive.put([*some(10), *some(11)])

    assert type(refusal) is Unavailable and "lock timeout" in str(refusal)
    assert during == before
    assert await archive.read(b"") == [*some(10), *some(11)]


@pytest.mark.asyncio
@pytest.mark.parametrize("trouble", ["before", "after"])
@pytest.mark.parametrize("statement", ["CREATE TABLE IF NOT EXISTS", "ATTACH PARTITION", "COMMIT"])
async def test_a_writer_cut_anywhere_while_it_makes_a_month_puts_again(
    tables: Tables, statement: str, trouble: str
) -> None:
    async with Proxy(tables.server.port) as proxy:
        archive = tables.archive(port=proxy.port)
        await archive.put(some(10))
        proxy.hurt(trouble, statement)

        refusal = await refused(archive.put(some(11)))
        cut_after = tables.all()
        await archive.put(some(11))

        assert isinstance(refusal, Unavailable)
        kept = (statement, trouble) == ("COMMIT", "after")
        assert ("incidents_shard_0007_2026_11" in cut_after) == kept
        assert await archive.read(b"") == [*some(10), *some(11)]
        await archive.close()


@pytest.mark.asyncio
async def test_a_month_that_somebody_detached_is_attached_again_when_one_of_it_is_put(tables: Tables) -> None:
    archive = tables.archive()
    await archive.put(some(10))
    schema = tables.schema
    tables.server.ask(
        f"ALTER TABLE {schema}.incidents_shard_0007 DETACH PARTITION {schema}.incidents_shard_0007_2026_10"
    )
    assert await archive.count() == 0

    await archive.put([made_in(2026, 10, 9)])

    assert await archive.read(b"") == [*some(10), made_in(2026, 10, 9)]


@pytest.mark.asyncio
async def test_a_month_is_not_dropped_under_who_reads_it_and_lists_and_new_months_go_on_meanwhile(
    tables: Tables, impatient: None
) -> None:
    archive, reader = tables.archive(), tables.archive()
    await archive.put([*some(10), *some(11)])

    with psycopg.connect(tables.server.url) as dump:
        dump.execute(f"LOCK TABLE {tables.schema}.incidents_by_month IN ACCESS SHARE MODE".encode())
        refusal = await refused(archive.drop_before(some(10)[4].closed_at + 1, 100))
        listed = (await reader.page(ALL)).items
        await archive.put(some(12))
    dropped = await archive.drop_before(some(10)[4].closed_at + 1, 100)

    assert type(refusal) is Unavailable and "lock timeout" in str(refusal)
    assert listed == [*some(10), *some(11)]
    assert dropped == 5
    assert await reader.read(b"") == [*some(11), *some(12)]


@pytest.mark.asyncio
async def test_a_list_beside_months_that_are_dropped_has_each_of_them_whole_or_not_at_all(
    tables: Tables,
) -> None:
    archive, readers = tables.archive(), [tables.archive() for _ in range(3)]
    per_month, all_months = 40, range(1, 13)
    await archive.put([each for month in all_months for each in some(month, per_month)])
    seen: list[list[str]] = []
    done = False

    async def read_on(reader: PostgresArchive, sort: Sort) -> None:
        # Some pages in slices, so that one list is several statements.
        query = replace(ALL, sort=sort, holds=lambda _record: True)
        while not done:
            try:
                found = [month_of(each.incident_id) for each in (await reader.page(query)).items]
            except Unavailable:
                continue
            seen.append(found if sort is not Sort.NEWEST else found[::-1])

    reading = [
        asyncio.create_task(read_on(reader, sort))
        for reader, sort in zip(readers, (Sort.OLDEST, Sort.NEWEST, Sort.OLDEST), strict=True)
    ]
    for month in range(1, 13):
        await asyncio.sleep(0.05)
        await archive.drop_before(some(month, per_month)[-1].closed_at + 1, 1)
    done = True
    await asyncio.gather(*reading)

    kinds = {tuple(found) for found in seen}
    whole = {
        tuple(f"2026-{month:02d}" for month in range(first, 13) for _ in range(per_month))
        for first in range(1, 14)
    }
    assert len(kinds) > 3 and kinds <= whole


# --- what was there before ---


async def leave_one_table(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, *incidents: ArchivedIncident
) -> None:
    """What a version before this one left: its tables, with these incidents of PARTITION."""
    with monkeypatch.context() as patch, psycopg.connect(tables.server.url, autocommit=True) as client:
        older = [each for each in postgres_schema.scripts() if each[0] <= BEFORE_MONTHS]
        patch.setattr(postgres_schema, "scripts", lambda: iter(older))
        postgres_schema.migrate(client, "postgresql", tables.schema)
        for each in incidents:
            client.execute(
                "INSERT INTO incidents VALUES (%s, %b, %s, %s, %s, %s, %s, %s, %s, %s, %b, %b)",
                (PARTITION, each.incident_id, each.tenant, each.service, each.state, each.severity, each.type,
                 each.created_at, each.closed_at, each.updated_at, each.record, each.alerts),
            )  # fmt: skip


def filenode(tables: Tables, name: str) -> object:
    [(found,)] = tables.server.ask(f"SELECT pg_relation_filenode('{tables.schema}.{name}')")
    return found


@pytest.mark.asyncio
async def test_what_an_older_version_left_stays_where_it_is_and_is_read_listed_counted_and_forgotten_with_the_rest(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = some(9, 6), [made_in(2026, 9, number) for number in range(6, 9)]
    await leave_one_table(tables, monkeypatch, *old)
    there = filenode(tables, "incidents")
    archive = tables.archive()

    await archive.put(new)

    assert filenode(tables, "incidents_before_months") == there
    assert await archive.read(b"") == [*old, *new]
    assert await archive.read(old[3].incident_id) == [*old[4:], *new]
    assert await pages(archive, replace(ALL, limit=2)) == [*old, *new]
    assert await archive.get(old[0].incident_id) == old[0]
    assert await archive.tally(old[1].incident_id, new[1].incident_id) == (6, new[0].updated_at)
    assert await archive.drop_before(old[1].closed_at, 1) == 1
    assert await archive.drop_before(old[3].closed_at, 100) == 2
    await archive.remove([old[3].incident_id, new[0].incident_id])
    assert await archive.read(b"") == [*old[4:], *new[1:]]
    assert await archive.drop_before(9e9, 100) == 4
    assert await archive.count() == 0


@pytest.mark.asyncio
async def test_an_incident_that_an_older_version_archived_meets_itself_when_it_is_put_again(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = some(9, 3)
    await leave_one_table(tables, monkeypatch, *old)
    archive, later = tables.archive(), replace(old[1], record=b"later", service="db")

    await archive.put([later])
    await archive.put([later])

    assert await archive.read(b"") == [old[0], later, old[2]]
    assert (await archive.page(replace(ALL, services=("api",)))).items == [old[0], old[2]]
    assert await archive.count() == 3


@pytest.mark.asyncio
async def test_an_upgrade_does_not_wait_for_long_behind_who_reads_the_archive_and_is_tried_again(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave_one_table(tables, monkeypatch, *some(9))
    hasty = [
        (number, server, text.replace("'5s'", "'50ms'")) for number, server, text in postgres_schema.scripts()
    ]
    assert hasty != list(postgres_schema.scripts())
    monkeypatch.setattr(postgres_schema, "scripts", lambda: iter(hasty))
    archive = tables.archive()

    with psycopg.connect(tables.server.url) as dump:
        dump.execute(f"SELECT count(*) FROM {tables.schema}.incidents".encode())
        refusal = await refused(archive.count())

    assert type(refusal) is Unavailable and "lock timeout" in str(refusal)
    assert await archive.count() == 5


# --- where there are no months ---


@pytest.mark.asyncio
@pytest.mark.parametrize("says", ["CockroachDB CCL v24.1.0", "PostgreSQL 15.2-YB-2.25.0.0-b0"])
async def test_a_server_that_is_no_postgresql_keeps_one_table_with_the_same_answers(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    monkeypatch.setattr(
        "services.stores.postgres.pool.look_at", lambda _connection, _options: server_of(says)
    )
    chance = random.Random(7)
    archive, model = tables.archive(), MemoryArchive(MemoryStore(), "model")
    all_of_them = spread(120, chance)
    before = min(each.closed_at for each in all_of_them)

    for turn in range(3):
        given = chance.sample(all_of_them, 70)
        gone = [each.incident_id for each in chance.sample(all_of_them, 5)]
        for each in (archive, model):
            await each.put(given)
            await each.remove(gone)
            while await each.drop_before(before + turn * MONTH_S, 7):
                pass
        for sort in Sort:
            query = ArchiveQuery("default", 20, sort=sort, services=("a", "c"))
            assert await pages(archive, query) == await pages(model, query)
        assert await archive.read(b"") == await model.read(b"")

    assert tables.all() == {"incidents"}
