"""Shards that answer queries from lists, and an app over them. Used by the tests of the read side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from fastapi import FastAPI

from actors.control_tail import ControlTail
from actors.runtime.local import LocalCluster
from actors.runtime.untraced import NoTracer
from models.alerts.matchers import compile_matchers
from models.control.control import ControlMessage
from models.errors import Unavailable
from models.incidents.filters import IncidentFilter, Position, Sort, compile_filter, place_of
from models.incidents.incident import Handling, Incident, IncidentState, Verdict, incident_id
from models.incidents.query import (
    AlertPage,
    AlertView,
    Answer,
    CountIncidents,
    GetIncident,
    GetIncidents,
    IncidentAlerts,
    IncidentCounts,
    IncidentPage,
    IncidentView,
    ListAlerts,
    ListIncidents,
    Probe,
    decode_query,
    encode,
)
from models.metrics import ActorMetrics, Meter
from models.partition.sharding import TENANT, SlotMap, partition_name, slot_of
from models.ports import ArchivedIncident, Clock
from models.settings.all import Settings
from models.shard.assembly import decode_message
from models.shard.messages import Command, CommandDone, Reply
from services.api.app import build_app
from services.api.dead_letters import LetterDesk
from services.api.health import HealthGather
from services.api.heartbeats import HeartbeatDesk
from services.api.models import ModelDesk
from services.api.people import PeopleDesk
from services.api.playbooks import PlaybookDesk
from services.api.reads import Reads
from services.api.silences import SilenceDesk
from services.api.topology import TopologyDesk
from services.api.v1.commands import Commands
from services.api.v1.routing import ReceiverDesk
from services.api.v1.targets import TargetDesk
from services.edge.agents import EdgeAgents
from services.edge.shards import EdgeShards
from services.feed.watch import Tails
from services.identity.tokens import TokenDesk
from services.ingest.dead_letters import DeadLetterBox
from services.ingest.formats.remembered import Remembered
from services.ingest.intake import Intake
from services.ingest.limits import Limits
from services.ingest.replay import Replayer
from services.ingest.submit import Submitter
from services.stores.memory.archive import MemoryArchive
from services.stores.memory.dead_letters import MemoryDeadLetters
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from services.wiring.reload import Change, compare, wanted_over
from tests.api.build_once import built_from_what_was_made
from tests.clock import ManualClock

#: 2026-01-02 03:04:05.678 UTC
NOW = 1767323045.678


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
    told: list[tuple[int, Command]] = field(default_factory=list)
    answers: CommandDone | Exception | None = None
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))

    def __post_init__(self) -> None:
        self.archive = MemoryArchive(MemoryStore(), "shard/0000")
        tail = ControlTail(MemoryEventLog(MemoryStore(), "control"))
        self.tokens = TokenDesk(tail, self.tell)
        self.silences = SilenceDesk(tail, self.tell, self.clock)
        self.targets = TargetDesk(LocalCluster(), [])
        self.receivers = ReceiverDesk(LocalCluster(), [])
        self.playbooks = PlaybookDesk(tail, self.tell)
        self.edge = EdgeAgents(EdgeShards([], lambda: None, TENANT))
        self.reads = Reads(self.ask, self.shards, self.shard_of_slot, [self.archive])
        self.heartbeats = HeartbeatDesk(tail, self.tell, self.reads, self.clock, "default")
        self.people = PeopleDesk(tail, self.tell, self.clock, TENANT, Settings)
        self.letters = _letters(self.clock)
        self.topology = TopologyDesk(LocalCluster(), [])
        self.models = ModelDesk(tail, self.tell, LocalCluster(), [], "default")
        logs = [MemoryEventLog(MemoryStore(), partition_name(shard)) for shard in range(self.shards)]
        self.tails = Tails(
            logs, self.ask, self._nowhere, lambda: 1, self.clock, Meter("stand-in"), tenant="default"
        )

    def app(self, settings: Settings | None = None) -> FastAPI:
        health = HealthGather(self.gather, lambda: self.started)
        shown = settings or Settings()
        with built_from_what_was_made():
            return build_app(
                self.reads,
                Commands(self.tell_shard, self.reads),
                health,
                self.tails,
                lambda: shown,
                clock=self.clock,
                tokens=self.tokens,
                silences=self.silences,
                targets=self.targets,
                receivers=self.receivers,
                playbooks=self.playbooks,
                edge=self.edge,
                letters=self.letters,
                topology=self.topology,
                models=self.models,
                heartbeats=self.heartbeats,
                people=self.people,
                reload=self.reload,
            )

    async def reload(self, wanted: Settings, _actor: str) -> list[Change]:
        return compare(Settings(), wanted_over(Settings(), wanted))

    async def _nowhere(self, _incident_id: bytes) -> Incident | None:
        return None

    def shard_of_slot(self, slot: int) -> int:
        return slot % self.shards

    async def tell(self, message: ControlMessage) -> None:
        raise Unavailable("there is no control partition here")

    async def gather(self) -> list[ActorMetrics]:
        self.gathered += 1
        return self.readings

    async def tell_shard(self, shard: int, message: bytes) -> Reply:
        """Remembers what it was told, and answers what the test gave."""
        command = decode_message(message)
        assert isinstance(command, Command)
        self.told.append((shard, command))
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers or CommandDone(command.incident_id, 0)

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
                found = self._wanted(mine, query.wanted, query.sort, query.after)
                limit = min(query.limit, self.page)
                items = [self._view(each) for each in found[:limit]]
                return IncidentPage(
                    items, place_of(found[limit - 1], query.sort) if len(found) > limit else None
                )
            case GetIncidents():
                return IncidentPage([self._view(each) for each in mine if each.id in query.incident_ids])
            case CountIncidents():
                return IncidentCounts()
            case GetIncident():
                return IncidentPage([self._view(each) for each in mine if each.id == query.incident_id])
            case Probe():
                return IncidentPage([])
            case IncidentAlerts():
                alerts = [
                    each
                    for each in alerts
                    if each.incident_id == query.incident_id
                    and (query.firing is None or each.firing is query.firing)
                ]
                return self._alert_page(alerts, query.after, query.limit)
            case ListAlerts():
                holds = compile_matchers(query.matchers)
                alerts = [
                    each
                    for each in alerts
                    if (each.firing or not query.firing_only)
                    and not (each.firing and query.ended_only)
                    and holds(each.labels)
                ]
                return self._alert_page(alerts, query.after, query.limit)
        raise AssertionError(query)

    def _wanted(
        self, incidents: Sequence[Incident], wanted: IncidentFilter, sort: Sort, after: Position | None
    ) -> list[Incident]:
        holds = compile_filter(wanted)
        found = [
            each
            for each in incidents
            if holds(each) and (after is None or sort.comes_after(place_of(each, sort), after))
        ]
        return sorted(found, key=lambda each: place_of(each, sort), reverse=sort.goes_down)

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


def handled(one: Incident, **more: object) -> Incident:
    """An incident that people touched; `more` sets fields of its handling."""
    handling = Handling(Verdict(one.severity, one.type, one.impact))
    return msgspec.structs.replace(one, handling=msgspec.structs.replace(handling, **more))


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
        closed.updated_at,
        msgspec.msgpack.encode(closed),
        msgspec.msgpack.encode(list(alerts)),
    )


AWAY = Unavailable("it is restarting")


def _letters(clock: Clock) -> LetterDesk:
    meter = Meter("stand-in")
    store = MemoryDeadLetters(MemoryStore(), max_bytes=1_000_000, max_age_s=3600.0, clock=clock)
    box = DeadLetterBox(store, clock, meter, max_payload_bytes=65536)
    limits = Limits(LocalCluster(), "control-a", clock, meter, "stand-in", 1)
    intake = Intake(Submitter([], SlotMap.even(2)), Remembered(TENANT, ("service",)), box, meter, limits)
    return LetterDesk(store, Replayer(store, intake, {}, clock, meter, NoTracer()), TENANT)
