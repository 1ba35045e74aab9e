"""A sender far too fast for a store that is slow: what is refused, and whether memory stays flat.

python -m benchmarks.pressure [--quick]

The store is Redis behind a proxy that delays every byte. Senders on hundreds of connections send new alerts and come again at once, whatever
they are told. Printed over time: the memory of the gateway and of the shard, and at the end how much was offered and taken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from benchmarks.bodies import Bodies
from benchmarks.harness import RESULTS, ROOT
from benchmarks.load import Spec
from benchmarks.own import Own, own, say, write
from benchmarks.peers import redis
from services.machine import launch
from services.machine.processes import described
from tests.contract.proxy import Proxy

#: Each way: an append takes twice as long, a hundred times what Redis takes on a quiet network.
DELAY_S = 0.3
#: Requests of 64 at once: more than the gateway's line holds, so that it has to refuse.
CONNECTIONS, BATCH = 256, 64
INFLIGHT_ALERTS = 4096
#: They are repeated once all were sent: what grows with them is what a shard is to remember, not what waits.
SERIES = 20_000
DURATION_S, QUICK_S = 45.0, 15.0
#: Before memory is compared: series are opened, and buffers grow to their size.
SETTLED_S = 15.0
WATCHED = ("gateway", "shard")


@contextmanager
def slowed(port: int) -> Iterator[Proxy]:
    """A proxy in front of a port, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxy = Proxy(port)
    asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result()
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def memory_of(system: Own) -> dict[str, int]:
    """Megabytes of the processes that are watched."""
    instance = launch.running(system.data)
    assert instance is not None
    found: dict[str, int] = {}
    for each in described(instance):
        for name in WATCHED:
            if each.what.lower().startswith(name):
                found[name] = found.get(name, 0) + each.memory_bytes // 1_000_000
    return found


async def flood(system: Own, duration_s: float) -> tuple[dict[str, object], list[dict[str, float]]]:
    """What the senders saw, and the memory of each second."""
    bodies = Bodies("repeats", SERIES, BATCH, passes=2)
    spec = Spec(
        bodies, concurrency=CONNECTIONS, duration_s=duration_s, warmup_s=0.0, preload=bodies, timeout_s=30.0
    )
    load = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.load", "--url", system.url, "--spec", "-"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    telling = asyncio.ensure_future(load.communicate(spec.to_json().encode()))
    begun, seen = time.monotonic(), []
    while not telling.done():
        at_s = round(time.monotonic() - begun, 1)
        seen.append({"at_s": at_s, **memory_of(system)})
        say(f"{at_s:5.1f} s  " + "  ".join(f"{name} {seen[-1].get(name, 0):,.0f} MB" for name in WATCHED))
        await asyncio.wait([telling], timeout=1.0)
    output, _ = telling.result()
    found: dict[str, object] = json.loads(output)["measured"]
    return found, seen


def run(duration_s: float) -> dict[str, object]:
    with redis() as peer, slowed(int(peer.url.rpartition(":")[2])) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        settings = {
            "STATE__BACKEND": "redis",
            "STATE__REDIS__URL": url,
            "STATE__PARTITIONS": "1",
            "SERVER__GATEWAYS": "1",
            "SERVER__MAX_INFLIGHT_ALERTS": str(INFLIGHT_ALERTS),
        }
        with own(**settings) as system:
            proxy.delay_s = DELAY_S
            measured, seen = asyncio.run(flood(system, duration_s))
            proxy.delay_s = 0.0
    statuses = measured["statuses"]
    assert isinstance(statuses, dict)
    answered = sum(statuses.values())
    taken = sum(count for status, count in statuses.items() if str(status).startswith("2"))
    settled = [each for each in seen if each["at_s"] >= SETTLED_S] or seen
    growth = {name: settled[-1].get(name, 0) - settled[0].get(name, 0) for name in WATCHED}
    say(
        f"{answered * BATCH / duration_s:,.0f} alerts/s offered, {taken * BATCH / duration_s:,.0f} taken: "
        f"{answered / max(1, taken):.1f} times too fast; {statuses}"
    )
    say(
        "after the first seconds " + ", ".join(f"{name} grew by {by:+,.0f} MB" for name, by in growth.items())
    )
    return {
        "delay_s": DELAY_S,
        "duration_s": duration_s,
        "offered_per_taken": answered / max(1, taken),
        "statuses": statuses,
        "growth_mb": growth,
        "memory_mb": seen,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="10 s")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    write("pressure", [run(QUICK_S if arguments.quick else DURATION_S)], arguments.results)


if __name__ == "__main__":
    main()
