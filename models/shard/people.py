"""What people say of an incident: what it is, what they write into it, what they promise. Who looks after it is in
models/shard/attention.py, what they do to its state in by_hand.py, verbs over two incidents in links.py, children.py.
"""

from __future__ import annotations

import msgspec

from models.errors import Conflict, Malformed, TooLarge
from models.incidents.incident import (
    Handling,
    Incident,
    IncidentState,
    Override,
    StakeholderUpdate,
)
from models.incidents.lines import (
    SYSTEM,
    Around,
    Description,
    Line,
    Seen,
    changed,
    counted_anew,
    line_of,
    noted,
)
from models.incidents.query import Summary
from models.incidents.verbs import (
    CLEARABLE,
    LABEL_VALUE_MAX,
    LABELS_MAX,
    TEXT_MAX,
    WRITTEN_BYTES_MAX,
    WRITTEN_LINES_MAX,
    Comment,
    Label,
    Reclassify,
    Update,
)
from models.partition.event import Event
from models.shard import clock, lifecycle
from models.shard.changes import Relabelled
from models.shard.commands import check_name, check_text
from models.shard.component import Component, on
from models.shard.core import Core
from models.shard.events import ClockSetBack
from models.shard.messages import Command


class CommentAdded(Event, frozen=True):
    incident_id: bytes
    actor: str
    text: str


class LabelsChanged(Event, frozen=True):
    incident_id: bytes
    actor: str
    set: dict[str, str]
    removed: list[str]
    reason: str


class IncidentReclassified(Event, frozen=True):
    """`said` has all overrides now in force; None means that the classification counts again."""

    incident_id: bytes
    actor: str
    override: Override
    reason: str


class StakeholdersUpdated(Event, frozen=True):
    incident_id: bytes
    actor: str
    audience: str
    text: str
    next_due_at: float


class UpdateMissed(Event, frozen=True):
    """The update that was promised for `due_at` did not come."""

    incident_id: bytes
    due_at: float


#: Stakeholder updates kept for display; the timeline has all.
UPDATES_KEPT = 20


def _commented(event: CommentAdded, _around: Around) -> Line:
    return Line("CommentAdded", event.actor, event.text)


def _labelled(event: LabelsChanged, _around: Around) -> Line:
    changes = [f"{name}={value}" for name, value in event.set.items()]
    changes += [f"without {name}" for name in event.removed]
    return line_of("LabelsChanged", event.actor, ", ".join(changes), event.reason)


def _reclassified(event: IncidentReclassified, around: Around) -> Line:
    text = _counted(around.after)
    if around.before is not None:
        text = f"{_counted(around.before)} -> {text}"
    return line_of("Reclassified", event.actor, text, event.reason)


def _updated(event: StakeholdersUpdated, _around: Around) -> Line:
    return line_of("StakeholdersUpdated", event.actor, event.text, audience=event.audience)


def _missed(_event: UpdateMissed, _around: Around) -> Line:
    return Line("UpdateMissed", SYSTEM, "the promised update did not come")


def _counted(seen: Seen) -> str:
    counts = seen.counts
    return f"{counts.severity.name} {counts.type}" + (f" {counts.impact}" if counts.impact else "")


def _relabelled(summary: Summary, event: LabelsChanged, now: float) -> Summary:
    kept = {name: value for name, value in summary.labels.items() if name not in event.removed}
    return changed(summary, now, labels={**kept, **event.set})


class People(Component):
    name = "people"

    # -- verbs ---------------------------------------------------------------------------------------------

    def _comment(self, incident: Incident, verb: Comment, command: Command, now: float) -> Incident:
        comment(self.shard, incident, verb, command.actor, now)
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
            self.shard.report(Relabelled(incident), now)
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
        return 0.0 if handling is None or not incident.is_open else handling.update_due_at

    def due(self, incident: Incident, now: float) -> None:
        if incident.handling is not None:
            self.shard.do(UpdateMissed(incident.id, incident.handling.update_due_at), now)

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        handling = incident.handling
        if handling is None or not handling.updates or handling.updates[-1].at <= event.after:
            return
        handling.update_due_at = clock.due(handling.update_due_at, event)
        handling.updates = [
            msgspec.structs.replace(
                each, at=clock.then(each.at, event), next_due_at=clock.due(each.next_due_at, event)
            )
            if each.at > event.after
            else each
            for each in handling.updates
        ]

    # -- live and in replay --------------------------------------------------------------------------------

    def _fold_commented(self, event: CommentAdded, now: float) -> None:
        _incident, handling = self.state.edited(event.incident_id, now)
        _wrote(handling, event.text)

    def _fold_labelled(self, event: LabelsChanged, now: float) -> None:
        incident, handling = self.state.edited(event.incident_id, now)
        kept = {name: value for name, value in incident.labels.items() if name not in event.removed}
        incident.labels = {**kept, **event.set}
        handling.labels = {**(handling.labels or {}), **event.set, **dict.fromkeys(event.removed)}

    def _fold_reclassified(self, event: IncidentReclassified, now: float) -> None:
        incident, handling = self.state.edited(event.incident_id, now)
        handling.override = event.override
        incident.settle()

    def _fold_updated(self, event: StakeholdersUpdated, now: float) -> None:
        _incident, handling = self.state.edited(event.incident_id, now)
        _wrote(handling, event.text)
        update = StakeholderUpdate(now, event.actor, event.audience, event.text, event.next_due_at)
        handling.updates = [*handling.updates, update][-UPDATES_KEPT:]
        handling.update_due_at = event.next_due_at

    def _fold_missed(self, event: UpdateMissed, now: float) -> None:
        # Nothing that people edit changes, so the incident's version stays.
        self.state.changing(event.incident_id).handled().update_due_at = 0.0

    verbs = {
        Comment: _comment,
        Label: _label,
        Reclassify: _reclassify,
        Update: _update,
    }
    events = (
        on(CommentAdded, _fold_commented, Description(("CommentAdded",), _commented, summary=noted)),
        on(
            LabelsChanged,
            _fold_labelled,
            Description(("LabelsChanged",), _labelled, summary=_relabelled, sifts=True),
        ),
        on(
            IncidentReclassified,
            _fold_reclassified,
            Description(
                ("Reclassified",),
                _reclassified,
                summary=lambda s, e, now: counted_anew(changed(s, now, override=e.override)),
                compares=True,
                sifts=True,
            ),
        ),
        on(
            StakeholdersUpdated, _fold_updated, Description(("StakeholdersUpdated",), _updated, summary=noted)
        ),
        on(UpdateMissed, _fold_missed, Description(("UpdateMissed",), _missed)),
    )


def comment(shard: Core, incident: Incident, verb: Comment, actor: str, now: float) -> None:
    """Write something into an incident. Raises Refused."""
    _write(incident, verb.text)
    shard.do(CommentAdded(incident.id, actor, verb.text), now)


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
