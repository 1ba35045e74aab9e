"""What a notification says of an incident: its facts, of the alerts that are not muted. Used by models/shard/notifications.py."""

from __future__ import annotations

from array import array
from heapq import nsmallest
from itertools import chain

from models.alerts.series import FIRING, SeriesTable
from models.alerts.view import alert_view
from models.incidents.incident import Incident
from models.incidents.notification import RESOLVED, Common, common_of, facts_of, idempotency_key
from models.shard.core import Core
from models.shard.effects import Act
from models.shard.mutes import Mutes
from models.shard.sharing import Sharing

#: The only receiver, and the action that notifies it.
WEBHOOK = "webhook"


def act(shard: Core, incident: Incident) -> Act:
    """The effect that sends an incident's pending notification."""
    notification, most = incident.notification, shard.settings.receivers[WEBHOOK].max_alerts
    series, numbers = shard.state.series, shard.state.members[incident.id]
    muted = shard.of(Mutes).muted.of(incident.id)
    if muted and notification.reason != RESOLVED:
        # What is muted is no reason to notify anybody, and is left out. Whoever may have heard of it before is told of its end.
        numbers = array("I", [number for number in numbers if number not in muted])
    # Chosen before the list is cut: an incident that outlived a hundred pods still shows those that fire.
    shown = nsmallest(most, numbers, key=lambda number: _place(series, number))
    facts = facts_of(
        incident,
        [alert_view(series, number) for number in shown],
        reason=notification.reason or "",
        max_alerts=most,
        total=len(numbers),
        common=_common(shard, incident),
    )
    key = idempotency_key(incident.id, notification.number, notification.attempt)
    return Act(
        incident.id,
        notification.number,
        notification.attempt,
        WEBHOOK,
        WEBHOOK,
        key,
        facts,
        incident.severity,
    )


def _common(shard: Core, incident: Incident) -> Common:
    """What all alerts of an incident have in common, including ended ones. Looked up only where it is not known."""
    series, numbers = shard.state.series, shard.state.members[incident.id]
    known = shard.of(Sharing).known(incident)
    if known is not None:
        numbers = array("I", [number for number in numbers if series.status[number] != FIRING])
    rest = ((content.labels, content.annotations) for content in map(series.content, numbers))
    return common_of(rest if known is None else chain([known], rest))


def _place(series: SeriesTable, number: int) -> tuple[bool, float, int]:
    """Its place among the alerts to show: firing ones first, oldest first, then the ended ones, newest first."""
    if series.status[number] == FIRING:
        return False, series.starts[number], number
    return True, -series.ends[number], number
