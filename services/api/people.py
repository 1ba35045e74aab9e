"""Reads and changes people, schedules, overrides and escalation policies, and says who is on call. Used by services/api/v1/people.py
and services/api/v1/oncall.py.

The control partition decides what there is. What only this process knows is checked here: receivers of the settings, and time zones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from actors.control_tail import ControlTail
from actors.runtime.zones import zone_of
from models.control.control import ControlMessage
from models.control.people import People
from models.errors import Conflict, IncidentManagerError, Malformed, NotFound
from models.people.oncall import Duty, Shift, on_call, shifts
from models.people.person import Person
from models.people.policy import PERSON, RECEIVER, SCHEDULE, Policy
from models.people.roster import OVERRIDE, POLICY, ChangePeople, Entry, Roster, key_of
from models.people.schedule import Override, Schedule
from models.ports import Clock
from models.settings.all import Settings
from services.times import timestamp

#: How far ahead a handover is looked for that is shown beside who is on call.
AHEAD_S = 14 * 86400.0


@dataclass(frozen=True, slots=True)
class Known:
    """An entry and its version, for ETags."""

    entry: Entry
    version: int


@dataclass(frozen=True, slots=True)
class Now:
    """Who is on call in a schedule: the present shift (`starts_at` is when it was asked), and the next one with somebody else."""

    schedule: Schedule
    duty: Duty | None
    until: float
    next: Shift | None
    #: Why none of it can be said, as in a time zone that this machine does not know; "" when it can.
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a file would change, by keys such as "person:ana". `removed` only when asked for."""

    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


class PeopleDesk:
    """Of one tenant. Raises Malformed, TooLarge, NotFound, Conflict, Stale, Unavailable."""

    def __init__(
        self,
        tail: ControlTail,
        tell: Callable[[ControlMessage], Awaitable[None]],
        clock: Clock,
        tenant: str,
        settings: Callable[[], Settings],
    ) -> None:
        self.tenant = tenant
        self.clock = clock
        self._tail = tail
        self._tell = tell
        self._settings = settings

    # -- reading -------------------------------------------------------------------------------------------

    async def roster(self) -> Roster:
        """All there is, for looking."""
        await self._tail.catch_up()
        return self._known.of(self.tenant)

    async def find(self, kind: str, name: str) -> Known:
        """Raises NotFound."""
        await self._tail.catch_up()
        key = f"{kind}:{name}"
        entry = self._known.of(self.tenant).get(key)
        if entry is None:
            words = "escalation policy" if kind == POLICY else kind
            raise NotFound(f"there is no {words} {name[:100]!r}")
        return Known(entry, self._known.version_of(key, self.tenant))

    def version_of(self, entry: Entry) -> int:
        return self._known.version_of(key_of(entry), self.tenant)

    async def schedule(self, name: str) -> Schedule:
        """Raises NotFound."""
        found = (await self.find(SCHEDULE, name)).entry
        assert isinstance(found, Schedule)
        return found

    # -- changing ------------------------------------------------------------------------------------------

    async def put(
        self, entry: Entry, actor: str, versions: Sequence[int] | None = None
    ) -> tuple[Known, bool]:
        """Make an entry, or change the one of its name; whether it is new. `versions`: only if it has one of these. Safe to repeat."""
        await self._tail.catch_up()
        self._check([entry])
        key = key_of(entry)
        before = self._known.version_of(key, self.tenant)
        expects = {} if versions is None else {key: before if before in versions else -1}
        await self._change(actor, [entry], expects=expects)
        return Known(entry, self._known.version_of(key, self.tenant)), not before

    async def remove(self, kind: str, name: str, actor: str, versions: Sequence[int] | None = None) -> None:
        """Raises NotFound."""
        found = await self.find(kind, name)
        if kind == POLICY and (route := self._route_of(name)):
            raise _in_use(name, route)
        key = f"{kind}:{name}"
        expects = {} if versions is None else {key: found.version if found.version in versions else -1}
        await self._change(actor, [], [key], expects)

    async def apply(
        self, entries: Sequence[Entry], actor: str, *, prune: bool = False, dry_run: bool = False
    ) -> Plan:
        """Make all there is as these say, at once; with `prune` remove people, schedules and policies that are not among them. Changes
        nothing for the same entries again, nor with `dry_run`."""
        before = await self.roster()
        self._check(entries)
        plan = Plan()
        wanted = {key_of(each): each for each in entries}
        for key, entry in wanted.items():
            known = before.get(key)
            where = plan.created if known is None else plan.unchanged if known == entry else plan.changed
            where.append(key)
        if prune:
            plan.removed.extend(
                key
                for key, _entry in before.entries()
                if key not in wanted and not key.startswith(f"{OVERRIDE}:")
            )
        for key in plan.removed:
            kind, _, name = key.partition(":")
            if kind == POLICY and (route := self._route_of(name)):
                raise _in_use(name, route)
        changes = [wanted[key] for key in (*plan.created, *plan.changed)]
        if dry_run:
            self._known.decide(self._message(actor, changes, plan.removed), self.clock.now())
        elif changes or plan.removed:
            await self._change(actor, changes, plan.removed)
        return plan

    # -- who is on call ------------------------------------------------------------------------------------

    async def now(self, at: float) -> list[Now]:
        """Who is on call at a moment, by schedule. One that can't be reckoned says so, and keeps no other from being shown."""
        roster = await self.roster()
        asked = [(each, roster.overrides_of(name)) for name, each in sorted(roster.schedules.items())]
        # In a thread, because hundreds of schedules take seconds, and alerts come by this process.
        return await asyncio.to_thread(lambda: [_now(each, overrides, at) for each, overrides in asked])

    async def shifts(self, name: str, starts_at: float, ends_at: float) -> list[Shift]:
        """Who is on call in a schedule, over a stretch. Raises NotFound, TooLarge."""
        roster, schedule = await self.roster(), await self.schedule(name)
        overrides, zone = roster.overrides_of(name), zone_of(schedule.time_zone)
        return await asyncio.to_thread(shifts, schedule, overrides, starts_at, ends_at, zone)

    async def problems(self, until: float) -> list[str]:
        """What would keep somebody from being told, in words; gaps of schedules before `until` among it."""
        roster = (await self.roster()).copy()
        return await asyncio.to_thread(lambda: [*self._problems(roster, until)])

    def _problems(self, roster: Roster, until: float) -> Iterator[str]:
        receivers = self._settings().notify.all_receivers
        for person in roster.people.values():
            used = any(person.name in each.people() for each in roster.schedules.values()) or any(
                str(target) == f"{PERSON}:{person.name}"
                for policy in roster.policies.values()
                for target in policy.targets()
            )
            if used and not person.contacts:
                yield f"{person.name} has no contacts, and is in a schedule or an escalation policy"
            for contact in person.contacts:
                if contact.receiver not in receivers:
                    yield f"{person.name}: there is no receiver {contact.receiver} (any more)"
        for name, schedule in sorted(roster.schedules.items()):
            try:
                found = shifts(
                    schedule, roster.overrides_of(name), self.clock.now(), until, zone_of(schedule.time_zone)
                )
            except IncidentManagerError as error:
                yield f"schedule {name}: {error}"
                continue
            gaps = [each for each in found if each.duty is None]
            if gaps:
                first = gaps[0]
                yield (
                    f"schedule {name}: nobody is on call from {timestamp(first.starts_at)} until {timestamp(first.ends_at)}"
                    + (f", and {len(gaps) - 1} more times" if len(gaps) > 1 else "")
                )
        for policy in roster.policies.values():
            for target in policy.targets():
                if target.kind == RECEIVER and target.name not in receivers:
                    yield f"escalation policy {policy.name}: there is no {target} (any more)"
        for _depth, route in self._settings().notify.tree.walk():
            if route.escalation and route.escalation not in roster.policies:
                yield f"route {route.name} names escalation policy {route.escalation}, and there is none of that name"

    # -- inside --------------------------------------------------------------------------------------------

    @property
    def _known(self) -> People:
        return self._tail.state.of(People)

    async def _change(
        self,
        actor: str,
        entries: Sequence[Entry],
        removed: Sequence[str] = (),
        expects: Mapping[str, int] | None = None,
    ) -> None:
        await self._tell(self._message(actor, entries, removed, expects or {}))
        await self._tail.follow()

    def _message(
        self,
        actor: str,
        entries: Iterable[Entry],
        removed: Sequence[str] = (),
        expects: Mapping[str, int] | None = None,
    ) -> ChangePeople:
        message = ChangePeople(actor, [], [], [], [], [*removed], dict(expects or {}), self.tenant)
        for each in entries:
            match each:
                case Person():
                    message.people.append(each)
                case Schedule():
                    message.schedules.append(each)
                case Override():
                    message.overrides.append(each)
                case Policy():
                    message.policies.append(each)
        return message

    def _check(self, entries: Iterable[Entry]) -> None:
        """Raises Malformed for what only this process can tell."""
        receivers = self._settings().notify.all_receivers
        there = ", ".join(sorted(receivers)) or "none: set notify.receivers"
        for entry in entries:
            if isinstance(entry, Person | Schedule):
                zone_of(entry.time_zone)
            if isinstance(entry, Person):
                for index, contact in enumerate(entry.contacts):
                    field_name = f"people.{entry.name}.contacts[{index}]"
                    receiver = receivers.get(contact.receiver)
                    if receiver is None:
                        raise Malformed(
                            f"{field_name}.receiver: there is no receiver {contact.receiver!r}; there are {there}"
                        )
                    if contact.address and (wrong := receiver.wrong_address(contact.address)):
                        raise Malformed(f"{field_name}.address: {wrong}")
            if isinstance(entry, Policy):
                for target in entry.targets():
                    if target.kind == RECEIVER and target.name not in receivers:
                        raise Malformed(
                            f"escalations.{entry.name}: there is no receiver {target.name!r}; there are {there}"
                        )

    def _route_of(self, policy: str) -> str:
        """The route that names a policy, "" if none does."""
        routes = (route for _depth, route in self._settings().notify.tree.walk())
        return next((route.name for route in routes if route.escalation == policy), "")


def _now(schedule: Schedule, overrides: Sequence[Override], at: float) -> Now:
    try:
        zone = zone_of(schedule.time_zone)
        duty = on_call(schedule, overrides, at, zone)
        found = shifts(schedule, overrides, at, at + AHEAD_S, zone)
    except IncidentManagerError as error:
        return Now(schedule, None, 0.0, None, str(error))
    person = None if duty is None else duty.person
    others = (each for each in found if (None if each.duty is None else each.duty.person) != person)
    after = next(others, None)
    return Now(schedule, duty, after.starts_at if after else 0.0, after)


def _in_use(policy: str, route: str) -> Conflict:
    return Conflict(f"route {route} of the settings names escalation policy {policy}: change it there first")
