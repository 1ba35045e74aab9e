"""Whether the actors behind the shards answer: a gateway asks each of them all the time, and health says which do not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from models.errors import IncidentManagerError
from models.ports import Peers
from services.wiring.actors import missing_without

log = structlog.get_logger()

ASK_EVERY_S = 1.0
#: A classifier lets others have a turn every hundredth of a second.
ANSWER_TIMEOUT_S = 2.0
#: One that was killed is back within this; what hangs is told.
SILENT_AFTER_S = 5.0


class Helpers:
    """watch() runs as long as its gateway; away() is what it found."""

    def __init__(self, peers: Peers, actors: Sequence[str]) -> None:
        self._peers = peers
        self._actors = [name for name in actors if missing_without(name)]
        self._silent_since: dict[str, float] = {}
        self._away: dict[str, str] = {}

    def away(self) -> dict[str, str]:
        """Who does not answer now, with what is missing meanwhile."""
        return dict(self._away)

    async def watch(self) -> None:
        """Ask for ever."""
        while True:
            await asyncio.gather(*map(self._ask, self._actors))
            await asyncio.sleep(ASK_EVERY_S)

    async def _ask(self, name: str) -> None:
        asked_at = asyncio.get_running_loop().time()
        try:
            await self._peers.call(name, "metrics", b"", ANSWER_TIMEOUT_S)
        except IncidentManagerError:
            since = self._silent_since.setdefault(name, asked_at)
            if name not in self._away and asyncio.get_running_loop().time() - since >= SILENT_AFTER_S:
                self._away[name] = missing_without(name)
                log.error("actor does not answer", actor=name)
            return
        self._silent_since.pop(name, None)
        if self._away.pop(name, None):
            log.info("actor answers again", actor=name)
