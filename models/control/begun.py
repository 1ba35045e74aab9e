"""Section `begun`: partitions that had a log, so that it is missed when it is gone."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from models.control.events import PartitionsBegan
from models.control.section import ONLY, Section
from models.partition.event import Event
from models.wire import Wire

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[str])


class Begun(Section):
    name = "begun"
    events = (PartitionsBegan,)
    #: Decided by who looked (actors/control.py): the event is its own message.
    messages = (PartitionsBegan,)

    def __init__(self, touch: Callable[[bytes], None]) -> None:
        super().__init__(touch)
        self.partitions: set[str] = set()

    def apply(self, event: Event, now: float) -> None:
        assert isinstance(event, PartitionsBegan)
        self._touch(ONLY)
        self.partitions.update(event.partitions)

    def decide(self, message: Wire, now: float) -> list[Event]:
        assert isinstance(message, PartitionsBegan)
        fresh = [each for each in message.partitions if each not in self.partitions]
        return [PartitionsBegan(fresh)] if fresh else []

    def capture(self, key: bytes) -> bytes | None:
        return _encoder.encode(sorted(self.partitions))

    def load(self, key: bytes, record: bytes) -> None:
        self.partitions = {*_decoder.decode(record)}
