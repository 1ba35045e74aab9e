"""Which senders' clocks are wrong, judged by the times they send. Called by intake.py for each request. A sender is
identified by where its alerts say they come from. Its clock is ahead if an alert starts later than now. It is behind if
its times advance and the latest is still in the past; a repeated end does not count, since Prometheus repeats one for a
quarter of an hour. Alerts delayed by a queue look the same. No decision depends on it. It is reported because a sender
that is hours behind looks like one whose alerts have all ended: it gets 200, as from Alertmanager, and opens nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import structlog

from models.metrics import Meter
from models.shard.messages import Claim
from services.ingest.formats.reading import Reading
from services.ingest.formats.remembered import Remembered

log = structlog.get_logger()

#: How much clocks differ normally, plus the time that alerts are in transit.
SKEW_S = 60.0
#: An end further back than this is not a repeated one: Prometheus repeats ends for a quarter of an hour.
OLD_S = 3600.0
#: Senders that a gateway tells apart; their names are labels of a metric, and whoever sends can make them up.
SOURCES_MAX = 64
#: The name of all others.
OTHERS = "others"
#: How often one sender's clock is a line of the log; and after how long one that was not heard of is forgotten.
TOLD_EVERY_S = 600.0
FORGOTTEN_AFTER_S = 3600.0


@dataclass(slots=True)
class _Source:
    latest: float = 0.0
    skew_s: float = 0.0
    found_at: float = -math.inf
    told_at: float = -math.inf


class Skews:
    """The clocks of one gateway's senders."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._sources: dict[str, _Source] = {}
        #: How many of them are off: while none is, a request of alerts that all fire need not be looked at.
        self._off = 0

    def look(self, reading: Reading, remembered: Remembered, now: float) -> None:
        """See what the times of a request that came `now` say of its senders' clocks."""
        newest = remembered.take_newest()
        if newest is not None and newest.starts - now > SKEW_S:
            self._found(newest.source, newest.starts - now, now)
        if not reading.ends or (not self._off and min(reading.ends) > now):
            return
        latest: dict[str, float] = {}
        for column, (memory, end) in enumerate(zip(reading.memories, reading.ends, strict=True)):
            by_ours = bool(reading.said) and reading.said[column] == Claim.RESOLVED_NOW
            if not by_ours and end > latest.get(memory.source, 0.0):
                latest[memory.source] = end
        for name, at in latest.items():
            self._said(name, at, now)

    def measure(self, now: float) -> None:
        """Forget what was found of senders that said nothing more of it."""
        for name, source in self._sources.items():
            if source.skew_s and abs(now - source.found_at) > FORGOTTEN_AFTER_S:
                self._set(name, source, 0.0)

    def _said(self, name: str, at: float, now: float) -> None:
        """The latest end in a request of one sender."""
        name, source = self._source(name)
        before, source.latest = source.latest, max(source.latest, at if at <= now else 0.0)
        behind_s = now - at
        if behind_s > (SKEW_S if 0.0 < before < at else OLD_S):
            self._found(name, -behind_s, now)
        elif source.skew_s < 0.0 and behind_s <= SKEW_S:
            self._set(name, source, 0.0)

    def _found(self, name: str, skew_s: float, now: float) -> None:
        name, source = self._source(name)
        source.found_at = now
        self._set(name, source, skew_s)
        self._meter.count("llm_im_sender_clock_skewed_total", source=name)
        if abs(now - source.told_at) >= TOLD_EVERY_S:
            source.told_at = now
            log.warning(
                "a sender's clock is behind ours, or its alerts come late: they may count as ended"
                if skew_s < 0.0
                else "a sender's clock is ahead of ours: its alerts start in the future",
                source=name,
                seconds=round(abs(skew_s), 1),
            )

    def _set(self, name: str, source: _Source, skew_s: float) -> None:
        self._off += bool(skew_s) - bool(source.skew_s)
        source.skew_s = skew_s
        self._meter.set("llm_im_sender_clock_skew_seconds", round(skew_s, 3), source=name)

    def _source(self, name: str) -> tuple[str, _Source]:
        source = self._sources.get(name)
        if source is None:
            if len(self._sources) >= SOURCES_MAX and not self._drop_one():
                name = OTHERS
            source = self._sources.setdefault(name, _Source())
        return name, source

    def _drop_one(self) -> bool:
        """Forget the sender that is known longest of those whose clocks were never found to be off: there may be any number
        of them, and they must not take the place of one that is to be named."""
        never = (name for name, source in self._sources.items() if source.found_at == -math.inf)
        name = next(never, None)
        if name is not None:
            del self._sources[name]
        return name is not None
