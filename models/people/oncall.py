"""Who is on call in a schedule: at an instant, and over a stretch of time with every handover and every gap. Pure: the time zone comes as
an argument, read by whoever asks.

Everything is cut at instants, never at local times: a turn and a stretch of hours begin at the instant of their local time, the first
of two where a clock is set back, the same time after the jump where it is set forward. So at each instant it is one person or nobody,
whatever clocks do; the night with the change is an hour longer or shorter for somebody.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta, tzinfo

import msgspec

from models.errors import TooLarge
from models.people.schedule import Hours, Layer, Override, Schedule

#: Instants that one answer may be cut at: a quarter of turns of an hour. Each costs up to a millisecond with ten layers.
CUTS_MAX = 2500
#: Instants that are remembered: those of a day are asked for at each of its handovers. 200 bytes each.
INSTANTS_KEPT = 8192
_DAY = timedelta(days=1)


class Duty(msgspec.Struct, frozen=True):
    """`person` is on call, by a `layer` or by an `override` (its id)."""

    person: str
    layer: str = ""
    override: str = ""


class Shift(msgspec.Struct, frozen=True):
    """From `starts_at` until `ends_at`, seconds since the epoch; nobody when `duty` is None."""

    starts_at: float
    ends_at: float
    duty: Duty | None


def on_call(schedule: Schedule, overrides: Iterable[Override], at: float, zone: tzinfo) -> Duty | None:
    """Who is on call at an instant; None: nobody. `overrides` are those of this schedule."""
    holding = [each for each in overrides if each.holds(at)]
    if holding:
        last = max(holding, key=lambda each: (each.made_at, each.id))
        return Duty(last.person, override=last.id)
    for layer in schedule.layers:
        turn = _turn(layer, at, zone)
        if turn >= 0 and _in_hours(layer.hours, at, zone):
            return Duty(layer.people[turn % len(layer.people)], layer=layer.name)
    return None


def shifts(
    schedule: Schedule, overrides: Sequence[Override], starts_at: float, ends_at: float, zone: tzinfo
) -> list[Shift]:
    """Who is on call from one instant until another, without holes: where nobody is, a shift says so. Raises TooLarge for a stretch with
    more than CUTS_MAX instants at which something may change."""
    cuts = {starts_at}
    for each in _cuts(schedule, overrides, starts_at, ends_at, zone):
        if starts_at < each < ends_at:
            cuts.add(each)
            if len(cuts) > CUTS_MAX:
                raise TooLarge(f"until: expected a stretch with at most {CUTS_MAX:,} handovers")
    found: list[Shift] = []
    for each in sorted(cuts):
        duty = on_call(schedule, overrides, each, zone)
        if found and found[-1].duty == duty:
            continue
        if found:
            found[-1] = msgspec.structs.replace(found[-1], ends_at=each)
        found.append(Shift(each, ends_at, duty))
    return found


@functools.lru_cache(maxsize=INSTANTS_KEPT)
def instant(local: datetime, zone: tzinfo) -> float:
    """When a clock in a time zone shows a local time, seconds since the epoch: the first time that it does, and where it skips it, as
    long after the jump as it would have been after the time before it."""
    return local.replace(tzinfo=zone, fold=0).timestamp()


def _turn(layer: Layer, at: float, zone: tzinfo) -> int:
    """The how manyth turn of a rotation it is, from 0; -1 before the first."""
    begins, every = layer.begins, timedelta(seconds=layer.every_s)
    turn = (datetime.fromtimestamp(at, zone).replace(tzinfo=None) - begins) // every
    # Local time is off by what clocks were changed.
    while instant(begins + turn * every, zone) > at:
        turn -= 1
    while instant(begins + (turn + 1) * every, zone) <= at:
        turn += 1
    return max(turn, -1)


def _in_hours(hours: Sequence[Hours], at: float, zone: tzinfo) -> bool:
    if not hours:
        return True
    today = datetime.fromtimestamp(at, zone).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    return any(
        begins <= at < ends
        for day in (today - _DAY, today, today + _DAY)
        for begins, ends in _stretches(hours, day, zone)
    )


def _stretches(hours: Sequence[Hours], day: datetime, zone: tzinfo) -> Iterator[tuple[float, float]]:
    """The stretches that begin on a day, as instants."""
    for each in hours:
        if day.weekday() in each.days:
            ends = each.ends if each.ends > each.begins else each.ends + 24 * 60
            yield (
                instant(day + timedelta(minutes=each.begins), zone),
                instant(day + timedelta(minutes=ends), zone),
            )


def _cuts(
    schedule: Schedule, overrides: Sequence[Override], starts_at: float, ends_at: float, zone: tzinfo
) -> Iterator[float]:
    for override in overrides:
        yield override.starts_at
        yield override.ends_at
    first = datetime.fromtimestamp(starts_at, zone).replace(
        tzinfo=None, hour=0, minute=0, second=0, microsecond=0
    )
    for layer in schedule.layers:
        begins, every = layer.begins, timedelta(seconds=layer.every_s)
        turn = max(0, _turn(layer, starts_at, zone))
        while (at := instant(begins + turn * every, zone)) < ends_at:
            yield at
            turn += 1
        day = first - _DAY
        while layer.hours and instant(day, zone) < ends_at:
            for edges in _stretches(layer.hours, day, zone):
                yield from edges
            day += _DAY
