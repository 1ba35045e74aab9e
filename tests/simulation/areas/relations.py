"""Somebody who says what incidents are symptoms of, in order and out of order, and the laws of it.

An older word never wins, whoever crashed. Nobody is told of a symptom while it waits, but of its end; and it waits no longer than the
lease, nor than the settings let it: that everybody was told at the end, the laws of notifications.py say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from models.errors import IncidentManagerError
from models.incidents.notification import RESOLVED
from models.incidents.relation import Cause, Part, Relation
from models.partition.event import Event
from models.shard.effects import Act
from models.shard.events import ShardStarted
from models.shard.messages import encode
from models.shard.relations import IncidentRelated, Related, RelationHeard, SymptomMuteEnded
from models.shard.relations import Relations as RelationsOfShard
from tests.simulation.area import Area
from tests.simulation.settings import SETTINGS, shard_name

if TYPE_CHECKING:
    from tests.simulation.watch import Watcher
    from tests.simulation.world import World

#: A shard ticks each one and a half, and a clock may stand for two.
LATE_S = 5.0
_list_encoder = msgspec.msgpack.Encoder()


class Relations(Area):
    events = frozenset({IncidentRelated, RelationHeard, SymptomMuteEnded})

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._number = 0
        #: The newest word that each incident heard.
        self._heard: dict[bytes, int] = {}
        #: Since when, by the run's own time, an incident waits as a symptom.
        self._waits_since: dict[bytes, float] = {}
        self._left: set[str] = set()
        #: When the writer of a partition started last, by its log.
        self._started_at: dict[str, float] = {}

    def lives(self) -> list[Coroutine[Any, Any, None]]:
        return [self._live()]

    async def _live(self) -> None:
        rng = self.world.rng
        while True:
            await asyncio.sleep(rng.uniform(0.3, 2.5))
            if self.world.is_settling:
                return
            index = rng.randrange(self.world.shards)
            mirror = self.world.watchers[shard_name(index)].mirror
            found = [*mirror.state.incidents.values()]
            if not found:
                continue
            incident = rng.choice(found)
            self._number += 1
            # Now and then a word of before comes late.
            number = max(1, self._number - rng.choice((0, 0, 0, 3)))
            part = rng.choice((Part.SYMPTOM, Part.SYMPTOM, Part.CAUSE, Part.RELATED))
            cause = Cause(
                rng.choice(("db", "dns")), 0.9, ["it began 40 s before what depends on it"], b"c" * 16
            )
            lease = self.world.clock.now() + rng.uniform(2.0, 9.0) if part is Part.SYMPTOM else 0.0
            relation = Relation(b"s" * 16, part, 2, [cause], cause.incident_id, lease)
            message = Related(incident.tenant, incident.id, number, relation)
            try:
                payload = _list_encoder.encode([encode(message)])
                await self.world.wire.call(shard_name(index), "tell", payload, 5.0)
            except IncidentManagerError:
                continue

    # -- what must hold ------------------------------------------------------------------------------------

    def seen(self, watcher: Watcher, event: Event) -> None:
        mirror = watcher.mirror
        if isinstance(event, ShardStarted):
            self._started_at[watcher.partition] = mirror.now
        elif isinstance(event, IncidentRelated | RelationHeard):
            before = self._heard.get(event.incident_id, 0)
            if event.number <= before:
                watcher.fail(f"{event.incident_id.hex()} took word {event.number} after {before}")
            self._heard[event.incident_id] = event.number
            kept = mirror.of(RelationsOfShard).kept[event.incident_id]
            if kept.mute_until and kept.mute_until - kept.muted_at > SETTINGS.mute_symptoms_for_s + 0.001:
                watcher.fail(
                    f"{event.incident_id.hex()} may wait for {kept.mute_until - kept.muted_at:.1f} s"
                )
        incident = mirror.state.incidents.get(getattr(event, "incident_id", b""))
        if incident is not None and mirror.of(RelationsOfShard).is_muted(incident):
            self._waits_since.setdefault(incident.id, self.world.clock.elapsed)
        elif incident is not None:
            self._waits_since.pop(incident.id, None)

    def leaves(self, payload: bytes) -> None:
        """A shard asks the responder: nobody may be told of a symptom that waits, but of its end."""
        act = msgspec.msgpack.decode(payload, type=Act)
        is_again = act.key in self._left
        self._left.add(act.key)
        since = self._waits_since.get(act.incident_id)
        if act.facts.reason == RESOLVED or is_again or since is None:
            return
        waits_s = self.world.clock.elapsed - since
        for watcher in self.world.watchers.values():
            incident = watcher.mirror.state.incidents.get(act.incident_id)
            if incident is None or waits_s <= LATE_S:
                continue
            # A process before this one may have asked for it.
            due_at = incident.notification_of(act.target).due_at
            if due_at > self._started_at.get(watcher.partition, 0.0):
                said = f"{act.facts.reason} of {UUID(bytes=act.incident_id)} is told"
                self.world.fail(f"{said}, which waits since {waits_s:.1f} s")

    def holds_for(self, watcher: Watcher) -> None:
        """All leases are over by now."""
        relations = watcher.mirror.of(RelationsOfShard)
        for identity, kept in relations.kept.items():
            if kept.mute_until and kept.mute_until < watcher.mirror.now - LATE_S:
                watcher.fail(f"{identity.hex()} waits still, though its lease ended")
