"""Which silences match an alert: an index over their matchers. A shard asks it about each series that begins or fires again,
so 10,000 silences must cost next to nothing.

Every silence is filed under one of its matchers: one that demands a value (`service="api"`) under that label and value,
a pattern that is a list of words (`pod=~"a|b"`) under each word, any other pattern that demands a label under its name.
An alert's own labels then lead to the few silences that can match it at all. What demands nothing (`team!="x"` alone)
is asked every time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from models.alerts.matchers import MatcherTuple, test_of
from models.alerts.patterns import Budget, Pattern
from models.errors import TooLarge

#: Steps that the patterns of one silence may take for one alert, about 10 ms: they meet the labels of every new series.
WORK_MAX = 25_000
#: What each pattern remembers, transitions and values: 10,000 patterns of their own hold 250 MB at the very most.
KEPT_MAX, SEEN_MAX = 500, 16
#: Words of a pattern that are filed one by one.
WORDS_MAX = 256

#: A pattern that is no more than words with `|` between them.
_WORDS = re.compile(r"[A-Za-z0-9_\-/:@ ]+(?:\|[A-Za-z0-9_\-/:@ ]+)*\Z")

Labels = Mapping[str, str]
_Test = Callable[[Labels], bool]


class _Filed:
    """One silence: where it is filed, and the tests that are left for an alert that was found there."""

    __slots__ = ("budget", "identity", "name", "tests", "words")

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.budget = Budget("silence", WORK_MAX)
        self.tests: list[_Test] = []
        self.name = ""
        self.words: list[str] = []

    def holds(self, labels: Labels) -> bool:
        """Whether the rest of its matchers hold. A pattern that would take too long mutes nothing: a page too many is
        better than none."""
        self.budget.work = 0
        try:
            for test in self.tests:
                if not test(labels):
                    return False
        except TooLarge:
            return False
        return True


class MuteIndex:
    """Silences by what they demand of an alert's labels."""

    def __init__(self) -> None:
        self._filed: dict[str, _Filed] = {}
        #: Label, then value, then silence.
        self._by_value: dict[str, dict[str, dict[str, _Filed]]] = {}
        self._by_name: dict[str, dict[str, _Filed]] = {}
        self._rest: dict[str, _Filed] = {}

    def __len__(self) -> int:
        return len(self._filed)

    def __contains__(self, identity: str) -> bool:
        return identity in self._filed

    def add(self, identity: str, matchers: Sequence[MatcherTuple]) -> None:
        """File a silence; one of the same name is replaced. Raises Malformed, TooLarge for matchers that are none."""
        self.remove(identity)
        filed = _Filed(identity)
        at = self._place(matchers)
        for place, matcher in enumerate(matchers):
            if place == at:
                filed.name, operator, value = matcher
                filed.words = [value] if operator == "=" else _words(value)
            if place != at or not filed.words:
                filed.tests.append(test_of(matcher, filed.budget, _pattern))
        self._filed[identity] = filed
        if not filed.name:
            self._rest[identity] = filed
        elif filed.words:
            values = self._by_value.setdefault(filed.name, {})
            for word in filed.words:
                values.setdefault(word, {})[identity] = filed
        else:
            self._by_name.setdefault(filed.name, {})[identity] = filed

    def remove(self, identity: str) -> None:
        """Take a silence out; one that is not here changes nothing."""
        filed = self._filed.pop(identity, None)
        if filed is None:
            return
        if not filed.name:
            del self._rest[identity]
        elif filed.words:
            values = self._by_value[filed.name]
            for word in filed.words:
                _drop(values, word, identity)
            if not values:
                del self._by_value[filed.name]
        else:
            _drop(self._by_name, filed.name, identity)

    def of(self, labels: Labels) -> list[str]:
        """The names of all silences that match, sorted."""
        if not self._filed:
            return []
        found: list[str] = []
        by_value = self._by_value
        for name in by_value if len(by_value) <= len(labels) else labels:
            values, value = by_value.get(name), labels.get(name)
            if values is None or value is None:
                continue
            here = values.get(value)
            if here is not None:
                found += [each.identity for each in here.values() if not each.tests or each.holds(labels)]
        if self._by_name or self._rest:
            found += [each.identity for each in self._others(labels) if each.holds(labels)]
        return sorted(found) if len(found) > 1 else found

    def _others(self, labels: Labels) -> Iterator[_Filed]:
        for name, here in self._by_name.items():
            if name in labels:
                yield from here.values()
        yield from self._rest.values()

    def _place(self, matchers: Sequence[MatcherTuple]) -> int:
        """The matcher to file under, -1 when none demands a label: the one whose place is the emptiest, patterns that are
        no list of words last."""
        best, rank = -1, (3, 0)
        for place, (name, operator, value) in enumerate(matchers):
            values = self._by_value.get(name, {})
            if operator == "=" and value:
                mine = (0, len(values.get(value, ())))
            elif operator == "=~" and (words := _words(value)):
                mine = (1, max(len(values.get(word, ())) for word in words))
            elif operator == "=~" and not Pattern(value, Budget("silence")).matches(""):
                mine = (2, len(self._by_name.get(name, ())))
            else:
                continue
            if mine < rank:
                best, rank = place, mine
        return best


def _drop(places: dict[str, dict[str, _Filed]], place: str, identity: str) -> None:
    here = places[place]
    del here[identity]
    if not here:
        del places[place]


def _pattern(text: str, budget: Budget) -> Pattern:
    return Pattern(text, budget, kept_max=KEPT_MAX, seen_max=SEEN_MAX)


def _words(pattern: str) -> list[str]:
    """The words that a pattern lists, each once; none when it is more than a list of words."""
    if _WORDS.match(pattern) is None:
        return []
    words = list(dict.fromkeys(pattern.split("|")))
    return words if len(words) <= WORDS_MAX else []
