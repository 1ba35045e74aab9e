"""The collector: what it does when its sources can't be opened, and what health says of one that is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from services.ingest.sources import table
from services.ingest.sources.source import Source, SourceNeeds
from services.ingest.sources.table import SourceKind
from services.wiring import collector, helpers
from tests.api.gateway_in_process import System, system

pytestmark = pytest.mark.asyncio


class Toy(Source):
    """A source that is away as long as `why` says so."""

    name = "toy"
    why = "the toy is away"
    opened: list[Toy] = []
    broken = False

    def __init__(self, needs: SourceNeeds) -> None:
        if Toy.broken:
            raise RuntimeError("no toys today")
        self.events: list[str] = []
        Toy.opened.append(self)

    async def start(self) -> None:
        self.events.append("start")

    async def stop(self) -> None:
        self.events.append("stop")

    @property
    def why_away(self) -> str:
        return Toy.why


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    row = SourceKind("toy", lambda _settings: True, f"{__name__}:Toy")
    monkeypatch.setattr(table, "SOURCES", (row,))
    monkeypatch.setattr(table, "import_module", lambda _name: __import__("types").SimpleNamespace(Toy=Toy))
    monkeypatch.setattr(Toy, "opened", [])
    monkeypatch.setattr(Toy, "broken", False)
    monkeypatch.setattr(Toy, "why", "the toy is away")
    monkeypatch.setattr(helpers, "ASK_EVERY_S", 0.02)
    monkeypatch.setattr(helpers, "SILENT_AFTER_S", 0.05)
    monkeypatch.setattr(collector, "RETRY_S", 0.05)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.01)


async def reasons(ours: System) -> dict[str, str]:
    found: dict[str, str] = (await ours.get("/health/ready")).json.get("reasons", {})
    return found


async def test_a_source_that_is_away_is_named_by_health_until_it_is_back() -> None:
    async with system() as ours:

        async def is_told() -> bool:
            return (await reasons(ours)).get("toy") == "the toy is away"

        async def is_well() -> bool:
            return await reasons(ours) == {}

        await until(is_told)
        assert b'llm_im_source_up{actor="collector-0",source="toy"} 0' in (await ours.get("/metrics")).body
        Toy.why = ""
        await until(is_well)
        [toy] = Toy.opened
        assert toy.events == ["start"]
    assert toy.events == ["start", "stop"]


async def test_sources_that_cannot_be_opened_are_tried_again_and_health_says_why() -> None:
    Toy.broken, Toy.why = True, ""
    async with system() as ours:

        async def is_told() -> bool:
            return "no toys today" in (await reasons(ours)).get("collector-0", "")

        async def is_well() -> bool:
            told = json.loads(await ours.cluster.call("collector-0", "status", b"", 5.0))
            return bool(told == {"toy": ""})

        await until(is_told)
        Toy.broken = False
        await until(is_well)
