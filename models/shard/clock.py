"""A clock that was ahead and is right again: how to correct what depended on the wrong time. Each component corrects
what it keeps (set_back); models/shard/reception.py has the event.

    clock    12:00:00 ..... 13:00:02  13:00:05 | 12:00:06 .....
    frames   12:00:00 ..... 13:00:02  13:00:05 | 12:00:06 ClockSetBack(before=13:00:05, after=12:00:06)

The same comes from a store, or a backup, that a host with a fast clock wrote. The order of things is their order in the
log and in the ids, which never goes backwards; only times are corrected. What has happened can't have happened later
than now; what was due some time after the wrong time is due that long after the right one. What a right clock had set
stays. If you add a time to an incident, correct it in the component that keeps it.
"""

from __future__ import annotations

import msgspec

from models.incidents.incident import Acknowledgement
from models.shard.events import ClockSetBack

#: How far the clock may go back before it counts as set back. Below that a shard's time stands still until the clock
#: has caught up: NTP steps of less than a second happen every day, and nothing that is due waits longer than this.
SLACK_S = 2.0
#: How long an alert is at most on its way from the gateway that gave it an end to its shard's decision: `hold`, twice.
ON_ITS_WAY_S = 10.0


def then(at: float, event: ClockSetBack) -> float:
    """When something happened: not later than now."""
    return min(at, event.after)


def due(at: float, event: ClockSetBack) -> float:
    """When something is due that was set by the wrong time: as long from now as it was from then."""
    return at if at <= event.after else max(event.after, at - (event.before - event.after))


def acknowledged(mark: Acknowledgement, event: ClockSetBack) -> Acknowledgement:
    """An acknowledgement made in the wrong time, moved to now; an earlier one stays as it is."""
    if mark.at <= event.after:
        return mark
    return msgspec.structs.replace(mark, at=event.after, until=due(mark.until, event))
