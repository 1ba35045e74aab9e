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
    """`open_sources` is called once the station knows where alerts go. `given`: see SourceNeeds."""

    def __init__(
        self,
        name: str,
        station: Station,
        open_sources: Callable[[SourceNeeds], Mapping[str, Source]],
        given: Mapping[str, object],
    ) -> None:
        self._name = name
        self.station = station
        self._open_sources = open_sources
        self._given = given
        self.sources: Mapping[str, Source] = {}
        self._why = "it is just starting"
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._tasks = [asyncio.get_running_loop().create_task(self._live())]

    async def stop(self) -> None:
        # First what opens and starts them: else one could begin after it was stopped.
        await end(self._tasks)
        self._tasks = []
        await asyncio.gather(*[source.stop() for source in self.sources.values()])
        await self.station.stop()
        await self.station.tracer.close()

    async def status(self, _payload: bytes) -> bytes:
        """Why each source is away, "" for one that is not, as JSON by name; of a collector that has none yet, by its own."""
        if self._why:
            return json.dumps({self._name: self._why}).encode()
        return json.dumps({name: each.why_away for name, each in self.sources.items()}).encode()

    async def metrics(self, _payload: bytes) -> bytes:
        self.station.measure()
        for name, source in self.sources.items():
            source.measure()
            self.station.meter.set("llm_im_source_up", float(not source.why_away), source=name)
        return encode_metrics(self.station.meter.read())

    async def _live(self) -> None:
        await self._begin()
        while True:
            await asyncio.sleep(FOLLOW_S)
            await self.station.look()

    async def _begin(self) -> None:
        station, told = self.station, False
        while True:
            try:
                await station.start()
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
                        station.submitter,
                        self._given,
                    )
                )
                for source in self.sources.values():
                    await source.start()
            except IncidentManagerError as error:
                why = str(error)
                if not told:
                    log.warning("can't collect alerts yet, retrying", why=why)
            except Exception as error:
                # A bug, or a library that is missing here: health says it, and the other actors go on.
                why = repr(error)
                if not told:
                    log.exception("bug: can't collect alerts, retrying")
            else:
                self._why = ""
                return
            self._why, told = why, True
            opened, self.sources = self.sources, {}
            await asyncio.gather(*[source.stop() for source in opened.values()])
            await asyncio.sleep(RETRY_S)
