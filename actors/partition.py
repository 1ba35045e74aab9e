"""The single writer of one partition, for any machine (models/partition/machine.py). actors/shard.py and actors/control.py say
what is special about theirs.

One loop commits: while an append is in flight the next messages gather; then each is decided and applied in turn, one
append holds the frames of all, and only then replies, effects and reads may leave. A lone message waits for nobody;
under load groups grow by themselves.

    submit() -> inbox --> decide+apply each --> log.append (one) --> replies, effects, reads --> a snapshot slice
                ^                                |
                |                                +-- fails: forget all state, recover from the log
      ticks, answers to effects

State that is ahead of the log is never seen: when an append fails or its outcome is unknown, the state is thrown away
and rebuilt from the log, in place; meanwhile calls raise Unavailable. When another writer took the partition (Fenced),
the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from actors.folding import Folded, fold
from actors.runtime.ending import end
from actors.runtime.host import Host
from actors.snapshots import Pace, Snapshots
from models.errors import Damaged, Fenced, Full, NotOwner, Unavailable
from models.metrics import Meter
from models.partition.event import Event
from models.partition.frames import EVERYONE, Frame, encode_frame
from models.partition.machine import Machine, Step
from models.ports import Clock, EventLog

log = structlog.get_logger()

LEASE_S = 10.0
#: Between tries while another writer has the lease: one that was killed leaves it for LEASE_S, and the partition waits.
LEASE_RETRY_S = 1.0
#: How often deadlines are looked at: half of the lateness a person would notice in a page.
TICK_S = 0.1
#: Waits between tries of a recovery that failed, and of an effect that could not be delivered.
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0

M = TypeVar("M", bound=Machine[Any, Any])
Message = TypeVar("Message")
Reply = TypeVar("Reply")


@dataclass(slots=True)
class Call(Generic[Reply]):
    """Several messages of one caller: their replies as they come, and who waits for them."""

    replies: list[Reply | None]
    missing: int
    done: asyncio.Future[None]


@dataclass(slots=True)
class Queued(Generic[Message, Reply]):
    """A message that waits for its turn. `weight` is what it counts in the inbox and in a group."""

    message: Message
    weight: int = 1
    call: Call[Reply] | None = None
    place: int = 0


class PartitionActor(Generic[M, Message, Reply]):
    """See the top of this file. What a subclass may say otherwise stands under "what kinds differ in"."""

    #: The weight decided before an append: for a shard about 30 ms of work, so that a full inbox is not one long silence.
    group_max = 16_384
    tick_s = TICK_S

    def __init__(
        self, host: Host, partition: str, machine: M, event_log: EventLog, clock: Clock, pace: Pace
    ) -> None:
        """`machine` is an empty one: what it knows is read from the log."""
        self.host = host
        self.partition = partition
        self.machine = machine
        self.event_log = event_log
        self.clock = clock
        self.meter = Meter(host.name, partition=partition)
        self.log = log.bind(actor=host.name, partition=partition)
        self.snapshots = Snapshots(event_log, self.meter, clock, self.log, self._background_over, pace)
        self._ready = False
        #: The log was replayed but can't be written (its disk is full): what was stored can still be read.
        self._readable = False
        self._why_not = "starting"
        self._stopping = False
        self._epoch = 0
        self._digest = b""
        self._inbox: deque[Queued[Message, Reply]] = deque()
        self._inbox_weight = 0
        self._tick: Message | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        #: Set while the log holds all of the state: not during an append, nor after a failed one.
        self._is_settled = asyncio.Event()

    # -- what others call ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin recovery and the loop. Calls raise Unavailable until the log is replayed."""
        self._spawn(self._live())

    async def stop(self) -> None:
        """Finish the group under way, give the lease up, close what was opened."""
        if self._stopping:
            return
        self._stopping = True
        self._wake.set()
        await end(self._tasks)
        await self.snapshots.stop()
        await self._let_go()
        self._fail_waiting("stopping")
        if self._epoch:
            with contextlib.suppress(Unavailable):  # the store is down: the lease runs out by itself
                await self.event_log.release(self._epoch)
        await self.event_log.close()
        await self._close()

    async def submit(self, call: Call[Reply], told: Sequence[Queued[Message, Reply]]) -> None:
        """Put messages into the inbox; returns when all are durable and their replies stand in `call`. Raises Unavailable
        when nothing of it is known to be stored."""
        call.missing = len(told)
        if told:
            self._inbox.extend(told)
            self._inbox_weight += sum(each.weight for each in told)
            self._wake.set()
            await call.done

    # -- what kinds differ in ------------------------------------------------------------------------------

    def _empty(self) -> M:
        """A machine that knows nothing, for a recovery."""
        raise NotImplementedError

    def _make_tick(self) -> Message | None:
        """What to tell the machine now that time went by; None to leave it."""
        return None

    async def _before_opening(self) -> None:
        """Look whether the log may be opened. Raises what keeps it closed."""

    def _before_replay(self) -> None: ...

    def _replayed(self, frame: Frame) -> None: ...

    async def _after_replay(self) -> None:
        """The log was read, and nothing is decided yet."""

    def _started(self, folded: Folded[M], step: Step[Reply]) -> None:
        """A recovery is over and its first step durable: ask for what is owed."""

    async def _before_group(self, messages: Sequence[Message]) -> None:
        """Ask the world what deciding these needs. What arrives meanwhile belongs to the next group."""

    def _first(self) -> Message | None:
        """What must be told before the next message."""
        return None

    def _prepared(self, told: Queued[Message, Reply]) -> Message:
        """The message as the machine gets it."""
        return told.message

    def _trace_id(self, message: Message) -> str | None:
        return None

    def _decided(self, message: Message | None, step: Step[Reply]) -> None:
        """A step was made, which is not durable yet; the first one after a recovery has no message."""

    def _by_tenant(self, message: Message | None, step: Step[Reply]) -> Iterable[tuple[str, Sequence[Event]]]:
        """The events of a step as they go into frames: whose, and which. `message` is None for the first step after a
        recovery. After each of these frames the state must be one that could have been."""
        return ((EVERYONE, step.events),)

    def _count(self) -> None:
        """The state is what the log holds: take what may be told of it at any time."""

    async def _appended(
        self, group: Sequence[tuple[Queued[Message, Reply], Step[Reply]]], frames: int
    ) -> None:
        """A group is in the log, and nobody was told yet."""

    def _durable(self, told: Queued[Message, Reply], step: Step[Reply], since: float) -> None:
        """This step is in the log and was answered: its effects may leave. `since` is when its group began."""

    async def _between_groups(self) -> None:
        """Answer what may be answered from durable state, a bounded stretch."""

    def _waits(self) -> bool:
        """Whether anything but a message is waited for."""
        return False

    def _background(self) -> Sequence[Coroutine[None, None, None]]:
        """Work beside the loop, while this is the writer. Must end by no bug."""
        return ()

    def _gave_up(self, why: Exception) -> None:
        """What waits for anything but a message fails by this."""

    async def _let_go(self) -> None:
        """The loop is over: end what goes on beside it."""

    async def _close(self) -> None:
        """Close what was opened, but for the log."""

    def _sizes(self) -> dict[str, int]:
        """What a recovered state holds, for the log."""
        return {}

    def _shows_what_is_stored(self, step: Step[Reply]) -> bool:
        """Whether the state is all in the log though this first step is not."""
        return not step.events

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
                self._fail_waiting(str(error))
                self.log.error("fenced: another writer has the partition", why=str(error))
                self.host.fatal(str(error))
                return
            except Damaged as error:
                # Starting again would find the same damage.
                self._fail_waiting(str(error))
                self.log.error(
                    "log damaged: this partition stops, the others keep running",
                    why=str(error),
                    seq=error.seq,
                )
                return
            except NotOwner as error:
                self._readable = False  # by now the other one knows more
                self._why_not = str(error)
                wait_s = min(wait_s, LEASE_RETRY_S)
            except Unavailable as error:
                self._why_not = f"store: {error}"
                self.log.warning("append failed, recovering from the log", why=str(error))
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # A bug. The state may be half changed: nothing may be answered from it.
                self._fail_waiting(f"bug: {error!r}")
                self.log.exception("bug: partition writer crashed")
                self.host.fatal(repr(error))
                return
            self._fail_waiting(self._why_not)
            await asyncio.sleep(wait_s)
            wait_s = min(RETRY_MAX_S, wait_s * 2)

    async def _recover(self) -> None:
        self._ready = False
        begun = self.clock.monotonic()
        await self._before_opening()
        try:
            opened = await self.event_log.open(self.host.name, self.clock.now(), LEASE_S)
        except Full:
            await self._read_only()
            raise
        if opened.cut:
            self.meter.count("llm_im_log_cuts_total")
            self.log.warning("torn tail cut off the log", what=opened.cut)
        self._epoch = opened.epoch
        self._before_replay()
        folded = await fold(self.event_log, self._empty, self._replayed)
        if folded.seq > opened.last_seq:
            # The lease ran out in a long recovery. Not damage, or somebody would restore a backup.
            raise Fenced(f"{self.partition}: another writer appended while this one recovered")
        if folded.seq != opened.last_seq:
            raise Damaged(
                self.partition, opened.last_seq, f"what can be read ends at seq {folded.seq} before it"
            )
        await self._after_replay()
        folded.machine.epoch = self._epoch
        self._take_state(folded.machine)
        self._digest = folded.digest
        self.snapshots.begin_anew()
        step = self.machine.started(self.host.name, self.clock.now())
        self._decided(None, step)
        self._readable = self._shows_what_is_stored(step)
        if step.events:
            try:
                await self._append(self._frames(None, step, None))
            except Full:
                await self._read_only()
                raise
        self._started(folded, step)
        self._count()
        self._ready = True
        self._why_not = ""
        took_s = self.clock.monotonic() - begun
        self.meter.count("llm_im_recoveries_total")
        self.meter.set("llm_im_recovery_seconds", took_s)
        self.log.info(
            "recovered",
            epoch=self._epoch,
            seq=self.machine.seq,
            frames_replayed=folded.frames,
            **self._sizes(),
            seconds=round(took_s, 3),
        )

    async def _read_only(self) -> None:
        """A full disk can't even take the record that we own the log, but what was stored can still be read."""
        if not self._readable:
            self._take_state((await fold(self.event_log, self._empty)).machine)

    def _take_state(self, machine: M) -> None:
        """From now on this is the state: all of it is in the log."""
        self.machine = machine
        self._is_settled.set()
        self._count()
        self._readable = True

    async def _work(self) -> None:
        background = [self._spawn(work) for work in (self._ticker(), self._renewer(), *self._background())]
        for task in background:
            task.add_done_callback(self._background_over)
        try:
            while True:
                if not self._inbox and not self._waits() and not self.machine.checkpoint.is_running:
                    self._wake.clear()
                    await self._wake.wait()
                begun = self.clock.monotonic()
                await self._commit_group()
                await self._between_groups()
                sliced = self.clock.monotonic()
                await self.snapshots.write_slice(self.machine, self._epoch, self._digest)
                now = self.clock.monotonic()
                self.meter.observe("llm_im_snapshot_slice_seconds", now - sliced)
                self.meter.observe("llm_im_round_seconds", now - begun)
                # A coroutine that only computes starves the others: let callers in.
                await asyncio.sleep(0)
        finally:
            for task in background:
                task.cancel()
            self._tasks = [task for task in self._tasks if task not in background]

    def _background_over(self, task: asyncio.Task[None]) -> None:
        # A partition whose deadlines have silently stopped is worse than one that starts again.
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("bug: background task ended", why=repr(error))
            self.host.fatal(repr(error))

    async def _commit_group(self) -> None:
        group: list[tuple[Queued[Message, Reply], Step[Reply]]] = []
        messages = [told.message for told in self._inbox]
        await self._before_group(messages)
        since = self.clock.now()
        under_way: list[Queued[Message, Reply]] = []
        try:
            await self._commit(len(messages), under_way, group)
        except BaseException as error:
            # Nothing of this group may be told as done; the senders ask again, by the same call id.
            for told in under_way:
                if told.call is not None and not told.call.done.done():
                    told.call.done.set_exception(Unavailable(f"{self.partition}: not stored: {error}"))
            raise
        for told, step in group:
            self._reply(told, step.reply)
            self._durable(told, step, since)

    async def _commit(
        self,
        messages: int,
        under_way: list[Queued[Message, Reply]],
        group: list[tuple[Queued[Message, Reply], Step[Reply]]],
    ) -> None:
        frames: list[bytes] = []
        told: Queued[Message, Reply]
        machine, weight = self.machine, 0
        while len(under_way) < messages and weight < self.group_max:
            if (first := self._first()) is not None:
                # Right before the next message, which would otherwise be decided about as if nothing had been.
                told, messages = Queued(first), messages + 1
            else:
                told = self._inbox.popleft()
                self._inbox_weight -= told.weight
                if told.message is self._tick:
                    self._tick = None
            weight += told.weight
            under_way.append(told)
            message = self._prepared(told)
            machine.seq += 1
            machine.trace_id = trace_id = self._trace_id(message)
            step = machine.handle(message, self.clock.now())
            machine.seq -= 1
            self._decided(message, step)
            if step.events:
                frames += self._frames(message, step, trace_id)
            group.append((told, step))
        if frames:
            begun = self.clock.monotonic()
            await self._append(frames)
            self._count()
            await self._appended(group, len(frames))
            self.meter.observe("llm_im_append_seconds", self.clock.monotonic() - begun)
            self.meter.observe("llm_im_append_frames", len(frames))
        else:
            self._count()

    def _frames(self, message: Message | None, step: Step[Reply], trace_id: str | None) -> list[bytes]:
        """The frames of a step: one append takes all of them."""
        return [self._frame(tenant, events, trace_id) for tenant, events in self._by_tenant(message, step)]

    def _frame(self, tenant: str, events: Sequence[Event], trace_id: str | None) -> bytes:
        machine = self.machine
        machine.seq += 1
        self.snapshots.decided(len(events))
        stored, self._digest = encode_frame(machine.seq, machine.now, tenant, trace_id, events, self._digest)
        return stored

    async def _append(self, frames: Sequence[bytes]) -> None:
        first_seq = self.machine.seq - len(frames) + 1
        self._is_settled.clear()
        await self.event_log.append(self._epoch, first_seq, frames)
        self._is_settled.set()
        size = sum(map(len, frames))
        self.meter.count("llm_im_log_bytes_total", size)
        self.snapshots.appended(len(frames), size)

    def _reply(self, told: Queued[Message, Reply], reply: Reply) -> None:
        call = told.call
        if call is None:
            return
        call.replies[told.place] = reply
        call.missing -= 1
        if call.missing == 0 and not call.done.done():
            call.done.set_result(None)

    def _check_ready(self) -> None:
        if not self._ready:
            raise Unavailable(f"{self.partition} is not ready: {self._why_not}")

    def _fail_waiting(self, why: str) -> None:
        """Nothing that waits was made durable: say so to all of it. Senders ask again, by the same call id."""
        self._ready = False
        self._why_not = why
        error = Unavailable(f"{self.partition}: {why}")
        while self._inbox:
            told = self._inbox.popleft()
            if told.call is not None and not told.call.done.done():
                told.call.done.set_exception(error)
        self._inbox_weight = 0
        self._tick = None
        self._gave_up(error)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        return task

    async def settled(self) -> M:
        """The state at a moment when the log holds all of it; valid until the caller's next await."""
        while not self._is_settled.is_set():
            await self._is_settled.wait()
        return self.machine

    def _tell_self(self, message: Message) -> None:
        self._inbox.append(Queued(message))
        self._inbox_weight += 1
        self._wake.set()

    # -- time ----------------------------------------------------------------------------------------------

    async def _ticker(self) -> None:
        while True:
            await asyncio.sleep(self.tick_s)
            tick = self._make_tick()
            if self._tick is None and tick is not None:
                self._tick = tick
                self._tell_self(tick)

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
