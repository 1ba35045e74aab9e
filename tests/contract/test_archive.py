"""What every Archive promises (models/ports.py), run against each adapter."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from models.incidents.filters import Sort
from models.incidents.incident import incident_id
from models.ports import ARCHIVE_SCAN_MAX, Archive, ArchivedIncident, ArchivePage, ArchiveQuery
from services.stores.memory.archive import MemoryArchive
from services.stores.memory.store import MemoryStore
from tests.contract.conftest import Place


def incident(number: int, **changes: object) -> ArchivedIncident:
    made = ArchivedIncident(
        number.to_bytes(16, "big"), "default", "api", "closed", 2, "outage", 1000.0 + number, 2000.0 + number,
        3000.0 + number, b"record", b"list",
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


async def pages(archive: Archive, query: ArchiveQuery) -> list[ArchivedIncident]:
    found: list[ArchivedIncident] = []
    while True:
        page = await archive.page(query)
        assert len(page.items) <= query.limit
        found += page.items
        if page.next_after is None:
            return found
        query = replace(query, after=page.next_after)


@pytest.mark.asyncio
async def test_an_archive_nobody_wrote_is_empty(place: Place) -> None:
    archive = place.archive()

    assert await archive.get(b"x" * 16) is None
    assert await archive.page(ArchiveQuery("default", 10)) == ArchivePage([])
    assert await archive.count() == 0


@pytest.mark.asyncio
async def test_an_incident_comes_back_as_it_was_put(place: Place) -> None:
    archive, reader = place.archive(), place.archive()
    assert await reader.get(incident(1).incident_id) is None

    await archive.put([incident(1), incident(2)])

    assert await reader.get(incident(1).incident_id) == incident(1)
    assert await reader.count() == 2


@pytest.mark.asyncio
async def test_putting_again_replaces_it_everywhere(place: Place) -> None:
    archive = place.archive()
    later = incident(1, service="db", severity=1, type="latency", created_at=5.0, record=b"later")

    await archive.put([incident(1), incident(2)])
    await archive.put([later])

    assert await archive.get(later.incident_id) == later
    assert await archive.count() == 2
    assert (await archive.page(ArchiveQuery("default", 10, services=("db",)))).items == [later]
    assert (await archive.page(ArchiveQuery("default", 10, services=("api",)))).items == [incident(2)]


@pytest.mark.asyncio
async def test_of_one_incident_twice_in_a_put_the_later_wins(place: Place) -> None:
    archive = place.archive()

    await archive.put([incident(1), incident(1, record=b"later")])

    assert (await archive.page(ArchiveQuery("default", 10))).items == [incident(1, record=b"later")]


@pytest.mark.asyncio
async def test_pages_go_from_new_to_old_and_join_without_gaps_or_repeats(place: Place) -> None:
    archive = place.archive()
    all_of_them = [incident(number, created_at=1000.0 + number // 5) for number in range(53)]
    await archive.put(random.Random(1).sample(all_of_them, len(all_of_them)))

    found = await pages(archive, ArchiveQuery("default", 7))

    assert found == sorted(all_of_them, key=lambda each: (each.created_at, each.incident_id), reverse=True)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "services", [(), ("a",), ("a", "c", "a"), tuple(f"s{n}" for n in range(40)) + ("b",)]
)
@pytest.mark.parametrize("severities", [(), (1,), (0, 3)])
@pytest.mark.parametrize("types", [(), ("x",), ("y", "z", "none")])
async def test_filters_narrow_together_and_keep_the_order(
    place: Place, services: tuple[str, ...], severities: tuple[int, ...], types: tuple[str, ...]
) -> None:
    archive = place.archive()
    chance = random.Random(2)
    all_of_them = [
        incident(
            number, tenant=chance.choice(["default", "other"]), service=chance.choice("abc"),
            severity=chance.randrange(4), type=chance.choice("xyz"), created_at=float(chance.randrange(50)),
        )
        for number in range(200)
    ]  # fmt: skip
    await archive.put(all_of_them)

    found = await pages(
        archive, ArchiveQuery("default", 9, services=services, severities=severities, types=types)
    )

    wanted = [
        each
        for each in all_of_them
        if each.tenant == "default"
        and (not services or each.service in services)
        and (not severities or each.severity in severities)
        and (not types or each.type in types)
    ]
    assert found == sorted(wanted, key=lambda each: (each.created_at, each.incident_id), reverse=True)


@pytest.mark.asyncio
async def test_the_longest_closed_are_dropped_first_up_to_the_limit(place: Place) -> None:
    archive = place.archive()
    await archive.put([incident(number) for number in range(10)])

    dropped = [await archive.drop_before(2005.0, 3) for _ in range(3)]

    assert dropped == [3, 2, 0]
    assert [each.closed_at for each in (await archive.page(ArchiveQuery("default", 10))).items] == [
        2009.0, 2008.0, 2007.0, 2006.0, 2005.0,
    ]  # fmt: skip
    assert await archive.count() == 5


def mixed(count: int) -> list[ArchivedIncident]:
    """Incidents of all kinds, many with the same times."""
    chance = random.Random(3)
    return [
        incident(
            number, service=chance.choice("abc"), severity=chance.randrange(5), type=chance.choice("xyz"),
            created_at=float(chance.randrange(1, 20)), updated_at=float(chance.randrange(30, 50)),
            record=b"%d" % number,
        )
        for number in range(count)
    ]  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize("sort", Sort)
@pytest.mark.parametrize("severities", [(), (1, 3)])
@pytest.mark.parametrize("services", [(), ("a", "b")])
async def test_pages_of_every_order_join_without_gaps_or_repeats(
    place: Place, sort: Sort, severities: tuple[int, ...], services: tuple[str, ...]
) -> None:
    archive = place.archive()
    all_of_them = mixed(150)
    await archive.put(all_of_them)

    found = await pages(
        archive, ArchiveQuery("default", 7, sort=sort, severities=severities, services=services)
    )

    wanted = [
        each
        for each in all_of_them
        if (not severities or each.severity in severities) and (not services or each.service in services)
    ]
    assert found == sorted(wanted, key=lambda each: each.place(sort), reverse=sort.goes_down)


@pytest.mark.asyncio
@pytest.mark.parametrize("sort", [Sort.NEWEST, Sort.LONG_UNTOUCHED])
async def test_times_are_taken_from_the_first_on_and_up_to_the_last(place: Place, sort: Sort) -> None:
    archive = place.archive()
    await archive.put(mixed(150))

    found = await pages(
        archive,
        ArchiveQuery(
            "default", 40, sort=sort, created_after=5.0, created_before=15.0, updated_after=33.0,
            updated_before=44.0,
        ),
    )  # fmt: skip

    wanted = [each for each in mixed(150) if 5 <= each.created_at < 15 and 33 <= each.updated_at < 44]
    assert wanted and found == sorted(wanted, key=lambda each: each.place(sort), reverse=sort.goes_down)


@pytest.mark.asyncio
async def test_what_no_column_holds_is_asked_about_the_record_for_a_bounded_number_of_them(
    place: Place,
) -> None:
    archive = place.archive()
    count = 2 * ARCHIVE_SCAN_MAX + 10
    await archive.put([incident(number, record=b"%d" % number) for number in range(count)])
    asked: list[bytes] = []

    def rare(record: bytes) -> bool:
        asked.append(record)
        return record in (b"0", b"%d" % (count - 1))

    first = await archive.page(ArchiveQuery("default", 10, holds=rare))
    asked_first = len(asked)
    all_of_them = await pages(archive, ArchiveQuery("default", 10, holds=rare))

    assert asked_first == ARCHIVE_SCAN_MAX
    assert [each.record for each in first.items] == [b"%d" % (count - 1)]
    assert first.next_after is not None
    assert [each.record for each in all_of_them] == [b"%d" % (count - 1), b"0"]


@pytest.mark.asyncio
async def test_a_page_brings_no_more_of_the_alerts_than_says_how_many_there_are(place: Place) -> None:
    archive = place.archive()
    await archive.put([incident(1, alerts=b"head and all of its alerts")])

    [shown] = (await archive.page(ArchiveQuery("default", 10))).items
    got = await archive.get(incident(1).incident_id)

    assert shown.alerts == b"head " and got is not None and got.alerts == b"head and all of its alerts"


@pytest.mark.asyncio
async def test_whole_incidents_are_read_in_the_order_of_their_ids_up_to_the_bytes_asked_for(
    place: Place,
) -> None:
    archive = place.archive()
    all_of_them = [incident(number, alerts=b"x" * 94, created_at=5000.0 - number) for number in range(1, 30)]
    assert await archive.read(b"") == []
    await archive.put(random.Random(4).sample(all_of_them, len(all_of_them)))

    found: list[list[ArchivedIncident]] = []
    after = b""
    while page := await archive.read(after, limit_bytes=799):
        found.append(page)
        after = page[-1].incident_id

    assert [each for page in found for each in page] == all_of_them
    assert all(len(page) > 1 and sum(len(each.alerts) for each in page) <= 799 for page in found[:-1])
    assert await archive.read(b"") == all_of_them  # by default much more than that


@pytest.mark.asyncio
async def test_an_incident_larger_than_the_bytes_asked_for_is_read_alone(place: Place) -> None:
    archive = place.archive()
    await archive.put([incident(1), incident(2, alerts=b"x" * 1000), incident(3)])

    first = await archive.read(b"", limit_bytes=100)
    second = await archive.read(first[-1].incident_id, limit_bytes=100)

    assert first == [incident(1)] and second == [incident(2, alerts=b"x" * 1000)]


@pytest.mark.asyncio
async def test_what_was_put_again_is_read_once_and_what_was_dropped_is_not_read(place: Place) -> None:
    archive = place.archive()
    await archive.put([incident(number) for number in range(1, 6)])

    await archive.put([incident(4, updated_at=9000.0, record=b"later")])
    await archive.drop_before(2002.5, 10)

    assert await archive.read(b"") == [
        incident(3), incident(4, updated_at=9000.0, record=b"later"), incident(5)
    ]  # fmt: skip
    assert await archive.tally(b"", b"\xff" * 16) == (3, 9000.0)


@pytest.mark.asyncio
async def test_a_stretch_is_counted_from_its_first_id_to_before_its_end(place: Place) -> None:
    archive = place.archive()
    assert await archive.tally(b"", b"\xff" * 16) == (0, 0.0)
    await archive.put([incident(number) for number in range(1, 2500)])

    assert await archive.tally(incident(3).incident_id, incident(6).incident_id) == (3, 3005.0)
    assert await archive.tally(incident(3).incident_id, incident(3).incident_id) == (0, 0.0)
    assert await archive.tally(incident(2400).incident_id, incident(9999).incident_id) == (100, 5499.0)
    assert await archive.tally(b"", b"\xff" * 16) == (2499, 5499.0)


@pytest.mark.asyncio
@pytest.mark.parametrize("sort", Sort)
async def test_a_filter_that_seldom_holds_ends_a_page_at_a_bound_and_the_pages_still_join(
    place: Place, sort: Sort, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bounds in ("sqlite", "postgres"):
        monkeypatch.setattr(f"services.stores.{bounds}.archive_pages.ENTRIES_MAX", 60)
        monkeypatch.setattr(f"services.stores.{bounds}.archive_pages.ENTRIES_MIN", 20)
    monkeypatch.setattr("services.stores.redis.archive_index.STRETCH", 20)
    monkeypatch.setattr("services.stores.redis.archive.STRETCH", 20)
    monkeypatch.setattr("services.stores.redis.archive.ENTRIES_MAX", 60)
    archive = place.archive()
    all_of_them = [
        replace(each, service="rare" if number % 90 == 7 else "often")
        for number, each in enumerate(mixed(500))
    ]
    await archive.put(all_of_them)
    query = ArchiveQuery("default", 4, services=("rare",), types=("x", "y"), sort=sort)

    found = await pages(archive, query)

    wanted = [each for each in all_of_them if each.service == "rare" and each.type in ("x", "y")]
    assert wanted and found == sorted(wanted, key=lambda each: each.place(sort), reverse=sort.goes_down)


MONTH_S = 30 * 86400.0


def spread(count: int, chance: random.Random) -> list[ArchivedIncident]:
    """Incidents of all kinds, made over half a year in ids as ours are, each closed up to two months later."""
    made = []
    for number in range(count):
        at = 1_790_000_000.0 + chance.randrange(50) * MONTH_S / 8
        closed_at = at + chance.choice([60.0, 3600.0, MONTH_S / 3, 2 * MONTH_S])
        made.append(
            incident(
                number,
                incident_id=incident_id(number % 7, at, 1, number, "group"),
                service=chance.choice("abc"), severity=chance.randrange(5), type=chance.choice("xyz"),
                created_at=at, closed_at=closed_at, updated_at=closed_at + chance.choice([0.0, 0.0, MONTH_S]),
                record=b"%d" % number,
            )
        )  # fmt: skip
    return made


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(4))
async def test_months_of_incidents_put_again_and_dropped_are_listed_as_by_the_memory_adapter(
    place: Place, seed: int
) -> None:
    chance = random.Random(seed)
    archive, model = place.archive(), MemoryArchive(MemoryStore(), "model")
    all_of_them = spread(160, chance)

    for number in range(3):
        some = chance.sample(all_of_them, 90)
        some = [
            replace(each, updated_at=each.updated_at + number, severity=chance.randrange(5)) for each in some
        ]
        before = min(each.closed_at for each in all_of_them) + number * MONTH_S
        for each in (archive, model):
            await each.put(some)
            while await each.drop_before(before, 7):
                pass
        assert await archive.count() == await model.count()
        for sort in Sort:
            query = ArchiveQuery(
                "default", chance.choice([1, 7, 50]), sort=sort,
                services=chance.choice([(), ("a",), ("a", "c"), ("none",)]),
                severities=chance.choice([(), (0,), (1, 3)]),
                types=chance.choice([(), ("x",), ("y", "z")]),
                created_after=chance.choice([0.0, 1_790_000_000.0 + 2 * MONTH_S]),
                updated_before=chance.choice([0.0, 1_790_000_000.0 + 5 * MONTH_S]),
                holds=chance.choice([None, lambda record: record.endswith((b"1", b"3"))]),
            )  # fmt: skip
            assert await pages(archive, query) == await pages(model, query)
        assert await archive.read(b"") == await model.read(b"")
        cut = chance.choice(all_of_them).incident_id
        assert await archive.tally(cut, b"\xff" * 16) == await model.tally(cut, b"\xff" * 16)
        for each_of_them in all_of_them[::10]:
            identity = each_of_them.incident_id
            assert await archive.get(identity) == await model.get(identity)


@pytest.mark.asyncio
async def test_what_is_removed_is_gone_from_everywhere_and_the_rest_stays(place: Place) -> None:
    archive = place.archive()
    given = [incident(number) for number in range(1, 6)]
    await archive.put(given)

    await archive.remove([given[1].incident_id, given[3].incident_id, b"\x00" * 16])
    await archive.remove([given[1].incident_id])
    await archive.remove([])

    left = [given[0], given[2], given[4]]
    assert await archive.count() == 3
    assert await archive.get(given[1].incident_id) is None
    assert await archive.read(b"") == sorted(left, key=lambda each: each.incident_id)
    assert {each.incident_id for each in (await archive.page(ArchiveQuery("default", 10))).items} == {
        each.incident_id for each in left
    }
    assert await archive.drop_before(1e12, 10) == 3
