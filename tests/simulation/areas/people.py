"""People in the simulation: they do to incidents what people do, at the worst moments, and ask again until answered."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from models.alerts.series import FREE
from models.errors import IncidentManagerError, Refused
from models.incidents.incident import Incident, IncidentType, Severity
from models.incidents.verbs import (
    Acknowledge,
    AnyVerb,
    Assign,
    Close,
    Comment,
    Create,
    Label,
    Link,
    Merge,
    Reclassify,
    Reopen,
    Resolve,
    Split,
    Unacknowledge,
    Unlink,
    Unmerge,
    Update,
)
from models.partition.sharding import slot_of
from models.shard.attention import AcknowledgementEnded, AssignmentChanged, IncidentAcknowledged
from models.shard.messages import Command, encode
from models.shard.people import (
    CommentAdded,
    IncidentReclassified,
    LabelsChanged,
    StakeholdersUpdated,
    UpdateMissed,
)
from tests.simulation.area import Area

if TYPE_CHECKING:
    from tests.simulation.world import World

#: How often a person asks before giving up: the answer may have been lost each time.
TRIES = 12


class Person:
    """Looks at what there is, takes an incident by chance and does something to it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name

    async def live(self) -> None:
        world = self.world
        for count in itertools.count():
            await asyncio.sleep(world.rng.uniform(0.3, 3.0))
            if not world.is_troubled:
                continue
            incidents = [each for w in world.watchers.values() for each in w.mirror.state.incidents.values()]
            if incidents:
                await self._act(world.rng.choice(incidents), incidents, count)

    async def _act(self, incident: Incident, all_of_them: list[Incident], count: int) -> None:
        world, rng = self.world, self.world.rng
        verb = self._verb(incident, all_of_them, count)
        shard = world.owner(incident.slot)
        tenant, identity = incident.tenant, incident.id
        if isinstance(verb, Create):
            shard, identity = world.owner(slot_of(tenant, verb.service)), b""
        version = incident.version if rng.random() < 0.3 else None
        # What makes the run a function of its seed: no chance but the world's.
        call = f"{self.name}{count:013d}".encode()
        if isinstance(verb, Comment):
            world.area(People).written[verb.text] = False
        for again in range(TRIES):
            if again and rng.random() < 0.5:
                # Another client, which knows the key and not the call.
                call = f"{self.name}{count:010d}-{again:02d}".encode()
            command = Command(
                call, tenant, self.name, identity, verb, "why not", version, f"{self.name}-{count}"
            )
            gateway = world.gateway()
            try:
                if gateway is not None:
                    await world.loop.spawn_call(
                        gateway.process,
                        gateway.lines[shard].tell(encode(command), 1),
                        lambda: IncidentManagerError("the gateway died"),
                    )
                    if isinstance(verb, Comment):
                        world.area(People).written[verb.text] = True
                    world.story(f"{self.name} did", verb=type(verb).__name__)
                    return
            except Refused as error:
                world.story(f"{self.name} may not", verb=type(verb).__name__, why=error)
                return
            except IncidentManagerError:
                pass
            await asyncio.sleep(rng.choice((0.1, 1.0, 5.0)))

    def _verb(self, incident: Incident, all_of_them: list[Incident], count: int) -> AnyVerb:
        rng, now = self.world.rng, self.world.time()
        # Mostly one of the same tenant: of another's a person knows no id, unless it was guessed.
        same = [each for each in all_of_them if each.tenant == incident.tenant]
        other = rng.choice(same if rng.random() < 0.9 else all_of_them).id
        parts = [*incident.children]
        related = [] if incident.handling is None else incident.handling.related
        choices: list[AnyVerb] = [
            Acknowledge(rng.choice((0.0, now + 3.0))),
            Unacknowledge(),
            Assign([self.name], [], {"commander": rng.choice((self.name, ""))}),
            Assign([], [self.name]),
            Comment(f"{self.name} {count}"),
            Comment(f"{self.name} {count}"),
            Label({"n": str(count)}, rng.choice(([], ["team"]))),
            Reclassify(rng.choice([*Severity]), IncidentType.DATA),
            Reclassify(clear=["severity"]),
            Link(other),
            Unlink(rng.choice(related) if related else other),
            Merge(other),
            Merge(other),
            Merge(other),
            Unmerge(rng.choice(parts) if parts else other),
            Split(self._some_series(incident)),
            Split(self._some_series(incident)),
            Resolve(notes=rng.choice(("", "fixed"))),
            Resolve(),
            Close(),
            Reopen(),
            Update("customers", f"update {count}", rng.choice((0.0, now + 4.0))),
            Create(rng.choice(("llm-api", "billing")), "by hand", severity=rng.choice((None, Severity.P2))),
        ]
        return rng.choice(choices)

    def _some_series(self, incident: Incident) -> list[bytes]:
        for watcher in self.world.watchers.values():
            mirror = watcher.mirror
            numbers = [
                number
                for number in mirror.state.members.get(incident.id, ())
                if mirror.state.series.status[number] != FREE
            ]
            if numbers:
                some = self.world.rng.sample(numbers, max(1, len(numbers) // 2))
                return [mirror.state.series.keys[number][:16] for number in some]
        return []


class People(Area):
    """What they were told is kept is there once."""

    events = frozenset(
        {
            IncidentAcknowledged, AcknowledgementEnded, AssignmentChanged, CommentAdded, LabelsChanged, IncidentReclassified,
            StakeholdersUpdated, UpdateMissed,
        }
    )  # fmt: skip

    def __init__(self, world: World) -> None:
        super().__init__(world)
        #: What people wrote -> whether they were told that it is kept.
        self.written: dict[str, bool] = {}

    def lives(self) -> list[Coroutine[Any, Any, None]]:
        return [Person(self.world, name).live() for name in ("ann", "bob")]

    def holds(self) -> None:
        found: Counter[str] = Counter()
        for watcher in self.world.watchers.values():
            for incident in {**watcher.gone, **watcher.mirror.state.incidents}.values():
                found.update(line.text for line in incident.timeline if line.kind == "CommentAdded")
        for text, is_kept in self.written.items():
            if found[text] > 1 or (is_kept and not found[text]):
                self.world.fail(f"the comment {text!r} is there {found[text]} times")
