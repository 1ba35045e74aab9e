"""Makes, changes, pauses and removes heartbeats, and says how each is. Used by services/api/v1/heartbeats.py.

The control partition decides what there is, and the shards know what was heard. What returns is durable, and the shard of a heartbeat
hears of it within a second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from actors.control_tail import ControlTail
from models.control.control import ControlMessage
from models.control.heartbeating import Heartbeats
from models.control.heartbeats import Heartbeat, PauseHeartbeat, RemoveHeartbeat, SetHeartbeat
from models.incidents.query import ListPulses, PulsePage, PulseView
from models.ports import Clock
from services.api.reads import Reads


class HeartbeatState(StrEnum):
    NEW = "new"
    UP = "up"
    LATE = "late"
    MISSED = "missed"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Shown:
    """A heartbeat, and what its shard knows of it."""

    heartbeat: Heartbeat
    pulse: PulseView
    state: HeartbeatState


class HeartbeatDesk:
    """The heartbeats of one tenant. Raises Malformed, TooLarge, NotFound, Conflict, Unavailable."""

    def __init__(
        self,
        tail: ControlTail,
        tell: Callable[[ControlMessage], Awaitable[None]],
        reads: Reads,
        clock: Clock,
        tenant: str,
    ) -> None:
        self.tenant = tenant
        self._tail = tail
        self._tell = tell
        self._reads = reads
        self._clock = clock

    @property
    def _known(self) -> Heartbeats:
        return self._tail.state.of(Heartbeats)

    async def all(self) -> list[Shown]:
        """By name."""
        await self._tail.catch_up()
        asking = self._reads.asking
        pulses: dict[str, PulseView] = {}
        queries = {shard: ListPulses(self.tenant) for shard in range(asking.shards)}
        while queries:
            pages = await asking.each([*queries], [*queries.values()], PulsePage)
            for shard, page in zip([*queries], pages, strict=True):
                pulses.update((each.name, each) for each in page.items)
                if page.next_after is None:
                    del queries[shard]
                else:
                    queries[shard] = ListPulses(self.tenant, page.next_after)
        return [self._shown(each, pulses.get(each.name)) for each in self._known.shown(self.tenant)]

    async def find(self, name: str) -> Shown:
        """Raises NotFound."""
        await self._tail.catch_up()
        found = self._known.find(name, self.tenant)
        asking = self._reads.asking
        query = ListPulses(self.tenant, name=name)
        page = await asking.one(asking.shard_of_service(found.service), query, PulsePage)
        return self._shown(found, page.items[0] if page.items else None)

    async def known(self, name: str) -> Heartbeat | None:
        """What there is of this name."""
        await self._tail.catch_up()
        return next((each for each in self._known.shown(self.tenant) if each.name == name), None)

    async def set(self, wanted: Heartbeat, actor: str) -> Shown:
        """Make it, or change the one of this name. Safe to repeat."""
        await self._tell(SetHeartbeat(msgspec.structs.replace(wanted, tenant=self.tenant), actor))
        await self._tail.follow()
        return await self.find(wanted.name)

    async def pause(self, name: str, paused: bool, actor: str) -> Shown:
        """Safe to repeat."""
        await self._tell(PauseHeartbeat(name, paused, actor, self.tenant))
        await self._tail.follow()
        return await self.find(name)

    async def remove(self, name: str, actor: str) -> None:
        """Raises NotFound."""
        await self._tail.catch_up()
        self._known.find(name, self.tenant)
        await self._tell(RemoveHeartbeat(name, actor, self.tenant))
        await self._tail.follow()

    def _shown(self, heartbeat: Heartbeat, pulse: PulseView | None) -> Shown:
        # A shard that has not heard of it yet knows nothing of it.
        pulse = pulse or PulseView(heartbeat.name, 0.0, 0.0)
        return Shown(heartbeat, pulse, _state(heartbeat, pulse, self._clock.now()))


def _state(heartbeat: Heartbeat, pulse: PulseView, now: float) -> HeartbeatState:
    if heartbeat.paused:
        return HeartbeatState.PAUSED
    if pulse.missed_at:
        return HeartbeatState.MISSED
    if not (heartbeat.began or pulse.last_at):
        return HeartbeatState.NEW
    if pulse.due_at and now > pulse.due_at - heartbeat.grace_s:
        return HeartbeatState.LATE
    return HeartbeatState.UP
