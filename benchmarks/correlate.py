"""How fast incidents become situations, and how soon an incident knows of it. No Ray.

python -m benchmarks.correlate [--quick]

First the machine alone (models/topology/topology.py): incidents of a graph of 1,000 services open, 20 a page as a reader brings them, and
what is to be told of each is worked out; in time of this process alone. Then a whole system in one process (tests/api/gateway_in_process.py):
from the answer to an alert until its incident shows its situation, which is the way through the shard's log, the reader, the correlator's log
and back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from pathlib import Path

from benchmarks.harness import RESULTS
from benchmarks.own import say, write
from models.topology.events import IncidentNews
from models.topology.graph import Dependency, Service
from models.topology.messages import DeclareTopology, IncidentsHeard
from models.topology.situations import Rules
from models.topology.topology import Topology

NOW = 1_767_225_600.0
SERVICES = 1000
#: Incidents of one page of a shard's log, in a flood.
PAGE = 20


def graph() -> DeclareTopology:
    """A tree of ten branches, with a tenth of further dependencies."""
    rng = random.Random(1)
    names = [f"s{number}" for number in range(SERVICES)]
    links = [Dependency(names[(number - 1) // 10], names[number]) for number in range(1, SERVICES)]
    links += [
        Dependency(one, other)
        for one, other in ((rng.choice(names), rng.choice(names)) for _ in range(SERVICES // 10))
        if one != other
    ]
    return DeclareTopology("benchmark", [Service(each) for each in names], links, "benchmark")


def machine(incidents: int, over_s: float) -> dict[str, object]:
    """Incidents that open evenly over so long, each for a minute."""
    rng = random.Random(2)
    topology = Topology(rules=Rules(window_s=60.0))
    topology.handle(graph(), NOW)
    at = [NOW + over_s * number / incidents for number in range(incidents)]
    took_s, told = 0.0, 0
    open_now: list[IncidentNews] = []
    for seq, first in enumerate(range(0, incidents, PAGE), 1):
        now = at[first]
        fresh = [
            IncidentNews(
                number.to_bytes(16, "big"), f"s{rng.randrange(SERVICES)}", "slow", 2, True, at[number]
            )
            for number in range(first, min(first + PAGE, incidents))
        ]
        over = [each for each in open_now if now - each.since > 60.0]
        open_now = [each for each in open_now if now - each.since <= 60.0] + fresh
        ended = [IncidentNews(each.id, each.service, each.title, 2, False, each.since) for each in over]
        begun = time.process_time()
        topology.seq = seq
        step = topology.handle(IncidentsHeard("shard/0000", seq, b"d" * 8, [*fresh, *ended]), now)
        for effect in step.effects:
            for identity in effect.incidents:
                topology.relation(identity, now)
                told += 1
        took_s += time.process_time() - begun
    return {
        "what": f"{incidents} incidents in {over_s:g} s",
        "incidents_per_s": round(incidents / took_s),
        "told": told,
        "situations": len(topology.situations.all),
    }


async def latency(count: int) -> dict[str, object]:
    from tests.api.gateway_in_process import system

    async def related(service: str) -> bool:
        items = (await ours.get(f"/v1/incidents?service={service}")).items
        return bool(items and items[0]["situation"])

    async with system(correlation={"enabled": True}) as ours:
        links = [{"caller": f"a{number}", "callee": f"b{number}"} for number in range(count)]
        body = json.dumps({"dependencies": links}).encode()
        while (
            await ours.request("PUT", "/v1/topology", [body], [(b"content-type", b"application/json")])
        ).status != 200:
            await asyncio.sleep(0.1)
        found = []
        for number in range(count):
            await ours.post("/v1/alerts", {"labels": {"alertname": "Slow", "service": f"b{number}"}})
            await ours.post("/v1/alerts", {"labels": {"alertname": "Slow", "service": f"a{number}"}})
            begun = time.perf_counter()
            while not await related(f"a{number}"):
                await asyncio.sleep(0.01)
            found.append(1000 * (time.perf_counter() - begun))
    found.sort()
    return {
        "what": "from the answer to the situation shown",
        "n": count,
        "p50_ms": round(statistics.median(found)),
        "p99_ms": round(found[min(count - 1, int(0.99 * count))]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    n = 2_000 if asked.quick else 20_000
    found: list[dict[str, object]] = [machine(n, 600.0), machine(n, 60.0)]
    found.append(asyncio.run(latency(10 if asked.quick else 100)))
    for each in found:
        say(str(each))
    write("correlate", found, asked.out)


if __name__ == "__main__":
    main()
