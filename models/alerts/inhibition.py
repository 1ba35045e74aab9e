"""Inhibition: while one alert fires, others are muted. A rule names sources and targets by matchers; a source mutes the targets
that have the same values of the rule's `equal` labels (a label that is missing counts as empty), and are of the same tenant.

No alert mutes itself: one that is both source and target of a rule is muted by such alone as are sources only, as in
Alertmanager. So two of those never mute each other either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from models.alerts.matchers import MatcherTuple
from models.alerts.mute_index import MuteIndex

#: Labels whose values must be equal, a rule: a handful in any rule that people understand.
EQUAL_MAX = 32


class InhibitRule(msgspec.Struct, frozen=True, array_like=True):
    """While an alert fires that all of `source` hold for, those are muted that all of `target` hold for and that have the same
    values of `equal`. Names are unique."""

    name: str
    source: tuple[MatcherTuple, ...]
    target: tuple[MatcherTuple, ...]
    equal: tuple[str, ...] = ()


#: A tenant, a rule's name, and the values of its equal labels: what source and target must have in common.
Key = tuple[str, str, tuple[str, ...]]


class Inhibitor(msgspec.Struct, frozen=True, array_like=True):
    """The source that stands for all of one key: the alert's fingerprint and title. `both`: it is a target of the rule as
    well, as are all others of its key."""

    tenant: str
    rule: str
    values: tuple[str, ...]
    fingerprint: str
    title: str
    both: bool = False

    @property
    def key(self) -> Key:
        return self.tenant, self.rule, self.values


class Sides(msgspec.Struct, frozen=True):
    """What an alert is to the rules: the keys of which it is a source, and those of which it is a target, each with whether
    it is the other too."""

    sources: tuple[tuple[Key, bool], ...]
    targets: tuple[tuple[Key, bool], ...]


NEITHER = Sides((), ())


class Rules:
    """Rules as they are asked."""

    def __init__(self, rules: Sequence[InhibitRule]) -> None:
        self._equal = {rule.name: rule.equal for rule in rules}
        self._sources, self._targets = MuteIndex(), MuteIndex()
        for rule in rules:
            self._sources.add(rule.name, rule.source)
            self._targets.add(rule.name, rule.target)

    def __len__(self) -> int:
        return len(self._equal)

    def sides(self, labels: Mapping[str, str], tenant: str) -> Sides:
        """What an alert of a tenant with these labels is to them."""
        sources, targets = self._sources.of(labels), self._targets.of(labels)
        if not sources and not targets:
            return NEITHER
        return Sides(
            tuple((self._key(name, labels, tenant), name in targets) for name in sources),
            tuple((self._key(name, labels, tenant), name in sources) for name in targets),
        )

    def _key(self, name: str, labels: Mapping[str, str], tenant: str) -> Key:
        return tenant, name, tuple([labels.get(each, "") for each in self._equal[name]])


class Inhibition:
    """Which sources fire and which alerts they could mute, of one shard: its own series by number, and what other shards have
    said of theirs."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._sides: dict[int, Sides] = {}
        self._sources: dict[Key, dict[int, bool]] = {}
        self._targets: dict[Key, dict[int, None]] = {}
        #: The series that stands for its own sources of a key.
        self.leads: dict[Key, int] = {}
        #: By key, then by who said it.
        self.heard: dict[Key, dict[str, Inhibitor]] = {}

    def fires(self, number: int, labels: Mapping[str, str], tenant: str) -> list[Key]:
        """Series `number` of a tenant fires. The keys whose own lead is another now."""
        if not len(self.rules) or number in self._sides:
            return []
        sides = self.rules.sides(labels, tenant)
        if sides is NEITHER:
            return []
        self._sides[number] = sides
        for key, _both in sides.targets:
            self._targets.setdefault(key, {})[number] = None
        for key, both in sides.sources:
            self._sources.setdefault(key, {})[number] = both
        return [key for key, _both in sides.sources if self._lead(key)]

    def ends(self, number: int) -> list[Key]:
        """It does not any more."""
        sides = self._sides.pop(number, None)
        if sides is None:
            return []
        for key, _both in sides.targets:
            _drop(self._targets, key, number)
        for key, _both in sides.sources:
            _drop(self._sources, key, number)
        return [key for key, _both in sides.sources if self._lead(key)]

    def targets(self, key: Key) -> Iterator[int]:
        """The series here that a source of this key could mute."""
        return iter(self._targets.get(key, ()))

    def both(self, key: Key) -> bool:
        """Whether the own lead of a key is a target too."""
        return self._sources[key][self.leads[key]]

    def hear(self, who: str, inhibitors: Mapping[Key, Inhibitor | None]) -> None:
        """Another shard, or this one of its own, says what there is of these keys now."""
        for key, inhibitor in inhibitors.items():
            if inhibitor is not None:
                self.heard.setdefault(key, {})[who] = inhibitor
            elif key in self.heard:
                self.heard[key].pop(who, None)
                if not self.heard[key]:
                    del self.heard[key]

    def inhibitor(self, number: int) -> Inhibitor | None:
        """What mutes a series: the first by rule and by shard. None when nothing does."""
        sides = self._sides.get(number)
        if sides is None or not sides.targets:
            return None
        for key, both in sides.targets:
            found = [
                each for _who, each in sorted(self.heard.get(key, {}).items()) if not (both and each.both)
            ]
            if found:
                return found[0]
        return None

    def _lead(self, key: Key) -> bool:
        """Choose who stands for a key; one that is a source only where there is one. Whether it is another than before."""
        before, here = self.leads.get(key), self._sources.get(key, {})
        if before is not None and before in here and not here[before]:
            return False
        after = next((number for number, both in here.items() if not both), None)
        if after is None:
            after = before if before in here else next(iter(here), None)
        if after is None:
            self.leads.pop(key, None)
        else:
            self.leads[key] = after
        return after != before


def _drop(places: dict[Key, dict[int, bool]] | dict[Key, dict[int, None]], key: Key, number: int) -> None:
    here = places[key]
    del here[number]
    if not here:
        del places[key]
