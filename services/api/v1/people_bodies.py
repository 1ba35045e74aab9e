"""What /v1 reads and shows of people, schedules, overrides and escalation policies. A file of `llm-im people apply` has the same fields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.durations import duration_text
from models.errors import Malformed
from models.people.person import ADDRESS_MAX, CONTACTS_MAX, FULL_NAME_MAX, UTC, Contact, Person
from models.people.policy import (
    LEVELS_MAX,
    REPEAT_MAX,
    TARGETS_MAX,
    TIMEOUT_DEFAULT_S,
    Level,
    Policy,
    parse_target,
)
from models.people.roster import Entry
from models.people.schedule import (
    DAYS,
    HOURS_MAX,
    LAYERS_MAX,
    REASON_MAX,
    ROTATION_MAX,
    Hours,
    Layer,
    Override,
    Schedule,
)
from services.api.v1.fields import FILLED_LINE, LINE, Time, WrittenDuration, WrittenTime, duration_of, says
from services.times import timestamp

#: Characters of a name: models/people/words.py says what it may look like.
NAME_MAX = 63
#: In place of an address, for who may not see it.
HIDDEN = "***"

_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|(24):(00)")
_Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX)]
_Zone = Annotated[str, Field(max_length=64, pattern=FILLED_LINE)]
_Target = Annotated[str, Field(max_length=80, pattern=FILLED_LINE)]
_Clock = Annotated[str, Field(max_length=5, pattern=r"^\d\d:\d\d$")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class ContactRequest(_Request):
    """One way to reach a person."""

    receiver: Annotated[_Name, Field(description="A receiver of the settings (`notify.receivers`).")]
    address: Annotated[
        str,
        Field(
            max_length=ADDRESS_MAX,
            pattern=LINE,
            description="Where, in that receiver's terms: a mail address, a Slack member's id, a telephone number for a webhook. Empty: whatever the receiver is set to.",
        ),
    ] = ""


class PersonRequest(_Request):
    """A person as it is to be."""

    full_name: Annotated[str, Field(max_length=FULL_NAME_MAX, pattern=LINE, description="For people.")] = ""
    time_zone: Annotated[_Zone, Field(description="Such as Europe/Madrid.")] = UTC
    contacts: Annotated[
        list[ContactRequest],
        Field(max_length=CONTACTS_MAX, description="Ways to reach the person, all used at once."),
    ] = []

    def made(self, name: str) -> Person:
        return Person(
            name,
            self.full_name,
            tuple(Contact(each.receiver, each.address) for each in self.contacts),
            self.time_zone,
        )


class HoursRequest(_Request):
    """A stretch of the day in which a layer counts."""

    days: Annotated[
        list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]],
        Field(max_length=len(DAYS), description="The days on which it begins; empty: every day."),
    ] = []
    begins: Annotated[_Clock, Field(alias="from", description="Local time, as in 18:00.")] = "00:00"
    ends: Annotated[
        _Clock, Field(alias="to", description="Local time; no later than `from`: on the next day.")
    ] = "24:00"

    def made(self, field: str) -> Hours:
        days = tuple(sorted({DAYS.index(day) for day in self.days})) or tuple(range(len(DAYS)))
        return Hours(days, _minutes(self.begins, f"{field}.from"), _minutes(self.ends, f"{field}.to"))


class LayerRequest(_Request):
    """A rotation."""

    name: Annotated[_Name, Field(description="Shown wherever it says who is on call.")]
    people: Annotated[
        list[_Name], Field(min_length=1, max_length=ROTATION_MAX, description="In the order of their turns.")
    ]
    every: Annotated[
        WrittenDuration, Field(description="How long a turn is, in whole hours: 12h, 1d, 1w.")
    ] = "1w"
    starts: Annotated[
        str,
        Field(
            max_length=30,
            description="When the first turn begins, local time as in 2026-11-30T09:00; handovers are at that time of day.",
        ),
    ]
    hours: Annotated[
        list[HoursRequest], Field(max_length=HOURS_MAX, description="Only in these; empty: always.")
    ] = []

    def made(self, field: str) -> Layer:
        return Layer(
            self.name,
            tuple(self.people),
            duration_of(self.every, f"{field}.every"),
            self.starts,
            tuple(each.made(f"{field}.hours") for each in self.hours),
        )


class ScheduleRequest(_Request):
    """A schedule as it is to be."""

    time_zone: Annotated[_Zone, Field(description="In which its times are read, such as Europe/Berlin.")] = (
        UTC
    )
    layers: Annotated[
        list[LayerRequest],
        Field(min_length=1, max_length=LAYERS_MAX, description="The first that has somebody counts."),
    ]

    def made(self, name: str) -> Schedule:
        field = f"schedules.{name}.layers"
        return Schedule(
            name,
            self.time_zone,
            tuple(each.made(f"{field}[{index}]") for index, each in enumerate(self.layers)),
        )


class LevelRequest(_Request):
    """Who is told at once."""

    tell: Annotated[
        list[_Target],
        Field(
            min_length=1,
            max_length=TARGETS_MAX,
            description="Any of `person:NAME`, `schedule:NAME` (whoever is on call) and `receiver:NAME`.",
        ),
    ]
    timeout: Annotated[
        WrittenDuration,
        Field(description="How long somebody has to acknowledge before the next level is told, 10s to 7d."),
    ] = duration_text(TIMEOUT_DEFAULT_S)


class PolicyRequest(_Request):
    """An escalation policy as it is to be."""

    levels: Annotated[
        list[LevelRequest], Field(min_length=1, max_length=LEVELS_MAX, description="In their order.")
    ]
    repeat: Annotated[
        int, Field(ge=0, le=REPEAT_MAX, description="How often all levels are gone through again.")
    ] = 0
    fallback: Annotated[
        list[_Target],
        Field(max_length=TARGETS_MAX, description="Who is told last, when nobody acknowledged."),
    ] = []
    ack_timeout: Annotated[
        WrittenDuration,
        Field(description="When an acknowledgement without an end expires and it begins anew; 0s: never."),
    ] = "0s"

    def made(self, name: str) -> Policy:
        field = f"escalations.{name}"
        return Policy(
            name,
            tuple(
                Level(
                    tuple(parse_target(text, f"{field}.levels[{index}].tell") for text in each.tell),
                    duration_of(each.timeout, f"{field}.levels[{index}].timeout"),
                )
                for index, each in enumerate(self.levels)
            ),
            self.repeat,
            tuple(parse_target(text, f"{field}.fallback") for text in self.fallback),
            duration_of(self.ack_timeout, f"{field}.ack_timeout"),
        )


class OverrideRequest(_Request):
    """Somebody else is on call for a while."""

    person: Annotated[_Name, Field(description="Who is on call instead.")]
    starts_at: Annotated[WrittenTime | None, Field(description="From when; null: now.")] = None
    ends_at: Annotated[WrittenTime | None, Field(description="Until when.")] = None
    ends_in: Annotated[WrittenDuration | None, Field(description="The same as a time from `starts_at`.")] = (
        None
    )
    reason: Annotated[str, Field(max_length=REASON_MAX, pattern=LINE, description="Why.")] = ""


class RosterRequest(_Request):
    """All of it, as a file has it."""

    people: Annotated[dict[str, PersonRequest], Field(description="People by their names.")] = {}
    schedules: Annotated[dict[str, ScheduleRequest], Field(description="Schedules by their names.")] = {}
    escalations: Annotated[
        dict[str, PolicyRequest], Field(description="Escalation policies by their names.")
    ] = {}
    prune: Annotated[
        bool, Field(description="Remove people, schedules and policies that are not named here.")
    ] = False
    dry_run: Annotated[bool, Field(description="Say what would change, and change nothing.")] = False

    def made(self) -> list[Entry]:
        return [
            *(each.made(name) for name, each in self.people.items()),
            *(each.made(name) for name, each in self.schedules.items()),
            *(each.made(name) for name, each in self.escalations.items()),
        ]


# -- what is shown ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ContactBody:
    """One way to reach a person."""

    receiver: Annotated[str, says("The receiver of the settings.")]
    address: Annotated[str, says("Where; `***` for a token without the scope `respond`.")]


@dataclass(frozen=True, slots=True)
class PersonBody:
    """A person."""

    name: Annotated[str, says("What schedules and policies call the person.")]
    full_name: Annotated[str, says("For people to read.")]
    time_zone: Annotated[str, says("In which the person lives.")]
    contacts: Annotated[list[ContactBody], says("Ways to reach the person.")]
    version: Annotated[int, says("Increases with each change. In quotes it is the ETag, for If-Match.")]


@dataclass(frozen=True, slots=True)
class PeopleBody:
    """All people, by name."""

    items: Annotated[list[PersonBody], says("The people.")]


@dataclass(frozen=True, slots=True)
class LayerBody:
    """A rotation."""

    name: Annotated[str, says("Its name.")]
    people: Annotated[list[str], says("In the order of their turns.")]
    every: Annotated[str, says("How long a turn is.")]
    starts: Annotated[str, says("When the first turn begins, local time.")]
    hours: Annotated[
        list[dict[str, object]], says("Only in these: `days`, `from` and `to`, local time; empty: always.")
    ]


@dataclass(frozen=True, slots=True)
class ScheduleBody:
    """A schedule."""

    name: Annotated[str, says("Its name.")]
    time_zone: Annotated[str, says("In which its times are read.")]
    layers: Annotated[list[LayerBody], says("The first that has somebody counts.")]
    version: Annotated[int, says("Increases with each change. In quotes it is the ETag, for If-Match.")]


@dataclass(frozen=True, slots=True)
class SchedulesBody:
    """All schedules, by name."""

    items: Annotated[list[ScheduleBody], says("The schedules.")]


@dataclass(frozen=True, slots=True)
class LevelBody:
    """Who is told at once."""

    tell: Annotated[list[str], says("Whom.")]
    timeout: Annotated[str, says("How long somebody has to acknowledge.")]


@dataclass(frozen=True, slots=True)
class PolicyBody:
    """An escalation policy."""

    name: Annotated[str, says("Its name.")]
    levels: Annotated[list[LevelBody], says("In their order.")]
    repeat: Annotated[int, says("How often all levels are gone through again.")]
    fallback: Annotated[list[str], says("Who is told last.")]
    ack_timeout: Annotated[str, says("When an acknowledgement without an end expires; 0s: never.")]
    version: Annotated[int, says("Increases with each change. In quotes it is the ETag, for If-Match.")]


@dataclass(frozen=True, slots=True)
class PoliciesBody:
    """All escalation policies, by name."""

    items: Annotated[list[PolicyBody], says("The policies.")]


@dataclass(frozen=True, slots=True)
class OverrideBody:
    """Somebody is on call whatever the layers say."""

    id: Annotated[str, says("Its id.")]
    schedule: Annotated[str, says("In which schedule.")]
    person: Annotated[str, says("Who.")]
    starts_at: Annotated[Time, says("From when.")]
    ends_at: Annotated[Time, says("Until when.")]
    made_at: Annotated[Time, says("When it was made; of several at once the last one counts.")]
    by: Annotated[str, says("By whom.")]
    reason: Annotated[str, says("Why.")]


@dataclass(frozen=True, slots=True)
class OverridesBody:
    """Overrides of a schedule that are not over, by their start."""

    items: Annotated[list[OverrideBody], says("The overrides.")]


@dataclass(frozen=True, slots=True)
class PlanBody:
    """What a file changes, or would change, by keys such as `person:ana`."""

    created: Annotated[list[str], says("New.")]
    changed: Annotated[list[str], says("Other than before.")]
    removed: Annotated[list[str], says("Gone.")]
    unchanged: Annotated[list[str], says("As they were.")]
    problems: Annotated[list[str], says("What would keep somebody from being told, in words.")]


def person_body(person: Person, version: int, *, whole: bool) -> PersonBody:
    """`whole`: with addresses."""
    return PersonBody(
        person.name,
        person.full_name,
        person.time_zone,
        [
            ContactBody(each.receiver, each.address if whole or not each.address else HIDDEN)
            for each in person.contacts
        ],
        version,
    )


def schedule_body(schedule: Schedule, version: int) -> ScheduleBody:
    layers = [
        LayerBody(
            layer.name,
            [*layer.people],
            duration_text(layer.every_s),
            layer.starts,
            [
                {
                    "days": [DAYS[day] for day in each.days],
                    "from": _clock(each.begins),
                    "to": _clock(each.ends),
                }
                for each in layer.hours
            ],
        )
        for layer in schedule.layers
    ]
    return ScheduleBody(schedule.name, schedule.time_zone, layers, version)


def policy_body(policy: Policy, version: int) -> PolicyBody:
    return PolicyBody(
        policy.name,
        [
            LevelBody([str(each) for each in level.targets], duration_text(level.timeout_s))
            for level in policy.levels
        ],
        policy.repeat,
        [str(each) for each in policy.fallback],
        duration_text(policy.ack_timeout_s),
        version,
    )


def override_body(override: Override) -> OverrideBody:
    return OverrideBody(
        override.id,
        override.schedule,
        override.person,
        timestamp(override.starts_at),
        timestamp(override.ends_at),
        timestamp(override.made_at),
        override.by,
        override.reason,
    )


def _minutes(text: str, field: str) -> int:
    if _CLOCK.fullmatch(text) is None:
        raise Malformed(f"{field}: expected a time of day such as 09:00, up to 24:00, got {text[:20]!r}")
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
