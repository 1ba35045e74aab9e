"""The playbooks that a shard may choose from, as the control partition has them now. They are only in memory: its actor tells all of
them at each start (actors/playbooks.py), and what a run goes by is copied into the log when the run begins (models/shard/runs.py).

What is in the log is since when the shard knows each, by its own clock: a playbook runs for incidents that open after that, whatever
the clocks of other machines say.
"""

from __future__ import annotations

import math

import msgspec

from models.partition.checkpoint import RecordKind
from models.partition.event import Event
from models.playbook.playbook import Playbook, decode
from models.shard import clock
from models.shard.changes import Change
from models.shard.component import Component, RecordOf, on
from models.shard.core import Core, Whose
from models.shard.events import ClockSetBack
from models.shard.messages import Done, Message, Reply

#: There is one record.
HEARD = RecordKind("playbooks heard")


class Offered(msgspec.Struct, frozen=True, array_like=True):
    """The current version of a playbook. `mode`: active, paused, shadow, since `since` by the control partition's clock."""

    name: str
    version: str
    digest: str
    body: bytes
    mode: str
    since: float


class PlaybooksChanged(Message, frozen=True):
    """All playbooks that the control partition has, at `version`. `own` are those whose schedules are this shard's to go by."""

    version: int
    offered: list[Offered]
    own: list[str] = []


class PlaybooksHeard(Event, frozen=True):
    """The shard hears which playbooks there are: name, digest, and since when each is as it is. There are no others."""

    playbooks: list[tuple[str, str, float]]


class PlaybooksKnown(Change, frozen=True, gc=False):
    """Other playbooks may be chosen than before."""


class KnownPlaybooks(Component):
    name = "playbooks known"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        self.version = 0
        self.offered: dict[str, Offered] = {}
        self.own: frozenset[str] = frozenset()
        #: False while a new process has not heard which playbooks there are. Its actor says so.
        self.is_told = True
        #: By name: digest, since when by the control partition's clock, and when the shard heard it.
        self.heard: dict[str, tuple[str, float, float]] = {}
        #: No incident that opened before then is for any of them.
        self.since = math.inf
        self._books: dict[str, Playbook] = {}

    def book(self, offered: Offered) -> Playbook:
        """What an offered playbook says."""
        found = self._books.get(offered.digest)
        if found is None:
            found = self._books[offered.digest] = decode(offered.body)
        return found

    def heard_at(self, offered: Offered) -> float:
        """Since when this shard knows it as it is."""
        return self.heard[offered.name][2]

    def _changed(self, message: PlaybooksChanged, now: float) -> Reply:
        self.is_told = True
        self.version = message.version
        self.offered = {each.name: each for each in message.offered}
        self.own = frozenset(message.own)
        kept = {each.digest for each in message.offered}
        self._books = {digest: book for digest, book in self._books.items() if digest in kept}
        wanted = {each.name: (each.digest, each.since) for each in message.offered}
        if wanted != {name: heard[:2] for name, heard in self.heard.items()}:
            said = [(name, digest, since) for name, (digest, since) in wanted.items()]
            self.shard.do(PlaybooksHeard(said), now)
        self.shard.report(PlaybooksKnown(), now)
        return Done()

    def _fold_heard(self, event: PlaybooksHeard, now: float) -> None:
        self.state.checkpoint.touch(HEARD, 0)
        before, self.heard = self.heard, {}
        for name, digest, since in event.playbooks:
            known = before.get(name)
            at = known[2] if known is not None and known[:2] == (digest, since) else now
            self.heard[name] = digest, since, at
        self._set_since()

    def _fold_set_back(self, event: ClockSetBack, _now: float) -> None:
        self.state.checkpoint.touch(HEARD, 0)
        self.heard = {
            name: (digest, since, clock.then(at, event)) for name, (digest, since, at) in self.heard.items()
        }
        self._set_since()

    def _set_since(self) -> None:
        self.since = min((at for _digest, _since, at in self.heard.values()), default=math.inf)

    def _capture(self, _number: int | bytes) -> bytes | None:
        return _encoder.encode(self.heard) if self.heard else None

    def _load(self, _number: int | bytes, record: bytes, _version: int) -> None:
        self.heard = _decoder.decode(record)
        self._set_since()

    messages = {PlaybooksChanged: _changed}
    follows = {ClockSetBack: _fold_set_back}
    records = (RecordOf(HEARD, _capture, _load),)
    events = (on(PlaybooksHeard, _fold_heard, whose=Whose.SHARD),)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[str, tuple[str, float, float]])
