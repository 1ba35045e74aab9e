"""What every DeadLetters promises (models/ports.py), run against each adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.ports import DeadLetter, DeadLetters, LettersWanted
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


@pytest.mark.asyncio
async def test_all_that_a_letter_says_comes_back(place: Place, clock: ManualClock) -> None:
    letters = small(place, clock)
    whole = DeadLetter(
        1000.0, "default", "v1", "why", b"{\x00\xff", "application/json", 0, True, "prometheus", "alert 3", 2, 1001.0,
        b"\x80\x00",
    )  # fmt: skip

    await letters.add([whole])

    (found,) = await letters.page(0, 10)
    assert found == replace(whole, id=found.id)
    assert await letters.get(found.id) == found


@pytest.mark.asyncio
async def test_the_newest_first(place: Place, clock: ManualClock) -> None:
    letters = small(place, clock)
    nothing = await letters.latest(0, 10)
    await letters.add([letter(payload=b"%d" % number) for number in range(5)])

    first = await letters.latest(0, 2)
    then = await letters.latest(first[-1].id, 10)

    assert nothing == []
    assert [each.payload for each in first] == [b"4", b"3"]
    assert [each.payload for each in then] == [b"2", b"1", b"0"]
    assert await letters.latest(then[-1].id, 10) == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (LettersWanted(), [0, 1, 2, 3]),
        (LettersWanted(tenant="other"), [3]),
        (LettersWanted(door="v1"), [1, 3]),
        (LettersWanted(sender="payments"), [2, 3]),
        (LettersWanted(since=1001.0), [1, 2, 3]),
        (LettersWanted(since=1001.0, until=1003.0), [1, 2]),
        (LettersWanted(reason="LABELS.a%"), [1]),
        (LettersWanted(door="v1", sender="payments"), [3]),
        (LettersWanted(door="nobody"), []),
    ],
)
async def test_only_those_that_are_wanted(
    place: Place, clock: ManualClock, wanted: LettersWanted, numbers: list[int]
) -> None:
    letters = small(place, clock)
    await letters.add(
        [
            replace(letter(1000.0, b"0"), sender="anonymous"),
            replace(letter(1001.0, b"1", "Labels.A%: expected a string"), door="v1"),
            replace(letter(1002.0, b"2", "labels_a"), sender="payments"),
            replace(letter(1003.0, b"3"), door="v1", sender="payments", tenant="other"),
        ]
    )

    found = await letters.page(0, 10, wanted)
    assert [int(each.payload) for each in found] == numbers
    assert await letters.latest(0, 10, wanted) == found[::-1]
    paged = [each for each in await letters.page(0, 1, wanted)]
    while paged and (more := await letters.page(paged[-1].id, 1, wanted)):
        paged += more
    assert paged == found


@pytest.mark.asyncio
async def test_what_is_removed_is_gone_and_does_not_count_as_dropped(
    place: Place, clock: ManualClock
) -> None:
    letters = small(place, clock)
    await letters.add([letter(payload=b"%d" % number) for number in range(3)])
    first, second, third = await letters.page(0, 10)

    gone = await letters.remove([first.id, third.id, third.id + 1])
    again = await letters.remove([first.id])

    assert (gone, again) == (2, 0)
    assert await letters.page(0, 10) == [second]
    assert await letters.get(first.id) is None
    stats = await letters.stats()
    assert (stats["kept"], stats["dropped"]) == (1, 0)
    await letters.remove([second.id])
    assert (await letters.stats())["bytes"] == 0


@pytest.mark.asyncio
async def test_a_change_is_of_one_letter_and_only_while_it_is_there(place: Place, clock: ManualClock) -> None:
    letters = small(place, clock)
    await letters.add([letter(payload=b"1"), letter(payload=b"2")])
    first, second = await letters.page(0, 10)
    changed = replace(first, reason="another " * 400, replays=1, tried_at=1005.0, request=b"how")

    await letters.change(changed)
    await letters.change(changed)

    found = await letters.page(0, 10)
    assert found == [replace(changed, reason=changed.reason[:2000]), second]
    assert await letters.latest(0, 1, LettersWanted(reason="another")) == found[:1]
    await letters.remove([first.id])
    await letters.change(changed)
    assert await letters.page(0, 10) == [second]
    await letters.remove([second.id])
    assert await letters.stats() == {"kept": 0, "bytes": 0, "dropped": 0}


@pytest.mark.asyncio
async def test_a_changed_letter_counts_what_it_takes_until_it_is_dropped(
    place: Place, clock: ManualClock
) -> None:
    letters = small(place, clock)
    await letters.add([letter()])
    (found,) = await letters.page(0, 10)
    before = (await letters.stats())["bytes"]

    await letters.change(replace(found, reason="x" * 500))
    after = (await letters.stats())["bytes"]
    clock.forward(1000.0)
    await letters.add([letter(at=clock.now())])

    assert after > before + 400
    assert (await letters.stats())["bytes"] == before
    assert await letters.get(found.id) is None


@pytest.mark.asyncio
async def test_letters_in_a_file_of_before_can_be_read_and_added_to(
    tmp_path: Path, clock: ManualClock
) -> None:
    import apsw

    from services.stores.sqlite.dead_letters import SCHEMA, SqliteDeadLetters

    connection = apsw.Connection(str(tmp_path / "dead_letters.db"))
    connection.execute(SCHEMA[0])
    connection.execute("INSERT INTO letters VALUES (7, 1000.0, 't', 'v1', 'why', x'7b', 'a/b', 1, 204)")
    connection.execute("UPDATE totals SET kept = 1, bytes = 204; PRAGMA user_version = 1")
    connection.close()
    letters = SqliteDeadLetters(tmp_path, max_bytes=100_000, max_age_s=60.0, clock=clock)
    try:
        of_before = [DeadLetter(1000.0, "t", "v1", "why", b"{", "a/b", 7, True)]

        only_read = await letters.page(0, 10)
        by_sender = await letters.page(0, 10, LettersWanted(sender="nobody"))
        await letters.add([letter()])

        assert only_read == of_before and by_sender == []
        assert (await letters.page(0, 10))[:1] == of_before
        assert (await letters.stats())["kept"] == 2
    finally:
        await letters.close()
