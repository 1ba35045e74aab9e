"""A receiver that can't be told: its fallback is told in its place. Used by models/shard/notifications.py.

That happens when a notification is given up, or was tried in vain for `fallback_after`. The fallback is told once, as if a route had
chosen it, and then goes on hearing of the incident like everybody who was told of it; nothing is owed to it that it knows already. Its
own fallback stands in for it in turn. A resolve falls back on nobody: whoever was told of the incident hears of its end by itself.
"""

from __future__ import annotations

from models.durations import duration_text
from models.incidents.incident import Incident, Notification
from models.incidents.notification import FIRING, RESOLVED
from models.routes.route import ReceiverRow
from models.shard.audience import Audience
from models.shard.core import Core
from models.shard.events import NotificationFellBack
from models.shard.telling import ESCALATED, OPENED, REOPENED, Telling


class Fallback:
    """Asked after each attempt that failed."""

    def __init__(self, shard: Core, telling: Telling, audience: Audience) -> None:
        self._shard = shard
        self._telling = telling
        self._audience = audience

    def retry_by(self, incident: Incident, receiver: str, again_at: float, now: float) -> float:
        """When a receiver is tried again: not later than its fallback is to be told, because that is decided then."""
        row = self._row(incident, receiver)
        if row is None:
            return again_at
        falls_at = incident.notification_of(receiver).owed_since + row.fallback_after_s
        return min(again_at, falls_at) if falls_at > now else again_at

    def failed(self, incident: Incident, receiver: str, reason: str, owed_since: float, now: float) -> None:
        """An attempt of a notification that was owed since then failed, and that is in the log."""
        row = self._row(incident, receiver)
        if row is None or reason == RESOLVED:
            return
        is_given_up = incident.notification_of(receiver).reason is None
        if not is_given_up and now - owed_since < row.fallback_after_s:
            return
        before = incident.notification_of(row.fallback)
        word = reason if reason == ESCALATED else REOPENED if before.told else OPENED
        self._telling.owe(incident, row.fallback, word, now, now)
        if _is_owed(incident.notification_of(row.fallback)):
            why = "it was given up" if is_given_up else f"not for {duration_text(row.fallback_after_s)}"
            self._shard.do(NotificationFellBack(incident.id, receiver, row.fallback, word, why), now)

    def stands_in(self, incident: Incident, receiver: str) -> bool:
        """Whether a receiver is the fallback of one whose notification was given up."""
        rows = self._shard.settings.receivers
        return any(
            each.given_up and (row := rows.get(name)) is not None and row.fallback == receiver
            for name, each in incident.notifications.items()
        )

    def _row(self, incident: Incident, receiver: str) -> ReceiverRow | None:
        """A receiver whose fallback has not heard of the incident, None for any other."""
        row = self._shard.settings.receivers.get(receiver)
        if row is None or not row.fallback or not self._audience.is_known(row.fallback):
            return None
        fallback = incident.notification_of(row.fallback)
        # One that was given up itself is no way out, and two that stand in for each other would go on for ever.
        hears = _is_owed(fallback) or fallback.given_up or (fallback.told and fallback.sure == FIRING)
        return None if hears else row


def _is_owed(notification: Notification) -> bool:
    return notification.reason is not None or bool(notification.withheld)
