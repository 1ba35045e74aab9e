"""A dead letter that its store can't take costs no other one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from models.metrics import Meter
from models.ports import DeadLetter
from models.settings.all import Settings
from services.ingest.dead_letters import DeadLetterBox
from services.ingest.formats.format import Request, Shared
from services.ingest.formats.reading import Fault
from services.ingest.formats.remembered import Remembered
from services.ingest.formats.table import open_formats
from services.stores.memory.dead_letters import MemoryDeadLetters
from services.stores.memory.store import MemoryStore
from tests.api.gateway_in_process import SettableClock

pytestmark = pytest.mark.asyncio


class Picky(MemoryDeadLetters):
    """As a database that takes no NUL in a text, and says so by an error of its own."""

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        if any("\0" in each.reason for each in letters):
            raise ValueError("a text may not contain NUL")
        await super().add(letters)


async def test_a_letter_that_cannot_be_stored_is_counted_and_the_others_are_kept() -> None:
    clock, meter = SettableClock(), Meter("test")
    form = open_formats(Shared(Remembered("default", ("service",), 65_536, 100), Settings()))["alertmanager"]
    request = Request(form.path, b"x", 1.0)
    store = Picky(MemoryStore(), max_bytes=10**6, max_age_s=1e6, clock=clock)
    box = DeadLetterBox(store, clock, meter, max_payload_bytes=1000)
    box.start()
    try:
        for why in ("first", "odd \0", "second"):
            box.put("default", form, request, [Fault(-1, why, b"x")])
        async with asyncio.timeout(10.0):
            await box.written()
        box.put("default", form, request, [Fault(-1, "third", b"x")])
        async with asyncio.timeout(10.0):
            await box.written()

        assert [each.reason for each in await store.page(0, 10)] == ["first", "second", "third"]
        lost = [each.value for each in meter.read().counters if each.name == "llm_im_dead_letters_lost_total"]
        assert lost == [1]
    finally:
        await box.stop()
