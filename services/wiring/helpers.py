"""Whether the actors behind the shards answer, and can do their work: a gateway asks each of them all the time, and health says
which do not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import structlog

from models.errors import IncidentManagerError
from models.ports import Peers
from services.wiring.actors import missing_without, tells_why

log = structlog.get_logger()

ASK_EVERY_S = 1.0
#: A classifier lets others have a turn every hundredth of a second.
ANSWER_TIMEOUT_S = 2.0
#: One that was killed is back within this; what hangs is told. What it can't reach may be back as soon.
SILENT_AFTER_S = 5.0

_whys = msgspec.json.Decoder(dict[str, str])


class Helpers:
    """watch() runs as long as its gateway; away() is what it found."""

    def __init__(self, peers: Peers, actors: Sequence[str]) -> None:
        self._peers = peers
        self._actors = [name for name in actors if missing_without(name)]
        self._silent_since: dict[str, float] = {}
        self._away: dict[str, str] = {}
        #: What each actor says of its work: since when something is held up, and why now.
        self._held_up: dict[str, dict[str, tuple[float, str]]] = {}

    def away(self) -> dict[str, str]:
        """Who does not answer now, with what is missing meanwhile; and what cannot be reached, with why."""
        now = asyncio.get_running_loop().time()
        told = dict(self._away)
        for actor, held_up in self._held_up.items():
            for what, (since, why) in held_up.items():
                if now - since >= SILENT_AFTER_S:
                    # Several may say it of the same: each by itself.
                    told[what if what not in told else f"{what} ({actor})"] = why
        return told

    async def watch(self) -> None:
        """Ask for ever."""
        while True:
            await asyncio.gather(*map(self._ask, self._actors))
            await asyncio.sleep(ASK_EVERY_S)

    async def _ask(self, name: str) -> None:
        asked_at = asyncio.get_running_loop().time()
        try:
            await self._peers.call(name, "metrics", b"", ANSWER_TIMEOUT_S)
            if tells_why(name):
                self._told(name, await self._peers.call(name, "status", b"", ANSWER_TIMEOUT_S), asked_at)
        except IncidentManagerError:
            since = self._silent_since.setdefault(name, asked_at)
            if name not in self._away and asyncio.get_running_loop().time() - since >= SILENT_AFTER_S:
                self._away[name] = missing_without(name)
                self._held_up.pop(name, None)
                log.error("actor does not answer", actor=name)
            return
        self._silent_since.pop(name, None)
        if self._away.pop(name, None):
            log.info("actor answers again", actor=name)

    def _told(self, name: str, answer: bytes, now: float) -> None:
        before = self._held_up.get(name, {})
        self._held_up[name] = {
            what: (before[what][0] if what in before else now, why)
            for what, why in _whys.decode(answer).items()
            if why
        }
