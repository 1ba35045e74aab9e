"""A clock that was ahead and is right again: what of a shard's state hangs on the time that was false. Each
component puts right what it keeps (set_back); models/shard/reception.py has the event.

    clock    12:00:00 ..... 13:00:02  13:00:05 | 12:00:06 .....
    frames   12:00:00 ..... 13:00:02  13:00:05 | 12:00:06 ClockSetBack(before=13:00:05, after=12:00:06)

The same comes from a store, or a backup, that a host with a fast clock wrote. The order of things is their order in the log
and in the ids, which never falls; only the hours are put right. What has happened can't have happened later than now; what is
to happen so long after a false time happens so long after the right one. Whatever was set by a right clock stays.

Who adds a time to an incident puts it right in the component that keeps it.
"""

from __future__ import annotations

import msgspec

from models.incidents.incident import Acknowledgement
from models.shard.events import ClockSetBack

#: How far the clock may fall before it counts as set back. Below it a shard's time stands still until the clock is there
#: again: NTP steps of less than a second are everyday, and nothing that is due waits longer than this.
SLACK_S = 2.0
#: How long an alert is at most on its way from the gateway that gave it an end to its shard's decision: `hold`, twice.
ON_ITS_WAY_S = 10.0


def then(at: float, event: ClockSetBack) -> float:
    """When something happened: not later than now."""
    return min(at, event.after)


def due(at: float, event: ClockSetBack) -> float:
    """When something is due that was set by the false time: as long from now as it was from then."""
    return at if at <= event.after else max(event.after, at - (event.before - event.after))


def acknowledged(mark: Acknowledgement, event: ClockSetBack) -> Acknowledgement:
    """An acknowledgement of the false time, as of now; one of before stays as it was said."""
    if mark.at <= event.after:
        return mark
    return msgspec.structs.replace(mark, at=event.after, until=due(mark.until, event))
