"""A schedule: who is on call when, by layers of rotations in the schedule's own time zone. Who that is at an instant:
models/people/oncall.py.

    layers, the first that has somebody counts
        rotation   ana, ben, cleo: a week each from Monday 09:00 on
        hours      only Monday to Friday 09:00 to 17:00, or always
    overrides      "cleo instead, Friday 18:00 to Sunday": before any layer
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from models.errors import Malformed, TooLarge
from models.people.words import check_line, check_name

#: More layers are nothing that a person can follow.
LAYERS_MAX = 10
#: People in one rotation.
ROTATION_MAX = 50
HOURS_MAX = 14
#: A turn of less would change at the hour that a clock change repeats.
EVERY_LEAST_S, EVERY_MOST_S = 3600.0, 366 * 86400.0
MINUTES_OF_A_DAY = 24 * 60
#: Turns begin no earlier: what lies before has no time zones to speak of.
YEAR_LEAST, YEAR_MOST = 1990, 2100
#: An override is for a holiday or an illness; what lasts longer is another rotation.
OVERRIDE_MOST_S = 366 * 86400.0
REASON_MAX = 500
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Hours(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of the day by local time, in minutes after midnight. One that ends no later than it begins ends on the next day; the day
    is that on which it begins. `days` from 0 for Monday."""

    days: tuple[int, ...]
    begins: int
    ends: int


class Layer(msgspec.Struct, frozen=True, array_like=True):
    """A rotation: `people` take turns of `every_s`, the first one from `starts` on, local time as in 2026-11-30T09:00. With `hours` only
    in these. Turns of days and weeks change at the same time of day, whatever clocks do."""

    name: str
    people: tuple[str, ...]
    every_s: float
    starts: str
    hours: tuple[Hours, ...] = ()

    @property
    def begins(self) -> datetime:
        return datetime.fromisoformat(self.starts)


class Schedule(msgspec.Struct, frozen=True, array_like=True):
    """Its layers, the first that has somebody counts."""

    name: str
    time_zone: str
    layers: tuple[Layer, ...]

    def people(self) -> set[str]:
        return {each for layer in self.layers for each in layer.people}


class Override(msgspec.Struct, frozen=True, array_like=True):
    """`person` is on call in a schedule from `starts_at` until `ends_at`, whatever its layers say. Of several the one made last counts."""

    id: str
    schedule: str
    person: str
    starts_at: float
    ends_at: float
    made_at: float
    by: str
    reason: str = ""

    def holds(self, at: float) -> bool:
        return self.starts_at <= at < self.ends_at


def check_schedule(schedule: Schedule) -> None:
    """Raises Malformed, TooLarge, naming the field. Whether its time zone exists is for others to say."""
    where = f"schedules.{schedule.name}"
    check_name("schedules", schedule.name)
    if not schedule.layers:
        raise Malformed(f"{where}.layers: expected at least one")
    if len(schedule.layers) > LAYERS_MAX:
        raise TooLarge(f"{where}.layers: {len(schedule.layers)} (limit: {LAYERS_MAX})")
    if len({layer.name for layer in schedule.layers}) < len(schedule.layers):
        raise Malformed(f"{where}.layers: two layers have the same name")
    for index, layer in enumerate(schedule.layers):
        _check_layer(f"{where}.layers[{index}]", layer)


def _check_layer(where: str, layer: Layer) -> None:
    check_name(f"{where}.name", layer.name)
    if not layer.people:
        raise Malformed(f"{where}.people: expected at least one person")
    if len(layer.people) > ROTATION_MAX:
        raise TooLarge(f"{where}.people: {len(layer.people)} (limit: {ROTATION_MAX})")
    if not EVERY_LEAST_S <= layer.every_s <= EVERY_MOST_S or layer.every_s % EVERY_LEAST_S:
        raise Malformed(f"{where}.every: expected whole hours, 1h to 366d, such as 12h, 1d or 1w")
    try:
        begins = layer.begins
    except ValueError:
        raise Malformed(
            f"{where}.starts: expected a local time such as 2026-11-30T09:00, got {layer.starts[:40]!r}"
        ) from None
    if begins.tzinfo is not None:
        raise Malformed(
            f"{where}.starts: expected local time, without an offset: the schedule has a time zone"
        )
    if not YEAR_LEAST <= begins.year <= YEAR_MOST:
        raise Malformed(f"{where}.starts: expected a year from {YEAR_LEAST} to {YEAR_MOST}")
    if len(layer.hours) > HOURS_MAX:
        raise TooLarge(f"{where}.hours: {len(layer.hours)} (limit: {HOURS_MAX})")
    for each in layer.hours:
        if not each.days or not all(0 <= day < len(DAYS) for day in each.days):
            raise Malformed(f"{where}.hours.days: expected some of {', '.join(DAYS)}")
        if not (0 <= each.begins < MINUTES_OF_A_DAY and 0 < each.ends <= MINUTES_OF_A_DAY):
            raise Malformed(f"{where}.hours: expected times from 00:00 to 24:00")


def check_override(override: Override) -> None:
    """Raises Malformed, TooLarge."""
    if override.ends_at <= override.starts_at:
        raise Malformed("until: expected a time after the start")
    if override.ends_at - override.starts_at > OVERRIDE_MOST_S:
        raise Malformed("until: expected an override of at most 366 days; change the rotation instead")
    check_line("reason", override.reason, REASON_MAX)
