"""Which alerts inhibit others, across shards: each shard says which of its firing alerts are sources of the rules, one for each
rule and values of its equal labels, and hears the same of the others. What is inhibited by them: models/shard/mutes.py.

    shard 0: a source fires --SendInhibitors--> every other shard: InhibitorsKnown --> its targets are muted

What others said is in this shard's log. What this one says follows from its series and the rules, and is made anew by every
process: all of it is sent again then, and who has it already logs nothing. After that only what changed is sent, one message
at a time to each shard; `since` joins them, and who missed one asks for all.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

import msgspec

from models.alerts.alert import fingerprint
from models.alerts.grouping import title_of
from models.alerts.inhibition import Inhibition, Inhibitor, Key, Rules
from models.alerts.series import FIRING
from models.partition.checkpoint import RecordKind
from models.partition.event import Event
from models.shard.archiving import IncidentArchived
from models.shard.changes import MutersChanged, SeriesEnded, SeriesFires
from models.shard.component import Component, RecordOf, on
from models.shard.core import Core, Whose
from models.shard.effects import Effect
from models.shard.messages import Done, Failed, Message, Reply, Tick

#: Sources that a shard tells the others of: 3 MB once. Those past it inhibit alerts of their own shard only.
TOLD_MAX = 20_000
#: Series tried with the rules in one step, when a process begins or the rules changed: 25 ms.
STRETCH = 5000
#: A record for each shard that said something, by its partition.
INHIBITORS = RecordKind("inhibitors", has_ids=True)


class InhibitorsKnown(Event, frozen=True):
    """Another shard said which of its alerts inhibit others: these now, and of `gone` none any more. `number` counts what
    `sender` said as epoch `epoch`."""

    sender: str
    epoch: int
    number: int
    inhibitors: list[Inhibitor]
    gone: list[Key] = []


class InhibitorsChanged(Message, frozen=True):
    """Another shard says which of its alerts inhibit others; see InhibitorsKnown. `whole`: there are no others. `since` is the
    number this follows on: one that was not heard makes it Failed, and all is to be said again. Answered by Done; a repeat
    gets the same answer."""

    sender: str
    epoch: int
    since: int
    number: int
    inhibitors: list[Inhibitor]
    gone: list[Key] = []
    whole: bool = False


class InhibitorsHeard(Message, frozen=True):
    """The other shard has them durably: the answer to effect SendInhibitors. `refused`: it missed something before."""

    to: str
    number: int
    refused: bool = False


class SendInhibitors(Effect, frozen=True):
    """Asks for word of which alerts inhibit others to be brought to another shard (partition `to`). Answered by message
    InhibitorsHeard; safe to ask twice. After a crash all of it is sent again."""

    to: str
    news: InhibitorsChanged


class Inhibitors(Component):
    name = "inhibitors"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        #: The shard partitions there are; its actor says so.
        self.peers: tuple[str, ...] = ()
        #: What other shards have said: by partition what it was last, and the inhibitors.
        self.heard: dict[str, tuple[int, int]] = {}
        self.others: dict[str, dict[Key, Inhibitor]] = {}
        # What follows from the rest: what this shard's series are to the rules. Only live.
        self._rules = Rules(shard.settings.inhibit)
        self._by_rules = shard.settings.inhibit
        self._inhibition = Inhibition(self._rules)
        self._has_rules = len(self._rules) > 0
        #: How many series are still to be tried with the rules, and the next of them.
        self._left = self._at = 0
        #: What this shard says: changes are numbered.
        self._own: dict[Key, Inhibitor] = {}
        self._number = 1
        self._changes: dict[Key, int] = {}
        #: By shard, the number of the last change that it has; and the one that is on its way to it.
        self._acked: dict[str, int] = {}
        self._asked: dict[str, int] = {}

    @property
    def has_rules(self) -> bool:
        return self._has_rules

    @property
    def is_complete(self) -> bool:
        """Whether all that fires here was tried with the rules: until then more may be inhibited than inhibitor() says."""
        return not self._left

    def inhibitor(self, number: int) -> Inhibitor | None:
        """The alert that a firing series is muted by, None when there is none."""
        return self._inhibition.inhibitor(number)

    # -- what fires here -----------------------------------------------------------------------------------

    def _fires(self, change: SeriesFires, now: float) -> None:
        if self._has_rules:
            content = change.content
            labels = self.state.series.labels(change.number) if content is None else content.labels
            self._lead(self._inhibition.fires(change.number, labels, change.incident.tenant), now)

    def _ends(self, change: SeriesEnded, now: float) -> None:
        if self._has_rules:
            self._lead(self._inhibition.ends(change.number), now)

    def _archived(self, event: IncidentArchived) -> None:
        """Of an incident that a person closed, series may fire still; their numbers will be others'."""
        if self._has_rules:
            for number in array("I", event.numbers):
                self._lead(self._inhibition.ends(number), self.state.now)

    def _lead(self, keys: Iterable[Key], now: float) -> None:
        """Others stand for these keys than before."""
        targets: list[int] = []
        for key in keys:
            inhibitor = self._own_inhibitor(key)
            self._inhibition.hear(self.shard.partition, {key: inhibitor})
            is_told = key in self._own or len(self._own) < TOLD_MAX
            if inhibitor is None:
                self._own.pop(key, None)
            elif is_told:
                self._own[key] = inhibitor
            if is_told:
                self._number += 1
                self._changes.pop(key, None)
                self._changes[key] = self._number
            targets += self._inhibition.targets(key)
        if targets:
            self.shard.report(MutersChanged(targets), now)

    def _own_inhibitor(self, key: Key) -> Inhibitor | None:
        number = self._inhibition.leads.get(key)
        if number is None:
            return None
        series = self.state.series
        labels, incident = series.labels(number), series.incidents[number]
        title = title_of(labels, {}, "" if incident is None else incident.service)
        return Inhibitor(*key, fingerprint(labels), title, self._inhibition.both(key))

    # -- beginnings ----------------------------------------------------------------------------------------

    def started(self, now: float, is_set_back: bool) -> None:
        self._begin_anew()
        for sender in [each for each in self.others if self.peers and each not in self.peers]:
            # Shards that are there no more have nothing that fires.
            epoch, number = self.heard[sender]
            self.shard.do(InhibitorsKnown(sender, epoch, number + 1, [], [*self.others[sender]]), now)
        self._try_some(now)

    def settings_changed(self) -> None:
        if self.shard.settings.inhibit != self._by_rules:
            self._begin_anew()
            if not self._left:
                self.shard.report(MutersChanged(), self.state.now)

    def tick(self, tick: Tick, now: float) -> None:
        self._try_some(now)

    def _begin_anew(self) -> None:
        """What this shard's series are to the rules is to be found anew, and nobody is known to have anything of it."""
        self._by_rules = self.shard.settings.inhibit
        self._rules = Rules(self._by_rules)
        self._inhibition = Inhibition(self._rules)
        self._has_rules = len(self._rules) > 0
        self._own, self._changes = {}, {}
        self._number += 1
        self._acked.clear()
        self._asked.clear()
        for sender, known in self.others.items():
            self._inhibition.hear(sender, {**known})
        self._at, self._left = 0, self.state.series.used if self._has_rules else 0

    def _try_some(self, now: float) -> None:
        if not self._left:
            return
        series = self.state.series
        more = min(STRETCH, self._left)
        keys: dict[Key, None] = {}
        for number in range(self._at, self._at + more):
            incident = series.incidents[number]
            if incident is not None and series.status[number] == FIRING:
                changed = self._inhibition.fires(number, series.labels(number), incident.tenant)
                keys.update(dict.fromkeys(changed))
        self._at += more
        self._left -= more
        self._lead(keys, now)
        if not self._left:
            # Only now it is known which alerts inhibit none any more.
            self.shard.report(MutersChanged(), now)

    # -- saying it -----------------------------------------------------------------------------------------

    def owed(self, now: float) -> Iterable[Effect]:
        # Asked after each message, and nearly always for nothing.
        return self._unsaid() if self._has_rules or self._acked else ()

    def _unsaid(self) -> Iterator[Effect]:
        for to in self.peers:
            if to == self.shard.partition or to in self._asked or self._acked.get(to) == self._number:
                continue
            self._asked[to] = self._number
            yield SendInhibitors(to, self._news(self._acked.get(to)))

    def _news(self, acked: int | None) -> InhibitorsChanged:
        """What is new to a shard that has the changes up to a number; None: all of it."""
        is_whole = acked is None
        keys = self._own if acked is None else [key for key, at in self._changes.items() if at > acked]
        return InhibitorsChanged(
            self.shard.partition,
            self.shard.epoch,
            acked or 0,
            self._number,
            [self._own[key] for key in keys if key in self._own],
            [key for key in keys if key not in self._own],
            is_whole,
        )

    def ask_again(self, effect: SendInhibitors) -> None:
        self._asked.pop(effect.to, None)

    def _heard(self, message: InhibitorsHeard, now: float) -> Reply:
        if self._asked.pop(message.to, None) is None:
            return Done()
        if message.refused:
            self._acked.pop(message.to, None)
            return Done()
        self._acked[message.to] = message.number
        # What all have heard is not asked for any more.
        least = min(self._acked.values())
        while self._changes and (first := next(iter(self._changes.items())))[1] <= least:
            del self._changes[first[0]]
        return Done()

    # -- hearing it ----------------------------------------------------------------------------------------

    def _hear(self, message: InhibitorsChanged, now: float) -> Reply:
        epoch, number = self.heard.get(message.sender, (0, 0))
        if (message.epoch, message.number) <= (epoch, number):
            return Done()
        if not message.whole and (message.epoch, message.since) != (epoch, number):
            return Failed("Stale", f"{self.shard.partition} has not heard what {message.sender} said before")
        before = self.others.get(message.sender, {})
        said = {each.key: each for each in message.inhibitors}
        changed = [key for key, each in said.items() if before.get(key) != each]
        gone = [
            key for key in (before if message.whole else message.gone) if key in before and key not in said
        ]
        self.shard.do(
            InhibitorsKnown(
                message.sender, message.epoch, message.number, [said[key] for key in changed], gone
            ),
            now,
        )
        targets = [number for key in (*changed, *gone) for number in self._inhibition.targets(key)]
        if targets:
            self.shard.report(MutersChanged(targets), now)
        return Done()

    # -- live and in replay --------------------------------------------------------------------------------

    def _fold(self, event: InhibitorsKnown, now: float) -> None:
        self.state.checkpoint.touch(INHIBITORS, event.sender.encode())
        self.heard[event.sender] = event.epoch, event.number
        known = self.others.setdefault(event.sender, {})
        for key in event.gone:
            known.pop(key, None)
        known.update((each.key, each) for each in event.inhibitors)
        if not known:
            del self.others[event.sender]
        changes: dict[Key, Inhibitor | None] = {**dict.fromkeys(event.gone)}
        self._inhibition.hear(event.sender, changes | {each.key: each for each in event.inhibitors})

    def _capture(self, sender: int | bytes) -> bytes | None:
        name = bytes(sender).decode() if isinstance(sender, bytes) else ""
        if name not in self.heard:
            return None
        return _encoder.encode((*self.heard[name], [*self.others.get(name, {}).values()]))

    def _load(self, sender: int | bytes, record: bytes, _version: int) -> None:
        assert isinstance(sender, bytes)
        name = sender.decode()
        epoch, number, known = _decoder.decode(record)
        self.heard[name] = epoch, number
        if known:
            self.others[name] = {each.key: each for each in known}

    reactions = {SeriesFires: _fires, SeriesEnded: _ends}
    messages = {InhibitorsChanged: _hear, InhibitorsHeard: _heard}
    after = {IncidentArchived: _archived}
    effects = (SendInhibitors,)
    records = (RecordOf(INHIBITORS, _capture, _load),)
    events = (on(InhibitorsKnown, _fold, whose=Whose.SHARD),)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[int, int, list[Inhibitor]])
