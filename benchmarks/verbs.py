"""How long a verb takes at 100,000 open incidents, alone and while 5,000 alerts/s come in.

    python -m benchmarks.verbs [--incidents 100000] [--quick]

One person after the other over one connection: acknowledge, comment, label, reclassify, assign, resolve, reopen, each on an
incident of its own turn. Alone first, then beside an open loop of repeats of the same incidents in batches of 64.
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.bodies import Bodies
from benchmarks.harness import RESULTS, Target, generate
from benchmarks.load import Spec
from benchmarks.own import own, say, write
from benchmarks.reads import percentiles

INCIDENTS = 100_000
BATCH = 64
RATE_ALERTS_S = 5000
ROUNDS = 150
VERBS: tuple[tuple[str, dict[str, object]], ...] = (
    ("acknowledge", {}),
    ("comment", {"text": "It began with the deployment of this morning."}),
    ("label", {"set": {"team": "ml"}}),
    ("reclassify", {"severity": "P1"}),
    ("assign", {"add": ["bob"], "roles": {"commander": "eve"}}),
    ("resolve", {"notes": "rolled back"}),
    ("reopen", {}),
)


def measure(port: int, identities: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Every verb on `rounds` incidents, one request at a time."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    taken: dict[str, list[float]] = {verb: [] for verb, _body in VERBS}
    for identity in itertools.islice(identities, rounds):
        for verb, body in VERBS:
            begun = time.monotonic()
            connection.request(
                "POST",
                f"/v1/incidents/{identity}/{verb}",
                json.dumps(body),
                {"Content-Type": "application/json", "X-Actor": "ann"},
            )
            answer = connection.getresponse()
            said = answer.read()
            taken[verb].append(time.monotonic() - begun)
            if answer.status != 200:
                raise RuntimeError(f"{verb}: {answer.status} {said[:300]!r}")
    everything = [sample for samples in taken.values() for sample in samples]
    return {**{verb: percentiles(samples) for verb, samples in taken.items()}, "all": percentiles(everything)}


def some_incidents(port: int, count: int) -> list[str]:
    """Ids of `count` open incidents, from all over the list."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    found: list[str] = []
    cursor = ""
    while len(found) < count:
        connection.request("GET", f"/v1/incidents?limit=1000{cursor}")
        page = json.loads(connection.getresponse().read())
        found += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    return found[:count]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--incidents", type=int, default=INCIDENTS)
    parser.add_argument("--quick", action="store_true", help="5,000 incidents, 30 rounds")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    incidents, rounds = (5000, 30) if arguments.quick else (arguments.incidents, ROUNDS)
    with own() as system:
        bodies = Bodies("new_series", incidents, BATCH, groups=incidents, run_id="verbs")
        generate(
            Target("ours", system.url), Spec(bodies, once=True, concurrency=4, duration_s=600, warmup_s=0)
        )
        time.sleep(5)
        identities = some_incidents(system.port, 2 * rounds)
        alone = measure(system.port, identities[:rounds], rounds)
        load = Spec(
            bodies, mode="open", concurrency=32, duration_s=30, rate_per_s=RATE_ALERTS_S / BATCH, warmup_s=1
        )
        results = []
        loader = threading.Thread(
            target=lambda: results.append(generate(Target("ours", system.url), load)["measured"]), daemon=True
        )
        loader.start()
        time.sleep(4)
        beside = measure(system.port, identities[rounds:], rounds)
        loader.join()
    for verb in alone:
        say(f"{verb}: alone {alone[verb]}, during {RATE_ALERTS_S} alerts/s {beside[verb]}")
    ingest = results[0].latency_ms
    say(f"the load meanwhile: {ingest}, failed {results[0].failed}")
    write(
        "verbs",
        [{"incidents": incidents, "alone": alone, "during_load": beside, "load_latency_ms": ingest}],
        arguments.results,
    )


if __name__ == "__main__":
    main()
