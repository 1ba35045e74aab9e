"""The silences that a shard knows, and which of them are in force. They are made in the control partition; its actor tells the
shard what became of them. What is silenced by them: models/shard/mutes.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

import msgspec

from models.alerts.mute_index import MuteIndex
from models.control.silences import Silence
from models.errors import Malformed, TooLarge
from models.partition.checkpoint import RecordKind
from models.partition.event import Event
from models.shard.changes import MutersChanged, SilenceOver
from models.shard.component import Component, RecordOf, on
from models.shard.core import Core, Whose
from models.shard.events import ClockSetBack
from models.shard.messages import Done, Message, Reply, Tick

#: Silences come to a snapshot by the bucket: of 10,000 some 150 a record. The record after the last has the version.
BUCKETS = 64
SILENCES = RecordKind("silences")


class SilencesKnown(Event, frozen=True):
    """The shard heard of these silences, as the control partition has them at `version`. `whole`: there are no others."""

    version: int
    silences: list[Silence]
    whole: bool = False


class SilencesChanged(Message, frozen=True):
    """What the control partition says of silences: those that changed up to `version`, or with `whole` all that are in force.
    A version that is known already says nothing new."""

    version: int
    silences: list[Silence]
    whole: bool = False


class KnownSilences(Component):
    name = "silences"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        #: The version of the control partition's silences that was heard last, and those that were not over then.
        self.version = 0
        self.all: dict[str, Silence] = {}
        #: False while a new process has not heard which silences there are. Its actor says so.
        self.is_told = True
        # What follows from the rest: those in force, and when that changes next. Only live.
        self._in_force: dict[str, Silence] = {}
        self._index = MuteIndex()
        self._times: list[tuple[float, str]] = []

    @property
    def in_force(self) -> Mapping[str, Silence]:
        """Those that mute now, by id."""
        return self._in_force

    def matching(self, labels: Mapping[str, str], tenant: str) -> tuple[str, ...]:
        """The ids of those in force that match an alert."""
        found = self._index.of(labels)
        if not found:
            return ()
        return tuple([each for each in found if self._in_force[each].tenant == tenant])

    # -- what the control partition says -------------------------------------------------------------------

    def _changed(self, message: SilencesChanged, now: float) -> Reply:
        self.is_told = True
        said = {each.id: each for each in message.silences if now < each.ends_at or each.id in self.all}
        changed = [identity for identity, each in said.items() if self.all.get(identity) != each]
        gone = [each for each in self.all if each not in said] if message.whole else []
        if changed or gone or message.version != self.version:
            kept = [said[identity] for identity in (said if message.whole else changed)]
            self.shard.do(SilencesKnown(message.version, kept, message.whole), now)
            for identity in [*changed, *gone]:
                self._look_at(identity, now)
        return Done()

    # -- time ----------------------------------------------------------------------------------------------

    def tick(self, tick: Tick, now: float) -> None:
        while self._times and self._times[0][0] <= now:
            _at, identity = heapq.heappop(self._times)
            self._look_at(identity, now)

    def started(self, now: float, is_set_back: bool) -> None:
        self._begin_anew(now)

    def _set_back(self, event: ClockSetBack) -> None:
        """A time that was ahead may have ended silences that go on; its actor tells of all of them again."""
        self._begin_anew(event.after)
        self.shard.report(MutersChanged(), event.after)

    def _begin_anew(self, now: float) -> None:
        self._in_force, self._index, self._times = {}, MuteIndex(), []
        for identity in self.all:
            self._look_at(identity, now)

    def _look_at(self, identity: str, now: float) -> None:
        """A silence is new, or other than before, or its time may have come."""
        after, before = self.all.get(identity), self._in_force.get(identity)
        is_active = after is not None and after.starts_at <= now < after.ends_at
        if after is not None and now < after.ends_at:
            heapq.heappush(self._times, (after.ends_at if is_active else after.starts_at, identity))
        if before is not None and not (is_active and after is not None and after.matchers == before.matchers):
            del self._in_force[identity]
            self._index.remove(identity)
            self.shard.report(SilenceOver(identity), now)
            before = None
        if not is_active or after is None:
            return
        if before is None:
            try:
                self._index.add(identity, after.matchers)
            except (Malformed, TooLarge):
                # Another version of the program let it through. A page too many is better than a shard that ends over it.
                return
            self.shard.report(MutersChanged(), now)
        self._in_force[identity] = after

    # -- live and in replay --------------------------------------------------------------------------------

    def _fold(self, event: SilencesKnown, now: float) -> None:
        before = {} if event.whole else self.all
        after = {**before, **{each.id: each for each in event.silences}}
        after = {identity: each for identity, each in after.items() if now < each.ends_at}
        for identity in {*self.all, *after}:
            if self.all.get(identity) != after.get(identity):
                self.state.checkpoint.touch(SILENCES, _bucket(identity))
        self.state.checkpoint.touch(SILENCES, BUCKETS)
        self.all, self.version = after, event.version

    def _capture(self, bucket: int | bytes) -> bytes | None:
        if bucket == BUCKETS:
            return _encoder.encode(self.version)
        found = [each for identity, each in self.all.items() if _bucket(identity) == bucket]
        return _encoder.encode(found) if found else None

    def _load(self, bucket: int | bytes, record: bytes, _version: int) -> None:
        if bucket == BUCKETS:
            self.version = _version_decoder.decode(record)
        else:
            self.all.update((each.id, each) for each in _silences_decoder.decode(record))

    messages = {SilencesChanged: _changed}
    after = {ClockSetBack: _set_back}
    records = (RecordOf(SILENCES, _capture, _load),)
    events = (on(SilencesKnown, _fold, whose=Whose.SHARD),)


def _bucket(identity: str) -> int:
    # Ids are UUIDs: any of their digits will do, and none but ours must be read as a number.
    return sum(identity.encode()) % BUCKETS


_encoder = msgspec.msgpack.Encoder()
_version_decoder = msgspec.msgpack.Decoder(int)
_silences_decoder = msgspec.msgpack.Decoder(list[Silence])
