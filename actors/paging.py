"""Looks up who the people of an escalation's level are, at the moment when they are told, and tells each by all their contacts. The part of
a responder (actors/responder.py) that answers effect Page. Addresses do not leave it: what it answers has names only.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import tzinfo

import msgspec
import structlog

from actors.control_tail import ControlTail
from actors.runtime.zones import zone_of
from models.control.people import People
from models.errors import Busy, Malformed, Unavailable
from models.metrics import Meter
from models.people.oncall import on_call
from models.people.policy import PERSON, RECEIVER, SCHEDULE, Target
from models.people.roster import Roster
from models.ports import ActionResult, Channel, Clock
from models.shard.effects import Act
from models.shard.escalation import Page, Paged
from models.shard.escalation_state import NOBODY, OVER

log = structlog.get_logger()

Send = Callable[[Channel, Act], Awaitable[ActionResult]]

#: Characters of what one contact's receiver said.
DETAIL_CHARS = 200
#: An address of fewer characters is left in what a receiver says: it would be found in any word.
ADDRESS_CHARS = 3


@dataclass(frozen=True, slots=True)
class Way:
    """One contact to use: `name` as in "ana:mail", or "*:ops" for a receiver that stands for itself."""

    name: str
    receiver: str
    address: str = ""


class Paging:
    """Of one responder. `receivers` is the responder's own, and changes with the settings."""

    def __init__(
        self,
        receivers: Mapping[str, Channel],
        control: ControlTail | None,
        clock: Clock,
        meter: Meter,
        zone: Callable[[str], tzinfo] = zone_of,
    ) -> None:
        self._receivers = receivers
        self._control = control
        self._clock = clock
        self._meter = meter
        self._zone = zone

    async def page(self, asked: Page, send: Send) -> Paged:
        """Tell all that are meant and were not told by an earlier try, at once. `send` tells one, each key once at a time. Raises
        Unavailable while nobody knows who there is."""
        roster = await self._roster(asked.tenant)
        missed: list[str] = []
        ways = {way.name: way for way in self._ways(asked, roster, missed)}
        wanted = [way for name, way in ways.items() if name not in asked.done]
        results = await asyncio.gather(*[self._tell(way, asked, send) for way in wanted])
        told = [way.name for way, result in zip(wanted, results, strict=True) if result.ok]
        fails = [(way, result) for way, result in zip(wanted, results, strict=True) if not result.ok]
        for outcome, count in (("told", len(told)), ("failed", len(fails)), ("nobody", len(missed))):
            if count:
                self._meter.count("llm_im_pages_total", count, outcome=outcome)
        return Paged(
            asked.incident_id,
            asked.number,
            asked.attempt,
            told,
            [_said(way, result) for way, result in fails],
            missed,
            any(not result.final for _way, result in fails),
            # Who asks for the least is tried when that is over: a receiver that wants to be left alone for a day keeps no other waiting.
            min((result.retry_after_s for _way, result in fails if not result.final), default=0.0),
            [way.name for way, result in fails if result.final],
        )

    async def _roster(self, tenant: str) -> Roster:
        if self._control is None:
            raise Unavailable("people are not known here")
        # An override that was made a moment ago counts.
        await self._control.catch_up()
        if self._control.state.slots is None:
            raise Unavailable("people are not known yet: the control partition was not read")
        return self._control.state.of(People).of(tenant)

    def _ways(self, asked: Page, roster: Roster, missed: list[str]) -> Iterator[Way]:
        """Whom to tell. In `missed` go the reasons why somebody is not among them."""
        if asked.level == OVER or asked.only is not None:
            yield from self._again(asked.only or [], roster)
            return
        policy = roster.policies.get(asked.policy)
        if policy is None:
            missed.append(f"policy {asked.policy} does not exist any more")
            return
        for target in policy.told(asked.level):
            if target.kind == RECEIVER:
                if self._is_known(target.name, str(target), missed):
                    yield Way(f"{NOBODY}:{target.name}", target.name)
            elif (person := self._person(target, roster, missed)) is not None:
                yield from self._of_person(person, roster, missed)

    def _person(self, target: Target, roster: Roster, missed: list[str]) -> str | None:
        if target.kind == PERSON:
            return target.name
        assert target.kind == SCHEDULE
        schedule = roster.schedules.get(target.name)
        if schedule is None:
            missed.append(f"there is no {target} any more")
            return None
        try:
            zone = self._zone(schedule.time_zone)
        except Malformed as error:
            log.error(
                "schedule can't be read, its people are not paged", schedule=schedule.name, why=str(error)
            )
            missed.append(f"{target}: {error}")
            return None
        duty = on_call(schedule, roster.overrides_of(schedule.name), self._clock.now(), zone)
        if duty is None:
            missed.append(f"nobody is on call in {target}")
            return None
        return duty.person

    def _of_person(self, name: str, roster: Roster, missed: list[str]) -> Iterator[Way]:
        person = roster.people.get(name)
        if person is None:
            missed.append(f"there is no person:{name} any more")
        elif not person.contacts:
            missed.append(f"{name} has no contacts")
        else:
            for way, contact in person.ways():
                if self._is_known(contact.receiver, name, missed):
                    yield Way(f"{name}:{way}", contact.receiver, contact.address)

    def _again(self, names: Iterable[str], roster: Roster) -> Iterator[Way]:
        """Those who were told before, if they can still be reached in the same way."""
        for each in names:
            name, _, way = each.partition(":")
            if name == NOBODY:
                yield Way(each, way)
            elif (person := roster.people.get(name)) is not None:
                contact = dict(person.ways()).get(way)
                if contact is not None:
                    yield Way(each, contact.receiver, contact.address)

    def _is_known(self, receiver: str, whose: str, missed: list[str]) -> bool:
        if receiver in self._receivers:
            return True
        missed.append(f"{whose}: there is no receiver {receiver}")
        return False

    async def _tell(self, way: Way, asked: Page, send: Send) -> ActionResult:
        channel = self._receivers.get(way.receiver)
        if channel is None:
            return ActionResult(
                ok=False, detail=f"there is no receiver {way.receiver}", final=True, reached=False
            )
        facts = msgspec.structs.replace(asked.facts, receiver=way.receiver, to=way.address)
        # What a receiver compares is everything before the last dash.
        whose = way.name.replace(":", ".").replace(NOBODY, "receiver")
        key = f"{asked.key}-{whose}-{asked.attempt}"
        act = Act(
            asked.incident_id,
            asked.number,
            asked.attempt,
            "page",
            way.receiver,
            key,
            facts,
            asked.urgency,
            asked.trace,
        )
        try:
            return await send(channel, act)
        except Busy as error:
            return ActionResult(ok=False, detail=str(error), retry_after_s=error.retry_after_s, reached=False)


def without_address(detail: str, address: str) -> str:
    """What a receiver said, with *** for the address at which it was to tell somebody. A telephone number is often said without its plus."""
    bare = address.removeprefix("+")
    if len(bare) < ADDRESS_CHARS:
        return detail
    return re.sub(r"\+?" + re.escape(bare), "***", detail, flags=re.IGNORECASE)


def _said(way: Way, result: ActionResult) -> str:
    """What a receiver said, without the address: it goes into the timeline."""
    detail = without_address(result.detail, way.address)
    person, _, by = way.name.partition(":")
    whose = f"receiver {by}" if person == NOBODY else f"{person} by {by}"
    return f"{whose}: {detail[:DETAIL_CHARS]}"
