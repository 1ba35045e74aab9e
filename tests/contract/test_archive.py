"""What every Archive promises (models/ports.py), run against each adapter."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from models.ports import Archive, ArchivedIncident, ArchiveQuery
from tests.contract.conftest import Place


def incident(number: int, **changes: object) -> ArchivedIncident:
    made = ArchivedIncident(
        number.to_bytes(16, "big"), "default", "api", "closed", 2, "outage", 1000.0 + number, 2000.0 + number,
        b"record", b"alerts",
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


async def pages(archive: Archive, query: ArchiveQuery) -> list[ArchivedIncident]:
    found: list[ArchivedIncident] = []
    while page := await archive.page(query):
        assert len(page) <= query.limit
        found += page
        query = replace(query, before=(page[-1].created_at, page[-1].incident_id))
    return found


@pytest.mark.asyncio
async def test_an_archive_nobody_wrote_is_empty(place: Place) -> None:
    archive = place.archive()

    assert await archive.get(b"x" * 16) is None
    assert await archive.page(ArchiveQuery("default", 10)) == []
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
    assert await archive.page(ArchiveQuery("default", 10, services=("db",))) == [later]
    assert await archive.page(ArchiveQuery("default", 10, services=("api",))) == [incident(2)]


@pytest.mark.asyncio
async def test_of_one_incident_twice_in_a_put_the_later_wins(place: Place) -> None:
    archive = place.archive()

    await archive.put([incident(1), incident(1, record=b"later")])

    assert await archive.page(ArchiveQuery("default", 10)) == [incident(1, record=b"later")]


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
    assert [each.closed_at for each in await archive.page(ArchiveQuery("default", 10))] == [
        2009.0, 2008.0, 2007.0, 2006.0, 2005.0,
    ]  # fmt: skip
    assert await archive.count() == 5
