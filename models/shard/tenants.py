"""Whose each event of a step is, so that every frame bears its tenant. Used by actors/shard.py between
deciding and the append.

A step of one tenant's message is one frame. What time, a classifier or the archive brings about may concern several tenants:
then each has a frame of its own, and what is about the shard itself has one of nobody's (EVERYONE).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from models.partition.event import Event
from models.partition.frames import EVERYONE
from models.shard.archiving import ArchiveExpired, IncidentArchived
from models.shard.core import Core
from models.shard.events import (
    AlertsObserved,
    AlertsSetAside,
    CallAnswered,
    ClockSetBack,
    IncidentOpened,
    SeriesChanged,
    SeriesRefired,
    SeriesResolved,
    ShardStarted,
)
from models.shard.messages import AlertsArrived, Command, Message, PeerMessageArrived
from models.shard.reception import ReceptionGap
from models.shard.slot_transfer import SlotArrived, SlotLeft

#: About the shard itself. A slot that moves takes incidents of all tenants along.
SHARDS_OWN = (ShardStarted, ReceptionGap, ClockSetBack, ArchiveExpired, SlotLeft, SlotArrived)
#: About a request, and so its sender's. They name many series, or none that is known.
REQUESTS_OWN = (AlertsObserved, AlertsSetAside, CallAnswered)


def by_tenant(
    shard: Core, message: Message | None, events: Sequence[Event]
) -> Iterable[tuple[str, Sequence[Event]]]:
    """The events of a step by whose they are; `message` led to it, None at the start of a writer. `shard` has applied them.

    The shard's own come first. A tenant's are all together and in their order: the state
    after each frame is then one that could have been, in which the step did not get to the others yet. No order between
    tenants matters to replay, since they share no incident, series or group.
    """
    if isinstance(message, AlertsArrived) and not isinstance(events[0], ClockSetBack):
        return ((message.tenant, events),)  # the hot path
    sender = message.tenant if isinstance(message, AlertsArrived | Command | PeerMessageArrived) else EVERYONE
    found: dict[str, list[Event]] = {EVERYONE: []}
    for event in events:
        found.setdefault(tenant_of(shard, event, sender), []).append(event)
    return [(tenant, its) for tenant, its in found.items() if its]


def tenant_of(shard: Core, event: Event, sender: str) -> str:
    """Whose an event is that was just applied, in a step that a message of `sender` led to, or nobody's (EVERYONE)."""
    if isinstance(event, SHARDS_OWN):
        return EVERYONE
    if isinstance(event, REQUESTS_OWN):
        return sender
    if isinstance(event, IncidentOpened | IncidentArchived):
        return event.tenant
    if isinstance(event, SeriesChanged | SeriesResolved | SeriesRefired):
        incident = shard.state.series.incidents[event.number]
    else:
        incident = shard.state.incidents.get(getattr(event, "incident_id", b""))
    return sender if incident is None else incident.tenant
