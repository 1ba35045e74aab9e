"""Snapshots by copy on write: whatever changes while one is written, its records are the state at its beginning."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from models.partition.checkpoint import META, ROW_BYTES, Census, Checkpoint, parse_key, record_key
from models.shard.state import CALLS, INCIDENT, MOVING, STATIC

KINDS = (CALLS, INCIDENT, META, MOVING, STATIC)
NAMES = {kind.name: kind for kind in KINDS}


class Store:
    """Numbers by name that a checkpoint captures; every change goes through touch()."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {}
        self.checkpoint = Checkpoint([MOVING], lambda _part, number: self.record(int(number)))

    def record(self, number: int) -> bytes | None:
        return b"%d" % self.values[number] if number in self.values else None

    def put(self, number: int, value: int | None) -> None:
        self.checkpoint.touch(MOVING, number)
        if value is None:
            self.values.pop(number, None)
        else:
            self.values[number] = value

    def put_all(self, numbers: list[int], value: int) -> None:
        self.checkpoint.touch_all(MOVING, numbers)
        for number in numbers:
            self.values[number] = value

    def records(self) -> dict[str, bytes]:
        return {record_key(MOVING, number): b"%d" % value for number, value in self.values.items()}


_changes = st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 99)), max_size=6)


@settings(max_examples=200, deadline=None)
@given(
    rounds=st.lists(
        st.tuples(_changes, st.lists(st.tuples(_changes, st.integers(1, 2000)), max_size=5), st.booleans()),
        max_size=5,
    )
)
def test_a_snapshot_is_the_state_at_its_beginning_whatever_changes_between_its_slices(
    rounds: list[tuple[list[tuple[int, int | None]], list[tuple[list[tuple[int, int | None]], int]], bool]],
) -> None:
    store = Store()
    stored: dict[str, bytes] = {}
    for changes, slices, is_given_up in rounds:
        for number, value in changes:
            store.put(number, value)
        store.checkpoint.begin()
        meant = store.records()
        written: dict[str, bytes | None] = {}
        for between, size in slices:
            if store.checkpoint.is_running:
                written.update(store.checkpoint.slice(size))
            for number, value in between:
                store.put(number, value)
        if is_given_up:
            # What was written so far may be there or not; here it is not.
            store.checkpoint.abandon()
            continue
        while store.checkpoint.is_running:
            written.update(store.checkpoint.slice(100))
        store.checkpoint.closed()
        stored.update({key: record for key, record in written.items() if record is not None})
        for key in [key for key, record in written.items() if record is None]:
            stored.pop(key, None)
        assert stored == meant
        census = Census()
        census.add(stored.items())
        assert store.checkpoint.census().checksum() == census.checksum()


def test_many_changes_at_once_are_captured_before_they_happen() -> None:
    store = Store()
    store.put_all([1, 2, 3], 1)
    store.checkpoint.begin()

    store.put_all([2, 3], 5)

    assert dict(store.checkpoint.slice(10_000)) == {f"m/0000000{number}": b"1" for number in (1, 2, 3)}


def test_what_no_longer_exists_is_written_as_gone() -> None:
    store = Store()
    store.put(1, 1)
    store.put(1, None)
    store.checkpoint.begin()

    assert store.checkpoint.slice(10_000) == [("m/00000001", None)]


def test_a_slice_that_may_be_lost_is_written_again_by_the_next_snapshot() -> None:
    store = Store()
    store.put(1, 1)
    store.checkpoint.begin()
    store.checkpoint.slice(10_000)

    store.checkpoint.abandon()
    store.checkpoint.begin()

    assert store.checkpoint.slice(10_000) == [("m/00000001", b"1")]


def test_a_snapshot_without_its_mark_is_written_again() -> None:
    store = Store()
    store.put(1, 1)
    store.checkpoint.begin()
    store.checkpoint.slice(10_000)
    assert store.checkpoint.slice(10_000) == []

    store.checkpoint.abandon()
    store.checkpoint.begin()

    assert store.checkpoint.slice(10_000) == [("m/00000001", b"1")]


def test_what_did_not_change_is_not_written_again() -> None:
    store = Store()
    store.put(1, 1)
    store.checkpoint.begin()
    while store.checkpoint.is_running:
        store.checkpoint.slice(10_000)
    store.checkpoint.closed()
    store.put(2, 2)

    store.checkpoint.begin()

    assert store.checkpoint.slice(10_000) == [("m/00000002", b"2")]


def test_the_time_of_a_snapshot_is_that_of_its_beginning() -> None:
    now = [1]
    checkpoint = Checkpoint(KINDS, lambda _part, _number: b"%d" % now[0])
    checkpoint.begin()

    now[0] = 2

    assert checkpoint.slice(10_000) == [("k/00000000", b"1")]


def test_two_snapshots_at_once_are_refused() -> None:
    checkpoint = Checkpoint([MOVING], lambda _part, _number: b"")
    checkpoint.begin()

    with pytest.raises(RuntimeError):
        checkpoint.begin()


@given(number=st.integers(0, 10**7))
def test_a_record_key_reads_back(number: int) -> None:
    assert parse_key(record_key(STATIC, number), NAMES) == (STATIC, number, 1)
    assert parse_key(record_key(INCIDENT, number.to_bytes(16, "big")), NAMES) == (
        INCIDENT,
        number.to_bytes(16, "big"),
        1,
    )


def test_moving_parts_and_incidents_are_loaded_before_statics() -> None:
    keys = sorted(record_key(part, b"\xff" * 16 if part is INCIDENT else 99999999) for part in KINDS)

    assert parse_key(keys[-1], NAMES)[0] is STATIC


def test_a_slice_holds_a_bounded_number_of_rows_however_small_they_are() -> None:
    store = Store()
    for number in range(1000):
        store.put(number, None)

    store.checkpoint.begin()
    sizes = []
    while records := store.checkpoint.slice(100 * ROW_BYTES):
        sizes.append(len(records))

    assert sizes == [100] * 10
