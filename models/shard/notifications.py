"""The first response: notifications to a receiver, one of an incident at a time. A pending notification is part of the
incident's state (incident.Notification): created by an event, sent by effect Act, retried until an event says that it
was accepted or given up. models/incidents/notification.py has its facts, its key and the times between tries.

Two notifications of an incident are at least `notify.interval` apart, unless it gets more severe. So a resolve waits,
and if the incident continues meanwhile both are dropped: what the receiver knows is still true. `notification.sure` is what
it knows, "" if unknown because a failed attempt may have arrived; then the truth is sent.

One that flaps (models/shard/flapping.py) is sent once, until it is quiet. What a component withholds (a silence, for one) is sent
when nothing withholds it any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from models.incidents.incident import AUTOMATED, Incident, IncidentState, Severity
from models.incidents.lines import Description, touched
from models.incidents.notification import (
    FIRING,
    RESOLVED,
    idempotency_key,
    retry_at,
)
from models.shard import clock, notification_lines
from models.shard.changes import (
    Judged,
    Merging,
    Moved,
    Muted,
    Paid,
    SplitOff,
    Unattended,
    Unmerged,
    Unmuted,
)
from models.shard.component import Component, on
from models.shard.core import Core
from models.shard.effects import Act, Effect
from models.shard.events import (
    ActionFailed,
    ActionSucceeded,
    ClockSetBack,
    IncidentStateChanged,
    NotificationDropped,
    NotificationOwed,
    NotificationWithheld,
)
from models.shard.flapping import FLAPS, flaps, may_tell_at, quiet_needed_s
from models.shard.messages import ActionOutcome, Done, Reply, Tick
from models.shard.notification_facts import act
from models.shard.states import is_begun_by_alerts

OPENED, REOPENED = "opened", "reopened"
SEVERITY_CHANGED = "severity changed"
FLAPPING, FLAPPING_ENDED = "flapping", "flapping ended"
UNHEARD = "resolved before anyone was notified"
GOES_ON = "reopened before `resolved` was sent"
OFF = "notifications are off"
KNOWN = "known already"
ENDED_AGAIN = "resolved again before `reopened` was sent"
#: An incident that was not classified for this long is notified anyway. Ten times what a flood of 20,000 new incidents
#: takes; a P0 is classified within milliseconds.
CLASSIFY_PATIENCE_S = 5.0
#: What an incident counts as meanwhile: better one page too many than a silent outage.
UNJUDGED_AS = Severity.P1


class Notifications(Component):
    name = "notifications"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        #: Incidents whose last notification was given up.
        self.given_up: dict[bytes, None] = {}
        #: Incidents whose notification is due and was not requested yet.
        self._ready: dict[bytes, None] = {}
        #: The attempts that this process requested from the responder.
        self._asked: dict[bytes, tuple[int, int]] = {}
        #: Attempts that may have been requested before, with unknown results.
        self._asked_before: dict[bytes, tuple[int, int]] = {}
        #: Incidents whose notification is due and is not asked for: a component withholds it (Component.withholds).
        self._held: dict[bytes, None] = {}

    # -- what becomes of incidents ---------------------------------------------------------------------------

    def _moved(self, change: Moved, now: float) -> None:
        if change.ends:
            self.owe_resolved(change.incident, now)
        elif change.reopens:
            self._owe_after_wait(change.incident, REOPENED, now)

    def _judged(self, change: Judged, now: float) -> None:
        incident = change.incident
        if incident.notification.number == 0:
            self._owe_after_wait(incident, OPENED, now)
        elif incident.severity < change.before:
            self.owe(incident, SEVERITY_CHANGED, now, now)

    def _is_split_off(self, change: SplitOff, now: float) -> None:
        self._owe_after_wait(change.incident, OPENED, now)

    def _unmerged(self, change: Unmerged, now: float) -> None:
        incident = change.incident
        if incident.is_open:
            reason = "unmerged" if incident.notification.told else OPENED
            self._owe_after_wait(incident, reason, now)

    def _unattended(self, change: Unattended, now: float) -> None:
        self.owe(change.incident, "acknowledgement expired", now, now)

    def _merging(self, change: Merging, now: float) -> None:
        notification = change.incident.notification
        # `resolved` is sent anyway: a receiver that got `opened` must not wait for it forever.
        if notification.reason not in (None, RESOLVED) and notification.due_at > now:
            self._drop(change.incident, "merged into another incident", now)

    def _muted(self, change: Muted, now: float) -> None:
        """What is owed waits. What is under way is not called back."""
        incident = change.incident
        notification = incident.notification
        if notification.reason not in (None, RESOLVED) and not self._has_begun(incident, now):
            why = self.shard.withholds(incident)
            if why:
                self._withhold(incident, notification.reason or "", why, now)

    def _unmuted(self, change: Unmuted, now: float) -> None:
        """What was held back is told now, if it is still to be told."""
        incident = change.incident
        notification = incident.notification
        if not notification.withheld:
            return
        if incident.is_open:
            self.owe(incident, notification.withheld, now, now)
        if notification.withheld and not self._has_begun(incident, now):
            self._drop(incident, KNOWN if incident.is_open else UNHEARD, now)

    def _withhold(self, incident: Incident, reason: str, why: str, now: float) -> None:
        """Nobody is told of it now; `reason` is what will be told when nothing speaks against it any more."""
        notification = incident.notification
        if reason in (FLAPPING, FLAPPING_ENDED):
            reason = REOPENED
        if not notification.told and reason in (REOPENED, SEVERITY_CHANGED):
            reason = OPENED
        is_said = notification.withheld in (reason, OPENED, REOPENED)
        if not is_said or notification.reason not in (None, RESOLVED):
            self.shard.do(NotificationWithheld(incident.id, reason, why), now)

    def _owe_after_wait(self, incident: Incident, reason: str, now: float) -> None:
        self.owe(incident, reason, now, now + self.shard.settings.wait_s[incident.severity])

    def _drop(self, incident: Incident, why: str, now: float) -> None:
        self.shard.do(NotificationDropped(incident.id, incident.notification.number, why), now)
        self.shard.report(Paid(incident), now)

    # -- time and debts --------------------------------------------------------------------------------------

    def next_at(self, incident: Incident) -> float:
        notification = incident.notification
        if notification.reason is not None:
            is_asked = self._asked.get(incident.id) == (notification.number, notification.attempt)
            is_ready = incident.id in self._ready or incident.id in self._held
            return 0.0 if is_asked or is_ready else notification.due_at
        if (
            incident.state is IncidentState.DETECTED
            and not notification.number
            and self.shard.settings.notify
            and not incident.merged_into
        ):
            return incident.created_at + CLASSIFY_PATIENCE_S
        return 0.0

    def tick(self, tick: Tick, now: float) -> None:
        """What is held back is looked at again."""
        held, self._held = self._held, {}
        for identity in held:
            incident = self.state.incidents[identity]
            notification, why = incident.notification, self.shard.withholds(incident)
            if why and notification.reason not in (None, RESOLVED) and not self._may_have_begun(incident):
                self._withhold(incident, notification.reason or "", why, now)
            else:
                self._ready[identity] = None

    def due(self, incident: Incident, now: float) -> None:
        if incident.notification.reason is not None:
            self._ready[incident.id] = None
        else:
            # A classifier that is down must not prevent notifications.
            self.owe(incident, OPENED, now, now + self.shard.settings.wait_s[UNJUDGED_AS])

    def owed(self, now: float) -> Iterable[Effect]:
        # Asked after each message, and nearly always for nothing.
        return self._ready_now(now) if self._ready else ()

    def _ready_now(self, now: float) -> Iterator[Effect]:
        for identity in self._ready:
            incident = self.state.incidents.get(identity)
            if incident is None or incident.notification.reason is None:
                continue
            if incident.notification.due_at > now:
                self.state.stirred[identity] = None
                continue
            if self._must_wait(incident):
                self._held[identity] = None
                continue
            wanted = (incident.notification.number, incident.notification.attempt)
            if self._asked.get(identity) != wanted:
                self._asked[identity] = wanted
                yield act(self.shard, incident)
        self._ready.clear()

    def _must_wait(self, incident: Incident) -> bool:
        """Whether what is due is withheld. An attempt that may have been requested before is requested again all the same, and at
        once: one still in flight is joined by its key, and one that arrived must be followed by its end."""
        if incident.notification.reason == RESOLVED or self._is_in_doubt(incident):
            return False
        return self.shard.withholds(incident) is not None

    def ask_again(self, effect: Act) -> None:
        identity = effect.incident_id
        if identity in self.state.incidents and (asked := self._asked.pop(identity, None)) is not None:
            self._asked_before[identity] = asked
            self._ready[identity] = None

    def owes(self, incident: Incident) -> bool:
        return incident.notification.reason is not None

    def started(self, now: float, is_set_back: bool) -> None:
        self._asked.clear()
        self._held.clear()
        for incident in self.state.incidents.values():
            self._start_one(incident, now, is_set_back)
            notification = incident.notification
            if notification.reason is not None and notification.due_at <= now:
                self._ready[incident.id] = None

    def came(self, incident: Incident) -> None:
        if incident.notification.given_up:
            self.given_up[incident.id] = None

    def left(self, incident: Incident) -> None:
        self.given_up.pop(incident.id, None)
        self._asked.pop(incident.id, None)
        self._held.pop(incident.id, None)

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        notification = incident.notification
        if (
            notification.due_at <= event.before
            or notification.attempt
            or notification.owed_since > event.after
        ):
            notification.due_at = clock.due(notification.due_at, event)
        notification.owed_since = clock.then(notification.owed_since, event)
        notification.heard_at = clock.then(notification.heard_at, event)
        notification.reopenings = [clock.then(at, event) for at in notification.reopenings]

    # -- deciding --------------------------------------------------------------------------------------------

    def owe(self, incident: Incident, reason: str, now: float, due_at: float) -> None:
        """Queue a notification of an open incident. One not yet sent absorbs later reasons; one in flight delays them,
        so that a receiver gets them in order. Children send none: their parent does."""
        if not self.shard.settings.notify:
            return
        notification = incident.notification
        if incident.merged_into:
            if notification.reason == RESOLVED and not self._has_begun(incident, now):
                self._drop(incident, GOES_ON, now)
            return
        if self._has_begun(incident, now):
            self.shard.do(
                NotificationOwed(incident.id, notification.number, reason, due_at, queued=True), now
            )
            return
        is_believed = reason in (OPENED, REOPENED) and notification.sure == FIRING
        why = self.shard.withholds(incident)
        if why and not is_believed:
            self._withhold(incident, reason, why, now)
            return
        earliest = may_tell_at(incident, self.shard.settings, now)
        if reason == REOPENED and not why and flaps(incident, self.shard.settings, now):
            if notification.flapping:
                quiet_s = quiet_needed_s(incident, self.shard.settings)
                self._put(incident, FLAPPING_ENDED, now, max(earliest, now + quiet_s))
            else:
                self._put(incident, FLAPPING, now, max(earliest, now))
            return
        if is_believed:
            if notification.reason == RESOLVED:
                self._drop(incident, GOES_ON, now)
            return
        is_rise = reason == SEVERITY_CHANGED
        if not notification.told and reason in (REOPENED, SEVERITY_CHANGED):
            reason = OPENED
        due_at = now if is_rise else max(due_at, earliest)
        if notification.reason in (None, RESOLVED, FLAPPING_ENDED) or (is_rise and notification.attempt):
            self._put(incident, reason, now, due_at)
        elif due_at < notification.due_at and not notification.attempt:
            self._put(incident, notification.reason or reason, now, due_at)

    def owe_resolved(self, incident: Incident, now: float) -> None:
        """A receiver that may have been notified of the incident gets `resolved`, even of a child; one that was not
        gets nothing."""
        if not self.shard.settings.notify:
            return
        notification = incident.notification
        if self._has_begun(incident, now):
            self.shard.do(NotificationOwed(incident.id, notification.number, RESOLVED, now, queued=True), now)
        elif notification.told and notification.sure != RESOLVED:
            due_at = max(now, may_tell_at(incident, self.shard.settings, now))
            is_said = incident.resolution is not None and incident.resolution.method != AUTOMATED
            if flaps(incident, self.shard.settings, now) and not is_said:
                due_at = max(due_at, now + quiet_needed_s(incident, self.shard.settings))
            self._put(incident, RESOLVED, now, due_at)
        elif notification.reason is not None or notification.withheld:
            self._drop(incident, ENDED_AGAIN if notification.told else UNHEARD, now)

    def _start_one(self, incident: Incident, now: float, is_set_back: bool) -> None:
        """A shard starts. With notifications off nothing stays pending, or the start that turns them on would send a
        pile of old pages. That start sends `resolved` for what receivers know of, and the open P0 and P1 that nobody
        was notified of and nobody is on: they opened in between, or were given up."""
        notification, handling = incident.notification, incident.handling
        if not self.shard.settings.notify:
            if notification.reason is not None:
                self._drop(incident, OFF, now)
        elif notification.reason is not None:
            if is_set_back and notification.due_at > now:
                self.shard.do(
                    NotificationOwed(incident.id, notification.number, notification.reason, now), now
                )
            if notification.due_at <= now:
                self._asked_before[incident.id] = notification.number, notification.attempt
        elif not incident.is_open:
            # Sent by a version that did not keep `heard_at`: it is unknown whether `resolved` was sent too.
            if notification.heard_at:
                self.owe_resolved(incident, now)
        elif incident.state is not IncidentState.DETECTED and incident.severity <= Severity.P1:
            is_attended = incident.assignees or (handling is not None and handling.acknowledged is not None)
            if not is_attended and (not notification.told or notification.sure == RESOLVED):
                self.owe(incident, REOPENED, now, now + self.shard.settings.wait_s[incident.severity])

    def _outcome(self, said: ActionOutcome, now: float) -> Reply:
        """The outcome of an attempt. That of an earlier one is ignored."""
        incident = self.state.incidents.get(said.incident_id)
        if incident is None:
            return Done()
        notification, settings = incident.notification, self.shard.settings
        if notification.reason is None or (said.number, said.attempt) != (
            notification.number,
            notification.attempt,
        ):
            return Done()
        queued, number, attempt, reason = (
            notification.queued,
            notification.number,
            notification.attempt,
            notification.reason,
        )
        again_at = 0.0
        # Muted meanwhile, it is not tried again.
        is_held = not said.ok and reason != RESOLVED and bool(self.shard.withholds(incident))
        # An earlier request may have arrived, whatever the result of this one.
        is_again = self._asked_before.pop(incident.id, None) == (number, attempt)
        if said.ok:
            self.shard.do(ActionSucceeded(incident.id, number, attempt, reason, said.detail), now)
        else:
            # Not by a clock that may be the one that is ahead.
            too_long = (
                now - notification.owed_since > settings.give_up_after_s
                and now >= self.state.no_expiry_before
            )
            if not (said.final or too_long or queued or is_held):
                key = idempotency_key(incident.id, number, attempt)
                first_s, most_s = settings.retry_first_s, settings.retry_max_s
                again_at = retry_at(attempt + 1, now, first_s, most_s, key, at_least_s=said.retry_after_s)
            overtaken = queued is not None or is_held
            failed = ActionFailed(
                incident.id,
                number,
                attempt,
                reason,
                said.detail,
                again_at,
                said.reached or is_again,
                overtaken,
            )
            self.shard.do(failed, now)
        if not again_at:
            self.shard.report(Paid(incident), now)
            self._follow_up(incident, queued or (reason if is_held else None), now)
        return Done()

    def _follow_up(self, incident: Incident, queued: str | None, now: float) -> None:
        """A notification is done: what was queued behind it is now pending, if still worth sending; and so is the end
        of flapping."""
        notification = incident.notification
        if not incident.is_open:
            if queued and not notification.told:
                self._drop(incident, UNHEARD, now)
            elif queued:
                self.owe_resolved(incident, now)
            return
        if queued:
            self.owe(incident, queued, now, now)
        if notification.flapping and notification.reason is None and not notification.given_up:
            # As if it had just begun again: quiet is waited for from here on.
            self.owe(incident, REOPENED, now, now)

    def _put(self, incident: Incident, reason: str, now: float, due_at: float) -> None:
        """Queue a notification, replacing one not yet sent. One that was tried keeps its number."""
        notification = incident.notification
        is_new = notification.reason is None or notification.attempt > 0
        self.shard.do(NotificationOwed(incident.id, notification.number + is_new, reason, due_at), now)

    def _has_begun(self, incident: Incident, now: float) -> bool:
        """Whether an attempt at the notification may be in flight. One that is due in this very step was not requested
        yet."""
        notification = incident.notification
        if notification.reason is None or notification.due_at > now:
            return False
        return self._may_have_begun(incident) or (notification.due_at < now and incident.id not in self._held)

    def _may_have_begun(self, incident: Incident) -> bool:
        """Whether the responder was asked for the try that is owed, by this process or one before it."""
        return incident.id in self._asked or self._is_in_doubt(incident)

    def _is_in_doubt(self, incident: Incident) -> bool:
        """Whether a process before this one may have asked for the very try that is owed."""
        notification = incident.notification
        return self._asked_before.get(incident.id) == (notification.number, notification.attempt)

    # -- live and in replay ----------------------------------------------------------------------------------

    def _fold_owed(self, event: NotificationOwed, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        notification = incident.notification
        if event.queued:
            notification.queued = event.reason
            return
        if event.number != notification.number:
            notification.number = event.number
            notification.attempt = 0
            notification.queued = None
        notification.reason, notification.withheld = event.reason, ""
        notification.due_at = notification.owed_since = event.due_at
        if event.due_at <= now:
            self._ready[incident.id] = None

    def _fold_dropped(self, event: NotificationDropped, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        notification = incident.notification
        notification.reason = notification.queued = None
        notification.withheld = ""
        self._asked.pop(incident.id, None)

    def _fold_withheld(self, event: NotificationWithheld, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        notification = incident.notification
        notification.withheld = event.reason
        if notification.reason != RESOLVED:
            notification.reason = notification.queued = None
            self._asked.pop(incident.id, None)

    def _fold_failed(self, event: ActionFailed, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        notification = incident.notification
        _heard(incident, event, now)
        if event.retry_at:
            notification.attempt = event.attempt + 1
            notification.due_at = event.retry_at
        else:
            notification.reason = notification.queued = None
            if not event.overtaken:
                notification.given_up = True
                self.given_up[incident.id] = None
            incident.updated_at = now
        self._asked.pop(incident.id, None)

    def _fold_succeeded(self, event: ActionSucceeded, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        notification = incident.notification
        _heard(incident, event, now)
        notification.reason = notification.queued = None
        notification.given_up = False
        self.given_up.pop(incident.id, None)
        self._asked.pop(incident.id, None)
        incident.updated_at = now

    def _fold_state(self, event: IncidentStateChanged, now: float) -> None:
        if is_begun_by_alerts(event):
            # The last FLAPS times are kept.
            notification = self.state.incidents[event.incident_id].notification
            notification.reopenings = [*notification.reopenings, now][-FLAPS:]

    messages = {ActionOutcome: _outcome}
    reactions = {
        Moved: _moved,
        Judged: _judged,
        SplitOff: _is_split_off,
        Unmerged: _unmerged,
        Unattended: _unattended,
        Merging: _merging,
        Muted: _muted,
        Unmuted: _unmuted,
    }
    effects = (Act,)
    follows = {IncidentStateChanged: _fold_state}
    events = (
        on(NotificationOwed, _fold_owed),
        on(
            NotificationDropped,
            _fold_dropped,
            Description(("NotificationDropped",), notification_lines.dropped),
        ),
        on(
            NotificationWithheld,
            _fold_withheld,
            Description(("NotificationWithheld",), notification_lines.withheld),
        ),
        on(
            ActionSucceeded,
            _fold_succeeded,
            Description(("NotificationSent",), notification_lines.sent, summary=touched),
        ),
        on(
            ActionFailed,
            _fold_failed,
            Description(
                ("NotificationFailed",),
                notification_lines.failed,
                notification_lines.failed_of,
                notification_lines.failed_summary,
            ),
        ),
    )


def _heard(incident: Incident, event: ActionSucceeded | ActionFailed, now: float) -> None:
    """What the receiver knows after an attempt."""
    if isinstance(event, ActionFailed) and not event.reached:
        return
    notification = incident.notification
    says = RESOLVED if event.reason == RESOLVED else FIRING
    notification.told = True
    notification.heard_at = now
    if isinstance(event, ActionSucceeded):
        notification.sure = says
    elif notification.sure != says:
        notification.sure = ""
    if event.reason == FLAPPING:
        notification.flapping = True
    elif notification.flapping and event.reason in (RESOLVED, FLAPPING_ENDED):
        notification.flapping = False
        notification.reopenings = []
