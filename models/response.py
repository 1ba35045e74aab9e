"""The first response: what a receiver is owed word of, one notice of an incident at a time. Called by models/shard.py.

A notice is a debt in the incident's state (incident.Notice): owed by an event, sent by effect Act, tried again until an
event says that it was taken or given up. models/notice.py has its body, its key and the times between tries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.alert_view import alert_view
from models.effects import Act
from models.events import ActionFailed, ActionSucceeded, NoticeDropped, NoticeOwed
from models.incident import Incident, Notice
from models.messages import ActionOutcome
from models.notice import idempotency_key, retry_at, webhook_body

if TYPE_CHECKING:
    from models.shard import Shard
    from models.shard_state import ShardState

ResponseEvent = NoticeOwed | NoticeDropped | ActionSucceeded | ActionFailed
SYSTEM = "system"


def owe(shard: Shard, incident: Incident, reason: str, now: float, due_at: float) -> None:
    """A notice is owed. One that has not begun says it all when its time comes; one under way is waited for, so that a
    receiver hears of things in their order. Of a part nobody is told: its whole says it."""
    if not shard.settings.notify or incident.merged_into:
        return
    notice = incident.notice
    if notice.reason is None:
        shard.do(NoticeOwed(incident.id, notice.number + 1, reason, due_at), now)
    elif notice.due_at <= now:
        shard.do(NoticeOwed(incident.id, notice.number, reason, due_at, queued=True), now)
    elif notice.reason == "resolved":
        # Its end was tried to be told and failed; whoever heard it all the same must hear that it goes on.
        shard.do(NoticeOwed(incident.id, notice.number + 1, reason, due_at), now)
    elif due_at < notice.due_at and notice.attempt == 0:
        shard.do(NoticeOwed(incident.id, notice.number, notice.reason, due_at), now)


def owe_resolved(shard: Shard, incident: Incident, now: float) -> None:
    """Who may have heard of the incident hears of its end, also of a part's; who has not is not disturbed."""
    if not shard.settings.notify:
        return
    notice = incident.notice
    if notice.reason is not None and notice.due_at <= now:
        shard.do(NoticeOwed(incident.id, notice.number, "resolved", now, queued=True), now)
    elif notice.told:
        shard.do(NoticeOwed(incident.id, notice.number + 1, "resolved", now), now)
    elif notice.reason is not None:
        shard.do(NoticeDropped(incident.id, notice.number, "resolved before anyone was told"), now)


def act(shard: ShardState, incident: Incident) -> Act:
    """The effect that sends the notice an incident owes."""
    notice, numbers, most = incident.notice, shard.members[incident.id], shard.settings.webhook_max_alerts
    body = webhook_body(
        incident,
        [alert_view(shard.series, number) for number in numbers[:most]],
        reason=notice.reason or "",
        max_alerts=most,
        external_url=shard.settings.external_url,
        total=len(numbers),
    )
    key = idempotency_key(incident.id, notice.number, notice.attempt)
    return Act(incident.id, notice.number, notice.attempt, "webhook", key, body, incident.severity)


def outcome(shard: Shard, said: ActionOutcome, now: float) -> None:
    """What came of a try. An outcome of an earlier one says nothing new."""
    incident = shard.incidents.get(said.incident_id)
    if incident is None:
        return
    notice, settings = incident.notice, shard.settings
    if notice.reason is None or (said.number, said.attempt) != (notice.number, notice.attempt):
        return
    queued, number, attempt = notice.queued, notice.number, notice.attempt
    if said.ok:
        shard.do(ActionSucceeded(incident.id, number, attempt, notice.reason, said.detail), now)
    else:
        again_at = 0.0
        # Not by a clock that may be the one that is ahead.
        too_long = now - notice.owed_since > settings.give_up_after_s and now >= shard.no_expiry_before
        if not (said.final or too_long or queued):
            key = idempotency_key(incident.id, number, attempt)
            first_s, most_s = settings.retry_first_s, settings.retry_max_s
            again_at = retry_at(attempt + 1, now, first_s, most_s, key, at_least_s=said.retry_after_s)
        shard.do(ActionFailed(incident.id, number, attempt, notice.reason, said.detail, again_at), now)
    if queued:
        shard.do(NoticeOwed(incident.id, number + 1, queued, now), now)


# -- live and in replay ------------------------------------------------------------------------------------------


def apply(shard: ShardState, event: ResponseEvent, now: float) -> None:
    """Fold one event into the incident it is about."""
    incident = shard.changing(event.incident_id)
    match event:
        case NoticeOwed():
            _owed(shard, incident, event, now)
        case NoticeDropped():
            incident.notice = Notice(number=incident.notice.number, told=incident.notice.told)
            shard.line(incident, now, "NotificationDropped", SYSTEM, event.why)
        case ActionFailed() if event.retry_at:
            incident.notice.told = True
            incident.notice.attempt = event.attempt + 1
            incident.notice.due_at = event.retry_at
            shard.notice_tried(incident)
            shard.notice_waits(incident, event.retry_at)
            if event.attempt == 0:
                text = f"{event.reason}: {event.detail}; will retry"
                shard.line(incident, now, "NotificationFailed", SYSTEM, text)
        case ActionSucceeded() | ActionFailed():
            incident.notice.told = True
            incident.notice.reason = incident.notice.queued = None
            shard.notice_tried(incident)
            incident.updated_at = now
            text = f"{event.reason}: {event.detail}"
            if isinstance(event, ActionSucceeded):
                shard.line(incident, now, "NotificationSent", SYSTEM, text)
            else:
                text += f"; given up after {event.attempt + 1} tries"
                shard.line(incident, now, "NotificationFailed", SYSTEM, text)


def _owed(shard: ShardState, incident: Incident, event: NoticeOwed, now: float) -> None:
    notice = incident.notice
    if event.queued:
        notice.queued = event.reason
        return
    if event.number != notice.number:
        notice.number = event.number
        notice.attempt = 0
        notice.owed_since = now
        notice.queued = None
    notice.reason = event.reason
    notice.due_at = event.due_at
    shard.notice_waits(incident, event.due_at)
