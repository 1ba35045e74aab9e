"""What a rate limit costs an alert: nothing limited, a sender's limit, that of all too; requests of 1 and of 64.

python -m benchmarks.limits [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path

from actors.runtime.clock import SystemClock
from actors.runtime.local import LocalCluster
from benchmarks.harness import RESULTS
from benchmarks.own import say, write
from models.metrics import Meter
from models.settings.resource_limits import ResourceLimits
from services.ingest.arrival import Sender
from services.ingest.limits import Limits

REQUESTS = 200_000
#: More than is asked for: nothing is refused.
PLENTY = "1000000000/s"
SETTINGS = {
    "no limit": ResourceLimits(),
    "one of each sender": ResourceLimits(max_sender_rate=PLENTY),
    "one of each sender, and of all": ResourceLimits(max_sender_rate=PLENTY, max_ingestion_rate=PLENTY),
}


def run(name: str, alerts: int, requests: int) -> dict[str, object]:
    """What services/ingest/intake.py and a door do of it for each request: look before it is read, and count what it holds."""
    limits = Limits(LocalCluster(), "control-a", SystemClock(), Meter("gateway"), "gateway", 2)
    limits.take_settings(SETTINGS[name])
    sender = Sender("ci")
    limits.check(sender)
    begun = time.process_time()  # the machine may have others to serve
    for _ in range(requests):
        if limits.is_on:
            limits.check(sender)
        if limits.is_on:
            limits.take(sender, alerts)
    request_us = (time.process_time() - begun) / requests * 1e6
    say(f"{name}, requests of {alerts}: {request_us:.2f} us a request, {request_us / alerts:.3f} us an alert")
    return {"limits": name, "alerts": alerts, "request_us": request_us, "alert_us": request_us / alerts}


async def everything(requests: int) -> list[dict[str, object]]:
    return [run(name, alerts, requests) for name in SETTINGS for alerts in (1, 64)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    requests = REQUESTS // 10 if arguments.quick else REQUESTS
    write("limits", asyncio.run(everything(requests)), arguments.results)


if __name__ == "__main__":
    main()
