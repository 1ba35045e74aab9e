"""Regular expressions that can't be made to hang: RE2's syntax, matched in time linear in the value. What matchers of a
query (models/alerts/matchers.py) and the conditions of classification rules (models/classification/rules.py) are made of.

A pattern is written by anyone who can reach the API, or by an operator, and is matched against values that any sender
may choose; it runs in the shard, the single writer of its partition, or in a classifier. One that backtracks for a
minute would block them for a minute. Python's `re` backtracks, so it is not used. What was weighed:
docs/decisions/0011-regex-of-our-own.md. A pattern becomes an automaton whose transitions are worked out when first
needed, with a bound on states and on work; past it the pattern is refused by name. What RE2 takes and we refuse
(`\\p{..}`, flag m, octal escapes) is refused by name too, never matched otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from models.alerts.pattern_syntax import (
    LAST_POINT,
    WORD,
    Chars,
    Edge,
    Either,
    Group,
    Ranges,
    Repeat,
    Row,
    Tree,
    holds,
    parse,
)
from models.errors import Malformed, TooLarge

#: Characters of one pattern. Room for a dashboard's alternation of a few hundred service names.
PATTERN_CHARS_MAX = 8192
#: States of all automata of one budget, about one a character. Bounds what `(a{1000}){1000}` asks for: 20 ms to build.
STATES_MAX = 10_000
#: State visits that one budget may spend on new transitions, about 0.1 s. A page of 1,000 alerts under `.*foo.*` spends
#: 3,000, under 300 alternatives 50,000; only a pattern made to explode reaches it.
WORK_MAX = 250_000
#: Of the visits' results this many are kept, about 5 MB; then a pattern that lives long begins anew.
KEPT_MAX = 100_000
#: Answers kept for values, of those short enough to come again: 100 kB a pattern.
SEEN_MAX = 512
SEEN_CHARS_MAX = 128


class Budget:
    """What the patterns of one query, or of one rule, may use of STATES_MAX and `work_max` together. `of` names it in
    errors."""

    __slots__ = ("of", "states", "work", "work_max")

    def __init__(self, of: str, work_max: int = WORK_MAX) -> None:
        self.of = of
        self.states = 0
        self.work = 0
        self.work_max = work_max

    def renew(self) -> None:
        """Give the patterns a new budget: for those that live longer than a query."""
        self.work = 0


def rule_pattern(text: str, budget: Budget | None = None, *, search: bool = False) -> Pattern:
    """A condition of an operator's rule: all of a value must match, or with `search` any part of a text, in any case.
    Raises ValueError that says what is wrong."""
    # To RE2 it is five characters. Rules were Python's once, to which it is {0,3}: better to refuse it than to change
    # its meaning.
    if _NO_LEAST.search(text):
        raise ValueError(f"{_NOT_RE2}, not {text[:80]!r}: a repetition needs a minimum count, as in {{0,3}}")
    try:
        return Pattern(text, budget or Budget("classification.rules"), search=search, fold=search)
    except (Malformed, TooLarge) as error:
        raise ValueError(f"{_NOT_RE2}, not {text[:80]!r}: {error}") from None


#: What stood before the next character.
_NOTHING, _OTHER, _LETTER = range(3)
#: A state of the lazy deterministic automaton: states of the pattern's own that wait for the next character, and what
#: stood before it, which `^`, `\\b` and `\\B` ask.
_Set = tuple[frozenset[int], int]
#: Empty moves that are made, or not, between a letter, digit or _ and anything else.
_LETTER_EDGES = ("word", "no word")
#: Of a search: it matches, whatever follows.
_FOUND: _Set = (frozenset((-1,)), _OTHER)


class Pattern:
    """A regular expression in RE2's syntax, matched in time linear in the value: the whole value must match, or with
    `search` any part of it. `fold`: case does not count, as under (?i).

    `kept_max` and `seen_max` bound what it remembers, for patterns of which there are thousands.

    Raises Malformed when `text` is none (the message begins as Alertmanager's does), TooLarge when it needs too many
    states. How: the syntax tree becomes an automaton with empty moves (Thompson); a set of its states is one state of the
    lazy deterministic automaton, which remembers every transition it has worked out (as RE2 does,
    swtch.com/~rsc/regexp/regexp1.html).
    """

    __slots__ = (
        "_accepts",
        "_asks_letters",
        "_budget",
        "_edges",
        "_final",
        "_first",
        "_kept",
        "_kept_max",
        "_search",
        "_seen",
        "_seen_max",
        "_states",
        "_text",
    )

    def __init__(
        self,
        text: str,
        budget: Budget | None = None,
        *,
        search: bool = False,
        fold: bool = False,
        kept_max: int = KEPT_MAX,
        seen_max: int = SEEN_MAX,
    ) -> None:
        self._text = text
        self._budget = budget if budget is not None else Budget("filter")
        self._search = search
        if len(text) > PATTERN_CHARS_MAX:
            raise TooLarge(f"{self._budget.of}: a pattern is longer than {PATTERN_CHARS_MAX} characters")
        self._states: list[_State] = []
        self._final = self._new()
        tree = parse(text, self._budget.of, fold)
        if search:
            tree = Row([Repeat(Chars(((0, LAST_POINT),)), 0, None), tree])
        self._first: _Set = (frozenset((self._build(tree, self._final),)), _NOTHING)
        # Others need not tell letters apart, and have half the states then.
        self._asks_letters = any(state.only_at in _LETTER_EDGES for state in self._states)
        self._kept, self._kept_max = 0, kept_max
        #: Deterministic states met so far and their known transitions.
        self._edges: dict[_Set, dict[str, _Set]] = {}
        self._accepts: dict[_Set, bool] = {}
        #: Label values repeat far more than they differ.
        self._seen: dict[str, bool] = {}
        self._seen_max = seen_max

    def matches(self, value: str) -> bool:
        """Whether `value` matches. Raises TooLarge when that takes more than is left of the budget."""
        known = self._seen.get(value)
        if known is None:
            known = self._run(value)
            if len(value) <= SEEN_CHARS_MAX:
                if len(self._seen) >= self._seen_max:
                    self._seen.clear()
                self._seen[value] = known
        return known

    def _run(self, value: str) -> bool:
        current = self._first
        for char in value:
            edges = self._edges.get(current)
            if edges is None:
                edges = self._edges[current] = {}
            following = edges.get(char)
            if following is None:
                following = self._step(current, char)
                if self._kept > self._kept_max:
                    self._kept = 0
                    self._edges.clear()
                    self._accepts.clear()
                else:
                    edges[char] = following
            if following is _FOUND:
                return True
            if not following[0]:
                return False
            current = following
        accepted = self._accepts.get(current)
        if accepted is None:
            accepted = self._accepts[current] = self._final in self._closure(current, "")
        return accepted

    def _step(self, current: _Set, char: str) -> _Set:
        reached = self._closure(current, char)
        if self._search and self._final in reached:
            return _FOUND
        self._spend(len(reached))
        point = ord(char)
        ahead = [state.next for state in map(self._states.__getitem__, reached) if holds(state.chars, point)]
        return (frozenset(ahead), _LETTER if self._asks_letters and holds(WORD, point) else _OTHER)

    def _closure(self, current: _Set, following: str) -> set[int]:
        """All states that empty moves lead to, between what stood before and the character that follows, "" at the end."""
        waiting, before = current
        reached: set[int] = set()
        todo = list(waiting)
        while todo:
            number = todo.pop()
            if number in reached:
                continue
            reached.add(number)
            state = self._states[number]
            if state.only_at is None or _is_at(state.only_at, before, following):
                todo.extend(state.empty)
        self._spend(len(reached))
        return reached

    def _spend(self, visits: int) -> None:
        budget = self._budget
        budget.work += visits
        self._kept += visits
        if budget.work > budget.work_max:
            raise TooLarge(
                f"{budget.of}: the pattern `{self._text[:80]}` takes more than {budget.work_max} steps"
            )

    def _new(
        self, *, chars: Ranges = (), next: int = -1, empty: Sequence[int] = (), only_at: str | None = None
    ) -> int:
        budget = self._budget
        budget.states += 1
        if budget.states > STATES_MAX:
            raise TooLarge(
                f"{budget.of}: the pattern `{self._text[:80]}` needs more than {STATES_MAX} states"
            )
        self._states.append(_State(chars, next, empty, only_at))
        return len(self._states) - 1

    def _build(self, tree: Tree, then: int) -> int:
        """The state from which `tree` leads to state `then`. Built from the back, so every target exists."""
        match tree:
            case Chars(ranges):
                return self._new(chars=ranges, next=then)
            case Edge(where):
                return self._new(empty=[then], only_at=where)
            case Row(parts):
                for part in reversed(parts):
                    then = self._build(part, then)
                return then
            case Either(options):
                return self._new(empty=[self._build(option, then) for option in options])
            case Group(part):
                return self._build(part, then)
            case Repeat(part, least, most):
                if most is None:
                    loop = self._new()
                    self._states[loop].empty = [self._build(part, loop), then]
                    then = loop
                else:
                    for _ in range(most - least):
                        then = self._new(empty=[self._build(part, then), then])
                for _ in range(least):
                    # At least one state a round, so that `(){1000}` within others stays countable.
                    then = self._new(empty=[self._build(part, then)])
                return then


@dataclass(slots=True)
class _State:
    """One state: either it eats a character out of `chars` and leads to `next`, or it leads to `empty` for
    nothing."""

    chars: Ranges = ()
    next: int = -1
    empty: Sequence[int] = ()
    only_at: str | None = None


def _is_at(where: str, before: int, following: str) -> bool:
    """Whether an empty move may be made here."""
    if where == "start":
        return before == _NOTHING
    if where == "end":
        return not following
    edge = (before == _LETTER) != (following != "" and holds(WORD, ord(following)))
    return edge == (where == "word")


_NOT_RE2 = "expected a regular expression in RE2's syntax"
_NO_LEAST = re.compile(r"(?<!\\)\{,\d+\}")
