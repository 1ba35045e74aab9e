"""The long kill test: minutes of kills on top of each other, several seeds. `make soak`; `-k 4711` for one seed.

SOAK_SECONDS (120) is how long each seed's kills go on.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import audit, kills
from tests.cluster.instance import Cluster, running
from tests.cluster.load import sending
from tests.ports import free_port

SECONDS = float(os.environ.get("SOAK_SECONDS", "120"))
pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS * 2 + 600)]

SEEDS = (4711, 4712, 4713, 4714, 4715)
#: Most of the time one kill meets the recovery from another.
EVERY_S = 2.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {"LLM_IM_STATE__SNAPSHOT_EVERY_FRAMES": "1000", "LLM_IM_LIFECYCLE__RESOLVE_TIMEOUT": "1d"}
    with running(Cluster(tmp_path_factory.mktemp("soak") / "data", free_port(), settings)) as found:
        yield found


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_acknowledged_survives_minutes_of_kills(cluster: Cluster, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    cluster.settled()

    # One alert in thirty is new: all of them are read back at the end.
    with sending(cluster, tmp_path / "told.json", seed=seed, new_share=0.04) as load:
        done = kills.on_top_of_each_other(cluster, SECONDS, chance, EVERY_S)
        cluster.settled(120.0)
        time.sleep(2.0)
    told = load.told

    print(
        f"seed {seed}: {len(done)} kills in {SECONDS:g} s, {told.alerts} alerts acknowledged, "
        f"{sum(told.failed.values())} tries failed, slowest {told.slowest_s:.1f} s"
    )
    assert told.unfinished == 0
    audit.check(audit.through_the_api(cluster, seed), told, counted=True)
    audit.check(audit.firing(cluster, seed), told, counted=False)
    audit.check(audit.offline(cluster.data, cluster.partitions, seed), told, counted=True)
    audit.verify_logs(cluster)
    assert not [why for why in told.failed if why.startswith("4")], told.failed
