"""What a new series costs, step by step: in this process, without HTTP and a store, by CPU time.

    python -m benchmarks.opens [--quick] [--shape groups|each]

20,000 new series, 64 a request, in 1,000 groups and in a group each: what a gateway makes of them, what their shard decides and
writes, what a classifier says and what comes of that. The settings are the defaults: no receiver, no playbooks.

To compare two commits, run both in alternating turns (n of each), or count instructions: `valgrind --tool=cachegrind` of
`--turns 1 --shape each`, less those of `--series 64`.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.bodies import new_series
from benchmarks.harness import RESULTS
from benchmarks.own import say, write
from models.classification.rules import Classifier
from models.partition.frames import NO_DIGEST, encode_frame
from models.settings.all import Settings
from models.shard.assembly import decode_message
from models.shard.effects import Classify
from models.shard.messages import AlertsArrived, Classified, Message, Tick, encode
from models.shard.shard import Shard
from models.shard.tenants import by_tenant
from services.ingest.formats.format import Format, Request, Shared
from services.ingest.formats.remembered import Remembered
from services.ingest.formats.table import open_formats
from services.wiring.bootstrap import shard_settings

SERIES, BATCH = 20_000, 64
SHAPES = {"groups": 1_000, "each": SERIES}
#: Alerts between two ticks: at 10,000 a second.
TICK_ALERTS = 1_000
TICK_S = 0.1
#: Questions in one call, as actors/lanes.py has it.
QUESTIONS = 256
TURNS, QUICK_TURNS = 7, 3
#: As a snapshot is written (actors/snapshots.py).
SLICE_BYTES = 256 * 1024

_encoder = msgspec.msgpack.Encoder()
_questions = msgspec.msgpack.Decoder(list[Classify])


class Run:
    """One turn: a gateway's format, a shard and a classifier, all new."""

    def __init__(self) -> None:
        settings = Settings.model_validate({"lifecycle": {"max_concurrent_incidents": 10_000_000}})
        remembered = Remembered("default", tuple(settings.grouping.service_labels))
        self.form: Format = open_formats(Shared(remembered, settings))["alertmanager"]
        self.shard = Shard("shard/0000", shard_settings(settings))
        self.shard.epoch = 1
        self.judge = Classifier()
        self.now = time.time()
        self.took: dict[str, float] = {}
        self.digest, self.calls, self.log_bytes, self.events = NO_DIGEST, 0, 0, 0
        self.wanted: list[Classify] = []
        self._step(None, self.shard.started("benchmark", self.now))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        begun = time.process_time()
        yield
        self.took[name] = self.took.get(name, 0.0) + time.process_time() - begun

    def request(self, body: bytes) -> None:
        with self.timed("read by the gateway"):
            reading = self.form.read(Request(self.form.path, body, self.now, content_type="application/json"))
            self.calls += 1
            message = encode(
                AlertsArrived(
                    self.calls.to_bytes(16, "big"),
                    "default",
                    "alertmanager",
                    [each.key for each in reading.memories],
                    reading.ends,
                    [reading.body(column) for column in range(len(reading.places))],
                    sender="anonymous",
                    received_at=self.now,
                )
            )
        self.tell(message, "decided and folded")
        while len(self.wanted) >= QUESTIONS:
            self.classify()

    def tell(self, message: bytes, name: str) -> None:
        with self.timed(name):
            told = decode_message(message)
            self.shard.seq += 1
            step = self.shard.handle(told, self.now)
        self._step(told, step)

    def tick(self) -> None:
        self.now += TICK_S
        self.tell(encode(Tick(False)), "ticks")

    def classify(self) -> None:
        asked, self.wanted = self.wanted[:QUESTIONS], self.wanted[QUESTIONS:]
        with self.timed("asked and told"):
            questions = _encoder.encode(asked)
        with self.timed("classified"):
            verdicts = [self.judge.classify(each) for each in _questions.decode(questions)]
            said = encode(Classified(verdicts))
        self.tell(said, "verdicts decided and folded")

    def snapshot(self) -> None:
        checkpoint = self.shard.checkpoint
        with self.timed("records of a snapshot"):
            checkpoint.begin()
            while checkpoint.slice(SLICE_BYTES):
                pass

    def _step(self, message: Message | None, step) -> None:  # type: ignore[no-untyped-def]
        self.wanted += [each for each in step.effects if isinstance(each, Classify)]
        if not step.events:
            return
        self.events += len(step.events)
        with self.timed("frames"):
            for tenant, events in by_tenant(self.shard, message, step.events):
                stored, self.digest = encode_frame(
                    self.shard.seq, self.shard.now, tenant, None, events, self.digest
                )
                self.log_bytes += len(stored)


def turn(groups: int, series: int, number: int) -> Run:
    run = Run()
    bodies = new_series(series, groups, BATCH, f"{number:04d}", now=run.now)
    gc.collect()
    gc.disable()  # as in a shard
    run.took.clear()
    alerts = 0
    for batch in bodies:
        run.request(batch.body)
        alerts += batch.alerts
        if alerts >= TICK_ALERTS:
            alerts -= TICK_ALERTS
            run.tick()
    while run.wanted:
        run.classify()
    run.tick()
    run.snapshot()
    gc.enable()
    return run


def measure(shape: str, series: int, turns: int) -> dict[str, object]:
    found = [turn(min(SHAPES[shape], series), series, number) for number in range(turns)]
    steps = {
        name: {
            "us": round(median(run.took[name] for run in found) / series * 1e6, 2),
            "least_us": round(min(run.took[name] for run in found) / series * 1e6, 2),
        }
        for name in found[0].took
    }
    totals = sorted(sum(run.took.values()) / series * 1e6 for run in found)
    for name, took in steps.items():
        say(f"{shape}: {took['us']:7.2f} us a series (least {took['least_us']:.2f})  {name}")
    say(f"{shape}: {median(totals):7.2f} us a series in all ({totals[0]:.1f} to {totals[-1]:.1f}, n={turns})")
    return {
        "shape": shape,
        "series": series,
        "n": turns,
        "events": found[0].events,
        "log_bytes": found[0].log_bytes,
        "us": round(median(totals), 2),
        "us_all": [round(each, 2) for each in totals],
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TURNS} turns")
    parser.add_argument("--turns", type=int)
    parser.add_argument("--series", type=int, default=SERIES)
    parser.add_argument("--shape", choices=[*SHAPES], help="only this one")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for opens.json")
    arguments = parser.parse_args()
    turns = arguments.turns or (QUICK_TURNS if arguments.quick else TURNS)
    shapes = [arguments.shape] if arguments.shape else [*SHAPES]
    write("opens", [measure(shape, arguments.series, turns) for shape in shapes], arguments.results)


if __name__ == "__main__":
    main()
