"""What people do to an incident's state: create, resolve, close and reopen it."""

from __future__ import annotations

from models.errors import Conflict, Malformed, TooLarge
from models.incidents.incident import MANUAL, Incident, IncidentState, Override, id_text, incident_id
from models.incidents.verbs import (
    ASSIGNEES_MAX,
    LABEL_VALUE_MAX,
    LABELS_MAX,
    METHODS,
    TEXT_MAX,
    TITLE_MAX,
    Assign,
    Close,
    Create,
    Reopen,
    Resolve,
)
from models.partition.sharding import slot_of
from models.shard import attention, lifecycle, people
from models.shard.changes import Opened
from models.shard.commands import check_name, check_text, must_be_open
from models.shard.component import Component
from models.shard.events import IncidentOpened
from models.shard.messages import Command


class ByHand(Component):
    name = "by hand"

    def _create(self, _none: None, verb: Create, command: Command, now: float) -> Incident:
        check_name("service", verb.service)
        check_text("title", verb.title, TITLE_MAX)
        if not verb.title.strip():
            raise Malformed("title: must not be empty")
        check_text("description", verb.description, TEXT_MAX)
        if verb.impact:
            check_name("impact", verb.impact)
        if len(verb.labels) > LABELS_MAX:
            raise TooLarge(f"labels: an incident has at most {LABELS_MAX} labels")
        for name, value in verb.labels.items():
            check_name("labels", name)
            check_text(f"labels.{name}", value, LABEL_VALUE_MAX)
        for name in verb.assignees:
            check_name("assignees", name)
        if len(set(verb.assignees)) > ASSIGNEES_MAX:
            raise TooLarge(f"assignees: an incident has at most {ASSIGNEES_MAX} assignees")
        if self.shard.state.open_count >= self.shard.settings.max_open:
            raise Conflict("max_concurrent_incidents is reached: resolve others first")
        slot = slot_of(command.tenant, verb.service)
        # A command is a frame of its own: epoch and seq tell two of them apart.
        identity = incident_id(slot, now, self.shard.epoch, self.shard.seq, "by hand")
        self.shard.do(
            IncidentOpened(
                identity,
                slot,
                command.tenant,
                verb.service,
                "",
                {"service": verb.service},
                verb.title,
                verb.description,
                f"by hand: {command.actor}",
                verb.labels,
                {},
                created_by=command.actor,
            ),
            now,
        )
        incident = self.shard.state.incidents[identity]
        self.shard.report(Opened(incident), now)
        said = Override(verb.severity, verb.type, verb.impact or None)
        if said != Override():
            people.override(self.shard, incident, said, command.actor, command.reason, now)
        if verb.assignees:
            attention.assign(self.shard, incident, Assign(verb.assignees), command.actor, command.reason, now)
        return incident

    def _resolve(self, incident: Incident, verb: Resolve, command: Command, now: float) -> Incident:
        if verb.method not in METHODS:
            raise Malformed(f"method: expected one of {', '.join(METHODS)}, not {verb.method!r}")
        check_text("notes", verb.notes, TEXT_MAX)
        check_text("root_cause", verb.root_cause or "", TEXT_MAX)
        if incident.state is IncidentState.RESOLVED:
            # Not ignored: its notes would be lost silently.
            raise Conflict("it is already Resolved: to change how, reopen it first")
        must_be_open(incident, "resolved")
        lifecycle.resolve(self.shard, incident, command.actor, verb.method, verb.notes, now, verb.root_cause)
        return incident

    def _close(self, incident: Incident, _verb: Close, command: Command, now: float) -> Incident:
        if incident.state is IncidentState.CLOSED:
            return incident
        if incident.state is not IncidentState.RESOLVED:
            raise Conflict(f"it is {incident.state}: resolve it first")
        if incident.firing:
            raise Conflict(
                f"{incident.firing} of its alerts still fire: it can be closed when they have ended"
            )
        if any(child.is_open for child in incident.children.values()):
            raise Conflict(
                "some of its child incidents are still open: it can be closed when they have ended"
            )
        lifecycle.move(
            self.shard, incident, IncidentState.CLOSED, command.actor, command.reason or "closed by hand", now
        )
        return incident

    def _reopen(self, incident: Incident, _verb: Reopen, command: Command, now: float) -> Incident:
        if incident.is_open:
            return incident
        other = (
            None
            if incident.is_by_hand
            else self.shard.state.by_group.get((incident.tenant, incident.group_key))
        )
        if other is not None and other is not incident:
            if other.is_open:
                raise Conflict(f"incident {id_text(other.id)} of the same group is open: work on that one")
            if lifecycle.may_reopen(self.shard, other, now):
                # It would be open beside this one as soon as one of its children continues, or its alerts that still
                # fire reopen it.
                raise Conflict(
                    f"incident {id_text(other.id)} of the same group can still be reopened: reopen that one instead"
                )
        if self.shard.state.open_count >= self.shard.settings.max_open:
            raise Conflict("max_concurrent_incidents is reached: resolve others first")
        lifecycle.reopen(
            self.shard, incident, now, command.actor, command.reason or "reopened by hand", method=MANUAL
        )
        return incident

    verbs = {Create: _create, Resolve: _resolve, Close: _close, Reopen: _reopen}
