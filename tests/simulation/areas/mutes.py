"""Somebody who silences and thinks better of it, and the laws of what is muted.

No notification leaves for a muted incident, whoever crashed; every mute says by what. That no resolve is lost and nobody is
told twice is held by the laws that hold without silences (tests/simulation/watch.py, notifications.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from models.alerts.matchers import MatcherTuple, compile_matchers
from models.alerts.series import FIRING
from models.control.control import encode_message
from models.control.silences import ExpireSilence, SetSilence, Silence
from models.errors import IncidentManagerError
from models.incidents.notification import RESOLVED
from models.partition.event import Event
from models.shard.effects import Act
from models.shard.events import NotificationWithheld, ShardStarted
from models.shard.inhibitors import InhibitorsKnown
from models.shard.known_silences import SilencesKnown
from models.shard.mutes import Mutes as MutesOfShard
from models.shard.mutes import SeriesMuted, SeriesUnmuted
from models.shard.schedules import RUNS_BY_THE_CLOCK, is_scheduled
from tests.simulation.area import Area
from tests.simulation.areas.clocks import Clocks
from tests.simulation.settings import TENANTS

if TYPE_CHECKING:
    from tests.simulation.watch import Watcher
    from tests.simulation.world import World

#: A shard looks at the control log each second here, and at its times every one and a half; a clock may stand for two.
LATE_S = 5.0
#: Silences are over before a run is.
LONGEST_S = 14.0


class Mutes(Area):
    events = frozenset({SilencesKnown, InhibitorsKnown, SeriesMuted, SeriesUnmuted, NotificationWithheld})

    def __init__(self, world: World) -> None:
        super().__init__(world)
        #: Silences that were acknowledged, with when by the run's own time.
        self.sure: dict[str, tuple[float, Silence]] = {}
        #: Those that were ended, which is as good as over.
        self.doubtful: set[str] = set()
        self._leapt_at = -LATE_S
        #: Keys of what left a shard.
        self._left: set[str] = set()
        #: When the writer of a partition started last, by its log.
        self._started_at: dict[str, float] = {}
        #: Since when, by the run's own time, all that fires of an incident is muted.
        self._muted_since: dict[bytes, float] = {}

    # -- who silences --------------------------------------------------------------------------------------

    def lives(self) -> list[Coroutine[Any, Any, None]]:
        return [self._live()]

    async def _live(self) -> None:
        rng, number = self.world.rng, 0
        while True:
            await asyncio.sleep(rng.uniform(0.5, 6.0))
            if not self.world.is_troubled:
                continue
            number += 1
            if self.sure and rng.random() < 0.3:
                await self._expire(rng.choice([*self.sure]))
            else:
                await self._add(number)

    async def _add(self, number: int) -> None:
        world, rng = self.world, self.world.rng
        now = world.clock.now()
        starts = now + rng.choice((0.0, 0.0, 3.0))
        matchers: list[MatcherTuple] = [
            rng.choice(
                (
                    ("service", "=", rng.choice(("llm-api", "vector-db", "billing"))),
                    ("alertname", "=~", "Down|Slow"),
                    ("severity", "!~", "critical|page"),
                    ("instance", "=~", "prom.*"),
                )
            )
        ]
        identity = str(UUID(int=number))
        ends = starts + rng.uniform(3.0, LONGEST_S - 3.0)
        tenant = rng.choice(TENANTS)
        made = SetSilence(identity, matchers, starts, ends, "ann", "sim", tenant=tenant)
        if await self._tell(encode_message(made)) and not self._is_leaping():
            silence = Silence(identity, tuple(matchers), starts, ends, "ann", "sim", now, tenant=tenant)
            self.sure[identity] = world.clock.elapsed, silence
            world.story("silenced", by=identity[-4:], matchers=matchers)

    async def _expire(self, identity: str) -> None:
        self.doubtful.add(identity)
        if await self._tell(encode_message(ExpireSilence(identity, "ann", self.sure[identity][1].tenant))):
            self.world.story("silence over", which=identity[-4:])

    async def _tell(self, payload: bytes) -> bool:
        for _ in range(5):
            try:
                await self.world.wire.call("control-a", "change", payload, 5.0)
                return True
            except IncidentManagerError:
                await asyncio.sleep(0.5)
        return False

    # -- what must hold ------------------------------------------------------------------------------------

    def seen(self, watcher: Watcher, event: Event) -> None:
        if isinstance(event, ShardStarted):
            self._started_at[watcher.partition] = watcher.mirror.now
        elif isinstance(event, NotificationWithheld) and event.why == RUNS_BY_THE_CLOCK:
            if not is_scheduled(watcher.mirror.state.incidents[event.incident_id]):
                watcher.fail(f"{event.incident_id.hex()} is withheld as a run by the clock, and is none")
        elif isinstance(event, SeriesMuted | NotificationWithheld):
            said = event.text if isinstance(event, SeriesMuted) else event.why
            if " by " not in said and not said.startswith("a symptom of "):
                watcher.fail(f"{type(event).__name__} does not say by what: {said!r}")
        mirror = watcher.mirror
        incident = mirror.state.incidents.get(getattr(event, "incident_id", b""))
        if incident is not None and mirror.of(MutesOfShard).is_muted(incident):
            self._muted_since.setdefault(incident.id, self.world.clock.elapsed)
        elif incident is not None:
            self._muted_since.pop(incident.id, None)

    def leaves(self, payload: bytes) -> None:
        """A shard asks the responder: nobody may be told of what is muted but of its end."""
        act = msgspec.msgpack.decode(payload, type=Act)
        # The very same try again may have arrived before: its outcome is wanted, muted or not.
        is_again = act.key in self._left
        self._left.add(act.key)
        if act.facts.reason == RESOLVED or is_again:
            return
        for watcher in self.world.watchers.values():
            if act.incident_id in watcher.mirror.state.incidents:
                self._look(watcher, act)

    def _look(self, watcher: Watcher, act: Act) -> None:
        world, mirror = self.world, watcher.mirror
        incident, elapsed = mirror.state.incidents[act.incident_id], world.clock.elapsed
        said = f"{act.facts.reason} of {UUID(bytes=act.incident_id)} is told"
        if incident.notification_of(act.target).due_at <= self._started_at.get(watcher.partition, 0.0):
            return  # a process before this one may have asked for it
        since = self._muted_since.get(act.incident_id)
        if since is not None and elapsed - since > LATE_S:
            world.fail(f"{said}, which is muted since {elapsed - since:.1f} s")
        if self._is_leaping():
            self._leapt_at = elapsed
        if elapsed - self._leapt_at < LATE_S or any(child.is_open for child in incident.children.values()):
            return
        series = mirror.state.series
        firing = [each for each in mirror.state.members[incident.id] if series.status[each] == FIRING]
        now = world.clock.now()
        for identity, (made_at, silence) in self.sure.items():
            if (
                identity not in self.doubtful
                and silence.tenant == incident.tenant
                and elapsed - made_at > LATE_S
                and silence.starts_at + LATE_S < now < silence.ends_at - LATE_S
                and firing
            ):
                matches = compile_matchers(silence.matchers)
                if all(matches(series.labels(each)) for each in firing):
                    world.fail(f"{said}, all of which {identity} silences")

    def _is_leaping(self) -> bool:
        return self.world.area(Clocks).is_leaping
