"""A whole system in one process, seeded trouble, and the people who send to it. Used by test_simulation.py and __main__.

    people  --.
    senders --> gateways (formats, Submitter, ShardLine) --> wire --> IncidentShard x 2..3 --> memory stores
                                                              |            |  ^
                                                              +--> classifier, responder --> Receiver

Everything between two boxes may fail: the wire loses, repeats and delays; stores refuse, stall, tear, and keep
without saying so; processes are killed at whatever await they stand. `Watcher` sees what is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import math
import random
import warnings
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
import structlog

import actors.control_tail
import actors.delivery
import actors.shard
import models.shard.people
import models.shard.shard
import services.ingest.line
from actors.classifier import ClassifierActor
from actors.control import ControlActor
from actors.control_tail import ControlTail
from actors.responder import ResponderActor
from actors.runtime.host import Actor, Host, answer, unwrap
from actors.runtime.local import Factory, LocalCluster
from actors.shard import IncidentShard, ShardOptions
from models.alerts.alert import series_id
from models.classification.rules import Classifier
from models.errors import Full, IncidentManagerError, OutcomeUnknown, Unavailable
from models.incidents.filters import IncidentFilter
from models.incidents.incident import Incident, IncidentState
from models.incidents.notification import FIRING, RESOLVED, Facts, rfc3339
from models.incidents.query import ListAlerts, ListIncidents, Query
from models.incidents.query import encode as encode_query
from models.partition.sharding import TENANT, SlotMap, partition_name
from models.ports import ActionResult
from models.settings.all import Settings
from models.shard.messages import Decision
from models.shard.notifications import FLAP_WINDOW
from models.shard.settings import ShardSettings
from services.ingest.arrival import ANONYMOUS, Arrival
from services.ingest.formats.format import Request, Shared
from services.ingest.formats.remembered import Remembered
from services.ingest.formats.table import open_formats
from services.ingest.line import ShardLine
from services.ingest.submit import Submitter
from services.stores.memory.archive import MemoryArchive
from services.stores.memory.delivery_ids import MemoryDeliveryIds
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from tests.simulation import mutations
from tests.simulation.loop import BEGINNING, ManualClock, Process, VirtualLoop
from tests.simulation.people import Person
from tests.simulation.watch import Watcher

RETENTION_S = 60.0
SETTINGS = ShardSettings(
    reopen_window_s=12.0,
    close_after_s=15.0,
    expiry_grace_s=12.0,
    retention_s=RETENTION_S,
    max_open=4,
    notify=True,
    wait_s=(0.0, 0.0, 3.0, 6.0, 9.0),
    interval_s=3.0,
    retry_first_s=0.5,
    retry_max_s=4.0,
    give_up_after_s=7200.0,
    acknowledge_within_s=(4.0, 8.0, 12.0, 0.0, 0.0),
    resolve_within_s=(8.0, 16.0, 24.0, 0.0, 0.0),
)
#: What ends a series nobody resends. Senders resend every EVERY_S.
RESOLVE_TIMEOUT_S = 24.0
_SETTINGS = Settings.model_validate({"lifecycle": {"resolve_timeout": RESOLVE_TIMEOUT_S}})
EVERY_S = 4.0
#: How long trouble lasts, and how long all may take to come right after it.
TROUBLE_S = 40.0
SETTLE_S = 35.0
OUTAGE_S = 600.0
#: How far the clock is wrong for a moment, and for how long at most: less than the grace in which nothing expires. Not
#: further behind than RETENTION_S: what closes then would be forgotten when it is right again.
LEAPS_S = (-40.0, -8.0, 8.0, 60.0, 600.0, 3600.0, 90_000.0)
LEAP_LASTS_S = 8.0
#: What becomes of an alert that has ended.
ENDS = {Decision.RESOLVED, Decision.LATE, Decision.UNKNOWN_RESOLVE}
SERVICES = ("llm-api", "vector-db", "billing", "gpu-pool")
ALERTS = ("Down", "Slow")
SEVERITIES = ("critical", "warning", "info", "page")


class Wire(LocalCluster):
    """LocalCluster whose actors are processes that die, with a network between them."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.processes: dict[str, Process] = {}

    async def start(self, name: str, factory: Factory) -> None:
        if name in self._actors:
            return
        process = self.processes[name] = Process(name)
        await self.world.loop.spawn_call(process, super().start(name, factory), lambda: _dead(name))

    def kill(self, name: str) -> Actor | None:
        if name in self.processes:
            self.world.loop.kill(self.processes[name], lambda: _dead(name))
        return super().kill(name)

    def _died(self, name: str, why: str) -> None:
        self.world.fail(f"{name} gave up: {why}")
        self.kill(name)

    async def call(self, name: str, method: str, payload: bytes, timeout_s: float) -> bytes:
        world = self.world
        rng, rough = world.rng, world.is_troubled
        fate = rng.random() if rough else 1.0
        if fate < 0.02:
            await asyncio.sleep(rng.choice((0.001, 0.5, min(timeout_s, 10.0))))
            raise Unavailable(f"{name}.{method}: the call was lost")
        if fate < 0.05:
            await asyncio.sleep(rng.choice((0.01, 0.3, 3.0)))
        elif fate < 0.07:
            world.spawn(self._again(name, method, payload, rng.choice((0.0, 0.2, 4.0))))
        actor = self._actors.get(name)
        if method == "beat" and isinstance(actor, IncidentShard):
            # Waits for nothing inside, and is a third of all calls: no process of its own for it.
            return await actor.beat(payload)
        answered = self._reach(name, method, payload)
        # Half of asyncio.wait_for's cost, and this is the busiest line of a run.
        timer = world.loop.call_later(timeout_s, _give_up, answered, f"{name}.{method}", timeout_s)
        try:
            wrapped = await answered
        finally:
            timer.cancel()
        if rough and rng.random() < 0.02:
            raise Unavailable(f"{name}.{method}: the answer was lost")
        return unwrap(wrapped)

    async def _again(self, name: str, method: str, payload: bytes, after_s: float) -> None:
        await asyncio.sleep(after_s)
        with contextlib.suppress(IncidentManagerError):
            await self._reach(name, method, payload)

    def _reach(self, name: str, method: str, payload: bytes) -> asyncio.Future[bytes]:
        actor = self._actors.get(name)
        if actor is None:
            away: asyncio.Future[bytes] = self.world.loop.create_future()
            away.set_exception(Unavailable(f"{name} is away"))
            return away
        work = self._run(name, actor, method, payload)
        return self.world.loop.spawn_call(self.processes[name], work, lambda: _dead(name))

    async def _run(self, name: str, actor: Actor, method: str, payload: bytes) -> bytes:
        wrapped = await answer(getattr(actor, method), payload)
        watcher = self.world.watchers.get(name)
        if watcher is not None and wrapped[:1] == b"\x00":
            if method == "tell":
                watcher.told(payload, wrapped[1:])
            elif method == "ask":
                watcher.asked(payload, wrapped[1:])
        return wrapped


def _give_up(answered: asyncio.Future[bytes], what: str, after_s: float) -> None:
    if not answered.done():
        answered.set_exception(Unavailable(f"{what} did not answer within {after_s:g} s"))


def _dead(name: str) -> Unavailable:
    return Unavailable(f"{name} died")


class ShardFaults:
    """What happens to the stores of one shard. Port services.stores.memory.store.Faults."""

    #: Chance of a crash before and after an operation: high where two halves of one thing meet.
    CRASH = {
        "log.append": (0.002, 0.006),
        "log.open": (0.02, 0.02),
        "log.read": (0.02, 0.0),
        "log.records": (0.02, 0.0),
        "log.put_records": (0.01, 0.02),
        "log.close_snapshot": (0.03, 0.04),
        "log.truncate": (0.03, 0.04),
        "archive.put": (0.04, 0.06),
        "delivery_ids.add": (0.03, 0.02),
        "delivery_ids.seen": (0.01, 0.01),
    }

    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.index = index
        self.name = shard_name(index)

    async def before(self, operation: str) -> None:
        world = self.world
        if not world.is_troubled:
            return
        rng = world.rng
        await self._crash(operation, 0)
        if (
            operation in ("log.append", "log.put_records", "log.close_snapshot")
            and world.full_until > world.clock.elapsed
        ):
            raise Full(f"{operation}: no room")
        chance = rng.random()
        if operation == "log.append":
            if chance < 0.004:
                raise Unavailable("append failed, nothing kept")
            if chance < 0.008:
                raise OutcomeUnknown("append failed, nothing kept, nobody knows")
            if chance < 0.011:
                await asyncio.sleep(rng.choice((0.5, 2.0, 8.0, 20.0)))
            elif chance < 0.3:
                await asyncio.sleep(0.005)
        elif chance < 0.02:
            raise Unavailable(f"{operation} failed")
        elif chance < 0.05:
            await asyncio.sleep(rng.choice((0.01, 0.5, 3.0)))

    async def after(self, operation: str) -> None:
        world = self.world
        watcher = world.watchers[self.name]
        if operation == "log.append":
            if world.is_troubled and world.rng.random() < 0.002:
                world.story("the append is torn", partition=watcher.partition)
                world.store.damage_frame(watcher.partition, world.store.partition(watcher.partition).last_seq)
                await self._die(operation)
            watcher.feed()
            if world.rng.random() < 0.05:
                world.compare(self.index, "live state")
        elif operation == "log.close_snapshot":
            watcher.counts["snapshots"] = watcher.counts.get("snapshots", 0) + 1
            await watcher.check_snapshot()
        elif operation == "log.open":
            watcher.feed()
        if not world.is_troubled:
            return
        await self._crash(operation, 1)
        if world.rng.random() < 0.003 and operation != "log.truncate":
            raise OutcomeUnknown(f"{operation}: done, and nobody knows")

    async def _crash(self, operation: str, half: int) -> None:
        chances = self.CRASH.get(operation)
        if chances is not None and self.world.rng.random() < chances[half]:
            await self._die(f"{'after' if half else 'before'} {operation}")

    async def _die(self, where: str) -> None:
        self.world.kill(self.name, where)
        await asyncio.get_running_loop().create_future()


class Receiver:
    """Port Action: whoever gets the webhooks. Remembers all; may fail, wait, or take it and say nothing."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.taken: set[str] = set()
        #: incident id -> [(number, reason)] of what may have been heard, in the order they came, whatever was answered.
        self.sent: dict[str, list[tuple[int, str]]] = {}
        #: incident id -> number -> the status that was taken, "firing" or "resolved".
        self.heard: dict[str, dict[int, str]] = {}
        self.refused: set[str] = set()

    async def act(self, key: str, facts: Facts, trace: str | None = None) -> ActionResult:
        world = self.world
        incident, number, _attempt = key.rsplit("-", 2)
        reason, status = facts.reason, RESOLVED if facts.is_over else FIRING
        fate = world.rng.random() if world.is_troubled else 1.0
        if fate < 0.06:
            return ActionResult(False, "429", retry_after_s=world.rng.choice((0.0, 0.0, 5.0)), reached=False)
        if fate < 0.07:
            self.refused.add(incident)
            return ActionResult(False, "422", final=True, reached=False)
        sent = self.sent.setdefault(incident, [])
        if reason == "resolved" and not any(before < int(number) for before, _reason in sent):
            world.fail(f"the receiver hears that {incident} is resolved and never heard of it")
        sent.append((int(number), reason))
        if fate < 0.11:
            return ActionResult(False, "503")
        if fate < 0.2:
            await asyncio.sleep(world.rng.choice((0.1, 2.0, 10.0)))
        self.taken.add(key)
        self.heard.setdefault(incident, {})[int(number)] = status
        world.story("heard", incident=incident[-4:], reason=reason, number=number)
        if fate < 0.23:
            return ActionResult(False, "the answer was lost")
        if fate < 0.25:
            world.kill("responder-0", "after it has sent")
            await asyncio.get_running_loop().create_future()
        return ActionResult(True, "200")

    def render(self, facts: Facts) -> bytes:
        return facts.reason.encode()

    async def close(self) -> None:
        """Nothing is open."""


class Gateway:
    """What services/wiring/gateway.py wires, without HTTP: formats, submitter, lines, a beat each second."""

    def __init__(self, world: World, name: str, number: int) -> None:
        self.world = world
        self.name = name
        self.process = Process(name)
        self.lines = [
            ShardLine(shard_name(index), world.wire, world.clock, hold_s=5.0, max_alerts=200)
            for index in range(world.shards)
        ]
        self.submitter = Submitter(self.lines, _first_slots(world.shards))
        # The run must be a function of its seed, down to the ids of calls.
        self.submitter._ids = (b"%08d%08d" % (number, count) for count in itertools.count())  # type: ignore[assignment]
        self.formats = open_formats(Shared(Remembered(TENANT, ("service",)), _SETTINGS))
        self.is_open = False
        world.loop.spawn(self.process, self._live())

    def post(
        self, door: str, body: bytes, delivery_id: str | None
    ) -> asyncio.Future[list[tuple[bytes, Decision]]]:
        """Store a request; the answer is what was acknowledged. Raises Unavailable when a part could not be."""
        return self.world.loop.spawn_call(
            self.process, self._post(door, body, delivery_id), lambda: _dead(self.name)
        )

    async def _post(self, door: str, body: bytes, delivery_id: str | None) -> list[tuple[bytes, Decision]]:
        if not self.is_open:
            raise Unavailable(f"{self.name} starts")
        received_at = self.world.clock.now()
        form = self.formats[door]
        reading = form.read(Request(form.path, body, received_at))
        arrival = Arrival(TENANT, form.name, ANONYMOUS, received_at, form.wants_ids, delivery_id)
        receipt = await self.submitter.submit(reading, arrival)
        taken = []
        for memory, decision, end in zip(reading.memories, receipt.decisions, reading.ends, strict=True):
            if decision is None:
                continue
            if end > received_at and decision in ENDS:
                self.world.fail(f"an alert that ends in {end - received_at:.0f} s was called {decision.name}")
            taken.append((memory.key, decision))
            name = shard_name(self.submitter.slots.owners[memory.slot])
            self.world.watchers[name].decided[decision] += 1
            if why := self.world.watchers[name].acknowledged(memory.key, decision):
                self.world.fail(f"an acknowledged alert {why}")
        if receipt.error is not None:
            raise receipt.error
        if reading.faults:
            self.world.story("refused", why=reading.faults[0].message)
        return taken

    async def _live(self) -> None:
        tail = ControlTail(MemoryEventLog(self.world.store, "control"))
        while tail.state.slots is None:
            await tail.follow()
            await asyncio.sleep(0.05)
        self.submitter.slots = tail.state.slots
        self.is_open = True
        while True:
            await asyncio.gather(*[line.beat() for line in self.lines])
            if any(line.alerts > 200 for line in self.lines):
                self.world.fail(f"{self.name}: a line holds more than its bound")
            await asyncio.sleep(1.0)


@dataclass(slots=True)
class Series:
    """What a sender thinks of one thing it watches."""

    labels: dict[str, str]
    version: int = 0
    firing_since: float | None = None
    ended_at: float | None = None
    end_sends: int = 0
    #: The ends that its sender gave, and None when it said once that it has ended and not when.
    ends: set[float | None] = field(default_factory=set)
    id: bytes = field(default=b"")

    def __post_init__(self) -> None:
        self.id = series_id("default", self.labels)

    @property
    def annotations(self) -> dict[str, str]:
        return {"summary": f"{self.labels['alertname']} v{self.version}"}


class World:
    """One run. Everything that happens is drawn from `seed`. `mutation` breaks the system on purpose (mutations.py)."""

    def __init__(self, seed: int, *, mutation: str = "", tell: bool = False) -> None:
        self.seed = seed
        self.mutation = mutation
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        self.loop = VirtualLoop(self.clock)
        self.store = MemoryStore()
        self.wire = Wire(self)
        self.receiver = Receiver(self)
        self.shards = self.rng.choice((2, 2, 3))
        self.has_outage = self.rng.random() < 0.08
        self.is_troubled = False
        #: Nobody can reach us: no gateway starts.
        self.is_cut_off = False
        self.full_until = 0.0
        self.jumped_s = 0.0
        self.is_leaping = False
        self.violations: list[str] = []
        self.lines: list[str] | None = [] if tell else None
        self.watchers: dict[str, Watcher] = {}
        self.gateways: list[Gateway | None] = []
        self.gateways_made = 0
        self.series: dict[bytes, Series] = {}
        self.acknowledged = 0
        #: What people wrote -> whether they were told that it is kept.
        self.written: dict[str, bool] = {}
        self._over: asyncio.Future[None] | None = None
        self._senders: list[asyncio.Task[None]] = []
        settings = SETTINGS
        if mutation == "no grace":
            settings = msgspec.structs.replace(SETTINGS, expiry_grace_s=0.0)
        self.settings = settings
        for index in range(self.shards):
            name = shard_name(index)
            self.watchers[name] = Watcher(
                partition_name(index),
                SETTINGS if mutation == "no grace" else settings,
                self.store,
                self.clock,
                self.fail,
                may_expire=self.may_expire,
                was_ended=self.was_ended,
                was_received=lambda key: key in self.receiver.taken,
            )

    # -- the run -------------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """All of it. Returns the broken laws; none is what we want."""
        with _small_world(self):
            try:
                self.loop.run_until(self._run())
            finally:
                # Coroutines of the dead are closed with the world: what their `finally` does no longer matters.
                asyncio.set_event_loop(None)
        return self.violations

    async def _run(self) -> None:
        self._over = self.loop.create_future()
        work = asyncio.create_task(self._story())
        await asyncio.wait({work, self._over}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()

    async def _story(self) -> None:
        wire = self.wire
        await wire.start(
            "control-a", lambda host: ControlActor(host, self._log("control"), self.clock, self.shards)
        )
        await wire.start("classifier-0", lambda host: ClassifierActor(host, Classifier()))
        await wire.start("responder-0", lambda host: ResponderActor(host, {"webhook": self.receiver}))
        for index in range(self.shards):
            await wire.start(shard_name(index), self._shard_factory(index))
        for _ in range(2):
            self.gateways.append(None)
            self._start_gateway(len(self.gateways) - 1)
        await asyncio.sleep(1.0)
        self.is_troubled = True
        self._senders = [self.spawn(self._prometheus(number)) for number in range(2)]
        self._senders += [self.spawn(self._pusher(number)) for number in range(2)]
        self._senders += [self.spawn(Person(self, name).live()) for name in ("ann", "bob")]
        trouble = self.spawn(self._chance())
        reading = self.spawn(self._reader())
        await asyncio.sleep(TROUBLE_S)
        if self.has_outage:
            await self._outage()
        trouble.cancel()
        self.is_troubled = False
        self.story("all is well from here on")
        for name in [*self.wire.processes]:
            if name not in self.wire._actors:
                await self.wire.restart(name)
        for place, gateway in enumerate(self.gateways):
            if gateway is None:
                self._start_gateway(place)
        await asyncio.sleep(SETTLE_S)
        reading.cancel()
        self._at_the_end()

    def _shard_factory(self, index: int) -> Factory:
        def make(host: Host) -> Actor:
            partition = partition_name(index)
            faults = ShardFaults(self, index)
            options = ShardOptions(
                partition=partition,
                classifiers=["classifier-0"],
                responders=["responder-0"],
                shards=[shard_name(other) for other in range(self.shards)],
                snapshot_every_frames=20,
                snapshot_every_s=30.0,
                dedup_window_s=900.0,
            )
            return mutations.shard(self.mutation)(
                host,
                options,
                self.settings,
                mutations.log(self.mutation)(self.store, partition, faults),
                MemoryArchive(self.store, partition, faults),
                mutations.deliveries(self.mutation)(MemoryDeliveryIds(self.store, partition, faults), 900.0),
                self.clock,
                ControlTail(self._log("control")),
            )

        return make

    def _log(self, partition: str) -> MemoryEventLog:
        return MemoryEventLog(self.store, partition)

    def shard(self, index: int) -> IncidentShard | None:
        actor = self.wire.get(shard_name(index))
        return actor if isinstance(actor, IncidentShard) else None

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` outside any process."""
        return self.loop.spawn_outside(work)

    def fail(self, how: str) -> None:
        """A law is broken: the run is over."""
        self.violations.append(how)
        self.story("BROKEN", how=how)
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def story(self, what: str, /, **fields: object) -> None:
        if self.lines is not None:
            told = " ".join(f"{name}={value}" for name, value in fields.items())
            self.lines.append(f"{self.clock.elapsed:9.3f}  {what} {told}")

    def reached(self) -> dict[str, int]:
        """How often each thing happened: what a set of seeds must not leave out."""
        counts: dict[str, int] = {"acknowledged": self.acknowledged, "steps": self.loop.steps}
        for watcher in self.watchers.values():
            for name, count in watcher.counts.items():
                counts[name] = counts.get(name, 0) + count
            for place, count in enumerate(watcher.decided):
                if count:
                    name = Decision(place).name
                    counts[name] = counts.get(name, 0) + count
        return counts

    # -- trouble -------------------------------------------------------------------------------------------

    def kill(self, name: str, where: str) -> None:
        self.story(f"KILL {name}", where=where)
        self.wire.kill(name)
        if name in self.watchers:
            mutations.crashed(self.mutation, self.store, self.watchers[name].partition)
        self.spawn(self._restart(name, self.rng.choice((0.05, 0.5, 2.0))))

    async def _restart(self, name: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        if self.wire.get(name) is None:
            await self.wire.restart(name)

    def _start_gateway(self, place: int) -> None:
        if self.is_cut_off:
            return
        self.gateways_made += 1
        self.gateways[place] = Gateway(self, f"gateway-{place}", self.gateways_made)

    def _kill_gateway(self, place: int) -> None:
        gateway = self.gateways[place]
        if gateway is not None:
            self.story(f"KILL {gateway.name}")
            self.loop.kill(gateway.process, lambda: _dead(gateway.name))
            self.gateways[place] = None

    async def _gateway_restarts(self, place: int, after_s: float) -> None:
        self._kill_gateway(place)
        await asyncio.sleep(after_s)
        if self.gateways[place] is None:
            self._start_gateway(place)

    async def _chance(self) -> None:
        rng = self.rng
        while True:
            await asyncio.sleep(rng.uniform(0.5, 6.0) * (10.0 if self.is_cut_off else 1.0))
            match rng.choice(("shard", "shard", "gateway", "helper", "full", "clock", "leap", "control")):
                case "shard":
                    self.kill(shard_name(rng.randrange(self.shards)), "by chance")
                case "gateway":
                    self.spawn(self._gateway_restarts(rng.randrange(2), rng.choice((0.0, 1.0, 7.0))))
                case "helper":
                    self.kill(rng.choice(("classifier-0", "responder-0")), "by chance")
                case "control":
                    self.kill("control-a", "by chance")
                case "full":
                    self.full_until = self.clock.elapsed + rng.choice((0.5, 4.0, 10.0))
                    self.story("the disk is full", until=self.full_until)
                case "clock" if self.jumped_s < 5.0:
                    by_s = rng.choice((0.01, 0.5, 2.0))
                    self.jumped_s += by_s
                    self.story("the clock is set back", by_s=by_s)
                    self.clock.jump(-by_s)
                case "leap" if not self.is_leaping:
                    self.spawn(self._leap(rng.choice(LEAPS_S), rng.uniform(0.1, LEAP_LASTS_S)))

    async def _leap(self, by_s: float, for_s: float) -> None:
        """The clock is wrong for a moment."""
        self.is_leaping = True
        self.story("the clock is wrong", by_s=by_s, for_s=for_s)
        self.clock.jump(by_s)
        await asyncio.sleep(for_s)
        self.story("the clock is right again")
        self.clock.jump(-by_s)
        # Two in one grace would be one that is wrong for longer than it.
        await asyncio.sleep(SETTINGS.expiry_grace_s)
        self.is_leaping = False

    async def _outage(self) -> None:
        self.story("nobody can reach us for ten minutes")
        self.is_troubled, self.is_cut_off = False, True
        for place in range(2):
            self._kill_gateway(place)
        await asyncio.sleep(OUTAGE_S)
        self.is_troubled, self.is_cut_off = self.rng.random() < 0.5, False
        for place in range(2):
            self._start_gateway(place)
        await asyncio.sleep(10.0)

    def compare(self, index: int, which: str) -> None:
        shard = self.shard(index)
        if shard is not None and shard._ready:
            self.watchers[shard_name(index)].compare(shard.shard, which)

    # -- those who send ------------------------------------------------------------------------------------

    def time(self) -> float:
        """A sender's clock, to the millisecond; nobody sets it back."""
        return math.floor((self.clock.elapsed + BEGINNING) * 1000) / 1000

    def gateway(self) -> Gateway | None:
        alive = [gateway for gateway in self.gateways if gateway is not None and gateway.is_open]
        return self.rng.choice(alive) if alive else None

    async def send(self, door: str, body: bytes, delivery_id: str | None = None) -> bool:
        """One request to one gateway, as a load balancer would. True when all of it was acknowledged."""
        gateway = self.gateway()
        if gateway is None:
            await asyncio.sleep(0.1)
            return False
        try:
            taken = await gateway.post(door, body, delivery_id)
        except IncidentManagerError as error:
            self.story("not taken", why=error)
            return False
        self.acknowledged += len(taken)
        return True

    def _make_series(self, who: str, count: int) -> list[Series]:
        rng = self.rng
        made = []
        for number in range(count):
            labels = {
                "alertname": rng.choice(ALERTS),
                "service": rng.choice(SERVICES),
                "instance": f"{who}-{number}",
                "severity": rng.choice(SEVERITIES),
            }
            series = Series(labels)
            self.series[series.id] = series
            made.append(series)
        return made

    async def _prometheus(self, number: int) -> None:
        """Evaluates rules: says again what fires, says for a while what has ended."""
        rng = self.rng
        mine = self._make_series(f"prom{number}", 6)
        await asyncio.sleep(rng.uniform(0.0, EVERY_S))
        while True:
            now = self.time()
            alerts = []
            for series in mine:
                chance = rng.random() if self.is_troubled else 1.0
                if series.firing_since is None:
                    if chance < 0.25:
                        series.firing_since = now
                        series.ended_at = None
                elif chance < 0.12:
                    series.firing_since, series.ended_at, series.end_sends = None, now, 4
                    series.ends.add(now)
                elif chance < 0.2:
                    series.version += 1
                if series.firing_since is not None:
                    ends = rfc3339(now + RESOLVE_TIMEOUT_S) if number else ""
                    alerts.append(self._posted(series, series.firing_since, ends))
                elif series.ended_at is not None and series.end_sends:
                    series.end_sends -= 1
                    alerts.append(self._posted(series, series.ended_at - 1.0, rfc3339(series.ended_at)))
            if alerts:
                self.spawn(self._once_or_twice(msgspec.json.encode(alerts)))
            await asyncio.sleep(EVERY_S)

    def _posted(self, series: Series, starts: float, ends: str) -> dict[str, object]:
        return {
            "labels": series.labels,
            "annotations": series.annotations,
            "startsAt": rfc3339(starts),
            "endsAt": ends,
            "generatorURL": "http://prometheus/graph",
        }

    async def _once_or_twice(self, body: bytes) -> None:
        # Prometheus itself sends anew at the next evaluation; a proxy before us may repeat the very same request.
        taken = await self.send("alertmanager", body)
        if not taken or (self.is_troubled and self.rng.random() < 0.05):
            await asyncio.sleep(0.2)
            await self.send("alertmanager", body)

    async def _pusher(self, number: int) -> None:
        """Says once that something begins and once that it ends, each under a key of its own, until it was taken."""
        rng = self.rng
        mine = self._make_series(f"push{number}", 3)
        for count in itertools.count():
            await asyncio.sleep(rng.uniform(0.5, 6.0))
            if not self.is_troubled:
                continue
            series = rng.choice(mine)
            now = self.time()
            told: dict[str, object] = {"labels": series.labels, "annotations": series.annotations}
            if series.firing_since is None:
                series.firing_since = now
                told["starts_at"] = rfc3339(now)
            else:
                # Of four ways to say it each is enough.
                if rng.random() < 0.5:
                    told["starts_at"] = rfc3339(series.firing_since)
                if rng.random() < 0.5:
                    told["ends_at"] = rfc3339(now)
                if "ends_at" not in told or rng.random() < 0.5:
                    told["status"] = "resolved"
                series.ends.add(now if "status" not in told else None)
                series.firing_since = None
            body, key = msgspec.json.encode(told), f"{number}-{count}"
            while not await self.send("v1", body, key):
                await asyncio.sleep(rng.choice((0.0, 0.1, 1.0, 5.0)))
            while rng.random() < 0.2 and self.is_troubled:
                # The answer was lost on the way: the sender can't know.
                await asyncio.sleep(rng.choice((0.0, 0.1, 1.0)))
                await self.send("v1", body, key)

    async def _reader(self) -> None:
        """Somebody looks at pages; the wire sees to it that they are true (Watcher.asked)."""
        queries: list[Query] = [
            ListIncidents("default", limit=3),
            ListIncidents("default", wanted=IncidentFilter(states=["Resolved", "Closed"])),
            ListAlerts("default", limit=5, matchers=[("service", "=", "llm-api")]),
            ListAlerts("default", firing_only=False),
        ]
        while True:
            await asyncio.sleep(self.rng.uniform(0.2, 5.0))
            gateway = self.gateway()
            if gateway is None:
                continue
            line = self.rng.choice(gateway.lines)
            with contextlib.suppress(IncidentManagerError):
                await line.ask(encode_query(self.rng.choice(queries)), 5.0)

    def was_ended(self, series: bytes, at: float) -> bool:
        """Whether its sender ever said that a series ended at this time, to the millisecond."""
        ends = self.series[series].ends
        return None in ends or any(end is not None and abs(end - at) < 0.002 for end in ends)

    def may_expire(self, series: bytes, starts: float) -> str:
        """Why a series whose present life began at `starts` may not expire now, "" when it may."""
        found, now = self.series[series], self.time()
        since = found.firing_since
        if since is None or now - since < RESOLVE_TIMEOUT_S or starts < since - 0.01:
            # It ended, began again just now, or its shard has not heard of this life yet.
            return ""
        return f"{found.labels['instance']} expires by mistake: its sender says that it fires, for {now - since:.0f} s"

    # -- when all is quiet ---------------------------------------------------------------------------------

    def _at_the_end(self) -> None:
        """What must have come about after SETTLE_S without trouble."""
        firing: set[bytes] = set()
        for index in range(self.shards):
            shard, watcher = self.shard(index), self.watchers[shard_name(index)]
            if shard is None or not shard._ready:
                self.fail(f"{shard_name(index)} did not come back: {shard and shard._why_not}")
                return
            self.compare(index, "live state at the end")
            firing |= {key[:16] for key in watcher.mirror.series.firing}
            self._all_told(watcher)
            self._hangs_together(watcher)
            for waiting in (len(shard._inbox), len(shard._reads), shard.errands.waiting):
                if waiting > 50:
                    self.fail(f"{watcher.partition}: a queue does not empty")
        self._written_once()
        meant = {series.id for series in self.series.values() if series.firing_since is not None}
        for identity in meant - firing:
            self.fail(f"{self.series[identity].labels['instance']} fires, and no shard knows")
        for identity in firing - meant:
            self.fail(f"{self.series[identity].labels['instance']} has ended, and its shard says it fires")

    def _all_told(self, watcher: Watcher) -> None:
        mirror = watcher.mirror
        for identity, incident in {**watcher.gone, **mirror.incidents}.items():
            name = str(UUID(bytes=identity))
            heard = self.receiver.heard.get(name, {})
            if name in self.receiver.refused:
                continue
            last = heard[max(heard)] if heard else ""
            if incident.classify_owed and incident.is_open:
                watcher.fail(f"{name} was never classified")
            elif incident.notification.reason is not None and self._waits(incident):
                continue  # for its interval, or for quiet
            elif incident.notification.reason is not None:
                watcher.fail(
                    f"{name} is still owed notice {incident.notification.number} ({incident.notification.reason})"
                )
            elif incident.merged_into:
                continue  # its whole says it
            elif incident.is_open and not heard:
                watcher.fail(f"{name} is open and nobody was told")
            elif incident.is_open and last == "resolved":
                watcher.fail(f"{name} is open and the last word was that it is resolved")
            elif not incident.is_open and name in self.receiver.sent and last != "resolved":
                watcher.fail(f"{name} is {incident.state} and the last word was {last!r}")
            elif (
                incident.state is IncidentState.RESOLVED
                and not incident.firing
                and self.clock.now() - incident.resolved_at > 32.0
            ):
                watcher.fail(f"{name} is resolved and was not closed")

    def _waits(self, incident: Incident) -> bool:
        """Whether its notice has not begun and its time comes."""
        now = self.clock.now()
        longest_s = FLAP_WINDOW * self.settings.interval_s
        return incident.notification.attempt == 0 and now < incident.notification.due_at <= now + longest_s

    def _hangs_together(self, watcher: Watcher) -> None:
        """Of two incidents that a person joined, both halves are there, or one is no more."""
        for incident in watcher.mirror.incidents.values():
            handling = incident.handling
            if handling is None:
                continue
            name = str(UUID(bytes=incident.id))
            if handling.owed:
                watcher.fail(f"{name} still owes {len(handling.owed)} notes")
            whole = self._found(incident.merged_into)
            if incident.merged_into and whole is not None and incident.id not in whole.children:
                watcher.fail(f"{name} is a part of an incident that does not know it")
            for source, part in handling.children.items():
                other = self._found(source)
                if part.pending:
                    watcher.fail(f"{name}: {part.pending} is pending still")
                elif other is not None and other.merged_into != incident.id:
                    watcher.fail(f"{name} has a part that does not know it")
                elif other is not None and (other.is_open, other.severity) != (part.is_open, part.severity):
                    watcher.fail(f"{name} does not know how its part is")
            if incident.is_open and incident.merged_into and handling.children:
                watcher.fail(f"{name} is a part and has parts")
            for related in handling.related:
                other = self._found(related)
                if other is not None and incident.id not in (
                    other.handling.related if other.handling else ()
                ):
                    watcher.fail(f"{name} is linked to an incident that is not linked to it")

    def owner(self, slot: int) -> int:
        """The shard that has a slot: nothing moves in a run."""
        return _first_slots(self.shards).owners[slot]

    def _found(self, identity: bytes) -> Incident | None:
        for watcher in self.watchers.values():
            if identity in watcher.mirror.incidents:
                return watcher.mirror.incidents[identity]
        return None

    def _written_once(self) -> None:
        found: Counter[str] = Counter()
        for watcher in self.watchers.values():
            for incident in {**watcher.gone, **watcher.mirror.incidents}.values():
                found.update(line.text for line in incident.timeline if line.kind == "CommentAdded")
        for text, is_kept in self.written.items():
            if found[text] > 1 or (is_kept and not found[text]):
                self.fail(f"the comment {text!r} is there {found[text]} times")


@functools.cache
def _first_slots(shards: int) -> SlotMap:
    return SlotMap.even(shards)


def shard_name(index: int) -> str:
    return f"shard-{index:04d}-a"


class _NoCollector:
    """A shard collects garbage by hand; here it would collect the whole test run's."""

    @staticmethod
    def collect(_generation: int = 2) -> int:
        return 0

    @staticmethod
    def freeze() -> None: ...

    @staticmethod
    def disable() -> None: ...


@contextlib.contextmanager
def _small_world(world: World) -> Iterator[None]:
    """Waits that are long beside a run of two minutes become short; logs go to the story; garbage waits."""
    patched: list[tuple[Any, str, object]] = [
        (actors.shard, "gc", _NoCollector),
        (actors.shard, "TICK_S", 1.5),
        (actors.shard, "SWEEP_S", 20.0),
        (actors.delivery, "FILTER_CAPACITY", 1000),
        (actors.control_tail, "FOLLOW_S", 5.0),
        (models.shard.shard, "CLOSE_RECHECK_S", 5.0),
        (models.shard.shard, "FORGET_EVERY_PART", 4),
        (models.shard.people, "STILL_FIRING_S", 10.0),
        (services.ingest.line, "RETRY_S", 0.5),
    ]
    before = [getattr(module, name) for module, name, _value in patched]
    logs = structlog.get_config()

    def tell(_logger: object, _level: str, event: Any) -> Any:
        world.story(f"   {event.pop('actor', '')}: {event.pop('event')}", **event)
        raise structlog.DropEvent

    level = 0 if world.lines is not None else 50
    structlog.configure(
        processors=[tell],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    for module, name, value in patched:
        setattr(module, name, value)
    collects = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for (module, name, _value), old in zip(patched, before, strict=True):
            setattr(module, name, old)
        structlog.configure(**logs)
        if collects:
            gc.enable()
