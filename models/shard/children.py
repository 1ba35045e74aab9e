"""An incident that is merged into another becomes its child: the parent speaks for it. Verbs merge and unmerge. The two may
live in two shards, and tell each other by messages (models/shard/peer_messages.py).

    parent                                          child
      | IncidentMerged                                |
      |---------------- MergeAsked ------------------>|  IncidentMergedInto
      |<--------------- ChildState -------------------|  now, and whenever it ends, goes on, or gets worse
      | ChildChanged                                  |
      |---------------- EndAsked -------------------->|  a person resolved the parent
      |---------------- UnmergeAsked ---------------->|  IncidentUnmerged
      | ChildLeft                                     |

A child keeps its series, its group and its shard, and its alerts go on joining it; only nobody is told of it. It has no
children of its own, so there are no circles: of two incidents that are merged into each other at the same time, the one
asked first refuses, because it has a child.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from models.errors import Conflict, NotFound, TooLarge
from models.incidents.incident import AUTOMATED, Child, Incident, IncidentState, Severity, id_text
from models.incidents.lines import SYSTEM, Around, Description, Line, about_another, changed, counted_anew
from models.incidents.query import Summary
from models.incidents.verbs import CHILDREN_MAX, Merge, Unmerge
from models.partition.event import Event
from models.shard import lifecycle, peer_messages
from models.shard.changes import Merging, Moved, Rerated, ResolvedByPerson, Unmerged
from models.shard.component import Component, on
from models.shard.messages import Command, PeerMessage


class IncidentMerged(Event, frozen=True):
    """`source` is to become a child of this incident; the other half is pending for its shard."""

    incident_id: bytes
    source: bytes
    actor: str
    reason: str


class ChildChanged(Event, frozen=True, tag="PartChanged"):
    """The present state of a child. `pending` and `ended_by` as in incident.Child."""

    incident_id: bytes
    source: bytes
    is_open: bool
    severity: Severity
    pending: str = ""
    ended_by: int = 0


class ChildLeft(Event, frozen=True, tag="PartLeft"):
    """`source` is no longer a child of this incident, or never became one (`refused`)."""

    incident_id: bytes
    source: bytes
    actor: str
    reason: str
    refused: bool = False


class IncidentMergedInto(Event, frozen=True, tag="IncidentPartOf"):
    """This incident became a child of `target`, which sends notifications in its place."""

    incident_id: bytes
    target: bytes
    actor: str
    reason: str


class IncidentUnmerged(Event, frozen=True, tag="IncidentFreed"):
    """This incident is no longer a child of `target`."""

    incident_id: bytes
    target: bytes
    actor: str
    reason: str


#: What is under way between a parent and its child (Child.pending).
MERGE, UNMERGE = "merge", "unmerge"


class MergeAsked(PeerMessage, frozen=True):
    """You become a child of the sender."""

    actor: str
    reason: str


class UnmergeAsked(PeerMessage, frozen=True):
    """You are no child of the sender any more."""

    actor: str
    reason: str


class ChildState(PeerMessage, frozen=True, tag="PartSaid"):
    """How the sender, a child of you, is now. `heard` is the number of your last message that it knew of."""

    only_newest: ClassVar[bool] = True

    is_open: bool
    severity: Severity
    heard: int = 0


class EndAsked(PeerMessage, frozen=True):
    """A person resolved the sender, and with it you."""

    actor: str
    method: str
    reason: str


def _child_line(_event: ChildChanged, around: Around) -> Line | None:
    before, severity = around.before, around.after.counts.severity
    if before is not None and before.counts.severity == severity:
        return None
    text = f"{severity.name}, by its children"
    if before is not None:
        text = f"{before.counts.severity.name} -> {text}"
    return Line("SeverityChanged", SYSTEM, text)


def _left_line(event: ChildLeft, _around: Around) -> Line:
    kind = "MergeRefused" if event.refused else "Unmerged"
    return about_another(kind, event.actor, event.source, event.reason)


def _child_summary(summary: Summary, event: ChildChanged, now: float) -> Summary:
    child = Child(event.is_open, event.severity, event.pending, event.ended_by)
    return counted_anew(changed(summary, now, children={**summary.children, event.source: child}))


def _merging_summary(summary: Summary, event: IncidentMerged, now: float) -> Summary:
    return changed(summary, now, children={**summary.children, event.source: Child(pending=MERGE)})


def _left_summary(summary: Summary, event: ChildLeft, now: float) -> Summary:
    left = {source: child for source, child in summary.children.items() if source != event.source}
    return counted_anew(changed(summary, now, children=left))


class Children(Component):
    name = "children"

    # -- what a person asks of the parent ------------------------------------------------------------------

    def _merge(self, incident: Incident, verb: Merge, command: Command, now: float) -> Incident:
        """`source` becomes a child of this incident, if it agrees."""
        source, actor, reason = verb.source, command.actor, command.reason
        peer_messages.check_other(incident, source)
        if source in incident.children:
            if incident.children[source].pending == UNMERGE:
                raise Conflict(f"incident {id_text(source)} is being unmerged: try again in a moment")
            return incident
        if not incident.is_open:
            raise Conflict(f"it is {incident.state}: reopen it first")
        if len(incident.children) >= CHILDREN_MAX:
            raise TooLarge(f"incident: an incident has at most {CHILDREN_MAX} children")
        peer_messages.check_owed(incident)
        self.shard.do(IncidentMerged(incident.id, source, actor, reason), now)
        peer_messages.send(self.shard, incident, source, MergeAsked(actor, reason), now)
        return incident

    def _unmerge(self, incident: Incident, verb: Unmerge, command: Command, now: float) -> Incident:
        """`source` becomes independent again."""
        source, actor, reason = verb.source, command.actor, command.reason
        child = incident.children.get(source)
        if child is None:
            raise NotFound(f"incident {id_text(source)} is not one of its children")
        if child.pending == MERGE:
            raise Conflict(f"incident {id_text(source)} is being merged: try again in a moment")
        if child.pending != UNMERGE:
            peer_messages.check_owed(incident)
            self._change(incident, source, msgspec.structs.replace(child, pending=UNMERGE), now)
            peer_messages.send(self.shard, incident, source, UnmergeAsked(actor, reason), now)
        return incident

    # -- what becomes of incidents ---------------------------------------------------------------------------

    def _moved(self, change: Moved, now: float) -> None:
        if change.incident.merged_into and (change.ends or change.reopens):
            self._tell_parent(change.incident, now)

    def _rerated(self, change: Rerated, now: float) -> None:
        if change.incident.merged_into:
            self._tell_parent(change.incident, now)

    def _resolved(self, change: ResolvedByPerson, now: float) -> None:
        """A person resolved an incident: tell its open children to end."""
        incident = change.incident
        for source, child in [*incident.children.items()]:
            if child.is_open:
                asked = EndAsked(change.actor, change.method, change.notes)
                number = peer_messages.send(self.shard, incident, source, asked, now)
                self._change(incident, source, msgspec.structs.replace(child, ended_by=number), now)

    # -- in the child's shard --------------------------------------------------------------------------------

    def _tell_parent(self, incident: Incident, now: float) -> None:
        parent = incident.merged_into
        heard, _refused = incident.heard_of(parent)
        state = ChildState(incident.is_open, incident.severity, heard)
        peer_messages.send(self.shard, incident, parent, state, now)

    def _merge_asked(self, incident: Incident, sender: bytes, asked: MergeAsked, now: float) -> str:
        if incident.merged_into:
            if incident.merged_into == sender:
                return ""
            return f"it is already merged into incident {id_text(incident.merged_into)}"
        if incident.children:
            return "it has children of its own: unmerge them first, or merge the other way round"
        if incident.state is IncidentState.CLOSED:
            return "it is closed"
        self.shard.report(Merging(incident), now)
        self.shard.do(IncidentMergedInto(incident.id, sender, asked.actor, asked.reason), now)
        self._tell_parent(incident, now)
        return ""

    def _unmerge_asked(self, incident: Incident, sender: bytes, asked: UnmergeAsked, now: float) -> str:
        if incident.merged_into == sender:
            self._is_freed(incident, asked.actor, asked.reason, now)
        return ""

    def _end_asked(self, incident: Incident, sender: bytes, asked: EndAsked, now: float) -> str:
        if incident.merged_into != sender:
            return "it is no longer a child of that incident"
        if incident.is_open:
            lifecycle.resolve(self.shard, incident, asked.actor, asked.method, asked.reason, now)
        return ""

    def _state_answered(
        self, incident: Incident, to: bytes, _state: ChildState, refused: str, now: float
    ) -> None:
        if refused and incident.merged_into == to:
            self._is_freed(incident, SYSTEM, refused, now)

    def _is_freed(self, incident: Incident, actor: str, reason: str, now: float) -> None:
        self.shard.do(IncidentUnmerged(incident.id, incident.merged_into, actor, reason), now)
        self.shard.report(Unmerged(incident), now)

    # -- in the parent's shard -------------------------------------------------------------------------------

    def _merge_answered(
        self, incident: Incident, to: bytes, asked: MergeAsked, refused: str, now: float
    ) -> None:
        child = incident.children.get(to)
        if child is not None and refused:
            self._leave(incident, to, asked.actor, refused, now, refused=True)
        elif child is not None:
            self._change(incident, to, msgspec.structs.replace(child, pending=""), now)

    def _unmerge_answered(
        self, incident: Incident, to: bytes, asked: UnmergeAsked, _refused: str, now: float
    ) -> None:
        if to in incident.children:
            self._leave(incident, to, asked.actor, asked.reason, now)

    def _end_answered(
        self, incident: Incident, to: bytes, _asked: EndAsked, refused: str, now: float
    ) -> None:
        # A child that ends says so itself, and may by now say more. One that is gone says nothing.
        child = incident.children.get(to)
        if child is not None and refused:
            self._change(incident, to, msgspec.structs.replace(child, is_open=False), now)
            lifecycle.ended(self.shard, incident, "all its children ended", now)

    def _child_state(self, incident: Incident, sender: bytes, state: ChildState, now: float) -> str:
        shard = self.shard
        child = incident.children.get(sender)
        if child is None:
            return "it is not a child of this incident"
        # What it reported before it got the request to end is outdated.
        is_open = state.is_open and state.heard >= child.ended_by
        if is_open and not incident.is_open:
            if not (lifecycle.may_reopen(shard, incident, now) or self._was_ended_early(incident, child)):
                self._leave(incident, sender, SYSTEM, "continues after this one ended", now)
                return f"that one has been {incident.state} for longer than reopen_window"
            lifecycle.reopen(shard, incident, now, reason="a child of it continues")
        before = incident.severity
        after = msgspec.structs.replace(child, is_open=is_open, severity=state.severity)
        self._change(incident, sender, after, now)
        if incident.severity != before:
            reason = f"a child of it is {incident.severity.name}"
            lifecycle.judged(shard, incident, before, reason, SYSTEM, now)
        lifecycle.ended(shard, incident, "all its children ended", now)
        return ""

    def _was_ended_early(self, incident: Incident, child: Child) -> bool:
        """Whether a person resolved it together with this child, which went on all the same: then it never ended, as one
        whose own alerts fire on. Not when an alert has opened another incident of its group."""
        found = incident.resolution
        if incident.state is not IncidentState.RESOLVED or not child.ended_by or found is None:
            return False
        is_groups = self.state.by_group.get((incident.tenant, incident.group_key)) is incident
        return found.method != AUTOMATED and (incident.is_by_hand or is_groups)

    def _leave(
        self, incident: Incident, source: bytes, actor: str, reason: str, now: float, refused: bool = False
    ) -> None:
        self.shard.do(ChildLeft(incident.id, source, actor, reason, refused), now)
        lifecycle.ended(self.shard, incident, "all its children ended or left", now)

    def _change(self, incident: Incident, source: bytes, child: Child, now: float) -> None:
        if incident.children[source] != child:
            is_open, severity, pending, ended_by = msgspec.structs.astuple(child)
            self.shard.do(ChildChanged(incident.id, source, is_open, severity, pending, ended_by), now)

    # -- live and in replay ----------------------------------------------------------------------------------

    def _fold_child(self, event: ChildChanged, now: float) -> None:
        incident, handling = self.state.edited(event.incident_id, now)
        handling.children[event.source] = Child(event.is_open, event.severity, event.pending, event.ended_by)
        incident.settle()

    def _fold_merged(self, event: IncidentMerged, now: float) -> None:
        _incident, handling = self.state.edited(event.incident_id, now)
        handling.children[event.source] = Child(pending=MERGE)

    def _fold_left(self, event: ChildLeft, now: float) -> None:
        incident, handling = self.state.edited(event.incident_id, now)
        del handling.children[event.source]
        incident.settle()

    def _fold_merged_into(self, event: IncidentMergedInto, now: float) -> None:
        _incident, handling = self.state.edited(event.incident_id, now)
        handling.merged_into = event.target

    def _fold_unmerged(self, event: IncidentUnmerged, now: float) -> None:
        incident, handling = self.state.edited(event.incident_id, now)
        handling.merged_into = b""
        # What it still wanted to say as a child is nobody's business now.
        peer_messages.withdraw(self.shard, incident, event.target, ChildState)

    verbs = {Merge: _merge, Unmerge: _unmerge}
    hears = {
        MergeAsked: _merge_asked,
        UnmergeAsked: _unmerge_asked,
        EndAsked: _end_asked,
        ChildState: _child_state,
    }
    answered = {
        MergeAsked: _merge_answered,
        UnmergeAsked: _unmerge_answered,
        EndAsked: _end_answered,
        ChildState: _state_answered,
    }
    reactions = {Moved: _moved, Rerated: _rerated, ResolvedByPerson: _resolved}
    events = (
        on(
            ChildChanged,
            _fold_child,
            Description(("SeverityChanged",), _child_line, summary=_child_summary, compares=True, sifts=True),
        ),
        on(
            IncidentMerged,
            _fold_merged,
            Description(
                ("Merged",),
                lambda e, _: about_another("Merged", e.actor, e.source, e.reason, "in"),
                summary=_merging_summary,
                sifts=True,
            ),
        ),
        on(
            ChildLeft,
            _fold_left,
            Description(("Unmerged", "MergeRefused"), _left_line, summary=_left_summary, sifts=True),
        ),
        on(
            IncidentMergedInto,
            _fold_merged_into,
            Description(
                ("Merged",),
                lambda e, _: about_another("Merged", e.actor, e.target, e.reason, "into"),
                summary=lambda s, e, now: changed(s, now, merged_into=e.target),
                sifts=True,
            ),
        ),
        on(
            IncidentUnmerged,
            _fold_unmerged,
            Description(
                ("Unmerged",),
                lambda e, _: about_another("Unmerged", e.actor, e.target, e.reason),
                summary=lambda s, _, now: changed(s, now, merged_into=b""),
                sifts=True,
            ),
        ),
    )
