"""What a notification says of an incident: its facts, of the alerts that are not muted. Used by models/shard/notifications.py."""

from __future__ import annotations

from array import array
from heapq import nlargest, nsmallest
from itertools import chain

import msgspec

from models.alerts.series import FIRING, SeriesTable
from models.alerts.view import alert_view
from models.incidents.incident import Incident
from models.incidents.notification import RESOLVED, Common, Facts, common_of, facts_of, idempotency_key
from models.routes.route import ReceiverRow
from models.shard.core import Core
from models.shard.effects import Act
from models.shard.mutes import Mutes
from models.shard.relations import Relations
from models.shard.sharing import Sharing
from models.shard.telling import GREW

#: A receiver that the settings do not have any more: it may still hear of the end.
GONE = ReceiverRow()


def act(shard: Core, incident: Incident, receiver: str, seen: int) -> Act:
    """The effect that sends an incident's pending notification to a receiver; `seen` of its alerts are not muted."""
    notification, row = incident.notification_of(receiver), shard.settings.receivers.get(receiver, GONE)
    reason = notification.reason or ""
    new = max(0, seen - notification.seen) if reason == GREW and notification.seen >= 0 else 0
    said = facts(shard, incident, reason=reason, most=row.max_alerts, new=new)
    said = msgspec.structs.replace(said, receiver=receiver, ref=notification.ref)
    key = idempotency_key(incident.id, notification.number, notification.attempt, receiver)
    return Act(
        incident.id,
        notification.number,
        notification.attempt,
        row.type,
        receiver,
        key,
        said,
        incident.severity,
    )


def facts(shard: Core, incident: Incident, *, reason: str, most: int, new: int = 0) -> Facts:
    """What is said of an incident, with at most so many of its alerts; `new` of them joined since it was said last."""
    series, numbers = shard.state.series, shard.state.members[incident.id]
    muted = shard.of(Mutes).muted.of(incident.id)
    if muted and reason != RESOLVED:
        # What is muted is no reason to notify anybody, and is left out. Whoever may have heard of it before is told of its end.
        numbers = array("I", [number for number in numbers if number not in muted])
    # Chosen before the list is cut: an incident that outlived a hundred pods still shows those that fire.
    shown = nsmallest(most, numbers, key=lambda number: _place(series, number))
    if new and most < len(numbers):
        # What is new is what it is about.
        newest = nlargest(min(new, most), numbers, key=series.opened.__getitem__)
        shown = [*newest, *(number for number in shown if number not in newest)][:most]
    said = facts_of(
        incident,
        [alert_view(series, number) for number in shown],
        reason=reason,
        max_alerts=most,
        total=len(numbers),
        common=_common(shard, incident),
    )
    cause = shard.of(Relations).in_a_line(incident) if incident.is_open else ""
    return msgspec.structs.replace(said, title=shard.of(Sharing).title(incident), new=new, cause=cause)


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
