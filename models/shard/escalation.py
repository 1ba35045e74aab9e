"""Escalation: who is told next while nobody acknowledges an incident. Which policy it goes by, its route says (notify.routes.escalation);
the policy's shape comes from the control partition. Who the people of a level are is not known here: effect Page goes to a responder,
which looks that up when it tells them (actors/paging.py), and answers with names.

    begins   when the incident would be told of: it opens, reopens, gets more severe; or nobody is on it any more
    goes on  a level at a time, by the shard's wheel; all levels as often as the policy says, then the fallback, then it ends
    waits    while the incident is muted
    stops    when somebody acknowledges it, when it ends, when it is merged

A level that is due is an event before anybody is asked to tell it. After a crash it is asked for again by the same key, in which its
number stands: so nobody is told of the same level by another key, and what was due is not forgotten. Assigning an incident stops
nothing: whoever was assigned may be asleep.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from uuid import UUID

from models.incidents.incident import Incident, IncidentState, Severity
from models.incidents.lines import SYSTEM, Description
from models.incidents.notification import RESOLVED, Facts, retry_at
from models.incidents.query import EscalationView
from models.people.policy import Outline
from models.routes.route import Route
from models.shard import escalation_events as lines
from models.shard import lifecycle
from models.shard.attention import AcknowledgementEnded
from models.shard.audience import UNJUDGED_AS, Audience
from models.shard.changes import (
    Acknowledged,
    Escalated,
    Judged,
    Merging,
    Moved,
    Paid,
    Relabelled,
    Released,
    SplitOff,
    Unattended,
    Unmerged,
    Unmuted,
)
from models.shard.component import Component, RecordOf, on
from models.shard.core import Core, Whose
from models.shard.effects import Effect
from models.shard.escalation_events import (
    EscalationBegan,
    EscalationEnded,
    EscalationPaused,
    EscalationResumed,
    EscalationStopped,
    EscalationUnknown,
    LevelDue,
    LevelTold,
    PoliciesKnown,
)
from models.shard.escalation_state import (
    ENDED,
    ESCALATIONS,
    OVER,
    PAUSED,
    POLICIES,
    RUNNING,
    STOPPED,
    UNKNOWN,
    Escalation,
    EscalationStore,
    OwedPage,
)
from models.shard.events import ClockSetBack
from models.shard.flapping import FLAP_WINDOW, FLAPS
from models.shard.messages import Done, Message, Reply, Tick
from models.shard.notification_facts import facts
from models.shard.notifications import CLASSIFY_PATIENCE_S, OFF

#: Alerts that one page shows: a screen of a phone.
ALERTS_SHOWN = 20
#: Contacts that one outcome may speak of: far more than a level has.
OUTCOME_MAX = 500


class PoliciesChanged(Message, frozen=True):
    """The escalation policies that the control partition has at `version`, all of them."""

    version: int
    outlines: list[Outline]


class Page(Effect, frozen=True):
    """Asks a responder to tell the people of `level` of `policy` (the level after the last is the fallback), or with `only` just
    these (person:way), but none of `done`. `key` is what the idempotency key of each contact begins with. Answered by Paged."""

    incident_id: bytes
    tenant: str
    number: int
    attempt: int
    policy: str
    level: int
    key: str
    facts: Facts
    done: list[str] = []
    only: list[str] | None = None
    urgency: int = 2
    trace: str | None = None


class Paged(Message, frozen=True):
    """What came of effect Page, by names: who was told (person:way), what failed, whom nobody could be found for. `again`: what failed
    may be tried again, no sooner than in `retry_after_s`, all but `final`."""

    incident_id: bytes
    number: int
    attempt: int
    told: list[str]
    failed: list[str] = []
    missed: list[str] = []
    again: bool = False
    retry_after_s: float = 0.0
    final: list[str] = []


class Escalations(Component):
    name = "escalations"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        self.store = EscalationStore(self.state)
        self.audience = Audience(shard)
        #: False while a new process has not heard which policies there are. Its actor says so.
        self.is_told = True
        # Only live: pages that are due, those that this process asked for (number, attempt), and incidents looked at again with the next tick.
        self._ready: dict[tuple[bytes, int], None] = {}
        self._asked: dict[tuple[bytes, int], int] = {}
        self._held: dict[bytes, None] = {}
        #: Incidents that waited for a classification in vain and have no policy.
        self._without: dict[bytes, None] = {}
        self._route: Route | None = None
        self._is_used = False

    def shown(self, incident: Incident) -> EscalationView | None:
        """How far it got; None when nobody was to be paged."""
        mine = self.store.of(incident.id)
        if mine is None:
            return None
        is_due = mine.status == RUNNING
        return EscalationView(
            mine.policy,
            mine.status,
            mine.level + 1,
            mine.round + 1,
            mine.due_at if is_due else 0.0,
            [*map(lines.in_words, mine.reached)],
            mine.why,
        )

    # -- what becomes of incidents ---------------------------------------------------------------------------

    def _judged(self, change: Judged, now: float) -> None:
        is_worse = change.incident.severity < change.before
        self._begin(change.incident, "opened", now, waits=True, is_worse=is_worse)

    def _moved(self, change: Moved, now: float) -> None:
        incident = change.incident
        if change.ends:
            self._stop(incident, f"it is {incident.state.value}", SYSTEM, now)
            self._tell_end(incident, now)
        elif change.reopens:
            # Whoever was not told yet that it is over is not told any more.
            self._stop(incident, "reopened", SYSTEM, now)
            self._begin(incident, "reopened", now, waits=True, anew=True)

    def _is_split_off(self, change: SplitOff, now: float) -> None:
        self._begin(change.incident, "split off", now, waits=True)

    def _unmerged(self, change: Unmerged, now: float) -> None:
        if change.incident.is_open:
            self._begin(change.incident, "unmerged", now, waits=True, anew=True)

    def _relabelled(self, change: Relabelled, now: float) -> None:
        if change.incident.is_open and change.incident.state is not IncidentState.DETECTED:
            self._begin(change.incident, "its labels changed", now, waits=True)

    def _acknowledged(self, change: Acknowledged, now: float) -> None:
        mine = self.store.of(change.incident.id)
        if mine is None:
            return
        outline = self._outline(change.incident, mine)
        timeout_s = 0.0 if outline is None else outline.ack_timeout_s
        ack_until = now + timeout_s if timeout_s and not change.until else 0.0
        if mine.goes_on or mine.pages or mine.ack_until != ack_until:
            why = f"acknowledged by {change.actor}"
            self.shard.do(EscalationStopped(change.incident.id, why, change.actor, ack_until), now)
            self.shard.report(Paid(change.incident), now)

    def _released(self, change: Released, now: float) -> None:
        self._begin(change.incident, f"acknowledgement withdrawn by {change.actor}", now, anew=True)

    def _unattended(self, change: Unattended, now: float) -> None:
        self._begin(change.incident, "its acknowledgement expired", now, anew=True)

    def _escalated(self, change: Escalated, now: float) -> None:
        incident, why = change.incident, "a playbook escalated it"
        mine = self.store.of(incident.id)
        if mine is not None and mine.status == RUNNING:
            self.shard.do(EscalationResumed(incident.id, now, why), now)
        else:
            self._begin(incident, why, now, anew=True)

    def _merging(self, change: Merging, now: float) -> None:
        self._stop(change.incident, "merged into another incident", SYSTEM, now)

    def _unmuted(self, change: Unmuted, now: float) -> None:
        mine = self.store.of(change.incident.id)
        if mine is not None and mine.status == PAUSED and change.incident.counts_as_open:
            self.shard.do(EscalationResumed(change.incident.id, now, "it is not muted any more"), now)

    # -- beginning and stopping ------------------------------------------------------------------------------

    def _begin(
        self,
        incident: Incident,
        why: str,
        now: float,
        *,
        waits: bool = False,
        anew: bool = False,
        is_worse: bool = False,
    ) -> None:
        """Begin where a route names a policy and nobody is on it. One that goes on is left alone, unless the incident became worse and
        another policy is for it. One that came to its end begins again only `anew`, or when the incident became worse."""
        if not self._used or not incident.counts_as_open:
            return
        if _is_acknowledged(incident):
            self._keeps_its_timeout(incident, why, now)
            return
        found = self.audience.of(incident).escalation
        if found is None:
            return
        policy, route = found
        mine = self.store.of(incident.id)
        if mine is not None:
            changes = anew or is_worse
            if mine.goes_on and (mine.policy == policy or not (changes or mine.status == UNKNOWN)):
                if mine.status == PAUSED and not self.shard.withholds(incident):
                    # What it waited for does not hold of the incident as it is now: a scheduled run that failed, for one.
                    self.shard.do(EscalationResumed(incident.id, now, why), now)
                return
            if mine.status == ENDED and not changes:
                return
            if mine.status == ENDED and not is_worse and _flaps(mine, self.shard.settings.interval_s, now):
                return
        severity = incident.severity if incident.is_classified else min(incident.severity, UNJUDGED_AS)
        due_at = now + (self.audience.wait_s(route, Severity(severity)) if waits else 0.0)
        level = round_ = 0
        if mine is not None and mine.number and not is_worse:
            # As for notifications, an interval apart.
            due_at = max(due_at, min(now, mine.began_at) + self.audience.interval_s(route))
            if _flaps(mine, self.audience.interval_s(route), now):
                # Level 1 was woken for it before, again and again, and it is not well: its next level is told instead.
                level, round_ = self._come_to(incident, mine, policy)
        self.shard.do(EscalationBegan(incident.id, policy, route.name, due_at, why, level, round_), now)
        if due_at <= now:
            self._next(incident, self.store.all[incident.id], now)

    def _come_to(self, incident: Incident, mine: Escalation, policy: str) -> tuple[int, int]:
        """The level that an escalation had come to, and its round; after the last one of all, that one again: only time ends an escalation,
        and whenever an incident comes back somebody is told."""
        outline = self.store.outlines.get((incident.tenant, policy))
        if outline is None:
            return 0, 0
        round_ = min(mine.round, outline.repeat)
        last = len(outline.timeouts_s) - 1
        return (last if round_ == outline.repeat and mine.level > last else mine.level), round_

    def _stop(self, incident: Incident, why: str, actor: str, now: float) -> None:
        mine = self.store.of(incident.id)
        if mine is not None and (mine.goes_on or mine.pages or mine.ack_until):
            self.shard.do(EscalationStopped(incident.id, why, actor), now)
            self.shard.report(Paid(incident), now)

    def _keeps_its_timeout(self, incident: Incident, why: str, now: float) -> None:
        """It was acknowledged before it would begin, as what reopens may be: without an end, that expires by the policy all the same."""
        assert incident.handling is not None and incident.handling.acknowledged is not None
        given, mine = incident.handling.acknowledged, self.store.of(incident.id)
        found = self.audience.of(incident).escalation
        if found is None or given.until or (mine is not None and (mine.goes_on or mine.ack_until)):
            return
        policy, route = found
        outline = self.store.outlines.get((incident.tenant, policy))
        if outline is None or not outline.ack_timeout_s:
            return
        if mine is None:
            self.shard.do(EscalationBegan(incident.id, policy, route.name, now, why), now)
        ack_until = now + outline.ack_timeout_s
        self.shard.do(EscalationStopped(incident.id, f"acknowledged by {given.by}", given.by, ack_until), now)

    def _tell_end(self, incident: Incident, now: float) -> None:
        """Whoever was paged hears that it is over, where the receiver is told of ends."""
        mine = self.store.of(incident.id)
        if mine is not None and self._ends_of(mine) and self.shard.settings.notify:
            self.shard.do(LevelDue(incident.id, mine.number + 1, OVER, mine.round, 0.0), now)

    def _ends_of(self, mine: Escalation) -> list[str]:
        receivers = self.shard.settings.receivers
        return [
            each
            for each in mine.reached
            if (row := receivers.get(each.split(":")[1])) is not None and row.sends_resolved
        ]

    @property
    def _used(self) -> bool:
        """Whether any route names a policy: asked whenever an incident changes."""
        settings = self.shard.settings
        if settings.route is not self._route:
            self._route = settings.route
            self._is_used = any(route.escalation for _depth, route in settings.route.walk())
            self._without.clear()
        return self._is_used and settings.notify

    # -- time ------------------------------------------------------------------------------------------------

    def next_at(self, incident: Incident) -> float:
        mine = self.store.of(incident.id)
        if mine is None:
            return self._patient_until(incident)
        times = [page.due_at for page in mine.pages if not self._is_under_way(incident.id, page)]
        if mine.status == RUNNING and incident.id not in self._held:
            times.append(mine.due_at)
        elif mine.ack_until:
            times.append(mine.ack_until)
        return min(times, default=0.0)

    def _patient_until(self, incident: Incident) -> float:
        """Until when an incident without a classification waits for one, as for notifications."""
        if (
            incident.state is not IncidentState.DETECTED
            or incident.merged_into
            or not self._used
            or incident.id in self._without
        ):
            return 0.0
        return incident.created_at + CLASSIFY_PATIENCE_S

    def due(self, incident: Incident, now: float) -> None:
        mine = self.store.of(incident.id)
        if mine is None:
            if 0.0 < self._patient_until(incident) <= now:
                self._begin(incident, "not classified in time", now, waits=True)
                if self.store.of(incident.id) is None:
                    self._without[incident.id] = None
            return
        for page in mine.pages:
            if page.due_at <= now and not self._is_under_way(incident.id, page):
                self._ready[incident.id, page.number] = None
        if mine.ack_until and mine.ack_until <= now and mine.status == STOPPED:
            self._expire(incident, now)
        elif mine.status == RUNNING and mine.due_at <= now and incident.id not in self._held:
            self._next(incident, mine, now)

    def _expire(self, incident: Incident, now: float) -> None:
        """An acknowledgement without an end was kept for as long as the policy lets it."""
        if not incident.counts_as_open or not _is_acknowledged(incident):
            self.shard.do(EscalationStopped(incident.id, "nobody acknowledges it any more"), now)
            return
        self.shard.do(AcknowledgementEnded(incident.id, SYSTEM, "", expired=True), now)
        lifecycle.timed_out(self.shard, incident, now)

    def tick(self, tick: Tick, now: float) -> None:
        """What is held back is looked at again."""
        if self._held:
            self.state.stirred.update(self._held)
            self._held.clear()

    def _next(self, incident: Incident, mine: Escalation, now: float) -> None:
        """The next level is due."""
        outline = self._outline(incident, mine)
        if outline is None:
            if self.is_told:
                self.shard.do(EscalationUnknown(incident.id, mine.policy), now)
            else:
                self._held[incident.id] = None
            return
        why = self.shard.withholds(incident)
        if why is not None:
            if why:
                self.shard.do(EscalationPaused(incident.id, why), now)
            else:
                self._held[incident.id] = None
            return
        levels = len(outline.timeouts_s)
        level, round_ = mine.level, mine.round
        if level >= levels:
            level, round_ = 0, round_ + 1
        if round_ <= outline.repeat:
            next_at = now + outline.timeouts_s[level]
            self.shard.do(LevelDue(incident.id, mine.number + 1, level, round_, next_at), now)
            return
        self.shard.do(EscalationEnded(incident.id, mine.policy, round_), now)
        if outline.falls_back:
            self.shard.do(LevelDue(incident.id, mine.number + 1, levels, round_, 0.0, True), now)

    def _outline(self, incident: Incident, mine: Escalation) -> Outline | None:
        return self.store.outlines.get((incident.tenant, mine.policy))

    # -- debts -----------------------------------------------------------------------------------------------

    def owed(self, now: float) -> Iterable[Effect]:
        return self._ready_now(now) if self._ready else ()

    def _ready_now(self, now: float) -> Iterator[Effect]:
        for incident_id, number in self._ready:
            incident, mine = self.state.incidents.get(incident_id), self.store.of(incident_id)
            page = None if mine is None else mine.page(number)
            if incident is None or mine is None or page is None or self._is_asked(incident_id, page):
                continue
            if page.due_at > now:
                self.state.stirred[incident_id] = None
                continue
            self._asked[incident_id, number] = page.attempt
            yield self._page(incident, mine, page)
        self._ready.clear()

    def _page(self, incident: Incident, mine: Escalation, page: OwedPage) -> Page:
        again = f", round {page.round + 1}" if page.round else ""
        reason = RESOLVED if page.level == OVER else f"level {page.level + 1} of {mine.policy}{again}"
        return Page(
            incident.id,
            incident.tenant,
            page.number,
            page.attempt,
            mine.policy,
            page.level,
            f"{UUID(bytes=incident.id)}-page-{page.number}",
            facts(self.shard, incident, reason=reason, most=ALERTS_SHOWN),
            page.done,
            self._ends_of(mine) if page.level == OVER else None,
            incident.severity,
        )

    def ask_again(self, effect: Page) -> None:
        place = (effect.incident_id, effect.number)
        if self._asked.pop(place, None) is not None:
            self._ready[place] = None

    def owes(self, incident: Incident) -> bool:
        mine = self.store.of(incident.id)
        return mine is not None and bool(mine.pages)

    def started(self, now: float, is_set_back: bool) -> None:
        self._ready.clear()
        self._asked.clear()
        self._held.clear()
        for identity in [*self.store.all]:
            incident, mine = self.state.incidents[identity], self.store.all[identity]
            if not self.shard.settings.notify:
                self._stop(incident, OFF, SYSTEM, now)
            elif mine.status == STOPPED and mine.why == OFF:
                self._begin(incident, "notifications are on again", now, anew=True)
            for page in mine.pages:
                if page.due_at <= now:
                    self._ready[identity, page.number] = None

    def _paged(self, said: Paged, now: float) -> Reply:
        """The outcome of a try. That of an earlier one is ignored."""
        incident, mine = self.state.incidents.get(said.incident_id), self.store.of(said.incident_id)
        page = None if mine is None else mine.page(said.number)
        if incident is None or mine is None or page is None or page.attempt != said.attempt:
            return Done()
        settings, again_at = self.shard.settings, 0.0
        is_given_up = now - page.owed_since > settings.give_up_after_s and now >= self.state.no_expiry_before
        is_muted = page.level != OVER and bool(self.shard.withholds(incident))
        # Its level was told again in the next round, and is tried again by that page: nobody gets ten when a receiver works again.
        is_overtaken = page.level != OVER and (mine.round, mine.level) > (page.round + 1, page.level)
        if said.again and not is_given_up and not is_muted and not is_overtaken:
            key = f"{UUID(bytes=incident.id)}-page-{page.number}-{page.attempt}"
            first_s, most_s = settings.retry_first_s, settings.retry_max_s
            again_at = retry_at(page.attempt + 1, now, first_s, most_s, key, at_least_s=said.retry_after_s)
        next_at = 0.0
        is_newest = mine.status == RUNNING and mine.number == page.number and page.level != OVER
        outline = self._outline(incident, mine)
        was_told = said.told or any(each in mine.reached for each in page.done)
        if is_newest and not was_told and not again_at and outline is not None:
            # Nobody was told and nobody will be: the next level does not wait. The last one of a round does, or all rounds
            # would be over before anybody came on call.
            next_at = now if mine.level < len(outline.timeouts_s) else 0.0
        self.shard.do(
            LevelTold(
                incident.id,
                page.number,
                page.attempt,
                said.told[:OUTCOME_MAX],
                said.failed[:OUTCOME_MAX],
                said.missed[:OUTCOME_MAX],
                again_at,
                next_at,
                page.level,
                mine.policy,
                said.final[:OUTCOME_MAX],
            ),
            now,
        )
        if not again_at:
            self.shard.report(Paid(incident), now)
        return Done()

    def _is_asked(self, incident_id: bytes, page: OwedPage) -> bool:
        return self._asked.get((incident_id, page.number)) == page.attempt

    def _is_under_way(self, incident_id: bytes, page: OwedPage) -> bool:
        return (incident_id, page.number) in self._ready or self._is_asked(incident_id, page)

    # -- policies --------------------------------------------------------------------------------------------

    def _policies(self, message: PoliciesChanged, now: float) -> Reply:
        self.is_told = True
        known = {(each.tenant, each.name): each for each in message.outlines}
        if known != self.store.outlines or message.version != self.store.version:
            self.shard.do(PoliciesKnown(message.version, message.outlines), now)
        return Done()

    # -- live and in replay ----------------------------------------------------------------------------------

    def _fold_known(self, event: PoliciesKnown, now: float) -> None:
        """What waited for a policy that did not exist goes on with the next tick."""
        self.store.take(event.outlines, event.version)
        for identity, mine in self.store.all.items():
            incident = self.state.incidents[identity]
            if mine.status == UNKNOWN and (incident.tenant, mine.policy) in self.store.outlines:
                changing = self.store.changing(identity)
                changing.status, changing.due_at = RUNNING, now

    def _fold_began(self, event: EscalationBegan, now: float) -> None:
        before = self.store.of(event.incident_id)
        after = Escalation(
            event.policy,
            event.route,
            RUNNING,
            event.due_at,
            event.level,
            event.round,
            began_at=now,
            why=event.why,
        )
        after.begun = [*([] if before is None else before.begun), now][-FLAPS:]
        if before is not None:
            # Pages are numbered on, and whoever was told still hears of the end.
            after.number, after.reached = before.number, before.reached
        # A snapshot that is under way takes what there was, with its pages, before they are forgotten.
        self.store.put(event.incident_id, after)
        if before is not None:
            self._forget_pages(event.incident_id, before)

    def _fold_unknown(self, event: EscalationUnknown, now: float) -> None:
        self.store.changing(event.incident_id).status = UNKNOWN

    def _fold_due(self, event: LevelDue, now: float) -> None:
        mine = self.store.changing(event.incident_id)
        mine.number = event.number
        mine.pages = [*mine.pages, OwedPage(event.number, event.level, event.round, now, now)]
        if event.level != OVER and not event.falls_back:
            mine.level, mine.round, mine.due_at = event.level + 1, event.round, event.next_at
        self._ready[event.incident_id, event.number] = None

    def _fold_told(self, event: LevelTold, now: float) -> None:
        mine = self.store.changing(event.incident_id)
        page = mine.page(event.number)
        assert page is not None
        self._asked.pop((event.incident_id, event.number), None)
        if event.level == OVER:
            mine.reached = [each for each in mine.reached if each not in event.told]
        else:
            mine.reached = [*dict.fromkeys([*mine.reached, *event.told])]
        if event.retry_at:
            page.attempt, page.due_at = event.attempt + 1, event.retry_at
            page.done = [*page.done, *event.told, *event.final]
        else:
            mine.pages = [each for each in mine.pages if each is not page]
        if event.next_at and mine.status == RUNNING:
            mine.due_at = min(mine.due_at, event.next_at)

    def _fold_paused(self, event: EscalationPaused, now: float) -> None:
        self.store.changing(event.incident_id).status = PAUSED

    def _fold_resumed(self, event: EscalationResumed, now: float) -> None:
        mine = self.store.changing(event.incident_id)
        mine.status, mine.due_at = RUNNING, event.due_at

    def _fold_stopped(self, event: EscalationStopped, now: float) -> None:
        mine = self.store.changing(event.incident_id)
        mine.status, mine.why, mine.ack_until = STOPPED, event.why, event.ack_until
        self._forget_pages(event.incident_id, mine)

    def _fold_ended(self, event: EscalationEnded, now: float) -> None:
        mine = self.store.changing(event.incident_id)
        mine.status, mine.why = ENDED, "nobody acknowledged"

    def _forget_pages(self, incident_id: bytes, mine: Escalation) -> None:
        for page in mine.pages:
            self._asked.pop((incident_id, page.number), None)
        mine.pages = []

    # -- incidents come and go -------------------------------------------------------------------------------

    def left(self, incident: Incident) -> None:
        mine = self.store.of(incident.id)
        if mine is not None:
            self.store.left(incident.id)
            self._forget_pages(incident.id, mine)
        self._held.pop(incident.id, None)
        self._without.pop(incident.id, None)

    def carries(self, incident: Incident) -> bytes | None:
        return self.store.carried(incident.id)

    def brings(self, incident: Incident, record: bytes) -> None:
        self.store.bring(incident.id, record)

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        if incident.id in self.store.all:
            self.store.set_back(incident.id, event)

    messages = {PoliciesChanged: _policies, Paged: _paged}
    effects = (Page,)
    reactions = {
        Moved: _moved,
        Judged: _judged,
        SplitOff: _is_split_off,
        Unmerged: _unmerged,
        Relabelled: _relabelled,
        Acknowledged: _acknowledged,
        Released: _released,
        Unattended: _unattended,
        Escalated: _escalated,
        Merging: _merging,
        Unmuted: _unmuted,
    }
    records = (
        RecordOf(
            ESCALATIONS,
            lambda self, number: self.store.capture(number),
            lambda self, number, record, version: self.store.load(number, record, version),
        ),
        RecordOf(
            POLICIES,
            lambda self, number: self.store.capture_policies(number),
            lambda self, number, record, version: self.store.load_policies(number, record, version),
        ),
    )
    events = (
        on(PoliciesKnown, _fold_known, whose=Whose.SHARD),
        on(EscalationBegan, _fold_began, Description(("EscalationBegan",), lines.began)),
        on(EscalationUnknown, _fold_unknown, Description(("EscalationFailed",), lines.unknown)),
        on(LevelDue, _fold_due, Description(("EscalationLevelDue",), lines.due)),
        on(
            LevelTold,
            _fold_told,
            Description(("EscalationTold", "EscalationFailed"), lines.told, lines.told_of),
        ),
        on(EscalationPaused, _fold_paused, Description(("EscalationPaused",), lines.paused)),
        on(EscalationResumed, _fold_resumed, Description(("EscalationResumed",), lines.resumed)),
        on(EscalationStopped, _fold_stopped, Description(("EscalationStopped",), lines.stopped)),
        on(EscalationEnded, _fold_ended, Description(("EscalationEnded",), lines.ended)),
    )


def _flaps(mine: Escalation, interval_s: float, now: float) -> bool:
    """Whether it began so often of late that the incident comes and goes (models/shard/flapping.py)."""
    return len(mine.begun) == FLAPS and now - mine.begun[0] < FLAP_WINDOW * interval_s


def _is_acknowledged(incident: Incident) -> bool:
    return incident.handling is not None and incident.handling.acknowledged is not None
