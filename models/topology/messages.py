"""What the topology partition is told and asked. Told by gateways and by its own actor (actors/correlator.py); answers are durable
state."""

from __future__ import annotations

import msgspec

from models.incidents.relation import Cause
from models.topology.events import IncidentNews
from models.topology.graph import Criticality, Dependency, Service
from models.wire import Wire

#: Items of one answer.
PAGE_MAX = 1000


class DeclareTopology(Wire, frozen=True):
    """This is all that `source` says. The same again changes nothing."""

    source: str
    services: list[Service]
    dependencies: list[Dependency]
    actor: str


class SetDependency(Wire, frozen=True):
    """One dependency more. Safe to repeat."""

    source: str
    dependency: Dependency
    actor: str


class RemoveDependency(Wire, frozen=True):
    """One less. Refused as NotFound where the source does not say it."""

    source: str
    caller: str
    callee: str
    actor: str


class RemoveSource(Wire, frozen=True):
    """A source says nothing any more. Refused as NotFound for one that there is not."""

    source: str
    actor: str


class IncidentsHeard(Wire, frozen=True):
    """A reader of a shard's log says how incidents are, up to the frame `seq`. Not refused; what is known already is left out."""

    partition: str
    seq: int
    digest: bytes
    incidents: list[IncidentNews]
    whole: bool = False


class Tick(Wire, frozen=True):
    """Time went by."""


TopologyMessage = DeclareTopology | SetDependency | RemoveDependency | RemoveSource | IncidentsHeard | Tick


class GetTopology(Wire, frozen=True):
    """Services by name after `after`, with what they need."""

    after: str = ""
    limit: int = PAGE_MAX


class GetService(Wire, frozen=True):
    """One service, with who needs it and what it needs within `hops`."""

    name: str
    hops: int = 1


class GetPath(Wire, frozen=True):
    """A shortest way from a caller to a callee."""

    caller: str
    callee: str


class ListSituations(Wire, frozen=True):
    """Situations, the newest first, before `before` (opened_at, id). `is_open` None: those that ended too."""

    limit: int = PAGE_MAX
    before: tuple[float, bytes] | None = None
    is_open: bool | None = True


class GetSituation(Wire, frozen=True):
    id: bytes


class EdgeView(msgspec.Struct, frozen=True, array_like=True):
    """A dependency. `seen_at` is when one of its sources said it last."""

    caller: str
    callee: str
    kinds: list[str]
    sources: list[str]
    seen_at: float


class ServiceView(msgspec.Struct, frozen=True, array_like=True):
    """A service and its direct dependencies, in both directions."""

    name: str
    criticality: Criticality
    needs: list[EdgeView]
    needed_by: list[EdgeView]
    open_incidents: list[bytes] = []


class SourceView(msgspec.Struct, frozen=True, array_like=True):
    name: str
    services: int
    dependencies: int
    seen_at: float
    actor: str


class TopologyPage(Wire, frozen=True):
    """`next_after` is where the next page begins, None at the end."""

    services: list[ServiceView]
    sources: list[SourceView]
    next_after: str | None
    service_count: int
    dependency_count: int


class ServicePage(Wire, frozen=True):
    """A service (None: nobody knows it), and at what distance others are that it needs (`reaches`) or that need it."""

    service: ServiceView | None
    reaches: dict[str, int] = {}
    reached_by: dict[str, int] = {}


class PathPage(Wire, frozen=True):
    """Empty where none leads there. `unknown` are those of the two that nobody knows."""

    edges: list[EdgeView]
    unknown: list[str] = []


class SituationMember(msgspec.Struct, frozen=True, array_like=True):
    """An incident of a situation and its part in it (models/incidents/relation.py)."""

    news: IncidentNews
    part: str
    symptom_of: bytes = b""
    ended_at: float = 0.0


class SituationView(msgspec.Struct, frozen=True, array_like=True):
    id: bytes
    opened_at: float
    updated_at: float
    ended_at: float
    causes: list[Cause]
    members: list[SituationMember]


class SituationPage(Wire, frozen=True):
    items: list[SituationView]
    next_before: tuple[float, bytes] | None = None


Query = GetTopology | GetService | GetPath | ListSituations | GetSituation
Answer = TopologyPage | ServicePage | PathPage | SituationPage

_encoder = msgspec.msgpack.Encoder()
_message_decoder: msgspec.msgpack.Decoder[TopologyMessage] = msgspec.msgpack.Decoder(TopologyMessage)
_query_decoder: msgspec.msgpack.Decoder[Query] = msgspec.msgpack.Decoder(Query)
_answer_decoder: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(value: TopologyMessage | Query | Answer) -> bytes:
    """MessagePack of any of these."""
    return _encoder.encode(value)


def decode_message(data: bytes) -> TopologyMessage:
    """Raises msgspec.MsgspecError."""
    return _message_decoder.decode(data)


def decode_query(data: bytes) -> Query:
    """Raises msgspec.MsgspecError."""
    return _query_decoder.decode(data)


def decode_answer(data: bytes) -> Answer:
    """Raises msgspec.MsgspecError."""
    return _answer_decoder.decode(data)
