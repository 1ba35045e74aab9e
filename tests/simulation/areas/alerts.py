"""Those who send: they say what fires and what has ended, and repeat themselves as Prometheus and scripts do."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from models.alerts.alert import series_id
from models.errors import IncidentManagerError
from models.incidents.notification import rfc3339
from models.shard.classification import IncidentClassified
from models.shard.events import (
    AlertsObserved,
    AlertsSetAside,
    CallAnswered,
    IncidentOpened,
    IncidentStateChanged,
    SeriesChanged,
    SeriesOpened,
    SeriesRefired,
    SeriesResolved,
)
from models.shard.messages import Decision
from models.shard.openings import OverflowMemberAdded
from models.shard.sharing import AlertsJoined, IncidentDescribed
from tests.simulation.area import Area
from tests.simulation.settings import EVERY_S, RESOLVE_TIMEOUT_S, TENANTS

if TYPE_CHECKING:
    from tests.simulation.world import World

SERVICES = ("llm-api", "vector-db", "billing", "gpu-pool")
ALERTS = ("Down", "Slow")
SEVERITIES = ("critical", "warning", "info", "page")


@dataclass(slots=True)
class Series:
    """What a sender thinks of one thing it watches."""

    tenant: str
    labels: dict[str, str]
    version: int = 0
    firing_since: float | None = None
    ended_at: float | None = None
    end_sends: int = 0
    #: The ends that its sender gave, and None when it said once that it has ended and not when.
    ends: set[float | None] = field(default_factory=set)
    id: bytes = field(default=b"")

    def __post_init__(self) -> None:
        self.id = series_id(self.tenant, self.labels)

    @property
    def annotations(self) -> dict[str, str]:
        return {"summary": f"{self.labels['alertname']} v{self.version}"}


class Alerts(Area):
    """Whoever was told that an alert is kept finds it kept; what fires at the end is what its sender says fires."""

    events = frozenset(
        {
            AlertsObserved, SeriesOpened, SeriesChanged, SeriesResolved, SeriesRefired, AlertsSetAside, CallAnswered,
            IncidentOpened, IncidentDescribed, AlertsJoined, OverflowMemberAdded, IncidentClassified, IncidentStateChanged,
        }
    )  # fmt: skip
    #: All but those asked for again at once, what only a faulty gateway, a broken hash or full memory could bring, and what
    #: people decide, which no sender is told.
    decisions = frozenset(Decision) - {
        Decision.BODY_WANTED, Decision.UNREADABLE, Decision.SPLIT_OFF, Decision.COLLIDED, Decision.SENDER_FULL,
        Decision.SHARD_FULL,
    }  # fmt: skip

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.series: dict[bytes, Series] = {}
        self.acknowledged = 0

    def lives(self) -> list[Coroutine[Any, Any, None]]:
        return [
            *(self._prometheus(number) for number in range(2)),
            *(self._pusher(number) for number in range(2)),
        ]

    async def send(self, tenant: str, door: str, body: bytes, delivery_id: str | None = None) -> bool:
        """One request to one gateway, as a load balancer would. True when all of it was acknowledged."""
        gateway = self.world.gateway()
        if gateway is None:
            await asyncio.sleep(0.1)
            return False
        try:
            taken = await gateway.post(tenant, door, body, delivery_id)
        except IncidentManagerError as error:
            self.world.story("not taken", why=error)
            return False
        self.acknowledged += len(taken)
        return True

    def _make_series(self, tenant: str, who: str, count: int) -> list[Series]:
        rng = self.world.rng
        made = []
        for number in range(count):
            labels = {
                "alertname": rng.choice(ALERTS),
                "service": rng.choice(SERVICES),
                "instance": f"{who}-{number}",
                "severity": rng.choice(SEVERITIES),
            }
            series = Series(tenant, labels)
            self.series[series.id] = series
            made.append(series)
        return made

    async def _prometheus(self, number: int) -> None:
        """Evaluates rules: says again what fires, says for a while what has ended."""
        rng, tenant = self.world.rng, TENANTS[number]
        mine = self._make_series(tenant, f"prom{number}", 6)
        await asyncio.sleep(rng.uniform(0.0, EVERY_S))
        while True:
            now = self.world.time()
            alerts = []
            for series in mine:
                chance = rng.random() if self.world.is_troubled else 1.0
                if series.firing_since is None:
                    if chance < 0.25:
                        series.firing_since = now
                        series.ended_at = None
                elif chance < 0.12:
                    series.firing_since, series.ended_at, series.end_sends = None, now, 4
                    series.ends.add(now)
                elif chance < 0.2:
                    series.version += 1
                if series.firing_since is not None:
                    ends = rfc3339(now + RESOLVE_TIMEOUT_S) if number else ""
                    alerts.append(self._posted(series, series.firing_since, ends))
                elif series.ended_at is not None and series.end_sends:
                    series.end_sends -= 1
                    alerts.append(self._posted(series, series.ended_at - 1.0, rfc3339(series.ended_at)))
            if alerts:
                self.world.spawn(self._once_or_twice(tenant, msgspec.json.encode(alerts)))
            await asyncio.sleep(EVERY_S)

    def _posted(self, series: Series, starts: float, ends: str) -> dict[str, object]:
        return {
            "labels": series.labels,
            "annotations": series.annotations,
            "startsAt": rfc3339(starts),
            "endsAt": ends,
            "generatorURL": "http://prometheus/graph",
        }

    async def _once_or_twice(self, tenant: str, body: bytes) -> None:
        # Prometheus itself sends anew at the next evaluation; a proxy before us may repeat the very same request.
        taken = await self.send(tenant, "alertmanager", body)
        if not taken or (self.world.is_troubled and self.world.rng.random() < 0.05):
            await asyncio.sleep(0.2)
            await self.send(tenant, "alertmanager", body)

    async def _pusher(self, number: int) -> None:
        """Says once that something begins and once that it ends, each under a key of its own, until it was taken."""
        rng, tenant = self.world.rng, TENANTS[number]
        mine = self._make_series(tenant, f"push{number}", 3)
        for count in itertools.count():
            await asyncio.sleep(rng.uniform(0.5, 6.0))
            if not self.world.is_troubled:
                continue
            series = rng.choice(mine)
            now = self.world.time()
            told: dict[str, object] = {"labels": series.labels, "annotations": series.annotations}
            if series.firing_since is None:
                series.firing_since = now
                told["starts_at"] = rfc3339(now)
            else:
                # Of four ways to say it each is enough.
                if rng.random() < 0.5:
                    told["starts_at"] = rfc3339(series.firing_since)
                if rng.random() < 0.5:
                    told["ends_at"] = rfc3339(now)
                if "ends_at" not in told or rng.random() < 0.5:
                    told["status"] = "resolved"
                series.ends.add(now if "status" not in told else None)
                series.firing_since = None
            body, key = msgspec.json.encode(told), f"{number}-{count}"
            while not await self.send(tenant, "v1", body, key):
                await asyncio.sleep(rng.choice((0.0, 0.1, 1.0, 5.0)))
            while rng.random() < 0.2 and self.world.is_troubled:
                # The answer was lost on the way: the sender can't know.
                await asyncio.sleep(rng.choice((0.0, 0.1, 1.0)))
                await self.send(tenant, "v1", body, key)

    def was_ended(self, series: bytes, at: float) -> bool:
        """Whether its sender ever said that a series ended at this time, to the millisecond."""
        if series not in self.series:
            return True  # an alert of our own, of a missed heartbeat
        ends = self.series[series].ends
        return None in ends or any(end is not None and abs(end - at) < 0.002 for end in ends)

    def may_expire(self, series: bytes, starts: float) -> str:
        """Why a series whose present life began at `starts` may not expire now, "" when it may."""
        found, now = self.series[series], self.world.time()
        since = found.firing_since
        if since is None or now - since < RESOLVE_TIMEOUT_S or starts < since - 0.01:
            # It ended, began again just now, or its shard has not heard of this life yet.
            return ""
        return f"{found.labels['instance']} expires by mistake: its sender says that it fires, for {now - since:.0f} s"

    def holds(self) -> None:
        firing = {
            key[:16] for watcher in self.world.watchers.values() for key in watcher.mirror.state.series.firing
        }
        meant = {series.id for series in self.series.values() if series.firing_since is not None}
        for identity in meant - firing:
            self.world.fail(f"{self.series[identity].labels['instance']} fires, and no shard knows")
        for identity in (firing & self.series.keys()) - meant:
            self.world.fail(
                f"{self.series[identity].labels['instance']} has ended, and its shard says it fires"
            )
