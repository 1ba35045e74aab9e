"""The topology partition: who depends on whom, and which incidents belong together because of it.

A machine (models/partition/machine.py). Its writer is actors/correlator.py, which tells it what readers of the shards' logs hear; how
far they read is in its own log, so a restart goes on from there. What is decided is logged (which incidents are a situation, and what
probably causes it); what each incident is told of it follows from that, and is told again whenever somebody may have missed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from models.errors import Broken, NotFound, Refused
from models.incidents.incident import incident_id
from models.incidents.relation import Relation
from models.partition.checkpoint import META, SNAPSHOT_VERSION, Checkpoint, RecordKind, parse_key
from models.partition.event import Event
from models.partition.frames import Frames
from models.topology.events import (
    DependencyRemoved,
    DependencySet,
    IncidentNews,
    IncidentsNoted,
    SituationEnded,
    SituationGrew,
    SituationRanked,
    SituationsDropped,
    SourceRemoved,
    TopologyDeclared,
    TopologySeen,
)
from models.topology.graph import Dependency, Graph, Service, Source, check_dependency, check_name, checked
from models.topology.messages import (
    DeclareTopology,
    IncidentsHeard,
    RemoveDependency,
    RemoveSource,
    SetDependency,
    Tick,
    TopologyMessage,
)
from models.topology.situations import INCIDENTS_MAX, Member, Rules, Situation, Situations

#: The partition's name, as the stores know it.
TOPOLOGY = "topology"
#: That a source said again what it had said is noted at most so often: an importer may say it each minute.
SEEN_EVERY_S = 3600.0
#: How far a log was read is noted with news, and without any after so many frames: so many are read again after a restart.
POSITION_EVERY_FRAMES = 1000
#: How long a situation is kept that ended, and how many of those.
KEPT_S = 7 * 86400.0
KEPT_MAX = 2000
#: Incidents that are looked at again when the graph changed: those that began within this. A second for ten thousand of them.
AGAIN_S = 3600.0

SOURCES = RecordKind("source", has_ids=True)
MEMBERS = RecordKind("member", has_ids=True)
SITUATIONS = RecordKind("situation", has_ids=True)
POSITIONS = RecordKind("position", has_ids=True)
_kinds = {kind.name: kind for kind in (META, SOURCES, MEMBERS, SITUATIONS, POSITIONS)}

EVENTS = (
    TopologyDeclared,
    TopologySeen,
    DependencySet,
    DependencyRemoved,
    SourceRemoved,
    IncidentsNoted,
    SituationGrew,
    SituationRanked,
    SituationEnded,
    SituationsDropped,
)
FRAMES = Frames(EVENTS)


class Position(msgspec.Struct, frozen=True, array_like=True):
    """The log of a shard was read up to the frame `seq`, whose digest begins with `digest`."""

    seq: int
    digest: bytes


class Relate(msgspec.Struct, frozen=True):
    """Effect: these incidents are to be told what they are related to. Follows from the state: safe to do twice, and lost with the
    process, because the next one asks for all of it."""

    incidents: list[bytes]


@dataclass(slots=True)
class Step:
    """What a message led to. `reply` is why it was refused."""

    events: list[Event]
    reply: Refused | None = None
    effects: Sequence[Relate] = field(default_factory=list)


class Topology:
    """The fold of the topology partition's events, and what comes next."""

    frames = FRAMES
    snapshot_version = SNAPSHOT_VERSION

    def __init__(self, partition: str = TOPOLOGY, rules: Rules | None = None) -> None:
        self.partition = partition
        self.rules = rules or Rules()
        self.epoch = 0
        self.seq = 0
        self.trace_id: str | None = None
        self.now = 0.0
        self.graph = Graph()
        self.situations = Situations(self.graph)
        self.positions: dict[str, Position] = {}
        self.checkpoint = Checkpoint([*_kinds.values()], self._capture)
        self._events: list[Event] = []
        self._stirred: dict[bytes, None] = {}

    # -- deciding ------------------------------------------------------------------------------------------

    def handle(self, message: TopologyMessage, now: float) -> Step:
        self._events, self._stirred = [], {}
        now = max(now, self.now)
        version = self.graph.version
        try:
            self._decide(message, now)
        except Refused as error:
            return Step([], error)
        if self.graph.version != version:
            self._look_again(now)
        told = self._settle(now)
        return Step(self._events, None, [Relate(told)] if told else [])

    def started(self, owner: str, now: float) -> Step:
        """Nobody knows what was told before: all that is open is told again."""
        every = [each for each, member in self.situations.members.items() if member.situation]
        return Step([], None, [Relate(every)] if every else [])

    def relation(self, incident: bytes, now: float) -> tuple[str, Relation] | None:
        """The partition of an incident, and what its shard is to know of it; None when that is nothing."""
        found = self.situations.relation(incident, self.rules, now)
        return None if found is None else (self.situations.members[incident].partition, found)

    def _decide(self, message: TopologyMessage, now: float) -> None:
        match message:
            case IncidentsHeard():
                self._heard(message, now)
            case Tick():
                self._drop_old(now)
            case DeclareTopology():
                self._declare(message, now)
            case SetDependency():
                check_name("source", message.source)
                check_dependency(message.dependency)
                before = self.graph.sources.get(message.source)
                wanted = message.dependency
                if before is None or before.dependencies.get((wanted.caller, wanted.callee)) != wanted:
                    services, links = (
                        (0, 0) if before is None else (len(before.services), len(before.dependencies))
                    )
                    self.graph.check_room(message.source, services, links + 1)
                    self._do(DependencySet(message.source, wanted, now, message.actor), now)
            case RemoveDependency():
                said = self.graph.says(message.source).dependencies
                if (message.caller, message.callee) not in said:
                    raise NotFound(
                        f"source {message.source!r} does not say that {message.caller!r} depends on {message.callee!r}"
                    )
                self._do(
                    DependencyRemoved(message.source, message.caller, message.callee, now, message.actor), now
                )
            case RemoveSource():
                self.graph.says(message.source)
                self._do(SourceRemoved(message.source, now, message.actor), now)
            case _:
                raise Broken(f"{type(message).__name__} is not decided here")

    def _declare(self, message: DeclareTopology, now: float) -> None:
        services, dependencies = checked(message.services, message.dependencies, message.source)
        before = self.graph.sources.get(message.source)
        if before is not None:
            same = [*before.services.values()] == services and [*before.dependencies.values()] == dependencies
            if same:
                if now - before.seen_at >= SEEN_EVERY_S:
                    self._do(TopologySeen(message.source, now), now)
                return
        self.graph.check_room(message.source, len(services), len(dependencies))
        self._do(TopologyDeclared(message.source, services, dependencies, now, message.actor), now)

    def _heard(self, message: IncidentsHeard, now: float) -> None:
        known = self.situations.members
        changed: list[IncidentNews] = []
        begun: list[bytes] = []
        for said in message.incidents:
            news = said
            member = known.get(news.id)
            if member is None:
                if not news.is_open:
                    continue
            else:
                before = member.news
                # It began when it opened or last opened again, and who was told of it knows until it ends.
                goes_on = before.is_open and before.reopened == news.reopened
                if goes_on:
                    news = msgspec.structs.replace(news, since=before.since, told=before.told or news.told)
                if news == before and member.partition == message.partition:
                    continue
            changed.append(news)
            if news.is_open and (member is None or not member.news.is_open or not member.situation):
                begun.append(news.id)
        if message.whole:
            said_ids = {each.id for each in message.incidents}
            changed += [
                msgspec.structs.replace(member.news, is_open=False)
                for identity, member in known.items()
                if member.partition == message.partition and member.news.is_open and identity not in said_ids
            ]
        at = self.positions.get(message.partition)
        is_far = at is None or not 0 <= message.seq - at.seq < POSITION_EVERY_FRAMES
        if not (changed or is_far):
            return
        self._do(IncidentsNoted(message.partition, message.seq, message.digest, changed, message.whole), now)
        for news in changed:
            if (found := known.get(news.id)) is not None and found.situation:
                self._stirred[found.situation] = None
        for identity in sorted(begun, key=lambda each: (known[each].news.since, each)):
            self._place(known[identity], now)

    def _place(self, member: Member, now: float) -> None:
        """Find out what an incident that began belongs to."""
        neighbours = [*self.situations.neighbours(member, self.rules)]
        all_, identity = self.situations.all, member.news.id
        if not neighbours:
            if member.situation and all_[member.situation].ended_at:
                self._grow(member.situation, [identity], [], now)  # it goes on
            return
        found = dict.fromkeys(each.situation for each in neighbours if each.situation)
        if member.situation:
            found[member.situation] = None
        # The oldest stays: people may be at work on it.
        known = sorted(found, key=lambda each: (all_[each].opened_at, each))
        loose = [each.news.id for each in neighbours if not each.situation]
        if not member.situation:
            loose.append(identity)
        if not known:
            first = min((*neighbours, member), key=lambda each: (each.news.since, each.news.id)).news
            situation = incident_id(0, first.since, self.epoch, self.seq, f"situation {identity.hex()}")
            self._grow(situation, loose, [], now)
            return
        situation, merged, size = known[0], list[bytes](), len(all_[known[0]].incidents)
        for each in known[1:]:
            # Two large ones stay two: together they would be an outage of everything.
            if size + len(all_[each].incidents) <= INCIDENTS_MAX:
                size += len(all_[each].incidents)
                merged.append(each)
        self._grow(situation, loose[: max(0, INCIDENTS_MAX - size)], merged, now)

    def _grow(self, situation: bytes, incidents: list[bytes], merged: list[bytes], now: float) -> None:
        if incidents or merged:
            self._do(SituationGrew(situation, incidents, merged), now)
            for each in merged:
                self._stirred.pop(each, None)
            self._stirred[situation] = None

    def _look_again(self, now: float) -> None:
        """The graph is another: what is open may belong together now, and be caused by something else."""
        for member in [*self.situations.members.values()]:
            if member.news.is_open and now - member.news.since <= AGAIN_S:
                self._place(member, now)
        self._stirred.update((each.id, None) for each in self.situations.all.values() if not each.ended_at)

    def _settle(self, now: float) -> list[bytes]:
        """What follows for the situations that are otherwise; returns the incidents that are to be told."""
        told: dict[bytes, None] = {}
        for identity in self._stirred:
            situation = self.situations.all.get(identity)
            if situation is None:
                continue
            is_open = any(True for _ in self.situations.opened(situation))
            if not is_open:
                # What it was said to be caused by while it went on stays.
                if not situation.ended_at:
                    self._do(SituationEnded(identity), now)
                continue
            causes = self.situations.causes(situation, self.rules)
            if causes != situation.causes:
                self._do(SituationRanked(identity, causes), now)
            told.update((each.news.id, None) for each in self.situations.opened(situation))
        return [*told]

    def _drop_old(self, now: float) -> None:
        ended = sorted(
            (each for each in self.situations.all.values() if each.ended_at), key=lambda each: each.ended_at
        )
        old = [each.id for each in ended if now - each.ended_at > KEPT_S]
        over = [each.id for each in ended[: max(0, len(ended) - KEPT_MAX)]]
        if gone := [*dict.fromkeys((*old, *over))]:
            self._do(SituationsDropped(gone), now)

    def _do(self, event: Event, now: float) -> None:
        self.apply(event, now)
        self._events.append(event)

    # -- folding -------------------------------------------------------------------------------------------

    def replay(self, events: Sequence[Event], now: float) -> None:
        for event in events:
            self.apply(event, now)

    def apply(self, event: Event, now: float) -> None:
        """Raises Broken for an event that does not belong here."""
        self.now = now
        touch = self.checkpoint.touch
        match event:
            case IncidentsNoted():
                touch(POSITIONS, event.partition.encode())
                self.positions[event.partition] = Position(event.seq, event.digest)
                for news in event.incidents:
                    touch(MEMBERS, news.id)
                    self.situations.note(news, event.partition, now)
            case SituationGrew():
                for each in (event.situation, *event.merged):
                    touch(SITUATIONS, each)
                moved = [each for other in event.merged for each in self.situations.all[other].incidents]
                for identity in (*event.incidents, *moved):
                    touch(MEMBERS, identity)
                self.situations.join(event.situation, event.incidents, event.merged, now)
            case SituationRanked():
                touch(SITUATIONS, event.situation)
                situation = self.situations.all[event.situation]
                situation.causes, situation.updated_at = event.causes, now
            case SituationEnded():
                touch(SITUATIONS, event.situation)
                situation = self.situations.all[event.situation]
                situation.ended_at = situation.updated_at = now
            case SituationsDropped():
                for each in event.situations:
                    touch(SITUATIONS, each)
                    for identity in self.situations.all[each].incidents:
                        touch(MEMBERS, identity)
                    self.situations.drop(each)
            case _:
                self._apply_to_graph(event)

    def _apply_to_graph(self, event: Event) -> None:
        graph = self.graph
        if not isinstance(
            event, TopologyDeclared | TopologySeen | DependencySet | DependencyRemoved | SourceRemoved
        ):
            raise Broken(f"{type(event).__name__} does not belong to the topology partition")
        self.checkpoint.touch(SOURCES, event.source.encode("utf-8", "surrogatepass"))
        match event:
            case TopologyDeclared():
                services = {each.name: each for each in event.services}
                links = {(each.caller, each.callee): each for each in event.dependencies}
                graph.put(Source(event.source, services, links, event.at, event.actor))
            case TopologySeen():
                graph.sources[event.source].seen_at = event.at
            case DependencySet():
                graph.link(event.source, event.dependency, event.at, event.actor)
            case DependencyRemoved():
                graph.unlink(event.source, event.caller, event.callee)
            case SourceRemoved():
                graph.drop(event.source)

    # -- snapshots -----------------------------------------------------------------------------------------

    def load(self, records: Iterable[tuple[str, bytes]]) -> None:
        for key, record in records:
            kind, identity, version = parse_key(key, _kinds)
            self.checkpoint.loaded(kind, identity, record, version)
            if kind is META:
                self.now, *_later = _meta_decoder.decode(record)
                continue
            assert isinstance(identity, bytes)
            if kind is SOURCES:
                source = _source_decoder.decode(record)
                self.graph.sources[source[0]] = Source(
                    source[0],
                    {each.name: each for each in source[1]},
                    {(each.caller, each.callee): each for each in source[2]},
                    source[3],
                    source[4],
                )
            elif kind is MEMBERS:
                self.situations.load(_member_decoder.decode(record))
            elif kind is SITUATIONS:
                self.situations.all[identity] = _situation_decoder.decode(record)
            elif kind is POSITIONS:
                self.positions[identity.decode()] = _position_decoder.decode(record)

    def loaded(self) -> None:
        self.graph.remade()

    def _capture(self, kind: RecordKind, key: int | bytes) -> bytes | None:
        if kind is META:
            return _encoder.encode((self.now,))
        assert isinstance(key, bytes)
        found: object | None = None
        if kind is SOURCES:
            source = self.graph.sources.get(key.decode("utf-8", "surrogatepass"))
            if source is not None:
                found = (
                    source.name,
                    [*source.services.values()],
                    [*source.dependencies.values()],
                    source.seen_at,
                    source.actor,
                )
        elif kind is MEMBERS:
            found = self.situations.members.get(key)
        elif kind is SITUATIONS:
            found = self.situations.all.get(key)
        else:
            found = self.positions.get(key.decode())
        return None if found is None else _encoder.encode(found)


_encoder = msgspec.msgpack.Encoder()
_meta_decoder = msgspec.msgpack.Decoder(tuple[float, ...])
_member_decoder = msgspec.msgpack.Decoder(Member)
_situation_decoder = msgspec.msgpack.Decoder(Situation)
_position_decoder = msgspec.msgpack.Decoder(Position)
_source_decoder = msgspec.msgpack.Decoder(tuple[str, list[Service], list[Dependency], float, str])
