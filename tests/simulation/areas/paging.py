"""People on call, their telephones, and whoever swaps shifts; and the laws of escalation.

No contact is told of a level twice but where it did not answer, nobody is paged of what somebody acknowledged, what the log says was told
was told, and what is open and urgent is paged, whoever crashed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from uuid import UUID

from models.control.control import encode_message
from models.errors import IncidentManagerError
from models.incidents.incident import Incident
from models.incidents.notification import Facts, Note
from models.partition.event import Event
from models.people.person import Contact, Person
from models.people.policy import Level, Policy, Target
from models.people.roster import ChangePeople
from models.people.schedule import Layer, Override, Schedule
from models.ports import ActionResult
from models.shard.escalation import Escalations
from models.shard.escalation_events import (
    EscalationBegan,
    EscalationEnded,
    EscalationPaused,
    EscalationResumed,
    EscalationStopped,
    EscalationUnknown,
    LevelDue,
    LevelTold,
    PoliciesKnown,
)
from models.shard.escalation_state import ENDED, NOBODY, OVER, RUNNING, STOPPED, UNKNOWN
from models.shard.mutes import Mutes
from tests.simulation.area import Area
from tests.simulation.settings import LEVEL_S, PHONES, POLICY, TENANTS

if TYPE_CHECKING:
    from tests.simulation.watch import Watcher
    from tests.simulation.world import World

#: A page that was asked for before an acknowledgement may still be on its way: a call that hangs takes ten seconds.
ON_ITS_WAY_S = 15.0
#: A shard ticks each one and a half, and a telephone may take its time.
LATE_S = 15.0
PRIMARY = "primary"


class Phone:
    """Port Channel: what rings. It may say no, take long, or ring and say nothing."""

    def __init__(self, area: Paging, name: str) -> None:
        self.area = area
        self.name = name
        #: Keys without their attempt of what rang, and those of them that were answered, by the whole key.
        self.rang: set[str] = set()
        self.answered: dict[str, str] = {}
        self.declined: dict[str, ActionResult] = {}

    async def act(self, key: str, facts: Facts, trace: str | None = None) -> ActionResult:
        world, page = self.area.world, key.rpartition("-")[0]
        if facts.to not in ("", "a1", "a2", "b1"):
            world.fail(f"{self.name} rings at {facts.to}")
        if key in self.declined:
            return self.declined[key]
        before = self.answered.get(page)
        if before == key:
            return ActionResult(True, "200")
        if before is not None:
            world.fail(f"{self.name} rings again for {page}, which was answered")
        if not facts.is_over:
            self.area.rings(UUID(key[:36]).bytes)
        fate = world.rng.random() if world.is_troubled else 1.0
        if fate < 0.08:
            self.declined[key] = ActionResult(False, "503", reached=False)
            return self.declined[key]
        if fate < 0.1:
            self.declined[key] = ActionResult(False, "422", final=True, reached=False)
            return self.declined[key]
        if fate < 0.15:
            await asyncio.sleep(world.rng.choice((0.1, 2.0, 8.0)))
        self.rang.add(page)
        if fate < 0.18:
            self.declined[key] = ActionResult(False, "the answer was lost")
            return self.declined[key]
        self.answered[page] = key
        if fate < 0.2:
            world.kill("responder-0", "after it has paged")
            await asyncio.get_running_loop().create_future()
        return ActionResult(True, "200")

    async def say(self, key: str, note: Note, trace: str | None = None) -> ActionResult:
        return ActionResult(ok=True, detail="said")

    def render(self, facts: Facts) -> bytes:
        return facts.reason.encode()

    async def close(self) -> None:
        """Nothing is open."""


class Paging(Area):
    events = frozenset(
        {
            PoliciesKnown,
            EscalationBegan,
            EscalationUnknown,
            LevelDue,
            LevelTold,
            EscalationPaused,
            EscalationResumed,
            EscalationStopped,
            EscalationEnded,
        }
    )

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.phones = {name: Phone(self, name) for name in PHONES}
        #: Since when, by the run's own time, the log says that an incident is acknowledged.
        self._quiet_since: dict[bytes, float] = {}

    def lives(self) -> list[Coroutine[Any, Any, None]]:
        return [self._live(tenant) for tenant in TENANTS]

    async def _live(self, tenant: str) -> None:
        """The people, who swap shifts now and then."""
        rng = self.world.rng
        people = [
            Person("ana", "Ana", (Contact("phone", "a1"), Contact("mail", "a2"))),
            Person("ben", "Ben", (Contact("phone", "b1"),)),
        ]
        layer = Layer("hours", ("ana", "ben"), 3600.0, "2026-01-05T09:00")
        levels = (
            Level((Target("schedule", PRIMARY),), LEVEL_S),
            Level((Target("person", "ben"), Target("receiver", "phone")), LEVEL_S),
        )
        policy = Policy(POLICY, levels, 1, (Target("receiver", "mail"),), rng.choice((0.0, LEVEL_S)))
        # Those who come before it find no policy.
        await asyncio.sleep(rng.uniform(0.0, 6.0))
        await self._change(
            ChangePeople("ann", people, [Schedule(PRIMARY, "UTC", (layer,))], [], [policy], tenant=tenant)
        )
        number = 0
        while True:
            await asyncio.sleep(rng.uniform(2.0, 10.0))
            number += 1
            now = self.world.clock.now()
            swap = Override(f"o{number % 3}", PRIMARY, rng.choice(("ana", "ben")), now, now + 6.0, now, "ann")
            await self._change(ChangePeople("ann", overrides=[swap], tenant=tenant))

    async def _change(self, message: ChangePeople) -> None:
        while True:
            try:
                await self.world.wire.call("control-a", "change", encode_message(message), 2.0)
                return
            except IncidentManagerError:
                await asyncio.sleep(0.5)

    # -- laws ----------------------------------------------------------------------------------------------

    def rings(self, identity: bytes) -> None:
        """Somebody is woken because of an incident."""
        since = self._quiet_since.get(identity)
        if since is not None and self.world.clock.elapsed - since > ON_ITS_WAY_S:
            self.world.fail(f"somebody is paged of {UUID(bytes=identity)}, which was acknowledged long ago")

    def seen(self, watcher: Watcher, event: Event) -> None:
        identity: bytes | None = getattr(event, "incident_id", None)
        incident = None if identity is None else watcher.mirror.state.incidents.get(identity)
        if incident is None:
            return
        if _is_acknowledged(incident):
            self._quiet_since.setdefault(incident.id, self.world.clock.elapsed)
        else:
            self._quiet_since.pop(incident.id, None)
        name = UUID(bytes=incident.id)
        if isinstance(event, LevelDue) and event.level != OVER:
            if _is_acknowledged(incident):
                watcher.fail(f"a level of {name} is due, and it is acknowledged")
            if not incident.counts_as_open:
                watcher.fail(f"a level of {name} is due, and it is {incident.state}")
        if isinstance(event, LevelTold):
            for each in event.told:
                person, _, way = each.partition(":")
                whose = "receiver" if person == NOBODY else person
                page = f"{name}-page-{event.number}-{whose}.{way}"
                if page not in self.phones[way].answered:
                    watcher.fail(f"{each} was told of {page}, and no telephone rang")

    def holds_for(self, watcher: Watcher) -> None:
        shard, now = watcher.mirror, self.world.clock.now()
        escalations = shard.of(Escalations)
        for identity, incident in shard.state.incidents.items():
            name, mine = UUID(bytes=identity), escalations.store.of(identity)
            if mine is not None:
                late = [page for page in mine.pages if page.due_at < now - LATE_S and not page.attempt]
                if late:
                    watcher.fail(f"{name}: page {late[0].number} is still owed")
                if mine.status == RUNNING and mine.due_at < now - LATE_S:
                    watcher.fail(f"{name}: level {mine.level + 1} was forgotten")
                if mine.status == UNKNOWN:
                    watcher.fail(f"{name}: its policy is there, and it did not begin")
                if mine.status == RUNNING and (not incident.counts_as_open or _is_acknowledged(incident)):
                    watcher.fail(f"{name} is escalated, and is {incident.state}")
            is_meant = incident.counts_as_open and escalations.audience.of(incident).escalation is not None
            if not is_meant or _is_acknowledged(incident) or shard.of(Mutes).is_muted(incident):
                continue
            if mine is None or mine.status == STOPPED:
                watcher.fail(f"{name} is open and nobody is paged")
            elif mine.status == ENDED and not any(
                page.startswith(f"{name}-page-") for phone in self.phones.values() for page in phone.rang
            ):
                watcher.fail(f"{name} was escalated to its end, and no telephone rang")


def _is_acknowledged(incident: Incident) -> bool:
    return incident.handling is not None and incident.handling.acknowledged is not None
