"""What 100,000 open series cost in memory (claim e): in a shard, and in a gateway that remembers them.

    python -m benchmarks.memory [--series 100000 500000]

Resident size of a fresh process before and after, and what tracemalloc-free arithmetic cannot tell: the truth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import RESULTS, ROOT
from benchmarks.own import say, write

_SHARD = """
import sys, gc, json
from benchmarks.fill import Filler, alerts
from models.shard.settings import ShardSettings
def rss(): return int(open('/proc/self/statm').read().split()[1]) * 4096
series, groups = int(sys.argv[1]), int(sys.argv[2])
filler = Filler('shard/0000', ShardSettings(max_open=10_000_000))
before = rss()
for start in range(0, series, 1000):
    for at in range(0, 1000, 64):
        batch = alerts(1000, groups, run=f'{start}')[at:at + 64] if at == 0 else made[at:at + 64]
        made = alerts(1000, groups, run=f'{start}') if at == 0 else made
        filler.tell(batch, 1000.0)
del made, batch
filler.shard.state.calls.clear()
gc.collect()
print(json.dumps({"bytes": rss() - before, "series": len(filler.shard.state.series), "incidents": len(filler.shard.state.incidents)}))
"""
_GATEWAY = """
import sys, gc, json, time
from benchmarks.bodies import Bodies
from models.settings.all import Settings
from services.ingest.formats.alertmanager import AlertmanagerFormat
from services.ingest.formats.format import Request, Shared
from services.ingest.formats.remembered import Remembered
def rss(): return int(open('/proc/self/statm').read().split()[1]) * 4096
series = int(sys.argv[1])
batches = Bodies("repeats", series, 64, passes=1).build()
form = AlertmanagerFormat(Shared(Remembered("default", ("service",)), Settings()))
before = rss()
for batch in batches:
    form.read(Request(form.path, batch.body, time.time()))
gc.collect()
print(json.dumps({"bytes": rss() - before, "series": series}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, nargs="*", default=[100_000, 500_000])
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    cells: list[dict[str, object]] = []
    for series in arguments.series:
        for name, child, words in (
            ("shard, 1,000 groups", _SHARD, [str(series), "1000"]),
            ("gateway", _GATEWAY, [str(series)]),
        ):
            done = subprocess.run(
                [sys.executable, "-c", child, *words], cwd=ROOT, capture_output=True, text=True, check=True
            )
            found = json.loads(done.stdout.splitlines()[-1])
            cells.append({"what": name, **found})
            per = found["bytes"] / found["series"] * 100_000 / 1e6
            say(
                f"{name}: {found['bytes'] / 1e6:.0f} MB for {found['series']:,} series = {per:.0f} MB per 100,000"
            )
    write("memory", cells, arguments.results)


if __name__ == "__main__":
    main()
