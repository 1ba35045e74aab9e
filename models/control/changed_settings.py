"""Section `settings`: the last change of settings made while the system runs, also one of an earlier start, which holds no
more."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from models.control.events import SettingsChanged
from models.control.section import ONLY, Section
from models.partition.event import Event
from models.wire import Wire

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SettingsChanged)


class ChangedSettings(Section):
    name = "settings"
    events = (SettingsChanged,)
    #: Decided by who compared them (services/wiring/reload.py): the event is its own message.
    messages = (SettingsChanged,)

    def __init__(self, touch: Callable[[bytes], None]) -> None:
        super().__init__(touch)
        self.last: SettingsChanged | None = None

    def apply(self, event: Event, now: float) -> None:
        assert isinstance(event, SettingsChanged)
        self._touch(ONLY)
        self.last = event

    def decide(self, message: Wire, now: float) -> list[Event]:
        assert isinstance(message, SettingsChanged)
        return [] if message == self.last else [message]

    def capture(self, key: bytes) -> bytes | None:
        return None if self.last is None else _encoder.encode(self.last)

    def load(self, key: bytes, record: bytes) -> None:
        self.last = _decoder.decode(record)
