"""Verbs over two incidents: link, merge, unmerge, split. Decided here and folded here.

Two incidents may live in two shards, and no event is written in both at once. So the first half is logged where the
verb arrives, together with a peer message that this incident owes the other (models/shard/peer_messages.py). Effect
SendPeerMessage delivers it, one at a time for each sender, until its answer is logged: after a crash between the halves
it is still pending, and the recovered shard sends it again. A repeated message gets the same answer (`heard`).

    target                                          source
      merge():  IncidentMerged, PeerMessageOwed              |
      |---------------- MergeAsked ----------------->|  hear(): IncidentMergedInto, PeerMessageReceived, PeerMessageOwed
      |  note_answered(): PeerMessageDelivered, ChildChanged  |
      |<--------------- ChildState --------------------|  now, and whenever it ends, goes on, or gets worse
      |  hear(): ChildChanged, PeerMessageReceived               |
      |---------------- EndAsked ------------------->|  a person resolved the target
      |---------------- UnmergeAsked --------------->|  hear(): IncidentUnmerged; note_answered(): ChildLeft

A child keeps its series, its group and its shard, and its alerts keep joining it; only its notifications stop. It has
no children of its own, so there are no cycles: if two incidents are merged into each other at the same time, the one
asked first refuses, because it has a child.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import msgspec

from models.alerts.alert import OLD_KEY_BYTES, series_id
from models.alerts.series import FIRING
from models.errors import Busy, Conflict, Malformed, NotFound, TooLarge
from models.incidents.incident import (
    AUTOMATED,
    Child,
    Handling,
    Incident,
    IncidentState,
    Notification,
    Override,
    OwedPeerMessage,
    incident_id,
)
from models.incidents.lines import SYSTEM, Around, Line, Told, changed, counted_anew, noted, told
from models.incidents.query import Summary
from models.incidents.verbs import (
    PARTS_MAX,
    RELATED_MAX,
    SPLIT_MAX,
    TITLE_MAX,
    Link,
    Merge,
    Split,
    Unlink,
    Unmerge,
)
from models.shard import lifecycle, peer_messages
from models.shard.changes import Merging, Moved, Paid, Rerated, ResolvedByPerson, SplitOff, Unmerged
from models.shard.commands import check_text
from models.shard.component import Component, on
from models.shard.core import Core
from models.shard.effects import Effect, SendPeerMessage
from models.shard.events import (
    ChildChanged,
    ChildLeft,
    IncidentLinked,
    IncidentMerged,
    IncidentMergedInto,
    IncidentSplit,
    IncidentUnlinked,
    IncidentUnmerged,
    PeerMessageDelivered,
    PeerMessageOwed,
    PeerMessageReceived,
)
from models.shard.messages import (
    Command,
    Decision,
    Done,
    Failed,
    PeerMessageAnswered,
    PeerMessageArrived,
    Reply,
)
from models.shard.peer_messages import (
    AnyPeerMessage,
    ChildState,
    EndAsked,
    LinkAsked,
    MergeAsked,
    UnmergeAsked,
    written,
)

#: Most incidents that one incident receives peer messages from, 60 bytes each, kept while it exists: a program that
#: links and unlinks others would otherwise make it grow without end.
HEARD_MAX = 1000
#: Most peer messages of one incident that may wait for other shards before a person's next verb is refused: enough for
#: all its links and for ending all its children, twice over.
OWED_MAX = 2 * (RELATED_MAX + PARTS_MAX)
MERGE, UNMERGE = "merge", "unmerge"
_ID_BYTES = 16


#: Separates a group's key from the id of an incident that was split off.
_SPLIT = "\nsplit "


def _with(kind: str, actor: str, other: bytes, reason: str, direction: str = "") -> Line:
    identity = written(other)
    text = f"{direction} {identity}".strip() + (f": {reason}" if reason else "")
    return told(kind, actor, text, reason, incident=identity, direction=direction)


def _child_line(_event: ChildChanged, around: Around) -> Line | None:
    before, severity = around.before, around.after.counts.severity
    if before is not None and before.counts.severity == severity:
        return None
    text = f"{severity.name}, by its parts"
    if before is not None:
        text = f"{before.counts.severity.name} -> {text}"
    return Line("SeverityChanged", SYSTEM, text)


def _left_line(event: ChildLeft, _around: Around) -> Line:
    kind = "MergeRefused" if event.refused else "Unmerged"
    return _with(kind, event.actor, event.source, event.reason)


def _split_line(event: IncidentSplit, around: Around) -> Line:
    if around.nth == 1:
        return Line("Created", event.actor, event.title, event.reason)
    number = len(event.numbers) // 4
    many = f"{number} alert{'s' if number > 1 else ''}"
    other, way = (event.made, "into") if around.nth == 0 else (event.incident_id, "out of")
    return _with("Split", event.actor, other, event.reason, f"{many} {way}")


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

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        #: Incidents that may have a pending peer message, and the number of the last one that was requested for each.
        self._owing: dict[bytes, None] = {}
        self._asked: dict[bytes, int] = {}

    # -- verbs and messages --------------------------------------------------------------------------------

    def _link(self, incident: Incident, verb: Link, command: Command, now: float) -> Incident:
        link(self.shard, incident, verb.other, command.actor, command.reason, now)
        return incident

    def _unlink(self, incident: Incident, verb: Unlink, command: Command, now: float) -> Incident:
        unlink(self.shard, incident, verb.other, command.actor, command.reason, now)
        return incident

    def _merge(self, incident: Incident, verb: Merge, command: Command, now: float) -> Incident:
        merge(self.shard, incident, verb.source, command.actor, command.reason, now)
        return incident

    def _unmerge(self, incident: Incident, verb: Unmerge, command: Command, now: float) -> Incident:
        unmerge(self.shard, incident, verb.source, command.actor, command.reason, now)
        return incident

    def _split(self, incident: Incident, verb: Split, command: Command, now: float) -> Incident:
        check_text("title", verb.title, TITLE_MAX)
        return split(self.shard, incident, verb, command.actor, command.reason, now)

    def _arrived(self, message: PeerMessageArrived, now: float) -> Reply:
        return hear(self.shard, message, now)

    def _answered(self, message: PeerMessageAnswered, now: float) -> Reply:
        note_answered(self.shard, message, now)
        return Done()

    # -- what becomes of incidents ---------------------------------------------------------------------------

    def _moved(self, change: Moved, now: float) -> None:
        if change.incident.merged_into and (change.ends or change.reopens):
            _say(self.shard, change.incident, now)

    def _rerated(self, change: Rerated, now: float) -> None:
        if change.incident.merged_into:
            _say(self.shard, change.incident, now)

    def _resolved(self, change: ResolvedByPerson, now: float) -> None:
        """A person resolved an incident: tell its open children to end."""
        shard, incident = self.shard, change.incident
        for source, part in [*incident.children.items()]:
            if part.is_open:
                asked = EndAsked(change.actor, change.method, change.notes)
                number = _owe(shard, incident, source, asked, now)
                _part(shard, incident, source, msgspec.structs.replace(part, ended_by=number), now)

    # -- debts ---------------------------------------------------------------------------------------------

    def started(self, now: float, is_set_back: bool) -> None:
        self._asked.clear()
        for incident in self.state.incidents.values():
            if self.owes(incident):
                self._owing[incident.id] = None

    def owed(self, now: float) -> Iterator[Effect]:
        for identity in self._owing:
            incident = self.state.incidents.get(identity)
            if incident is not None and incident.handling is not None and incident.handling.owed:
                note = incident.handling.owed[0]
                if self._asked.get(identity) != note.number:
                    self._asked[identity] = note.number
                    yield SendPeerMessage(incident.tenant, identity, note.number, note.to, note.note)
        self._owing.clear()

    def ask_again(self, effect: SendPeerMessage) -> None:
        self._asked.pop(effect.sender, None)
        if effect.sender in self.state.incidents:
            self._owing[effect.sender] = None

    def owes(self, incident: Incident) -> bool:
        return incident.handling is not None and bool(incident.handling.owed)

    def left(self, incident: Incident) -> None:
        self._asked.pop(incident.id, None)

    # -- live and in replay ----------------------------------------------------------------------------------

    def _changing(self, identity: bytes) -> tuple[Incident, Handling]:
        incident = self.state.changing(identity)
        return incident, incident.handled()

    def _changed(self, identity: bytes, now: float) -> tuple[Incident, Handling]:
        incident, handling = self._changing(identity)
        incident.updated_at = now
        incident.version += 1
        return incident, handling

    def _fold_owed(self, event: PeerMessageOwed, now: float) -> None:
        incident, handling = self._changing(event.incident_id)
        if _is_newer_word(handling.owed, event):
            handling.owed.pop()
        handling.owed.append(OwedPeerMessage(event.number, event.to, event.note))
        handling.owed_number = event.number
        self._owing[incident.id] = None

    def _fold_delivered(self, event: PeerMessageDelivered, now: float) -> None:
        incident, handling = self._changing(event.incident_id)
        handling.owed = [note for note in handling.owed if note.number > event.number]
        self._owing[incident.id] = None

    def _fold_received(self, event: PeerMessageReceived, now: float) -> None:
        _incident, handling = self._changing(event.incident_id)
        handling.heard[event.sender] = event.number, event.refused

    def _fold_child(self, event: ChildChanged, now: float) -> None:
        incident, handling = self._changed(event.incident_id, now)
        handling.children[event.source] = Child(event.is_open, event.severity, event.pending, event.ended_by)
        incident.settle()

    def _fold_linked(self, event: IncidentLinked, now: float) -> None:
        _incident, handling = self._changed(event.incident_id, now)
        handling.related.append(event.other)

    def _fold_unlinked(self, event: IncidentUnlinked, now: float) -> None:
        _incident, handling = self._changed(event.incident_id, now)
        handling.related.remove(event.other)

    def _fold_merged(self, event: IncidentMerged, now: float) -> None:
        _incident, handling = self._changed(event.incident_id, now)
        handling.children[event.source] = Child(pending=MERGE)

    def _fold_left(self, event: ChildLeft, now: float) -> None:
        incident, handling = self._changed(event.incident_id, now)
        del handling.children[event.source]
        incident.settle()

    def _fold_merged_into(self, event: IncidentMergedInto, now: float) -> None:
        _incident, handling = self._changed(event.incident_id, now)
        handling.merged_into = event.target

    def _fold_unmerged(self, event: IncidentUnmerged, now: float) -> None:
        incident, handling = self._changed(event.incident_id, now)
        handling.merged_into = b""
        # What it still had to report as a child no longer matters.
        handling.owed = [
            note
            for note in handling.owed
            if note.to != event.target or not isinstance(peer_messages.decode(note.note), ChildState)
        ]
        self._owing[incident.id] = None

    def _fold_split(self, event: IncidentSplit, now: float) -> None:
        incident, _handling = self._changed(event.incident_id, now)
        _split_off(self.shard, incident, event, now)

    messages = {PeerMessageArrived: _arrived, PeerMessageAnswered: _answered}
    verbs = {Link: _link, Unlink: _unlink, Merge: _merge, Unmerge: _unmerge, Split: _split}
    reactions = {Moved: _moved, Rerated: _rerated, ResolvedByPerson: _resolved}
    effects = (SendPeerMessage,)
    events = (
        on(PeerMessageOwed, _fold_owed),
        on(PeerMessageDelivered, _fold_delivered),
        on(PeerMessageReceived, _fold_received),
        on(
            ChildChanged,
            _fold_child,
            Told(("SeverityChanged",), _child_line, summary=_child_summary, compares=True, sifts=True),
        ),
        on(
            IncidentLinked,
            _fold_linked,
            Told(("Linked",), lambda e, _: _with("Linked", e.actor, e.other, e.reason), summary=noted),
        ),
        on(
            IncidentUnlinked,
            _fold_unlinked,
            Told(("Unlinked",), lambda e, _: _with("Unlinked", e.actor, e.other, e.reason), summary=noted),
        ),
        on(
            IncidentMerged,
            _fold_merged,
            Told(
                ("Merged",),
                lambda e, _: _with("Merged", e.actor, e.source, e.reason, "in"),
                summary=_merging_summary,
                sifts=True,
            ),
        ),
        on(
            ChildLeft,
            _fold_left,
            Told(("Unmerged", "MergeRefused"), _left_line, summary=_left_summary, sifts=True),
        ),
        on(
            IncidentMergedInto,
            _fold_merged_into,
            Told(
                ("Merged",),
                lambda e, _: _with("Merged", e.actor, e.target, e.reason, "into"),
                summary=lambda s, e, now: changed(s, now, merged_into=e.target),
                sifts=True,
            ),
        ),
        on(
            IncidentUnmerged,
            _fold_unmerged,
            Told(
                ("Unmerged",),
                lambda e, _: _with("Unmerged", e.actor, e.target, e.reason),
                summary=lambda s, _, now: changed(s, now, merged_into=b""),
                sifts=True,
            ),
        ),
        on(
            IncidentSplit,
            _fold_split,
            Told(("Split", "Created"), _split_line, lambda e: (e.incident_id, e.made, e.made), noted),
        ),
    )


# -- what a person asks ------------------------------------------------------------------------------------------


def link(shard: Core, incident: Incident, other: bytes, actor: str, reason: str, now: float) -> None:
    """Link two related incidents; the other one gets a peer message. Raises Refused."""
    _check_other(incident, other)
    related = [] if incident.handling is None else incident.handling.related
    if other in related:
        return
    if len(related) >= RELATED_MAX:
        raise TooLarge(f"incident: an incident has at most {RELATED_MAX} links")
    _check_owed(incident)
    shard.do(IncidentLinked(incident.id, other, actor, reason), now)
    _owe(shard, incident, other, LinkAsked(actor, reason), now)


def unlink(shard: Core, incident: Incident, other: bytes, actor: str, reason: str, now: float) -> None:
    """Remove a link. Raises Refused."""
    if incident.handling is None or other not in incident.handling.related:
        raise NotFound(f"incident {_shown(other)} is not linked to it")
    _check_owed(incident)
    shard.do(IncidentUnlinked(incident.id, other, actor, reason), now)
    _owe(shard, incident, other, LinkAsked(actor, reason, gone=True), now)


def merge(shard: Core, incident: Incident, source: bytes, actor: str, reason: str, now: float) -> None:
    """`source` becomes a child of this incident, if it agrees. Raises Refused."""
    _check_other(incident, source)
    if source in incident.children:
        if incident.children[source].pending == UNMERGE:
            raise Conflict(f"incident {written(source)} is being unmerged: try again in a moment")
        return
    if not incident.is_open:
        raise Conflict(f"it is {incident.state}: reopen it first")
    if len(incident.children) >= PARTS_MAX:
        raise TooLarge(f"incident: an incident has at most {PARTS_MAX} children")
    _check_owed(incident)
    shard.do(IncidentMerged(incident.id, source, actor, reason), now)
    _owe(shard, incident, source, MergeAsked(actor, reason), now)


def unmerge(shard: Core, incident: Incident, source: bytes, actor: str, reason: str, now: float) -> None:
    """`source` becomes independent again. Raises Refused."""
    part = incident.children.get(source)
    if part is None:
        raise NotFound(f"incident {_shown(source)} is not one of its children")
    if part.pending == MERGE:
        raise Conflict(f"incident {written(source)} is being merged: try again in a moment")
    if part.pending == UNMERGE:
        return
    _check_owed(incident)
    _part(shard, incident, source, msgspec.structs.replace(part, pending=UNMERGE), now)
    _owe(shard, incident, source, UnmergeAsked(actor, reason), now)


def split(shard: Core, incident: Incident, verb: Split, actor: str, reason: str, now: float) -> Incident:
    """Some of an incident's series move to a new one, in the same shard; new series of the group join the old one.
    Raises Refused."""
    if not incident.is_open:
        raise Conflict(f"it is {incident.state}: reopen it first")
    if len(verb.series) > SPLIT_MAX:
        raise TooLarge(f"alerts: at most {SPLIT_MAX} can be split off at once")
    numbers = array("I")
    for identity in dict.fromkeys(verb.series):
        number = shard.state.series.by_series.get(identity)
        if number is None and shard.state.series.old_keys:
            number = _with_old_key(shard, incident, identity)
        if number is None or shard.state.series.incidents[number] is not incident:
            raise NotFound(f"alerts: series {identity.hex()} is not in this incident")
        numbers.append(number)
    if not numbers:
        raise Malformed("alerts: expected at least one")
    if len(numbers) == len(shard.state.members[incident.id]):
        raise Conflict("alerts: these are all its alerts; leave at least one")
    if shard.state.open_count >= shard.settings.max_open:
        raise Conflict("max_concurrent_incidents is reached: resolve others first")
    made = incident_id(incident.slot, now, shard.epoch, shard.seq, f"{incident.group_key}#split")
    title = verb.title or incident.title
    # No two open incidents share a group key, and no alert needs to find this one: its series already belong to it.
    group_key = f"{incident.group_key.partition(_SPLIT)[0]}{_SPLIT}{made.hex()}"
    shard.do(IncidentSplit(incident.id, made, group_key, numbers.tobytes(), title, actor, reason), now)
    lifecycle.ended(shard, incident, "the alerts that still fired were split off", now)
    found = shard.state.incidents[made]
    lifecycle.ended(shard, found, "none of its alerts fired when they were split off", now)
    if found.is_open:
        shard.report(SplitOff(found), now)
    return found


def _with_old_key(shard: Core, incident: Incident, identity: bytes) -> int | None:
    """The series of an incident that would have this id, had it not begun with 0.2.0 or older."""
    for number in shard.state.members[incident.id]:
        if len(shard.state.series.keys[number]) == OLD_KEY_BYTES:
            if series_id(incident.tenant, shard.state.series.content(number).labels) == identity:
                return number
    return None


# -- from one incident to the other ------------------------------------------------------------------------------


def _say(shard: Core, incident: Incident, now: float) -> None:
    """A child reports its state to its parent."""
    whole = incident.merged_into
    heard, _refused = incident.heard_of(whole)
    _owe(shard, incident, whole, ChildState(incident.is_open, incident.severity, heard), now)


def hear(shard: Core, told: PeerMessageArrived, now: float) -> Reply:
    """A peer message for one of our incidents: Done if it agrees, Failed if not; the same answer when repeated."""
    incident = shard.state.incidents.get(told.to)
    if incident is None or incident.tenant != told.tenant:
        return Failed("NotFound", f"there is no incident {_shown(told.to)}, or it is archived")
    number, refused = incident.heard_of(told.sender)
    if not number and incident.handling is not None and told.sender not in incident.children:
        if len(incident.handling.heard) >= HEARD_MAX:
            return Failed("Conflict", f"it has received messages from {HEARD_MAX} incidents already")
    if told.number > number:
        try:
            note = peer_messages.decode(told.note)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return Failed("Malformed", f"peer message can't be read: {error}")
        refused = _heard(shard, incident, told.sender, note, now)
        shard.do(PeerMessageReceived(incident.id, told.sender, told.number, refused), now)
    return Failed("Conflict", refused) if refused else Done()


def note_answered(shard: Core, answer: PeerMessageAnswered, now: float) -> None:
    """The other incident answered: the message is settled, and the second half can be done here."""
    incident = shard.state.incidents.get(answer.sender)
    if incident is None or incident.handling is None:
        return
    owed = incident.handling.owed
    if not owed or owed[0].number != answer.number:
        return
    sent, refused = owed[0], answer.refused
    shard.do(PeerMessageDelivered(incident.id, sent.number, refused), now)
    shard.report(Paid(incident), now)
    part = incident.children.get(sent.to)
    match peer_messages.decode(sent.note):
        case MergeAsked(actor=actor):
            if part is not None and refused:
                _leave(shard, incident, sent.to, actor, refused, now, refused=True)
            elif part is not None:
                _part(shard, incident, sent.to, msgspec.structs.replace(part, pending=""), now)
        case UnmergeAsked(actor=actor, reason=reason):
            if part is not None:
                _leave(shard, incident, sent.to, actor, reason, now)
        case LinkAsked(gone=False):
            if refused and sent.to in incident.handling.related and not _is_asked_again(incident, sent.to):
                shard.do(IncidentUnlinked(incident.id, sent.to, SYSTEM, refused), now)
        case ChildState():
            if refused and incident.merged_into == sent.to:
                shard.do(IncidentUnmerged(incident.id, sent.to, SYSTEM, refused), now)
                shard.report(Unmerged(incident), now)
        case EndAsked():
            # A child that ends reports that itself, and may by now have more to report. One that is gone reports nothing.
            if part is not None and refused:
                _part(shard, incident, sent.to, msgspec.structs.replace(part, is_open=False), now)
                lifecycle.ended(shard, incident, "all its children ended", now)
        case LinkAsked():
            return  # an unlinked one that is gone is unlinked


def _is_asked_again(incident: Incident, to: bytes) -> bool:
    """Whether a later peer message about a link to that incident is pending: then its answer counts."""
    owed = [] if incident.handling is None else incident.handling.owed
    return any(note.to == to and isinstance(peer_messages.decode(note.note), LinkAsked) for note in owed)


def _heard(shard: Core, incident: Incident, sender: bytes, note: AnyPeerMessage, now: float) -> str:
    """Do what a peer message asks. Returns why not, if it can't be done."""
    match note:
        case LinkAsked():
            related = [] if incident.handling is None else incident.handling.related
            if note.gone:
                if sender in related:
                    shard.do(IncidentUnlinked(incident.id, sender, note.actor, note.reason), now)
            elif sender not in related:
                if len(related) >= RELATED_MAX:
                    return f"it has {RELATED_MAX} links already"
                shard.do(IncidentLinked(incident.id, sender, note.actor, note.reason), now)
        case MergeAsked():
            return _become_part(shard, incident, sender, note, now)
        case UnmergeAsked():
            if incident.merged_into == sender:
                shard.do(IncidentUnmerged(incident.id, sender, note.actor, note.reason), now)
                shard.report(Unmerged(incident), now)
        case ChildState():
            return _part_said(shard, incident, sender, note, now)
        case EndAsked():
            if incident.merged_into != sender:
                return "it is no longer a child of that incident"
            if incident.is_open:
                lifecycle.resolve(shard, incident, note.actor, note.method, note.reason, now)
    return ""


def _become_part(shard: Core, incident: Incident, whole: bytes, note: MergeAsked, now: float) -> str:
    if incident.merged_into:
        if incident.merged_into == whole:
            return ""
        return f"it is already merged into incident {written(incident.merged_into)}"
    if incident.children:
        return "it has children of its own: unmerge them first, or merge the other way round"
    if incident.state is IncidentState.CLOSED:
        return "it is closed"
    shard.report(Merging(incident), now)
    shard.do(IncidentMergedInto(incident.id, whole, note.actor, note.reason), now)
    _say(shard, incident, now)
    return ""


def _part_said(shard: Core, incident: Incident, source: bytes, said: ChildState, now: float) -> str:
    part = incident.children.get(source)
    if part is None:
        return "it is not a child of this incident"
    # What it reported before it got the request to end is outdated.
    is_open = said.is_open and said.heard >= part.ended_by
    if is_open and not incident.is_open:
        if not (lifecycle.may_reopen(shard, incident, now) or _was_ended_early(shard, incident, part)):
            _leave(shard, incident, source, SYSTEM, "continues after this one ended", now)
            return f"that one has been {incident.state} for longer than reopen_window"
        lifecycle.reopen(shard, incident, now, reason="a child of it continues")
    before = incident.severity
    _part(
        shard, incident, source, msgspec.structs.replace(part, is_open=is_open, severity=said.severity), now
    )
    if incident.severity != before:
        lifecycle.judged(shard, incident, before, f"a child of it is {incident.severity.name}", SYSTEM, now)
    lifecycle.ended(shard, incident, "all its children ended", now)
    return ""


def _was_ended_early(shard: Core, incident: Incident, part: Child) -> bool:
    """Whether a person resolved it while this child kept firing: then it counts as never resolved, as if its own alerts
    kept firing. Not if an alert has opened another incident of its group since."""
    found = incident.resolution
    if incident.state is not IncidentState.RESOLVED or not part.ended_by or found is None:
        return False
    is_groups = shard.state.by_group.get((incident.tenant, incident.group_key)) is incident
    return found.method != AUTOMATED and (incident.is_by_hand or is_groups)


def _leave(
    shard: Core,
    incident: Incident,
    source: bytes,
    actor: str,
    reason: str,
    now: float,
    refused: bool = False,
) -> None:
    shard.do(ChildLeft(incident.id, source, actor, reason, refused), now)
    lifecycle.ended(shard, incident, "all its children ended or left", now)


def _part(shard: Core, incident: Incident, source: bytes, part: Child, now: float) -> None:
    if incident.children[source] != part:
        event = ChildChanged(incident.id, source, part.is_open, part.severity, part.pending, part.ended_by)
        shard.do(event, now)


def _owe(shard: Core, incident: Incident, to: bytes, note: AnyPeerMessage, now: float) -> int:
    number = 1 if incident.handling is None else incident.handling.owed_number + 1
    shard.do(PeerMessageOwed(incident.id, number, to, peer_messages.encode(note)), now)
    return number


def _check_other(incident: Incident, other: bytes) -> None:
    if len(other) != _ID_BYTES:
        raise Malformed("incident: expected an incident's id")
    if other == incident.id:
        raise Conflict("incident: expected another incident, not the same one")


def _check_owed(incident: Incident) -> None:
    waiting = 0 if incident.handling is None else len(incident.handling.owed)
    if waiting >= OWED_MAX:
        raise Busy(
            f"{waiting} messages to other incidents are waiting for their shards: try again when those are back"
        )


def _shown(identity: bytes) -> str:
    return written(identity) if len(identity) == _ID_BYTES else identity.hex()


def _is_newer_word(owed: list[OwedPeerMessage], event: PeerMessageOwed) -> bool:
    """Of a child's reports while its parent's shard is down only the newest counts. The first may be in flight."""
    return (
        len(owed) > 1
        and owed[-1].to == event.to
        and all(isinstance(peer_messages.decode(note), ChildState) for note in (owed[-1].note, event.note))
    )


def _split_off(shard: Core, incident: Incident, event: IncidentSplit, now: float) -> None:
    numbers = array("I", event.numbers)
    leaving = set(numbers)
    # The new one keeps the overrides of the old one and is not classified again.
    is_said = incident.handling is not None and incident.handling.override != Override()
    made = Incident(
        id=event.made,
        slot=incident.slot,
        tenant=incident.tenant,
        service=incident.service,
        group_key=event.group_key,
        group_labels=dict(incident.group_labels),
        title=event.title,
        description=incident.description,
        source=incident.source,
        labels=dict(incident.labels),
        annotations=dict(incident.annotations),
        created_at=now,
        updated_at=now,
        state=incident.state,
        severity=incident.severity,
        type=incident.type,
        impact=incident.impact,
        classified_by=incident.classified_by,
        confidence=incident.confidence,
        signals=list(incident.signals),
        signals_asked=incident.signals_asked,
        classify_owed=incident.classify_owed and not is_said,
        assignees=list(incident.assignees),
        created_by=event.actor,
        opened_at=now,
        notification=Notification(),
    )
    handling = made.handled()
    handling.split_from = incident.id
    if event.title != incident.title:
        handling.title = event.title
    if incident.handling is not None:
        handling.labels = dict(incident.handling.labels or {})
    shard.enter(made)
    for number in numbers:
        shard.state.touch_series(number)
        shard.state.series.incidents[number] = made
        shard.state.series.note(number, Decision.SPLIT_OFF, now)
    firing = sum(1 for number in numbers if shard.state.series.status[number] == FIRING)
    kept = array("I", [number for number in shard.state.members[incident.id] if number not in leaving])
    shard.state.members[incident.id], shard.state.members[made.id] = kept, numbers
    incident.firing -= firing
    made.firing, made.series_seen = firing, len(numbers)
