"""Section `playbooks`: playbooks applied, paused and removed. What is kept of one stands in models/control/playbooks.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from models.control.playbooks import (
    BYTES_MAX,
    DIGESTS_KEPT,
    PLAYBOOKS_MAX,
    VERSIONS_KEPT,
    ApplyPlaybook,
    KeptVersion,
    Mode,
    PlaybookApplied,
    PlaybookModeSet,
    PlaybookRemoved,
    RemovePlaybook,
    SetPlaybookMode,
    Shelved,
    check,
)
from models.control.section import ONLY, Section
from models.errors import Conflict, Malformed, NotFound, TooLarge
from models.partition.event import Event
from models.playbook.playbook import decode
from models.wire import Wire

_encoder = msgspec.msgpack.Encoder()
_version_decoder = msgspec.msgpack.Decoder(int)
_decoder = msgspec.msgpack.Decoder(Shelved)


class Shelf(Section):
    """A record for each playbook by its name, and one of the rest. `version` grows with each event."""

    name = "playbooks"
    events = (PlaybookApplied, PlaybookModeSet, PlaybookRemoved)
    messages = (ApplyPlaybook, SetPlaybookMode, RemovePlaybook)

    def __init__(self, touch: Callable[[bytes], None]) -> None:
        super().__init__(touch)
        self.all: dict[str, Shelved] = {}
        self.version = 0

    def shown(self) -> Iterator[Shelved]:
        """Those that are not removed, by name."""
        for name in sorted(self.all):
            if self.all[name].mode is not Mode.REMOVED:
                yield self.all[name]

    def find(self, name: str) -> Shelved:
        """Raises NotFound."""
        found = self.all.get(name)
        if found is None or found.mode is Mode.REMOVED:
            raise NotFound(f"there is no playbook {name!r}")
        return found

    # -- deciding --

    def decide(self, message: Wire, now: float) -> list[Event]:
        """What comes of a message; nothing for a repeat. Raises Malformed, TooLarge, NotFound, Conflict."""
        match message:
            case ApplyPlaybook():
                return self._apply_version(message, now)
            case SetPlaybookMode():
                return self._set_mode(message, now)
            case RemovePlaybook():
                before = self.all.get(message.name)
                if before is not None and before.mode is Mode.REMOVED:
                    return []
                return [PlaybookRemoved(self.find(message.name).name, now, message.actor)]
        return []

    def _apply_version(self, message: ApplyPlaybook, now: float) -> list[Event]:
        check(message)
        before = self.all.get(message.name)
        known = None if before is None else before.digest_of(message.version)
        if known is not None and known != message.digest:
            raise Conflict(
                f"version {message.version} of {message.name!r} was applied before with another text: give this one a new version"
            )
        is_new = before is None or before.mode is Mode.REMOVED
        written = Mode.SHADOW if decode(message.body).shadow else Mode.ACTIVE
        mode = (
            _mode_of(message.mode) if message.mode else written if is_new or before is None else before.mode
        )
        is_kept = before is not None and before.version(message.version) is not None
        if before is not None and not is_new and is_kept and before.current == message.version:
            if before.mode is mode:
                return []
            return [PlaybookModeSet(message.name, mode, now, message.actor)]
        if is_new and sum(1 for _ in self.shown()) >= PLAYBOOKS_MAX:
            raise TooLarge(f"there are {PLAYBOOKS_MAX} playbooks already: remove some first")
        if not is_kept:
            held = sum(each.size for each in self.all.values())
            size = len(message.body) + len(message.source)
            if held + size > BYTES_MAX:
                raise TooLarge(f"all playbooks hold {held:,} bytes already (limit: {BYTES_MAX:,} bytes)")
        body, source = (b"", "") if is_kept else (message.body, message.source)
        return [
            PlaybookApplied(
                message.name, message.version, message.digest, body, source, now, message.actor, mode
            )
        ]

    def _set_mode(self, message: SetPlaybookMode, now: float) -> list[Event]:
        before, mode = self.find(message.name), _mode_of(message.mode)
        return [] if before.mode is mode else [PlaybookModeSet(before.name, mode, now, message.actor)]

    # -- folding --

    def apply(self, event: Event, now: float) -> None:
        self._touch(ONLY)
        self.version += 1
        match event:
            case PlaybookApplied():
                self._touch(event.name.encode())
                before = self.all.get(event.name) or Shelved(event.name, event.mode, "", 0.0, "")
                versions, digests = before.versions, before.digests
                kept = before.version(event.version) or KeptVersion(
                    event.version, event.digest, event.body, event.source, event.at, event.actor
                )
                versions = (*(each for each in versions if each.version != event.version), kept)
                self.all[event.name] = _bounded(
                    Shelved(event.name, event.mode, event.version, event.at, event.actor, versions, digests)
                )
            case PlaybookModeSet():
                self._touch(event.name.encode())
                self.all[event.name] = msgspec.structs.replace(
                    self.all[event.name], mode=event.mode, since=event.at, changed_by=event.actor
                )
            case PlaybookRemoved():
                self._touch(event.name.encode())
                before = self.all[event.name]
                digests = {**before.digests, **{each.version: each.digest for each in before.versions}}
                self.all[event.name] = Shelved(
                    event.name, Mode.REMOVED, "", event.at, event.actor, (), _newest(digests)
                )
                self._forget_removed()

    def _forget_removed(self) -> None:
        """As many removed ones are remembered as there may be others."""
        removed = [each for each in self.all.values() if each.mode is Mode.REMOVED]
        if len(removed) > PLAYBOOKS_MAX:
            oldest = min(removed, key=lambda each: (each.since, each.name)).name
            self._touch(oldest.encode())
            del self.all[oldest]

    def capture(self, key: bytes) -> bytes | None:
        if key == ONLY:
            return _encoder.encode(self.version)
        found = self.all.get(key.decode())
        return None if found is None else _encoder.encode(found)

    def load(self, key: bytes, record: bytes) -> None:
        if key == ONLY:
            self.version = _version_decoder.decode(record)
        else:
            self.all[key.decode()] = _decoder.decode(record)


def _mode_of(given: str) -> Mode:
    if given not in (Mode.ACTIVE, Mode.PAUSED, Mode.SHADOW):
        raise Malformed(f"mode: expected active, paused or shadow, not {given!r}")
    return Mode(given)


def _bounded(shelved: Shelved) -> Shelved:
    gone, kept = shelved.versions[:-VERSIONS_KEPT], shelved.versions[-VERSIONS_KEPT:]
    if not gone:
        return shelved
    digests = {**shelved.digests, **{each.version: each.digest for each in gone}}
    return msgspec.structs.replace(shelved, versions=kept, digests=_newest(digests))


def _newest(digests: dict[str, str]) -> dict[str, str]:
    return dict([*digests.items()][-DIGESTS_KEPT:])
