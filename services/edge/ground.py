"""What all streams of edge agents in one process stand on: the shards, and the intake, where what agents say becomes alerts."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from models.errors import Malformed
from models.metrics import Meter
from models.ports import Clock, Tracer
from models.shard.messages import Decision
from services.edge.shards import EdgeShards
from services.edge.words import Json
from services.ingest.arrival import Arrival, Sender
from services.ingest.formats.format import Format, Request
from services.ingest.intake import Intake

#: What a dead letter says of where it came by.
PATH = "/v1/edge/stream"


@dataclass(frozen=True, slots=True)
class Ground:
    """`form` is the format of the agents' messages as JSON (services/ingest/formats/llm_edge_agent.py)."""

    shards: EdgeShards
    intake: Intake
    form: Format
    clock: Clock
    meter: Meter
    tracer: Tracer

    async def store(self, said: list[Json], sender: Sender, trace: str = "") -> tuple[Decision | None, bytes]:
        """Have alerts stored; the decision about the first, and its incident. Raises Malformed for the first that can't be read, what
        its shard refuses, Busy, Unavailable."""
        now = self.clock.now()
        request = Request(
            PATH, msgspec.json.encode(said), now, content_type="application/json", sender=sender
        )
        arrival = Arrival(self.intake.tenant, self.form.name, sender, now, want_ids=True, trace=trace or None)
        with self.tracer.span(f"EDGE {PATH}", trace or None, {}, kind="server") as span:
            reading, receipt = await self.intake.take(self.form, request, arrival, span)
        if receipt.error is not None:
            raise receipt.error
        if reading.faults:
            raise Malformed(reading.faults[0].message)
        if not receipt.decisions:
            return None, b""
        return receipt.decisions[0], receipt.incident_ids[0]
