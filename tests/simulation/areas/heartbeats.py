"""Two jobs with a heartbeat: one beats all the time, the other stops in the middle of a run.

The first is never missed while its beats are taken; the second is missed at the end, in one alert. Through kills, stores that
hang and clocks that are wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from models.control.control import encode_message
from models.control.heartbeats import Heartbeat, HeartbeatHeard, SetHeartbeat
from models.errors import IncidentManagerError
from models.incidents.incident import Severity
from models.partition.event import Event
from models.partition.sharding import TENANT, slot_of
from models.shard.events import SeriesOpened, SeriesRefired
from models.shard.heartbeats import Beats, BeatsHeard, HeartbeatsOfShard, HeartbeatsWatched
from models.shard.messages import Done, decode_reply, encode
from tests.simulation.area import Area
from tests.simulation.areas.clocks import Clocks
from tests.simulation.settings import TROUBLE_S, shard_name

if TYPE_CHECKING:
    from tests.simulation.watch import Watcher
    from tests.simulation.world import World

INTERVAL_S, GRACE_S = 6.0, 2.0
#: A shard ticks each one and a half, a clock may stand still for two, and a call may take a while.
LATE_S = 4.0
STEADY, GONE = "steady", "gone"
_list_decoder = msgspec.msgpack.Decoder(list[bytes])
_list_encoder = msgspec.msgpack.Encoder()


class Heartbeats(Area):
    events = frozenset({HeartbeatsWatched, BeatsHeard})

    def __init__(self, world: World) -> None:
        super().__init__(world)
        #: When a beat of each was taken last, by the run's own time.
        self.taken: dict[str, float] = {}
        self._leapt_at = -1000.0

    def lives(self) -> list[Coroutine[Any, Any, None]]:
        return [self._live(STEADY, 1e9), self._live(GONE, TROUBLE_S / 2)]

    async def _live(self, name: str, until: float) -> None:
        heartbeat = Heartbeat(name, INTERVAL_S, GRACE_S, f"job-{name}", Severity.P3)
        for message in (SetHeartbeat(heartbeat, "ann"), HeartbeatHeard(name)):
            while not await self._call("control-a", "change", encode_message(message)):
                await asyncio.sleep(0.5)
        shard = shard_name(self.world.owner(slot_of(TENANT, heartbeat.service)))
        begun = self.world.clock.elapsed
        while self.world.clock.elapsed - begun < until:
            # What a shard is told counts as word from a gateway, so it must come by one.
            if self.world.gateway() is not None:
                asked = self.world.clock.elapsed
                told = _list_encoder.encode([encode(Beats(TENANT, [name]))])
                answer = await self._call(shard, "tell", told)
                if answer and isinstance(decode_reply(_list_decoder.decode(answer)[0]), Done):
                    self.taken[name] = asked
            await asyncio.sleep(1.0)

    async def _call(self, actor: str, method: str, payload: bytes) -> bytes:
        """b"" when nobody answers."""
        try:
            return await self.world.wire.call(actor, method, payload, 2.0) or b"yes"
        except IncidentManagerError:
            return b""

    def seen(self, watcher: Watcher, event: Event) -> None:
        elapsed = self.world.clock.elapsed
        if self.world.area(Clocks).is_leaping:
            self._leapt_at = elapsed
        if not isinstance(event, SeriesOpened | SeriesRefired):
            return
        name = watcher.mirror.state.series.labels(event.number).get("heartbeat")
        since = elapsed - self.taken.get(name or "", -1000.0)
        if name is not None and since < INTERVAL_S + GRACE_S - LATE_S and elapsed - self._leapt_at > LATE_S:
            self.world.fail(f"the heartbeat {name} is missed {since:.1f} s after a beat was taken")

    def holds(self) -> None:
        missed = [
            pulse.heartbeat.name
            for part in (each.mirror.of(HeartbeatsOfShard) for each in self.world.watchers.values())
            for pulse in part.pulses.values()
            if part.missed(pulse) is not None
        ]
        if missed != [GONE]:
            self.world.fail(f"{missed} are missed at the end, and {GONE} alone does not beat")
