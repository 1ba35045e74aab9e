"""What must hold of alerts that come over WebSockets and through a queue while processes and the queue's server are killed. Used by
test_doors_under_kills.py and tests/soak."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Iterable

from tests.api.queue_peers import NatsPeer, group_of
from tests.cluster import audit, kills
from tests.cluster.door_senders import Sender
from tests.cluster.instance import Cluster, until
from tests.cluster.senders import V1, Told

SUBJECT = "incidents.ingest"
NATS = "nats"
#: How long the queue's server is away: a moment, as when it is restarted.
AWAY_S = 0.5
#: What a killed collector held comes again after 10 s, and then what has gathered behind it.
EMPTY_TIMEOUT_S = 90.0


def settings(queue: NatsPeer) -> dict[str, str]:
    """Of an instance that reads it."""
    return {
        "LLM_IM_MESSAGING__BACKEND": queue.name,
        "LLM_IM_MESSAGING__BROKERS": f'["{queue.broker}"]',
        "LLM_IM_MESSAGING__TOPICS": f'["{SUBJECT}"]',
        "LLM_IM_MESSAGING__CONSUMER_GROUP": group_of(SUBJECT),
    }


def create_stream(queue: NatsPeer) -> None:
    """What it is read from."""
    asyncio.run(queue.create(SUBJECT))


def on_top_of_each_other(
    cluster: Cluster, queue: NatsPeer, kinds: Iterable[str], chance: random.Random, every_s: float
) -> None:
    """Kill each in turn, whether or not what was killed before is back."""
    for kind in kinds:
        if kind == NATS:
            queue.stop(signal.SIGKILL)
            time.sleep(AWAY_S)
            queue.start()
        else:
            kills.kill(cluster, kind, chance)
        time.sleep(chance.uniform(0.3, 2 * every_s))


def check(cluster: Cluster, queue: NatsPeer, senders: list[Sender], seed: int) -> None:
    """Every acknowledged alert is there, once; what was ended is over, and nothing else; the queue is empty, and all is well."""
    until("an empty queue", lambda: asyncio.run(queue.left(SUBJECT)) == 0, EMPTY_TIMEOUT_S, poll_s=0.5)
    cluster.settled(EMPTY_TIMEOUT_S)
    told = Told()
    for sender in senders:
        told.acknowledged[V1] |= sender.acknowledged
    over = {series for sender in senders for series in sender.over}
    assert over and len(over) < len(told.acknowledged[V1])
    # Of what has an end two decisions, of what goes on one: a repeat, or an end that came too early, would be one more.
    audit.check(audit.through_the_api(cluster, seed), told, counted=True)
    audit.check(audit.offline(cluster.data, cluster.partitions, seed), told, counted=True)
    firing = {series for _door, series in audit.firing(cluster, seed).observed}
    wanted = told.acknowledged[V1].keys() - over
    assert not (lost := wanted - firing), f"{len(lost)} do not fire any more: {sorted(lost)[:10]}"
    assert not (left := firing - wanted), (
        f"{len(left)} still fire though they were ended: {sorted(left)[:10]}"
    )
    audit.verify_logs(cluster)
    cluster.says_that_it_is_ready()
    # A sender takes 4xx for its own fault, so it must never be ours.
    refused = [why for sender in senders for why in sender.failed if why.startswith("4")]
    assert not refused, refused
