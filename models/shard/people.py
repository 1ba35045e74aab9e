"""What people do to an incident: decided here, one function a verb, and folded here. Called by models/shard/shard.py.

A verb that is refused makes no event, and says what can be done instead. A verb that changes nothing makes none
either and is no error: two people who acknowledge at the same time both succeed. Verbs over two incidents are in
models/shard/children.py.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import msgspec

from models.errors import Conflict, Malformed, NotFound, Stale, TooLarge
from models.incidents.incident import (
    MANUAL,
    Acknowledgement,
    Incident,
    IncidentState,
    Override,
    StakeholderUpdate,
    incident_id,
)
from models.incidents.notification import rfc3339
from models.incidents.verbs import (
    ASSIGNEES_MAX,
    CLEARABLE,
    LABEL_VALUE_MAX,
    LABELS_MAX,
    METHODS,
    NAME_MAX,
    REASON_MAX,
    ROLES_MAX,
    TEXT_MAX,
    TITLE_MAX,
    WRITTEN_BYTES_MAX,
    WRITTEN_LINES_MAX,
    Acknowledge,
    Assign,
    Close,
    Comment,
    Create,
    Label,
    Link,
    Merge,
    Reclassify,
    Reopen,
    Resolve,
    Split,
    Unacknowledge,
    Unlink,
    Unmerge,
    Update,
)
from models.partition.sharding import slot_of
from models.shard import children, notifications
from models.shard.events import (
    AcknowledgementEnded,
    AssignmentChanged,
    CommentAdded,
    IncidentAcknowledged,
    IncidentOpened,
    IncidentReclassified,
    LabelsChanged,
    StakeholdersUpdated,
)
from models.shard.messages import Command

if TYPE_CHECKING:
    from models.shard.shard import Shard
    from models.shard.state import ShardState

#: A person who resolves an incident whose alerts still fire is believed for so long; then it is opened again.
STILL_FIRING_S = 1800.0
#: Updates to stakeholders that are kept to be shown; the timeline has all.
UPDATES_KEPT = 20

PeopleEvent = (
    IncidentAcknowledged
    | AcknowledgementEnded
    | AssignmentChanged
    | CommentAdded
    | LabelsChanged
    | IncidentReclassified
    | StakeholdersUpdated
)
_S = IncidentState
#: What may be done to an incident that is a part of another; everything else is done to the whole.
_OF_A_PART = Comment | Label | Link | Unlink


def decide(shard: Shard, command: Command, now: float) -> Incident:
    """Do what a person asks, or raise Refused: NotFound, Conflict, Stale, Malformed, TooLarge. Returns the incident
    it was about; for Create and Split the new one."""
    _check_name("actor", command.actor)
    _check_text("reason", command.reason, REASON_MAX)
    verb, actor, reason = command.verb, command.actor, command.reason
    if isinstance(verb, Create):
        return _create(shard, command.tenant, verb, actor, reason, now)
    incident = shard.incidents.get(command.incident_id)
    if incident is None or incident.tenant != command.tenant:
        raise NotFound("there is no such incident, or it is archived")
    if command.if_version is not None and command.if_version != incident.version:
        raise Stale(
            f"it has version {incident.version} and not {command.if_version}: somebody changed it meanwhile"
        )
    if incident.merged_into and not isinstance(verb, _OF_A_PART):
        whole = children.written(incident.merged_into)
        raise Conflict(f"it is a part of incident {whole}: do it there, or unmerge it there first")
    match verb:
        case Acknowledge():
            _acknowledge(shard, incident, verb, actor, reason, now)
        case Unacknowledge():
            if incident.handling is not None and incident.handling.acknowledged is not None:
                shard.do(AcknowledgementEnded(incident.id, actor, reason), now)
                shard.left_alone(incident, actor, f"acknowledgement taken back by {actor}", now)
        case Assign():
            _assign(shard, incident, verb, actor, reason, now)
        case Comment():
            _write(incident, verb.text)
            shard.do(CommentAdded(incident.id, actor, verb.text), now)
        case Label():
            _label(shard, incident, verb, actor, reason, now)
        case Reclassify():
            _reclassify(shard, incident, verb, actor, reason, now)
        case Resolve():
            _resolve(shard, incident, verb, actor, now)
        case Close():
            _close(shard, incident, actor, reason, now)
        case Reopen():
            _reopen(shard, incident, actor, reason, now)
        case Update():
            _update(shard, incident, verb, actor, now)
        case Link():
            children.link(shard, incident, verb.other, actor, reason, now)
        case Unlink():
            children.unlink(shard, incident, verb.other, actor, reason, now)
        case Merge():
            children.merge(shard, incident, verb.source, actor, reason, now)
        case Unmerge():
            children.unmerge(shard, incident, verb.source, actor, reason, now)
        case Split():
            _check_text("title", verb.title, TITLE_MAX)
            return children.split(shard, incident, verb, actor, reason, now)
    return incident


# -- one verb each -----------------------------------------------------------------------------------------------


def _acknowledge(
    shard: Shard, incident: Incident, verb: Acknowledge, actor: str, reason: str, now: float
) -> None:
    _must_be_open(incident, "acknowledged")
    if verb.until and verb.until <= now:
        raise Malformed("until: expected a time that is still to come")
    before = None if incident.handling is None else incident.handling.acknowledged
    if before is None or (before.by, before.until) != (actor, verb.until):
        shard.do(IncidentAcknowledged(incident.id, actor, verb.until, reason), now)
    _attended(shard, incident, actor, f"acknowledged by {actor}", now)


def _assign(shard: Shard, incident: Incident, verb: Assign, actor: str, reason: str, now: float) -> None:
    if incident.state is _S.CLOSED:
        raise Conflict("it is closed: reopen it first")
    for field, names in (("add", verb.add), ("remove", verb.remove)):
        for name in names:
            _check_name(field, name)
    removed = set(verb.remove)
    assignees = [each for each in dict.fromkeys([*incident.assignees, *verb.add]) if each not in removed]
    if len(assignees) > ASSIGNEES_MAX:
        raise TooLarge(f"add: at most {ASSIGNEES_MAX} people are assigned to an incident")
    before = {} if incident.handling is None else incident.handling.roles
    roles = dict(before)
    for role, name in verb.roles.items():
        _check_name("roles", role)
        if name:
            _check_name(f"roles.{role}", name)
            roles[role] = name
        else:
            roles.pop(role, None)
    if len(roles) > ROLES_MAX:
        raise TooLarge(f"roles: at most {ROLES_MAX} roles an incident")
    said = [f"+{each}" for each in assignees if each not in incident.assignees]
    said += [f"-{each}" for each in incident.assignees if each not in assignees]
    said += [f"{role}: {name}" for role, name in roles.items() if before.get(role) != name]
    said += [f"{role}: nobody" for role in before if role not in roles]
    if said:
        shard.do(AssignmentChanged(incident.id, actor, assignees, roles, reason, ", ".join(said)), now)
    if assignees or roles:
        _attended(shard, incident, actor, f"assigned by {actor}", now)
    elif said:
        shard.left_alone(incident, actor, f"nobody is assigned any more, by {actor}", now)


def _attended(shard: Shard, incident: Incident, actor: str, reason: str, now: float) -> None:
    if incident.state in (_S.DETECTED, _S.TRIAGED):
        shard.move(incident, _S.INVESTIGATING, actor, reason, now)


def _label(shard: Shard, incident: Incident, verb: Label, actor: str, reason: str, now: float) -> None:
    for name, value in verb.set.items():
        _check_name("set", name)
        _check_text(f"set.{name}", value, LABEL_VALUE_MAX)
    for name in verb.remove:
        _check_name("remove", name)
        if name in verb.set:
            raise Malformed(f"remove: {name!r} is set in the same request")
    changed = {name: value for name, value in verb.set.items() if incident.labels.get(name) != value}
    removed = [name for name in dict.fromkeys(verb.remove) if name in incident.labels]
    if len({*incident.labels, *changed} - {*removed}) > max(LABELS_MAX, len(incident.labels)):
        raise TooLarge(f"set: at most {LABELS_MAX} labels an incident")
    if changed or removed:
        shard.do(LabelsChanged(incident.id, actor, changed, removed, reason), now)


def _reclassify(
    shard: Shard, incident: Incident, verb: Reclassify, actor: str, reason: str, now: float
) -> None:
    if incident.state is _S.CLOSED:
        raise Conflict("it is closed: reopen it first")
    said = Override() if incident.handling is None else incident.handling.override
    values = {"severity": verb.severity, "type": verb.type, "impact": verb.impact}
    for name in verb.clear:
        if name not in CLEARABLE:
            raise Malformed(f"clear: expected some of {', '.join(CLEARABLE)}, not {name!r}")
        if values[name] is not None:
            raise Malformed(f"clear: {name} is given in the same request")
    if verb.impact is not None:
        _check_name("impact", verb.impact)
    given = {name: value for name, value in values.items() if value is not None}
    wanted = msgspec.structs.replace(said, **dict.fromkeys(verb.clear), **given)
    if wanted != said:
        _say(shard, incident, wanted, actor, reason, now)


def _say(shard: Shard, incident: Incident, said: Override, actor: str, reason: str, now: float) -> None:
    before = incident.severity
    shard.do(IncidentReclassified(incident.id, actor, said, reason), now)
    if said.severity is not None or incident.severity != before:
        shard.judged(incident, before, f"severity given by {actor}", actor, now)


def _resolve(shard: Shard, incident: Incident, verb: Resolve, actor: str, now: float) -> None:
    if verb.method not in METHODS:
        raise Malformed(f"method: expected one of {', '.join(METHODS)}, not {verb.method!r}")
    _check_text("notes", verb.notes, TEXT_MAX)
    _check_text("root_cause", verb.root_cause or "", TEXT_MAX)
    if incident.state is _S.RESOLVED:
        # Not passed over: its notes would be lost without a word.
        raise Conflict("it is Resolved already: reopen it first to resolve it in other words")
    _must_be_open(incident, "resolved")
    resolve(shard, incident, actor, verb.method, verb.notes, now, verb.root_cause)


def resolve(
    shard: Shard,
    incident: Incident,
    actor: str,
    method: str,
    notes: str,
    now: float,
    root_cause: str | None = None,
) -> None:
    """An open incident ends because a person says so, and its parts with it. Alerts that go on firing are believed
    again after STILL_FIRING_S."""
    again_at = now + STILL_FIRING_S if incident.firing else 0.0
    reason = notes or "resolved by hand"
    shard.move(incident, _S.RESOLVED, actor, reason, now, method, root_cause, again_at)
    notifications.owe_resolved(shard, incident, now)
    children.end_all(shard, incident, actor, method, notes, now)


def _close(shard: Shard, incident: Incident, actor: str, reason: str, now: float) -> None:
    if incident.state is _S.CLOSED:
        return
    if incident.state is not _S.RESOLVED:
        raise Conflict(f"it is {incident.state}: resolve it first")
    if incident.firing:
        raise Conflict(f"{incident.firing} of its alerts still fire: it can be closed when they have ended")
    if any(part.is_open for part in incident.children.values()):
        raise Conflict("some of its parts are still open: it can be closed when they have ended")
    shard.move(incident, _S.CLOSED, actor, reason or "closed by hand", now)


def _reopen(shard: Shard, incident: Incident, actor: str, reason: str, now: float) -> None:
    if incident.is_open:
        return
    other = None if incident.is_by_hand else shard.by_group.get((incident.tenant, incident.group_key))
    if other is not None and other is not incident:
        if other.is_open:
            raise Conflict(
                f"incident {children.written(other.id)} of the same group is open: work on that one"
            )
        if shard.may_reopen(other, now):
            # It would be open beside this one as soon as a part of it goes on, or what still fires is believed again.
            raise Conflict(
                f"incident {children.written(other.id)} of the same group may go on: reopen that one"
            )
    if shard.open_count >= shard.settings.max_open:
        raise Conflict("max_concurrent_incidents is reached: resolve others first")
    shard.reopen(incident, now, actor, reason or "reopened by hand", method=MANUAL)


def _update(shard: Shard, incident: Incident, verb: Update, actor: str, now: float) -> None:
    _check_name("audience", verb.audience)
    if verb.next_due_at and verb.next_due_at <= now:
        raise Malformed("next_due_at: expected a time that is still to come")
    _write(incident, verb.text)
    shard.do(StakeholdersUpdated(incident.id, actor, verb.audience, verb.text, verb.next_due_at), now)


def _create(shard: Shard, tenant: str, verb: Create, actor: str, reason: str, now: float) -> Incident:
    _check_name("service", verb.service)
    _check_text("title", verb.title, TITLE_MAX)
    if not verb.title.strip():
        raise Malformed("title: expected some words")
    _check_text("description", verb.description, TEXT_MAX)
    if verb.impact:
        _check_name("impact", verb.impact)
    if len(verb.labels) > LABELS_MAX:
        raise TooLarge(f"labels: at most {LABELS_MAX} labels an incident")
    for name, value in verb.labels.items():
        _check_name("labels", name)
        _check_text(f"labels.{name}", value, LABEL_VALUE_MAX)
    for name in verb.assignees:
        _check_name("assignees", name)
    if len(set(verb.assignees)) > ASSIGNEES_MAX:
        raise TooLarge(f"assignees: at most {ASSIGNEES_MAX} people are assigned to an incident")
    if shard.open_count >= shard.settings.max_open:
        raise Conflict("max_concurrent_incidents is reached: resolve others first")
    slot = slot_of(tenant, verb.service)
    # A command is a frame of its own: epoch and seq tell two of them apart.
    identity = incident_id(slot, now, shard.epoch, shard.seq, "by hand")
    shard.do(
        IncidentOpened(
            identity,
            slot,
            tenant,
            verb.service,
            "",
            {"service": verb.service},
            verb.title,
            verb.description,
            f"by hand: {actor}",
            verb.labels,
            {},
            created_by=actor,
        ),
        now,
    )
    incident = shard.incidents[identity]
    said = Override(verb.severity, verb.type, verb.impact or None)
    if said != Override():
        _say(shard, incident, said, actor, reason, now)
    if verb.assignees:
        _assign(shard, incident, Assign(verb.assignees), actor, reason, now)
    return incident


# -- checks ------------------------------------------------------------------------------------------------------


def _must_be_open(incident: Incident, what: str) -> None:
    if not incident.is_open:
        raise Conflict(f"it is {incident.state} and can't be {what}: reopen it first")


def _write(incident: Incident, text: str) -> None:
    """Room for what a person writes into an incident."""
    _check_text("text", text, TEXT_MAX)
    if not text.strip():
        raise Malformed("text: expected some words")
    handling = incident.handling
    if handling is None:
        return
    if handling.written_lines >= WRITTEN_LINES_MAX:
        raise Conflict(
            f"it holds {WRITTEN_LINES_MAX} comments and updates already: write into a linked incident"
        )
    if handling.written_bytes + len(text.encode("utf-8", "surrogatepass")) > WRITTEN_BYTES_MAX:
        raise Conflict(f"it holds {WRITTEN_BYTES_MAX} bytes of text already: write into a linked incident")


def _check_text(field: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise TooLarge(f"{field}: expected at most {longest} characters, not {len(text)}")


def _check_name(field: str, name: str) -> None:
    if not name.strip():
        raise Malformed(f"{field}: expected a name, not nothing")
    if len(name) > NAME_MAX:
        raise TooLarge(f"{field}: expected a name of at most {NAME_MAX} characters, not {len(name)}")
    if not name.isprintable():
        raise Malformed(f"{field}: expected a name of printable characters")


# -- live and in replay ------------------------------------------------------------------------------------------


def apply(shard: ShardState, event: PeopleEvent, now: float) -> None:
    """Fold one event into the incident it is about."""
    incident = shard.changing(event.incident_id)
    handling = incident.handled()
    incident.updated_at = now
    incident.version += 1
    match event:
        case IncidentAcknowledged():
            handling.acknowledged = Acknowledgement(event.actor, now, event.until)
            handling.answered_at = handling.answered_at or now
            until = rfc3339(event.until) if event.until else ""
            text = event.reason or f"by {event.actor}"
            shard.line(incident, now, "Acknowledged", event.actor, text, until=until)
        case AcknowledgementEnded():
            handling.acknowledged = None
            text = "its time has passed" if event.expired else event.reason or f"taken back by {event.actor}"
            shard.line(incident, now, "AcknowledgementEnded", event.actor, text)
        case AssignmentChanged():
            incident.assignees, handling.roles = list(event.assignees), dict(event.roles)
            if event.assignees or event.roles:
                handling.answered_at = handling.answered_at or now
            shard.line(incident, now, "AssignmentChanged", event.actor, event.text, reason=event.reason)
        case CommentAdded():
            _wrote(incident, event.text)
            shard.line(incident, now, "CommentAdded", event.actor, event.text)
        case LabelsChanged():
            kept = {name: value for name, value in incident.labels.items() if name not in event.removed}
            incident.labels = {**kept, **event.set}
            handling.labels = {**(handling.labels or {}), **event.set, **dict.fromkeys(event.removed)}
            text = ", ".join(
                [*(f"{name}={value}" for name, value in event.set.items()), *_gone(event.removed)]
            )
            shard.line(incident, now, "LabelsChanged", event.actor, text, reason=event.reason)
        case IncidentReclassified():
            before = incident.severity, incident.type, incident.impact
            handling.override = event.override
            incident.settle()
            after = incident.severity, incident.type, incident.impact
            text = f"{_judgement(*before)} -> {_judgement(*after)}"
            shard.line(incident, now, "Reclassified", event.actor, text, reason=event.reason)
        case StakeholdersUpdated():
            _wrote(incident, event.text)
            update = StakeholderUpdate(now, event.actor, event.audience, event.text, event.next_due_at)
            handling.updates = [*handling.updates, update][-UPDATES_KEPT:]
            handling.update_due_at = event.next_due_at
            shard.line(incident, now, "StakeholdersUpdated", event.actor, event.text, audience=event.audience)
    shard.watch(incident)


def _wrote(incident: Incident, text: str) -> None:
    handling = incident.handled()
    handling.written_lines += 1
    handling.written_bytes += len(text.encode("utf-8", "surrogatepass"))


def _gone(names: Collection[str]) -> list[str]:
    return [f"without {name}" for name in names]


def _judgement(severity: int, kind: str, impact: str) -> str:
    return f"P{int(severity)} {kind}" + (f" {impact}" if impact else "")
