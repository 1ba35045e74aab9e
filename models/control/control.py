"""The control partition: what changes seldom, is changed by people, and is needed while its writer is away.

A machine (models/partition/machine.py) made of sections (models/control/assembly.py). Its writer is actors/control.py; all others
fold the same events, of the sections that they go by (actors/control_tail.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from models.control.assembly import SECTIONS
from models.control.begun import Begun
from models.control.changed_settings import ChangedSettings
from models.control.events import SettingsChanged, StoreMoved
from models.control.issuing import IssuedTokens
from models.control.section import Section
from models.control.slots import Slots
from models.control.tokens import Token
from models.errors import Broken, Malformed, Refused
from models.partition.checkpoint import META, SNAPSHOT_VERSION, Checkpoint, RecordKind, parse_key
from models.partition.event import Event, one_of
from models.partition.frames import Frames
from models.partition.sharding import SlotMap
from models.wire import Wire, tag_of

#: The one control partition's name, as the stores know it.
CONTROL = "control"

#: One of the sections' messages.
ControlMessage = Wire

_OWNERS = {message: section for section in SECTIONS for message in section.messages}
_KNOWN = frozenset(event for section in SECTIONS for event in section.events)
#: How its log is read.
FRAMES = Frames(_KNOWN)
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[ControlMessage] = msgspec.msgpack.Decoder(one_of(_OWNERS))
_kinds = {kind.name: kind for kind in (META, *(RecordKind(each.name, has_ids=True) for each in SECTIONS))}
_meta_decoder = msgspec.msgpack.Decoder(tuple[float, ...])

S = TypeVar("S", bound=Section)


def encode_message(message: ControlMessage) -> bytes:
    return _encoder.encode(message)


def decode_message(payload: bytes) -> ControlMessage:
    """Raises Malformed."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise Malformed(f"not a message to the control partition: {error}") from error


class Tick(msgspec.Struct, frozen=True):
    """Time went by."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a message led to. `reply` is why it was refused."""

    events: list[Event]
    reply: Refused | None = None
    effects: Sequence[object] = ()


class ControlState:
    """The fold of the control partition's events, and what comes next. With less than all `sections` it folds theirs only, and
    is for following."""

    frames = FRAMES
    snapshot_version = SNAPSHOT_VERSION
    partition = CONTROL

    def __init__(
        self, sections: Iterable[type[Section]] = SECTIONS, *, partitions: int | None = None
    ) -> None:
        """`partitions`: how many the first start begins with; without it the slots stay unassigned."""
        self.epoch = 0
        self.seq = 0
        self.trace_id: str | None = None
        self.now = 0.0
        self.checkpoint = Checkpoint([*_kinds.values()], self._capture)
        self._partitions = partitions
        self._sections = {kind.name: kind(self._toucher(kind.name)) for kind in sections}
        self._folding = {
            event: [each for each in self._sections.values() if event in each.events] for event in _KNOWN
        }
        #: The events it folds, by their names on the wire.
        self.folds = frozenset(tag_of(event) for event, found in self._folding.items() if found)

    def of(self, kind: type[S]) -> S:
        """A section. Raises KeyError for one that is not folded here."""
        found = self._sections[kind.name]
        assert isinstance(found, kind)
        return found

    # -- what the first sections know, by short names ------------------------------------------------------

    @property
    def slots(self) -> SlotMap | None:
        return self.of(Slots).map

    @property
    def slot_version(self) -> int:
        return 0 if self.slots is None else self.slots.version

    @property
    def moving_to(self) -> SlotMap | None:
        return self.of(Slots).moving_to

    @property
    def copied_from(self) -> str:
        return self.of(Slots).copied_from

    @property
    def moved(self) -> StoreMoved | None:
        return self.of(Slots).moved

    @property
    def begun(self) -> set[str]:
        return self.of(Begun).partitions

    @property
    def tokens(self) -> dict[str, Token]:
        return self.of(IssuedTokens).tokens

    @property
    def guarded(self) -> bool:
        return self.of(IssuedTokens).guarded

    @property
    def token_version(self) -> int:
        return self.of(IssuedTokens).version

    @property
    def settings(self) -> SettingsChanged | None:
        return self.of(ChangedSettings).last

    # -- folding -------------------------------------------------------------------------------------------

    def apply(self, event: Event, now: float) -> None:
        """Fold one event in. Raises Broken for one that belongs to a shard."""
        sections = self._folding.get(type(event))
        if sections is None:
            raise Broken(f"{type(event).__name__} does not belong to the control partition")
        self.now = now
        for section in sections:
            section.apply(event, now)

    def replay(self, events: Sequence[Event], now: float) -> None:
        for event in events:
            self.apply(event, now)

    def load(self, records: Iterable[tuple[str, bytes]]) -> None:
        for key, record in records:
            kind, identity, version = parse_key(key, _kinds)
            self.checkpoint.loaded(kind, identity, record, version)
            if kind is META:
                self.now, *_later = _meta_decoder.decode(record)
            elif (section := self._sections.get(kind.name)) is not None:
                assert isinstance(identity, bytes)
                section.load(identity, record)

    def loaded(self) -> None:
        for section in self._sections.values():
            section.loaded()

    def _capture(self, kind: RecordKind, key: int | bytes) -> bytes | None:
        if kind is META:
            return _encoder.encode((self.now,))
        assert isinstance(key, bytes)
        return self._sections[kind.name].capture(key)

    def _toucher(self, name: str) -> Callable[[bytes], None]:
        return lambda key: self.checkpoint.touch(_kinds[name], key)

    # -- deciding ------------------------------------------------------------------------------------------

    def decide(self, message: ControlMessage, now: float) -> list[Event]:
        """What comes of a message; nothing for a repeat. Raises what its section refuses it by."""
        owner = _OWNERS.get(type(message))
        if owner is None:
            raise Broken(f"{type(message).__name__} is not decided here")
        return [*self._sections[owner.name].decide(message, now)]

    def handle(self, message: ControlMessage | Tick, now: float) -> Step:
        if isinstance(message, Tick):
            return self._step(
                [event for section in self._sections.values() for event in section.due(now)], now
            )
        try:
            return self._step(self.decide(message, now), now)
        except Refused as error:
            return Step([], error)

    def started(self, owner: str, now: float) -> Step:
        begins = [] if self._partitions is None else self.of(Slots).begin(self._partitions)
        return self._step(begins, now)

    def _step(self, events: list[Event], now: float) -> Step:
        for event in events:
            self.apply(event, now)
        return Step(events)
