"""What takes alerts in one process, whatever door they come by: the formats, the intake, the lines to the shards, the dead letters,
and the control partition that it goes by. A gateway has one, and so has a collector.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog

from actors.control_tail import ControlTail, SettingsWatch
from actors.runtime.ending import end
from models.alerts.matchers import MatcherTuple
from models.control.control import ControlMessage
from models.control.events import SettingsChanged
from models.errors import Unavailable
from models.incidents.query import AlertView
from models.metrics import Meter
from models.partition.sharding import SlotMap
from models.ports import Clock, DeadLetters, EventLog, Peers, Tracer
from models.settings.all import Settings
from services.api.reads import Reads
from services.ingest.dead_letters import DeadLetterBox
from services.ingest.doors.door import Doorman, Needs
from services.ingest.formats.format import Shared
from services.ingest.formats.open_alerts import Labels
from services.ingest.formats.remembered import Remembered
from services.ingest.formats.table import open_formats
from services.ingest.heartbeats import BeatLine
from services.ingest.intake import Intake
from services.ingest.limits import Limits
from services.ingest.line import ShardLine
from services.ingest.rules import RuleKeeper
from services.ingest.sources.table import wanted
from services.ingest.submit import Submitter
from services.machine.logs import set_level
from services.wiring.telling import tell_control

log = structlog.get_logger()

#: Before the slot map is known nothing can be taken; the first start takes seconds.
FIRST_SLOTS_S = 30.0
#: A query to a shard: its longest page takes 20 ms, and it may wait behind a group.
QUERY_TIMEOUT_S = 5.0


class Station:
    """start() before the first alert, stop() after the last. look() once a second: whoever has it says when."""

    def __init__(
        self,
        settings: Settings,
        peers: Peers,
        clock: Clock,
        meter: Meter,
        tracer: Tracer,
        control_log: EventLog,
        dead_letters: DeadLetters,
        shard_actors: Sequence[str],
        control: str,
        *,
        start: str,
        tenant: str,
    ) -> None:
        self.settings = settings
        self.peers = peers
        self.clock = clock
        self.meter = meter
        self.tracer = tracer
        self.control = control
        self.tail = ControlTail(control_log, SettingsWatch(start, self._take_settings))
        server = settings.server
        self.lines = [
            ShardLine(
                actor,
                peers,
                clock,
                hold_s=server.hold,
                max_alerts=max(1, server.max_inflight_alerts // len(shard_actors)),
            )
            for actor in shard_actors
        ]
        self.submitter = Submitter(self.lines, SlotMap.even(len(shard_actors)))
        remembered = Remembered(
            tenant,
            tuple(settings.grouping.service_labels),
            settings.lifecycle.max_alert_bytes,
            server.remembered_alerts,
        )
        self.dead_letters = DeadLetterBox(
            dead_letters, clock, meter, max_payload_bytes=settings.dead_letters.max_payload_bytes
        )
        self.rules = RuleKeeper(meter, remembered.go_by)
        self.rules.take(settings, clock.now())
        self._reads = Reads(
            lambda shard, query: self.lines[shard].ask(query, QUERY_TIMEOUT_S),
            len(shard_actors),
            lambda slot: self.submitter.slots.owners[slot],
            (),
            tenant=tenant,
        )
        self.shared = Shared(remembered, settings)
        self.shared.open_alerts.find = self._labels_of_firing
        self.formats = open_formats(self.shared)
        self.limits = Limits(peers, control, clock, meter, meter.name, gateways_of(settings))
        self.limits.take_settings(settings.resource_limits)
        #: Whoever else goes by the settings.
        self.on_settings: Callable[[Settings], None] = lambda _settings: None
        self._sharing: asyncio.Task[None] | None = None
        self.intake = Intake(self.submitter, remembered, self.dead_letters, meter, self.limits)
        self.beats = BeatLine(self.tail, self.submitter, self.tell_control, clock, tenant)
        self.intake.beats = self.shared.beats = self.beats

    def needs(self, doorman: Doorman) -> Needs:
        """What its doors are given."""
        return Needs(self.intake, self.formats, doorman, self.clock, self.meter, self.tracer)

    async def start(self) -> None:
        """Learn the slot map. Raises Unavailable when there is none."""
        deadline = asyncio.get_running_loop().time() + FIRST_SLOTS_S
        while True:
            with contextlib.suppress(Unavailable):
                await self.tail.follow()
            if self.tail.state.slots is not None:
                break
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"no slot map after {FIRST_SLOTS_S:g} s: is the control actor running?")
            await asyncio.sleep(0.05)
        self._take_slots(self.tail.state.slots)
        await self.rules.look(self.clock.now())
        self.dead_letters.start()
        self._sharing = asyncio.get_running_loop().create_task(self.limits.keep_up())

    async def stop(self) -> None:
        """Write what dead letters wait, and close the files. Safe to call twice."""
        if self._sharing is not None:
            await end([self._sharing])
        await self.dead_letters.stop()
        await self.tail.close()

    async def look(self) -> None:
        """Read what is new in the control log. Whatever it has to say is no reason to stop taking alerts."""
        await self.tail.catch_up()
        await self.rules.look(self.clock.now())
        await self.dead_letters.look()
        slots = self.tail.state.slots
        if slots is not None and slots is not self.submitter.slots:
            try:
                self._take_slots(slots)
            except Unavailable as error:
                log.warning("can't follow the control partition, retrying", why=str(error))

    async def tell_control(self, message: ControlMessage) -> None:
        """services/wiring/telling.py, for as long as a request waits for a shard."""
        await tell_control(self.peers, self.control, message, hold_s=self.settings.server.hold)

    async def firing(self, format_name: str, matchers: Sequence[MatcherTuple]) -> list[AlertView]:
        """The alerts that fire and match, of those that came by this format: others may have labels of the same name. Raises
        TooLarge, Busy, Unavailable."""
        async with contextlib.aclosing(self._reads.alerts(matchers)) as pages:
            return [each async for page in pages for each in page if each.source == format_name]

    def measure(self) -> None:
        """Set the gauges."""
        self.meter.set("llm_im_inflight_alerts", sum(line.alerts for line in self.lines))
        self.intake.measure(self.clock.now())
        self.limits.measure()

    async def _labels_of_firing(self, format_name: str, matchers: Sequence[MatcherTuple]) -> list[Labels]:
        return [each.labels for each in await self.firing(format_name, matchers)]

    def _take_settings(self, changed: SettingsChanged) -> None:
        self.settings = Settings.model_validate_json(changed.settings)
        set_level(changed.level)
        self.shared.settings = self.settings
        self.limits.take_settings(self.settings.resource_limits)
        self.rules.take(self.settings, self.clock.now())
        self.on_settings(self.settings)

    def _take_slots(self, slots: SlotMap) -> None:
        if slots.partitions > len(self.lines):
            raise Unavailable(
                f"the slot map names {slots.partitions} partitions, settings say state.partitions = {len(self.lines)}: "
                "first llm-im down, then llm-im up"
            )
        self.submitter.slots = slots


def gateways_of(settings: Settings) -> int:
    """How many processes take alerts: the gateways, and the collector where there is one."""
    return settings.server.gateways + bool(wanted(settings))
