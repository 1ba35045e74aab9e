"""Section `heartbeats`: heartbeats made, changed, paused and removed, and that they began. What one is stands in
models/control/heartbeats.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from models.control.heartbeats import (
    BY_ALERT_MAX,
    HEARTBEATS_MAX,
    Heartbeat,
    HeartbeatBegan,
    HeartbeatHeard,
    HeartbeatRemoved,
    HeartbeatSet,
    PauseHeartbeat,
    RemoveHeartbeat,
    SetHeartbeat,
    SyncHeartbeats,
    check,
    identity,
)
from models.control.section import ONLY, Section
from models.errors import Conflict, NotFound, TooLarge
from models.partition.event import Event
from models.wire import Wire

#: Who changes what the settings have.
SETTINGS = "settings"

_encoder = msgspec.msgpack.Encoder()
_version_decoder = msgspec.msgpack.Decoder(int)
_decoder = msgspec.msgpack.Decoder(tuple[int, Heartbeat])


class Heartbeats(Section):
    """A record for each heartbeat by its id, and one of the rest. `version` grows with each event: who follows asks for what
    changed since one."""

    name = "heartbeats"
    events = (HeartbeatSet, HeartbeatRemoved, HeartbeatBegan)
    messages = (SetHeartbeat, RemoveHeartbeat, PauseHeartbeat, HeartbeatHeard, SyncHeartbeats)

    def __init__(self, touch: Callable[[bytes], None]) -> None:
        super().__init__(touch)
        #: By id, those that changed last at the end.
        self.all: dict[str, Heartbeat] = {}
        self.version = 0
        #: The version at which one was removed last.
        self.removed = 0
        self._changed: dict[str, int] = {}
        #: Those that alerts are, by id; another one whenever something about them changed.
        self.by_alert: dict[str, Heartbeat] = {}

    def since(self, version: int) -> list[Heartbeat] | None:
        """Those that changed after `version`; None when that can't be said, because one was removed: ask for all."""
        if not self.removed <= version <= self.version:
            return None
        found = []
        for each in reversed(self.all):
            if self._changed[each] <= version:
                break
            found.append(self.all[each])
        return found

    def shown(self, tenant: str = "default") -> Iterator[Heartbeat]:
        """Those of a tenant, by name."""
        for each in sorted(self.all):
            if self.all[each].tenant == tenant:
                yield self.all[each]

    def find(self, name: str, tenant: str = "default") -> Heartbeat:
        """Raises NotFound."""
        found = self.all.get(identity(tenant, name))
        if found is None:
            raise NotFound(f"there is no heartbeat {name[:100]!r}")
        return found

    def has_from_settings(self, wanted: Sequence[Heartbeat], tenant: str) -> bool:
        """Whether these are the heartbeats of a tenant that the settings have, so that telling so would change nothing."""
        known = [each for each in self.all.values() if each.from_file and each.tenant == tenant]
        return len(known) == len(wanted) and all(
            (before := self.all.get(each.id)) is not None
            and before.from_file
            and _is_as(before, msgspec.structs.replace(each, paused=before.paused))
            for each in wanted
        )

    # -- deciding --

    def decide(self, message: Wire, now: float) -> list[Event]:
        """What comes of a message; nothing for a repeat. Raises Malformed, TooLarge, NotFound, Conflict."""
        match message:
            case SetHeartbeat():
                return self._set(message, now)
            case RemoveHeartbeat():
                found = self.all.get(identity(message.tenant, message.name))
                if found is None:
                    return []
                _refuse_from_file(found)
                return [HeartbeatRemoved(found.name, found.tenant, now, message.actor)]
            case PauseHeartbeat():
                found = self.find(message.name, message.tenant)
                if found.paused is message.paused:
                    return []
                paused = _by(found, message.actor, now, paused=message.paused)
                return [HeartbeatSet(paused, message.actor)]
            case HeartbeatHeard():
                found = self.find(message.name, message.tenant)
                return [] if found.began else [HeartbeatBegan(found.name, found.tenant)]
            case SyncHeartbeats():
                return self._sync(message, now)
        return []

    def _set(self, message: SetHeartbeat, now: float) -> list[Event]:
        wanted = message.heartbeat
        check(wanted)
        before = self.all.get(wanted.id)
        if before is not None:
            _refuse_from_file(before)
            if _is_as(before, wanted):
                return []
        after = msgspec.structs.replace(wanted, from_file=False, began=before is not None and before.began)
        after = _by(after, message.actor, now)
        others = [each for each in self.all.values() if each.id != after.id]
        _check_room([*others, after])
        return [HeartbeatSet(after, message.actor)]

    def _sync(self, message: SyncHeartbeats, now: float) -> list[Event]:
        wanted = {each.id: each for each in message.heartbeats}
        events: list[Event] = []
        kept = dict(self.all)
        for each in self.all.values():
            if each.from_file and each.tenant == message.tenant and each.id not in wanted:
                events.append(HeartbeatRemoved(each.name, each.tenant, now, SETTINGS))
                del kept[each.id]
        for each in wanted.values():
            check(each)
            before = self.all.get(each.id)
            # People may pause what the settings have.
            began, paused = (False, False) if before is None else (before.began, before.paused)
            after = msgspec.structs.replace(each, from_file=True, began=began, paused=paused)
            if before is None or not before.from_file or not _is_as(before, after):
                kept[each.id] = after = _by(after, SETTINGS, now)
                events.append(HeartbeatSet(after, SETTINGS))
        _check_room([*kept.values()])
        return events

    # -- folding --

    def apply(self, event: Event, now: float) -> None:
        self._touch(ONLY)
        self.version += 1
        match event:
            case HeartbeatSet():
                self._put(event.heartbeat)
            case HeartbeatBegan():
                before = self.all[identity(event.tenant, event.name)]
                self._put(msgspec.structs.replace(before, began=True))
            case HeartbeatRemoved():
                gone = identity(event.tenant, event.name)
                self._touch(gone.encode())
                del self.all[gone], self._changed[gone]
                self.removed = self.version
                self._index(gone, None)

    def _put(self, heartbeat: Heartbeat) -> None:
        self._touch(heartbeat.id.encode())
        self.all.pop(heartbeat.id, None)
        self.all[heartbeat.id] = heartbeat
        self._changed[heartbeat.id] = self.version
        self._index(heartbeat.id, heartbeat)

    def _index(self, its: str, heartbeat: Heartbeat | None) -> None:
        by_alert = heartbeat is not None and bool(heartbeat.matchers)
        if by_alert or its in self.by_alert:
            self.by_alert = {each: found for each, found in self.by_alert.items() if each != its}
            if heartbeat is not None and by_alert:
                self.by_alert[its] = heartbeat

    def capture(self, key: bytes) -> bytes | None:
        if key == ONLY:
            return _encoder.encode(self.version)
        found = self.all.get(key.decode())
        return None if found is None else _encoder.encode((self._changed[found.id], found))

    def load(self, key: bytes, record: bytes) -> None:
        if key == ONLY:
            self.version = _version_decoder.decode(record)
            return
        changed, found = _decoder.decode(record)
        self.all[found.id], self._changed[found.id] = found, changed

    def loaded(self) -> None:
        # What was removed before is known to nobody any more.
        self.removed = self.version
        self.all = {its: self.all[its] for its in sorted(self.all, key=self._changed.__getitem__)}
        self.by_alert = {its: each for its, each in self.all.items() if each.matchers}


def _by(heartbeat: Heartbeat, actor: str, now: float, *, paused: bool | None = None) -> Heartbeat:
    return msgspec.structs.replace(
        heartbeat,
        changed_at=now,
        changed_by=actor,
        paused=heartbeat.paused if paused is None else paused,
    )


def _is_as(before: Heartbeat, wanted: Heartbeat) -> bool:
    """Whether nothing would change that people decide."""
    return before == msgspec.structs.replace(
        wanted,
        began=before.began,
        from_file=before.from_file,
        changed_at=before.changed_at,
        changed_by=before.changed_by,
    )


def _refuse_from_file(heartbeat: Heartbeat) -> None:
    if heartbeat.from_file:
        raise Conflict(
            f"the heartbeat {heartbeat.name!r} is one of the settings (heartbeats.expected): change it there, then llm-im config reload"
        )


def _check_room(heartbeats: list[Heartbeat]) -> None:
    if len(heartbeats) > HEARTBEATS_MAX:
        raise TooLarge(f"there are {HEARTBEATS_MAX:,} heartbeats already: delete some first")
    if sum(1 for each in heartbeats if each.matchers) > BY_ALERT_MAX:
        raise TooLarge(f"{BY_ALERT_MAX} heartbeats are alerts already (matchers): delete some first")
