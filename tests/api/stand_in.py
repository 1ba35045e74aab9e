"""Shards that answer queries from lists, and an app over them. Used by the tests of the read side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from fastapi import FastAPI

from actors.control_tail import ControlTail
from models.config import Settings
from models.control import ControlMessage
from models.errors import Unavailable
from models.incident import Incident, IncidentState, incident_id
from models.matchers import compile_matchers
from models.metrics import ActorMetrics, Meter
from models.ports import ArchivedIncident
from models.query import (
    AlertPage,
    AlertView,
    Answer,
    GetIncident,
    IncidentAlerts,
    IncidentPage,
    IncidentView,
    ListAlerts,
    ListIncidents,
    Probe,
    decode_query,
    encode,
)
from models.sharding import partition_name, slot_of
from services.api.app import build_app
from services.api.health import HealthGather
from services.api.reads import Reads
from services.stores.memory import MemoryArchive, MemoryEventLog, MemoryStore
from services.tail import Tails
from services.tokens import TokenDesk

#: 2026-01-02 03:04:05.678 UTC
NOW = 1767323045.678


class StillClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@dataclass
class StandIn:
    """`shards` partitions that hold what the test puts into them, and an archive."""

    shards: int = 2
    page: int = 1000
    incidents: list[Incident] = field(default_factory=list)
    alerts: list[AlertView] = field(default_factory=list)
    silent: dict[int, Exception] = field(default_factory=dict)
    started: bool = True
    readings: list[ActorMetrics] = field(default_factory=list)
    gathered: int = 0
    clock: StillClock = field(default_factory=StillClock)

    def __post_init__(self) -> None:
        self.archive = MemoryArchive(MemoryStore(), "shard/0000")
        self.tokens = TokenDesk(ControlTail(MemoryEventLog(MemoryStore(), "control")), self.tell)
        self.reads = Reads(self.ask, self.shards, self.shard_of_slot, [self.archive])
        logs = [MemoryEventLog(MemoryStore(), partition_name(shard)) for shard in range(self.shards)]
        self.tails = Tails(
            logs, self.ask, self._nowhere, lambda: 1, self.clock, Meter("stand-in"), tenant="default"
        )

    def app(self, settings: Settings | None = None) -> FastAPI:
        health = HealthGather(self.gather, lambda: self.started)
        return build_app(
            self.reads, health, self.tails, settings or Settings(), clock=self.clock, tokens=self.tokens
        )

    async def _nowhere(self, _incident_id: bytes) -> Incident | None:
        return None

    def shard_of_slot(self, slot: int) -> int:
        return slot % self.shards

    async def tell(self, message: ControlMessage) -> None:
        raise Unavailable("there is no control partition here")

    async def gather(self) -> list[ActorMetrics]:
        self.gathered += 1
        return self.readings

    async def ask(self, shard: int, query: bytes) -> bytes:
        if shard in self.silent:
            raise self.silent[shard]
        return encode(self._answer(shard, decode_query(query)))

    def _answer(self, shard: int, query: object) -> Answer:
        mine = [each for each in self.incidents if self.shard_of_slot(each.slot) == shard]
        alerts = [
            each
            for each in self.alerts
            if self.shard_of_slot(slot_of("default", each.labels["service"])) == shard
        ]
        match query:
            case ListIncidents():
                found = [
                    each
                    for each in mine
                    if (query.before is None or (each.created_at, each.id) < query.before)
                    and (not query.states or each.state in query.states)
                    and (not query.severities or each.severity in query.severities)
                    and (not query.types or each.type in query.types)
                    and (not query.services or each.service in query.services)
                ]
                found.sort(key=lambda each: (each.created_at, each.id), reverse=True)
                limit = min(query.limit, self.page)
                return IncidentPage([self._view(each) for each in found[:limit]], len(found) > limit)
            case GetIncident():
                return IncidentPage(
                    [self._view(each) for each in mine if each.id == query.incident_id], False
                )
            case Probe():
                return IncidentPage([], False)
            case IncidentAlerts():
                alerts = [each for each in alerts if each.incident_id == query.incident_id]
                return self._alert_page(alerts, query.after, query.limit)
            case ListAlerts():
                holds = compile_matchers(query.matchers)
                alerts = [
                    each for each in alerts if (each.firing or not query.firing_only) and holds(each.labels)
                ]
                return self._alert_page(alerts, query.after, query.limit)
        raise AssertionError(query)

    def _alert_page(self, alerts: list[AlertView], after: int, limit: int) -> AlertPage:
        limit = min(limit, self.page)
        end = after + 1 + limit
        return AlertPage(alerts[after + 1 : end], end - 1 if end < len(alerts) else None)

    def _view(self, incident: Incident) -> IncidentView:
        return IncidentView(incident, sum(each.incident_id == incident.id for each in self.alerts))


def alert(
    service: str = "api", *, incident: bytes = b"", firing: bool = True, ends_at: float = 0.0, **more: str
) -> AlertView:
    """A firing alert of `service`; `more` are labels."""
    return AlertView(
        incident_id=incident,
        labels={"service": service, **more},
        annotations={},
        generator_url="",
        source="test",
        starts_at=NOW,
        ends_at=ends_at,
        last_seen_at=NOW,
        firing=firing,
        decisions=[(1, 1, NOW, NOW), (3, 7, NOW + 1, NOW + 9)],
    )


def incident(service: str = "api", *, number: int = 0, at: float = NOW, **more: object) -> Incident:
    """An incident of `service`; `number` makes it another one, `more` sets any field."""
    slot = slot_of("default", service)
    made = Incident(
        id=incident_id(slot, at, 1, number, service),
        slot=slot,
        tenant="default",
        service=service,
        group_key=f'{{service="{service}"}}',
        group_labels={"service": service},
        title="down",
        description="it is down",
        source="prometheus",
        labels={"team": "x"},
        annotations={},
        created_at=at,
        updated_at=at,
    )
    return msgspec.structs.replace(made, **more)


def archived(one: Incident, alerts: Sequence[AlertView] = ()) -> ArchivedIncident:
    """What the archive holds of a closed incident."""
    closed = msgspec.structs.replace(one, state=IncidentState.CLOSED, closed_at=one.created_at + 1)
    return ArchivedIncident(
        closed.id,
        closed.tenant,
        closed.service,
        str(closed.state),
        int(closed.severity),
        str(closed.type),
        closed.created_at,
        closed.closed_at,
        msgspec.msgpack.encode(closed),
        msgspec.msgpack.encode(list(alerts)),
    )


AWAY = Unavailable("it is restarting")
