"""Processes are killed while a sender sends 3,000 alerts a second: what was acknowledged is there, once."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.cluster import audit, kills
from tests.cluster.instance import Cluster
from tests.cluster.load import sending
from tests.cluster.senders import ALERTMANAGER, V1

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

#: Repeats a failing run: KILL_SEED=... (its own prints it).
SEED = int(os.environ.get("KILL_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
#: The most that a sender may have to wait, in seconds: twice what is promised, since a machine that runs tests does other things as
#: well. benchmarks/failover.py measures what is promised.
GAP_MAX_S = {"shard": 6.0, "gateway": 2.0, "haproxy": 4.0, "control-a": 2.0, "classifier-0": 2.0}


def test_what_was_acknowledged_survives_kills_of_every_kind(cluster: Cluster, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    kinds = [*kills.KINDS, "gateway", "shard-0000-a"]
    chance.shuffle(kinds)
    print(f"seed {SEED}: {' '.join(kinds)}")

    with sending(cluster, tmp_path / "told.json", seed=SEED) as load:
        time.sleep(1.0)
        done = kills.one_by_one(cluster, kinds, chance)
    told = load.told

    gaps = kills.gaps(told, done)
    print(f"longest time without an answer, s: {gaps}")
    print(
        f"{told.alerts} alerts in {told.requests} requests, {told.alerts / told.seconds:.0f}/s, "
        f"slowest {told.slowest_s:.2f} s; not acknowledged: {told.failed}"
    )
    assert told.unfinished == 0
    assert told.acknowledged[ALERTMANAGER] and told.acknowledged[V1]
    audit.check(audit.through_the_api(cluster, SEED), told, counted=True)
    audit.check(audit.firing(cluster, SEED), told, counted=False)
    audit.check(audit.offline(cluster.data, cluster.partitions, SEED), told, counted=True)
    audit.verify_logs(cluster)
    # A sender takes 4xx for its own fault and drops the alert (Prometheus does), so it must never be ours.
    assert not [why for why in told.failed if why.startswith("4")], told.failed
    too_long = {kind: found for kind, found in gaps.items() if max(found) >= GAP_MAX_S[kind]}
    assert not too_long, f"longest time without an answer, s: {too_long}, allowed {GAP_MAX_S}"
