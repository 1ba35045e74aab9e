"""What of an incident is due at a time: its response targets, an acknowledgement's end, a promised update, alerts that
fire on after a person resolved it, alerts that joined and were not told of. Called by models/shard/shard.py with every Tick.

The next time of each is derived from its state, so nothing here is kept beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from models.errors import Broken
from models.incidents.incident import Incident, IncidentState, TimelineEntry
from models.shard import notifications
from models.shard.events import AcknowledgementEnded, TargetPassed, UpdateMissed
from models.shard.sharing import joined_due, tell_joined

if TYPE_CHECKING:
    from models.shard.settings import ShardSettings
    from models.shard.shard import Shard
    from models.shard.state import ShardState

DeadlineEvent = UpdateMissed | TargetPassed
ACKNOWLEDGE, RESOLVE = "acknowledge", "resolve"
#: Which bit of `targets_told` says that a share (percent) of a target passed.
_BITS = {(ACKNOWLEDGE, 50): 1, (ACKNOWLEDGE, 100): 2, (RESOLVE, 50): 4, (RESOLVE, 100): 8}
_HALF = "50 %"
SYSTEM = "system"


def acknowledge_due(incident: Incident, settings: ShardSettings) -> float:
    """When somebody must have acknowledged it or been assigned, in seconds since the epoch; 0 when nobody need: it
    is answered, over, a part of another, or its severity has no target."""
    handling = incident.handling
    within_s = settings.acknowledge_within_s[incident.severity]
    if not within_s or not incident.counts_as_open or (handling is not None and handling.answered_at):
        return 0.0
    return (incident.opened_at or incident.created_at) + within_s


def resolve_due(incident: Incident, settings: ShardSettings) -> float:
    """When it must be resolved; 0 when it need not: it is over, a part of another, or its severity has no target."""
    within_s = settings.resolve_within_s[incident.severity]
    if not within_s or not incident.counts_as_open:
        return 0.0
    return (incident.opened_at or incident.created_at) + within_s


def next_at(incident: Incident, settings: ShardSettings) -> float:
    """When answer() has something to do next, 0 when never."""
    handling = incident.handling
    if handling is None and not incident.joined:
        # Asked twice of every new incident: nine of ten have nothing but their targets.
        return _next_target(incident, settings, answered=False) if incident.is_open else 0.0
    times = [joined_due(incident)] if incident.state is not IncidentState.CLOSED else []
    if handling is None:
        times.append(_next_target(incident, settings, answered=False) if incident.is_open else 0.0)
        return min((at for at in times if at), default=0.0)
    if incident.counts_as_open:
        times.append(_next_target(incident, settings, answered=bool(handling.answered_at)))
    if incident.is_open:
        times.append(handling.update_due_at)
        times.append(0.0 if handling.acknowledged is None else handling.acknowledged.until)
    elif incident.state is IncidentState.RESOLVED and incident.firing:
        times.append(handling.still_firing_at)
    return min((at for at in times if at), default=0.0)


def told_by(line: TimelineEntry) -> int:
    """The bits of `targets_told` that a line of a timeline stands for."""
    if line.kind != "TargetPassed":
        return 0
    return _BITS[line.details["target"], 50 if line.text.startswith(_HALF) else 100]


def answer(shard: Shard, incident: Incident, now: float) -> None:
    """Do what is due of an incident."""
    for at, target, percent, due_at in [*_targets(incident, shard.settings)]:
        if at <= now:
            shard.do(TargetPassed(incident.id, target, percent, due_at), now)
    if 0 < joined_due(incident) <= now:
        tell_joined(shard, incident, now)
    handling = incident.handling
    if handling is None:
        return
    if incident.is_open:
        acknowledged = handling.acknowledged
        if acknowledged is not None and acknowledged.until and acknowledged.until <= now:
            shard.do(AcknowledgementEnded(incident.id, SYSTEM, "", expired=True), now)
            shard.left_alone(incident, SYSTEM, "the time of its acknowledgement has passed", now)
            # Whoever said so does not look after it any more, as far as anyone knows: it is told of again.
            notifications.owe(shard, incident, "acknowledgement expired", now, now)
        if handling.update_due_at and handling.update_due_at <= now:
            shard.do(UpdateMissed(incident.id, handling.update_due_at), now)
    elif incident.state is IncidentState.RESOLVED and incident.firing and 0 < handling.still_firing_at <= now:
        shard.reopen(incident, now, reason=f"{incident.firing} of its alerts still fire")


def _next_target(incident: Incident, settings: ShardSettings, *, answered: bool) -> float:
    """The first time of _targets(), 0 when there is none."""
    told, begun = incident.targets_told, incident.opened_at or incident.created_at
    acknowledge_s = 0.0 if answered or told & 2 else settings.acknowledge_within_s[incident.severity]
    resolve_s = 0.0 if told & 8 else settings.resolve_within_s[incident.severity]
    if acknowledge_s and not told & 1:
        acknowledge_s /= 2
    if resolve_s and not told & 4:
        resolve_s /= 2
    if acknowledge_s and resolve_s:
        return begun + min(acknowledge_s, resolve_s)
    return begun + (acknowledge_s or resolve_s) if acknowledge_s or resolve_s else 0.0


def _targets(incident: Incident, settings: ShardSettings) -> Iterator[tuple[float, str, int, float]]:
    """What of the targets was not told yet: when it is to be told, the target, the share, and when all is due."""
    begun = incident.opened_at or incident.created_at
    for target, due_at in (
        (ACKNOWLEDGE, acknowledge_due(incident, settings)),
        (RESOLVE, resolve_due(incident, settings)),
    ):
        if due_at:
            for percent in (50, 100):
                if not incident.targets_told & _BITS[target, percent]:
                    yield begun + (due_at - begun) * percent / 100, target, percent, due_at


# -- live and in replay ------------------------------------------------------------------------------------------


def apply(shard: ShardState, event: DeadlineEvent, now: float) -> None:
    """Fold one event into the incident it is about. Neither changes what people edit, so its version stays."""
    incident = shard.changing(event.incident_id)
    match event:
        case TargetPassed():
            bit = _BITS.get((event.target, event.percent))
            if bit is None:
                raise Broken(f"there is no target {event.target} {event.percent} %")
            incident.targets_told |= bit
            left_s = max(0.0, event.due_at - now)
            text = (
                f"time to {event.target} has passed"
                if event.percent == 100
                else f"{_HALF} of the time to {event.target} has passed, {math.ceil(left_s)} s are left"
            )
            shard.line(incident, now, "TargetPassed", SYSTEM, text, target=event.target)
        case UpdateMissed():
            incident.handled().update_due_at = 0.0
            shard.line(incident, now, "UpdateMissed", SYSTEM, "the promised update did not come")
    shard.watch(incident)
