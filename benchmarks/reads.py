"""List, get and alert query at 100,000 open incidents: latency alone and during 16,667 alerts/s (claim g).

    python -m benchmarks.reads [--incidents 100000] [--quick]

Reads go one after the other over one connection, as a person's page does. Alone first, then beside the sustained
load of benchmarks.sustained on the same incidents.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.bodies import Bodies
from benchmarks.harness import RESULTS, Target, generate
from benchmarks.load import Spec
from benchmarks.own import own, say, write

INCIDENTS = 100_000
BATCH = 64
RATE_ALERTS_S = 1_000_000 / 60
ROUNDS = 200


def percentiles(samples: list[float]) -> dict[str, float]:
    ordered = sorted(samples)

    def pick(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 2)

    return {
        "p50_ms": pick(0.5),
        "p99_ms": pick(0.99),
        "max_ms": round(ordered[-1] * 1000, 2),
        "n": len(ordered),
    }


def measure(port: int, rounds: int) -> dict[str, dict[str, float]]:
    """Each kind of read in turn, `rounds` times."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    kinds = ("list", "list_worst_first", "list_lately_updated", "get", "alerts", "alerts_of_a_name")
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}

    def get(path: str) -> bytes:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"GET {path}: {answer.status} {body[:300]!r}")
        return body

    for _ in range(rounds):
        begun = time.monotonic()
        page = json.loads(get("/v1/incidents?limit=100"))
        taken["list"].append(time.monotonic() - begun)
        for kind, sort in (("list_worst_first", "severity"), ("list_lately_updated", "-updated_at")):
            begun = time.monotonic()
            get(f"/v1/incidents?limit=100&sort={sort}")
            taken[kind].append(time.monotonic() - begun)
        some = page["items"][len(taken["list"]) % len(page["items"])]
        begun = time.monotonic()
        get(f"/v1/incidents/{some['id']}")
        taken["get"].append(time.monotonic() - begun)
        begun = time.monotonic()
        name, service = some["labels"]["alertname"], some["service"]
        get(f"/api/v2/alerts?filter=alertname%3D%22{name}%22&filter=service%3D%22{service}%22")
        taken["alerts"].append(time.monotonic() - begun)
        if len(taken["list"]) % 5 == 0:
            begun = time.monotonic()
            get(f"/api/v2/alerts?filter=alertname%3D%22{name}%22")
            taken["alerts_of_a_name"].append(time.monotonic() - begun)
    return {kind: percentiles(samples) for kind, samples in taken.items()}


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
        bodies = Bodies("new_series", incidents, BATCH, groups=incidents, run_id="reads")
        generate(
            Target("ours", system.url), Spec(bodies, once=True, concurrency=4, duration_s=600, warmup_s=0)
        )
        time.sleep(5)
        alone = measure(system.port, rounds)
        load = Spec(
            bodies, mode="open", concurrency=32, duration_s=30, rate_per_s=RATE_ALERTS_S / BATCH, warmup_s=1
        )
        results = []
        loader = threading.Thread(
            target=lambda: results.append(generate(Target("ours", system.url), load)["measured"]), daemon=True
        )
        loader.start()
        time.sleep(4)
        beside = measure(system.port, min(rounds, 60))
        loader.join()
    for kind in alone:
        say(f"{kind}: alone {alone[kind]}, during 16,667 alerts/s {beside[kind]}")
    ingest = results[0].latency_ms
    say(f"the load meanwhile: {ingest}, failed {results[0].failed}")
    write(
        "reads",
        [{"incidents": incidents, "alone": alone, "during_load": beside, "load_latency_ms": ingest}],
        arguments.results,
    )


if __name__ == "__main__":
    main()
