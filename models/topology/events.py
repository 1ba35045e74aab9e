"""What has happened in the topology partition, in the past tense. Its fold is models/topology/topology.py.

An event type is only added, or superseded; a field is only added at the end, with a default.
"""

from __future__ import annotations

import msgspec

from models.incidents.relation import Cause
from models.partition.event import Event
from models.topology.graph import Dependency, Service


class TopologyDeclared(Event, frozen=True):
    """This is all that `source` says of services and what they need."""

    source: str
    services: list[Service]
    dependencies: list[Dependency]
    at: float
    actor: str


class TopologySeen(Event, frozen=True):
    """`source` said again what it had said."""

    source: str
    at: float


class DependencySet(Event, frozen=True):
    """`source` says of this dependency too."""

    source: str
    dependency: Dependency
    at: float
    actor: str


class DependencyRemoved(Event, frozen=True):
    """`source` says no more of it."""

    source: str
    caller: str
    callee: str
    at: float
    actor: str


class SourceRemoved(Event, frozen=True):
    """`source` says nothing any more."""

    source: str
    at: float
    actor: str


class IncidentNews(msgspec.Struct, frozen=True, array_like=True):
    """An incident as a shard's log has it. `since` is when it began, or began again; `told`: somebody was notified of it since."""

    id: bytes
    service: str
    title: str
    severity: int
    is_open: bool
    since: float
    reopened: int = 0
    told: bool = False


class IncidentsNoted(Event, frozen=True):
    """The log of `partition` was read up to the frame `seq`, whose digest begins with `digest`: these incidents are otherwise than
    before. `whole`: of that partition no others are open."""

    partition: str
    seq: int
    digest: bytes
    incidents: list[IncidentNews]
    whole: bool = False


class SituationGrew(Event, frozen=True):
    """These incidents are part of a situation from now on; if nobody knew it, it is new. Those of the situations `merged` come along."""

    situation: bytes
    incidents: list[bytes]
    merged: list[bytes] = []


class SituationRanked(Event, frozen=True):
    """What probably causes a situation, the most probable first."""

    situation: bytes
    causes: list[Cause]


class SituationEnded(Event, frozen=True):
    """None of its incidents is open."""

    situation: bytes


class SituationsDropped(Event, frozen=True):
    """These ended long ago and are not kept any more."""

    situations: list[bytes]
