"""A sorted list in blocks: it has what a plain sorted list has, and no change moves more than a block."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.partition import ordered
from models.partition.ordered import Ordered, behind

Item = tuple[float, bytes]

ITEMS = st.tuples(st.integers(0, 12).map(float), st.sampled_from([b"a", b"b", b"c"]))
BOUNDS = st.one_of(st.just(()), st.tuples(st.integers(-1, 13).map(float)), ITEMS, ITEMS.map(behind))


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordered, "BLOCK_MAX", 4)
        yield


@settings(deadline=None)
@given(st.sets(ITEMS), st.lists(ITEMS), BOUNDS, st.one_of(st.none(), BOUNDS))
def test_it_holds_what_a_sorted_list_would(
    first: set[Item], toggled: list[Item], low: tuple[object, ...], high: tuple[object, ...] | None
) -> None:
    found, plain = Ordered(first), set(first)
    for item in toggled:
        if item in plain:
            plain.remove(item)
            found.remove(item)
        else:
            plain.add(item)
            found.add(item)
        is_sound(found)

    between = sorted(each for each in plain if low <= each and (high is None or each < high))
    assert [*found] == sorted(plain) and len(found) == len(plain)
    assert [*found.up(low, high)] == between
    assert [*found.down(low, high)] == between[::-1]
    assert found.last == max(plain, default=None)
    assert all((item in found) == (item in plain) for item in toggled)


@given(st.sets(ITEMS, min_size=1), ITEMS)
def test_what_is_not_there_cannot_be_taken_out(items: set[Item], other: Item) -> None:
    found = Ordered(items - {other})

    with pytest.raises(KeyError):
        found.remove(other)
    assert [*found] == sorted(items - {other})


def test_what_leaves_at_the_front_and_enters_at_the_end_moves_no_more_than_a_block() -> None:
    found = Ordered((float(number), b"") for number in range(1000))

    for number in range(1000, 3000):
        found.add((float(number), b""))
        found.remove((float(number - 1000), b""))
        is_sound(found)


def test_few_that_stay_for_long_leave_no_block_each() -> None:
    found = Ordered((float(number), b"") for number in range(1000))

    for number in range(1000):
        if number % 20:
            found.remove((float(number), b""))
            is_sound(found)


def is_sound(found: Ordered[Item]) -> None:
    """No block is empty or large, and there are few of them."""
    sizes = [len(block) for block in found._blocks]
    assert all(0 < size <= ordered.BLOCK_MAX for size in sizes)
    assert [block[-1] for block in found._blocks] == found._lasts
    assert len(sizes) <= math.ceil(4 * len(found) / ordered.BLOCK_MAX) + 1
