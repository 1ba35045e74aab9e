"""When an incident may be told of again, and whether it flaps. Used by models/shard/notifications.py.

An incident that reopens FLAPS times within FLAP_WINDOW intervals flaps. That is sent once; its resolves and reopenings
are not sent any more until it has been quiet for as long as those took. Then the outcome is.
"""

from __future__ import annotations

from models.incidents.incident import Incident
from models.shard.settings import ShardSettings

#: Reopenings that make it flap: one happens to every second incident, two are bad luck.
FLAPS = 3
#: In how many intervals: at a minute between two notifications, every five minutes.
FLAP_WINDOW = 15


def may_tell_at(incident: Incident, settings: ShardSettings, now: float) -> float:
    """When the next non-urgent notification may be sent: never later than an interval from now."""
    return min(now, incident.notification.heard_at) + settings.interval_s


def flaps(incident: Incident, settings: ShardSettings, now: float) -> bool:
    """Whether it begins and ends so often that only that is told."""
    notification = incident.notification
    if notification.flapping:
        return True
    begun = notification.reopenings
    return len(begun) == FLAPS and now - begun[0] < FLAP_WINDOW * settings.interval_s


def quiet_needed_s(incident: Incident, settings: ShardSettings) -> float:
    """How long a flapping incident must be quiet before its outcome is sent."""
    begun = incident.notification.reopenings
    took_s = begun[-1] - begun[0] if begun else 0.0
    return max(settings.interval_s, min(took_s, FLAP_WINDOW * settings.interval_s))
