"""A dict in parts: it has what a dict has, and growing moves a small share of it."""

from __future__ import annotations

import hashlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fill import Filler, alerts
from models.partition.parted import PARTS, Parted
from models.shard.settings import ShardSettings

KEYS = st.binary(min_size=1, max_size=3)


@given(st.lists(st.tuples(st.sampled_from(["put", "pop", "del"]), KEYS, st.integers())), KEYS)
def test_it_holds_what_a_dict_would(steps: list[tuple[str, bytes, int]], other: bytes) -> None:
    found, plain = Parted[int](), dict[bytes, int]()
    for what, key, value in steps:
        if what == "put":
            found[key] = plain[key] = value
        elif what == "pop":
            assert found.pop(key) == plain.pop(key, None)
        elif key in plain:
            del found[key], plain[key]

    assert dict(found.items()) == plain and len(found) == len(plain)
    assert found.get(other) == plain.get(other) and (other in found) == (other in plain)
    found.clear()
    assert not dict(found.items())


def test_an_id_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Parted[int]()[b"one"]
    with pytest.raises(KeyError):
        del Parted[int]()[b"one"]


def test_what_one_step_moves_is_a_part_however_much_there_is() -> None:
    found = Parted[int]()
    most = 0
    for number in range(60_000):
        key = hashlib.blake2b(number.to_bytes(4, "big"), digest_size=16).digest()
        part = found.parts[key[-1]]
        size, entries = sys.getsizeof(part), len(part)
        found[key] = number
        if sys.getsizeof(part) != size:
            most = max(most, entries)

    assert most <= 2 * 60_000 / PARTS


def test_the_series_of_a_message_move_no_table_of_all_series() -> None:
    """What is found by its series is in parts; of the tables that a message of new alerts grows, one is not, because every
    repeat is looked up in it (SeriesTable.firing)."""
    filler = Filler("shard/0000", ShardSettings(max_open=1_000_000))
    table = filler.shard.state.series
    made = alerts(25_000, 100)
    moved = []
    for at in range(0, len(made), 500):
        before = [(sys.getsizeof(part), len(part)) for part in table.by_series.parts]
        filler.tell(made[at : at + 500], 1000.0)
        sizes = map(sys.getsizeof, table.by_series.parts)
        moved.append(sum(count for (size, count), after in zip(before, sizes, strict=True) if after != size))

    assert len(table.by_series) == 25_000
    # A plain dict moved 21,845 in one of these messages.
    assert max(moved) < 6_000
