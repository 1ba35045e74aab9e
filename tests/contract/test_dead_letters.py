"""What every DeadLetters promises (models/ports.py), run against each adapter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.ports import DeadLetter, DeadLetters
from tests.clock import ManualClock
from tests.contract.conftest import Place


def letter(at: float = 1000.0, payload: bytes = b"{", reason: str = "no JSON") -> DeadLetter:
    return DeadLetter(at, "default", "api/v2/alerts", reason, payload, "application/json")


def small(place: Place, clock: ManualClock, max_bytes: int = 100_000, max_age_s: float = 60.0) -> DeadLetters:
    return place.dead_letters(max_bytes=max_bytes, max_age_s=max_age_s, clock=clock)


@pytest.mark.asyncio
async def test_letters_come_back_in_the_order_they_came(place: Place, clock: ManualClock) -> None:
    letters = small(place, clock)
    nothing = (await letters.page(0, 10), await letters.stats())
    given = [letter(payload=b"%d" % number) for number in range(5)]

    await letters.add(given[:2])
    await letters.add(given[2:])

    assert nothing == ([], {"kept": 0, "bytes": 0, "dropped": 0})
    found = await letters.page(0, 10)
    assert [replace(each, id=0) for each in found] == given
    assert await letters.page(found[1].id, 2) == found[2:4]


@pytest.mark.asyncio
async def test_several_writers_share_one_store(place: Place, clock: ManualClock) -> None:
    one, other = small(place, clock), small(place, clock)

    await one.add([letter(payload=b"1")])
    await other.add([letter(payload=b"2")])

    assert [each.payload for each in await one.page(0, 10)] == [b"1", b"2"]
    assert (await other.stats())["kept"] == 2


@pytest.mark.asyncio
async def test_past_the_bytes_the_oldest_go_first_and_are_counted(place: Place, clock: ManualClock) -> None:
    letters = small(place, clock, max_bytes=10_000)

    for number in range(30):
        await letters.add([letter(payload=b"%04d" % number * 250)])

    stats = await letters.stats()
    kept = await letters.page(0, 100)
    assert stats["bytes"] <= 10_000
    assert [each.payload[:4] for each in kept] == [b"%04d" % number for number in range(30 - len(kept), 30)]
    assert stats["kept"] == len(kept) > 0
    assert stats["dropped"] == 30 - len(kept)


@pytest.mark.asyncio
async def test_one_flood_is_bounded_too(place: Place, clock: ManualClock) -> None:
    letters = small(place, clock, max_bytes=10_000)

    await letters.add([letter() for _ in range(2000)])

    stats = await letters.stats()
    assert 0 < stats["bytes"] <= 10_000
    assert stats["kept"] + stats["dropped"] == 2000


@pytest.mark.asyncio
async def test_letters_past_their_age_are_not_shown_and_then_dropped(
    place: Place, clock: ManualClock
) -> None:
    letters = small(place, clock, max_age_s=60.0)
    await letters.add([letter(at=1000.0, payload=b"old")])

    clock.forward(61.0)
    shown = await letters.page(0, 10)
    await letters.add([letter(at=1061.0, payload=b"new")])

    assert shown == []
    assert [each.payload for each in await letters.page(0, 10)] == [b"new"]
    stats = await letters.stats()
    assert (stats["kept"], stats["dropped"]) == (1, 1)


@pytest.mark.asyncio
async def test_a_payload_over_the_limit_is_cut_and_says_so(place: Place, clock: ManualClock) -> None:
    letters = small(place, clock, max_bytes=1_000_000)

    await letters.add([letter(payload=b"x" * 1_000_000), letter(reason="y" * 1_000_000)])

    long, wordy = await letters.page(0, 10)
    assert long.truncated and len(long.payload) == 64 * 1024
    assert not wordy.truncated and len(wordy.reason) == 2000


@pytest.mark.asyncio
async def test_the_id_of_a_dropped_letter_is_never_used_again(place: Place, clock: ManualClock) -> None:
    letters = small(place, clock)
    await letters.add([letter()])
    (first,) = await letters.page(0, 10)

    clock.forward(1000.0)
    await letters.add([letter(at=clock.now())])

    (second,) = await letters.page(first.id, 10)
    assert second.id > first.id
