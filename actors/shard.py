"""IncidentShard: the single writer of one partition. Hosted by what is in actors/runtime/, told by gateways.

One loop commits: while an append is in flight the next messages gather; then each is decided and applied in turn, one
append holds the frames of all, and only then replies, effects and reads may leave. A lone message waits for nobody;
under load groups grow by themselves.

    tell() -> inbox --> decide+apply each --> log.append (one) --> replies, effects, reads --> a snapshot slice
                ^                                |
                |                                +-- fails: forget all state, recover from the log
      Tick, Classified, ActionOutcome, Archived

State that is ahead of the log is never seen: when an append fails or its outcome is unknown, the state is thrown away
and rebuilt from the log, in place; meanwhile calls raise Unavailable. When another writer took the partition (Fenced),
the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec
import structlog

from actors.begun import refuse_lost
from actors.control_tail import ControlTail
from actors.delivery import DeliveryWindow
from actors.folding import fold
from actors.lanes import Errands
from actors.runtime.ending import end
from actors.runtime.host import Host
from actors.runtime.untraced import NoTracer
from actors.snapshots import Snapshots
from actors.traces import Traces
from models.errors import Busy, Damaged, Fenced, Full, IncidentManagerError, NotOwner, Refused, Unavailable
from models.incidents.notification import rfc3339
from models.incidents.query import Probe, decode_query
from models.incidents.query import encode as encode_answer
from models.incidents.views import answer
from models.metrics import Meter
from models.metrics import encode as encode_metrics
from models.partition.frames import Frame, encode_frame
from models.partition.sharding import slot_of_id
from models.ports import Archive as ArchivePort
from models.ports import Clock, EventLog, Tracer
from models.shard.assembly import decode_message
from models.shard.effects import Effect
from models.shard.events import ActionFailed, ArchiveExpired, ClockSetBack, ShardStarted
from models.shard.messages import (
    ActionOutcome,
    AlertsArrived,
    AlertsReply,
    Command,
    CommandDone,
    Decision,
    Done,
    Failed,
    GapEnded,
    Message,
    Reply,
    Tick,
    encode,
)
from models.shard.notifications import Notifications
from models.shard.settings import ShardSettings
from models.shard.shard import Shard, Step

log = structlog.get_logger()

#: Alerts the inbox holds; at 100,000 alerts a second two seconds' worth. Beyond that a call is refused as Busy.
INBOX_ALERTS_MAX = 200_000
#: Alerts decided before an append: about 30 ms of work, so that a full inbox does not mean one long wait.
GROUP_ALERTS_MAX = 16_384
#: Reads that wait: at 10 ms a page ten seconds' worth, past any reader's patience.
READS_MAX = 1000
#: Reads answered between two groups of messages: a page takes up to 10 ms.
READS_BETWEEN = 2
#: How often deadlines are looked at: half of the lateness a person would notice in a page.
TICK_S = 0.1
#: No beat and no alert for this long is a reception gap: five missed beats of a gateway.
DEAF_AFTER_S = 5.0
#: If a shard's time is this far ahead of its clock, its next tick will not have corrected it: health reports it.
FAR_AHEAD_S = 30.0
LEASE_S = 10.0
#: Waits between attempts at a failed effect, and at a failed recovery.
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0
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
    snapshot_every_bytes: int = 64 * 1024 * 1024
    snapshot_every_s: float = 300.0
    dedup_window_s: float = 600.0


@dataclass(slots=True)
class _Call:
    """One tell(): its replies as they arrive, and the caller waiting for them."""

    replies: list[bytes]
    missing: int
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Told:
    message: Message
    alerts: int
    call: _Call | None = None
    place: int = 0


@dataclass(slots=True)
class _Counted:
    """What the log holds, in numbers. The state itself is ahead of it while an append is under way, and after one that failed
    until it is recovered."""

    seq: int = 0
    incidents: int = 0
    series: int = 0
    given_up: int = 0
    decided: Sequence[int] = (0,) * (max(Decision) + 1)


class IncidentShard:
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
        self.host = host
        self.options = options
        self.settings = settings
        self.event_log = event_log
        self.archive = archive
        self.deliveries = deliveries
        self.clock = clock
        self.control = control
        self.tracer = tracer or NoTracer()
        self.traces = Traces(self.tracer, options.partition)
        self.shard = Shard(options.partition, settings)
        self.counted = _Counted()
        self.meter = Meter(host.name, partition=options.partition)
        self.log = log.bind(actor=host.name, partition=options.partition)
        self._ready = False
        self._readable = False
        self._why_not = "starting"
        self._stopping = False
        self._epoch = 0
        self._digest = b""
        self._frames_since_collect = 0
        self._inbox: deque[_Told] = deque()
        self._inbox_alerts = 0
        self._reads: deque[tuple[bytes, asyncio.Future[bytes]]] = deque()
        self.errands = Errands(
            host.name,
            host.peers,
            archive,
            self.meter,
            classifiers=options.classifiers,
            responders=options.responders,
            replace=host.replace,
            shard_of=self._shard_of,
            settled=self._settled,
            answered=self._take_answer,
            undelivered=self._ask_again,
        )
        self.snapshots = Snapshots(
            event_log,
            self.meter,
            clock,
            self.log,
            self._background_over,
            every_frames=options.snapshot_every_frames,
            every_bytes=options.snapshot_every_bytes,
            every_s=options.snapshot_every_s,
        )
        #: Set while the log holds all of the state: not during an append, nor after a failed one.
        self._is_settled = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._heard_at = 0.0
        self._last_at = 0.0
        self._tick_waits = False
        self._decided_told: dict[Decision, int] = {}

    # -- what others call ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin recovery and the loop. Calls raise Unavailable until the log is replayed."""
        self._spawn(self._live())

    async def stop(self) -> None:
        """Finish the current group, release the lease, close the files."""
        if self._stopping:
            return
        self._stopping = True
        self._wake.set()
        await end(self._tasks)
        await self.snapshots.stop()
        await self.errands.stop()
        self._fail_waiting("stopping")
        if self._epoch:
            with contextlib.suppress(Unavailable):  # the store is down: the lease runs out by itself
                await self.event_log.release(self._epoch)
        await self.event_log.close()
        await self.archive.close()
        await self.deliveries.close()
        if self.control is not None:
            await self.control.close()
        await self.tracer.close()

    async def tell(self, payload: bytes) -> bytes:
        """Messages (a MessagePack list of encoded messages) -> their replies, in order, once durable.

        A message that can't be read fails alone. Raises Unavailable while recovering, Busy when the inbox is full.
        """
        self._check_ready()
        self._heard_at = self.clock.monotonic()
        encoded = _list_decoder.decode(payload)
        call = _Call([b""] * len(encoded), 0, asyncio.get_running_loop().create_future())
        told = []
        for place, item in enumerate(encoded):
            try:
                message = decode_message(item)
            except msgspec.MsgspecError as error:
                call.replies[place] = encode(Failed("Malformed", f"message can't be read: {error}"))
                continue
            alerts = len(message.keys) if isinstance(message, AlertsArrived) else 1
            told.append(_Told(message, alerts, call, place))
        alerts = sum(each.alerts for each in told)
        if self._inbox_alerts and self._inbox_alerts + alerts > INBOX_ALERTS_MAX:
            self.meter.count("llm_im_requests_refused_total", door="shard", reason="busy")
            raise Busy(
                f"{self.options.partition}: {self._inbox_alerts} alerts are waiting already",
                retry_after_s=1.0,
            )
        call.missing = len(told)
        if told:
            self._inbox.extend(told)
            self._inbox_alerts += alerts
            self._wake.set()
            await call.done
        return _list_encoder.encode(call.replies)

    async def ask(self, payload: bytes) -> bytes:
        """A query -> its answer, about durable state only. Raises Unavailable while recovering, Busy past READS_MAX."""
        if not self._ready and self._readable:
            # The log was replayed but can't be written (its disk is full): what was stored can still be read.
            try:
                query = decode_query(payload)
            except msgspec.MsgspecError as error:
                raise Unavailable(f"query failed: {error}") from None
            if not isinstance(query, Probe):
                return encode_answer(answer(self.shard, query))
        self._check_ready()
        if len(self._reads) >= READS_MAX:
            raise Busy(
                f"{self.options.partition}: {len(self._reads)} reads are waiting already", retry_after_s=1.0
            )
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

    # -- the loop ------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Recover, work, and on a failed append begin again, until stopped, fenced or damaged."""
        wait_s = RETRY_FIRST_S
        while not self._stopping:
            try:
                await self._recover()
                wait_s = RETRY_FIRST_S
                try:
                    await self._work()
                finally:
                    self._readable = False
            except Fenced as error:
                self._why_not = str(error)
                self._fail_waiting(self._why_not)
                self.log.error("fenced: another writer has the partition", why=str(error))
                self.host.fatal(str(error))
                return
            except Damaged as error:
                self._why_not = str(error)
                self._fail_waiting(self._why_not)
                self.log.error(
                    "log damaged: this shard stops, the others keep running", why=str(error), seq=error.seq
                )
                return
            except NotOwner as error:
                self._readable = False  # by now the other one knows more
                self._why_not = str(error)
                await asyncio.sleep(RETRY_MAX_S if wait_s > RETRY_MAX_S else wait_s)
            except Unavailable as error:
                self._why_not = f"store: {error}"
                self.log.warning("append failed, recovering from the log", why=str(error))
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # A bug. The state may be half changed: nothing may be answered from it.
                self._why_not = f"bug: {error!r}"
                self._fail_waiting(self._why_not)
                self.log.exception("shard crashed")
                self.host.fatal(repr(error))
                return
            self._fail_waiting(self._why_not)
            await asyncio.sleep(wait_s)
            wait_s = min(RETRY_MAX_S, wait_s * 2)

    async def _recover(self) -> None:
        self._ready = False
        begun = self.clock.monotonic()
        if self.control is not None:
            # Settings changed while we were away hold from the first decision on.
            await self.control.catch_up()
            await refuse_lost(self.event_log, self.control.state)
        try:
            opened = await self.event_log.open(self.host.name, self.clock.now(), LEASE_S)
        except Full:
            await self._read_only()
            raise
        if opened.cut:
            self.meter.count("llm_im_log_cuts_total")
            self.log.warning("torn tail cut off the log", what=opened.cut)
        self._epoch = opened.epoch
        gc.disable()
        self.deliveries.recovering()
        folded = await fold(self.event_log, self.settings, self._replayed)
        if folded.seq > opened.last_seq:
            # The lease ran out in a long recovery. Not damage, or somebody would restore a backup.
            raise Fenced(f"{self.options.partition}: another writer appended while this one recovered")
        if folded.seq != opened.last_seq:
            raise Damaged(
                self.options.partition,
                opened.last_seq,
                f"what can be read ends at seq {folded.seq} before it",
            )
        shard = folded.shard
        await self.deliveries.recovered(self.clock.now())
        shard.epoch = self._epoch
        self._take_state(shard)
        self._digest = folded.digest
        self.snapshots.begin_anew()
        self.errands.begin_anew()
        self._last_at = self.clock.now()
        step = shard.started(self.host.name, self._last_at)
        self._tell_set_back(step)
        # What is decided here, such as corrected times or dropped notifications, is not in the log yet: nobody may read
        # it.
        self._readable = all(isinstance(event, ShardStarted | ArchiveExpired) for event in step.events)
        try:
            await self._append([self._frame(step, "default", None)])
        except Full:
            await self._read_only()
            raise
        self._count()
        gc.collect()
        gc.freeze()
        self._heard_at = self.clock.monotonic()
        self._ready = True
        self._why_not = ""
        took_s = self.clock.monotonic() - begun
        self.meter.count("llm_im_recoveries_total")
        self.meter.set("llm_im_recovery_seconds", took_s)
        self.log.info(
            "recovered",
            epoch=self._epoch,
            seq=shard.seq,
            frames_replayed=folded.frames,
            incidents=len(shard.state.incidents),
            series=len(shard.state.series),
            seconds=round(took_s, 3),
        )
        self.errands.owe(step.effects)

    async def _read_only(self) -> None:
        """A full disk can't even take the record that we own the log, but what was stored can still be read."""
        if not self._readable:
            self._take_state((await fold(self.event_log, self.settings)).shard)

    def _take_state(self, shard: Shard) -> None:
        """From now on this is the state: all of it is in the log."""
        self._tell_decided()
        self.shard = shard
        self._is_settled.set()
        self._decided_told = {}
        self._count()
        self._readable = True

    def _count(self) -> None:
        shard = self.shard
        self.counted = _Counted(
            shard.seq,
            shard.state.open_count,
            len(shard.state.series.firing),
            len(shard.of(Notifications).given_up),
            shard.state.decided[:],
        )

    def _replayed(self, frame: Frame) -> None:
        for event in frame.events:
            self.deliveries.replayed(event, frame.now)

    async def _work(self) -> None:
        background = [
            self._spawn(self._ticker()),
            self._spawn(self._renewer()),
            self._spawn(self._sweeper()),
            self._spawn(self._follower()),
        ]
        for task in background:
            task.add_done_callback(self._background_over)
        try:
            while True:
                if not self._inbox and not self._reads and not self.shard.checkpoint.is_running:
                    self._wake.clear()
                    await self._wake.wait()
                begun = self.clock.monotonic()
                await self._commit_group()
                for _ in range(READS_BETWEEN):
                    if self._reads:
                        self._answer_read()
                sliced = self.clock.monotonic()
                await self.snapshots.write_slice(self.shard, self._epoch, self._digest)
                now = self.clock.monotonic()
                self.meter.observe("llm_im_snapshot_slice_seconds", now - sliced)
                self.meter.observe("llm_im_round_seconds", now - begun)
                # A coroutine that only computes starves the others: let tell() run.
                await asyncio.sleep(0)
        finally:
            for task in background:
                task.cancel()
            self._tasks = [task for task in self._tasks if task not in background]

    def _background_over(self, task: asyncio.Task[None]) -> None:
        # A shard whose deadlines have silently stopped is worse than one that restarts.
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("bug: background task ended", why=repr(error))
            self.host.fatal(repr(error))

    async def _commit_group(self) -> None:
        group: list[tuple[_Told, Step]] = []
        frames: list[bytes] = []
        deliveries: list[tuple[str, float, bytes]] = []
        # What arrives during this look-up belongs to the next group: its delivery ids were not looked up.
        looked_up = [told.message for told in self._inbox]
        await self.deliveries.look_up(looked_up)
        messages = len(looked_up)
        since = self.clock.now()
        try:
            await self._commit(messages, group, frames, deliveries)
        except BaseException as error:
            # Nothing in this group may be reported as done; the senders repeat it with the same call_id.
            for told, _step in group:
                if told.call is not None and not told.call.done.done():
                    told.call.done.set_exception(
                        Unavailable(f"{self.options.partition}: not stored: {error}")
                    )
            raise
        for told, step in group:
            self._reply(told, step.reply)
            if isinstance(told.message, ActionOutcome):
                self._tell_given_up(step)
            self.traces.durable(told.message, step, since)
            self.errands.owe(self.traces.on(step.effects))

    async def _commit(
        self,
        messages: int,
        group: list[tuple[_Told, Step]],
        frames: list[bytes],
        deliveries: list[tuple[str, float, bytes]],
    ) -> None:
        alerts = 0
        while len(group) < messages and alerts < GROUP_ALERTS_MAX:
            told = self._inbox.popleft()
            self._inbox_alerts -= told.alerts
            message = told.message
            if (silence := self._unheard()) is not None:
                # Process the gap right before this message: no silence during it may count as an end.
                self._inbox.appendleft(told)
                self._inbox_alerts += told.alerts
                told, message, messages = _Told(silence, 1), silence, messages + 1
            tenant = "default"
            if isinstance(message, AlertsArrived):
                alerts += told.alerts
                message = self.deliveries.mark(message)
                tenant = message.tenant
                self.meter.count("llm_im_alerts_received_total", told.alerts, door=message.door)
            elif isinstance(message, Tick):
                self._tick_waits = False
            elif isinstance(message, Command):
                message = self.deliveries.mark(message)
                tenant = message.tenant
                self.meter.count("llm_im_commands_total", verb=type(message.verb).__name__.lower())
            group.append((told, _NOTHING))
            self.shard.seq += 1
            self.shard.trace_id = trace_id = self.traces.id_of(message)
            step = self.shard.handle(message, self.clock.now())
            self.shard.seq -= 1
            self._tell_set_back(step)
            if step.events:
                frames.append(self._frame(step, tenant, trace_id))
                if (
                    isinstance(message, AlertsArrived | Command)
                    and message.delivery_id
                    and isinstance(step.reply, AlertsReply | CommandDone)
                    and step.reply.content  # otherwise part of it was refused, and must be sent again
                ):
                    entry = (message.delivery_id, self.shard.now, encode(step.reply))
                    deliveries.append(entry)
                    self.deliveries.answered(entry)
            group[-1] = (told, step)
        if frames:
            begun = self.clock.monotonic()
            await self._append(frames)
        self._count()
        if frames:
            if deliveries:
                await self.deliveries.add(deliveries)
            self.meter.observe("llm_im_append_seconds", self.clock.monotonic() - begun)
            self.meter.observe("llm_im_append_frames", len(frames))
            if alerts:
                self.meter.observe("llm_im_ingest_batch_size", alerts)
            self._frames_since_collect += len(frames)
            if self._frames_since_collect >= COLLECT_EVERY_FRAMES:
                self._frames_since_collect = 0
                gc.collect(0)

    def _tell_given_up(self, step: Step) -> None:
        """No further attempt will be made, so somebody must act."""
        for event in step.events:
            if isinstance(event, ActionFailed) and not event.retry_at and not event.overtaken:
                self.log.error(
                    "notification given up",
                    incident_id=str(UUID(bytes=event.incident_id)),
                    reason=event.reason,
                    tries=event.attempt + 1,
                    why=event.detail,
                )

    def _unheard(self) -> GapEnded | None:
        """The gap to report before a message, if time passed without hearing anybody: a store hung, this process stood
        still, or the clock was set forward. What senders sent meanwhile is queued behind the message that would end
        their series."""
        before, self._last_at = self._last_at, self.clock.now()
        unheard_s = self._last_at - before
        if unheard_s <= DEAF_AFTER_S:
            return None
        self.log.warning(
            "reception gap: process or store stood still, nothing expires for now",
            seconds=round(unheard_s, 1),
        )
        self.meter.count("llm_im_deaf_seconds_total", unheard_s)
        return GapEnded(before, "a store hung, the process stood still, or the clock was put forward")

    def _tell_set_back(self, step: Step) -> bool:
        """Log it if a step corrected what a clock that was ahead had done. Returns whether it did."""
        event = step.events[0] if step.events else None
        if isinstance(event, ClockSetBack):
            self.meter.count("llm_im_clock_set_back_total")
            self.log.error(
                "clock was ahead and has been set back, deadlines corrected: check the time server",
                seconds=round(event.before - event.after, 1),
                false=rfc3339(event.before),
            )
        return isinstance(event, ClockSetBack)

    @property
    def _ahead_s(self) -> float:
        """How far the shard's time is ahead of its clock."""
        return max(0.0, self.shard.now - self.clock.now())

    def _frame(self, step: Step, tenant: str, trace_id: str | None) -> bytes:
        self.shard.seq += 1
        stored, self._digest = encode_frame(
            self.shard.seq, self.shard.now, tenant, trace_id, step.events, self._digest
        )
        return stored

    async def _append(self, frames: Sequence[bytes]) -> None:
        first_seq = self.shard.seq - len(frames) + 1
        self._is_settled.clear()
        await self.event_log.append(self._epoch, first_seq, frames)
        self._is_settled.set()
        size = sum(map(len, frames))
        self.meter.count("llm_im_log_bytes_total", size)
        self.snapshots.appended(len(frames), size)

    def _reply(self, told: _Told, reply: Reply) -> None:
        call = told.call
        if call is None:
            return
        call.replies[told.place] = encode(reply)
        call.missing -= 1
        if call.missing == 0 and not call.done.done():
            call.done.set_result(None)

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
                f"{self.options.partition} is {self._ahead_s:.0f} s ahead of its clock: nothing becomes due before the clock catches up"
            )
        return encode_answer(answer(self.shard, query))

    def _check_ready(self) -> None:
        if not self._ready:
            raise Unavailable(f"{self.options.partition} is not ready: {self._why_not}")

    def _fail_waiting(self, why: str) -> None:
        """Nothing that waits was made durable: fail all of it. Senders repeat it with the same call_id."""
        self._ready = False
        error = Unavailable(f"{self.options.partition}: {why}")
        while self._inbox:
            told = self._inbox.popleft()
            if told.call is not None and not told.call.done.done():
                told.call.done.set_exception(error)
        self._inbox_alerts = 0
        self._tick_waits = False
        while self._reads:
            _payload, future = self._reads.popleft()
            if not future.done():
                future.set_exception(error)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        return task

    def _tell_self(self, message: Message) -> None:
        self._inbox.append(_Told(message, 1))
        self._inbox_alerts += 1
        self._wake.set()

    async def _settled(self) -> Shard:
        """The state at a moment when the log holds all of it; valid until the caller's next await."""
        while not self._is_settled.is_set():
            await self._is_settled.wait()
        return self.shard

    def _take_answer(self, message: Message) -> None:
        # A state that is not ready yet asks again itself.
        if self._ready:
            self._tell_self(message)

    def _shard_of(self, incident_id: bytes) -> str:
        """The actor that has an incident now, by the control partition's slot map."""
        slots = None if self.control is None else self.control.state.slots
        if slots is None:
            raise Unavailable(f"{self.options.partition} has not read the slot map yet")
        return self.options.shards[slots.owners[slot_of_id(incident_id)]]

    def _ask_again(self, effect: Effect) -> None:
        self.shard.ask_again(effect)

    # -- time ----------------------------------------------------------------------------------------------

    async def _ticker(self) -> None:
        deaf_since = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            silent_s = self.clock.monotonic() - self._heard_at
            deaf = silent_s > DEAF_AFTER_S
            if deaf and not deaf_since:
                deaf_since = self.clock.now() - silent_s
                self.log.warning(
                    "reception gap: no gateway calls, nothing expires for now", seconds=round(silent_s, 1)
                )
            elif deaf_since and not deaf:
                self.meter.count("llm_im_deaf_seconds_total", max(0.0, self.clock.now() - deaf_since))
                self._tell_self(GapEnded(deaf_since, "no gateway called"))
                deaf_since = 0.0
            if not self._tick_waits:
                self._tick_waits = True
                self._tell_self(Tick(deaf))

    async def _renewer(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            try:
                await self.event_log.renew(self._epoch, self.clock.now() + LEASE_S)
            except Fenced as error:
                self.log.error("fenced while renewing the lease", why=str(error))
                self.host.fatal(str(error))
                return
            except Unavailable as error:
                self.log.warning("lease not renewed", why=str(error))

    async def _sweeper(self) -> None:
        while True:
            # At once, not after SWEEP_S: the first write brings files of an older version up to date.
            now, shard = self.clock.now(), self.shard
            # None while the clock may be ahead: all of them would seem older than the window.
            is_calm = shard.state.no_expiry_before <= now <= shard.now + DEAF_AFTER_S
            try:
                await self.deliveries.sweep(now if is_calm else 0.0)
            except Unavailable as error:
                self.log.warning("sweep failed, will be retried", why=str(error))
            await asyncio.sleep(SWEEP_S)

    async def _follower(self) -> None:
        if self.control is not None:
            await self.control.keep_up()

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
        counted, meter = self.counted, self.meter
        decided = counted.decided
        total = sum(decided)
        repeats = decided[Decision.REPEATED] + decided[Decision.DUPLICATE]
        meter.set("llm_im_dedup_ratio", repeats / total if total else 0.0)
        meter.set("incident_processing_queue_depth", self._inbox_alerts)
        meter.set("llm_im_effects_waiting", self.errands.waiting)
        meter.set("llm_im_open_incidents", counted.incidents)
        meter.set("llm_im_open_series", counted.series)
        meter.set("llm_im_notifications_given_up", counted.given_up)
        room = self.shard.state.series.room
        meter.set("llm_im_shard_bytes", room.held)
        meter.set("llm_im_shard_bytes_max", self.shard.settings.max_bytes)
        meter.set("llm_im_sender_bytes", max(room.by_sender.values(), default=0))
        meter.set("llm_im_shard_ready", float(self._ready))
        meter.set("llm_im_clock_ahead_seconds", self._ahead_s)
        if self.control is not None:
            meter.set("llm_im_control_version", self.control.state.slot_version)


_NOTHING = Step([], [], Done())
_list_decoder = msgspec.msgpack.Decoder(list[bytes])
_list_encoder = msgspec.msgpack.Encoder()
_encoder = msgspec.msgpack.Encoder()
_json_encoder = msgspec.json.Encoder()
