"""Those who look: what they see is what the durable log says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from models.errors import IncidentManagerError
from models.incidents.filters import IncidentFilter
from models.incidents.query import ListAlerts, ListIncidents, Query
from models.incidents.query import encode as encode_query
from tests.simulation.area import Area
from tests.simulation.settings import TENANTS


class Reads(Area):
    def lives(self) -> list[Coroutine[Any, Any, None]]:
        return [self._reader()]

    async def _reader(self) -> None:
        """Somebody looks at pages; the wire sees to it that they are true (Watcher.asked)."""
        queries: list[Query] = [
            query
            for tenant in TENANTS
            for query in (
                ListIncidents(tenant, limit=3),
                ListIncidents(tenant, wanted=IncidentFilter(states=["Resolved", "Closed"])),
                ListAlerts(tenant, limit=5, matchers=[("service", "=", "llm-api")]),
                ListAlerts(tenant, firing_only=False),
            )
        ]
        while True:
            await asyncio.sleep(self.world.rng.uniform(0.2, 5.0))
            gateway = self.world.gateway()
            if gateway is None:
                continue
            line = self.world.rng.choice(gateway.lines)
            with contextlib.suppress(IncidentManagerError):
                await line.ask(encode_query(self.world.rng.choice(queries)), 5.0)
