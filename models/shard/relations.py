"""How incidents hang together with those of other services, as the correlator (actors/correlator.py) says: each incident's
situation, its part in it and the probable cause. Kept beside the incident, shown with it, and named by its notifications.

With `correlation.mute_symptoms`, nobody is notified of a symptom whose cause was notified. That is a lease: its end is in the event, and
the shard ends it by itself, whatever has become of the correlator; and however often it is renewed, `mute_symptoms_for_s` after it
began it is over. What opened just now waits for PATIENCE_S for word from the correlator.
"""

from __future__ import annotations

import msgspec

from models.incidents.incident import Incident, id_text
from models.incidents.lines import SYSTEM, Around, Description, Line, line_of
from models.incidents.relation import Part, Relation
from models.partition.checkpoint import RecordKind
from models.partition.event import Event
from models.shard import clock
from models.shard.changes import Moved, Muted, Opened, Rerated, Unmuted
from models.shard.component import Component, RecordOf, on
from models.shard.core import Core
from models.shard.events import ClockSetBack, IncidentStateChanged
from models.shard.messages import Done, Message, Reply, Tick

#: What opened waits so long for word from the correlator, where symptoms are muted: it reads the logs five times a second, and a page
#: that is three seconds late wakes nobody later.
PATIENCE_S = 3.0
#: Incidents that wait so at once. In a flood of more nobody waits: the correlator will not be as fast.
WAITING_MAX = 10_000
#: What is known of an incident, by its id.
RELATED = RecordKind("related", has_ids=True)

#: Lines about relations kept in one timeline: causes that take turns in a long outage must not push out the rest.
LINES_MAX = 50
#: When its cause is over a symptom has so long to end by itself, which its sender takes to notice.
SETTLE_S = 120.0
#: Why a symptom waits no more.
OVER_LEASE = "its cause is over, or the correlator is away"
OVER_LIMIT = "it waited as long as a symptom may"
OVER_CAUSE = "it is probably the cause itself"
OVER_SETTINGS = "by its severity it does not wait"


class Kept(msgspec.Struct, array_like=True):
    """What is known of an incident. `number` is that of the message that said it: one with a smaller one is older. Until `mute_until`
    nobody is notified of it (0: that is over), since `muted_at` (0: never in its present run)."""

    number: int
    relation: Relation
    mute_until: float = 0.0
    muted_at: float = 0.0


class IncidentRelated(Event, frozen=True):
    """The correlator said this of an incident. `mute_until` is what came of its lease here; `text` is what is new about it, "" for
    nothing that people need be told."""

    incident_id: bytes
    number: int
    relation: Relation
    mute_until: float
    text: str


class RelationHeard(Event, frozen=True):
    """It said the same again, with a lease until then."""

    incident_id: bytes
    number: int
    mute_until: float


class SymptomMuteEnded(Event, frozen=True):
    """An incident is not muted as a symptom any more."""

    incident_id: bytes
    reason: str


class Related(Message, frozen=True):
    """What the correlator knows of an incident. Numbers grow: an older one than the last changes nothing."""

    tenant: str
    incident_id: bytes
    number: int
    relation: Relation


def _related_line(event: IncidentRelated, _around: Around) -> Line | None:
    relation = event.relation
    return (
        line_of(
            "IncidentRelated",
            SYSTEM,
            event.text,
            situation=id_text(relation.situation),
            part=relation.part.value,
            incident=id_text(relation.symptom_of) if relation.symptom_of else "",
        )
        if event.text
        else None
    )


def _mute_ended_line(event: SymptomMuteEnded, _around: Around) -> Line:
    return line_of(
        "SymptomMuteEnded", SYSTEM, f"not muted as a symptom any more: {event.reason}", event.reason
    )


class Relations(Component):
    name = "relations"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        #: What is known, by incident.
        self.kept: dict[bytes, Kept] = {}
        #: Incidents that opened just now, and until when they wait. In memory only: after a crash nobody waits.
        self._waiting: dict[bytes, float] = {}
        #: Settings may be others than when incidents were muted: the next tick looks.
        self._is_stale = False

    # -- what others ask -----------------------------------------------------------------------------------

    def known(self, incident: Incident) -> Relation | None:
        """What is known of an incident, with the end of the mute that is in force (0: none)."""
        kept = self.kept.get(incident.id)
        return None if kept is None else msgspec.structs.replace(kept.relation, mute_until=kept.mute_until)

    def is_muted(self, incident: Incident) -> bool:
        """Whether nobody is to be told of it now, as a symptom."""
        kept = self.kept.get(incident.id)
        return kept is not None and self._is_muting(incident, kept)

    def in_a_line(self, incident: Incident) -> str:
        """The probable cause of a symptom in a line, "" where there is nothing to say."""
        kept = self.kept.get(incident.id)
        return "" if kept is None else _probably(kept.relation)

    def withholds(self, incident: Incident) -> str | None:
        kept = self.kept.get(incident.id)
        if kept is not None and self._is_muting(incident, kept):
            return f"a symptom of {kept.relation.symptom_of_service or 'an incident that was told'}"
        return "" if incident.id in self._waiting else None

    def _is_muting(self, incident: Incident, kept: Kept) -> bool:
        settings = self.shard.settings
        return (
            bool(kept.mute_until)
            and settings.mute_symptoms
            and incident.severity in settings.symptom_severities
            and incident.is_open
        )

    # -- what the correlator says --------------------------------------------------------------------------

    def _related(self, said: Related, now: float) -> Reply:
        incident = self.state.incidents.get(said.incident_id)
        if incident is None or incident.tenant != said.tenant:
            return Done()
        self._waiting.pop(incident.id, None)
        kept = self.kept.get(incident.id)
        if kept is not None and said.number <= kept.number:
            return Done()
        mute_until = self._mute_until(incident, said.relation, kept, now)
        relation = msgspec.structs.replace(said.relation, mute_until=0.0)
        was_muted = kept is not None and bool(kept.mute_until)
        was_muting = kept is not None and self._is_muting(incident, kept)
        if kept is not None and kept.relation == relation:
            self.shard.do(RelationHeard(incident.id, said.number, mute_until), now)
        else:
            before = None if kept is None else kept.relation
            text = _news(before, relation, bool(mute_until) and not was_muting)
            self.shard.do(IncidentRelated(incident.id, said.number, relation, mute_until, text), now)
        if was_muted and not mute_until:
            # Settings that mute it no more may be new since the last tick, which would have ended it.
            is_cause = relation.part is Part.CAUSE
            why = OVER_CAUSE if is_cause else OVER_LIMIT if was_muting else OVER_SETTINGS
            self._end(incident, why, now)
        elif mute_until and not was_muting and self._is_muting(incident, self.kept[incident.id]):
            self.shard.report(Muted(incident), now)
        return Done()

    def _mute_until(self, incident: Incident, relation: Relation, kept: Kept | None, now: float) -> float:
        settings = self.shard.settings
        if not settings.mute_symptoms or relation.part is Part.CAUSE or not incident.is_open:
            return 0.0
        since = kept.muted_at if kept is not None and kept.muted_at else now
        lease = relation.mute_until
        if not lease and kept is not None and kept.mute_until:
            lease = min(kept.mute_until, now + SETTLE_S)
        until = min(lease, since + settings.mute_symptoms_for_s)
        return until if until > now else 0.0

    # -- time ----------------------------------------------------------------------------------------------

    def next_at(self, incident: Incident) -> float:
        kept = self.kept.get(incident.id)
        return 0.0 if kept is None else kept.mute_until

    def due(self, incident: Incident, now: float) -> None:
        kept = self.kept[incident.id]
        is_limit = now >= kept.muted_at + self.shard.settings.mute_symptoms_for_s
        self._end(incident, OVER_LIMIT if is_limit else OVER_LEASE, now)

    def _end(self, incident: Incident, reason: str, now: float) -> None:
        """It is not muted any more."""
        self.shard.do(SymptomMuteEnded(incident.id, reason), now)
        self._let_go(incident, now)

    def _let_go(self, incident: Incident, now: float) -> None:
        # Also where it is not known yet whether something else mutes it: then it is owed, and held back until it is.
        if not self.shard.withholds(incident):
            self.shard.report(Unmuted(incident), now)

    def tick(self, tick: Tick, now: float) -> None:
        if self._waiting:
            # In the order in which they opened: those behind the first that still waits do too.
            for identity, until in [*self._waiting.items()]:
                if until > now:
                    break
                del self._waiting[identity]

        if self._is_stale:
            self._is_stale = False
            for identity, kept in self.kept.items():
                incident = self.state.incidents[identity]
                if kept.mute_until and not self._is_muting(incident, kept):
                    self._end(incident, OVER_SETTINGS, now)

    def started(self, now: float, is_set_back: bool) -> None:
        self._is_stale = True

    def settings_changed(self) -> None:
        self._is_stale = True
        if not self.shard.settings.mute_symptoms:
            self._waiting.clear()

    # -- what becomes of incidents -------------------------------------------------------------------------

    def _opened(self, change: Opened, now: float) -> None:
        self._await(change.incident, now)

    def _moved(self, change: Moved, now: float) -> None:
        if change.reopens:
            # Its severity is known already, other than that of one that opens.
            if change.incident.severity in self.shard.settings.symptom_severities:
                self._await(change.incident, now)
        elif change.ends:
            self._waiting.pop(change.incident.id, None)

    def _await(self, incident: Incident, now: float) -> None:
        settings = self.shard.settings
        if settings.mute_symptoms and not incident.is_by_hand and len(self._waiting) < WAITING_MAX:
            self._waiting.pop(incident.id, None)
            self._waiting[incident.id] = now + PATIENCE_S

    def _rerated(self, change: Rerated, now: float) -> None:
        """What is too severe to wait is told now."""
        incident = change.incident
        kept = self.kept.get(incident.id)
        if incident.severity not in self.shard.settings.symptom_severities:
            self._waiting.pop(incident.id, None)
            if kept is not None and kept.mute_until:
                self._end(incident, OVER_SETTINGS, now)

    # -- live and in replay --------------------------------------------------------------------------------

    def _fold_related(self, event: IncidentRelated, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        self.state.checkpoint.touch(RELATED, incident.id)
        if event.text:
            self.state.make_room(incident, "IncidentRelated", LINES_MAX)
        kept = self.kept.get(incident.id)
        muted_at = 0.0 if kept is None else kept.muted_at
        self.kept[incident.id] = Kept(
            event.number, event.relation, event.mute_until, muted_at or (now if event.mute_until else 0.0)
        )

    def _fold_heard(self, event: RelationHeard, now: float) -> None:
        self.state.checkpoint.touch(RELATED, event.incident_id)
        kept = self.kept[event.incident_id]
        kept.number, kept.mute_until = event.number, event.mute_until
        kept.muted_at = kept.muted_at or (now if event.mute_until else 0.0)
        self.state.stirred[event.incident_id] = None

    def _fold_mute_ended(self, event: SymptomMuteEnded, now: float) -> None:
        self.state.changing(event.incident_id)
        self.state.checkpoint.touch(RELATED, event.incident_id)
        self.kept[event.incident_id].mute_until = 0.0

    def _fold_state(self, event: IncidentStateChanged, now: float) -> None:
        """With its end, what it waited for is over; a new run waits anew."""
        kept = self.kept.get(event.incident_id)
        if kept is not None and not self.state.incidents[event.incident_id].is_open:
            self.state.checkpoint.touch(RELATED, event.incident_id)
            kept.mute_until = kept.muted_at = 0.0

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        kept = self.kept.get(incident.id)
        if kept is not None and kept.muted_at:
            self.state.checkpoint.touch(RELATED, incident.id)
            kept.mute_until = clock.due(kept.mute_until, event)
            kept.muted_at = clock.then(kept.muted_at, event)

    def left(self, incident: Incident) -> None:
        self._waiting.pop(incident.id, None)
        if incident.id in self.kept:
            self.state.checkpoint.touch(RELATED, incident.id)
            del self.kept[incident.id]

    def carries(self, incident: Incident) -> bytes | None:
        kept = self.kept.get(incident.id)
        return None if kept is None else _encoder.encode(kept)

    def brings(self, incident: Incident, record: bytes) -> None:
        self.state.checkpoint.touch(RELATED, incident.id)
        self.kept[incident.id] = _decoder.decode(record)

    def _capture(self, identity: int | bytes) -> bytes | None:
        kept = self.kept.get(identity) if isinstance(identity, bytes) else None
        return None if kept is None else _encoder.encode(kept)

    def _load(self, identity: int | bytes, record: bytes, _version: int) -> None:
        assert isinstance(identity, bytes)
        self.kept[identity] = _decoder.decode(record)

    def _clock_set_back(self, event: ClockSetBack) -> None:
        """What waits since a time that was ahead would wait for ever."""
        self._waiting.clear()

    messages = {Related: _related}
    reactions = {Opened: _opened, Moved: _moved, Rerated: _rerated}
    follows = {IncidentStateChanged: _fold_state}
    after = {ClockSetBack: _clock_set_back}
    records = (RecordOf(RELATED, _capture, _load),)
    events = (
        on(IncidentRelated, _fold_related, Description(("IncidentRelated",), _related_line)),
        on(RelationHeard, _fold_heard),
        on(SymptomMuteEnded, _fold_mute_ended, Description(("SymptomMuteEnded",), _mute_ended_line)),
    )


def _probably(relation: Relation) -> str:
    first = relation.first
    if relation.part is Part.SYMPTOM:
        cause = next((each for each in relation.causes if each.incident_id == relation.symptom_of), first)
        return "" if cause is None else f"probably a symptom of {cause.in_words}"
    if relation.part is Part.CAUSE and first is not None and relation.members > 1:
        return f"probably the cause of {relation.members - 1} more: {first.in_words}"
    return ""


def _news(before: Relation | None, after: Relation, is_muted: bool) -> str:
    """What people are told: of a new situation, another part, another cause; and that it waits."""
    is_same = before is not None and (before.situation, before.part, before.symptom_of) == (
        after.situation,
        after.part,
        after.symptom_of,
    )
    if is_same and not is_muted:
        return ""
    words = _probably(after) or f"one of {after.members} incidents that belong together"
    return f"{words}; nobody is notified while that is so" if is_muted else words


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Kept)
