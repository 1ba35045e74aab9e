"""What the actions of playbooks reach the world with: the guarded HTTP client, the receivers, services and how each is changed, and
where metrics and logs are. Made from the settings in open.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.ports import Channel, Clock
from services.actions.outbound import Outbound
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
    """`means` by what a service is changed by ("kubernetes", "http")."""

    outbound: Outbound
    clock: Clock
    receivers: Mapping[str, Receiver] = field(default_factory=dict)
    services: Services = field(default_factory=lambda: Services({}))
    means: Mapping[str, Means] = field(default_factory=dict)
    prometheus: SourceGiven = field(default_factory=SourceGiven)
    loki: SourceGiven = field(default_factory=SourceGiven)
    scripts: Mapping[str, ScriptGiven] = field(default_factory=dict)
    war_room: WarRoomGiven = field(default_factory=WarRoomGiven)

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
