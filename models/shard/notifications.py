"""The first response: what a receiver is owed word of, one notice of an incident at a time. Called by models/shard/shard.py.

A notice is a debt in the incident's state (incident.Notice): owed by an event, sent by effect Act, tried again until an
event says that it was taken or given up. models/incidents/notification.py has its facts, its key and the times between tries.

Between two notices of an incident lies `notify.interval`, unless it gets more severe. So an end waits, and when the
incident goes on meanwhile both are dropped: the receiver believes what is true. `notice.sure` is what it believes, and
"" when nobody knows, because a try failed that may have reached it; then the truth is told.

An incident that begins again FLAPS times within FLAP_WINDOW intervals flaps. That is told once; its ends and beginnings
are not told any more, until it has been quiet for as long as those took. Then the truth is.
"""

from __future__ import annotations

from array import array
from heapq import nsmallest
from itertools import chain
from typing import TYPE_CHECKING

from models.alerts.series import FIRING as FIRES
from models.alerts.series import SeriesTable
from models.alerts.view import alert_view
from models.incidents.incident import AUTOMATED, Incident, IncidentState, Severity
from models.incidents.notification import (
    FIRING,
    RESOLVED,
    Common,
    common_of,
    facts_of,
    idempotency_key,
    retry_at,
)
from models.shard.effects import Act
from models.shard.events import ActionFailed, ActionSucceeded, NotificationDropped, NotificationOwed
from models.shard.messages import ActionOutcome

if TYPE_CHECKING:
    from models.shard.settings import ShardSettings
    from models.shard.shard import Shard
    from models.shard.state import ShardState

NotificationEvent = NotificationOwed | NotificationDropped | ActionSucceeded | ActionFailed
SYSTEM = "system"
#: The one receiver there is, and the action that it is told by.
WEBHOOK = "webhook"
OPENED, REOPENED = "opened", "reopened"
SEVERITY_CHANGED = "severity changed"
FLAPPING, FLAPPING_ENDED = "flapping", "flapping ended"
#: Reopenings that make it flap: one happens to every second incident, two are bad luck.
FLAPS = 3
#: In how many intervals: at a minute between two notices, every five minutes.
FLAP_WINDOW = 15
UNHEARD = "resolved before anyone was told"
GOES_ON = "goes on before anyone was told of its end"
OFF = "notifications are off"
ENDED_AGAIN = "ended again before anyone was told that it goes on"


def owe(shard: Shard, incident: Incident, reason: str, now: float, due_at: float) -> None:
    """A notice of an open incident is owed. One that has not begun says it all when its time comes; one under way is
    waited for, so that a receiver hears of things in their order. Of a part nobody is told: its whole says it."""
    if not shard.settings.notify:
        return
    notice = incident.notification
    if incident.merged_into:
        if notice.reason == RESOLVED and not _has_begun(shard, incident, now):
            shard.do(NotificationDropped(incident.id, notice.number, GOES_ON), now)
        return
    if _has_begun(shard, incident, now):
        shard.do(NotificationOwed(incident.id, notice.number, reason, due_at, queued=True), now)
        return
    earliest = _earliest(incident, shard.settings, now)
    if reason == REOPENED:
        if _flaps(incident, shard.settings, now):
            if notice.flapping:
                _put(
                    shard,
                    incident,
                    FLAPPING_ENDED,
                    now,
                    max(earliest, now + _quiet_s(incident, shard.settings)),
                )
            else:
                _put(shard, incident, FLAPPING, now, max(earliest, now))
            return
        if notice.sure == FIRING:
            if notice.reason == RESOLVED:
                shard.do(NotificationDropped(incident.id, notice.number, GOES_ON), now)
            return
    is_rise = reason == SEVERITY_CHANGED
    if not notice.told and reason in (REOPENED, SEVERITY_CHANGED):
        reason = OPENED
    due_at = now if is_rise else max(due_at, earliest)
    if notice.reason in (None, RESOLVED, FLAPPING_ENDED) or (is_rise and notice.attempt):
        _put(shard, incident, reason, now, due_at)
    elif due_at < notice.due_at and not notice.attempt:
        _put(shard, incident, notice.reason or reason, now, due_at)


def owe_resolved(shard: Shard, incident: Incident, now: float) -> None:
    """Who may have heard of the incident hears of its end, also of a part's; who has not is not disturbed."""
    if not shard.settings.notify:
        return
    notice = incident.notification
    if _has_begun(shard, incident, now):
        shard.do(NotificationOwed(incident.id, notice.number, RESOLVED, now, queued=True), now)
    elif notice.told and notice.sure != RESOLVED:
        due_at = max(now, _earliest(incident, shard.settings, now))
        is_said = incident.resolution is not None and incident.resolution.method != AUTOMATED
        if _flaps(incident, shard.settings, now) and not is_said:
            due_at = max(due_at, now + _quiet_s(incident, shard.settings))
        _put(shard, incident, RESOLVED, now, due_at)
    elif notice.reason is not None:
        shard.do(
            NotificationDropped(incident.id, notice.number, ENDED_AGAIN if notice.told else UNHEARD), now
        )


def started(shard: Shard, incident: Incident, now: float, is_set_back: bool) -> None:
    """A shard starts. With notifications off nothing stays owed: a pile of old pages would be sent by the start that
    switches them on. That one tells the end of what was heard of, and of what is still open the P0 and P1 that nobody
    was told of and nobody looks after: they opened meanwhile, or were given up."""
    notice, handling = incident.notification, incident.handling
    if not shard.settings.notify:
        if notice.reason is not None:
            shard.do(NotificationDropped(incident.id, notice.number, OFF), now)
    elif notice.reason is not None:
        if is_set_back and notice.due_at > now:
            shard.do(NotificationOwed(incident.id, notice.number, notice.reason, now), now)
        if notice.due_at <= now:
            shard.asked_before[incident.id] = notice.number, notice.attempt
    elif not incident.is_open:
        # Told by a version before `heard_at` was kept: nobody knows whether the end was told as well.
        if notice.heard_at:
            owe_resolved(shard, incident, now)
    elif incident.state is not IncidentState.DETECTED and incident.severity <= Severity.P1:
        is_attended = incident.assignees or (handling is not None and handling.acknowledged is not None)
        if not is_attended and (not notice.told or notice.sure == RESOLVED):
            owe(shard, incident, REOPENED, now, now + shard.settings.wait_s[incident.severity])


def act(shard: Shard, incident: Incident) -> Act:
    """The effect that sends the notice an incident owes."""
    notice, numbers, most = (
        incident.notification,
        shard.members[incident.id],
        shard.settings.webhook_max_alerts,
    )
    series = shard.series
    # Chosen before it is cut: an incident that outlived a hundred pods still tells of those that fire.
    shown = nsmallest(most, numbers, key=lambda number: _place(series, number))
    facts = facts_of(
        incident,
        [alert_view(series, number) for number in shown],
        reason=notice.reason or "",
        max_alerts=most,
        total=len(numbers),
        common=_common(shard, incident),
    )
    key = idempotency_key(incident.id, notice.number, notice.attempt)
    return Act(incident.id, notice.number, notice.attempt, WEBHOOK, WEBHOOK, key, facts, incident.severity)


def _common(shard: Shard, incident: Incident) -> Common:
    """What all alerts of an incident share, also those that ended. Looked up only for those of which it is not known."""
    series, numbers = shard.series, shard.members[incident.id]
    known = shard.sharing.known(incident)
    if known is not None:
        numbers = array("I", [number for number in numbers if series.status[number] != FIRES])
    rest = ((content.labels, content.annotations) for content in map(series.content, numbers))
    return common_of(rest if known is None else chain([known], rest))


def _place(series: SeriesTable, number: int) -> tuple[bool, float, int]:
    """Its place among the alerts to show: firing ones first, oldest first, then the ended ones, newest first."""
    if series.status[number] == FIRES:
        return False, series.starts[number], number
    return True, -series.ends[number], number


def outcome(shard: Shard, said: ActionOutcome, now: float) -> None:
    """What came of a try. An outcome of an earlier one says nothing new."""
    incident = shard.incidents.get(said.incident_id)
    if incident is None:
        return
    notice, settings = incident.notification, shard.settings
    if notice.reason is None or (said.number, said.attempt) != (notice.number, notice.attempt):
        return
    queued, number, attempt, reason = notice.queued, notice.number, notice.attempt, notice.reason
    again_at = 0.0
    # What was asked for before may have arrived then, whatever comes of it now.
    is_again = shard.asked_before.pop(incident.id, None) == (number, attempt)
    if said.ok:
        shard.do(ActionSucceeded(incident.id, number, attempt, reason, said.detail), now)
    else:
        # Not by a clock that may be the one that is ahead.
        too_long = now - notice.owed_since > settings.give_up_after_s and now >= shard.no_expiry_before
        if not (said.final or too_long or queued):
            key = idempotency_key(incident.id, number, attempt)
            first_s, most_s = settings.retry_first_s, settings.retry_max_s
            again_at = retry_at(attempt + 1, now, first_s, most_s, key, at_least_s=said.retry_after_s)
        overtaken = queued is not None
        failed = ActionFailed(
            incident.id, number, attempt, reason, said.detail, again_at, said.reached or is_again, overtaken
        )
        shard.do(failed, now)
    if not again_at:
        _follow_up(shard, incident, queued, now)


def _follow_up(shard: Shard, incident: Incident, queued: str | None, now: float) -> None:
    """A notice is over: what was queued behind it is owed, if it is still to be told; and the end of a flapping."""
    notice = incident.notification
    if not incident.is_open:
        if queued and not notice.told:
            shard.do(NotificationDropped(incident.id, notice.number, UNHEARD), now)
        elif queued:
            owe_resolved(shard, incident, now)
        return
    if queued:
        owe(shard, incident, queued, now, now)
    if notice.flapping and notice.reason is None and not notice.given_up:
        # As if it had just begun again: quiet is waited for from here on.
        owe(shard, incident, REOPENED, now, now)


def _put(shard: Shard, incident: Incident, reason: str, now: float, due_at: float) -> None:
    """Owe a notice, in the place of one that has not begun. What was tried once keeps its number for itself."""
    notice = incident.notification
    is_new = notice.reason is None or notice.attempt > 0
    shard.do(NotificationOwed(incident.id, notice.number + is_new, reason, due_at), now)


def _has_begun(shard: ShardState, incident: Incident, now: float) -> bool:
    """Whether a try of the notice may be under way. One that is due in this very step has not been asked for yet."""
    notice = incident.notification
    if notice.reason is None or notice.due_at > now:
        return False
    return notice.due_at < now or shard.is_asked(incident)


def _earliest(incident: Incident, settings: ShardSettings, now: float) -> float:
    """When the next notice may be sent that is not urgent: never later than an interval from now."""
    return min(now, incident.notification.heard_at) + settings.interval_s


def _flaps(incident: Incident, settings: ShardSettings, now: float) -> bool:
    notice = incident.notification
    if notice.flapping:
        return True
    begun = notice.reopenings
    return len(begun) == FLAPS and now - begun[0] < FLAP_WINDOW * settings.interval_s


def _quiet_s(incident: Incident, settings: ShardSettings) -> float:
    """How long a flapping incident must be quiet until it is believed."""
    begun = incident.notification.reopenings
    took_s = begun[-1] - begun[0] if begun else 0.0
    return max(settings.interval_s, min(took_s, FLAP_WINDOW * settings.interval_s))


# -- live and in replay ------------------------------------------------------------------------------------------


def apply(shard: ShardState, event: NotificationEvent, now: float) -> None:
    """Fold one event into the incident it is about."""
    incident = shard.changing(event.incident_id)
    notice = incident.notification
    match event:
        case NotificationOwed():
            _owed(shard, incident, event)
        case NotificationDropped():
            notice.reason = notice.queued = None
            shard.notice_tried(incident)
            shard.line(incident, now, "NotificationDropped", SYSTEM, event.why)
        case ActionFailed() if event.retry_at:
            _heard(incident, event, now)
            notice.attempt = event.attempt + 1
            notice.due_at = event.retry_at
            shard.notice_tried(incident)
            shard.notice_waits(incident, event.retry_at)
            if event.attempt == 0:
                text = f"{event.reason}: {event.detail}; {end_of(event)}"
                shard.line(incident, now, "NotificationFailed", SYSTEM, text)
        case ActionSucceeded() | ActionFailed():
            _heard(incident, event, now)
            notice.reason = notice.queued = None
            if isinstance(event, ActionSucceeded) or not event.overtaken:
                _given_up(shard, incident, isinstance(event, ActionFailed))
            shard.notice_tried(incident)
            incident.updated_at = now
            text = f"{event.reason}: {event.detail}"
            if isinstance(event, ActionSucceeded):
                shard.line(incident, now, "NotificationSent", SYSTEM, text)
            else:
                text += f"; {end_of(event)}"
                shard.line(incident, now, "NotificationFailed", SYSTEM, text)


def begun_again(incident: Incident, now: float) -> None:
    """An incident was opened again by its alerts: the last FLAPS times are kept."""
    notice = incident.notification
    notice.reopenings = [*notice.reopenings, now][-FLAPS:]


def end_of(failed: ActionFailed) -> str:
    """What becomes of a notice after a failed try, in words."""
    if failed.retry_at:
        return "will retry"
    if failed.overtaken:
        return "overtaken by what came next"
    return f"given up after {failed.attempt + 1} {'try' if failed.attempt == 0 else 'tries'}"


def _owed(shard: ShardState, incident: Incident, event: NotificationOwed) -> None:
    notice = incident.notification
    if event.queued:
        notice.queued = event.reason
        return
    if event.number != notice.number:
        notice.number = event.number
        notice.attempt = 0
        notice.queued = None
    notice.reason = event.reason
    notice.due_at = notice.owed_since = event.due_at
    shard.notice_waits(incident, event.due_at)


def _heard(incident: Incident, event: ActionSucceeded | ActionFailed, now: float) -> None:
    """What the receiver believes after a try."""
    if isinstance(event, ActionFailed) and not event.reached:
        return
    notice = incident.notification
    says = RESOLVED if event.reason == RESOLVED else FIRING
    notice.told = True
    notice.heard_at = now
    if isinstance(event, ActionSucceeded):
        notice.sure = says
    elif notice.sure != says:
        notice.sure = ""
    if event.reason == FLAPPING:
        notice.flapping = True
    elif notice.flapping and event.reason in (RESOLVED, FLAPPING_ENDED):
        notice.flapping = False
        notice.reopenings = []


def _given_up(shard: ShardState, incident: Incident, is_given_up: bool) -> None:
    incident.notification.given_up = is_given_up
    if is_given_up:
        shard.given_up[incident.id] = None
    else:
        shard.given_up.pop(incident.id, None)
