"""The system under seeded trouble keeps its laws; broken on purpose, it is found out. A failure prints its seed."""

from __future__ import annotations

import pytest

from models.shard.assembly import EVERY_EVENT
from models.shard.messages import Decision
from tests.simulation.many import COMMAND, run_many
from tests.simulation.mutations import MUTATIONS
from tests.simulation.world import World

#: Some 13 s on an idle machine; `python -m tests.simulation --seeds 10000` is the long way.
SEEDS = 200
#: A mutation must be found within so many seeds.
FOUND_WITHIN = 40
#: The control partition's, where no trouble of a shard reaches.
#: Slots move while nothing runs: tests/api/test_resharding.py.
ELSEWHERE = {
    "SlotLeft", "SlotArrived",
    "SlotsAssigned", "SlotsMoving", "CopyBegan", "CopyEnded", "PartitionsBegan", "StoreMoved", "TokenCreated", "TokenRotated", "TokenRevoked", "TokensUsed", "SettingsChanged",
}  # fmt: skip


#: Asked for again at once, what only a faulty gateway, a broken hash or full memory could bring, and what people decide, which no sender is told.
NEVER_KEPT = {
    Decision.BODY_WANTED.name,
    Decision.UNREADABLE.name,
    Decision.SPLIT_OFF.name,
    Decision.COLLIDED.name,
    Decision.SENDER_FULL.name,
    Decision.SHARD_FULL.name,
}


@pytest.fixture(scope="module")
def reached() -> dict[str, int]:
    failed, counts = run_many(range(SEEDS))
    told = [f"seed {each.seed}: {each.violations[0]}\n    {COMMAND} --seed {each.seed}" for each in failed]
    assert not failed, "\n".join(told)
    return counts


def test_no_law_is_broken_whatever_fails(reached: dict[str, int]) -> None:
    assert reached["acknowledged"] > 20 * SEEDS


def test_the_seeds_reach_every_event_and_every_decision(reached: dict[str, int]) -> None:
    events = {event.__name__ for event in EVERY_EVENT} - ELSEWHERE
    decisions = {decision.name for decision in Decision} - NEVER_KEPT

    missing = {name for name in events | decisions if not reached.get(name)}

    assert not missing


def test_a_run_is_a_function_of_its_seed() -> None:
    one, other = World(7, tell=True), World(7, tell=True)

    one.run()
    other.run()

    assert one.lines == other.lines
    assert one.loop.steps == other.loop.steps
    assert [w.digest for w in one.watchers.values()] == [w.digest for w in other.watchers.values()]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_system_broken_on_purpose_is_found_out(mutation: str) -> None:
    failed, _reached = run_many(range(FOUND_WITHIN), mutation=mutation, stop_at_first=True)

    assert failed, f"{FOUND_WITHIN} seeds did not find that {mutation}"
    assert MUTATIONS[mutation] in failed[0].violations[0]
