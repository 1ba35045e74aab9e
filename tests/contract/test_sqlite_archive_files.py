"""What the archive in SQLite leaves on the disk: a file a month, what older versions left, and how both are read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest
import pytest_asyncio

from models.errors import Damaged, Unavailable
from models.incidents.filters import Sort
from models.incidents.incident import incident_id
from models.ports import ArchivedIncident, ArchiveQuery
from services.stores.shared.archive_months import month_of
from services.stores.sqlite import archive_pages
from services.stores.sqlite.archive import SqliteArchive
from services.stores.sqlite.archive_files import OLD_SCHEMA
from services.stores.sqlite.files import file_path, open_writer
from tests.contract.test_archive import incident, pages

PARTITION = "shard/0007"


@pytest_asyncio.fixture
async def archive(tmp_path: Path) -> AsyncIterator[SqliteArchive]:
    made = SqliteArchive(tmp_path, PARTITION)
    yield made
    await made.close()


@pytest_asyncio.fixture
async def reader(tmp_path: Path) -> AsyncIterator[SqliteArchive]:
    made = SqliteArchive(tmp_path, PARTITION)
    yield made
    await made.close()


def made_in(year: int, month: int, number: int, **changes: object) -> ArchivedIncident:
    at = datetime(year, month, 1, tzinfo=UTC).timestamp() + number
    made = incident(0, created_at=at, closed_at=at + 3600, updated_at=at + 3600, **changes)
    return replace(made, incident_id=incident_id(7, at, 1, number, "group"))


def files(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*.db"))


def leave_old_file(folder: Path, *incidents: ArchivedIncident, version: int = 2) -> None:
    """What a version before this one wrote; the first knew no updated_at."""
    connection = open_writer(file_path(folder, PARTITION, "archive"), OLD_SCHEMA[:version])
    for each in incidents:
        connection.execute(
            "INSERT INTO incidents (incident_id, tenant, service, state, severity, type, created_at, closed_at, record,"
            " alerts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (each.incident_id, each.tenant, each.service, each.state, each.severity, each.type, each.created_at,
             each.closed_at, each.record, each.alerts),
        )  # fmt: skip
        if version > 1:
            connection.execute(
                "UPDATE incidents SET updated_at = ? WHERE incident_id = ?",
                (each.updated_at, each.incident_id),
            )
    connection.close()


@pytest.mark.asyncio
async def test_an_incident_is_in_the_file_of_the_month_its_id_was_made_in(
    archive: SqliteArchive, tmp_path: Path
) -> None:
    last_of_october = made_in(2026, 11, -1)

    await archive.put([made_in(2026, 12, 1), last_of_october, made_in(2026, 10, 1)])

    assert files(tmp_path) == ["archive-0007/2026-10.db", "archive-0007/2026-12.db"]
    assert await archive.get(last_of_october.incident_id) == last_of_october


@pytest.mark.parametrize(
    ("identity", "month"), [(b"", "1970-01"), (b"\xff" * 16, "9999-12"), (b"\x01\xb0", "2028-10")]
)
def test_every_id_and_every_beginning_of_one_has_a_month(identity: bytes, month: str) -> None:
    assert month_of(identity) == month


@pytest.mark.asyncio
async def test_a_month_of_which_all_is_past_goes_as_a_file_and_readers_beside_it_follow(
    archive: SqliteArchive, reader: SqliteArchive, tmp_path: Path
) -> None:
    october, november = [made_in(2026, 10, n) for n in range(5)], [made_in(2026, 11, n) for n in range(5)]
    await archive.put([*october, *november])
    assert await reader.count() == 10

    dropped = await archive.drop_before(november[2].closed_at, 100)

    assert dropped == 7
    assert [str(each) for each in (tmp_path / "archive-0007").iterdir() if "2026-10" in each.name] == []
    assert await reader.read(b"") == november[2:]
    assert await reader.get(october[0].incident_id) is None


@pytest.mark.asyncio
async def test_a_month_that_was_removed_begins_anew_for_who_had_it_open(
    archive: SqliteArchive, reader: SqliteArchive
) -> None:
    first, second = made_in(2026, 10, 1), made_in(2026, 10, 2)
    await archive.put([first])
    assert await reader.count() == 1

    await archive.drop_before(first.closed_at + 1, 100)
    await archive.put([second])

    assert await reader.read(b"") == [second]


@pytest.mark.asyncio
async def test_a_month_is_not_removed_while_a_page_of_it_is_read(
    archive: SqliteArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.stores.sqlite.files.BUSY_TIMEOUT_MS", 10)
    kept = made_in(2026, 10, 1)
    await archive.put([kept])
    beside = apsw.Connection(str(tmp_path / "archive-0007/2026-10.db"))
    beside.execute("BEGIN")
    assert beside.execute("SELECT count(*) FROM incidents").get == 1
    await archive.put([made_in(2026, 10, 2)])

    with pytest.raises(Unavailable, match="2026-10"):
        await archive.drop_before(kept.closed_at + 10, 100)

    assert await archive.count() == 2
    beside.close()
    assert await archive.drop_before(kept.closed_at + 10, 100) == 2


@pytest.mark.asyncio
async def test_what_an_older_version_left_is_read_listed_and_counted_with_the_rest(
    archive: SqliteArchive, tmp_path: Path
) -> None:
    old, new = [made_in(2026, 9, n) for n in range(3)], [made_in(2026, 9, n) for n in range(3, 6)]
    leave_old_file(tmp_path, *old)

    await archive.put(new)

    assert await archive.read(b"") == [*old, *new]
    assert await pages(archive, ArchiveQuery("default", 2, sort=Sort.OLDEST)) == [*old, *new]
    assert await archive.get(old[0].incident_id) == old[0]
    assert await archive.tally(old[1].incident_id, new[1].incident_id) == (3, new[0].updated_at)


@pytest.mark.asyncio
async def test_an_incident_that_is_put_again_leaves_the_old_file(
    archive: SqliteArchive, tmp_path: Path
) -> None:
    old = [made_in(2026, 9, n) for n in range(3)]
    leave_old_file(tmp_path, *old)
    later = replace(old[1], updated_at=old[1].updated_at + 5, record=b"later")

    await archive.put([later])

    assert await archive.read(b"") == [old[0], later, old[2]]
    assert await archive.count() == 3


@pytest.mark.asyncio
async def test_the_old_file_goes_when_the_last_in_it_is_past(archive: SqliteArchive, tmp_path: Path) -> None:
    old = [made_in(2026, 9, n) for n in range(3)]
    leave_old_file(tmp_path, *old)

    assert await archive.drop_before(old[1].closed_at, 100) == 1
    assert files(tmp_path) == ["archive-0007.db"]
    assert await archive.drop_before(old[2].closed_at + 1, 100) == 2

    assert files(tmp_path) == []


@pytest.mark.asyncio
async def test_an_archive_file_of_the_first_version_is_brought_up_to_date_by_its_writer(
    archive: SqliteArchive, reader: SqliteArchive, tmp_path: Path
) -> None:
    leave_old_file(tmp_path, incident(1), version=1)

    with pytest.raises(Unavailable, match="older version"):
        await reader.get(incident(1).incident_id)
    await archive.drop_before(0.0, 1)
    old = await reader.get(incident(1).incident_id)
    listed = await reader.page(ArchiveQuery("default", 10, sort=Sort.LATELY_UPDATED))

    # Closing was the last that happened to it.
    assert old == replace(incident(1), updated_at=2001.0) and listed.items == [old]


@pytest.mark.asyncio
async def test_a_page_whose_filter_seldom_holds_ends_at_a_bound_and_leads_on(
    archive: SqliteArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_pages, "ENTRIES_MAX", 100)
    monkeypatch.setattr(archive_pages, "ENTRIES_MIN", 20)
    all_of_them = [
        made_in(2026, 1 + number % 12, number, service="rare" if number % 120 == 7 else "often")
        for number in range(600)
    ]
    await archive.put(all_of_them)
    query = ArchiveQuery("default", 10, services=("rare",), sort=Sort.LATELY_UPDATED)

    first = await archive.page(replace(query, sort=Sort.LONG_UNTOUCHED))
    found = await pages(archive, query)

    assert len(first.items) < 5 and first.next_after is not None
    wanted = [each for each in all_of_them if each.service == "rare"]
    assert found == sorted(wanted, key=lambda each: each.place(query.sort), reverse=True)


@pytest.mark.asyncio
async def test_a_damaged_month_is_told_by_the_name_of_its_file(
    archive: SqliteArchive, tmp_path: Path
) -> None:
    kept, damaged = made_in(2026, 9, 1), made_in(2026, 10, 1)
    await archive.put([kept, damaged])
    connection = apsw.Connection(str(tmp_path / "archive-0007/2026-10.db"))
    connection.execute("UPDATE alerts SET alerts = x'00112233'")
    connection.close()

    with pytest.raises(Damaged, match=r"2026-10\.db"):
        await archive.get(damaged.incident_id)

    assert await archive.get(kept.incident_id) == kept
