"""Hundreds of runs of playbooks while processes are killed one after the other, round after round. `make soak`; `-k 4711` for one
seed.

SOAK_RUNS (500) is how many, SOAK_ROUNDS (3) how often each kind of process is killed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.cluster import kills, runs_under_kills
from tests.cluster.instance import Cluster, running
from tests.cluster.played import CounterApi, Played
from tests.ports import free_port

RUNS, ROUNDS = int(os.environ.get("SOAK_RUNS", "500")), int(os.environ.get("SOAK_ROUNDS", "3"))
pytestmark = [pytest.mark.soak, pytest.mark.timeout(600 + ROUNDS * 120)]

SEEDS = (4711, 4712)
KINDS = ("responder-0", *kills.SHARDS, "gateway", "control-a", "classifier-0")
#: Runs go on while everything is killed: all kinds take some 20 s.
ROUNDS_OF_RUN = 12 * ROUNDS


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {
        "LLM_IM_PLAYBOOKS__ENABLED": "true",
        "LLM_IM_OUTBOUND__ALLOW": '["127.0.0.1"]',
        "LLM_IM_OUTBOUND__RATE": "none",
        "LLM_IM_STATE__SNAPSHOT_EVERY_FRAMES": "1000",
        "LLM_IM_LIFECYCLE__RESOLVE_TIMEOUT": "1d",
    }
    with running(Cluster(tmp_path_factory.mktemp("soak") / "data", free_port(), settings)) as found:
        yield found


@pytest.mark.parametrize("seed", SEEDS)
def test_runs_survive_rounds_of_kills_and_nothing_is_done_twice(cluster: Cluster, seed: int) -> None:
    chance = random.Random(seed)
    cluster.settled()
    order = [kind for _ in range(ROUNDS) for kind in chance.sample(KINDS, len(KINDS))]
    print(f"seed {seed}: {' '.join(order)}")

    with Played(counter=(counter := CounterApi())) as played:
        story = runs_under_kills.apply_and_send(cluster, played.place["counter"], RUNS, rounds=ROUNDS_OF_RUN)
        kills.one_by_one(cluster, order, chance)
        runs_under_kills.check(cluster, counter, story, rounds=ROUNDS_OF_RUN)
