"""Incidents that people join, on whatever shards they are: what one shard tells another of them."""

from __future__ import annotations

from uuid import UUID

from models.incidents.incident import Incident
from models.shard.children import (
    ChildChanged,
    ChildLeft,
    IncidentMerged,
    IncidentMergedInto,
    IncidentUnmerged,
)
from models.shard.links import IncidentLinked, IncidentUnlinked
from models.shard.peer_messages import PeerMessageDelivered, PeerMessageOwed, PeerMessageReceived
from models.shard.splitting import IncidentSplit
from tests.simulation.area import Area
from tests.simulation.watch import Watcher


class Peers(Area):
    """People do the joining (people.py); here is what must come of it."""

    events = frozenset(
        {
            IncidentLinked, IncidentUnlinked, IncidentMerged, IncidentMergedInto, IncidentUnmerged, IncidentSplit,
            ChildChanged, ChildLeft, PeerMessageOwed, PeerMessageDelivered, PeerMessageReceived,
        }
    )  # fmt: skip

    def holds_for(self, watcher: Watcher) -> None:
        """Of two incidents that a person joined, both halves are there, or one is no more."""
        for incident in watcher.mirror.state.incidents.values():
            handling = incident.handling
            if handling is None:
                continue
            name = str(UUID(bytes=incident.id))
            if handling.owed:
                watcher.fail(f"{name} still owes {len(handling.owed)} peer messages")
            whole = self._found(incident.merged_into)
            if incident.merged_into and whole is not None and incident.id not in whole.children:
                watcher.fail(f"{name} is a child of an incident that does not know it")
            for source, part in handling.children.items():
                other = self._found(source)
                if part.pending:
                    watcher.fail(f"{name}: {part.pending} is pending still")
                elif other is not None and other.merged_into != incident.id:
                    watcher.fail(f"{name} has a child that does not know it")
                elif other is not None and (other.is_open, other.severity) != (part.is_open, part.severity):
                    watcher.fail(f"{name} does not know how its part is")
            if incident.is_open and incident.merged_into and handling.children:
                watcher.fail(f"{name} is a child and has children")
            for related in handling.related:
                other = self._found(related)
                if other is not None and incident.id not in (
                    other.handling.related if other.handling else ()
                ):
                    watcher.fail(f"{name} is linked to an incident that is not linked to it")

    def _found(self, identity: bytes) -> Incident | None:
        for watcher in self.world.watchers.values():
            if identity in watcher.mirror.state.incidents:
                return watcher.mirror.state.incidents[identity]
        return None
