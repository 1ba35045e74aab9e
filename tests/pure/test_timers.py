"""The wheel of a shard (models/partition/timers.py) against the plain thing: a dict that is looked through."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.partition import timers
from models.partition.timers import Timers

IDS = st.integers(0, 5).map(lambda number: bytes([number % 2, number]))
STEPS = st.tuples(st.sampled_from(["set", "due", "clear"]), IDS, st.integers(0, 9), st.integers(1, 3))


@given(st.lists(STEPS, max_size=40))
def test_each_is_due_once_at_the_time_it_was_last_given(steps: list[tuple[str, bytes, int, int]]) -> None:
    wheel, plain = Timers(), dict[bytes, float]()
    for step, identity, at, most in steps:
        if step == "set":
            wheel.set(identity, float(at))
            plain[identity] = float(at)
        elif step == "due":
            waiting = sorted((when, each) for each, when in plain.items() if 0 < when <= at)
            found = wheel.due(float(at), most)
            assert found == [each for _when, each in waiting[:most]]
            plain.update(dict.fromkeys(found, 0.0))
        else:
            wheel.clear()
            plain.clear()
        assert all(wheel.at(each) == at for each, at in plain.items())


def test_times_that_were_overtaken_do_not_pile_up() -> None:
    wheel = Timers()
    held = [number.to_bytes(16, "big") for number in range(100)]
    for at in range(1, 4 * timers.SLACK // len(held)):
        for identity in held:
            wheel.set(identity, float(at))
        for identity in held[1::2]:
            wheel.set(identity, 0.0)
    assert len(wheel) <= 2 * len(held) + timers.SLACK + 1
