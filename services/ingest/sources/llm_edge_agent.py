"""LLM-Edge-Agents to which we connect: EdgeAgent of the protocol (services/proto). Once the stream stands all is as on one that an agent
opens (services/edge).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from models.errors import Refused, Stale, Unavailable
from services.edge.desk import EdgeDesk
from services.edge.ground import Ground
from services.edge.shards import EdgeShards
from services.ingest.arrival import Sender
from services.ingest.sources.dialling import Stream
from services.ingest.sources.fetching import RETRY_MAX_S, Fetcher, Fetchers, Later
from services.ingest.sources.lease import LEASE_S
from services.ingest.sources.source import SourceNeeds

FORMAT = "llm-edge-agent"
METHOD = "/llm.incident.v1.EdgeAgent/Attach"
#: A stream that still stands after this was not refused.
STANDS_S = 1.0


class EdgeDial(Fetcher):
    """One agent."""

    def __init__(
        self,
        needs: SourceNeeds,
        desk: EdgeDesk,
        endpoint: str,
        settings: Mapping[str, Any],
        *,
        lease_s: float = LEASE_S,
    ) -> None:
        super().__init__(needs, f"{FORMAT}/{endpoint}", pause_s=settings["pause_s"], lease_s=lease_s)
        self._desk = desk
        self._endpoint = endpoint
        self._settings = settings

    async def fetch(self) -> None:
        async with Stream(self._endpoint, METHOD, self._settings) as stream:
            first = await stream.read()
            if first is not None:
                # One that is refused at once was not reached.
                stands = asyncio.get_running_loop().call_later(STANDS_S, self.reached)
                try:
                    await self._desk.attend(stream, Sender(self.name), first)
                except Stale as error:
                    # It has connected to us. Who called again at once would take its place, and be replaced in turn.
                    raise Later(f"{self._endpoint}: {error}", RETRY_MAX_S) from error
                except Refused as error:
                    raise Unavailable(f"{self._endpoint}: {error}") from error
                finally:
                    stands.cancel()
        raise Unavailable(f"{self._endpoint}: it closed the stream")


class EdgeDials(Fetchers):
    name = FORMAT

    def open(self, needs: SourceNeeds) -> list[EdgeDial]:
        submitter = needs.submitter
        shards = EdgeShards(submitter.lines, lambda: submitter.slots, needs.intake.tenant)
        ground = Ground(shards, needs.intake, needs.formats[FORMAT], needs.clock, needs.meter, needs.tracer)
        self._desk = EdgeDesk(needs.name, ground)
        settings = needs.given["dial_edge"]
        return [EdgeDial(needs, self._desk, endpoint, settings) for endpoint in settings["endpoints"]]

    async def start(self) -> None:
        self._desk.start()
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self._desk.stop()
