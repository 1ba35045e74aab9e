"""Minutes of kills on top of each other while alerts come over WebSockets and through NATS, whose server is killed too. `make soak`;
`-k 4711` for one seed.

SOAK_SECONDS (120) is about how long each seed's kills go on.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest

from tests.api.queue_peers import NatsPeer
from tests.cluster import doors_under_kills, kills
from tests.cluster.door_senders import sending
from tests.cluster.instance import Cluster, running
from tests.ports import free_port

SECONDS = float(os.environ.get("SOAK_SECONDS", "120"))
pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS * 3 + 600)]

SEEDS = (4711, 4712, 4713)
#: Most of the time one kill meets the recovery from another.
EVERY_S = 2.0
#: A collector that was killed waits 10 s for what the one before it held: it is killed meanwhile, and after it.
KINDS = (*kills.KINDS, *kills.SERVE, "collector-0", "collector-0", doors_under_kills.NATS)


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsPeer]:
    peer = NatsPeer(tmp_path_factory.mktemp("queue"))
    try:
        peer.start()
        doors_under_kills.create_stream(peer)
        yield peer
    finally:
        peer.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, queue: NatsPeer) -> Iterator[Cluster]:
    settings = {
        "LLM_IM_STATE__SNAPSHOT_EVERY_FRAMES": "1000",
        "LLM_IM_LIFECYCLE__RESOLVE_TIMEOUT": "1d",
        **doors_under_kills.settings(queue),
    }
    with running(Cluster(tmp_path_factory.mktemp("soak") / "data", free_port(), settings)) as found:
        yield found


@pytest.mark.parametrize("seed", SEEDS)
def test_alerts_of_sockets_and_a_queue_survive_minutes_of_kills(
    cluster: Cluster, queue: NatsPeer, seed: int
) -> None:
    chance = random.Random(seed)
    cluster.settled()

    with sending(cluster.url, queue.broker, doors_under_kills.SUBJECT, seed) as senders:
        time.sleep(1.0)
        end_at, count = time.monotonic() + SECONDS, 0
        while time.monotonic() < end_at:
            doors_under_kills.on_top_of_each_other(cluster, queue, [chance.choice(KINDS)], chance, EVERY_S)
            count += 1
        cluster.settled(120.0)
        time.sleep(2.0)

    alerts = sum(len(each.acknowledged) for each in senders)
    failed = sum(sum(each.failed.values()) for each in senders)
    print(f"seed {seed}: {count} kills in {SECONDS:g} s, {alerts} alerts acknowledged, {failed} tries failed")
    doors_under_kills.check(cluster, queue, senders, seed)
