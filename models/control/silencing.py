"""Section `silences`: silences made, changed and ended, and forgotten in time. What a silence is stands in
models/control/silences.py."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import takewhile

import msgspec

from models.control.section import ONLY, Section
from models.control.silences import (
    BYTES_MAX,
    RETENTION_S,
    SILENCES_MAX,
    ExpireSilence,
    SetSilence,
    Silence,
    SilenceExpired,
    SilenceSet,
    SilenceState,
    check,
    size_of,
    wanted_of,
)
from models.errors import Malformed, NotFound, TooLarge
from models.partition.event import Event
from models.wire import Wire

_encoder = msgspec.msgpack.Encoder()
_version_decoder = msgspec.msgpack.Decoder(int)
_silence_decoder = msgspec.msgpack.Decoder(tuple[int, Silence])


class Silences(Section):
    """A record for each silence by its id, and one of the rest. `version` grows with each event: who follows asks for what
    changed since one."""

    name = "silences"
    events = (SilenceSet, SilenceExpired)
    messages = (SetSilence, ExpireSilence)

    def __init__(self, touch: Callable[[bytes], None]) -> None:
        super().__init__(touch)
        #: By id, those that changed last at the end.
        self.all: dict[str, Silence] = {}
        self.version = 0
        #: The version at which something was last forgotten that nobody may have seen expire.
        self.forgotten = 0
        self.bytes = 0
        self._changed: dict[str, int] = {}
        self._ends: list[tuple[float, str]] = []

    def since(self, version: int) -> list[Silence] | None:
        """The silences that changed after `version`, in no order; None when that can't be said any more: ask for all."""
        if not self.forgotten <= version <= self.version:
            return None
        newest = takewhile(lambda identity: self._changed[identity] > version, reversed(self.all))
        return [self.all[identity] for identity in newest]

    def in_force(self, now: float) -> list[Silence]:
        """Those that are active or will be."""
        return [each for each in self.all.values() if now < each.ends_at]

    def shown(self, now: float, tenant: str = "default") -> Iterator[Silence]:
        """All that people may see: the expired ones for RETENTION_S."""
        for each in self.all.values():
            if each.tenant == tenant and now < each.ends_at + RETENTION_S:
                yield each

    def find(self, identity: str, now: float, tenant: str = "default") -> Silence:
        """Raises NotFound."""
        found = self.all.get(identity)
        if found is None or found.tenant != tenant or now >= found.ends_at + RETENTION_S:
            raise NotFound("silence not found")
        return found

    # -- deciding --

    def decide(self, message: Wire, now: float) -> list[Event]:
        """What comes of a message; nothing for a repeat. Raises Malformed, TooLarge, NotFound in Alertmanager's words."""
        if isinstance(message, ExpireSilence):
            found = self.find(message.id, now, message.tenant)
            if found.state(now) is SilenceState.EXPIRED:
                return []
            return [SilenceExpired(found.id, now, message.actor)]
        assert isinstance(message, SetSilence)
        return self._set(message, now)

    def _set(self, message: SetSilence, now: float) -> list[Event]:
        if message.new_id in self.all:
            return []
        wanted = wanted_of(message, now)
        check(wanted)
        if message.id:
            before = self.find(message.id, now, message.tenant)
            if before.change == message.new_id:
                return []  # a repeat, before which somebody may have ended it
            if msgspec.structs.replace(wanted, updated_at=before.updated_at, change=before.change) == before:
                return []
            if _can_become(before, wanted, now):
                changed = msgspec.structs.replace(wanted, change=message.new_id)
                self._check_room(changed, before)
                return [SilenceSet(changed, message.created_by)]
        else:
            before = None
        new = msgspec.structs.replace(wanted, id=message.new_id, starts_at=max(wanted.starts_at, now))
        if new.ends_at <= new.starts_at:
            raise Malformed("invalid silence: end time must not be before start time")
        self._check_room(new, None)
        events: list[Event] = [SilenceSet(new, message.created_by)]
        if before is not None and before.state(now) is not SilenceState.EXPIRED:
            events.insert(0, SilenceExpired(before.id, now, message.created_by, replaced_by=new.id))
        return events

    def _check_room(self, silence: Silence, before: Silence | None) -> None:
        if before is None and len(self.in_force(silence.updated_at)) >= SILENCES_MAX:
            raise TooLarge(f"exceeded maximum number of silences: {SILENCES_MAX} (limit: {SILENCES_MAX})")
        held = self.bytes - sum(size_of(each) for each in self._expired(silence.updated_at))
        if held + size_of(silence) - (0 if before is None else size_of(before)) > BYTES_MAX:
            raise TooLarge(f"the silences in force hold {held} bytes already (limit: {BYTES_MAX} bytes)")

    def _expired(self, now: float) -> Iterator[Silence]:
        return (each for each in self.all.values() if each.ends_at <= now)

    # -- folding --

    def apply(self, event: Event, now: float) -> None:
        """Fold one event in; what has been expired for RETENTION_S is forgotten with it."""
        self._touch(ONLY)
        self.version += 1
        if isinstance(event, SilenceSet):
            self._put(event.silence)
            now = event.silence.updated_at
        else:
            assert isinstance(event, SilenceExpired)
            before = self.all[event.id]
            now = event.at
            starts = min(before.starts_at, now)
            self._put(msgspec.structs.replace(before, starts_at=starts, ends_at=now, updated_at=now))
        self._forget(now)

    def capture(self, key: bytes) -> bytes | None:
        if key == ONLY:
            return _encoder.encode(self.version)
        silence = self.all.get(key.decode())
        return None if silence is None else _encoder.encode((self._changed[silence.id], silence))

    def load(self, key: bytes, record: bytes) -> None:
        if key == ONLY:
            self.version = _version_decoder.decode(record)
            return
        changed, silence = _silence_decoder.decode(record)
        self.all[silence.id], self._changed[silence.id] = silence, changed

    def loaded(self) -> None:
        # What was forgotten before is known to nobody any more.
        self.forgotten = self.version
        self.all = {
            identity: self.all[identity] for identity in sorted(self.all, key=self._changed.__getitem__)
        }
        self.bytes = sum(map(size_of, self.all.values()))
        self._ends = [(each.ends_at, each.id) for each in self.all.values()]
        heapq.heapify(self._ends)

    def _put(self, silence: Silence) -> None:
        self._drop(silence.id)
        self._touch(silence.id.encode())
        self.all[silence.id] = silence
        self._changed[silence.id] = self.version
        self.bytes += size_of(silence)
        heapq.heappush(self._ends, (silence.ends_at, silence.id))

    def _drop(self, identity: str) -> None:
        before = self.all.get(identity)
        if before is not None:
            self._touch(identity.encode())
            del self.all[identity]
            self.bytes -= size_of(before)
            del self._changed[identity]

    def _forget(self, now: float) -> None:
        """Drop what was expired for RETENTION_S, and before that the longest expired where all hold too much."""
        while self._ends:
            ends_at, identity = self._ends[0]
            found = self.all.get(identity)
            if found is None or found.ends_at != ends_at:
                heapq.heappop(self._ends)
                continue
            is_crowded = len(self.all) > 2 * SILENCES_MAX or self.bytes > BYTES_MAX
            if ends_at >= now or not (is_crowded or now >= ends_at + RETENTION_S):
                return
            heapq.heappop(self._ends)
            self.forgotten = max(self.forgotten, self._changed[identity])
            self._drop(identity)


def _can_become(before: Silence, after: Silence, now: float) -> bool:
    """Whether a silence may be changed in place: then what it has muted so far stays as it was."""
    if before.matchers != after.matchers:
        return False
    match before.state(now):
        case SilenceState.ACTIVE:
            return int(before.starts_at) == int(after.starts_at) and after.ends_at >= now
        case SilenceState.PENDING:
            return after.starts_at >= now
        case SilenceState.EXPIRED:
            return False
