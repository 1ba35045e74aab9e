"""What every DeliveryIds promises (models/ports.py), run against each adapter."""

from __future__ import annotations

import pytest

from tests.contract.conftest import Place


@pytest.mark.asyncio
async def test_an_id_is_seen_with_its_answer_once_it_was_added(place: Place) -> None:
    ids = place.delivery_ids()
    before = await ids.seen(["a", "b"])

    await ids.add([("a", 1.0, b"answer"), ("c", 1.0, b"")])

    assert before == {}
    assert await ids.seen(["a", "b", "c", "a"]) == {"a": b"answer", "c": b""}


@pytest.mark.asyncio
async def test_the_first_answer_of_an_id_stays(place: Place) -> None:
    ids = place.delivery_ids()

    await ids.add([("a", 1.0, b"first"), ("a", 2.0, b"second")])
    await ids.add([("a", 3.0, b"third")])

    assert await ids.seen(["a"]) == {"a": b"first"}


@pytest.mark.asyncio
async def test_ids_outlive_the_process_that_added_them(place: Place) -> None:
    ids = place.delivery_ids()
    await ids.add([("a", 1.0, b"answer")])
    await ids.close()

    assert await place.delivery_ids().seen(["a"]) == {"a": b"answer"}


@pytest.mark.asyncio
async def test_adding_nothing_is_safe(place: Place) -> None:
    await place.delivery_ids().add([])


@pytest.mark.asyncio
async def test_ids_from_before_the_window_are_dropped_and_counted(place: Place) -> None:
    ids = place.delivery_ids()
    await ids.add([(f"id-{number}", float(number), b"") for number in range(5000)])

    dropped = await ids.drop_before(4500.0)

    assert dropped == 4500
    assert set(await ids.seen(["id-0", "id-4499", "id-4500"])) == {"id-4500"}
    assert await ids.drop_before(4500.0) == 0


@pytest.mark.asyncio
async def test_recent_gives_each_id_of_the_window_once(place: Place) -> None:
    ids = place.delivery_ids()
    nothing = [page async for page in ids.recent(0.0)]
    await ids.add([(f"id-{number}", float(number), b"") for number in range(12_500)])

    found = [each async for page in ids.recent(1000.0) for each in page]

    assert nothing == []
    assert sorted(found) == sorted(f"id-{number}" for number in range(1000, 12_500))


@pytest.mark.asyncio
async def test_entries_gives_all_there_is_as_it_was_added(place: Place) -> None:
    ids = place.delivery_ids()
    given = [(f"id-é{number}", number / 3, str(number).encode()) for number in range(2_500)]
    nothing = [page async for page in ids.entries()]
    await ids.add(given)

    found = [each async for page in ids.entries() for each in page]

    assert nothing == []
    assert sorted(found) == sorted(given)
