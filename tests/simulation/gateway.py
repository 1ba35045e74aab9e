"""A gateway of a simulated system. Used by world.py."""

from __future__ import annotations

import asyncio
import functools
import itertools
from typing import TYPE_CHECKING

from actors.control_tail import ControlTail
from models.errors import Unavailable
from models.partition.sharding import SlotMap
from models.shard.messages import Decision
from services.ingest.arrival import ANONYMOUS, Arrival
from services.ingest.formats.format import Request, Shared
from services.ingest.formats.remembered import Remembered
from services.ingest.formats.table import open_formats
from services.ingest.line import ShardLine
from services.ingest.submit import Submitter
from services.stores.memory.log import MemoryEventLog
from tests.simulation.loop import Process
from tests.simulation.settings import GIVEN, TENANTS, shard_name
from tests.simulation.wire import dead

if TYPE_CHECKING:
    from tests.simulation.world import World

#: What becomes of an alert that has ended.
ENDS = {Decision.RESOLVED, Decision.LATE, Decision.UNKNOWN_RESOLVE}


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
        self.submitter = Submitter(self.lines, first_slots(world.shards))
        # The run must be a function of its seed, down to the ids of calls.
        self.submitter._ids = (b"%08d%08d" % (number, count) for count in itertools.count())  # type: ignore[assignment]
        self.formats = {
            tenant: open_formats(Shared(Remembered(tenant, ("service",)), GIVEN)) for tenant in TENANTS
        }
        self.is_open = False
        world.loop.spawn(self.process, self._live())

    def post(
        self, tenant: str, door: str, body: bytes, delivery_id: str | None
    ) -> asyncio.Future[list[tuple[bytes, Decision]]]:
        """Store a tenant's request; the answer is what was acknowledged. Raises Unavailable when a part could not be."""
        return self.world.loop.spawn_call(
            self.process, self._post(tenant, door, body, delivery_id), lambda: dead(self.name)
        )

    async def _post(
        self, tenant: str, door: str, body: bytes, delivery_id: str | None
    ) -> list[tuple[bytes, Decision]]:
        if not self.is_open:
            raise Unavailable(f"{self.name} starts")
        received_at = self.world.clock.now()
        form = self.formats[tenant][door]
        reading = form.read(Request(form.path, body, received_at))
        arrival = Arrival(tenant, form.name, ANONYMOUS, received_at, form.wants_ids, delivery_id)
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


@functools.cache
def first_slots(shards: int) -> SlotMap:
    return SlotMap.even(shards)
