"""A collector's sources beside a system in one process (tests/api/gateway_in_process.py)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from models.settings.all import Settings
from models.settings.processes import COLLECTOR
from models.settings.secrets import revealed
from services.ingest.sources.fetching import Fetchers
from services.ingest.sources.source import SourceNeeds
from tests.api.gateway_in_process import System

#: Generous: nothing waits for so long unless something is wrong.
LONG_S = 20.0


def needs_of(ours: System, name: str = "collector-0", **settings: Any) -> SourceNeeds:
    """What a collector would give its sources under these settings."""
    station = ours.gateway.station
    configured = Settings.model_validate(settings)
    given = revealed(configured.given_to(COLLECTOR))
    assert isinstance(given, dict)
    return SourceNeeds(
        name,
        configured,
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
        given,
    )


@contextlib.asynccontextmanager
async def running(source: Fetchers) -> AsyncIterator[Fetchers]:
    """Started, and stopped at the end. A peer that was away is found soon."""
    for each in source.fetchers:
        each.retry_max_s = 0.2
    await source.start()
    try:
        yield source
    finally:
        await source.stop()


async def until(true: Callable[[], object], what: Callable[[], object] = lambda: "") -> None:
    """Wait until it is so. `what` is shown if it never is."""
    try:
        async with asyncio.timeout(LONG_S):
            while not true():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"it never came to that: {what()}") from None


async def fires(ours: System, wanted: set[str], label: str = "alertname") -> None:
    """Wait until alerts with exactly these values of a label fire."""
    found: set[str] = set()
    try:
        async with asyncio.timeout(LONG_S):
            while found != wanted or (not wanted and await ours.alerts()):
                await asyncio.sleep(0.02)
                found = {each["labels"].get(label, "") for each in await ours.alerts()}
    except TimeoutError:
        raise AssertionError(f"expected {wanted} to fire, found {found}") from None
