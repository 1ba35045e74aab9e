"""One gateway: the doors, the reads and their background work in one process. Hosted by serve_app.py, or by a test.

Knows nothing of Ray: it is given port Peers. `app` is the whole ASGI application; `http` alone is what stands in
front of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Sequence

import msgspec
import structlog

from actors.control_tail import FOLLOW_S, ControlTail, SettingsWatch
from actors.runtime.ending import end
from actors.runtime.untraced import NoTracer
from models import VERSION
from models.alerts.matchers import MatcherTuple
from models.control.control import ControlMessage, encode_message
from models.control.events import SettingsChanged
from models.control.issuing import TokensSeen
from models.errors import IncidentManagerError, Unavailable
from models.incidents.incident import Incident
from models.metrics import ActorMetrics, Meter
from models.metrics import decode as decode_metrics
from models.metrics import encode as encode_metrics
from models.partition.sharding import TENANT, SlotMap
from models.ports import Archive, Clock, DeadLetters, EventLog, Peers, Tracer
from models.settings.all import Settings
from models.settings.processes import RESPONDER
from models.shard.messages import Reply
from services.api.app import build_app
from services.api.cors import opened_to
from services.api.guard import Guard
from services.api.health import HealthGather
from services.api.playbooks import PlaybookDesk
from services.api.reads import Reads
from services.api.silences import SilenceDesk
from services.api.traced import Traced
from services.api.v1.commands import Commands
from services.api.v1.routing import ReceiverDesk
from services.api.v1.targets import TargetDesk
from services.feed.watch import Tails
from services.identity.tokens import TokenDesk
from services.ingest.body import Receive, Scope, Send
from services.ingest.dead_letters import DeadLetterBox
from services.ingest.doors.door import Needs
from services.ingest.doors.hot import HotWay
from services.ingest.doors.http import HttpDoor, smooth
from services.ingest.doors.table import open_doors
from services.ingest.doors.websocket import WebSocketDoor
from services.ingest.formats.format import Shared
from services.ingest.formats.open_alerts import Labels
from services.ingest.formats.remembered import Remembered
from services.ingest.formats.table import open_formats
from services.ingest.intake import Intake
from services.ingest.line import ShardLine
from services.ingest.submit import Submitter
from services.machine.front import authority
from services.machine.logs import set_level
from services.wiring.helpers import Helpers
from services.wiring.reload import Change, compare, event_of, wanted_over

log = structlog.get_logger()

#: A gateway tells every shard that it is there; a shard that hears nobody for 5 s begins a reception gap.
BEAT_S = 1.0
#: Before the slot map is known nothing can be taken; the first start takes seconds.
FIRST_SLOTS_S = 30.0
#: A query to a shard: its longest page takes 20 ms, and it may wait behind a group.
QUERY_TIMEOUT_S = 5.0
METRICS_TIMEOUT_S = 2.0
PROBE_TIMEOUT_S = 1.0
#: HAProxy is away for a second or two when it was killed; a front door that fails so many beats is told.
FRONT_FAULTS = 5
#: An append of the control partition takes milliseconds; one that hangs is asked for again.
CHANGE_TIMEOUT_S = 5.0
CHANGE_RETRY_S = 0.2
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
    ) -> None:
        self.name = name
        self.settings = settings
        self._peers = peers
        self._actors = [*shard_actors, *other_actors]
        self._control = control
        self._front = front
        self._front_fault = ""
        self._front_faults = 0
        self._start = start
        self._tail = ControlTail(control_log, SettingsWatch(start, self._take_settings))
        self._archives = archives
        self._tracer = tracer or NoTracer()
        self._tasks: list[asyncio.Task[None]] = []
        self._started = False
        self.meter = Meter(name)
        self.meter.set("llm_im_build_info", 1, version=VERSION, python=platform.python_version())
        server = settings.server
        self._lines = [
            ShardLine(
                actor,
                peers,
                clock,
                hold_s=server.hold,
                max_alerts=max(1, server.max_inflight_alerts // len(shard_actors)),
            )
            for actor in shard_actors
        ]
        self.submitter = Submitter(self._lines, SlotMap.even(len(shard_actors)))
        remembered = Remembered(
            tenant,
            tuple(settings.grouping.service_labels),
            settings.lifecycle.max_alert_bytes,
            server.remembered_alerts,
        )
        self.dead_letters = DeadLetterBox(
            dead_letters, clock, self.meter, max_payload_bytes=settings.dead_letters.max_payload_bytes
        )
        self._shared = Shared(remembered, settings)
        self._intake = Intake(self.submitter, remembered, self.dead_letters, self.meter)
        self._clock = clock
        self.guard = Guard(settings, self._tail, clock, self.meter, self._look)
        needs = Needs(self._intake, open_formats(self._shared), self.guard, clock, self.meter, self._tracer)
        self.doors = open_doors(needs, settings)
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
            lambda slot: self.submitter.slots.owners[slot],
            archives,
            tenant=tenant,
        )
        self.tails = Tails(
            shard_logs,
            self._ask,
            self._archived,
            lambda: self.submitter.slots.version,
            clock,
            self.meter,
            tenant=tenant,
        )
        self._shared.open_alerts.find = self._firing
        self._helpers = Helpers(peers, other_actors)
        health = HealthGather(
            self._gather,
            lambda: self._started,
            self._waiting_for,
            self._away,
            settings.notify.why_off,
        )
        self.commands = Commands(self._tell, self.reads)
        desk = TokenDesk(self._tail, self._tell_control)
        self.playbooks = PlaybookDesk(self._tail, self._tell_control)
        responders = [each for each in other_actors if each.startswith(f"{RESPONDER}-")]
        self.rest = build_app(
            self.reads,
            self.commands,
            health,
            self.tails,
            lambda: self.settings,
            clock=clock,
            tokens=desk,
            silences=SilenceDesk(self._tail, self._tell_control, clock, tenant),
            targets=TargetDesk(peers, responders),
            receivers=ReceiverDesk(peers, responders),
            playbooks=self.playbooks,
            reload=self.change_settings,
        )
        # The guard within the trace, so that a refusal has a trace id too.
        self._traced_rest = Traced(self.guard.of(self.rest), self._tracer)
        #: All of it as one ASGI application.
        self.app = opened_to(server.origins, self._app)

    def takes(self, scope: Scope) -> bool:
        """Whether a request brings alerts: Serve's own handling is not for those."""
        return self.http.takes(scope) or self._websocket.takes(scope)

    async def start(self) -> None:
        """Learn the slot map, then begin the background work. Raises Unavailable when there is no map."""
        deadline = asyncio.get_running_loop().time() + FIRST_SLOTS_S
        while True:
            with contextlib.suppress(Unavailable):
                await self._tail.follow()
            if self._tail.state.slots is not None:
                break
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"no slot map after {FIRST_SLOTS_S:g} s: is the control actor running?")
            await asyncio.sleep(0.05)
        self._take_slots(self._tail.state.slots)
        self.dead_letters.start()
        for door in self.doors.values():
            await door.start()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(each)
            for each in (self._follow(), self._beat(), self._tell_uses(), self._helpers.watch())
        ]
        if self.settings.playbooks.folder:
            self._tasks.append(loop.create_task(self._apply_folder(self.settings.playbooks.folder)))
        if not self.guard.is_on:
            log.warning("no tokens: anyone who can reach this address can do anything", gateway=self.name)

    async def _apply_folder(self, folder: str) -> None:
        from services.wiring.playbook_folder import apply_folder

        await apply_folder(self.playbooks, folder)

    async def stop(self) -> None:
        """End the background work and close the files, in the reverse order of start. Safe to call twice."""
        for door in reversed(self.doors.values()):
            await door.stop()
        await end(self._tasks)
        self._tasks = []
        await self.tails.stop()
        await self.dead_letters.stop()
        for archive in self._archives:
            await archive.close()
        await self._tail.close()
        await self._tracer.close()

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Before anything is asked of the path: what is open, what is traced and what is counted go by it.
        scope["path"] = smooth(str(scope["path"]))
        if self.http.takes(scope):
            await self.http(scope, receive, send)
        elif self._websocket.takes(scope):
            await self._websocket(scope, receive, send)
        else:
            await self._traced_rest(scope, receive, send)

    async def change_settings(self, wanted: Settings, actor: str) -> list[Change]:
        """Have every process go by these settings, from within a second or two. Raises Conflict that names what needs a
        restart, Unavailable when the control partition is away."""
        # Another gateway may just have changed them.
        await self._tail.follow()
        wanted = wanted_over(self.settings, wanted)
        changes = compare(self.settings, wanted)
        if changes:
            event = event_of(self._start, actor, changes, wanted)
            await self._tell_control(event)
            await self._tail.follow()
        return changes

    async def _firing(self, format_name: str, matchers: Sequence[MatcherTuple]) -> list[Labels]:
        async with contextlib.aclosing(self.reads.alerts(matchers)) as pages:
            # Only what came by the format itself: others may have labels of the same name.
            return [each.labels async for page in pages for each in page if each.source == format_name]

    def _take_settings(self, changed: SettingsChanged) -> None:
        self.settings = Settings.model_validate_json(changed.settings)
        set_level(changed.level)
        self._shared.settings = self.settings

    def _take_slots(self, slots: SlotMap) -> None:
        if slots.partitions > len(self._lines):
            raise Unavailable(
                f"the slot map names {slots.partitions} partitions, settings say state.partitions = {len(self._lines)}: "
                "first llm-im down, then llm-im up"
            )
        self.submitter.slots = slots

    async def _ask(self, shard: int, query: bytes) -> bytes:
        return await self._lines[shard].ask(query, QUERY_TIMEOUT_S)

    async def _tell(self, shard: int, message: bytes) -> Reply:
        return await self._lines[shard].tell(message, 1)

    async def _archived(self, incident_id: bytes) -> Incident | None:
        found = await self.reads.incident(incident_id)
        return None if found is None else found.view.incident

    def _measure(self) -> None:
        self.meter.set("llm_im_inflight_alerts", sum(line.alerts for line in self._lines))
        self.tails.measure()
        self._intake.measure(self._clock.now())

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
            await self._look()

    async def _look(self) -> None:
        """Read what is new in the control log. Whatever it has to say is no reason to stop taking alerts."""
        await self._tail.catch_up()
        slots = self._tail.state.slots
        if slots is not None and slots is not self.submitter.slots:
            try:
                self._take_slots(slots)
            except Unavailable as error:
                log.warning("can't follow the control partition, retrying", why=str(error))

    async def _tell_control(self, message: ControlMessage) -> None:
        """Have the control partition's writer decide; waits out its restart as a request waits for a shard's. Safe,
        because a repeat of a message changes nothing. Raises Malformed, NotFound, Conflict, Unavailable."""
        payload = encode_message(message)
        give_up_at = asyncio.get_running_loop().time() + self.settings.server.hold
        while True:
            try:
                await self._peers.call(self._control, "change", payload, CHANGE_TIMEOUT_S)
                return
            except Unavailable:
                if asyncio.get_running_loop().time() >= give_up_at:
                    raise
            await asyncio.sleep(CHANGE_RETRY_S)

    async def _tell_uses(self) -> None:
        while True:
            await asyncio.sleep(USES_S)
            if uses := self.guard.take_uses():
                # The next time says it again, for those that are still used.
                with contextlib.suppress(IncidentManagerError):
                    await self._tell_control(TokensSeen(uses))

    async def _beat(self) -> None:
        """Tell the shards that senders can be heard: only while our own front door answers us."""
        while True:
            if await self._front_answers():
                await asyncio.gather(self._report(), *[line.beat() for line in self._lines])
                if not self._started:
                    silent = await self.reads.silent_shards()
                    self._started = len(silent) < len(self._lines)
            await asyncio.sleep(BEAT_S)

    async def _front_answers(self) -> bool:
        if self._front is None:
            return True
        host, port = self._front
        place = authority(host, port)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    writer.write(
                        b"GET /-/healthy HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % place.encode()
                    )
                    line = await reader.readline()
                finally:
                    writer.close()
            why = "" if line.startswith(b"HTTP/1.1 200") else f"it answers {line.decode('latin-1').strip()!r}"
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
        return away
