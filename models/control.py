"""What the control partition decides: which shard partition holds each slot, and settings changed while it runs. Tokens
and silences follow."""

from __future__ import annotations

from array import array

import msgspec

from models.errors import Broken, Malformed
from models.events import Event, SettingsChanged, SlotsAssigned
from models.sharding import SLOTS, SlotMap

#: What the control partition may be told. Settings are decided by who compared them (services/reload.py).
ControlMessage = SettingsChanged

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ControlMessage)


def encode_message(message: ControlMessage) -> bytes:
    return _encoder.encode(message)


def decode_message(payload: bytes) -> ControlMessage:
    """Raises Malformed."""
    try:
        message: ControlMessage = _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise Malformed(f"no message to the control partition: {error}") from error
    return message


class ControlState:
    """The fold of the control partition's events."""

    def __init__(self) -> None:
        self.slots: SlotMap | None = None
        #: The last change of settings, also one of an earlier start, which holds no more.
        self.settings: SettingsChanged | None = None

    @property
    def slot_version(self) -> int:
        return 0 if self.slots is None else self.slots.version

    def begin(self, partitions: int) -> list[Event]:
        """What the first start decides; nothing when it was decided before. The number of partitions stays what it
        was then, whatever the settings say now: slots move only by resharding."""
        if self.slots is not None:
            return []
        first = SlotMap.even(partitions)
        return [SlotsAssigned(first.version, array("H", first.owners).tobytes())]

    def decide(self, message: ControlMessage, now: float) -> list[Event]:
        """What comes of a message; nothing for a repeat."""
        match message:
            case SettingsChanged():
                return [] if message == self.settings else [message]
            case _:
                raise Broken(f"{type(message).__name__} is not decided here")

    def apply(self, event: Event) -> None:
        """Fold one event in. Raises Broken for one that belongs to a shard."""
        match event:
            case SlotsAssigned():
                owners = array("H", event.owners)
                if len(owners) != SLOTS:
                    raise Broken(f"a slot map has {SLOTS} slots, this one {len(owners)}")
                self.slots = SlotMap(event.version, tuple(owners))
            case SettingsChanged():
                self.settings = event
            case _:
                raise Broken(f"{type(event).__name__} does not belong to the control partition")
