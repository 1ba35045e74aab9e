"""All people, schedules, overrides and policies of a tenant, how they fit together, and what a change of them would do.

One message changes any number of them at once, so that a file is taken as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from models.errors import Conflict, TooLarge
from models.partition.event import Event
from models.people.person import Person, check_person
from models.people.policy import PERSON, SCHEDULE, Outline, Policy, check_policy
from models.people.schedule import Override, Schedule, check_override, check_schedule
from models.wire import Wire

#: Of one tenant. Each is read by a person; a large company has fewer.
PEOPLE_MAX, SCHEDULES_MAX, POLICIES_MAX, OVERRIDES_MAX = 2000, 500, 500, 5000
#: An override that is over is shown for so long, and then forgotten.
OVERRIDE_KEPT_S = 90 * 86400.0

#: Kinds of entries, as keys begin: "person:ana".
OVERRIDE, POLICY = "override", "policy"

Entry = Person | Schedule | Override | Policy


class ChangePeople(Wire, frozen=True):
    """Make or change these, and remove those with the keys in `removed`; all of it or nothing. `expects`: the version that each of these
    keys must have, 0 for none. Safe to repeat."""

    actor: str
    people: list[Person] = []
    schedules: list[Schedule] = []
    overrides: list[Override] = []
    policies: list[Policy] = []
    removed: list[str] = []
    expects: dict[str, int] = {}
    tenant: str = "default"


class PeopleChanged(Event, frozen=True):
    """Control partition: these are as they are now, and those in `removed` are gone."""

    actor: str
    at: float
    people: list[Person] = []
    schedules: list[Schedule] = []
    overrides: list[Override] = []
    policies: list[Policy] = []
    removed: list[str] = []
    tenant: str = "default"


class PoliciesOutlined(Event, frozen=True):
    """Control partition: the escalation policies that a tenant has, all of them, by their shape: what shards go by."""

    outlines: list[Outline]
    tenant: str = "default"


class Roster(msgspec.Struct):
    """Each by its name, overrides by id. To be changed by who folds it only."""

    people: dict[str, Person] = {}
    schedules: dict[str, Schedule] = {}
    overrides: dict[str, Override] = {}
    policies: dict[str, Policy] = {}

    def copy(self) -> Roster:
        return Roster(dict(self.people), dict(self.schedules), dict(self.overrides), dict(self.policies))

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """All, each with its key."""
        for kind, found in self._tables().items():
            for name, entry in found.items():
                yield f"{kind}:{name}", entry

    def get(self, key: str) -> Entry | None:
        kind, _, name = key.partition(":")
        table: dict[str, Entry] = self._tables().get(kind, {})
        return table.get(name)

    def put(self, entry: Entry) -> None:
        kind, _, name = key_of(entry).partition(":")
        self._tables()[kind][name] = entry

    def drop(self, key: str) -> None:
        kind, _, name = key.partition(":")
        self._tables()[kind].pop(name, None)

    def overrides_of(self, schedule: str) -> list[Override]:
        return [each for each in self.overrides.values() if each.schedule == schedule]

    def _tables(self) -> dict[str, dict[str, Any]]:
        return {
            PERSON: self.people,
            SCHEDULE: self.schedules,
            OVERRIDE: self.overrides,
            POLICY: self.policies,
        }


def key_of(entry: Entry) -> str:
    match entry:
        case Person():
            return f"{PERSON}:{entry.name}"
        case Schedule():
            return f"{SCHEDULE}:{entry.name}"
        case Override():
            return f"{OVERRIDE}:{entry.id}"
        case Policy():
            return f"{POLICY}:{entry.name}"


def check_entry(entry: Entry) -> None:
    """Raises Malformed, TooLarge."""
    match entry:
        case Person():
            check_person(entry)
        case Schedule():
            check_schedule(entry)
        case Override():
            check_override(entry)
        case Policy():
            check_policy(entry)


def check_whole(roster: Roster) -> None:
    """Whether everything that is named exists. Raises Conflict, TooLarge."""
    for schedule in roster.schedules.values():
        for person in sorted(schedule.people()):
            if person not in roster.people:
                raise Conflict(f"schedule {schedule.name} names {person}, and there is no such person")
    for override in roster.overrides.values():
        if override.person not in roster.people:
            raise Conflict(
                f"an override of schedule {override.schedule} names {override.person}, and there is no such person"
            )
        if override.schedule not in roster.schedules:
            raise Conflict(f"there is no schedule {override.schedule}, which an override is for")
    for policy in roster.policies.values():
        for target in policy.targets():
            if target.kind == PERSON and target.name not in roster.people:
                raise Conflict(f"escalation policy {policy.name} names {target}, and there is no such person")
            if target.kind == SCHEDULE and target.name not in roster.schedules:
                raise Conflict(
                    f"escalation policy {policy.name} names {target}, and there is no such schedule"
                )
    for what, found, most in (
        ("people", roster.people, PEOPLE_MAX),
        ("schedules", roster.schedules, SCHEDULES_MAX),
        ("overrides", roster.overrides, OVERRIDES_MAX),
        ("escalation policies", roster.policies, POLICIES_MAX),
    ):
        if len(found) > most:
            raise TooLarge(f"there are {most:,} {what} already: delete some first")
