"""What each format takes, in alerts a second, beside Alertmanager's own in alternating turns on one system (claim: formats).

    python -m benchmarks.formats [--quick] [NAME...]

A format that takes many events a body sends 64, as Alertmanager's own does beside it; one that takes one sends one, and so does
Alertmanager's own. Each twice: what was sent before, to the byte, and what says something new each time of the same alerts. Beside it
what reading alone costs an alert, in this process: for profiles, not for comparisons.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from benchmarks.bodies import Bodies
from benchmarks.harness import NOW, RESULTS, Target, fresh, generate
from benchmarks.load import Spec
from benchmarks.own import Own, own, say, write
from benchmarks.senders import MANY, SETTINGS, events_of, opened, read
from services.ingest.formats.alertmanager import AlertmanagerFormat
from services.ingest.formats.heartbeat import HeartbeatFormat

OWN = AlertmanagerFormat.name
SERIES, BATCH = 2048, 64
KINDS = ("repeats", "changing")
#: Connections, as benchmarks/ingest.py has them for so many alerts a request.
SENDERS = {1: 64, BATCH: 4}
TURNS, TURN_S = 7, 2.0
QUICK_TURNS, QUICK_TURN_S = 2, 1.0
#: Rounds of all bodies, before anything is measured: each gateway is to meet each of them more often than twice.
PRELOAD_ROUNDS = 6
#: Passes of what changes, so that none comes twice within a turn at 100,000 alerts a second of 64, and at 10,000 of one.
PASSES = {1: 10, BATCH: 100}
#: Open incidents that a run leaves behind, with room to spare.
ROOM = 1_000_000
READ_ROUNDS = 20
#: What a format has to reach of Alertmanager's own.
WANTED = 0.3


@dataclass(slots=True)
class Line:
    """One format with one kind of bodies: its turns in alerts a second, each over that of Alertmanager's own beside it."""

    format: str
    kind: str
    batch: int
    reading_us: float
    rates: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        return {
            "format": self.format,
            "bodies": self.kind,
            "alerts_a_request": self.batch,
            "alerts_a_second": median(self.rates),
            "ratio": median(self.ratios),
            "ratios": [round(each, 3) for each in self.ratios],
            "turns": self.rates,
            "reading_us": round(self.reading_us, 1),
        }

    def __str__(self) -> str:
        told = (
            f"{self.format:<22}{self.kind:<10}{self.batch:>3} a request {median(self.rates):>9,.0f} alerts/s"
        )
        return f"{told}  {median(self.ratios):.2f} x  reading {self.reading_us:.1f} us an alert"


def bodies_of(name: str, kind: str, batch: int) -> Bodies:
    passes = PASSES[batch] if kind == "changing" else 1
    form = "" if name == OWN else name
    return Bodies(kind, SERIES, batch, now=NOW, passes=passes, format=form)  # type: ignore[arg-type]


def turn(system: Own, line: Line, spec: Spec) -> float:
    """Alerts a second, by a process of its own. Raises RuntimeError when one is not taken."""
    name = line.format
    path, headers = (
        (AlertmanagerFormat.path, {}) if name == OWN else (events_of(name).path, events_of(name).headers)
    )
    bodies = bodies_of(name, line.kind, line.batch)
    target = Target(name, f"{system.url}{path}", SENDERS[line.batch])
    found = generate(target, fresh(replace(spec, bodies=bodies, headers=headers)))["measured"]
    if found.failed or not found.alerts:
        raise RuntimeError(f"{name}: answers {found.statuses}, errors {found.errors}")
    return found.alerts_per_s


def reading_us(name: str, kind: str, batch: int) -> float:
    """Microseconds of CPU an alert, in this process."""
    form = opened()[name]
    bodies = replace(bodies_of(name, kind, batch), passes=2 if kind == "changing" else 1)
    headers = {} if name == OWN else events_of(name).headers
    batches = bodies.build()
    sent = [batch.body for batch in batches]
    rounds = 1
    if kind == "repeats":
        rounds = READ_ROUNDS
        for body in sent * 3:
            read(form, body, headers)
    begun = time.process_time()
    for body in sent * rounds:
        read(form, body, headers)
    return (time.process_time() - begun) / (rounds * sum(batch.alerts for batch in batches)) * 1e6


def everything(names: list[str], turns: int, turn_s: float) -> list[Line]:
    lines = [
        Line(name, kind, batch, reading_us(name, kind, batch))
        for batch in (BATCH, 1)
        for kind in KINDS
        for name in [OWN, *(each for each in names if (each in MANY) == (batch == BATCH))]
    ]
    first = {(line.kind, line.batch): line for line in lines if line.format == OWN}
    with own(LIFECYCLE__MAX_CONCURRENT_INCIDENTS=str(ROOM), **SETTINGS) as system:
        for line in lines:  # All gateways learn the alerts; not counted.
            known = bodies_of(line.format, "repeats", line.batch)
            spec = Spec(
                known, duration_s=min(turn_s, 1.0), preload=known, preload_rounds=PRELOAD_ROUNDS, warmup_s=0
            )
            turn(system, replace(line, kind="repeats"), spec)
        spec = Spec(Bodies(), duration_s=turn_s, warmup_s=0)
        for _ in range(turns):
            for line in lines:
                line.rates.append(turn(system, line, spec))
                line.ratios.append(line.rates[-1] / first[line.kind, line.batch].rates[-1])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these formats")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TURNS} turns of {QUICK_TURN_S:g} s")
    parser.add_argument("--reading", action="store_true", help="reading alone, without a system")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for formats.json")
    arguments = parser.parse_args()
    names = arguments.names or [name for name in opened() if name not in (OWN, HeartbeatFormat.name)]
    if arguments.reading:
        for name in [OWN, *names]:
            batch = BATCH if name in MANY or name == OWN else 1
            found = [f"{kind} {reading_us(name, kind, batch):.1f}" for kind in KINDS]
            say(f"{name:<22}{batch:>3} a request, us an alert: {', '.join(found)}")
        return
    turns, turn_s = (QUICK_TURNS, QUICK_TURN_S) if arguments.quick else (TURNS, TURN_S)
    lines = everything(names, turns, turn_s)
    for line in lines:
        say(str(line))
    short = [f"{line.format} ({line.kind})" for line in lines if median(line.ratios) < WANTED]
    say(f"below {WANTED:g} x: {', '.join(short) or 'none'}")
    write("formats", [line.as_dict() for line in lines], arguments.results)


if __name__ == "__main__":
    main()
