"""Regular expressions that can't be made to hang: RE2's syntax, matched in time linear in the value. What matchers of a
query (models/matchers.py) and the conditions of classification rules (models/rules.py) are made of.

A pattern is written by whoever can reach the API, or by an operator, and meets values that any sender may choose; it runs
in the shard, the single writer of its partition, or in a classifier. One that backtracks for a minute would stop them for a
minute. Python's `re` backtracks, so it is not used. What was weighed: docs/decisions/0011-regex-of-our-own.md. A pattern
becomes an automaton whose transitions are worked out when first needed, with a bound on states and on work; past it the
pattern is refused by name. What RE2 takes and we refuse (`\\p{..}`, flag m, octal escapes) is refused by name too, never
matched otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

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
#: Groups within groups. Reading and building recurse a few frames a level.
NESTING_MAX = 50
#: The highest count in {n,m}, as in RE2.
REPEAT_MAX = 1000


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
        """Let the patterns work anew: for those that live longer than a query."""
        self.work = 0


def rule_pattern(text: str, budget: Budget | None = None, *, search: bool = False) -> Pattern:
    """A condition of an operator's rule: all of a value must match, or with `search` any part of a text, in any case.
    Raises ValueError that says what is wrong."""
    # To RE2 it is five characters. Rules were Python's once, to which it is {0,3}: better none than another meaning.
    if _NO_LEAST.search(text):
        raise ValueError(f"{_NOT_RE2}, not {text[:80]!r}: a repetition needs its least count, as in {{0,3}}")
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
        "_search",
        "_seen",
        "_states",
        "_text",
    )

    def __init__(
        self, text: str, budget: Budget | None = None, *, search: bool = False, fold: bool = False
    ) -> None:
        self._text = text
        self._budget = budget if budget is not None else Budget("filter")
        self._search = search
        if len(text) > PATTERN_CHARS_MAX:
            raise TooLarge(f"{self._budget.of}: a pattern is longer than {PATTERN_CHARS_MAX} characters")
        self._states: list[_State] = []
        self._final = self._new()
        tree = _Parser(text, self._budget.of, fold).parse()
        if search:
            tree = _Row([_Repeat(_Chars(((0, _LAST),)), 0, None), tree])
        self._first: _Set = (frozenset((self._build(tree, self._final),)), _NOTHING)
        # Others need not tell letters apart, and have half the states then.
        self._asks_letters = any(state.only_at in _LETTER_EDGES for state in self._states)
        self._kept = 0
        #: Deterministic states met so far and their known transitions.
        self._edges: dict[_Set, dict[str, _Set]] = {}
        self._accepts: dict[_Set, bool] = {}
        #: Label values repeat far more than they differ.
        self._seen: dict[str, bool] = {}

    def matches(self, value: str) -> bool:
        """Whether `value` matches. Raises TooLarge when that takes more than is left of the budget."""
        known = self._seen.get(value)
        if known is None:
            known = self._run(value)
            if len(value) <= SEEN_CHARS_MAX:
                if len(self._seen) >= SEEN_MAX:
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
                if self._kept > KEPT_MAX:
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
        ahead = [state.next for state in map(self._states.__getitem__, reached) if _holds(state.chars, point)]
        return (frozenset(ahead), _LETTER if self._asks_letters and _holds(_WORD, point) else _OTHER)

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
        self, *, chars: _Ranges = (), next: int = -1, empty: Sequence[int] = (), only_at: str | None = None
    ) -> int:
        budget = self._budget
        budget.states += 1
        if budget.states > STATES_MAX:
            raise TooLarge(
                f"{budget.of}: the pattern `{self._text[:80]}` needs more than {STATES_MAX} states"
            )
        self._states.append(_State(chars, next, empty, only_at))
        return len(self._states) - 1

    def _build(self, tree: _Tree, then: int) -> int:
        """The state from which `tree` leads to state `then`. Built from the back, so every target exists."""
        match tree:
            case _Chars(ranges):
                return self._new(chars=ranges, next=then)
            case _Edge(where):
                return self._new(empty=[then], only_at=where)
            case _Row(parts):
                for part in reversed(parts):
                    then = self._build(part, then)
                return then
            case _Either(options):
                return self._new(empty=[self._build(option, then) for option in options])
            case _Repeat(part, least, most):
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


_Ranges = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class _State:
    """One state: either it eats a character out of `chars` and leads to `next`, or it leads to `empty` for
    nothing."""

    chars: _Ranges = ()
    next: int = -1
    empty: Sequence[int] = ()
    only_at: str | None = None


@dataclass(frozen=True, slots=True)
class _Chars:
    ranges: _Ranges


@dataclass(frozen=True, slots=True)
class _Edge:
    where: str


@dataclass(frozen=True, slots=True)
class _Row:
    parts: list[_Tree]


@dataclass(frozen=True, slots=True)
class _Either:
    options: list[_Tree]


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: _Tree
    least: int
    most: int | None


_Tree = _Chars | _Edge | _Row | _Either | _Repeat

_LAST = 0x10FFFF
_DIGIT: _Ranges = ((0x30, 0x39),)
_WORD: _Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_BLANK: _Ranges = ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20))
#: Perl's classes are ASCII in RE2.
_PERL = {"d": _DIGIT, "w": _WORD, "s": _BLANK}
_POSIX: dict[str, _Ranges] = {
    "alnum": ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)),
    "alpha": ((0x41, 0x5A), (0x61, 0x7A)),
    "ascii": ((0x00, 0x7F),),
    "blank": ((0x09, 0x09), (0x20, 0x20)),
    "cntrl": ((0x00, 0x1F), (0x7F, 0x7F)),
    "digit": _DIGIT,
    "graph": ((0x21, 0x7E),),
    "lower": ((0x61, 0x7A),),
    "print": ((0x20, 0x7E),),
    "punct": ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)),
    "space": ((0x09, 0x0D), (0x20, 0x20)),
    "upper": ((0x41, 0x5A),),
    "word": _WORD,
    "xdigit": ((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)),
}
_CONTROL = {"a": 0x07, "f": 0x0C, "t": 0x09, "n": 0x0A, "r": 0x0D, "v": 0x0B}
#: The counts of the quantifiers of one character.
_QUANTIFIERS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_NOT_RE2 = "expected a regular expression in RE2's syntax"
_NO_LEAST = re.compile(r"(?<!\\)\{,\d+\}")
_REPEAT = re.compile(r"\{([0-9]+)(,([0-9]*))?\}")
_HEX = re.compile(r"x(?:([0-9a-fA-F]{2})|\{([0-9a-fA-F]{1,8})\})")
_GROUP = re.compile(r"\(\?(?:P?<([A-Za-z0-9_]+)>|([a-zA-Z]*)(?:-([a-zA-Z]+))?([:)]))")
_POSIX_CLASS = re.compile(r"\[:(\^?)([a-z]+):\]")
#: Widest range whose letters are folded one by one under (?i); a wider one already holds most cases of its
#: letters.
_FOLD_MAX = 0x400


class _Parser:
    """Reads RE2's syntax into a tree. Greedy or not makes no difference to whether a value matches."""

    def __init__(self, text: str, of: str, fold: bool) -> None:
        self._text = text
        self._of = of
        self._at = 0
        self._depth = 0
        self._fold = fold
        self._dot_is_all = False

    def parse(self) -> _Tree:
        tree = self._either()
        if self._at < len(self._text):
            raise self._error(f"unexpected ): `{_anchored(self._text)}`")
        return tree

    def _error(self, why: str) -> Malformed:
        return Malformed(f"error parsing regexp: {why}")

    def _either(self) -> _Tree:
        # Flags set inside a group end with it.
        fold, dot_is_all = self._fold, self._dot_is_all
        options = [self._row()]
        while self._text.startswith("|", self._at):
            self._at += 1
            options.append(self._row())
        self._fold, self._dot_is_all = fold, dot_is_all
        return options[0] if len(options) == 1 else _Either(options)

    def _row(self) -> _Tree:
        parts: list[_Tree] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            parts.append(self._repeated(self._atom()))
        return _Row(parts)

    def _repeated(self, part: _Tree) -> _Tree:
        start = self._at
        found = self._quantifier()
        if found is None:
            return part
        if self._quantifier() is not None:
            raise self._error(f"invalid nested repetition operator: `{self._text[start : self._at]}`")
        return _Repeat(part, *found)

    def _quantifier(self) -> tuple[int, int | None] | None:
        """The counts of a quantifier that stands here, which is passed with its lazy mark; None when none
        does."""
        char = self._text[self._at : self._at + 1]
        found: tuple[int, int | None]
        if char in _QUANTIFIERS:
            found = _QUANTIFIERS[char]
            self._at += 1
        else:
            match = _REPEAT.match(self._text, self._at)
            if match is None:
                return None
            # Length first: int() is slow on thousands of digits.
            if max(len(match[1]), len(match[3] or "")) > len(str(REPEAT_MAX)):
                raise self._error(f"invalid repeat count: `{match[0][:80]}`")
            least = int(match[1])
            most = least if match[2] is None else (int(match[3]) if match[3] else None)
            if least > REPEAT_MAX or (most is not None and not least <= most <= REPEAT_MAX):
                raise self._error(f"invalid repeat count: `{match[0]}`")
            found = (least, most)
            self._at = match.end()
        if self._text.startswith("?", self._at):
            self._at += 1
        return found

    def _atom(self) -> _Tree:
        char = self._text[self._at]
        if char in _QUANTIFIERS:
            raise self._error(f"missing argument to repetition operator: `{char}`")
        if char == "(":
            return self._group()
        if char == "[":
            return self._bracket()
        if char == "\\":
            return self._escape()
        self._at += 1
        if char == "^":
            return _Edge("start")
        if char == "$":
            return _Edge("end")
        if char == ".":
            return _Chars(((0, _LAST),) if self._dot_is_all else ((0, 9), (11, _LAST)))
        return self._literal(ord(char))

    def _literal(self, point: int) -> _Tree:
        return self._chars([(point, point)])

    def _chars(self, ranges: Sequence[tuple[int, int]], *, negated: bool = False) -> _Chars:
        found = _folded(ranges) if self._fold else list(ranges)
        return _Chars(_complement(found) if negated else tuple(found))

    def _group(self) -> _Tree:
        if self._depth >= NESTING_MAX:
            raise TooLarge(f"{self._of}: the pattern nests more than {NESTING_MAX} groups")
        fold, dot_is_all = self._fold, self._dot_is_all
        if self._text.startswith("(?", self._at):
            head = _GROUP.match(self._text, self._at)
            if head is None:
                raise self._error(
                    f"invalid or unsupported Perl syntax: `{self._text[self._at : self._at + 3]}`"
                )
            self._at = head.end()
            if head[4] is not None:
                self._set_flags(head[2], head[3] or "", head[0])
            if head[4] == ")":
                # Flags for the rest of the group that this stands in; _either puts the old ones back.
                return _Row([])
        else:
            self._at += 1
        self._depth += 1
        tree = self._either()
        self._depth -= 1
        self._fold, self._dot_is_all = fold, dot_is_all
        if not self._text.startswith(")", self._at):
            raise self._error(f"missing closing ): `{_anchored(self._text)}`")
        self._at += 1
        return tree

    def _set_flags(self, on: str, off: str, written: str) -> None:
        # U swaps greedy and lazy, which is nothing to us; m would let ^ and $ match at line breaks.
        if set(on + off) - set("isU"):
            raise self._error(f"invalid or unsupported Perl syntax: `{written}`")
        self._fold = (self._fold or "i" in on) and "i" not in off
        self._dot_is_all = (self._dot_is_all or "s" in on) and "s" not in off

    def _escape(self) -> _Tree:
        following = self._text[self._at + 1 : self._at + 2]
        if following and following in "AzbB":
            self._at += 2
            return _Edge({"A": "start", "z": "end", "b": "word", "B": "no word"}[following])
        if following == "Q":
            end = self._text.find("\\E", self._at + 2)
            quoted = self._text[self._at + 2 : end if end >= 0 else None]
            self._at = end + 2 if end >= 0 else len(self._text)
            letters = [self._literal(ord(char)) for char in quoted]
            # A quantifier after \E repeats the last character alone, as after any other literal.
            return _Row([*letters[:-1], self._repeated(letters[-1])]) if letters else _Row([])
        if following and following in "dDwWsS":
            self._at += 2
            return self._chars(_PERL[following.lower()], negated=following.isupper())
        return self._literal(self._escaped_point())

    def _escaped_point(self) -> int:
        """The character that an escape stands for, inside brackets or out; passes it."""
        following = self._text[self._at + 1 : self._at + 2]
        if not following:
            raise self._error("trailing backslash at end of expression: ``")
        if following in _CONTROL:
            self._at += 2
            return _CONTROL[following]
        if following.isascii() and not following.isalnum():
            self._at += 2
            return ord(following)
        match = _HEX.match(self._text, self._at + 1)
        if match is not None and int(match[1] or match[2], 16) <= _LAST:
            self._at = match.end()
            return int(match[1] or match[2], 16)
        raise self._error(f"invalid escape sequence: `\\{following}`")

    def _bracket(self) -> _Tree:
        start = self._at
        self._at += 1
        negated = self._text.startswith("^", self._at)
        if negated:
            self._at += 1
        ranges: list[tuple[int, int]] = []
        first = True
        while first or not self._text.startswith("]", self._at):
            first = False
            if self._at >= len(self._text):
                raise self._error(f"missing closing ]: `{self._text[start:]})$`")
            following = self._text[self._at + 1 : self._at + 2]
            if self._text.startswith("[:", self._at) and (posix := _POSIX_CLASS.match(self._text, self._at)):
                if posix[2] not in _POSIX:
                    raise self._error(f"invalid character class range: `{posix[0]}`")
                ranges.extend(_complement(_POSIX[posix[2]]) if posix[1] else _POSIX[posix[2]])
                self._at = posix.end()
            elif self._text[self._at] == "\\" and following and following in "dDwWsS":
                named = _PERL[following.lower()]
                ranges.extend(_complement(named) if following.isupper() else named)
                self._at += 2
            else:
                begin = self._at
                low = high = self._bracket_point(start)
                if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                    self._at += 1
                    high = self._bracket_point(start)
                    if high < low:
                        raise self._error(f"invalid character class range: `{self._text[begin : self._at]}`")
                ranges.append((low, high))
        self._at += 1
        return self._chars(ranges, negated=negated)

    def _bracket_point(self, start: int) -> int:
        if self._at >= len(self._text):
            raise self._error(f"missing closing ]: `{self._text[start:]})$`")
        if self._text[self._at] == "\\":
            return self._escaped_point()
        self._at += 1
        return ord(self._text[self._at - 1])


def _anchored(pattern: str) -> str:
    """The pattern as Alertmanager compiles it, for its error messages."""
    return f"^(?:{pattern})$"


def _complement(ranges: Sequence[tuple[int, int]]) -> _Ranges:
    outside: list[tuple[int, int]] = []
    low = 0
    for first, last in sorted(ranges):
        if first > low:
            outside.append((low, first - 1))
        low = max(low, last + 1)
    if low <= _LAST:
        outside.append((low, _LAST))
    return tuple(outside)


def _folded(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges with the other case of their letters."""
    both = list(ranges)
    for first, last in ranges:
        for point in range(first, min(last, first + _FOLD_MAX) + 1):
            for other in (chr(point).lower(), chr(point).upper()):
                if len(other) == 1 and not first <= ord(other) <= last:
                    both.append((ord(other), ord(other)))
    return both


def _is_at(where: str, before: int, following: str) -> bool:
    """Whether an empty move may be made here."""
    if where == "start":
        return before == _NOTHING
    if where == "end":
        return not following
    edge = (before == _LETTER) != (following != "" and _holds(_WORD, ord(following)))
    return edge == (where == "word")


def _holds(ranges: _Ranges, point: int) -> bool:
    for first, last in ranges:
        if first <= point <= last:
            return True
    return False
