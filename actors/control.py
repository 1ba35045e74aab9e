"""The control partition's writer (actors/partition.py): slot map, API tokens, settings changed while it runs, and whatever else is
a section of it (models/control/assembly.py).

Shards and gateways do not call it: they follow its log (actors/control_tail.py), so they work without it. Only changes
are sent to it. `llm-im tokens --local` runs one of these for a moment where no system runs.

What is special about it: a change that is refused raises, it hands changed settings on in its own process, keeps the gateways'
reports, and notes which partitions have begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence

import msgspec

from actors.begun import Kept, has_begun, held, lost_control
from actors.control_tail import SettingsWatch
from actors.folding import Folded
from actors.partition import LEASE_S, Call, PartitionActor, Queued
from actors.runtime.host import Hired, Host
from actors.snapshots import Pace
from models.control.control import CONTROL, ControlMessage, ControlState, Tick, decode_message
from models.control.events import PartitionsBegan, SettingsChanged
from models.control.model_versions import AskTraining, Training
from models.control.modelling import ModelVersions
from models.errors import Busy, IncidentManagerError, Refused, Unavailable
from models.limits import Pool, decode_report, encode_parts
from models.metrics import decode as decode_metrics
from models.metrics import encode as encode_metrics
from models.partition.machine import Step
from models.partition.sharding import TENANT
from models.partitions import names
from models.playbook.schedule import last_due
from models.ports import Clock, EventLog

#: A gateway reports every second; one that has not for this long is gone.
REPORT_AGE_S = 10.0
#: Changes that wait: more than people and their programs make in the time that a caller waits.
WAITING_MAX = 1000
#: Everybody who starts reads the frames behind the newest snapshot: at 50 us a frame these are 50 ms.
PACE = Pace(every_frames=1000, every_events=10_000, every_bytes=1024 * 1024, every_s=3600.0)

#: How often it looks whether a model is to be trained, and how long a trainer that was hired has before it is hired again: one that
#: lives is left alone.
TRAINING_LOOK_S = 0.25
HIRE_EVERY_S = 15.0
#: Who asks where nobody does.
SCHEDULE = "schedule"

_Message = ControlMessage | Tick
_Reply = Refused | None


class ControlActor(PartitionActor[ControlState, _Message, _Reply]):
    """See the top of this file."""

    #: A change takes up to 12 ms (a silence whose pattern is refused): a group must not keep the lease from being renewed.
    group_max = 32

    def __init__(
        self,
        host: Host,
        event_log: EventLog,
        clock: Clock,
        partitions: int | None,
        watch: SettingsWatch | None = None,
        settings: str = "",
        kept: Kept | None = None,
        pace: Pace = PACE,
        trainer: Hired | None = None,
        schedule: str | None = None,
    ) -> None:
        """Without `partitions` the slots stay unassigned: the first start of the system decides how many there are.
        `settings`, without secrets, are what all were started with. `kept` is what the other partitions keep: a log is not
        begun where they hold something, and which of them have begun is noted. `trainer` is hired while a training is under way, for
        which `schedule`, a cron expression, asks by itself."""
        self.partitions = partitions
        super().__init__(host, CONTROL, self._empty(), event_log, clock, pace)
        self._reported: dict[str, tuple[float, bytes]] = {}
        self._pool = Pool()
        self._watch = watch
        self._settings = settings
        self._kept = kept
        self._trainer = trainer
        self._schedule = schedule
        #: Of what the log holds: the last training, whether there is a slot map, and the last change of settings.
        self._training: Training | None = None
        self._is_assigned = False
        self._changed: SettingsChanged | None = None

    @property
    def state(self) -> ControlState:
        """What decides. It may be ahead of the log."""
        return self.machine

    # -- what others call ----------------------------------------------------------------------------------

    async def status(self, _payload: bytes) -> bytes:
        """Whether it is ready and holds its lease (`leads`), the id of this start, and the settings in force."""
        start = "" if self._watch is None else self._watch.start
        changed = self._changed
        settings = self._settings if changed is None or changed.start != start else changed.settings
        return msgspec.json.encode(
            {"ready": self._is_assigned, "leads": self._ready, "start": start, "settings": settings}
        )

    async def change(self, payload: bytes) -> bytes:
        """Decide about one message (models/control/control.py) and make what comes of it durable before answering b"".

        A repeat of the same message makes no second event. Raises what its section refuses it by, Busy, and Unavailable
        when nothing is known to be stored: ask again.
        """
        message = decode_message(payload)
        self._check_ready()
        if self._inbox_weight >= WAITING_MAX:
            raise Busy(f"{CONTROL}: {self._inbox_weight} changes are waiting already", retry_after_s=1.0)
        call: Call[_Reply] = Call([None], 0, asyncio.get_running_loop().create_future())
        await self.submit(call, [Queued(message, call=call)])
        if (refused := call.replies[0]) is not None:
            raise refused
        return b""

    async def metrics(self, _payload: bytes) -> bytes:
        return encode_metrics(self.meter.read())

    async def report(self, payload: bytes) -> bytes:
        """A gateway's reading (encoded ActorMetrics), so that one scrape of any gateway shows them all."""
        reading = decode_metrics(payload)
        self._reported[reading.name] = (self.clock.monotonic(), payload)
        return b""

    async def limits(self, payload: bytes) -> bytes:
        """What a gateway took of rate limits (encoded Report), and its part of what is left. In memory only, and so never repeated: what
        was counted twice is a tenth of a second's worth."""
        return encode_parts(self._pool.report(decode_report(payload), self.clock.monotonic()))

    async def reported(self, _payload: bytes) -> bytes:
        """The readings of gateways that reported lately, as a MessagePack list."""
        oldest = self.clock.monotonic() - REPORT_AGE_S
        self._reported = {name: found for name, found in self._reported.items() if found[0] >= oldest}
        return msgspec.msgpack.encode([payload for _at, payload in self._reported.values()])

    # -- what is special -----------------------------------------------------------------------------------

    def _empty(self) -> ControlState:
        return ControlState(partitions=self.partitions)

    def _make_tick(self) -> _Message:
        return Tick()

    async def _before_opening(self) -> None:
        """Raises Damaged if this log is empty but shards hold data: then it existed before."""
        if self._kept is None or await self.event_log.last_seq():
            return
        if holding := await held(self._kept, self.partitions or 0):
            raise lost_control(CONTROL, holding)

    def _started(self, folded: Folded[ControlState], step: Step[_Reply]) -> None:
        self._hand_on()

    def _count(self) -> None:
        self._is_assigned = self.state.slots is not None
        self._changed = self.state.settings
        self._training = self.state.of(ModelVersions).training

    def _durable(self, told: Queued[_Message, _Reply], step: Step[_Reply], since: float) -> None:
        if step.events:
            self._hand_on()

    def _hand_on(self) -> None:
        if self._watch is not None:
            self._watch.look(self.state)

    def _sizes(self) -> dict[str, int]:
        return {"slot_map": self.state.slot_version}

    def _background(self) -> Sequence[Coroutine[None, None, None]]:
        begun = () if self._kept is None else (self._note_begun(self._kept),)
        return begun if self._trainer is None else (*begun, self._see_to_training(self._trainer))

    async def _see_to_training(self, trainer: Hired) -> None:
        """Hire a trainer while a training is under way, and end it afterwards; ask for one when the schedule says so."""
        # One that a process before this one hired is ended as well.
        hired_at: float | None = -HIRE_EVERY_S
        scheduled_at = self.clock.now()
        while True:
            training, now = self._training, self.clock.now()
            try:
                if training is not None and not training.ended_at:
                    if hired_at is None or self.clock.monotonic() - hired_at >= HIRE_EVERY_S:
                        hired_at = self.clock.monotonic()
                        await self.host.hire(trainer)
                elif hired_at is not None:
                    await self.host.dismiss(trainer.name)
                    hired_at = None
                elif self._schedule is not None and (due := last_due(self._schedule, scheduled_at, now)):
                    scheduled_at = now
                    self._tell_self(AskTraining(f"{SCHEDULE}-{due:.0f}", SCHEDULE, TENANT))
            except Unavailable as error:
                self.log.warning("can't start or end the trainer, retrying", why=str(error))
                await asyncio.sleep(HIRE_EVERY_S)
            await asyncio.sleep(TRAINING_LOOK_S)

    async def _note_begun(self, kept: Kept) -> None:
        """Record which partitions have a log by now, so that a lost one is noticed."""
        while True:
            slots = self.state.slots
            begun: list[str] = []
            for name in [] if slots is None else names(slots.partitions):
                if name != self.partition and name not in self.state.begun:
                    event_log = kept.log(name)
                    try:
                        if await has_begun(event_log):
                            begun.append(name)
                    except IncidentManagerError as error:
                        self.log.warning(
                            "can't see yet whether a partition began, will retry", why=str(error)
                        )
                    finally:
                        await event_log.close()
            if begun:
                self._tell_self(PartitionsBegan(begun))
            await asyncio.sleep(LEASE_S / 3)
