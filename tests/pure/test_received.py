"""The answer that says of each alert what became of it."""

from __future__ import annotations

import asyncio
import json

import pytest

from models.shard.messages import REASONS, Decision
from services.ingest.formats.reading import Fault, Reading
from services.ingest.formats.received import received
from services.ingest.formats.remembered import Memory
from services.ingest.submit import Receipt


def reading(count: int, faults: list[Fault]) -> Reading:
    places = [place for place in range(count) if place not in {fault.index for fault in faults}]
    memories = [Memory(bytes(16), 0, 0.0) for _ in places]
    return Reading(count, places, memories, [0.0] * len(places), lambda _: b"", faults, lambda _: b"")


@pytest.mark.parametrize("name", ["", "v1"])
def test_what_is_plain_is_written_as_all_else_is(name: str) -> None:
    decisions = [*REASONS]
    ids = [bytes([number]) * 16 if number % 3 else b"" for number in range(len(decisions))]
    count = len(decisions)
    fault = Fault(count, "wrong")

    plain = asyncio.run(received(reading(count, []), Receipt([*decisions], ids, {}), name))
    mixed = asyncio.run(received(reading(count + 1, [fault]), Receipt([*decisions], ids, {}), name))

    first, second = json.loads(plain.body), json.loads(mixed.body)
    assert (plain.status, mixed.status) == (202, 207)
    assert first.pop("items") == second.pop("items")[:-1]
    assert first == {**second, "refused": 0}


def test_an_empty_request_and_a_long_one() -> None:
    for count in (0, 1200):
        receipt = Receipt([Decision.REPEATED] * count, [b""] * count, {})

        answer = asyncio.run(received(reading(count, []), receipt))

        items = json.loads(answer.body)["items"]
        assert answer.status == 202
        assert [each["index"] for each in items] == [*range(count)]
