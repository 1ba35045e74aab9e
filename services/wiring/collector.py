"""Fetches alerts from where they are: queues, servers that are polled, connections that we open. An actor of its own, so that what has
gathered in a queue does not hold up those who send by HTTP. Hosted like every actor.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

import structlog

from actors.control_tail import FOLLOW_S
from actors.runtime.ending import end
from models.errors import IncidentManagerError
from models.metrics import encode as encode_metrics
from services.ingest.sources.source import Source, SourceNeeds
from services.wiring.station import Station

log = structlog.get_logger()

#: Until the slot map is there, after a start that found none.
RETRY_S = 1.0


class Collector:
    """`open_sources` is called once the station knows where alerts go; `given` is what sources get beside the settings."""

    def __init__(
        self,
        name: str,
        station: Station,
        open_sources: Callable[[SourceNeeds], Mapping[str, Source]],
        given: Mapping[str, object] | None = None,
    ) -> None:
        self._name = name
        self.station = station
        self._open_sources = open_sources
        self._given = given or {}
        self.sources: Mapping[str, Source] = {}
        self._why = "not started yet"
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._tasks = [asyncio.get_running_loop().create_task(self._live())]

    async def stop(self) -> None:
        for source in [*self.sources.values()][::-1]:
            await source.stop()
        await end(self._tasks)
        self._tasks = []
        await self.station.stop()
        await self.station.tracer.close()

    async def status(self, _payload: bytes) -> bytes:
        """For people: why each source is away, "" for one that is not."""
        return json.dumps({name: self._why or each.why_away for name, each in self.sources.items()}).encode()

    async def metrics(self, _payload: bytes) -> bytes:
        self.station.measure()
        for source in self.sources.values():
            source.measure()
        return encode_metrics(self.station.meter.read())

    async def _live(self) -> None:
        station = self.station
        while True:
            try:
                await station.start()
                break
            except IncidentManagerError as error:
                self._why = str(error)
                log.warning("can't collect alerts yet, retrying", why=str(error))
            await asyncio.sleep(RETRY_S)
        self.sources = self._open_sources(
            SourceNeeds(
                self._name,
                station.settings,
                station.intake,
                station.formats,
                station.tail,
                station.tell_control,
                station.peers,
                station.clock,
                station.meter,
                station.tracer,
                station.firing,
                self._given,
            )
        )
        for source in self.sources.values():
            await source.start()
        self._why = ""
        while True:
            await asyncio.sleep(FOLLOW_S)
            await station.look()
