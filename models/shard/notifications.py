"""The first response: notifications of an incident to its receivers. Which receivers those are, the tree of routes says
(models/shard/audience.py) whenever something is to be told; what each of them is told and when is decided for each by itself
(models/shard/telling.py). Here: what happens to incidents, outcomes, time, and how the events are folded.

To a receiver one notification of an incident is under way at a time. A pending notification is part of the
incident's state (incident.Notification): created by an event, sent by effect Act, retried until an event says that it
was accepted or given up. models/incidents/notification.py has its facts, its key and the times between tries.

Once told of an incident, a receiver goes on hearing of it, whatever routes say by then: that it gets more severe, that it grew,
that it is over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from models.errors import Conflict, Malformed
from models.incidents.incident import Incident, IncidentState, Notification, Severity
from models.incidents.lines import Description, touched
from models.incidents.notification import FIRING, RESOLVED, idempotency_key, retry_at
from models.incidents.verbs import Resend
from models.routes.choice import Choice, reason_of
from models.routes.route import Route
from models.shard import clock, notification_lines
from models.shard.audience import UNJUDGED_AS, Audience
from models.shard.changes import (
    Escalated,
    Judged,
    Merging,
    Moved,
    Muted,
    Overdue,
    Paid,
    Relabelled,
    SplitOff,
    ToldByRun,
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
    NotificationDiscarded,
    NotificationDropped,
    NotificationFellBack,
    NotificationOwed,
    NotificationWithheld,
)
from models.shard.fallback import Fallback
from models.shard.flapping import FLAPS
from models.shard.messages import ActionOutcome, Command, Done, Reply, Tick
from models.shard.notification_facts import act
from models.shard.states import is_begun_by_alerts
from models.shard.telling import (
    ATTENDED,
    BY_PLAYBOOK,
    ELSEWHERE,
    ESCALATED,
    ESCALATIONS,
    FLAPPING,
    FLAPPING_ENDED,
    FOR_NOBODY_ON_IT,
    KNOWN,
    OPENED,
    REOPENED,
    SENT_AGAIN,
    SEVERITY_CHANGED,
    UNHEARD,
    Ear,
    Telling,
    Try,
)

OFF = "notifications are off"
#: An incident that was not classified for this long is notified anyway. Ten times what a flood of 20,000 new incidents
#: takes; a P0 is classified within milliseconds.
CLASSIFY_PATIENCE_S = 5.0


class Notifications(Component):
    name = "notifications"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        #: Incidents of which a receiver's last notification was given up.
        self.given_up: dict[bytes, None] = {}
        #: Incidents that a route discarded since they were counted last, by route. In memory only: for metrics.
        self.discards: Counter[str] = Counter()
        self.audience = Audience(shard)
        self.telling = Telling(shard, self.audience)
        self.fallback = Fallback(shard, self.telling, self.audience)

    # -- what becomes of incidents ---------------------------------------------------------------------------

    def _moved(self, change: Moved, now: float) -> None:
        incident = change.incident
        if change.ends:
            for receiver in [*incident.notifications]:
                self.telling.owe_resolved(incident, receiver, now)
        elif change.reopens:
            self._tell(incident, REOPENED, now, waits=True)

    def _judged(self, change: Judged, now: float) -> None:
        incident = change.incident
        is_worse = incident.severity < change.before
        for receiver, route in self._told(incident, now).items():
            if incident.notification_of(receiver).number == 0:
                self._owe_after_wait(incident, receiver, OPENED, now, route)
            elif is_worse:
                self.telling.owe(incident, receiver, SEVERITY_CHANGED, now, now, route)

    def _is_split_off(self, change: SplitOff, now: float) -> None:
        self._tell(change.incident, OPENED, now, waits=True)

    def _unmerged(self, change: Unmerged, now: float) -> None:
        incident = change.incident
        if incident.is_open:
            for receiver, route in self._told(incident, now).items():
                reason = "unmerged" if incident.notification_of(receiver).told else OPENED
                self._owe_after_wait(incident, receiver, reason, now, route)

    def _relabelled(self, change: Relabelled, now: float) -> None:
        """Routes may choose others now: an incident that was discarded by a label is told of when an alert joins that has not
        got it. Nothing is done before the first routing."""
        incident = change.incident
        if not incident.is_open or not (incident.notifications or incident.discarded):
            return
        for receiver, route in self._told(incident, now).items():
            known = incident.notification_of(receiver)
            is_quiet = known.reason is None and not known.withheld and not known.given_up
            if route is not None and is_quiet and (not known.told or known.sure == RESOLVED):
                self._owe_after_wait(incident, receiver, REOPENED if known.told else OPENED, now, route)

    def _unattended(self, change: Unattended, now: float) -> None:
        self._tell(change.incident, "acknowledgement expired", now)

    def _overdue(self, change: Overdue, now: float) -> None:
        """Nobody acknowledged it in time: whom its routes escalate to is told as well."""
        incident = change.incident
        if self.shard.settings.notify:
            for chosen in self.audience.escalated(incident):
                self.telling.owe(incident, chosen.receiver, ESCALATED, now, now, chosen.route)

    def _escalated(self, change: Escalated, now: float) -> None:
        incident = change.incident
        if incident.counts_as_open:
            for chosen in self.audience.of(incident).escalations:
                self.telling.owe(incident, chosen.receiver, BY_PLAYBOOK, now, now, chosen.route)

    def _told_by_run(self, change: ToldByRun, now: float) -> None:
        self.telling.owe_end(change.incident, change.receiver, change.at, change.ref, now)

    def _merging(self, change: Merging, now: float) -> None:
        incident = change.incident
        for receiver, notification in [*incident.notifications.items()]:
            # `resolved` is sent anyway: a receiver that got `opened` must not wait for it forever.
            if notification.reason not in (None, RESOLVED) and notification.due_at > now:
                self.telling.drop(incident, receiver, "merged into another incident", now)

    def _muted(self, change: Muted, now: float) -> None:
        """What is owed waits. What is under way is not called back."""
        incident = change.incident
        for receiver, notification in [*incident.notifications.items()]:
            if notification.reason not in (None, RESOLVED) and not self.telling.has_begun(
                incident, receiver, now
            ):
                why = self.shard.withholds(incident)
                if why:
                    self.telling.withhold(incident, receiver, notification.reason or "", why, now)

    def _unmuted(self, change: Unmuted, now: float) -> None:
        """What was held back is told now, if it is still to be told, to whom routes choose now."""
        incident = change.incident
        if self.shard.withholds(incident):
            return  # something else mutes it, and says so when it does no more
        held_back = [name for name, each in incident.notifications.items() if each.withheld]
        if not held_back:
            return
        told = self._told(incident, now) if incident.is_open else {}
        late = {chosen.receiver for chosen in self.audience.escalated(incident)}
        for receiver in {**dict.fromkeys(held_back), **told}:
            notification = incident.notification_of(receiver)
            reason = notification.withheld or OPENED
            is_on_it = reason in FOR_NOBODY_ON_IT and incident.is_attended
            # An escalation is not chosen by a route, but by what did not happen.
            is_told = receiver in late if reason == ESCALATED else receiver in told or reason == BY_PLAYBOOK
            is_told = is_told or self.fallback.stands_in(incident, receiver)
            if incident.is_open and is_told and not is_on_it:
                self.telling.owe(incident, receiver, reason, now, now, told.get(receiver))
            if incident.notification_of(receiver).withheld and not self.telling.has_begun(
                incident, receiver, now
            ):
                why = ATTENDED if is_on_it else KNOWN if is_told else ELSEWHERE
                why = why if incident.is_open else UNHEARD
                self.telling.drop(incident, receiver, why, now)

    # -- who is told -----------------------------------------------------------------------------------------

    def _tell(self, incident: Incident, reason: str, now: float, *, waits: bool = False) -> None:
        """Queue a notification for everybody who is told of it."""
        for receiver, route in self._told(incident, now).items():
            if waits:
                self._owe_after_wait(incident, receiver, reason, now, route)
            else:
                self.telling.owe(incident, receiver, reason, now, now, route)

    def _told(self, incident: Incident, now: float) -> dict[str, Route | None]:
        """Who is told of what happens to an open incident: whom routes choose as it is now, each with that route, and who was told
        of it before. Says so when a route discards it. A child's receivers only."""
        if not self.shard.settings.notify:
            return {}
        choice = Choice() if incident.merged_into else self.audience.of(incident)
        told: dict[str, Route | None] = {chosen.receiver: chosen.route for chosen in choice.told}
        for receiver, notification in incident.notifications.items():
            if notification.reason is not None or (notification.told and notification.sure != RESOLVED):
                told.setdefault(receiver, None)
        by = choice.discarded
        if not told and by is not None and incident.discarded != by.name:
            self.shard.do(NotificationDiscarded(incident.id, by.name, reason_of(by)), now)
            self.discards[by.name] += 1
        return told

    def _owe_after_wait(
        self,
        incident: Incident,
        receiver: str,
        reason: str,
        now: float,
        route: Route | None,
        severity: Severity | None = None,
    ) -> None:
        by = route or self.audience.route_of(incident.notification_of(receiver))
        wait_s = self.audience.wait_s(by, incident.severity if severity is None else severity)
        self.telling.owe(incident, receiver, reason, now, now + wait_s, route)

    # -- time and debts --------------------------------------------------------------------------------------

    def next_at(self, incident: Incident) -> float:
        first = 0.0
        for receiver, notification in incident.notifications.items():
            at = self.telling.next_at(incident, receiver, notification)
            if at and (not first or at < first):
                first = at
        return first or self._patient_until(incident)

    def _patient_until(self, incident: Incident) -> float:
        """Until when an incident that nobody was to be told of yet waits for its classification, 0 for one that does not."""
        if (
            incident.state is IncidentState.DETECTED
            and not incident.notifications
            and not incident.discarded
            and self.shard.settings.notify
            and not incident.merged_into
        ):
            return incident.created_at + CLASSIFY_PATIENCE_S
        return 0.0

    def tick(self, tick: Tick, now: float) -> None:
        """What is held back is looked at again."""
        held, self.telling.held = self.telling.held, {}
        for ear in held:
            incident = self.state.incidents[ear.incident_id]
            notification, why = incident.notification_of(ear.receiver), self.shard.withholds(incident)
            if (
                why
                and notification.reason not in (None, RESOLVED)
                and not self.telling.may_have_begun(incident, ear.receiver)
            ):
                self.telling.withhold(incident, ear.receiver, notification.reason or "", why, now)
            else:
                self.telling.ready[ear] = None

    def due(self, incident: Incident, now: float) -> None:
        if 0 < self._patient_until(incident) <= now:
            # A classifier that is down must not prevent notifications.
            for receiver, route in self._told(incident, now).items():
                self._owe_after_wait(incident, receiver, OPENED, now, route, UNJUDGED_AS)
            return
        for receiver, notification in [*incident.notifications.items()]:
            at = self.telling.next_at(incident, receiver, notification)
            if not 0 < at <= now:
                continue
            if notification.reason is None:
                _at, reason = self.telling.unasked(incident, receiver, notification)
                self.telling.owe(incident, receiver, reason, now, now)
            elif not self._is_pointless(incident, receiver, now) and not self.telling.settle(
                incident, receiver, now
            ):
                self.telling.ready[Ear(incident.id, receiver)] = None

    def _is_pointless(self, incident: Incident, receiver: str, now: float) -> bool:
        """Drop what is due, if nobody wants to hear it any more."""
        notification = incident.notification_of(receiver)
        if notification.reason == RESOLVED or self.telling.may_have_begun(incident, receiver):
            return False
        if not self.audience.is_known(receiver):
            self.telling.drop(incident, receiver, gone(receiver), now)
            return True
        if notification.reason in FOR_NOBODY_ON_IT and incident.is_attended:
            self.telling.drop(incident, receiver, ATTENDED, now)
            return True
        return False

    def owed(self, now: float) -> Iterable[Effect]:
        # Asked after each message, and nearly always for nothing.
        return self._ready_now(now) if self.telling.ready else ()

    def _ready_now(self, now: float) -> Iterator[Effect]:
        telling = self.telling
        for ear in telling.ready:
            incident = self.state.incidents.get(ear.incident_id)
            if incident is None:
                continue
            notification = incident.notification_of(ear.receiver)
            if notification.reason is None:
                continue
            if notification.due_at > now:
                self.state.stirred[ear.incident_id] = None
                continue
            if self._must_wait(incident, ear.receiver):
                telling.held[ear] = None
                continue
            wanted = (notification.number, notification.attempt)
            asked = telling.asked.get(ear)
            if asked is None or asked[:2] != wanted:
                telling.asked[ear] = Try(*wanted, telling.unmuted(incident))
                yield act(self.shard, incident, ear.receiver, telling.unmuted(incident))
        telling.ready.clear()

    def _must_wait(self, incident: Incident, receiver: str) -> bool:
        """Whether what is due is withheld. An attempt that may have been requested before is requested again all the same, and at
        once: one still in flight is joined by its key, and one that arrived must be followed by its end."""
        is_end = incident.notification_of(receiver).reason == RESOLVED
        if is_end or self.telling.is_in_doubt(incident, receiver):
            return False
        return self.shard.withholds(incident) is not None

    def ask_again(self, effect: Act) -> None:
        ear = Ear(effect.incident_id, effect.target)
        if (
            ear.incident_id in self.state.incidents
            and (asked := self.telling.asked.pop(ear, None)) is not None
        ):
            self.telling.asked_before[ear] = asked
            self.telling.ready[ear] = None

    def owes(self, incident: Incident) -> bool:
        return incident.is_owed_notification

    def started(self, now: float, is_set_back: bool) -> None:
        self.telling.asked.clear()
        self.telling.held.clear()
        for incident in self.state.incidents.values():
            self._start_one(incident, now, is_set_back)
            for receiver, notification in incident.notifications.items():
                if notification.reason is not None and notification.due_at <= now:
                    self.telling.ready[Ear(incident.id, receiver)] = None

    def came(self, incident: Incident) -> None:
        # One that opens has none yet: no generator for nothing.
        if incident.notifications and any(each.given_up for each in incident.notifications.values()):
            self.given_up[incident.id] = None

    def left(self, incident: Incident) -> None:
        self.given_up.pop(incident.id, None)
        self.telling.forget(incident)

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        for notification in incident.notifications.values():
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

    def _start_one(self, incident: Incident, now: float, is_set_back: bool) -> None:
        """A shard starts. With notifications off nothing stays pending, or the start that turns them on would send a
        pile of old pages. That start sends `resolved` for what receivers know of, and the open P0 and P1 that nobody
        was notified of and nobody is on: they opened in between, or were given up."""
        is_on = self.shard.settings.notify
        for receiver, notification in [*incident.notifications.items()]:
            if not is_on:
                if notification.reason is not None:
                    self.telling.drop(incident, receiver, OFF, now)
            elif notification.reason is not None:
                if is_set_back and notification.due_at > now:
                    self.shard.do(
                        NotificationOwed(
                            incident.id,
                            notification.number,
                            notification.reason,
                            now,
                            False,
                            receiver,
                            notification.route,
                        ),
                        now,
                    )
                if notification.due_at <= now and not self.telling.settle(incident, receiver, now):
                    tried = Try(notification.number, notification.attempt)
                    self.telling.asked_before[Ear(incident.id, receiver)] = tried
            elif not incident.is_open and notification.heard_at:
                # `heard_at` is missing in what a version sent that did not keep it: it is unknown whether `resolved` was
                # sent too.
                self.telling.owe_resolved(incident, receiver, now)
        if (
            is_on
            and incident.is_open
            and incident.state is not IncidentState.DETECTED
            and incident.severity <= Severity.P1
            and not self._is_taken(incident)
        ):
            for receiver, route in self._told(incident, now).items():
                notification = incident.notification_of(receiver)
                if notification.reason is None and (not notification.told or notification.sure == RESOLVED):
                    self._owe_after_wait(incident, receiver, REOPENED, now, route)

    @staticmethod
    def _is_taken(incident: Incident) -> bool:
        handling = incident.handling
        return bool(incident.assignees) or (handling is not None and handling.acknowledged is not None)

    def _resend(self, incident: Incident, verb: Resend, command: Command, now: float) -> Incident:
        """A person wants everybody, or one receiver, told of it again, now."""
        settings = self.shard.settings
        if not settings.notify:
            raise Conflict(f"{OFF}: set a receiver and start with notifications")
        if not incident.counts_as_open:
            what = "merged into another, which is told of" if incident.merged_into else incident.state.value
            raise Conflict(f"it is {what}: only an open incident can be sent again")
        if why := self.shard.withholds(incident):
            raise Conflict(f"it is muted, {why}: end what mutes it first")
        told = self._told(incident, now)
        if verb.receiver:
            if not self.audience.is_known(verb.receiver):
                known = ", ".join(sorted(settings.receivers)) or "none"
                raise Malformed(f"receiver: there is no receiver {verb.receiver!r}; there are {known}")
            told = {verb.receiver: told.get(verb.receiver)}
        if not told:
            raise Conflict(f"route {incident.discarded} discards it: name a receiver")
        for name, by in told.items():
            self.telling.owe(incident, name, SENT_AGAIN, now, now, by)
        return incident

    def _outcome(self, said: ActionOutcome, now: float) -> Reply:
        """The outcome of an attempt. That of an earlier one is ignored."""
        incident = self.state.incidents.get(said.incident_id)
        if incident is None:
            return Done()
        receiver, telling, settings = said.receiver, self.telling, self.shard.settings
        notification = incident.notification_of(receiver)
        number, attempt, reason = notification.number, notification.attempt, notification.reason
        if reason is None or (said.number, said.attempt) != (number, attempt):
            return Done()
        queued, ear, again_at = notification.queued, Ear(incident.id, receiver), 0.0
        if not said.ok and reason in ESCALATIONS and queued not in (None, RESOLVED, REOPENED):
            # What came meanwhile says less than what did not arrive.
            queued = reason
        # Muted meanwhile, it is not tried again.
        is_held = not said.ok and reason != RESOLVED and bool(self.shard.withholds(incident))
        # An earlier request may have arrived, whatever the result of this one.
        before = telling.asked_before.pop(ear, None)
        is_again = before is not None and before[:2] == (number, attempt)
        if said.ok:
            asked = telling.asked.get(ear)
            seen = asked.seen if asked is not None else -1
            self.shard.do(
                ActionSucceeded(incident.id, number, attempt, reason, said.detail, receiver, said.ref, seen),
                now,
            )
        elif not self.audience.is_known(receiver) and not (said.reached or is_again):
            # It went with the settings, and nobody will take it any more: nothing is owed there.
            is_end = reason == RESOLVED
            self.shard.do(
                NotificationDropped(
                    incident.id, number, f"{gone(receiver)}: {said.detail}", receiver, is_end
                ),
                now,
            )
        else:
            # Not by a clock that may be the one that is ahead.
            too_long = (
                now - notification.owed_since > settings.give_up_after_s
                and now >= self.state.no_expiry_before
            )
            if not (said.final or too_long or queued or is_held):
                key = idempotency_key(incident.id, number, attempt, receiver)
                first_s, most_s = settings.retry_first_s, settings.retry_max_s
                again_at = retry_at(attempt + 1, now, first_s, most_s, key, at_least_s=said.retry_after_s)
                again_at = self.fallback.retry_by(incident, receiver, again_at, now)
            overtaken, owed_since = queued is not None or is_held, notification.owed_since
            failed = ActionFailed(
                incident.id,
                number,
                attempt,
                reason,
                said.detail,
                again_at,
                said.reached or is_again,
                overtaken,
                receiver,
            )
            self.shard.do(failed, now)
            if not overtaken:
                self.fallback.failed(incident, receiver, reason, owed_since, now)
        if not again_at:
            self.shard.report(Paid(incident), now)
            telling.follow_up(incident, receiver, queued or (reason if is_held else None), now)
        return Done()

    # -- live and in replay ----------------------------------------------------------------------------------

    def _noted(
        self,
        event: NotificationOwed | NotificationDropped | NotificationWithheld | ActionSucceeded | ActionFailed,
    ) -> tuple[Incident, Notification, Ear]:
        """What an event changes: the incident, and what its receiver knows of it."""
        incident = self.state.changing(event.incident_id)
        notification = incident.notifications.get(event.receiver)
        if notification is None:
            notification = incident.notifications[event.receiver] = Notification()
        return incident, notification, Ear(incident.id, event.receiver)

    def _fold_owed(self, event: NotificationOwed, now: float) -> None:
        incident, notification, ear = self._noted(event)
        if event.queued:
            notification.queued = event.reason
            return
        if event.number != notification.number:
            notification.number = event.number
            notification.attempt = 0
            notification.queued = None
        notification.reason, notification.withheld = event.reason, ""
        notification.due_at = notification.owed_since = event.due_at
        notification.route = event.route
        if event.heard_at:
            notification.told, notification.sure, notification.heard_at = True, FIRING, event.heard_at
            notification.ref = event.ref or notification.ref
        incident.discarded = ""
        if event.due_at <= now:
            self.telling.ready[ear] = None

    def _fold_dropped(self, event: NotificationDropped, now: float) -> None:
        _incident, notification, ear = self._noted(event)
        notification.reason = notification.queued = None
        notification.withheld = ""
        if event.settled:
            notification.sure = RESOLVED
            _quiet(notification)
        self.telling.asked.pop(ear, None)

    def _fold_withheld(self, event: NotificationWithheld, now: float) -> None:
        _incident, notification, ear = self._noted(event)
        notification.withheld = event.reason
        if notification.reason != RESOLVED:
            notification.reason = notification.queued = None
            self.telling.asked.pop(ear, None)

    def _fold_discarded(self, event: NotificationDiscarded, now: float) -> None:
        self.state.changing(event.incident_id).discarded = event.route

    def _fold_fell_back(self, event: NotificationFellBack, now: float) -> None:
        """What is owed to the fallback has an event of its own."""

    def _fold_failed(self, event: ActionFailed, now: float) -> None:
        incident, notification, ear = self._noted(event)
        _heard(notification, event, now)
        if event.retry_at:
            notification.attempt = event.attempt + 1
            notification.due_at = event.retry_at
        else:
            notification.reason = notification.queued = None
            if not event.overtaken:
                notification.given_up = True
                self.given_up[incident.id] = None
            incident.updated_at = now
        self.telling.asked.pop(ear, None)

    def _fold_succeeded(self, event: ActionSucceeded, now: float) -> None:
        incident, notification, ear = self._noted(event)
        _heard(notification, event, now)
        notification.reason = notification.queued = None
        notification.given_up = False
        notification.ref = event.ref or notification.ref
        notification.seen = event.seen
        if not any(each.given_up for each in incident.notifications.values()):
            self.given_up.pop(incident.id, None)
        self.telling.asked.pop(ear, None)
        incident.updated_at = now

    def _fold_state(self, event: IncidentStateChanged, now: float) -> None:
        if is_begun_by_alerts(event):
            # The last FLAPS times are kept.
            for notification in self.state.incidents[event.incident_id].notifications.values():
                notification.reopenings = [*notification.reopenings, now][-FLAPS:]

    messages = {ActionOutcome: _outcome}
    verbs = {Resend: _resend}
    reactions = {
        Moved: _moved,
        Judged: _judged,
        SplitOff: _is_split_off,
        Unmerged: _unmerged,
        Relabelled: _relabelled,
        Unattended: _unattended,
        Overdue: _overdue,
        Escalated: _escalated,
        ToldByRun: _told_by_run,
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
            NotificationDiscarded,
            _fold_discarded,
            Description(("NotificationDiscarded",), notification_lines.discarded),
        ),
        on(
            NotificationFellBack,
            _fold_fell_back,
            Description(("NotificationFellBack",), notification_lines.fell_back),
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


def gone(receiver: str) -> str:
    """Why nothing more is told to a receiver that the settings had."""
    return f"receiver {receiver} is not configured any more"


def _heard(notification: Notification, event: ActionSucceeded | ActionFailed, now: float) -> None:
    """What the receiver knows after an attempt."""
    if isinstance(event, ActionFailed) and not event.reached:
        return
    says = RESOLVED if event.reason == RESOLVED else FIRING
    notification.told = True
    notification.heard_at = now
    if isinstance(event, ActionSucceeded):
        notification.sure = says
    elif notification.sure != says:
        notification.sure = ""
    if event.reason == FLAPPING:
        notification.flapping = True
    elif event.reason in (RESOLVED, FLAPPING_ENDED):
        _quiet(notification)


def _quiet(notification: Notification) -> None:
    """The receiver knows that it does not flap any more."""
    if notification.flapping:
        notification.flapping = False
        notification.reopenings = []
