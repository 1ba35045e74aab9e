"""IncidentShard: the single writer of one partition of incidents (actors/partition.py). Hosted by what is in
actors/runtime/, told by gateways.

What is special about it: its inbox is bounded by alerts, deliveries with an id are looked up before a group is decided, it owes
effects, answers reads, and expires nothing while it could not hear.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec

from actors.begun import refuse_lost
from actors.control_tail import FIRST_LOOK_S, ControlTail
from actors.delivery import DeliveryWindow
from actors.folding import Folded
from actors.heartbeats import HeartbeatsWatch
from actors.lanes import Errands
from actors.partition import Call, PartitionActor, Queued
from actors.playbooks import PlaybooksWatch
from actors.policies import PoliciesWatch
from actors.runtime.host import Host
from actors.runtime.untraced import NoTracer
from actors.silences import SilencesWatch
from actors.snapshots import Pace
from actors.traces import Traces
from models.errors import Busy, IncidentManagerError, Refused, Unavailable
from models.incidents.notification import rfc3339
from models.incidents.query import Probe, SummaryPage, decode_query
from models.incidents.query import encode as encode_answer
from models.incidents.views import answer
from models.metrics import encode as encode_metrics
from models.partition.event import Event
from models.partition.frames import Frame
from models.partition.machine import Step as AnyStep
from models.partition.sharding import partition_name, slot_of_id
from models.ports import Archive as ArchivePort
from models.ports import Clock, EventLog, Tracer
from models.shard.archiving import ArchiveExpired
from models.shard.assembly import decode_message
from models.shard.edge_messages import AskEdge, WithdrawEdge
from models.shard.effects import Effect
from models.shard.escalation import Escalations
from models.shard.events import ActionFailed, ClockSetBack, ShardStarted
from models.shard.inhibitors import Inhibitors, InhibitorsChanged
from models.shard.known_playbooks import KnownPlaybooks
from models.shard.known_silences import KnownSilences
from models.shard.messages import (
    ActionOutcome,
    AlertsArrived,
    AlertsReply,
    Command,
    CommandDone,
    Decision,
    Failed,
    GapEnded,
    Message,
    Reply,
    Tick,
    encode,
)
from models.shard.notifications import Notifications
from models.shard.relations import Related
from models.shard.runs import Runs
from models.shard.settings import ShardSettings
from models.shard.shard import Shard
from models.shard.tenants import by_tenant

#: Alerts the inbox holds; at 100,000 alerts a second two seconds' worth. Beyond that a call is refused as Busy.
INBOX_ALERTS_MAX = 200_000
#: Reads that wait: at 10 ms a page ten seconds' worth, past any reader's patience.
READS_MAX = 1000
#: Reads answered between two groups of messages: a page takes up to 10 ms.
READS_BETWEEN = 2
#: What comes from our own actors: it says nothing of whether senders can reach us.
OUR_OWN = (InhibitorsChanged, AskEdge, WithdrawEdge, Related)
#: No beat and no alert for this long is a reception gap: five missed beats of a gateway.
GAP_AFTER_S = 5.0
#: If a shard's time is this far ahead of its clock, its next tick will not have corrected it: health reports it.
FAR_AHEAD_S = 30.0
#: How often the control partition's log is looked at: a silence mutes within a quarter of a second.
FOLLOW_S = 0.25
#: How often old delivery ids are dropped.
SWEEP_S = 60.0
#: Collect the youngest objects after this many frames: the process otherwise never collects garbage, because a full
#: collection over 500,000 series stops it for a quarter of a second.
COLLECT_EVERY_FRAMES = 5000


class ShardOptions(msgspec.Struct, frozen=True):
    """How a shard actor runs, apart from the settings it decides by. Times in seconds."""

    partition: str
    classifiers: list[str] = []
    responders: list[str] = []
    shards: list[str] = []
    snapshot_every_frames: int = 20_000
    snapshot_every_events: int = 150_000
    snapshot_every_bytes: int = 64 * 1024 * 1024
    snapshot_every_s: float = 300.0
    dedup_window_s: float = 600.0


@dataclass(slots=True)
class _Counted:
    """What the log holds, in numbers. The state itself is ahead of it while an append is under way, and after one that failed
    until it is recovered."""

    seq: int = 0
    incidents: int = 0
    series: int = 0
    given_up: int = 0
    runs: int = 0
    decided: Sequence[int] = (0,) * (max(Decision) + 1)


class IncidentShard(PartitionActor[Shard, Message, Reply]):
    """See the top of this file. Every public method is idempotent: tells by call_id, reads by nature."""

    def __init__(
        self,
        host: Host,
        options: ShardOptions,
        settings: ShardSettings,
        event_log: EventLog,
        archive: ArchivePort,
        deliveries: DeliveryWindow,
        clock: Clock,
        control: ControlTail | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.options = options
        self.settings = settings
        pace = Pace(
            options.snapshot_every_frames,
            options.snapshot_every_events,
            options.snapshot_every_bytes,
            options.snapshot_every_s,
        )
        super().__init__(host, options.partition, Shard(options.partition, settings), event_log, clock, pace)
        self.archive = archive
        self.deliveries = deliveries
        self.control = control
        self.tracer = tracer or NoTracer()
        self.traces = Traces(self.tracer, options.partition)
        self.counted = _Counted()
        self._frames_since_collect = 0
        self._reads: deque[tuple[bytes, asyncio.Future[bytes]]] = deque()
        #: Deliveries of the group under way: what is written when it is durable.
        self._delivered: list[tuple[str, float, bytes]] = []
        self.errands = Errands(
            host.name,
            host.peers,
            archive,
            self.meter,
            classifiers=options.classifiers,
            responders=options.responders,
            replace=host.replace,
            shard_of=self._shard_of,
            actor_of=self._actor_of,
            settled=self.settled,
            answered=self._take_answer,
            undelivered=self._ask_again,
        )
        self.silences = SilencesWatch(clock, self.log, self._tell_self)
        self.heartbeats = HeartbeatsWatch(options.partition, self._tell_self)
        self.policies = PoliciesWatch(self._tell_self)
        self._partitions = tuple(map(partition_name, range(len(options.shards))))
        self.playbooks = PlaybooksWatch(options.partition, self._tell_self)
        self._heard_at = 0.0
        self._gap_since = 0.0
        self._last_at = 0.0
        self._decided_told: dict[Decision, int] = {}

    @property
    def shard(self) -> Shard:
        """What decides. It may be ahead of the log."""
        return self.machine

    # -- what others call ----------------------------------------------------------------------------------

    async def tell(self, payload: bytes) -> bytes:
        """Messages (a MessagePack list of encoded messages) -> their replies, in order, once durable.

        A message that can't be read fails alone. Raises Unavailable while recovering, Busy when the inbox is full.
        """
        self._check_ready()
        encoded = _list_decoder.decode(payload)
        # Not Call[Reply](...): that takes ten microseconds longer.
        call: Call[Reply] = Call([None] * len(encoded), 0, asyncio.get_running_loop().create_future())
        told = []
        for place, item in enumerate(encoded):
            try:
                message = decode_message(item)
            except msgspec.MsgspecError as error:
                call.replies[place] = Failed("Malformed", f"message can't be read: {error}")
                continue
            if not isinstance(message, OUR_OWN):
                # Shards and responders are heard, whoever else can't be.
                self._heard_at = self.clock.monotonic()
            alerts = len(message.keys) if isinstance(message, AlertsArrived) else 1
            told.append(Queued(message, alerts, call, place))
        alerts = sum(each.weight for each in told)
        if self._inbox_weight and self._inbox_weight + alerts > INBOX_ALERTS_MAX:
            self.meter.count("llm_im_requests_refused_total", door="shard", reason="busy")
            raise Busy(
                f"{self.partition}: {self._inbox_weight} alerts are waiting already", retry_after_s=1.0
            )
        await self.submit(call, told)
        return _list_encoder.encode([encode(reply) for reply in call.replies if reply is not None])

    async def ask(self, payload: bytes) -> bytes:
        """A query -> its answer, about durable state only. Raises Unavailable while recovering, Busy past READS_MAX."""
        if not self._ready and self._readable:
            # The log was replayed but can't be written (its disk is full): what was stored can still be read.
            try:
                query = decode_query(payload)
            except msgspec.MsgspecError as error:
                raise Unavailable(f"query failed: {error}") from None
            if not isinstance(query, Probe):
                found = answer(self.shard, query)
                if isinstance(found, SummaryPage):
                    # The frame that this writer would begin with is counted already, and may never be stored.
                    found = msgspec.structs.replace(found, seq=self.counted.seq)
                return encode_answer(found)
        self._check_ready()
        if len(self._reads) >= READS_MAX:
            raise Busy(f"{self.partition}: {len(self._reads)} reads are waiting already", retry_after_s=1.0)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._reads.append((payload, future))
        self._wake.set()
        return await future

    async def beat(self, _payload: bytes) -> bytes:
        """A gateway is up and the front port answers it. So senders can reach us, and silence is meaningful."""
        self._heard_at = self.clock.monotonic()
        return b""

    async def status(self, _payload: bytes) -> bytes:
        """For health pages: {"ready", "why", "epoch", "seq", "incidents", "series"}. Never raises."""
        return _json_encoder.encode(
            {
                "ready": self._ready,
                "why": "" if self._ready else self._why_not,
                "epoch": self._epoch,
                "seq": self.counted.seq,
                "incidents": self.counted.incidents,
                "series": self.counted.series,
            }
        )

    async def metrics(self, _payload: bytes) -> bytes:
        """ActorMetrics of this shard, encoded."""
        self._read_gauges()
        return encode_metrics(self.meter.read())

    def take_settings(self, settings: ShardSettings) -> None:
        """Use these settings from the next message on."""
        self.settings = settings
        self.shard.take_settings(settings)

    # -- recovery ------------------------------------------------------------------------------------------

    def _empty(self) -> Shard:
        shard = Shard(self.partition, self.settings)
        shard.of(Inhibitors).peers = self._partitions
        # Nobody is told of what may be silenced since.
        shard.of(KnownSilences).is_told = self.control is None
        shard.of(KnownPlaybooks).is_told = self.control is None
        shard.of(Escalations).is_told = self.control is None
        return shard

    async def _before_opening(self) -> None:
        if self.control is not None:
            # Settings changed while we were away hold from the first decision on.
            await self.control.catch_up()
            await refuse_lost(self.event_log, self.control.state)

    def _before_replay(self) -> None:
        gc.disable()
        self.deliveries.recovering()

    def _replayed(self, frame: Frame) -> None:
        for event in frame.events:
            self.deliveries.replayed(event, frame.now)

    async def _after_replay(self) -> None:
        await self.deliveries.recovered(self.clock.now())
        self.errands.begin_anew()
        self._last_at = self.clock.now()

    def _take_state(self, machine: Shard) -> None:
        self._tell_decided()
        self._decided_told = {}
        super()._take_state(machine)

    def _sizes(self) -> dict[str, int]:
        return {"incidents": len(self.shard.state.incidents), "series": len(self.shard.state.series)}

    def _shows_what_is_stored(self, step: AnyStep[Reply]) -> bool:
        # What is decided here, such as corrected times or dropped notifications, is not in the log yet: nobody may read
        # it.
        return all(isinstance(event, ShardStarted | ArchiveExpired) for event in step.events)

    def _started(self, folded: Folded[Shard], step: AnyStep[Reply]) -> None:
        gc.collect()
        gc.freeze()
        self._heard_at = self.clock.monotonic()
        self._gap_since = 0.0
        self.errands.owe(step.effects)
        self.silences.begin_anew()
        self.playbooks.begin_anew()
        self.heartbeats.begin_anew()
        self.policies.begin_anew()
        self._look_at_control()

    # -- the loop ------------------------------------------------------------------------------------------

    async def _before_group(self, messages: Sequence[Message]) -> None:
        self._delivered = []
        await self.deliveries.look_up(messages)

    def _first(self) -> Message | None:
        """The gap to report before a message, if time passed without hearing anybody: a store hung, this process stood
        still, or the clock was set forward. What senders sent meanwhile is queued behind the message that would end
        their series."""
        before, self._last_at = self._last_at, self.clock.now()
        unheard_s = self._last_at - before
        if unheard_s <= GAP_AFTER_S:
            return None
        self.log.warning(
            "reception gap: process or store stood still, nothing expires for now",
            seconds=round(unheard_s, 1),
        )
        self.meter.count("llm_im_deaf_seconds_total", unheard_s)
        return GapEnded(before, "a store hung, the process stood still, or the clock was put forward")

    def _prepared(self, told: Queued[Message, Reply]) -> Message:
        message = told.message
        if isinstance(message, AlertsArrived):
            self.meter.count("llm_im_alerts_received_total", told.weight, door=message.door)
            return self.deliveries.mark(message)
        if isinstance(message, Command):
            self.meter.count("llm_im_commands_total", verb=type(message.verb).__name__.lower())
            return self.deliveries.mark(message)
        return message

    def _trace_id(self, message: Message) -> str | None:
        return self.traces.id_of(message)

    def _by_tenant(
        self, message: Message | None, step: AnyStep[Reply]
    ) -> Iterable[tuple[str, Sequence[Event]]]:
        return by_tenant(self.shard, message, step.events)

    def _decided(self, message: Message | None, step: AnyStep[Reply]) -> None:
        self._tell_set_back(step)
        if (
            isinstance(message, AlertsArrived | Command)
            and step.events
            and message.delivery_id
            and isinstance(step.reply, AlertsReply | CommandDone)
            and step.reply.content  # otherwise part of it was refused, and must be sent again
        ):
            entry = (message.delivery_id, self.shard.now, encode(step.reply))
            self._delivered.append(entry)
            self.deliveries.answered(entry)

    async def _appended(
        self, group: Sequence[tuple[Queued[Message, Reply], AnyStep[Reply]]], frames: int
    ) -> None:
        if self._delivered:
            await self.deliveries.add(self._delivered)
        if alerts := sum(told.weight for told, _step in group if isinstance(told.message, AlertsArrived)):
            self.meter.observe("llm_im_ingest_batch_size", alerts)
        self._frames_since_collect += frames
        if self._frames_since_collect >= COLLECT_EVERY_FRAMES:
            self._frames_since_collect = 0
            gc.collect(0)

    def _durable(self, told: Queued[Message, Reply], step: AnyStep[Reply], since: float) -> None:
        if isinstance(told.message, ActionOutcome):
            self._tell_given_up(step)
        self.traces.durable(told.message, step, since)
        self.errands.owe(self.traces.on(step.effects))

    async def _between_groups(self) -> None:
        for _ in range(READS_BETWEEN):
            if self._reads:
                self._answer_read()

    def _waits(self) -> bool:
        return bool(self._reads)

    def _gave_up(self, why: Exception) -> None:
        while self._reads:
            _payload, future = self._reads.popleft()
            if not future.done():
                future.set_exception(why)

    def _background(self) -> Sequence[Coroutine[None, None, None]]:
        return (self._sweeper(), self._follower())

    async def _let_go(self) -> None:
        await self.errands.stop()

    async def _close(self) -> None:
        await self.archive.close()
        await self.deliveries.close()
        if self.control is not None:
            await self.control.close()
        await self.tracer.close()

    def _count(self) -> None:
        shard = self.shard
        self.counted = _Counted(
            shard.seq,
            shard.state.open_count,
            len(shard.state.series.firing),
            len(shard.of(Notifications).given_up),
            len(shard.of(Runs).store.active),
            shard.state.decided[:],
        )

    def _tell_given_up(self, step: AnyStep[Reply]) -> None:
        """No further attempt will be made, so somebody must act."""
        for event in step.events:
            if isinstance(event, ActionFailed) and not event.retry_at and not event.overtaken:
                self.log.error(
                    "notification given up",
                    incident_id=str(UUID(bytes=event.incident_id)),
                    receiver=event.receiver,
                    reason=event.reason,
                    tries=event.attempt + 1,
                    why=event.detail,
                )

    def _tell_set_back(self, step: AnyStep[Reply]) -> None:
        """Tell it when a step put right what a clock that was ahead had done."""
        event = step.events[0] if step.events else None
        if isinstance(event, ClockSetBack):
            # By the false time silences may have ended that go on.
            self.silences.begin_anew()
            self.meter.count("llm_im_clock_set_back_total")
            self.log.error(
                "clock was ahead and has been set back, deadlines corrected: check the time server",
                seconds=round(event.before - event.after, 1),
                false=rfc3339(event.before),
            )

    @property
    def _ahead_s(self) -> float:
        """How far the shard's time is ahead of its clock."""
        return max(0.0, self.shard.now - self.clock.now())

    def _answer_read(self) -> None:
        payload, future = self._reads.popleft()
        if future.done():
            return
        try:
            future.set_result(self._answered(payload))
        except Refused as error:
            # The query's own fault: a pattern that takes too many steps.
            future.set_exception(error)
        except (msgspec.MsgspecError, IncidentManagerError) as error:
            future.set_exception(Unavailable(f"query failed: {error}"))

    def _answered(self, payload: bytes) -> bytes:
        query = decode_query(payload)
        if isinstance(query, Probe) and self._ahead_s > FAR_AHEAD_S:
            raise Unavailable(
                f"{self.partition} is {self._ahead_s:.0f} s ahead of its clock: nothing becomes due before the clock catches up"
            )
        return encode_answer(answer(self.shard, query))

    def _take_answer(self, message: Message) -> None:
        # A state that is not ready yet asks again itself.
        if self._ready:
            self._tell_self(message)

    def _shard_of(self, incident_id: bytes) -> str:
        """The actor that has an incident now, by the control partition's slot map."""
        slots = None if self.control is None else self.control.state.slots
        if slots is None:
            raise Unavailable(f"{self.partition} has not read the slot map yet")
        return self.options.shards[slots.owners[slot_of_id(incident_id)]]

    def _actor_of(self, partition: str) -> str:
        """The actor that has a partition."""
        return self.options.shards[self._partitions.index(partition)]

    def _ask_again(self, effect: Effect) -> None:
        self.shard.ask_again(effect)

    # -- time ----------------------------------------------------------------------------------------------

    def _make_tick(self) -> Message | None:
        silent_s = self.clock.monotonic() - self._heard_at
        in_gap = silent_s > GAP_AFTER_S
        if in_gap and not self._gap_since:
            self._gap_since = self.clock.now() - silent_s
            self.log.warning(
                "reception gap: no gateway calls, nothing expires for now", seconds=round(silent_s, 1)
            )
        elif self._gap_since and not in_gap:
            self.meter.count("llm_im_deaf_seconds_total", max(0.0, self.clock.now() - self._gap_since))
            self._tell_self(GapEnded(self._gap_since, "no gateway called"))
            self._gap_since = 0.0
        return Tick(in_gap)

    async def _sweeper(self) -> None:
        while True:
            # At once, not after SWEEP_S: the first write brings files of an older version up to date.
            now, shard = self.clock.now(), self.shard
            # None while the clock may be ahead: all of them would seem older than the window.
            is_calm = shard.state.no_expiry_before <= now <= shard.now + GAP_AFTER_S
            try:
                await self.deliveries.sweep(now if is_calm else 0.0)
            except Unavailable as error:
                self.log.warning("sweep failed, will be retried", why=str(error))
            await asyncio.sleep(SWEEP_S)

    async def _follower(self) -> None:
        while self.control is not None:
            await self.control.catch_up()
            self._look_at_control()
            await asyncio.sleep(FIRST_LOOK_S if self.control.state.slots is None else FOLLOW_S)

    def _look_at_control(self) -> None:
        if self.control is not None:
            self.playbooks.look(self.control.state)
            self.silences.look(self.control.state, self.shard.of(KnownSilences))
            self.heartbeats.look(self.control.state)
            self.policies.look(self.control.state)

    # -- numbers -------------------------------------------------------------------------------------------

    def _tell_decided(self) -> None:
        """Count what was decided since the last call: the state's count restarts with each recovery, but the metric
        only grows."""
        for decision in Decision:
            if now := self.counted.decided[decision]:
                told = self._decided_told.get(decision, 0)
                self._decided_told[decision] = now
                self.meter.count(
                    "llm_im_alerts_decided_total", max(0, now - told), decision=decision.name.lower()
                )

    def _read_gauges(self) -> None:
        self._tell_decided()
        discards = self.shard.of(Notifications).discards
        for route, count in discards.items():
            self.meter.count("llm_im_notifications_discarded_total", count, route=route)
        discards.clear()
        counted, meter = self.counted, self.meter
        decided = counted.decided
        total = sum(decided)
        repeats = decided[Decision.REPEATED] + decided[Decision.DUPLICATE]
        meter.set("llm_im_dedup_ratio", repeats / total if total else 0.0)
        meter.set("incident_processing_queue_depth", self._inbox_weight)
        meter.set("llm_im_effects_waiting", self.errands.waiting)
        meter.set("llm_im_open_incidents", counted.incidents)
        meter.set("llm_im_open_series", counted.series)
        meter.set("llm_im_notifications_given_up", counted.given_up)
        meter.set("llm_im_runs_active", counted.runs)
        room = self.shard.state.series.room
        meter.set("llm_im_shard_bytes", room.held)
        meter.set("llm_im_shard_bytes_max", self.shard.settings.max_bytes)
        meter.set("llm_im_sender_bytes", max(room.by_sender.values(), default=0))
        meter.set("llm_im_shard_ready", float(self._ready))
        meter.set("llm_im_clock_ahead_seconds", self._ahead_s)
        if self.control is not None:
            meter.set("llm_im_control_version", self.control.state.slot_version)


_list_decoder = msgspec.msgpack.Decoder(list[bytes])
_list_encoder = msgspec.msgpack.Encoder()
_json_encoder = msgspec.json.Encoder()
