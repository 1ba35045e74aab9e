"""What people record about an incident: acknowledgements, assignments, overrides, comments. Decided here, one function
for each verb, and folded here. What they do to its state is in models/shard/by_hand.py, verbs over two incidents in
models/shard/children.py.
"""

from __future__ import annotations

import msgspec

from models.errors import Conflict, Malformed, TooLarge
from models.incidents.incident import (
    Acknowledgement,
    Handling,
    Incident,
    IncidentState,
    Override,
    StakeholderUpdate,
)
from models.incidents.lines import SYSTEM, Around, Line, Seen, Told, changed, counted_anew, noted, told
from models.incidents.notification import rfc3339
from models.incidents.query import Summary
from models.incidents.verbs import (
    ASSIGNEES_MAX,
    CLEARABLE,
    LABEL_VALUE_MAX,
    LABELS_MAX,
    ROLES_MAX,
    TEXT_MAX,
    WRITTEN_BYTES_MAX,
    WRITTEN_LINES_MAX,
    Acknowledge,
    Assign,
    Comment,
    Label,
    Reclassify,
    Unacknowledge,
    Update,
)
from models.shard import clock, lifecycle
from models.shard.commands import check_name, check_text, must_be_open
from models.shard.component import Component, on
from models.shard.core import Core
from models.shard.events import (
    AcknowledgementEnded,
    AssignmentChanged,
    ClockSetBack,
    CommentAdded,
    IncidentAcknowledged,
    IncidentReclassified,
    LabelsChanged,
    StakeholdersUpdated,
    UpdateMissed,
)
from models.shard.messages import Command

#: Stakeholder updates kept for display; the timeline has all.
UPDATES_KEPT = 20


def _acknowledged(event: IncidentAcknowledged, _around: Around) -> Line:
    until = rfc3339(event.until) if event.until else ""
    text = event.reason or f"by {event.actor}"
    return told("Acknowledged", event.actor, text, event.reason, until=until)


def _let_go(event: AcknowledgementEnded, _around: Around) -> Line:
    text = "its time has passed" if event.expired else event.reason or f"taken back by {event.actor}"
    return told("AcknowledgementEnded", event.actor, text, event.reason)


def _assigned(event: AssignmentChanged, _around: Around) -> Line:
    return told("AssignmentChanged", event.actor, event.text, event.reason)


def _commented(event: CommentAdded, _around: Around) -> Line:
    return Line("CommentAdded", event.actor, event.text)


def _labelled(event: LabelsChanged, _around: Around) -> Line:
    changes = [f"{name}={value}" for name, value in event.set.items()]
    changes += [f"without {name}" for name in event.removed]
    return told("LabelsChanged", event.actor, ", ".join(changes), event.reason)


def _reclassified(event: IncidentReclassified, around: Around) -> Line:
    text = _counted(around.after)
    if around.before is not None:
        text = f"{_counted(around.before)} -> {text}"
    return told("Reclassified", event.actor, text, event.reason)


def _updated(event: StakeholdersUpdated, _around: Around) -> Line:
    return told("StakeholdersUpdated", event.actor, event.text, audience=event.audience)


def _missed(_event: UpdateMissed, _around: Around) -> Line:
    return Line("UpdateMissed", SYSTEM, "the promised update did not come")


def _counted(seen: Seen) -> str:
    counts = seen.counts
    return f"{counts.severity.name} {counts.type}" + (f" {counts.impact}" if counts.impact else "")


def _marked(summary: Summary, event: IncidentAcknowledged, now: float) -> Summary:
    return changed(summary, now, acknowledged=Acknowledgement(event.actor, now, event.until))


def _relabelled(summary: Summary, event: LabelsChanged, now: float) -> Summary:
    kept = {name: value for name, value in summary.labels.items() if name not in event.removed}
    return changed(summary, now, labels={**kept, **event.set})


class People(Component):
    name = "people"

    # -- verbs ---------------------------------------------------------------------------------------------

    def _acknowledge(self, incident: Incident, verb: Acknowledge, command: Command, now: float) -> Incident:
        actor = command.actor
        must_be_open(incident, "acknowledged")
        if verb.until and verb.until <= now:
            raise Malformed("until: expected a time in the future")
        before = None if incident.handling is None else incident.handling.acknowledged
        if before is None or (before.by, before.until) != (actor, verb.until):
            self.shard.do(IncidentAcknowledged(incident.id, actor, verb.until, command.reason), now)
        lifecycle.attended(self.shard, incident, actor, f"acknowledged by {actor}", now)
        return incident

    def _unacknowledge(
        self, incident: Incident, _verb: Unacknowledge, command: Command, now: float
    ) -> Incident:
        actor = command.actor
        if incident.handling is not None and incident.handling.acknowledged is not None:
            self.shard.do(AcknowledgementEnded(incident.id, actor, command.reason), now)
            lifecycle.left_alone(self.shard, incident, actor, f"acknowledgement withdrawn by {actor}", now)
        return incident

    def _assign(self, incident: Incident, verb: Assign, command: Command, now: float) -> Incident:
        assign(self.shard, incident, verb, command.actor, command.reason, now)
        return incident

    def _comment(self, incident: Incident, verb: Comment, command: Command, now: float) -> Incident:
        _write(incident, verb.text)
        self.shard.do(CommentAdded(incident.id, command.actor, verb.text), now)
        return incident

    def _label(self, incident: Incident, verb: Label, command: Command, now: float) -> Incident:
        for name, value in verb.set.items():
            check_name("set", name)
            check_text(f"set.{name}", value, LABEL_VALUE_MAX)
        for name in verb.remove:
            check_name("remove", name)
            if name in verb.set:
                raise Malformed(f"remove: {name!r} is set in the same request")
        changed = {name: value for name, value in verb.set.items() if incident.labels.get(name) != value}
        removed = [name for name in dict.fromkeys(verb.remove) if name in incident.labels]
        if len({*incident.labels, *changed} - {*removed}) > max(LABELS_MAX, len(incident.labels)):
            raise TooLarge(f"set: an incident has at most {LABELS_MAX} labels")
        if changed or removed:
            self.shard.do(LabelsChanged(incident.id, command.actor, changed, removed, command.reason), now)
        return incident

    def _reclassify(self, incident: Incident, verb: Reclassify, command: Command, now: float) -> Incident:
        if incident.state is IncidentState.CLOSED:
            raise Conflict("it is closed: reopen it first")
        said = Override() if incident.handling is None else incident.handling.override
        values = {"severity": verb.severity, "type": verb.type, "impact": verb.impact}
        for name in verb.clear:
            if name not in CLEARABLE:
                raise Malformed(f"clear: expected one or more of {', '.join(CLEARABLE)}, not {name!r}")
            if values[name] is not None:
                raise Malformed(f"clear: {name} is given in the same request")
        if verb.impact is not None:
            check_name("impact", verb.impact)
        given = {name: value for name, value in values.items() if value is not None}
        wanted = msgspec.structs.replace(said, **dict.fromkeys(verb.clear), **given)
        if wanted != said:
            override(self.shard, incident, wanted, command.actor, command.reason, now)
        return incident

    def _update(self, incident: Incident, verb: Update, command: Command, now: float) -> Incident:
        check_name("audience", verb.audience)
        if verb.next_due_at and verb.next_due_at <= now:
            raise Malformed("next_due_at: expected a time in the future")
        _write(incident, verb.text)
        self.shard.do(
            StakeholdersUpdated(incident.id, command.actor, verb.audience, verb.text, verb.next_due_at), now
        )
        return incident

    # -- time ----------------------------------------------------------------------------------------------

    def next_at(self, incident: Incident) -> float:
        handling = incident.handling
        if handling is None or not incident.is_open:
            return 0.0
        until = 0.0 if handling.acknowledged is None else handling.acknowledged.until
        update = handling.update_due_at
        return min(until, update) if until and update else until or update

    def due(self, incident: Incident, now: float) -> None:
        handling = incident.handling
        if handling is None or not incident.is_open:
            return
        acknowledged = handling.acknowledged
        if acknowledged is not None and acknowledged.until and acknowledged.until <= now:
            self.shard.do(AcknowledgementEnded(incident.id, SYSTEM, "", expired=True), now)
            lifecycle.timed_out(self.shard, incident, now)
        if handling.update_due_at and handling.update_due_at <= now:
            self.shard.do(UpdateMissed(incident.id, handling.update_due_at), now)

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        after, handling = event.after, incident.handling
        if handling is None:
            return
        if handling.acknowledged is not None:
            handling.acknowledged = clock.acknowledged(handling.acknowledged, event)
        handling.answered_at = clock.then(handling.answered_at, event)
        if handling.updates and handling.updates[-1].at > after:
            handling.update_due_at = clock.due(handling.update_due_at, event)
            handling.updates = [
                msgspec.structs.replace(
                    each, at=clock.then(each.at, event), next_due_at=clock.due(each.next_due_at, event)
                )
                if each.at > after
                else each
                for each in handling.updates
            ]

    # -- live and in replay --------------------------------------------------------------------------------

    def _said(self, identity: bytes, now: float) -> tuple[Incident, Handling]:
        incident = self.state.changing(identity)
        handling = incident.handled()
        incident.updated_at = now
        incident.version += 1
        return incident, handling

    def _fold_acknowledged(self, event: IncidentAcknowledged, now: float) -> None:
        _incident, handling = self._said(event.incident_id, now)
        handling.acknowledged = Acknowledgement(event.actor, now, event.until)
        handling.answered_at = handling.answered_at or now

    def _fold_let_go(self, event: AcknowledgementEnded, now: float) -> None:
        _incident, handling = self._said(event.incident_id, now)
        handling.acknowledged = None

    def _fold_assigned(self, event: AssignmentChanged, now: float) -> None:
        incident, handling = self._said(event.incident_id, now)
        incident.assignees, handling.roles = list(event.assignees), dict(event.roles)
        if event.assignees or event.roles:
            handling.answered_at = handling.answered_at or now

    def _fold_commented(self, event: CommentAdded, now: float) -> None:
        _incident, handling = self._said(event.incident_id, now)
        _wrote(handling, event.text)

    def _fold_labelled(self, event: LabelsChanged, now: float) -> None:
        incident, handling = self._said(event.incident_id, now)
        kept = {name: value for name, value in incident.labels.items() if name not in event.removed}
        incident.labels = {**kept, **event.set}
        handling.labels = {**(handling.labels or {}), **event.set, **dict.fromkeys(event.removed)}

    def _fold_reclassified(self, event: IncidentReclassified, now: float) -> None:
        incident, handling = self._said(event.incident_id, now)
        handling.override = event.override
        incident.settle()

    def _fold_updated(self, event: StakeholdersUpdated, now: float) -> None:
        _incident, handling = self._said(event.incident_id, now)
        _wrote(handling, event.text)
        update = StakeholderUpdate(now, event.actor, event.audience, event.text, event.next_due_at)
        handling.updates = [*handling.updates, update][-UPDATES_KEPT:]
        handling.update_due_at = event.next_due_at

    def _fold_missed(self, event: UpdateMissed, now: float) -> None:
        # Nothing that people edit changes, so the incident's version stays.
        self.state.changing(event.incident_id).handled().update_due_at = 0.0

    verbs = {
        Acknowledge: _acknowledge,
        Unacknowledge: _unacknowledge,
        Assign: _assign,
        Comment: _comment,
        Label: _label,
        Reclassify: _reclassify,
        Update: _update,
    }
    events = (
        on(IncidentAcknowledged, _fold_acknowledged, Told(("Acknowledged",), _acknowledged, summary=_marked)),
        on(
            AcknowledgementEnded,
            _fold_let_go,
            Told(
                ("AcknowledgementEnded",),
                _let_go,
                summary=lambda s, _, now: changed(s, now, acknowledged=None),
            ),
        ),
        on(
            AssignmentChanged,
            _fold_assigned,
            Told(
                ("AssignmentChanged",),
                _assigned,
                summary=lambda s, e, now: changed(s, now, assignees=e.assignees),
            ),
        ),
        on(CommentAdded, _fold_commented, Told(("CommentAdded",), _commented, summary=noted)),
        on(
            LabelsChanged,
            _fold_labelled,
            Told(("LabelsChanged",), _labelled, summary=_relabelled, sifts=True),
        ),
        on(
            IncidentReclassified,
            _fold_reclassified,
            Told(
                ("Reclassified",),
                _reclassified,
                summary=lambda s, e, now: counted_anew(changed(s, now, override=e.override)),
                compares=True,
                sifts=True,
            ),
        ),
        on(StakeholdersUpdated, _fold_updated, Told(("StakeholdersUpdated",), _updated, summary=noted)),
        on(UpdateMissed, _fold_missed, Told(("UpdateMissed",), _missed)),
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


def override(shard: Core, incident: Incident, said: Override, actor: str, reason: str, now: float) -> None:
    """Set all overrides of an incident."""
    before = incident.severity
    shard.do(IncidentReclassified(incident.id, actor, said, reason), now)
    if said.severity is not None or incident.severity != before:
        lifecycle.judged(shard, incident, before, f"severity set by {actor}", actor, now)


def _write(incident: Incident, text: str) -> None:
    """Room for what a person writes into an incident."""
    check_text("text", text, TEXT_MAX)
    if not text.strip():
        raise Malformed("text: must not be empty")
    handling = incident.handling
    if handling is None:
        return
    if handling.written_lines >= WRITTEN_LINES_MAX:
        raise Conflict(
            f"it holds {WRITTEN_LINES_MAX} comments and updates already: continue in a linked incident"
        )
    if handling.written_bytes + len(text.encode("utf-8", "surrogatepass")) > WRITTEN_BYTES_MAX:
        raise Conflict(f"it holds {WRITTEN_BYTES_MAX} bytes of text already: continue in a linked incident")


def _wrote(handling: Handling, text: str) -> None:
    handling.written_lines += 1
    handling.written_bytes += len(text.encode("utf-8", "surrogatepass"))
