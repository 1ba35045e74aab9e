"""The rules of one process for alerts on their way in: relabelling, then filters. Made from the settings and from the CSV files that
they name; applied once to each alert that is new to the process (formats/items.py), remembered with it, and made anew when settings
or files change.

Another label makes another series. So what began by rules that have changed since is ended by both: for KEPT_S the former rules are
kept, and each end is also told to the series that they would have made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog

from models.alerts.alert import Content
from models.alerts.filters import CompiledFilter, Dropped, Filter, verdicts_of
from models.alerts.relabel import CompiledRelabel, Relabel, Relabelling, Step, Table
from models.errors import Malformed
from models.metrics import Meter
from services.ingest.lookup_table import Stamp, read_table, stamp_of

if TYPE_CHECKING:
    from models.settings.all import Settings

log = structlog.get_logger()

#: Former rules that are kept, and for how long: alerts that nobody sends again may be open for days, and a table may change twice a
#: day. Each costs every end the making of its key once more, about 20 us.
FORMER_MAX = 16
KEPT_S = 7 * 86400.0
#: Series of former rules that are remembered as ended, 16 bytes each; and how long all processes take to go by new rules at most,
#: unless one can't reach the control partition.
TOLD_MAX = 65_536
SETTLED_S = 60.0
#: A rule that can't be applied to alerts is a line of the log once in so long.
TOLD_EVERY_S = 600.0


class Ruled(msgspec.Struct, gc=False, frozen=True):
    """What the rules made of an alert: by which relabelling, and which filters drop it while it fires."""

    relabelling: Relabelling
    drops: tuple[Dropped, ...] = ()


class Former(NamedTuple):
    """Rules of before, until when they are kept."""

    relabelling: Relabelling
    until: float


class Rules:
    """All rules of one moment; none of it changes. `failed` is told of a rule that could not be applied to an alert."""

    def __init__(
        self,
        relabelling: Relabelling,
        filters: Sequence[CompiledFilter],
        former: Sequence[Former] = (),
        failed: Callable[[Step], None] = lambda _step: None,
        since: float = 0.0,
    ) -> None:
        self.relabelling = relabelling
        self.filters = filters
        self.former = former
        self._verdict = verdicts_of(filters)
        self._failed = failed
        self._since = since
        #: Series of former rules that were told their end.
        self._told: set[bytes] = set()
        #: What most alerts get.
        self._passes = Ruled(relabelling)

    def over(self, format_name: str, content: Content) -> tuple[Content, Ruled]:
        """An alert by these rules, and what they say of it."""
        if self.relabelling:
            steps: list[Step] = []
            content = self.relabelling.applied(format_name, content, steps)
            for step in steps:
                if step.failed:
                    self._failed(step)
        if not self.filters:
            return content, self._passes
        drops = self._verdict(format_name, content.labels, content.annotations)
        return content, Ruled(self.relabelling, drops) if drops else self._passes

    def was_told(self, series: bytes) -> bool:
        """Whether a series of former rules was told its end: nothing opens it again, and Prometheus repeats an end for a quarter of
        an hour."""
        return series in self._told

    def told(self, series: bytes, now: float) -> None:
        if now - self._since < SETTLED_S:
            return  # a gateway that goes by the former rules still may open it
        if len(self._told) >= TOLD_MAX:
            self._told.clear()
        self._told.add(series)


class RuleKeeper:
    """One a process. take() when settings change, look() once a second and once before the first alert: files are read there."""

    def __init__(self, meter: Meter, changed: Callable[[Rules | None], None]) -> None:
        self._meter = meter
        self._changed = changed
        self.rules: Rules | None = None
        self._wanted: _Wanted | None = None
        self._in_force: _Wanted | None = None
        self._tables: dict[str, tuple[Stamp | None, Table]] = {}
        self._failed: dict[str, tuple[Stamp | None, str]] = {}
        self._told: dict[str, float] = {}
        self._now = 0.0

    def take(self, settings: Settings, now: float) -> None:
        """Go by these settings: at once, unless a file has to be read first."""
        self._now = now
        self._wanted = wanted_of(settings)
        if all(path in self._tables for path in self._wanted.paths):
            self._apply()

    async def look(self, now: float) -> None:
        """Read the files that have changed, and forget former rules whose time is over. What can't be read is told, and the rules stay
        as they are; those of a first start do without it."""
        self._now = now
        wanted = self._wanted
        if wanted is None:
            return
        if (wanted.paths and await self._read(wanted.paths)) or (
            wanted is not self._in_force
            and (self._in_force is None or not any(path in self._failed for path in wanted.paths))
        ):
            self._apply()
        rules = self.rules
        if rules is not None and any(each.until <= now for each in rules.former):
            former = [each for each in rules.former if each.until > now]
            self._set(rules.relabelling, rules.filters, former)

    def _could_not(self, step: Step) -> None:
        """A rule could not be applied to an alert, which is taken without it."""
        self._meter.count("llm_im_relabel_failed_total", rule=step.rule)
        if self._now - self._told.get(step.rule, -TOLD_EVERY_S) >= TOLD_EVERY_S:
            self._told[step.rule] = self._now
            log.warning("relabelling rule not applied to an alert", rule=step.rule, why=step.failed)

    async def _read(self, paths: Sequence[str]) -> bool:
        """Whether any is another than before and all can be used."""
        fresh = False
        for path in paths:
            stamp = await asyncio.to_thread(stamp_of, path)
            known = self._tables.get(path)
            if known is not None and known[0] == stamp:
                self._failed.pop(path, None)
                continue
            failed = self._failed.get(path)
            if failed is not None and failed[0] == stamp:
                continue
            try:
                table = await asyncio.to_thread(read_table, path)
            except Malformed as error:
                self._failed[path] = (stamp, str(error))
                log.error("table of a relabelling rule can't be read", file=path, why=str(error))
                continue
            self._failed.pop(path, None)
            self._tables[path] = (stamp, table)
            fresh = True
        return fresh and not any(path in self._failed and path not in self._tables for path in paths)

    def _apply(self) -> None:
        wanted = self._wanted
        assert wanted is not None
        tables = {path: table for path, (_stamp, table) in self._tables.items()}
        relabelling, filters = wanted.compiled(tables)
        self._in_force = wanted
        self._tables = {path: self._tables[path] for path in wanted.paths if path in self._tables}
        now, before = self._now, self.rules
        was = before.relabelling if before is not None else Relabelling()
        former = [] if before is None else [*before.former]
        if not relabelling.same_as(was):
            # Also at a start: what is open may have begun before there were rules.
            former = [
                Former(was, now + KEPT_S),
                *(each for each in former if not each.relabelling.same_as(was)),
            ]
        former = [each for each in former if not each.relabelling.same_as(relabelling)][:FORMER_MAX]
        self._set(relabelling, filters, former)

    def _set(
        self, relabelling: Relabelling, filters: Sequence[CompiledFilter], former: Sequence[Former]
    ) -> None:
        there_are_some = relabelling or filters or former
        self.rules = (
            Rules(relabelling, filters, tuple(former), self._could_not, self._now) if there_are_some else None
        )
        self._changed(self.rules)


class _Wanted(NamedTuple):
    """The rules of some settings, not compiled yet."""

    relabels: tuple[Relabel, ...]
    filters: tuple[Filter, ...]

    @property
    def paths(self) -> list[str]:
        return sorted({each.map for each in self.relabels if each.map})

    def compiled(self, tables: dict[str, Table]) -> tuple[Relabelling, list[CompiledFilter]]:
        relabels = [CompiledRelabel(each, tables.get(each.map)) for each in self.relabels]
        return Relabelling(relabels), [CompiledFilter(each) for each in self.filters]


def wanted_of(settings: Settings) -> _Wanted:
    names = settings.grouping.service_labels
    relabels = tuple(each.rule(names[0] if names else "service") for each in settings.ingest.relabel)
    filters = (
        *settings.integrations.llm_sentinel.filters.filters(),
        *(each.rule for each in settings.ingest.filters),
    )
    return _Wanted(relabels, filters)


def wrong_rules(settings: Settings, formats: Collection[str]) -> list[str]:
    """What is wrong with rules that shows only beside files and formats: a table that can't be read, a format that there is not."""
    found = []
    for section in ("relabel", "filters"):
        for place, rule in enumerate(getattr(settings.ingest, section)):
            at = f"ingest.{section}[{place}]"
            if rule.format and rule.format not in formats:
                found.append(
                    f"{at}.format: there is no format {rule.format!r}; llm-im formats list shows them"
                )
            if getattr(rule, "map", ""):
                try:
                    read_table(rule.map)
                except Malformed as error:
                    found.append(f"{at}.map: {error}")
    return found
