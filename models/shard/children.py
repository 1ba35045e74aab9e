"""Verbs over two incidents: link, merge, unmerge, split. Decided here and folded here; called by models/shard/shard.py.

Two incidents may live in two shards, and no event is written in both at once. So the first half is logged where the
verb arrives, together with a note that this incident owes the other (models/shard/peer_messages.py). The note is brought by effect
Tell, one at a time for each sender, until an answer to it is logged: a crash between the halves leaves the debt, and the
recovered shard asks again. Who is told twice answers twice alike (`heard`).

    target                                          source
      merge():  IncidentMerged, PeerMessageOwed              |
      |---------------- MergeAsked ----------------->|  hear(): IncidentMergedInto, PeerMessageReceived, PeerMessageOwed
      |  note_answered(): PeerMessageDelivered, ChildChanged  |
      |<--------------- ChildState --------------------|  now, and whenever it ends, goes on, or gets worse
      |  hear(): ChildChanged, PeerMessageReceived               |
      |---------------- EndAsked ------------------->|  a person resolved the target
      |---------------- UnmergeAsked --------------->|  hear(): IncidentUnmerged; note_answered(): ChildLeft

A part keeps its series, its group and its shard, and its alerts go on joining it; only nobody is told of it. It has no
parts of its own, so there are no circles: of two incidents that are merged into each other at the same time, the one
asked first refuses, because it has a part.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from models.alerts.alert import OLD_KEY_BYTES, series_id
from models.alerts.series import FIRING
from models.errors import Busy, Conflict, Malformed, NotFound, TooLarge
from models.incidents.incident import (
    AUTOMATED,
    Child,
    Incident,
    IncidentState,
    Notification,
    Override,
    OwedPeerMessage,
    incident_id,
)
from models.incidents.notification import RESOLVED
from models.incidents.verbs import PARTS_MAX, RELATED_MAX, SPLIT_MAX, Split
from models.shard import notifications, peer_messages, people
from models.shard.events import (
    ChildChanged,
    ChildLeft,
    IncidentLinked,
    IncidentMerged,
    IncidentMergedInto,
    IncidentSplit,
    IncidentUnlinked,
    IncidentUnmerged,
    NotificationDropped,
    PeerMessageDelivered,
    PeerMessageOwed,
    PeerMessageReceived,
)
from models.shard.messages import Decision, Done, Failed, PeerMessageAnswered, PeerMessageArrived, Reply
from models.shard.peer_messages import (
    AnyPeerMessage,
    ChildState,
    EndAsked,
    LinkAsked,
    MergeAsked,
    UnmergeAsked,
)

if TYPE_CHECKING:
    from models.shard.shard import Shard
    from models.shard.state import ShardState

ChildrenEvent = (
    IncidentLinked
    | IncidentUnlinked
    | IncidentMerged
    | ChildChanged
    | ChildLeft
    | IncidentMergedInto
    | IncidentUnmerged
    | IncidentSplit
    | PeerMessageOwed
    | PeerMessageDelivered
    | PeerMessageReceived
)
SYSTEM = "system"
#: Incidents that one incident ever hears notes of, 60 bytes each, kept while it lives: who links and unlinks others by
#: program would make it grow without end.
HEARD_MAX = 1000
#: Notes of one incident that wait for others' shards, before a person's next one is refused: all its links, and all its
#: parts asked to end, twice over.
OWED_MAX = 2 * (RELATED_MAX + PARTS_MAX)
MERGE, UNMERGE = "merge", "unmerge"
_ID_BYTES = 16


def written(identity: bytes) -> str:
    """An incident's id as people write it."""
    return str(UUID(bytes=identity))


# -- what a person asks ------------------------------------------------------------------------------------------


def link(shard: Shard, incident: Incident, other: bytes, actor: str, reason: str, now: float) -> None:
    """Two incidents have to do with each other; the other one hears of it. Raises Refused."""
    _check_other(incident, other)
    related = [] if incident.handling is None else incident.handling.related
    if other in related:
        return
    if len(related) >= RELATED_MAX:
        raise TooLarge(f"incident: at most {RELATED_MAX} incidents are linked to one")
    _check_owed(incident)
    shard.do(IncidentLinked(incident.id, other, actor, reason), now)
    _owe(shard, incident, other, LinkAsked(actor, reason), now)


def unlink(shard: Shard, incident: Incident, other: bytes, actor: str, reason: str, now: float) -> None:
    """They have not, after all. Raises Refused."""
    if incident.handling is None or other not in incident.handling.related:
        raise NotFound(f"incident {_shown(other)} is not linked to it")
    _check_owed(incident)
    shard.do(IncidentUnlinked(incident.id, other, actor, reason), now)
    _owe(shard, incident, other, LinkAsked(actor, reason, gone=True), now)


def merge(shard: Shard, incident: Incident, source: bytes, actor: str, reason: str, now: float) -> None:
    """`source` becomes a part of this incident, if it agrees. Raises Refused."""
    _check_other(incident, source)
    if source in incident.children:
        if incident.children[source].pending == UNMERGE:
            raise Conflict(f"incident {written(source)} is just being unmerged: try again in a moment")
        return
    if not incident.is_open:
        raise Conflict(f"it is {incident.state}: reopen it first")
    if len(incident.children) >= PARTS_MAX:
        raise TooLarge(f"incident: at most {PARTS_MAX} incidents are parts of one")
    _check_owed(incident)
    shard.do(IncidentMerged(incident.id, source, actor, reason), now)
    _owe(shard, incident, source, MergeAsked(actor, reason), now)


def unmerge(shard: Shard, incident: Incident, source: bytes, actor: str, reason: str, now: float) -> None:
    """`source` is an incident of its own again. Raises Refused."""
    part = incident.children.get(source)
    if part is None:
        raise NotFound(f"incident {_shown(source)} is no part of it")
    if part.pending == MERGE:
        raise Conflict(f"incident {written(source)} is just being merged: try again in a moment")
    if part.pending == UNMERGE:
        return
    _check_owed(incident)
    _part(shard, incident, source, msgspec.structs.replace(part, pending=UNMERGE), now)
    _owe(shard, incident, source, UnmergeAsked(actor, reason), now)


def split(shard: Shard, incident: Incident, verb: Split, actor: str, reason: str, now: float) -> Incident:
    """Some of an incident's series leave for a new one, in the same shard; new series of the group join the old one.
    Raises Refused."""
    if not incident.is_open:
        raise Conflict(f"it is {incident.state}: reopen it first")
    if len(verb.series) > SPLIT_MAX:
        raise TooLarge(f"alerts: at most {SPLIT_MAX} are split off at once")
    numbers = array("I")
    for identity in dict.fromkeys(verb.series):
        number = shard.series.by_series.get(identity)
        if number is None and shard.series.old_keys:
            number = _with_old_key(shard, incident, identity)
        if number is None or shard.series.incidents[number] is not incident:
            raise NotFound(f"alerts: series {identity.hex()} is not in this incident")
        numbers.append(number)
    if not numbers:
        raise Malformed("alerts: expected at least one")
    if len(numbers) == len(shard.members[incident.id]):
        raise Conflict("alerts: these are all it has; leave at least one in it")
    if shard.open_count >= shard.settings.max_open:
        raise Conflict("max_concurrent_incidents is reached: resolve others first")
    made = incident_id(incident.slot, now, shard.epoch, shard.seq, f"{incident.group_key}#split")
    title = verb.title or incident.title
    # No two open incidents share a group, and no alert looks for this one: its series are known to be in it.
    group_key = f"{incident.group_key.partition(_SPLIT)[0]}{_SPLIT}{made.hex()}"
    shard.do(IncidentSplit(incident.id, made, group_key, numbers.tobytes(), title, actor, reason), now)
    shard.ended(incident, "what still fired was split off", now)
    found = shard.incidents[made]
    shard.ended(found, "nothing of it fired when it was split off", now)
    if found.is_open:
        notifications.owe(shard, found, "opened", now, now + shard.settings.wait_s[found.severity])
    return found


def _with_old_key(shard: Shard, incident: Incident, identity: bytes) -> int | None:
    """The series of an incident that would have this id, had it not begun with 0.2.0 or older."""
    for number in shard.members[incident.id]:
        if len(shard.series.keys[number]) == OLD_KEY_BYTES:
            if series_id(incident.tenant, shard.series.content(number).labels) == identity:
                return number
    return None


#: What stands between a group's key and the id of an incident that was split off it.
_SPLIT = "\nsplit "


def end_all(shard: Shard, incident: Incident, actor: str, method: str, reason: str, now: float) -> None:
    """A person resolved an incident: its open parts are asked to end."""
    for source, part in [*incident.children.items()]:
        if part.is_open:
            number = _owe(shard, incident, source, EndAsked(actor, method, reason), now)
            _part(shard, incident, source, msgspec.structs.replace(part, ended_by=number), now)


# -- from one incident to the other ------------------------------------------------------------------------------


def say(shard: Shard, incident: Incident, now: float) -> None:
    """A part tells its whole how it is."""
    whole = incident.merged_into
    heard, _refused = incident.heard_of(whole)
    _owe(shard, incident, whole, ChildState(incident.is_open, incident.severity, heard), now)


def hear(shard: Shard, told: PeerMessageArrived, now: float) -> Reply:
    """A note for one of our incidents: Done when it agrees, Failed when it does not; asked again, the same."""
    incident = shard.incidents.get(told.to)
    if incident is None or incident.tenant != told.tenant:
        return Failed("NotFound", f"there is no incident {_shown(told.to)}, or it is archived")
    number, refused = incident.heard_of(told.sender)
    if not number and incident.handling is not None and told.sender not in incident.children:
        if len(incident.handling.heard) >= HEARD_MAX:
            return Failed("Conflict", f"it had to do with {HEARD_MAX} incidents already")
    if told.number > number:
        try:
            note = peer_messages.decode(told.note)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return Failed("Malformed", f"note can't be read: {error}")
        refused = _heard(shard, incident, told.sender, note, now)
        shard.do(PeerMessageReceived(incident.id, told.sender, told.number, refused), now)
    return Failed("Conflict", refused) if refused else Done()


def note_answered(shard: Shard, answer: PeerMessageAnswered, now: float) -> None:
    """The other incident answered: the debt is paid, and the second half of what was begun can be done here."""
    incident = shard.incidents.get(answer.sender)
    if incident is None or incident.handling is None:
        return
    owed = incident.handling.owed
    if not owed or owed[0].number != answer.number:
        return
    sent, refused = owed[0], answer.refused
    shard.do(PeerMessageDelivered(incident.id, sent.number, refused), now)
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
                _on_its_own(shard, incident, now)
        case EndAsked():
            # A part that ends says so itself, and may by now say more. One that is gone says nothing.
            if part is not None and refused:
                _part(shard, incident, sent.to, msgspec.structs.replace(part, is_open=False), now)
                shard.ended(incident, "all its parts ended", now)
        case LinkAsked():
            return  # an unlinked one that is gone is unlinked


def _is_asked_again(incident: Incident, to: bytes) -> bool:
    """Whether a later word about a link to that incident waits: that one's answer counts."""
    owed = [] if incident.handling is None else incident.handling.owed
    return any(note.to == to and isinstance(peer_messages.decode(note.note), LinkAsked) for note in owed)


def _heard(shard: Shard, incident: Incident, sender: bytes, note: AnyPeerMessage, now: float) -> str:
    """Do what a note asks; why not, when it can't be."""
    match note:
        case LinkAsked():
            related = [] if incident.handling is None else incident.handling.related
            if note.gone:
                if sender in related:
                    shard.do(IncidentUnlinked(incident.id, sender, note.actor, note.reason), now)
            elif sender not in related:
                if len(related) >= RELATED_MAX:
                    return f"{RELATED_MAX} incidents are linked to it already"
                shard.do(IncidentLinked(incident.id, sender, note.actor, note.reason), now)
        case MergeAsked():
            return _become_part(shard, incident, sender, note, now)
        case UnmergeAsked():
            if incident.merged_into == sender:
                shard.do(IncidentUnmerged(incident.id, sender, note.actor, note.reason), now)
                _on_its_own(shard, incident, now)
        case ChildState():
            return _part_said(shard, incident, sender, note, now)
        case EndAsked():
            if incident.merged_into != sender:
                return "it is no part of that incident any more"
            if incident.is_open:
                people.resolve(shard, incident, note.actor, note.method, note.reason, now)
    return ""


def _become_part(shard: Shard, incident: Incident, whole: bytes, note: MergeAsked, now: float) -> str:
    if incident.merged_into:
        if incident.merged_into == whole:
            return ""
        return f"it is a part of incident {written(incident.merged_into)} already"
    if incident.children:
        return "it has parts of its own: unmerge them first, or merge the other way round"
    if incident.state is IncidentState.CLOSED:
        return "it is closed"
    notice = incident.notification
    # Its end is told all the same: who heard of it must not wait for it for ever.
    if notice.reason not in (None, RESOLVED) and notice.due_at > now:
        shard.do(NotificationDropped(incident.id, notice.number, "merged into another incident"), now)
    shard.do(IncidentMergedInto(incident.id, whole, note.actor, note.reason), now)
    say(shard, incident, now)
    return ""


def _part_said(shard: Shard, incident: Incident, source: bytes, said: ChildState, now: float) -> str:
    part = incident.children.get(source)
    if part is None:
        return "it is no part of this incident"
    # What it said before it heard that it shall end is about a time before that.
    is_open = said.is_open and said.heard >= part.ended_by
    if is_open and not incident.is_open:
        if not (shard.may_reopen(incident, now) or _was_ended_early(shard, incident, part)):
            _leave(shard, incident, source, SYSTEM, "goes on after this one was over", now)
            return f"that one is {incident.state} for longer than reopen_window"
        shard.reopen(incident, now, reason="a part of it goes on")
    before = incident.severity
    _part(
        shard, incident, source, msgspec.structs.replace(part, is_open=is_open, severity=said.severity), now
    )
    if incident.severity != before:
        shard.judged(incident, before, f"a part of it is {incident.severity.name}", SYSTEM, now)
    shard.ended(incident, "all its parts ended", now)
    return ""


def _was_ended_early(shard: Shard, incident: Incident, part: Child) -> bool:
    """Whether a person resolved it together with this part, which went on all the same: then it never ended, as one whose
    own alerts fire on. Not when an alert has opened another incident of its group."""
    found = incident.resolution
    if incident.state is not IncidentState.RESOLVED or not part.ended_by or found is None:
        return False
    is_groups = shard.by_group.get((incident.tenant, incident.group_key)) is incident
    return found.method != AUTOMATED and (incident.is_by_hand or is_groups)


def _on_its_own(shard: Shard, incident: Incident, now: float) -> None:
    """Its whole spoke for it, and does not any more."""
    if incident.is_open:
        reason = "unmerged" if incident.notification.told else "opened"
        notifications.owe(shard, incident, reason, now, now + shard.settings.wait_s[incident.severity])


def _leave(
    shard: Shard,
    incident: Incident,
    source: bytes,
    actor: str,
    reason: str,
    now: float,
    refused: bool = False,
) -> None:
    shard.do(ChildLeft(incident.id, source, actor, reason, refused), now)
    shard.ended(incident, "all its parts ended or left", now)


def _part(shard: Shard, incident: Incident, source: bytes, part: Child, now: float) -> None:
    if incident.children[source] != part:
        event = ChildChanged(incident.id, source, part.is_open, part.severity, part.pending, part.ended_by)
        shard.do(event, now)


def _owe(shard: Shard, incident: Incident, to: bytes, note: AnyPeerMessage, now: float) -> int:
    number = 1 if incident.handling is None else incident.handling.owed_number + 1
    shard.do(PeerMessageOwed(incident.id, number, to, peer_messages.encode(note)), now)
    return number


def _check_other(incident: Incident, other: bytes) -> None:
    if len(other) != _ID_BYTES:
        raise Malformed("incident: expected an incident's id")
    if other == incident.id:
        raise Conflict("incident: an incident has nothing to do with itself")


def _check_owed(incident: Incident) -> None:
    waiting = 0 if incident.handling is None else len(incident.handling.owed)
    if waiting >= OWED_MAX:
        raise Busy(f"{waiting} notes to other incidents wait for their shards: try again when these are back")


def _shown(identity: bytes) -> str:
    return written(identity) if len(identity) == _ID_BYTES else identity.hex()


# -- live and in replay ------------------------------------------------------------------------------------------


def apply(shard: ShardState, event: ChildrenEvent, now: float) -> None:
    """Fold one event into the incident it is about."""
    incident = shard.changing(event.incident_id)
    handling = incident.handled()
    match event:
        case PeerMessageOwed():
            if _is_newer_word(handling.owed, event):
                handling.owed.pop()
            handling.owed.append(OwedPeerMessage(event.number, event.to, event.note))
            handling.owed_number = event.number
            shard.note_waits(incident)
            return
        case PeerMessageDelivered():
            handling.owed = [note for note in handling.owed if note.number > event.number]
            shard.note_waits(incident)
            return
        case PeerMessageReceived():
            handling.heard[event.sender] = event.number, event.refused
            return
        case ChildChanged():
            before = incident.severity
            handling.children[event.source] = Child(
                event.is_open, event.severity, event.pending, event.ended_by
            )
            incident.settle()
            if incident.severity != before:
                text = f"{before.name} -> {incident.severity.name}, by its parts"
                shard.line(incident, now, "SeverityChanged", SYSTEM, text)
        case IncidentLinked():
            handling.related.append(event.other)
            _line(shard, incident, now, "Linked", event.actor, event.other, event.reason)
        case IncidentUnlinked():
            handling.related.remove(event.other)
            _line(shard, incident, now, "Unlinked", event.actor, event.other, event.reason)
        case IncidentMerged():
            handling.children[event.source] = Child(pending=MERGE)
            _line(shard, incident, now, "Merged", event.actor, event.source, event.reason, "in")
        case ChildLeft():
            del handling.children[event.source]
            incident.settle()
            _line(
                shard,
                incident,
                now,
                "MergeRefused" if event.refused else "Unmerged",
                event.actor,
                event.source,
                event.reason,
            )
        case IncidentMergedInto():
            handling.merged_into = event.target
            _line(shard, incident, now, "Merged", event.actor, event.target, event.reason, "into")
        case IncidentUnmerged():
            handling.merged_into = b""
            # What it still wanted to say as a part is nobody's business now.
            handling.owed = [
                note
                for note in handling.owed
                if note.to != event.target or not isinstance(peer_messages.decode(note.note), ChildState)
            ]
            shard.note_waits(incident)
            _line(shard, incident, now, "Unmerged", event.actor, event.target, event.reason)
        case IncidentSplit():
            _apply_split(shard, incident, event, now)
    incident.updated_at = now
    incident.version += 1
    shard.watch(incident)


def _is_newer_word(owed: list[OwedPeerMessage], event: PeerMessageOwed) -> bool:
    """Of what a part says of itself while its whole's shard is away only the newest counts. The first may be on its way."""
    return (
        len(owed) > 1
        and owed[-1].to == event.to
        and all(isinstance(peer_messages.decode(note), ChildState) for note in (owed[-1].note, event.note))
    )


def _line(
    shard: ShardState,
    incident: Incident,
    now: float,
    kind: str,
    actor: str,
    other: bytes,
    reason: str,
    direction: str = "",
) -> None:
    identity = written(other)
    text = f"{direction} {identity}".strip() + (f": {reason}" if reason else "")
    shard.line(incident, now, kind, actor, text, incident=identity, direction=direction)


def _apply_split(shard: ShardState, incident: Incident, event: IncidentSplit, now: float) -> None:
    numbers = array("I", event.numbers)
    leaving = set(numbers)
    # What a person said of the old one is what the new one is; no classifier is asked for another word.
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
        shard.touch_series(number)
        shard.series.incidents[number] = made
        shard.series.note(number, Decision.SPLIT_OFF, now)
    firing = sum(1 for number in numbers if shard.series.status[number] == FIRING)
    kept = array("I", [number for number in shard.members[incident.id] if number not in leaving])
    shard.members[incident.id], shard.members[made.id] = kept, numbers
    incident.firing -= firing
    made.firing, made.series_seen = firing, len(numbers)
    many = f"{len(numbers)} alert{'s' if len(numbers) > 1 else ''}"
    _line(shard, incident, now, "Split", event.actor, made.id, event.reason, f"{many} into")
    shard.line(made, now, "Created", event.actor, event.title)
    _line(shard, made, now, "Split", event.actor, incident.id, event.reason, f"{many} out of")
