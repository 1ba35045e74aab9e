"""SIGKILLs of an instance's processes in seeded order, and how long each kind of kill was felt. Used by test_kill.py
and tests/soak."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.cluster.instance import Cluster, until
from tests.cluster.load import longest_gap
from tests.cluster.senders import Told

SHARDS = ("shard-0000-a", "shard-0001-a")
#: A gateway is any of the replicas, by chance.
KINDS = (*SHARDS, "gateway", "haproxy", "control-a", "classifier-0")
#: Serve's own: what starts HAProxy, and what starts that. Nobody waits for them in the short test.
SERVE = {"manager": "ray::Doorkeeper", "controller": "ray::ServeController"}
#: After a kill the next waits until all is well again and this much longer, so that a gap has one cause.
BREATH_S = 0.7
SETTLE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: when (time.time()), when the next thing happened, and how long until all was well (None: not waited)."""

    kind: str
    at: float
    until: float
    settled_s: float | None


def kill(cluster: Cluster, kind: str, chance: random.Random) -> list[int]:
    """SIGKILL what `kind` names; the pids. Waits for one to be there first."""
    pids: list[int] = []

    def found() -> bool:
        pids[:] = _targets(cluster, kind, chance)
        return bool(pids)

    until(f"a {kind} to kill", found, SETTLE_TIMEOUT_S)
    for pid in pids:
        cluster.kill(pid)
    return pids


def one_by_one(cluster: Cluster, kinds: Iterable[str], chance: random.Random) -> list[Kill]:
    """Kill each in turn, wait until all is well in between."""
    kills = []
    for kind in kinds:
        at = time.time()
        kill(cluster, kind, chance)
        settled_s = cluster.settled(SETTLE_TIMEOUT_S)
        time.sleep(BREATH_S)
        kills.append(Kill(kind, at, time.time(), settled_s))
        time.sleep(BREATH_S / 2)  # an answer in between: the next one's gap is not this one's
    return kills


def on_top_of_each_other(
    cluster: Cluster, seconds: float, chance: random.Random, every_s: float
) -> list[Kill]:
    """Kill anything, anytime: also what has only just come back."""
    kills = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        kind, at = chance.choice((*KINDS, *KINDS, *SERVE)), time.time()
        kill(cluster, kind, chance)
        time.sleep(chance.uniform(0.2, 2 * every_s))
        kills.append(Kill(kind, at, time.time(), None))
    return kills


def gaps(told: Told, kills: Sequence[Kill]) -> dict[str, list[float]]:
    """For each kind the longest time without an answer after each of its kills, in seconds: of the shard's own
    probes for a shard, of whichever shard suffered most for the rest."""
    answers = {shard: sorted(times) for shard, times in told.answers.items()}
    found: dict[str, list[float]] = defaultdict(list)
    for each in kills:
        felt_by = (
            [str(SHARDS.index(each.kind))] if each.kind in SHARDS else [s for s in answers if s != "any"]
        )
        gap = max(longest_gap(answers[shard], each.at, each.until) for shard in felt_by)
        found["shard" if each.kind in SHARDS else each.kind].append(round(gap, 2))
    return dict(found)


def _targets(cluster: Cluster, kind: str, chance: random.Random) -> list[int]:
    match kind:
        case "gateway":
            found = cluster.gateway_pids()
            return [chance.choice(found)] if found else []
        case "haproxy":
            return cluster.haproxy_pids()
        case "manager" | "controller":
            return [pid for pid, title in cluster.pids().items() if title.startswith(SERVE[kind])]
        case _:
            return [cluster.actor_pid(kind)]
