"""The system under seeded trouble keeps its laws. A failure prints its seed."""

from __future__ import annotations

from collections import Counter

import pytest

from models.control.events import (
    CopyBegan,
    CopyEnded,
    CursorMoved,
    PartitionsBegan,
    PollTaken,
    SettingsChanged,
    SlotsAssigned,
    SlotsMoving,
    StoreMoved,
    TokenCreated,
    TokenRevoked,
    TokenRotated,
    TokensUsed,
)
from models.control.heartbeats import HeartbeatBegan, HeartbeatRemoved, HeartbeatSet
from models.control.model_versions import (
    ModelPromoted,
    ModelRolledBack,
    ModelShadowed,
    ModelTrained,
    TrainingAsked,
    TrainingFailed,
)
from models.control.playbooks import PlaybookApplied, PlaybookModeSet, PlaybookRemoved
from models.control.silences import SilenceExpired, SilenceSet
from models.partitions import every_event
from models.people.roster import PeopleChanged, PoliciesOutlined
from models.shard.schedules import RunLeftOut
from models.shard.slot_transfer import SlotArrived, SlotLeft
from models.topology.events import (
    DependencyRemoved,
    DependencySet,
    IncidentsNoted,
    SituationEnded,
    SituationGrew,
    SituationRanked,
    SituationsDropped,
    SourceRemoved,
    TopologyDeclared,
    TopologySeen,
)
from tests.simulation.area import Area
from tests.simulation.areas import AREAS
from tests.simulation.many import COMMAND, run_many
from tests.simulation.world import World

#: Some 15 s on an idle machine, of which a busy one makes minutes; `python -m tests.simulation --seeds 10000` is the long way.
SEEDS = 200
pytestmark = pytest.mark.timeout(900)
#: The control partition's, where no trouble of a shard reaches; the correlator's, which the area of relations stands in for: tests/pure/test_situations.py; slots move while nothing runs: tests/api/test_moving.py; and no run is slow enough for the next one to be left out: tests/pure/test_schedules.py.
ELSEWHERE = {
    SlotLeft, SlotArrived, SlotsAssigned, SlotsMoving, CopyBegan, CopyEnded, PartitionsBegan, StoreMoved,
    TokenCreated, TokenRotated, TokenRevoked, TokensUsed, SettingsChanged, SilenceSet, SilenceExpired, PlaybookApplied, PlaybookModeSet, PlaybookRemoved,
    HeartbeatSet, HeartbeatRemoved, HeartbeatBegan, PollTaken, CursorMoved, PeopleChanged, PoliciesOutlined,
    RunLeftOut, TopologyDeclared, TopologySeen, DependencySet, DependencyRemoved, SourceRemoved, IncidentsNoted, SituationGrew, SituationRanked,
    SituationEnded, SituationsDropped,
    TrainingAsked, TrainingFailed, ModelTrained, ModelPromoted, ModelRolledBack, ModelShadowed,
}  # fmt: skip


@pytest.fixture(scope="module")
def reached() -> dict[str, int]:
    failed, counts = run_many(range(SEEDS))
    told = [f"seed {each.seed}: {each.violations[0]}\n    {COMMAND} --seed {each.seed}" for each in failed]
    assert not failed, "\n".join(told)
    return counts


def test_no_law_is_broken_whatever_fails(reached: dict[str, int]) -> None:
    assert reached["acknowledged"] > 20 * SEEDS


@pytest.mark.parametrize("area", AREAS, ids=lambda area: area.__name__)
def test_the_seeds_reach_every_event_and_every_decision_of_an_area(
    reached: dict[str, int], area: type[Area]
) -> None:
    names = {event.__name__ for event in area.events} | {decision.name for decision in area.decisions}

    assert not {name for name in names if not reached.get(name)}


def test_every_event_belongs_to_one_area() -> None:
    owners = Counter(event for area in AREAS for event in area.events)

    events = set(every_event())
    assert set(owners) == events - ELSEWHERE
    assert set(owners.values()) == {1}


def test_a_run_is_a_function_of_its_seed() -> None:
    one, other = World(7, tell=True), World(7, tell=True)

    one.run()
    other.run()

    assert one.lines == other.lines
    assert one.loop.steps == other.loop.steps
    assert [w.digest for w in one.watchers.values()] == [w.digest for w in other.watchers.values()]
