"""A whole system in one process: a real Gateway over LocalCluster with real actors and the shipped stores.

    async with system() as ours:
        answer = await ours.post("/api/v2/alerts", [{"labels": {"alertname": "Down"}}])

Requests go to the gateway's ASGI application directly, or (fixture `both_ways`) plain ones as bytes to the HTTP protocol in front
of it, which answers them itself; listen() puts uvicorn in front of it, on a free port of loopback. Nothing here is a mock: what fails fails as it would in production.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from actors.begun import Kept
from actors.control import ControlActor
from actors.control_tail import ControlTail, SettingsWatch
from actors.correlator import Correlator
from actors.delivery import DeliveryWindow
from actors.responder import ResponderActor
from actors.runtime.clock import SystemClock
from actors.runtime.host import Actor, Hired, Host
from actors.runtime.local import LocalCluster
from actors.shard import IncidentShard, ShardOptions
from actors.targets import Targets
from actors.trainer import TrainerActor
from models.control.events import SettingsChanged
from models.errors import Unavailable
from models.metrics import Meter
from models.partition.sharding import TENANT, partition_name
from models.ports import Archive, Clock, DeadLetters, EventLog, Tracer, Worker
from models.settings.all import Settings
from models.settings.processes import CLASSIFIER, COLLECTOR, CORRELATOR, RESPONDER, SHARD, TRAINER, given_by
from models.settings.secrets import revealed
from models.shard.known_silences import KnownSilences
from models.shard.settings import ShardSettings
from models.topology.topology import TOPOLOGY
from services.actions.table import Actions
from services.feed.relate import IncidentReader
from services.ingest.sources.table import open_sources
from services.learning.learner import Bounds
from services.machine.front_tls import Front
from services.machine.http_protocol import Protocol
from services.machine.websocket_protocol import Protocol as WebSocketProtocol
from services.stores.memory.archive import MemoryArchive
from services.stores.memory.dead_letters import MemoryDeadLetters
from services.stores.memory.delivery_ids import MemoryDeliveryIds
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from services.stores.sqlite.archive import SqliteArchive
from services.stores.sqlite.dead_letters import SqliteDeadLetters
from services.stores.sqlite.delivery import SqliteDeliveryIds
from services.stores.sqlite.log import SqliteEventLog
from services.topology.file import reader_of
from services.wiring import bootstrap
from services.wiring.actors import plan
from services.wiring.collector import Collector
from services.wiring.gateway import Gateway
from services.wiring.station import Station
from services.wiring.telling import tell_control
from tests.api.build_once import built_from_what_was_made
from tests.api.on_wire import connected, known, raw

JSON = "application/json"
NDJSON = "application/x-ndjson"
READY_S = 10.0
#: How alerts get in: "asgi", or "hot" for those that can be plain requests. Set by the fixture `both_ways`.
WAY = "asgi"
#: Services of the first and the second of two shards (the slot map of a new system is even).
FIRST_SHARD_SERVICE = "api"
SECOND_SHARD_SERVICE = "db"


class SettableClock:
    """The system's clock, which a test can put forward: by `ahead_s` nobody is heard meanwhile, as in an outage; by
    `heard_s` all are, as if they had gone on."""

    def __init__(self) -> None:
        from actors.runtime.clock import SystemClock

        self._system = SystemClock()
        self.ahead_s = 0.0
        self.heard_s = 0.0

    def now(self) -> float:
        return self._system.now() + self.ahead_s + self.heard_s

    def monotonic(self) -> float:
        return self._system.monotonic() + self.ahead_s


class MemoryStores:
    """The shipped memory adapters over one store."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.control_store = MemoryStore()

    def log(self, partition: str) -> EventLog:
        return MemoryEventLog(self.control_store if partition == "control" else self.store, partition)

    def archive(self, partition: str) -> Archive:
        return MemoryArchive(self.store, partition)

    def deliveries(self, partition: str) -> MemoryDeliveryIds:
        return MemoryDeliveryIds(self.store, partition)

    def dead_letters(self, settings: Settings, clock: Clock) -> DeadLetters:
        bounds = settings.dead_letters
        return MemoryDeadLetters(
            self.store, max_bytes=bounds.max_bytes, max_age_s=bounds.max_age, clock=clock
        )


class SqliteStores:
    """The shipped SQLite adapters in one folder."""

    def __init__(self, folder: Path, *, max_bytes: int | None = None) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.logs: dict[str, SqliteEventLog] = {}

    def log(self, partition: str) -> EventLog:
        capped = None if partition == "control" else self.max_bytes
        return SqliteEventLog(self.folder, partition, max_bytes=capped)

    def archive(self, partition: str) -> Archive:
        return SqliteArchive(self.folder, partition)

    def deliveries(self, partition: str) -> SqliteDeliveryIds:
        return SqliteDeliveryIds(self.folder, partition)

    def dead_letters(self, settings: Settings, clock: Clock) -> DeadLetters:
        bounds = settings.dead_letters
        return SqliteDeadLetters(
            self.folder, max_bytes=bounds.max_bytes, max_age_s=bounds.max_age, clock=clock
        )


Stores = MemoryStores | SqliteStores


@dataclass(frozen=True)
class Reply:
    """An HTTP answer, whichever way it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def items(self) -> list[dict[str, Any]]:
        """The items of a /v1 answer."""
        found: list[dict[str, Any]] = json.loads(self.body)["items"]
        return found


class Incomplete(Exception):
    """The sender went away: there is no answer."""


@dataclass
class System:
    """What system() starts."""

    settings: Settings
    stores: Stores
    clock: SettableClock
    cluster: LocalCluster
    gateway: Gateway
    dead_letters: DeadLetters
    shards: list[str] = field(default_factory=list)
    tears: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    async def post(
        self,
        path: str,
        alerts: object,
        *,
        content_type: str | None = JSON,
        headers: Mapping[str, str] | Sequence[tuple[bytes, bytes]] = (),
    ) -> Reply:
        """POST `alerts`: bytes as they are, anything else as JSON."""
        body = alerts if isinstance(alerts, bytes) else json.dumps(alerts).encode()
        more = (
            [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
            if isinstance(headers, Mapping)
            else list(headers)
        )
        if content_type is not None:
            more.append((b"content-type", content_type.encode()))
        return await self.request("POST", path, [body], more)

    async def get(self, path: str) -> Reply:
        return await self.request("GET", path, [b""], [])

    async def request(
        self,
        method: str,
        path: str,
        parts: Sequence[bytes] | AsyncIterator[bytes],
        headers: Sequence[tuple[bytes, bytes]],
        *,
        leaves: bool = False,
        host: str | None = "127.0.0.1",
    ) -> Reply:
        """One request to the gateway's ASGI application. `leaves`: the sender disconnects after its last part. `host` None: no
        Host but what `headers` say."""
        if WAY == "hot" and isinstance(parts, Sequence) and len(parts) == 1 and not leaves:
            plain = await self._hot(
                method, path, [*([] if host is None else [(b"host", host.encode())]), *headers], parts[0]
            )
            if plain is not None:
                return plain
        # Not urlsplit: what begins with two slashes is a path too.
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [*([] if host is None else [(b"host", host.encode())]), *headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        # A list comes in one message or more; from a slow sender the server cannot know that a part is the last.
        known = None if isinstance(parts, AsyncIterator) else list(parts)
        source = parts if isinstance(parts, AsyncIterator) else _each(parts)
        left = len(known) if known is not None else -1
        over = False
        done = asyncio.Event()

        async def receive() -> dict[str, object]:
            nonlocal left, over
            if over:
                if not leaves:
                    await done.wait()
                return {"type": "http.disconnect"}
            part = await anext(source, None)
            left -= 1
            over = left == 0 or part is None
            return {"type": "http.request", "body": part or b"", "more_body": not over or leaves}

        status, found, body = 0, {}, bytearray()

        async def send(message: Mapping[str, object]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(str(message["status"]))
                for name, value in message.get("headers", ()):  # type: ignore[attr-defined]
                    found[name.decode().lower()] = value.decode("latin-1")
            else:
                body.extend(message.get("body", b""))  # type: ignore[arg-type]

        await self.gateway.app(scope, receive, send)  # type: ignore[arg-type]
        done.set()
        if not status:
            raise Incomplete
        return Reply(status, found, bytes(body))

    async def _hot(
        self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> Reply | None:
        """A request whose head was met before; None for one that can't be plain."""
        hot = self.gateway.hot
        data = raw(method, path, headers, body)
        cut = hot.cut(data)
        if cut is None or not hot.may_learn(method.encode(), path.encode()):
            return None
        known(hot, method, path, headers, body)
        if not hot.knows(cut):
            return None
        protocol, wire = connected(self.gateway.app, hot)
        protocol.data_received(data)
        ((status, found, answer),) = await wire.answers()
        wire.close()
        return Reply(status, found, answer)

    async def alerts(self, query: str = "") -> list[dict[str, Any]]:
        """GET /api/v2/alerts, which must succeed."""
        answer = await self.get(f"/api/v2/alerts{query}")
        assert answer.status == 200, answer
        found: list[dict[str, Any]] = answer.json
        return found

    async def names(self) -> set[str]:
        """The alert names that are firing."""
        return {str(each["labels"].get("alertname")) for each in await self.alerts()}

    async def letters(self, count: int = 1) -> list[object]:
        """All dead letters, once there are `count`: they are written behind the answer."""
        async with asyncio.timeout(5):
            while len(found := await self.dead_letters.page(0, 10_000)) < count:
                await asyncio.sleep(0.005)
        return list(found)

    async def ready(self) -> None:
        """Until every shard answers."""
        async with asyncio.timeout(READY_S):
            while await self.gateway.reads.silent_shards():
                await asyncio.sleep(0.01)

    async def silences_known(self) -> None:
        """Until every shard knows which silences there are: before that it notifies nobody."""
        async with asyncio.timeout(READY_S):
            for shard in map(self.cluster.get, self.shards):
                while isinstance(shard, IncidentShard) and not shard.shard.of(KnownSilences).is_told:
                    await asyncio.sleep(0.01)

    async def crash(self, name: str) -> None:
        """End an actor as SIGKILL would: it says nothing, gives up no lease, and does nothing more."""
        actor = self.cluster.kill(name)
        assert isinstance(actor, IncidentShard)
        its = {id(actor), *(id(part) for part in vars(actor).values() if part is not None)}
        tasks = []
        for task in asyncio.all_tasks():
            frame = getattr(task.get_coro(), "cr_frame", None)
            if frame is not None and id(frame.f_locals.get("self")) in its:
                task.cancel()
                tasks.append(task)
        await asyncio.gather(*tasks, return_exceptions=True)
        await actor.event_log.close()
        await actor.archive.close()
        await actor.deliveries.close()

    async def listen(self) -> int:
        """uvicorn in front, in this loop. Its port."""
        server = uvicorn.Server(
            uvicorn.Config(
                _with_lifespan(self.gateway.app),
                log_level="critical",
                # A class of its own, for several systems in one process.
                http=type("OwnProtocol", (Protocol,), {"hot": self.gateway.hot}),
                ws=WebSocketProtocol,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        task = asyncio.get_running_loop().create_task(server._serve([listener]))
        while not server.started:
            await asyncio.sleep(0.005)

        async def stop() -> None:
            server.should_exit = server.force_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await task
            listener.close()

        self.tears.append(stop)
        return int(listener.getsockname()[1])


@contextlib.asynccontextmanager
async def system(
    stores: Stores | None = None,
    *,
    clock: SettableClock | None = None,
    classify: bool = True,
    worker: Worker | Mapping[str, Any] | None = None,
    front_tls: Front | None = None,
    **settings: Mapping[str, Any],
) -> AsyncIterator[System]:
    """Start everything; stop it in the reverse order. `settings` by section: server={"hold": 0.2}. `worker` does what runs of
    playbooks ask for; as a table, it is the section of that name. `front_tls`: how the HAProxy in front ends TLS."""
    if isinstance(worker, Mapping):
        settings["worker"], worker = worker, None
    configured = Settings.model_validate(
        {**settings, "state": {"partitions": 2, **settings.get("state", {})}}
    )
    stores = stores or MemoryStores()
    clock = clock or SettableClock()
    cluster = LocalCluster()
    partitions = configured.state.partitions
    names = [bootstrap.shard_actor_name(index) for index in range(partitions)]

    def control(host: Host) -> Actor:
        return ControlActor(
            host,
            stores.log("control"),
            clock,
            partitions,
            kept=Kept(stores.log, stores.archive),
            trainer=Hired(bootstrap.TRAINER_ACTOR, "", b"", 1.0),
            schedule=configured.learning.schedule,
        )

    def tracer(name: str) -> Tracer:
        return bootstrap.open_tracer(configured, name)

    def classifier(host: Host) -> Actor:
        control = ControlTail(
            stores.log("control"), SettingsWatch("", lambda changed: take(given_by(changed, CLASSIFIER)))
        )
        given = configured.given_to(CLASSIFIER)
        actor, take = bootstrap.classifier(given, host, tracer(host.name), control)
        return actor

    is_off = bool(configured.notify.why_off)
    responders = [] if is_off and worker is None else ["responder-0"]

    def responder(host: Host) -> Actor:
        given = _settings_of_a_responder(configured)
        actions = Actions(given)
        receivers = {} if is_off else actions.by_name
        targets = Targets.of(given, SystemClock(), receivers)

        def take(changed: SettingsChanged) -> None:
            actions.take(given_by(changed, RESPONDER))

        return ResponderActor(
            host,
            receivers,
            targets=targets,
            tracer=tracer(host.name),
            worker=worker,
            control=ControlTail(stores.log("control"), SettingsWatch("", take)),
            clock=clock,
        )

    def shard_of(index: int) -> Callable[[Host], Actor]:
        name = partition_name(index)

        def shard(host: Host) -> Actor:
            def take(changed: SettingsChanged) -> None:
                actor.take_settings(msgspec.convert(given_by(changed, SHARD), ShardSettings))

            actor = IncidentShard(
                host,
                ShardOptions(
                    name,
                    classifiers=["classifier-0"] if classify else [],
                    responders=responders,
                    shards=names,
                    snapshot_every_frames=configured.state.snapshot_every_frames,
                    snapshot_every_events=configured.state.snapshot_every_events,
                ),
                bootstrap.shard_settings(configured),
                stores.log(name),
                stores.archive(name),
                DeliveryWindow(stores.deliveries(name), configured.dedup.dedup_window),
                clock,
                ControlTail(stores.log("control"), SettingsWatch("", take)),
                tracer(host.name),
            )
            return actor

        return shard

    cluster.for_hire[bootstrap.TRAINER_ACTOR] = partial(_trainer, configured, stores)
    await cluster.start(bootstrap.CONTROL_ACTOR, control)
    await cluster.start("classifier-0", classifier)
    if responders:
        await cluster.start("responder-0", responder)
    for index, name in enumerate(names):
        await cluster.start(name, shard_of(index))
    letters = stores.dead_letters(configured, clock)
    for planned in plan(configured):
        if planned.kind == COLLECTOR:
            await cluster.start(planned.name, partial(_collector, configured, stores, clock))
        if planned.kind == CORRELATOR:
            await cluster.start(planned.name, partial(_correlator, configured, stores, clock))
    gateway = _gateway("gateway-test", configured, stores, clock, cluster, letters, front_tls=front_tls)
    await gateway.start()
    ours = System(configured, stores, clock, cluster, gateway, letters, names)
    try:
        with contextlib.suppress(TimeoutError):
            await ours.ready()
            await ours.silences_known()
        yield ours
    finally:
        for tear in reversed(ours.tears):
            await tear()
        await gateway.stop()
        with contextlib.suppress(Unavailable):
            await cluster.stop()


@contextlib.asynccontextmanager
async def another_gateway(ours: System, tenant: str = TENANT) -> AsyncIterator[System]:
    """A second gateway of the same system, perhaps for another tenant."""
    gateway = _gateway(
        "gateway-other", ours.settings, ours.stores, ours.clock, ours.cluster, ours.dead_letters, tenant
    )
    await gateway.start()
    try:
        yield replace(ours, gateway=gateway, tears=[])
    finally:
        await gateway.stop()


def _gateway(
    name: str,
    configured: Settings,
    stores: Stores,
    clock: SettableClock,
    cluster: LocalCluster,
    letters: DeadLetters,
    tenant: str = TENANT,
    front_tls: Front | None = None,
) -> Gateway:
    partitions = range(configured.state.partitions)
    responders = 0 if configured.notify.why_off else configured.notify.responders
    with built_from_what_was_made():
        return Gateway(
            name,
            configured,
            cluster,
            clock,
            stores.log("control"),
            [stores.archive(partition_name(index)) for index in partitions],
            letters,
            [bootstrap.shard_actor_name(index) for index in partitions],
            [
                "classifier-0",
                bootstrap.CONTROL_ACTOR,
                *(f"responder-{each}" for each in range(responders)),
                *(planned.name for planned in plan(configured) if planned.kind in (COLLECTOR, CORRELATOR)),
            ],
            bootstrap.CONTROL_ACTOR,
            None,
            [stores.log(partition_name(index)) for index in partitions],
            bootstrap.open_tracer(configured, name),
            tenant=tenant,
            front_tls=front_tls,
        )


def _collector(configured: Settings, stores: Stores, clock: SettableClock, host: Host) -> Collector:
    with built_from_what_was_made():
        station = Station(
            configured,
            host.peers,
            clock,
            Meter(host.name),
            bootstrap.open_tracer(configured, host.name),
            stores.log("control"),
            stores.dead_letters(configured, clock),
            [bootstrap.shard_actor_name(index) for index in range(configured.state.partitions)],
            bootstrap.CONTROL_ACTOR,
            start="",
            tenant=TENANT,
        )
        given = revealed(configured.given_to(COLLECTOR))
        assert isinstance(given, Mapping)
        return Collector(host.name, station, open_sources, given)


def _trainer(configured: Settings, stores: Stores, host: Host) -> TrainerActor:
    def take(changed: SettingsChanged) -> None:
        learner.bounds = Bounds.of(given_by(changed, TRAINER))

    control = ControlTail(stores.log("control"), SettingsWatch("", take))
    shards = [bootstrap.shard_actor_name(index) for index in range(configured.state.partitions)]
    learner = bootstrap.tenant_learner(configured.given_to(TRAINER), host, shards, stores.archive, control)
    tell = partial(tell_control, host.peers, bootstrap.CONTROL_ACTOR, hold_s=5.0)
    return TrainerActor(host.name, control, learner, tell)


def _correlator(configured: Settings, stores: Stores, clock: SettableClock, host: Host) -> Correlator:
    given = configured.given_to(CORRELATOR)
    shards = {
        partition_name(index): bootstrap.shard_actor_name(index)
        for index in range(configured.state.partitions)
    }

    def take(changed: SettingsChanged) -> None:
        actor.take_rules(bootstrap.correlation_rules(given_by(changed, CORRELATOR)))

    actor = Correlator(
        host,
        stores.log(TOPOLOGY),
        clock,
        bootstrap.correlation_rules(given),
        shards,
        [
            IncidentReader(
                name, stores.log(name), stores.archive(name), bootstrap.asking(host.peers, shard), TENANT
            )
            for name, shard in shards.items()
        ],
        ControlTail(stores.log("control"), SettingsWatch("", take)),
        reader_of(str(given["topology_file"])),
    )
    return actor


def _settings_of_a_responder(settings: Settings) -> Mapping[str, object]:
    given = revealed(settings.given_to(RESPONDER))
    assert isinstance(given, Mapping)
    return given


async def _each(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def _with_lifespan(app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    # A plain function: uvicorn takes a bound method for an ASGI 2 application.
    async def application(scope: object, receive: object, send: object) -> None:
        await app(scope, receive, send)

    return application


def alert(name: str, service: str = FIRST_SHARD_SERVICE, **labels: str) -> dict[str, Any]:
    """A good alert."""
    return {"labels": {"alertname": name, "service": service, **labels}}


def send(port: int, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
    """One request over a socket of its own, from a thread."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, found, answer.read())
    finally:
        connection.close()
