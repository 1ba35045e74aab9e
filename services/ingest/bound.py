"""What a bound token may send and resolve: only alerts whose labels match all its matchers.

A token is bound when it is made (`llm-im tokens create --match`). Called by intake.py, between reading a request
and storing it: what it may not send is refused, and the others are stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from models.alerts.alert import SERIES_ID_BYTES, Content
from models.alerts.matchers import Labels, compile_matchers
from models.errors import TooLarge
from services.ingest.arrival import Sender
from services.ingest.formats.json_arrays import SLICE_ALERTS
from services.ingest.formats.reading import Fault, Reading

#: Series of which a gateway remembers whether a token may send them: about 150 bytes each.
REMEMBERED_MAX = 131_072
FORBIDDEN = 403

_content_decoder = msgspec.msgpack.Decoder(Content)


class Bounds:
    """What bound tokens may send, of one gateway. Remembers by token and series: labels decide, and a series has one set."""

    def __init__(self) -> None:
        self._may: dict[bytes, bool] = {}

    async def within(self, sender: Sender, reading: Reading) -> tuple[Reading, list[Fault]]:
        """The part of `reading` that its sender may send, and the rest as faults with status 403."""
        if not sender.match:
            return reading, []
        holds: Callable[[Labels], bool] | None = None
        kept: list[int] = []
        faults: list[Fault] = []
        for column, memory in enumerate(reading.memories):
            key = sender.id.encode() + memory.key[:SERIES_ID_BYTES]
            may = self._may.get(key)
            if may is None:
                if column % SLICE_ALERTS == 0:
                    await asyncio.sleep(0)
                # A new one each time: its total work is bounded (models/alerts/matchers.py). Most requests need none.
                holds = holds or compile_matchers(sender.match)
                try:
                    may = self._find(key, holds, reading, column)
                except TooLarge as error:
                    faults.append(Fault(reading.places[column], str(error), status=FORBIDDEN))
                    continue
            if may:
                kept.append(column)
            else:
                faults.append(Fault(reading.places[column], _words(sender), status=FORBIDDEN))
        if not faults:
            return reading, []
        return reading.only(kept), faults

    def _find(self, key: bytes, holds: Callable[[Labels], bool], reading: Reading, column: int) -> bool:
        may = holds(_content_decoder.decode(reading.body(column)).labels)
        if len(self._may) >= REMEMBERED_MAX:
            self._may.clear()
        self._may[key] = may
        return may


def _words(sender: Sender) -> str:
    wanted = ", ".join(f'{name}{operator}"{value}"' for name, operator, value in sender.match)
    return f"the token {sender.name!r} may neither send nor resolve it: expected labels with {wanted}"
