"""Whose each event of a step is, so that every frame bears its tenant. Used by actors/shard.py before the append.

A step of one tenant's message is one frame. What time, a classifier or the archive brings about may concern several tenants:
then each has a frame of its own, and what is about the shard itself has one of nobody's (EVERYONE).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from models.partition.event import Event
from models.partition.frames import EVERYONE
from models.shard.core import Core, Whose
from models.shard.events import ClockSetBack
from models.shard.heartbeats import Beats
from models.shard.messages import AlertsArrived, Command, Message, PeerMessageArrived


def by_tenant(
    shard: Core, message: Message | None, events: Sequence[Event]
) -> Iterable[tuple[str, Sequence[Event]]]:
    """The events of a step by whose they are; `message` led to it, None at the start of a writer. `shard` has applied them.

    The shard's own come first. A tenant's are all together and in their order: the state after each frame is then one that
    could have been, in which the step did not get to the others yet. No order between tenants matters to replay, since they
    share no incident, series or group.
    """
    if isinstance(message, AlertsArrived) and not isinstance(events[0], ClockSetBack):
        return ((message.tenant, events),)  # the hot path
    sender = (
        message.tenant
        if isinstance(message, AlertsArrived | Command | PeerMessageArrived | Beats)
        else EVERYONE
    )
    found: dict[str, list[Event]] = {EVERYONE: []}
    for event in events:
        found.setdefault(_tenant_of(shard, event, sender), []).append(event)
    return [(tenant, its) for tenant, its in found.items() if its]


def _tenant_of(shard: Core, event: Event, sender: str) -> str:
    whose = shard.whose(event)
    if whose is Whose.SHARD:
        return EVERYONE
    if whose is Whose.REQUEST:
        return sender
    if whose is Whose.TENANT:
        return event.tenant  # type: ignore[attr-defined, no-any-return]
    if whose is Whose.SERIES:
        incident = shard.state.series.incidents[event.number]  # type: ignore[attr-defined]
    else:
        incident = shard.state.incidents.get(event.incident_id)  # type: ignore[attr-defined]
    return getattr(event, "tenant", sender) if incident is None else incident.tenant
