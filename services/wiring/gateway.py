"""One gateway: the doors, the reads and their background work in one process. Hosted by serve_app.py, or by a test.

Knows nothing of Ray: it is given port Peers. `app` is the whole ASGI application; `http` alone is what stands in
front of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import structlog

from actors.control_tail import FOLLOW_S
from actors.runtime.ending import end
from actors.runtime.untraced import NoTracer
from models import VERSION
from models.control.heartbeating import Heartbeats
from models.control.heartbeats import SyncHeartbeats
from models.control.issuing import TokensSeen
from models.errors import IncidentManagerError, Malformed, Refused
from models.incidents.incident import Incident
from models.metrics import ActorMetrics, Meter
from models.metrics import decode as decode_metrics
from models.metrics import encode as encode_metrics
from models.partition.sharding import TENANT
from models.ports import Archive, Clock, DeadLetters, EventLog, Peers, Tracer
from models.settings.all import Settings
from models.settings.heartbeats import Heartbeats as HeartbeatSettings
from models.settings.processes import CLASSIFIER, CORRELATOR, RESPONDER
from models.shard.messages import Reply
from services.api.app import build_app
from services.api.cors import opened_to
from services.api.dead_letters import LetterDesk
from services.api.guard import Guard
from services.api.health import HealthGather
from services.api.heartbeats import HeartbeatDesk
from services.api.models import ModelDesk
from services.api.people import PeopleDesk
from services.api.playbooks import PlaybookDesk
from services.api.reads import Reads
from services.api.silences import SilenceDesk
from services.api.topology import TopologyDesk
from services.api.traced import Traced
from services.api.v1.commands import Commands
from services.api.v1.routing import ReceiverDesk
from services.api.v1.targets import TargetDesk
from services.edge.agents import EdgeAgents
from services.edge.shards import EdgeShards
from services.feed.watch import Tails
from services.identity.tokens import TokenDesk
from services.ingest.body import Receive, Scope, Send
from services.ingest.doors.grpc.door import GrpcDoor
from services.ingest.doors.hot import HotWay
from services.ingest.doors.http import HttpDoor, smooth
from services.ingest.doors.table import open_doors
from services.ingest.doors.websocket import WebSocketDoor
from services.ingest.replay import Replayer
from services.ingest.rules import wrong_rules
from services.machine.front import authority
from services.machine.front_tls import knock
from services.web.page import WebPage
from services.wiring.certificates import CertificateWatch
from services.wiring.helpers import Helpers
from services.wiring.reload import Change, compare, event_of, wanted_over
from services.wiring.station import QUERY_TIMEOUT_S, Station

if TYPE_CHECKING:
    from services.edge.desk import EdgeDesk
    from services.machine.front_tls import Front

log = structlog.get_logger()

#: A gateway tells every shard that it is there; a shard that hears nobody for 5 s begins a reception gap.
BEAT_S = 1.0
METRICS_TIMEOUT_S = 2.0
PROBE_TIMEOUT_S = 1.0
#: HAProxy is away for a second or two when it was killed; a front door that fails so many beats is told.
FRONT_FAULTS = 5
#: How often the control partition hears which tokens are in use.
USES_S = 60.0


class Gateway:
    """start() before the first request, stop() after the last."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        peers: Peers,
        clock: Clock,
        control_log: EventLog,
        archives: Sequence[Archive],
        dead_letters: DeadLetters,
        shard_actors: Sequence[str],
        other_actors: Sequence[str],
        control: str,
        front: tuple[str, int] | None,
        shard_logs: Sequence[EventLog],
        tracer: Tracer | None = None,
        *,
        start: str = "",
        tenant: str = TENANT,
        front_tls: Front | None = None,
    ) -> None:
        self.name = name
        self._peers = peers
        self._actors = [*shard_actors, *other_actors]
        self._control = control
        self._front = front
        self._front_tls = front_tls
        self._front_fault = ""
        self._front_faults = 0
        self._tenant = tenant
        #: The heartbeats of the settings, and the version of the control partition's, that were the same.
        self._heartbeats_compared: tuple[HeartbeatSettings, int] | None = None
        self._heartbeats_refused = ""
        self._start = start
        self._archives = archives
        self._tracer = tracer or NoTracer()
        self._tasks: list[asyncio.Task[None]] = []
        self._started = False
        self.meter = Meter(name)
        self.meter.set("llm_im_build_info", 1, version=VERSION, python=platform.python_version())
        self.station = station = Station(
            settings,
            peers,
            clock,
            self.meter,
            self._tracer,
            control_log,
            dead_letters,
            shard_actors,
            control,
            start=start,
            tenant=tenant,
        )
        self.guard = Guard(
            settings, station.tail, clock, self.meter, station.look, front_tls.secret if front_tls else ""
        )
        station.on_settings = self.guard.take_settings
        self.doors = open_doors(station.needs(self.guard), settings)
        self.edge_shards = EdgeShards(station.lines, lambda: station.submitter.slots, tenant)
        self._edge = self._open_edge()
        grpc = self.doors.get(GrpcDoor.name)
        tls = settings.server.tls
        self.certificates = (
            CertificateWatch(tls, grpc if isinstance(grpc, GrpcDoor) else None, clock, self.meter)
            if tls.is_on
            else None
        )
        http = self.doors[HttpDoor.name]
        assert isinstance(http, HttpDoor)
        websocket = self.doors[WebSocketDoor.name]
        assert isinstance(websocket, WebSocketDoor)
        #: The doors that do not listen by themselves: their requests come through `app`.
        self.http = http
        self._websocket = websocket
        #: What may stand in front of all ASGI (services/machine/http_protocol.py).
        self.hot = HotWay(http)
        self.reads = Reads(
            self._ask,
            len(shard_actors),
            lambda slot: station.submitter.slots.owners[slot],
            archives,
            tenant=tenant,
        )
        self.tails = Tails(
            shard_logs,
            self._ask,
            self._archived,
            lambda: station.submitter.slots.version,
            clock,
            self.meter,
            tenant=tenant,
        )
        self._helpers = Helpers(peers, other_actors)
        health = HealthGather(
            self._gather,
            lambda: self._started,
            self._waiting_for,
            self._away,
            settings.notify.why_off,
        )
        self.commands = Commands(self._tell, self.reads)
        replayer = Replayer(dead_letters, station.intake, station.formats, clock, self.meter, self._tracer)
        desk = TokenDesk(station.tail, station.tell_control)
        classifiers = [each for each in other_actors if each.startswith(f"{CLASSIFIER}-")]
        correlators = [each for each in other_actors if each.startswith(f"{CORRELATOR}-")]
        self.playbooks = PlaybookDesk(station.tail, station.tell_control)
        responders = [each for each in other_actors if each.startswith(f"{RESPONDER}-")]
        self.rest = build_app(
            self.reads,
            self.commands,
            health,
            self.tails,
            lambda: station.settings,
            clock=clock,
            tokens=desk,
            silences=SilenceDesk(station.tail, station.tell_control, clock, tenant),
            targets=TargetDesk(peers, responders),
            receivers=ReceiverDesk(peers, responders),
            playbooks=self.playbooks,
            edge=EdgeAgents(self.edge_shards),
            letters=LetterDesk(dead_letters, replayer, tenant),
            topology=TopologyDesk(peers, correlators),
            models=ModelDesk(station.tail, station.tell_control, peers, classifiers, tenant),
            heartbeats=HeartbeatDesk(station.tail, station.tell_control, self.reads, clock, tenant),
            people=PeopleDesk(station.tail, station.tell_control, clock, tenant, lambda: station.settings),
            reload=self.change_settings,
        )
        # The guard within the trace, so that a refusal has a trace id too.
        self._traced_rest = Traced(self.guard.of(self.rest), self._tracer)
        self._page = WebPage(settings.server.web_page)
        #: All of it as one ASGI application.
        self.app = opened_to(settings.server.origins, self._app)

    def takes(self, scope: Scope) -> bool:
        """Whether a request brings alerts: Serve's own handling is not for those."""
        return self.http.takes(scope) or self._websocket.takes(scope)

    async def start(self) -> None:
        """Learn the slot map, then begin the background work. Raises Unavailable when there is no map."""
        await self.station.start()
        if self._edge is not None:
            self._edge.start()
        for door in self.doors.values():
            await door.start()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(each)
            for each in (self._follow(), self._beat(), self._tell_uses(), self._helpers.watch())
        ]
        if self.certificates is not None:
            self._tasks.append(loop.create_task(self.certificates.run()))
        if self.station.settings.playbooks.folder:
            self._tasks.append(loop.create_task(self._apply_folder(self.station.settings.playbooks.folder)))
        if not self.guard.is_on:
            log.warning("no tokens: anyone who can reach this address can do anything", gateway=self.name)

    def _open_edge(self) -> EdgeDesk | None:
        """The streams of edge agents, which come by the gRPC door; None without it."""
        door = self.doors.get(GrpcDoor.name)
        if not isinstance(door, GrpcDoor):
            return None
        # Here, because most gateways have none.
        from services.edge.bridge import EdgeIncidentBridge
        from services.edge.desk import EdgeDesk
        from services.edge.ground import Ground

        station = self.station
        ground = Ground(
            self.edge_shards,
            station.intake,
            station.formats[EdgeIncidentBridge.scope],
            station.clock,
            self.meter,
            self._tracer,
        )
        desk = EdgeDesk(self.name, ground)
        door.add(EdgeIncidentBridge(desk))
        return desk

    async def _apply_folder(self, folder: str) -> None:
        from services.wiring.playbook_folder import apply_folder

        await apply_folder(self.playbooks, folder)

    async def stop(self) -> None:
        """End the background work and close the files, in the reverse order of start. Safe to call twice."""
        for door in reversed(self.doors.values()):
            await door.stop()
        if self._edge is not None:
            await self._edge.stop()
        await end(self._tasks)
        self._tasks = []
        await self.tails.stop()
        for archive in self._archives:
            await archive.close()
        await self.station.stop()
        await self._tracer.close()

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Before anything is asked of the path: what is open, what is traced and what is counted go by it.
        scope["path"] = smooth(str(scope["path"]))
        if self.http.takes(scope):
            await self.http(scope, receive, send)
        elif self._websocket.takes(scope):
            await self._websocket(scope, receive, send)
        elif self._page.takes(scope):
            await self._page(scope, receive, send)
        else:
            await self._traced_rest(scope, receive, send)

    async def change_settings(self, wanted: Settings, actor: str) -> list[Change]:
        """Have every process go by these settings, from within a second or two. Raises Conflict that names what needs a
        restart, Malformed for rules that name what there is not, Unavailable when the control partition is away."""
        # Another gateway may just have changed them.
        await self.station.tail.follow()
        wanted = wanted_over(self.station.settings, wanted)
        changes = compare(self.station.settings, wanted)
        if wrong := await asyncio.to_thread(wrong_rules, wanted, self.station.formats):
            raise Malformed("; ".join(wrong))
        if changes:
            event = event_of(self._start, actor, changes, wanted)
            await self.station.tell_control(event)
            await self.station.tail.follow()
        return changes

    async def _ask(self, shard: int, query: bytes) -> bytes:
        return await self.station.lines[shard].ask(query, QUERY_TIMEOUT_S)

    async def _tell(self, shard: int, message: bytes) -> Reply:
        return await self.station.lines[shard].tell(message, 1)

    async def _archived(self, incident_id: bytes) -> Incident | None:
        found = await self.reads.incident(incident_id)
        return None if found is None else found.view.incident

    def _measure(self) -> None:
        self.station.measure()
        self.tails.measure()

    async def _gather(self) -> list[ActorMetrics]:
        self._measure()
        found = await asyncio.gather(*[self._metrics_of(actor) for actor in self._actors])
        own = self.meter.read()
        others = [reading for reading in await self._other_gateways() if reading.name != own.name]
        return [own, *others, *(reading for reading in found if reading is not None)]

    async def _other_gateways(self) -> list[ActorMetrics]:
        try:
            answered = await self._peers.call(self._control, "reported", b"", METRICS_TIMEOUT_S)
        except IncidentManagerError:
            return []
        return [decode_metrics(reading) for reading in msgspec.msgpack.decode(answered, type=list[bytes])]

    async def _report(self) -> None:
        self._measure()
        try:
            await self._peers.call(
                self._control, "report", encode_metrics(self.meter.read()), METRICS_TIMEOUT_S
            )
        except IncidentManagerError:
            return

    async def _metrics_of(self, actor: str) -> ActorMetrics | None:
        try:
            return decode_metrics(await self._peers.call(actor, "metrics", b"", METRICS_TIMEOUT_S))
        except IncidentManagerError:
            return None

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_S)
            await self.station.look()
            await self._sync_heartbeats()

    async def _sync_heartbeats(self) -> None:
        """Have the control partition know the heartbeats of the settings, where it has others."""
        station = self.station
        known = station.tail.state.of(Heartbeats)
        compared = (station.settings.heartbeats, known.version)
        if compared == self._heartbeats_compared:
            return
        wanted = [each.heartbeat for each in station.settings.heartbeats.expected]
        if known.has_from_settings(wanted, self._tenant):
            self._heartbeats_compared = compared
            return
        try:
            await station.tell_control(SyncHeartbeats(wanted, self._tenant))
        except Refused as error:
            if str(error) != self._heartbeats_refused:
                log.error("heartbeats of the settings can't be watched", why=str(error))
            self._heartbeats_refused = str(error)
        except IncidentManagerError as error:
            log.warning("heartbeats of the settings not told yet, retrying", why=str(error))

    async def _tell_uses(self) -> None:
        while True:
            await asyncio.sleep(USES_S)
            if uses := self.guard.take_uses():
                # The next time says it again, for those that are still used.
                with contextlib.suppress(IncidentManagerError):
                    await self.station.tell_control(TokensSeen(uses))

    async def _beat(self) -> None:
        """Tell the shards that senders can be heard: only while our own front door answers us."""
        while True:
            if await self._front_answers():
                await asyncio.gather(self._report(), *[line.beat() for line in self.station.lines])
                if not self._started:
                    silent = await self.reads.silent_shards()
                    self._started = len(silent) < len(self.station.lines)
            await asyncio.sleep(BEAT_S)

    async def _front_answers(self) -> bool:
        if self._front is None:
            return True
        place = authority(*self._front)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                why, certificate = await knock(*self._front, self._front_tls)
            if self.certificates is not None:
                self.certificates.presented(certificate)
        except (OSError, TimeoutError) as error:
            why = str(error) or f"no answer within {PROBE_TIMEOUT_S:g} s"
        if not why:
            self._front_fault, self._front_faults = "", 0
            return True
        self._front_faults += 1
        self._front_fault = f"{self.name} can't reach its own front port at {place}: {why}"
        if self._front_faults == FRONT_FAULTS:
            log.error("can't reach our own front port", gateway=self.name, place=place, why=why)
        return False

    def _waiting_for(self) -> str:
        return self._front_fault or "no shard has answered yet"

    def _away(self) -> dict[str, str]:
        away = self._helpers.away()
        if self._front_faults >= FRONT_FAULTS:
            away["front door"] = f"{self._front_fault}; until then nothing expires"
        if self.certificates is not None and (why := self.certificates.why_degraded()):
            away["certificate"] = why
        return away
