"""One receiver of one incident: what is to be told there, and when. The part of models/shard/notifications.py that decides for
each receiver by itself; a receiver knows nothing of what others were told.

Two notifications of an incident to a receiver are at least an interval apart, unless it gets more severe. So a resolve waits,
and if the incident continues meanwhile both are dropped: what the receiver knows is still true. `notification.sure` is what
it knows, "" if unknown because a failed attempt may have arrived; then the truth is sent.

An incident that flaps (models/shard/flapping.py) is sent once, until it is quiet. What a component withholds (a silence, for one)
is sent when nothing withholds it any more. A receiver that is not told of ends has them settled when they would be sent.
"""

from __future__ import annotations

from typing import NamedTuple

from models.incidents.incident import AUTOMATED, Incident, Notification
from models.incidents.notification import FIRING, RESOLVED
from models.routes.route import Route
from models.shard.audience import Audience
from models.shard.changes import Paid
from models.shard.core import Core
from models.shard.events import NotificationDropped, NotificationOwed, NotificationWithheld
from models.shard.flapping import flaps, may_tell_at, quiet_needed_s
from models.shard.mutes import Mutes

OPENED, REOPENED = "opened", "reopened"
SEVERITY_CHANGED = "severity changed"
FLAPPING, FLAPPING_ENDED = "flapping", "flapping ended"
GREW, REPEATED = "more alerts", "still unacknowledged"
ESCALATED, BY_PLAYBOOK = "not acknowledged in time", "escalated by a playbook"
SENT_AGAIN = "sent again"
UNHEARD = "resolved before anyone was notified"
GOES_ON = "reopened before `resolved` was sent"
KNOWN = "known already"
ENDED_AGAIN = "resolved again before `reopened` was sent"
ELSEWHERE = "routes choose others by now"
ATTENDED = "acknowledged before it was sent"
#: Said at once, however lately something else was.
AT_ONCE = frozenset({SEVERITY_CHANGED, ESCALATED, BY_PLAYBOOK, SENT_AGAIN})
#: Why somebody is told whom no route chooses.
ESCALATIONS = (ESCALATED, BY_PLAYBOOK)
#: Pointless once somebody is on it.
FOR_NOBODY_ON_IT = frozenset({REPEATED, ESCALATED})


class Ear(NamedTuple):
    """A receiver, and what it hears of: the incident's id, the receiver's name."""

    incident_id: bytes
    receiver: str


class Try(NamedTuple):
    """A try that the responder was asked for: of which notification, the how manyth, and how many series it was to tell of."""

    number: int
    attempt: int
    seen: int = -1


class Telling:
    """What a shard has asked the responder for, and what it decides to tell."""

    def __init__(self, shard: Core, audience: Audience) -> None:
        self.shard = shard
        self.audience = audience
        #: Whose notification is due and was not requested yet.
        self.ready: dict[Ear, None] = {}
        #: The tries that this process requested from the responder.
        self.asked: dict[Ear, Try] = {}
        #: Tries that may have been requested before, with unknown results.
        self.asked_before: dict[Ear, Try] = {}
        #: Whose notification is due and is not asked for: a component withholds it (Component.withholds).
        self.held: dict[Ear, None] = {}

    # -- deciding --------------------------------------------------------------------------------------------

    def owe(
        self,
        incident: Incident,
        receiver: str,
        reason: str,
        now: float,
        due_at: float,
        route: Route | None = None,
    ) -> None:
        """Queue a notification of an open incident. One not yet sent absorbs later reasons; one in flight delays them,
        so that a receiver gets them in order. Children send none: their parent does. `route` is the one that chose the receiver
        (None: as before)."""
        if not self.shard.settings.notify:
            return
        notification = incident.notification_of(receiver)
        is_told_of = self.audience.is_known(receiver) and not incident.merged_into
        if not is_told_of:
            if notification.reason == RESOLVED and not self.has_begun(incident, receiver, now):
                self.drop(incident, receiver, GOES_ON, now)
            return
        if self.has_begun(incident, receiver, now):
            self.queue(incident, receiver, reason, now, due_at)
            return
        is_believed = reason in (OPENED, REOPENED) and notification.sure == FIRING
        why = self.shard.withholds(incident)
        if why and not is_believed:
            self.withhold(incident, receiver, reason, why, now)
            return
        route = route or self.audience.route_of(notification)
        interval_s = self.audience.interval_s(route)
        earliest = may_tell_at(notification, interval_s, now)
        if reason == REOPENED and not why and flaps(notification, interval_s, now):
            if notification.flapping:
                quiet_s = quiet_needed_s(notification, interval_s)
                self.put(incident, receiver, FLAPPING_ENDED, now, max(earliest, now + quiet_s), route)
            else:
                self.put(incident, receiver, FLAPPING, now, max(earliest, now), route)
            return
        if is_believed:
            if notification.reason == RESOLVED:
                self.drop(incident, receiver, GOES_ON, now)
            return
        is_urgent = reason in AT_ONCE
        reason = _as_first_word(notification, reason)
        due_at = now if is_urgent else max(due_at, earliest)
        if notification.reason in (None, RESOLVED, FLAPPING_ENDED) or (is_urgent and notification.attempt):
            self.put(incident, receiver, reason, now, due_at, route)
        elif due_at < notification.due_at and not notification.attempt:
            self.put(incident, receiver, notification.reason or reason, now, due_at, route)

    def owe_resolved(self, incident: Incident, receiver: str, now: float) -> None:
        """A receiver that may have been notified of the incident gets `resolved`, even of a child, and whatever routes say by now;
        one that was not gets nothing."""
        if not self.shard.settings.notify:
            return
        notification = incident.notification_of(receiver)
        if self.has_begun(incident, receiver, now):
            self.queue(incident, receiver, RESOLVED, now, now)
        elif notification.told and notification.sure != RESOLVED:
            route = self.audience.route_of(notification)
            interval_s = self.audience.interval_s(route)
            due_at = max(now, may_tell_at(notification, interval_s, now))
            is_said = incident.resolution is not None and incident.resolution.method != AUTOMATED
            if flaps(notification, interval_s, now) and not is_said:
                due_at = max(due_at, now + quiet_needed_s(notification, interval_s))
            self.put(incident, receiver, RESOLVED, now, due_at, route)
            if due_at <= now:
                self.settle(incident, receiver, now)
        elif notification.reason is not None or notification.withheld:
            self.drop(incident, receiver, ENDED_AGAIN if notification.told else UNHEARD, now)

    def owe_end(self, incident: Incident, receiver: str, heard_at: float, ref: str, now: float) -> None:
        """A playbook had something opened at a receiver: it gets `resolved`, though no notification told it of the incident. One
        that a notification told, or is telling, gets it by that (owe_resolved)."""
        notification = incident.notification_of(receiver)
        knows_end = notification.sure == RESOLVED and notification.heard_at > heard_at
        if notification.reason is not None or (
            notification.told and (notification.sure != RESOLVED or knows_end)
        ):
            return
        route = self.audience.route_of(notification)
        if (
            not self.shard.settings.notify
            or not self.audience.is_known(receiver)
            or not self.audience.wants_end(receiver, route)
        ):
            return
        number = notification.number + 1
        due_at = max(now, may_tell_at(notification, self.audience.interval_s(route), now))
        self.shard.do(
            NotificationOwed(
                incident.id, number, RESOLVED, due_at, False, receiver, route.name, heard_at, ref
            ),
            now,
        )

    def settle(self, incident: Incident, receiver: str, now: float) -> bool:
        """The end of the incident is due to be told: to a receiver that is not told of ends it counts as told."""
        notification = incident.notification_of(receiver)
        if notification.reason != RESOLVED or Ear(incident.id, receiver) in self.asked:
            return False
        if self.audience.wants_end(receiver, self.audience.route_of(notification)):
            return False
        queued = notification.queued
        self.shard.do(NotificationDropped(incident.id, notification.number, "", receiver, True), now)
        self.shard.report(Paid(incident), now)
        self.follow_up(incident, receiver, queued, now)
        return True

    def withhold(self, incident: Incident, receiver: str, reason: str, why: str, now: float) -> None:
        """It is not told now; `reason` is what will be told when nothing speaks against it any more."""
        notification = incident.notification_of(receiver)
        if reason in (FLAPPING, FLAPPING_ENDED):
            reason = REOPENED
        reason = _as_first_word(notification, reason)
        is_said = notification.withheld in (reason, OPENED, REOPENED)
        if not is_said or notification.reason not in (None, RESOLVED):
            self.shard.do(NotificationWithheld(incident.id, reason, why, receiver), now)

    def drop(self, incident: Incident, receiver: str, why: str, now: float) -> None:
        number = incident.notification_of(receiver).number
        self.shard.do(NotificationDropped(incident.id, number, why, receiver), now)
        self.shard.report(Paid(incident), now)

    def queue(self, incident: Incident, receiver: str, reason: str, now: float, due_at: float) -> None:
        """It waits for the outcome of what is under way."""
        number = incident.notification_of(receiver).number
        self.shard.do(NotificationOwed(incident.id, number, reason, due_at, True, receiver), now)

    def put(
        self, incident: Incident, receiver: str, reason: str, now: float, due_at: float, route: Route
    ) -> None:
        """Queue a notification, replacing one not yet sent. One that was tried keeps its number."""
        notification = incident.notification_of(receiver)
        is_new = notification.reason is None or notification.attempt > 0
        number = notification.number + is_new
        self.shard.do(NotificationOwed(incident.id, number, reason, due_at, False, receiver, route.name), now)

    def follow_up(self, incident: Incident, receiver: str, queued: str | None, now: float) -> None:
        """A notification is done: what was queued behind it is now pending, if still worth sending; and so is the end
        of flapping."""
        notification = incident.notification_of(receiver)
        if not incident.is_open:
            if queued and not notification.told:
                self.drop(incident, receiver, UNHEARD, now)
            elif queued:
                self.owe_resolved(incident, receiver, now)
            return
        if queued and not notification.told:
            # What was under way did not arrive. Routes may choose others by now.
            choice, late = self.audience.of(incident), self.audience.escalated(incident)
            if queued in ESCALATIONS:
                queued = None if queued in FOR_NOBODY_ON_IT and incident.is_attended else queued
            elif receiver in {chosen.receiver for chosen in late}:
                queued = ESCALATED
            elif receiver not in {chosen.receiver for chosen in choice.told}:
                queued = None
        if queued:
            self.owe(incident, receiver, queued, now, now)
        if notification.flapping and notification.reason is None and not notification.given_up:
            # As if it had just begun again: quiet is waited for from here on.
            self.owe(incident, receiver, REOPENED, now, now)

    # -- what becomes due by itself --------------------------------------------------------------------------

    def next_at(self, incident: Incident, receiver: str, notification: Notification) -> float:
        """When something is due for a receiver, 0 when nothing is."""
        if notification.reason is not None:
            ear = Ear(incident.id, receiver)
            asked = self.asked.get(ear)
            is_asked = asked is not None and asked[:2] == (notification.number, notification.attempt)
            is_ready = ear in self.ready or ear in self.held
            return 0.0 if is_asked or is_ready else notification.due_at
        at, _reason = self.unasked(incident, receiver, notification)
        return at

    def unasked(self, incident: Incident, receiver: str, notification: Notification) -> tuple[float, str]:
        """What a receiver is told although nothing happened just now, and when: that more alerts joined, or that nobody is on
        it. (0, "") when nothing is."""
        if (
            notification.sure != FIRING
            or notification.withheld
            or notification.flapping
            or not incident.counts_as_open
            or not self.shard.settings.notify
            or not self.audience.is_known(receiver)
        ):
            return 0.0, ""
        route = self.audience.route_of(notification)
        if 0 <= notification.seen < self.unmuted(incident):
            return notification.heard_at + self.audience.interval_s(route), GREW
        if route.repeat_s and not incident.is_attended:
            return notification.heard_at + route.repeat_s, REPEATED
        return 0.0, ""

    def unmuted(self, incident: Incident) -> int:
        """How many of its series a notification speaks of now: all that there ever were but those that are muted. A count, not
        the series: one that joins just when another is muted is told of with the next."""
        return incident.series_seen - len(self.shard.of(Mutes).muted.of(incident.id))

    # -- what may be under way -------------------------------------------------------------------------------

    def has_begun(self, incident: Incident, receiver: str, now: float) -> bool:
        """Whether an attempt at the notification may be in flight. One that is due in this very step was not requested
        yet."""
        notification = incident.notification_of(receiver)
        if notification.reason is None or notification.due_at > now:
            return False
        is_late = notification.due_at < now and Ear(incident.id, receiver) not in self.held
        return self.may_have_begun(incident, receiver) or is_late

    def may_have_begun(self, incident: Incident, receiver: str) -> bool:
        """Whether the responder was asked for the try that is owed, by this process or one before it."""
        return Ear(incident.id, receiver) in self.asked or self.is_in_doubt(incident, receiver)

    def is_in_doubt(self, incident: Incident, receiver: str) -> bool:
        """Whether a process before this one may have asked for the very try that is owed."""
        notification, asked = (
            incident.notification_of(receiver),
            self.asked_before.get(Ear(incident.id, receiver)),
        )
        return asked is not None and asked[:2] == (notification.number, notification.attempt)

    def forget(self, incident: Incident) -> None:
        """An incident is not here any more."""
        for receiver in incident.notifications:
            ear = Ear(incident.id, receiver)
            self.asked.pop(ear, None)
            self.held.pop(ear, None)


def _as_first_word(notification: Notification, reason: str) -> str:
    """What a receiver that was told nothing yet is told instead of a change that it would not understand."""
    if notification.told or reason not in (REOPENED, SEVERITY_CHANGED):
        return reason
    known = (notification.reason, notification.withheld)
    return next((each for each in ESCALATIONS if each in known), OPENED)
