"""Beats on their way to the shards that watch them: those that were sent as beats (formats/heartbeat.py), and alerts that are
beats (intake.py). One for all doors of a process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from actors.control_tail import ControlTail
from models.alerts.alert import SERIES_ID_BYTES, Content
from models.alerts.mute_index import MuteIndex
from models.control.control import ControlMessage
from models.control.heartbeating import Heartbeats
from models.control.heartbeats import Heartbeat, HeartbeatHeard, identity
from models.errors import Busy, IncidentManagerError, Malformed, NotFound, TooLarge, Unavailable
from models.partition.sharding import slot_of
from models.ports import Clock
from models.shard.heartbeats import Beats
from models.shard.messages import encode
from services.ingest.formats.reading import Reading
from services.ingest.submit import Submitter

#: A shard looks at the control log four times a second: so long at most it does not know a heartbeat that was just made.
KNOWN_WITHIN_S = 3.0
KNOWN_RETRY_S = 0.1
#: An unknown name makes us look at the control log once more, at most so often: another gateway may just have made it.
LOOK_EVERY_S = 0.2
#: Series of which it is remembered which heartbeats they are: about 150 bytes each.
REMEMBERED_MAX = 131_072

_content_decoder = msgspec.msgpack.Decoder(Content)
_NOTHING: dict[str, Heartbeat] = {}


class BeatLine:
    """The beats of one tenant."""

    def __init__(
        self,
        tail: ControlTail,
        submitter: Submitter,
        tell_control: Callable[[ControlMessage], Awaitable[None]],
        clock: Clock,
        tenant: str,
    ) -> None:
        self._tail = tail
        self._submitter = submitter
        self._tell_control = tell_control
        self._clock = clock
        self._tenant = tenant
        self._looked_at = -LOOK_EVERY_S
        #: What the index was made of, and by series which heartbeats it is.
        self._by_alert = _NOTHING
        self._index = MuteIndex()
        self._of_series: dict[bytes, tuple[str, ...]] = {}

    # -- beats -------------------------------------------------------------------------------------------------

    async def beat(self, names: Sequence[str], *, failed: bool = False, note: str = "") -> None:
        """These heartbeats were heard; with `failed` something says that it failed, and in `note` why. What returns is durable, or as
        good as (models/shard/heartbeats.py). Safe to repeat. Raises NotFound, Busy."""
        found = [await self._find(name) for name in dict.fromkeys(names)]
        by_shard: dict[int, list[Heartbeat]] = {}
        for each in found:
            shard = self._submitter.slots.owners[slot_of(each.tenant, each.service)]
            by_shard.setdefault(shard, []).append(each)
        told = [
            self._tell(shard, Beats(self._tenant, [each.name for each in its], failed, note))
            for shard, its in by_shard.items()
        ]
        for outcome in await asyncio.gather(*told, return_exceptions=True):
            if isinstance(outcome, Unavailable):
                raise Busy(f"the beat could not be stored: {outcome}", retry_after_s=1.0) from outcome
            if isinstance(outcome, BaseException):
                raise outcome
        for each in found:
            if not each.began:
                # Whatever comes of it, the next beat says it again.
                with contextlib.suppress(IncidentManagerError):
                    await self._tell_control(HeartbeatHeard(each.name, each.tenant))

    async def _find(self, name: str) -> Heartbeat:
        its = identity(self._tenant, name)
        known = self._tail.state.of(Heartbeats).all.get(its)
        if known is None and self._clock.monotonic() - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = self._clock.monotonic()
            await self._tail.catch_up()
        known = self._tail.state.of(Heartbeats).all.get(its)
        if known is None:
            raise NotFound(f"there is no heartbeat {name[:100]!r}: make it first (llm-im heartbeats set)")
        return known

    async def _tell(self, shard: int, message: Beats) -> None:
        encoded = encode(message)
        give_up_at = asyncio.get_running_loop().time() + KNOWN_WITHIN_S
        while True:
            try:
                await self._submitter.lines[shard].tell(encoded, 1)
                return
            except Busy:
                if asyncio.get_running_loop().time() >= give_up_at:
                    raise
            await asyncio.sleep(KNOWN_RETRY_S)

    # -- alerts that are beats ---------------------------------------------------------------------------------

    @property
    def by_alert(self) -> bool:
        """Whether alerts may be beats at all."""
        return bool(self._tail.state.of(Heartbeats).by_alert)

    def among(self, reading: Reading, now: float) -> dict[int, tuple[str, ...]]:
        """Which alerts of a request are beats, by column: names of heartbeats. One that has ended is none."""
        wanted = self._tail.state.of(Heartbeats).by_alert
        if wanted is not self._by_alert:
            self._learn(wanted)
        found: dict[int, tuple[str, ...]] = {}
        for column, memory in enumerate(reading.memories):
            series = memory.key[:SERIES_ID_BYTES]
            names = self._of_series.get(series)
            if names is None:
                labels = _content_decoder.decode(reading.body(column)).labels
                names = tuple([self._by_alert[each].name for each in self._index.of(labels)])
                if len(self._of_series) >= REMEMBERED_MAX:
                    self._of_series.clear()
                self._of_series[series] = names
            if names and reading.ends[column] > now and not (reading.said and reading.said[column]):
                found[column] = names
        return found

    def _learn(self, wanted: dict[str, Heartbeat]) -> None:
        self._by_alert, self._index, self._of_series = wanted, MuteIndex(), {}
        for its, each in wanted.items():
            if each.tenant == self._tenant:
                # Another version of the program may have let one through that this one can't read.
                with contextlib.suppress(Malformed, TooLarge):
                    self._index.add(its, each.matchers)
