"""When a receiver may be told of an incident again, and whether the incident flaps. Used by models/shard/telling.py.

An incident that reopens FLAPS times within FLAP_WINDOW intervals flaps. That is sent once; its resolves and reopenings
are not sent any more until it has been quiet for as long as those took. Then the outcome is.
"""

from __future__ import annotations

from models.incidents.incident import Notification

#: Reopenings that make it flap: one happens to every second incident, two are bad luck.
FLAPS = 3
#: In how many intervals: at a minute between two notifications, every five minutes.
FLAP_WINDOW = 15


def may_tell_at(notification: Notification, interval_s: float, now: float) -> float:
    """When the next non-urgent notification may be sent: never later than an interval from now."""
    return min(now, notification.heard_at) + interval_s


def flaps(notification: Notification, interval_s: float, now: float) -> bool:
    """Whether it begins and ends so often that only that is told."""
    if notification.flapping:
        return True
    begun = notification.reopenings
    return len(begun) == FLAPS and now - begun[0] < FLAP_WINDOW * interval_s


def quiet_needed_s(notification: Notification, interval_s: float) -> float:
    """How long a flapping incident must be quiet before its outcome is sent."""
    begun = notification.reopenings
    took_s = begun[-1] - begun[0] if begun else 0.0
    return max(interval_s, min(took_s, FLAP_WINDOW * interval_s))
