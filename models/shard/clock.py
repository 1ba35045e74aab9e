"""A clock that was ahead and is right again: what of a shard's state hangs on the time that was false. Called by
models/shard/shard.py and models/shard/state.py.

    clock    12:00:00 ..... 13:00:02  13:00:05 | 12:00:06 .....
    frames   12:00:00 ..... 13:00:02  13:00:05 | 12:00:06 ClockSetBack(before=13:00:05, after=12:00:06)

The same comes from a store, or a backup, that a host with a fast clock wrote. The order of things is their order in the log
and in the ids, which never falls; only the hours are put right. What has happened can't have happened later than now; what is
to happen so long after a false time happens so long after the right one. Whatever was set by a right clock stays.

Who adds a time to an incident or a series adds it here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from models.alerts.series import BLOCK_SHIFT, FIRING, FREE
from models.incidents.incident import Acknowledgement, Handling, Incident
from models.partition.checkpoint import RecordKind
from models.shard import deadlines
from models.shard.events import ClockSetBack

if TYPE_CHECKING:
    from models.shard.shard import Shard
    from models.shard.state import ShardState

#: How far the clock may fall before it counts as set back. Below it a shard's time stands still until the clock is there
#: again: NTP steps of less than a second are everyday, and nothing that is due waits longer than this.
SLACK_S = 2.0
#: How long an alert is at most on its way from the gateway that gave it an end to its shard's decision: `hold`, twice.
ON_ITS_WAY_S = 10.0


def set_back(shard: Shard, after: float) -> ClockSetBack:
    """The event for a clock that says `after` and said more before."""
    settings = shard.settings
    return ClockSetBack(
        shard.now,
        after,
        after + settings.expiry_grace_s,
        min(shard.forgotten_before, after - settings.retention_s),
        list(settings.given_ends_s),
    )


def apply(shard: ShardState, event: ClockSetBack) -> None:
    """Put right what was set by the false time, live and in replay."""
    shard.checkpoint.touch(RecordKind.META, 0)
    shard.no_expiry_before = event.no_expiry_before
    shard.forgotten_before = event.forgotten_before
    _series(shard, event)
    for incident in shard.incidents.values():
        shard.checkpoint.touch(RecordKind.INCIDENT, incident.id)
        _incident(incident, event)
    shard.times_moved(event.after)


def acknowledged(mark: Acknowledgement, event: ClockSetBack) -> Acknowledgement:
    """An acknowledgement of the false time, as of now; one of before stays as it was said."""
    if mark.at <= event.after:
        return mark
    return msgspec.structs.replace(mark, at=event.after, until=_due(mark.until, event))


def _then(at: float, event: ClockSetBack) -> float:
    """When something happened: not later than now."""
    return min(at, event.after)


def _due(at: float, event: ClockSetBack) -> float:
    """When something is due that was set by the false time: as long from now as it was from then."""
    return at if at <= event.after else max(event.after, at - (event.before - event.after))


def _series(shard: ShardState, event: ClockSetBack) -> None:
    table, after = shard.series, event.after
    for number in range(table.used):
        if table.seen[number] <= after or table.status[number] == FREE:
            continue
        shard.checkpoint.touch(RecordKind.STATIC, number >> BLOCK_SHIFT)
        shard.checkpoint.touch(RecordKind.MOVING, number >> BLOCK_SHIFT)
        ends, ahead_s = table.ends[number], table.ends[number] - table.seen[number]
        if table.status[number] != FIRING:
            ends = _then(ends, event)
        elif any(given_s - ON_ITS_WAY_S <= ahead_s <= given_s for given_s in event.given_s):
            # Ours, and so false; an end that its sender gave is its sender's.
            ends = _due(ends, event)
        table.move_times(number, after, ends)


def _incident(incident: Incident, event: ClockSetBack) -> None:
    after = event.after
    was_resolved_at = incident.resolved_at
    incident.created_at = _then(incident.created_at, event)
    incident.updated_at = _then(incident.updated_at, event)
    incident.opened_at = _then(incident.opened_at, event)
    incident.resolved_at = _then(incident.resolved_at, event)
    incident.closed_at = _then(incident.closed_at, event)
    incident.joined_told_at = _then(incident.joined_told_at, event)
    if incident.resolution is not None and incident.resolution.at > after:
        incident.resolution = msgspec.structs.replace(incident.resolution, at=after)
    for place, line in enumerate(incident.timeline):
        if line.at > after:
            # A target that passed by the false time alone is told of when it passes.
            incident.targets_told &= ~deadlines.told_by(line)
            incident.timeline[place] = msgspec.structs.replace(line, at=after)
    notice = incident.notification
    if notice.due_at <= event.before or notice.attempt or notice.owed_since > after:
        notice.due_at = _due(notice.due_at, event)
    notice.owed_since = _then(notice.owed_since, event)
    notice.heard_at = _then(notice.heard_at, event)
    notice.reopenings = [_then(at, event) for at in notice.reopenings]
    if incident.handling is not None:
        _handling(incident.handling, event, was_resolved_at)


def _handling(handling: Handling, event: ClockSetBack, resolved_at: float) -> None:
    after = event.after
    if handling.acknowledged is not None:
        handling.acknowledged = acknowledged(handling.acknowledged, event)
    handling.answered_at = _then(handling.answered_at, event)
    if handling.updates and handling.updates[-1].at > after:
        handling.update_due_at = _due(handling.update_due_at, event)
        handling.updates = [
            msgspec.structs.replace(each, at=_then(each.at, event), next_due_at=_due(each.next_due_at, event))
            if each.at > after
            else each
            for each in handling.updates
        ]
    if resolved_at > after:
        handling.still_firing_at = _due(handling.still_firing_at, event)
