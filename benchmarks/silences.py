"""What 10,000 silences cost a shard: one new series, and one repeat. No Ray.

python -m benchmarks.silences [--quick]

New series are pushed into a shard that knows no silence and into one that knows 10,000, in alternating turns of one run, so
that both meet the same machine; what is compared is the median of the turns, in time of this process alone. None of the silences matches them. The index
alone is measured beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from benchmarks.harness import RESULTS
from benchmarks.own import say, write
from models.alerts.alert import Content, alert_key
from models.alerts.matchers import MatcherTuple
from models.alerts.mute_index import MuteIndex
from models.control.silences import Silence
from models.shard.known_silences import SilencesChanged
from models.shard.messages import AlertsArrived
from models.shard.settings import ShardSettings
from models.shard.shard import Shard

SILENCES = 10_000
#: Series of one message, as a gateway sends them at most.
BATCH = 256
NOW = 1_767_225_600.0


def matchers(number: int) -> list[MatcherTuple]:
    """As people and programs write them: most name a host or a pod, some list a few, some have an exception."""
    match number % 4:
        case 0:
            return [("alertname", "=~", f"Old{number}|Older{number}"), ("severity", "!=", "critical")]
        case 1:
            return [("service", "=", f"svc-{number % 500}"), ("instance", "=", f"gone-{number}")]
        case 2:
            return [("instance", "=", f"host-{number}"), ("alertname", "=~", "Disk.*")]
        case _:
            return [("namespace", "=", f"tenant-{number}"), ("team", "!~", "core|platform")]


def labels(number: int) -> dict[str, str]:
    return {
        "alertname": "Slow", "service": f"svc-{number % 500}", "instance": f"pod-{number}", "severity": "warning",
        "cluster": "eu-1", "namespace": "inference", "job": "llm", "team": "core",
    }  # fmt: skip


def shard(silences: int) -> Shard:
    made = Shard("shard/0000", ShardSettings(max_open=1_000_000))
    made.epoch = 1
    known = [
        Silence(f"{number:032x}", tuple(matchers(number)), NOW - 1, NOW + 86400, "ada", "", NOW)
        for number in range(silences)
    ]
    made.handle(SilencesChanged(1, known, whole=True), NOW)
    return made


def batches(first: int, count: int) -> list[AlertsArrived]:
    found = []
    for start in range(first, first + count, BATCH):
        contents = [Content(labels(number), {}, NOW) for number in range(start, start + BATCH)]
        keys = [alert_key("default", each, NOW) for each in contents]
        bodies = [msgspec.msgpack.encode(each) for each in contents]
        found.append(AlertsArrived(b"%016d" % start, "default", "v1", keys, [NOW + 86400] * BATCH, bodies))
    return found


def timed(shard: Shard, messages: Sequence[AlertsArrived]) -> float:
    """Microseconds an alert."""
    begun = time.process_time()
    for message in messages:
        shard.seq += 1
        shard.handle(message, NOW)
    return (time.process_time() - begun) / (len(messages) * BATCH) * 1e6


def turns(count: int, size: int, of: Callable[[int], tuple[float, float]]) -> tuple[float, float]:
    """The medians of two things measured in alternating turns."""
    pairs = [of(turn * size) for turn in range(count)]
    return statistics.median(one for one, _ in pairs), statistics.median(other for _, other in pairs)


def index_us(silences: int, series: int) -> float:
    index = MuteIndex()
    for number in range(silences):
        index.add(f"{number:032x}", matchers(number))
    asked = [labels(number) for number in range(series)]
    best = float("inf")
    for _ in range(5):
        begun = time.process_time()
        for each in asked:
            index.of(each)
        best = min(best, (time.process_time() - begun) / series * 1e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a quarter of the turns")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    count, size = (6 if arguments.quick else 24), 8 * BATCH
    without, with_all = shard(0), shard(SILENCES)

    def new(first: int) -> tuple[float, float]:
        messages = batches(first, size)
        return timed(without, messages), timed(with_all, messages)

    def repeat(first: int) -> tuple[float, float]:
        messages = [
            msgspec.structs.replace(each, call_id=b"r" + each.call_id[1:]) for each in batches(first, size)
        ]
        return timed(without, messages), timed(with_all, messages)

    new_us, repeat_us = turns(count, size, new), turns(count, size, repeat)
    alone = index_us(0, 4096), index_us(SILENCES, 4096)
    for what, (none, all_of_them) in (("new series", new_us), ("repeat", repeat_us), ("index alone", alone)):
        say(
            f"{what}: {none:.2f} us without silences, {all_of_them:.2f} us with {SILENCES:,}: "
            f"{all_of_them - none:+.2f} us, {all_of_them / max(none, 0.01):.3f} x"
        )
    write(
        "silences",
        [
            {"what": what, "silences": SILENCES, "n": count * size, "us_without": none, "us_with": full}
            for what, (none, full) in (("new", new_us), ("repeat", repeat_us), ("index", alone))
        ],
        arguments.results,
    )


if __name__ == "__main__":
    main()
