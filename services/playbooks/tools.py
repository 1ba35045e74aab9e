"""What the actions of playbooks reach the world with: the guarded HTTP client, the receivers, services and how each is changed, and
where metrics and logs are. Made from the settings in open.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actors.targets import Targets, receiver_target
from models.incidents.incident import Severity
from models.incidents.notification import Note
from models.ports import ActionResult, Channel, Clock
from services.playbooks.calls import Calls
from services.playbooks.given import ScriptGiven, ServiceGiven, Services, SourceGiven, WarRoomGiven

if TYPE_CHECKING:
    from services.playbooks.means.means import Means


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver of the settings: its name, its type, and how it is told."""

    name: str
    type: str
    channel: Channel


@dataclass(slots=True)
class Tools:
    """`channels` are the receivers by name, each with its type; they change with the settings. `means` by what a service is changed
    by ("kubernetes", "http", "edge")."""

    outbound: Calls
    clock: Clock
    channels: Mapping[str, tuple[str, Channel]] = field(default_factory=dict)
    targets: Targets | None = None
    services: Services = field(default_factory=lambda: Services({}))
    means: Mapping[str, Means] = field(default_factory=dict)
    prometheus: SourceGiven = field(default_factory=SourceGiven)
    loki: SourceGiven = field(default_factory=SourceGiven)
    scripts: Mapping[str, ScriptGiven] = field(default_factory=dict)
    war_room: WarRoomGiven = field(default_factory=WarRoomGiven)

    def receivers_of(self, type_: str) -> dict[str, Receiver]:
        """The receivers of a type, by name."""
        return {
            name: Receiver(name, kind, channel)
            for name, (kind, channel) in self.channels.items()
            if kind == type_
        }

    async def say(self, receiver: Receiver, key: str, note: Note, trace: str | None) -> ActionResult:
        """Say something at a receiver, if it may be called now; else a result that says why not."""
        if self.targets is None:
            return await receiver.channel.say(key, note, trace)
        is_urgent = note.severity <= Severity.P1
        return await self.targets.call(
            receiver_target(receiver.name),
            lambda: receiver.channel.say(key, note, trace),
            is_urgent=is_urgent,
        )

    def why_broken(self, target: str) -> str:
        """Why a target is not called now, "" while it is."""
        return "" if self.targets is None else self.targets.why_broken(target)

    def means_of(self, service: str) -> tuple[Means, ServiceGiven] | str:
        """How a service is changed, or why it can't be."""
        if not service:
            return "service: expected a name, and neither the action nor the incident has one"
        found = self.services.find(service)
        if found is None:
            return f"service {service[:100]!r} is not known: name it, or a pattern, in [playbooks.services]"
        return self.means[found.by], found

    async def close(self) -> None:
        for each in self.means.values():
            await each.close()
        await self.outbound.close()
