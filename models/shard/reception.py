"""Reception and clock of a shard: starting writers, reception gaps, a clock that was ahead."""

from __future__ import annotations

import msgspec

from models.alerts.series import BLOCK_SHIFT, FIRING, FREE
from models.incidents.incident import Incident
from models.partition.checkpoint import META
from models.partition.event import Event
from models.shard import clock
from models.shard.component import Component, on
from models.shard.core import Core, Whose
from models.shard.events import ClockSetBack, ShardStarted
from models.shard.messages import Done, GapEnded, Reply
from models.shard.state import INCIDENT, MOVING, STATIC


class ReceptionGap(Event, frozen=True, tag="HeardAgain"):
    """The shard heard nothing since `gap_since`; nothing expires before `no_expiry_before`."""

    gap_since: float
    no_expiry_before: float
    why: str


class Reception(Component):
    name = "reception"

    def _gap_ended(self, message: GapEnded, now: float) -> Reply:
        grace_s = self.shard.settings.expiry_grace_s
        self.shard.do(ReceptionGap(message.gap_since, now + grace_s, message.why), now)
        return Done()

    def _fold_pause(self, event: ShardStarted | ReceptionGap, now: float) -> None:
        self.state.checkpoint.touch(META, 0)
        self.state.no_expiry_before = event.no_expiry_before
        self.state.renew_calls(now)

    def _fold_set_back(self, event: ClockSetBack, now: float) -> None:
        """Correct what was set by the wrong time."""
        state = self.state
        state.checkpoint.touch(META, 0)
        state.no_expiry_before = event.no_expiry_before
        state.forgotten_before = event.forgotten_before
        self._series(event)
        for incident in state.incidents.values():
            state.checkpoint.touch(INCIDENT, incident.id)
            self.shard.set_back(incident, event)
        state.times_moved(event.after)
        self.shard.timers.clear()

    def _series(self, event: ClockSetBack) -> None:
        table, after, touch = self.state.series, event.after, self.state.checkpoint.touch
        for number in range(table.used):
            if table.seen[number] <= after or table.status[number] == FREE:
                continue
            touch(STATIC, number >> BLOCK_SHIFT)
            touch(MOVING, number >> BLOCK_SHIFT)
            ends, ahead_s = table.ends[number], table.ends[number] - table.seen[number]
            if table.status[number] != FIRING:
                ends = clock.then(ends, event)
            elif any(given_s - clock.ON_ITS_WAY_S <= ahead_s <= given_s for given_s in event.given_s):
                # We set it, so it is wrong; an end given by the sender is the sender's.
                ends = clock.due(ends, event)
            table.move_times(number, after, ends)

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        """Correct the times that every incident has. Last of all components, because the others look at these times."""
        after = event.after
        incident.created_at = clock.then(incident.created_at, event)
        incident.updated_at = clock.then(incident.updated_at, event)
        incident.opened_at = clock.then(incident.opened_at, event)
        incident.resolved_at = clock.then(incident.resolved_at, event)
        incident.closed_at = clock.then(incident.closed_at, event)
        if incident.resolution is not None and incident.resolution.at > after:
            incident.resolution = msgspec.structs.replace(incident.resolution, at=after)
        for place, line in enumerate(incident.timeline):
            if line.at > after:
                incident.timeline[place] = msgspec.structs.replace(line, at=after)

    messages = {GapEnded: _gap_ended}
    events = (
        on(ShardStarted, _fold_pause, whose=Whose.SHARD),
        on(ReceptionGap, _fold_pause, whose=Whose.SHARD),
        on(ClockSetBack, _fold_set_back, whose=Whose.SHARD),
    )


def set_back(shard: Core, after: float) -> ClockSetBack:
    """The event for a clock that says `after` and said more before."""
    settings, state = shard.settings, shard.state
    return ClockSetBack(
        state.now,
        after,
        after + settings.expiry_grace_s,
        min(state.forgotten_before, after - settings.retention_s),
        list(settings.given_ends_s),
    )
