"""Who looks after an incident: somebody acknowledged it, for a while or until it ends, or people are assigned to it."""

from __future__ import annotations

from models.errors import Conflict, Malformed, TooLarge
from models.incidents.incident import Acknowledgement, Incident, IncidentState
from models.incidents.lines import SYSTEM, Around, Description, Line, changed, line_of
from models.incidents.notification import rfc3339
from models.incidents.query import Summary
from models.incidents.verbs import ASSIGNEES_MAX, ROLES_MAX, Acknowledge, Assign, Unacknowledge
from models.partition.event import Event
from models.shard import clock, lifecycle
from models.shard.changes import Acknowledged, Released
from models.shard.commands import check_name, must_be_open
from models.shard.component import Component, on
from models.shard.core import Core
from models.shard.events import ClockSetBack
from models.shard.messages import Command


class IncidentAcknowledged(Event, frozen=True):
    """Somebody acknowledged it until `until` (0: until it ends)."""

    incident_id: bytes
    actor: str
    until: float
    reason: str


class AcknowledgementEnded(Event, frozen=True):
    """Withdrawn by a person, or `expired`."""

    incident_id: bytes
    actor: str
    reason: str
    expired: bool = False


class AssignmentChanged(Event, frozen=True):
    """Who works on it now, all of them. `text` says what changed."""

    incident_id: bytes
    actor: str
    assignees: list[str]
    roles: dict[str, str]
    reason: str
    text: str


def _acknowledged(event: IncidentAcknowledged, _around: Around) -> Line:
    until = rfc3339(event.until) if event.until else ""
    text = event.reason or f"by {event.actor}"
    return line_of("Acknowledged", event.actor, text, event.reason, until=until)


def _let_go(event: AcknowledgementEnded, _around: Around) -> Line:
    text = "its time has passed" if event.expired else event.reason or f"taken back by {event.actor}"
    return line_of("AcknowledgementEnded", event.actor, text, event.reason)


def _assigned(event: AssignmentChanged, _around: Around) -> Line:
    return line_of("AssignmentChanged", event.actor, event.text, event.reason)


def _marked(summary: Summary, event: IncidentAcknowledged, now: float) -> Summary:
    return changed(summary, now, acknowledged=Acknowledgement(event.actor, now, event.until))


class Attention(Component):
    name = "attention"

    # -- verbs ---------------------------------------------------------------------------------------------

    def _acknowledge(self, incident: Incident, verb: Acknowledge, command: Command, now: float) -> Incident:
        actor = command.actor
        must_be_open(incident, "acknowledged")
        if verb.until and verb.until <= now:
            raise Malformed("until: expected a time in the future")
        before = None if incident.handling is None else incident.handling.acknowledged
        if before is None or (before.by, before.until) != (actor, verb.until):
            self.shard.do(IncidentAcknowledged(incident.id, actor, verb.until, command.reason), now)
            self.shard.report(Acknowledged(incident, actor, verb.until), now)
        lifecycle.attended(self.shard, incident, actor, f"acknowledged by {actor}", now)
        return incident

    def _unacknowledge(
        self, incident: Incident, _verb: Unacknowledge, command: Command, now: float
    ) -> Incident:
        actor = command.actor
        if incident.handling is not None and incident.handling.acknowledged is not None:
            self.shard.do(AcknowledgementEnded(incident.id, actor, command.reason), now)
            lifecycle.left_alone(self.shard, incident, actor, f"acknowledgement withdrawn by {actor}", now)
            self.shard.report(Released(incident, actor), now)
        return incident

    def _assign(self, incident: Incident, verb: Assign, command: Command, now: float) -> Incident:
        assign(self.shard, incident, verb, command.actor, command.reason, now)
        return incident

    # -- time ----------------------------------------------------------------------------------------------

    def next_at(self, incident: Incident) -> float:
        acknowledged = None if incident.handling is None else incident.handling.acknowledged
        return 0.0 if acknowledged is None or not incident.is_open else acknowledged.until

    def due(self, incident: Incident, now: float) -> None:
        self.shard.do(AcknowledgementEnded(incident.id, SYSTEM, "", expired=True), now)
        lifecycle.timed_out(self.shard, incident, now)

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        handling = incident.handling
        if handling is None:
            return
        if handling.acknowledged is not None:
            handling.acknowledged = clock.acknowledged(handling.acknowledged, event)
        handling.answered_at = clock.then(handling.answered_at, event)

    # -- live and in replay --------------------------------------------------------------------------------

    def _fold_acknowledged(self, event: IncidentAcknowledged, now: float) -> None:
        _incident, handling = self.state.edited(event.incident_id, now)
        handling.acknowledged = Acknowledgement(event.actor, now, event.until)
        handling.answered_at = handling.answered_at or now

    def _fold_let_go(self, event: AcknowledgementEnded, now: float) -> None:
        _incident, handling = self.state.edited(event.incident_id, now)
        handling.acknowledged = None

    def _fold_assigned(self, event: AssignmentChanged, now: float) -> None:
        incident, handling = self.state.edited(event.incident_id, now)
        incident.assignees, handling.roles = list(event.assignees), dict(event.roles)
        if event.assignees or event.roles:
            handling.answered_at = handling.answered_at or now

    verbs = {Acknowledge: _acknowledge, Unacknowledge: _unacknowledge, Assign: _assign}
    events = (
        on(
            IncidentAcknowledged,
            _fold_acknowledged,
            Description(("Acknowledged",), _acknowledged, summary=_marked),
        ),
        on(
            AcknowledgementEnded,
            _fold_let_go,
            Description(
                ("AcknowledgementEnded",),
                _let_go,
                summary=lambda s, _, now: changed(s, now, acknowledged=None),
            ),
        ),
        on(
            AssignmentChanged,
            _fold_assigned,
            Description(
                ("AssignmentChanged",),
                _assigned,
                summary=lambda s, e, now: changed(s, now, assignees=e.assignees),
            ),
        ),
    )


def assign(shard: Core, incident: Incident, verb: Assign, actor: str, reason: str, now: float) -> None:
    """Who works on an incident from now on. Raises Refused."""
    if incident.state is IncidentState.CLOSED:
        raise Conflict("it is closed: reopen it first")
    for field, names in (("add", verb.add), ("remove", verb.remove)):
        for name in names:
            check_name(field, name)
    removed = set(verb.remove)
    assignees = [each for each in dict.fromkeys([*incident.assignees, *verb.add]) if each not in removed]
    if len(assignees) > ASSIGNEES_MAX:
        raise TooLarge(f"add: an incident has at most {ASSIGNEES_MAX} assignees")
    before = {} if incident.handling is None else incident.handling.roles
    roles = dict(before)
    for role, name in verb.roles.items():
        check_name("roles", role)
        if name:
            check_name(f"roles.{role}", name)
            roles[role] = name
        else:
            roles.pop(role, None)
    if len(roles) > ROLES_MAX:
        raise TooLarge(f"roles: an incident has at most {ROLES_MAX} roles")
    said = [f"+{each}" for each in assignees if each not in incident.assignees]
    said += [f"-{each}" for each in incident.assignees if each not in assignees]
    said += [f"{role}: {name}" for role, name in roles.items() if before.get(role) != name]
    said += [f"{role}: nobody" for role in before if role not in roles]
    if said:
        shard.do(AssignmentChanged(incident.id, actor, assignees, roles, reason, ", ".join(said)), now)
    if assignees or roles:
        lifecycle.attended(shard, incident, actor, f"assigned by {actor}", now)
    elif said:
        lifecycle.left_alone(shard, incident, actor, f"nobody is assigned any more, by {actor}", now)
