"""RE2's syntax, read into a tree: what models/alerts/patterns.py makes its automata of. The part of it that says whether a text
matches; what we do not support is refused with the reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from models.errors import Malformed, TooLarge

#: Groups within groups. Reading and building recurse a few frames a level.
NESTING_MAX = 50
#: The highest count in {n,m}, as in RE2.
REPEAT_MAX = 1000


def parse(text: str, of: str, fold: bool) -> Tree:
    """The tree of a pattern; `fold` begins as under (?i). Raises Malformed with Alertmanager's text, TooLarge that begins with
    `of`."""
    return _Parser(text, of, fold).parse()


Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Chars:
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Edge:
    where: str


@dataclass(frozen=True, slots=True)
class Row:
    parts: list[Tree]


@dataclass(frozen=True, slots=True)
class Either:
    options: list[Tree]


@dataclass(frozen=True, slots=True)
class Repeat:
    part: Tree
    least: int
    most: int | None
    is_lazy: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """A part that is remembered, by its number from 1 and perhaps a name."""

    part: Tree
    number: int
    name: str = ""


Tree = Chars | Edge | Row | Either | Repeat | Group

LAST_POINT = 0x10FFFF
_DIGIT: Ranges = ((0x30, 0x39),)
WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_BLANK: Ranges = ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20))
#: Perl's classes are ASCII in RE2.
_PERL = {"d": _DIGIT, "w": WORD, "s": _BLANK}
_POSIX: dict[str, Ranges] = {
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
    "word": WORD,
    "xdigit": ((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)),
}
_CONTROL = {"a": 0x07, "f": 0x0C, "t": 0x09, "n": 0x0A, "r": 0x0D, "v": 0x0B}
#: The counts of the quantifiers of one character.
_QUANTIFIERS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_REPEAT = re.compile(r"\{([0-9]+)(,([0-9]*))?\}")
_HEX = re.compile(r"x(?:([0-9a-fA-F]{2})|\{([0-9a-fA-F]{1,8})\})")
_GROUP = re.compile(r"\(\?(?:P?<([A-Za-z0-9_]+)>|([a-zA-Z]*)(?:-([a-zA-Z]+))?([:)]))")
_POSIX_CLASS = re.compile(r"\[:(\^?)([a-z]+):\]")
#: Widest range whose letters are folded one by one under (?i); a wider one already holds most cases of its
#: letters.
_FOLD_MAX = 0x400


class _Parser:
    """Reads RE2's syntax into a tree. Groups, and greedy or not, make no difference to whether a value matches; they do to what
    each group takes (models/alerts/extract.py)."""

    def __init__(self, text: str, of: str, fold: bool) -> None:
        self._text = text
        self._of = of
        self._at = 0
        self._depth = 0
        self._groups = 0
        self._fold = fold
        self._dot_is_all = False

    def parse(self) -> Tree:
        tree = self._either()
        if self._at < len(self._text):
            raise self._error(f"unexpected ): `{_anchored(self._text)}`")
        return tree

    def _error(self, why: str) -> Malformed:
        return Malformed(f"error parsing regexp: {why}")

    def _either(self) -> Tree:
        # Flags set inside a group end with it.
        fold, dot_is_all = self._fold, self._dot_is_all
        options = [self._row()]
        while self._text.startswith("|", self._at):
            self._at += 1
            options.append(self._row())
        self._fold, self._dot_is_all = fold, dot_is_all
        return options[0] if len(options) == 1 else Either(options)

    def _row(self) -> Tree:
        parts: list[Tree] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            parts.append(self._repeated(self._atom()))
        return Row(parts)

    def _repeated(self, part: Tree) -> Tree:
        start = self._at
        found = self._quantifier()
        if found is None:
            return part
        if self._quantifier() is not None:
            raise self._error(f"invalid nested repetition operator: `{self._text[start : self._at]}`")
        return Repeat(part, *found)

    def _quantifier(self) -> tuple[int, int | None, bool] | None:
        """The counts of a quantifier that stands here, and whether it is lazy; it is passed. None when none does."""
        char = self._text[self._at : self._at + 1]
        least: int
        most: int | None
        if char in _QUANTIFIERS:
            least, most = _QUANTIFIERS[char]
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
            self._at = match.end()
        is_lazy = self._text.startswith("?", self._at)
        self._at += is_lazy
        return least, most, is_lazy

    def _atom(self) -> Tree:
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
            return Edge("start")
        if char == "$":
            return Edge("end")
        if char == ".":
            return Chars(((0, LAST_POINT),) if self._dot_is_all else ((0, 9), (11, LAST_POINT)))
        return self._literal(ord(char))

    def _literal(self, point: int) -> Tree:
        return self._chars([(point, point)])

    def _chars(self, ranges: Sequence[tuple[int, int]], *, negated: bool = False) -> Chars:
        found = _folded(ranges) if self._fold else list(ranges)
        return Chars(_complement(found) if negated else tuple(found))

    def _group(self) -> Tree:
        if self._depth >= NESTING_MAX:
            raise TooLarge(f"{self._of}: the pattern nests more than {NESTING_MAX} groups")
        fold, dot_is_all = self._fold, self._dot_is_all
        number, name = 0, ""
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
                return Row([])
            name = head[1] or ""
            self._groups += bool(name)
            number = self._groups if name else 0
        else:
            self._at += 1
            self._groups += 1
            number = self._groups
        self._depth += 1
        tree = self._either()
        self._depth -= 1
        self._fold, self._dot_is_all = fold, dot_is_all
        if not self._text.startswith(")", self._at):
            raise self._error(f"missing closing ): `{_anchored(self._text)}`")
        self._at += 1
        return Group(tree, number, name) if number else tree

    def _set_flags(self, on: str, off: str, written: str) -> None:
        # U swaps greedy and lazy, which is nothing to us; m would let ^ and $ match at line breaks.
        if set(on + off) - set("isU"):
            raise self._error(f"invalid or unsupported Perl syntax: `{written}`")
        self._fold = (self._fold or "i" in on) and "i" not in off
        self._dot_is_all = (self._dot_is_all or "s" in on) and "s" not in off

    def _escape(self) -> Tree:
        following = self._text[self._at + 1 : self._at + 2]
        if following and following in "AzbB":
            self._at += 2
            return Edge({"A": "start", "z": "end", "b": "word", "B": "no word"}[following])
        if following == "Q":
            end = self._text.find("\\E", self._at + 2)
            quoted = self._text[self._at + 2 : end if end >= 0 else None]
            self._at = end + 2 if end >= 0 else len(self._text)
            letters = [self._literal(ord(char)) for char in quoted]
            # A quantifier after \E repeats the last character alone, as after any other literal.
            return Row([*letters[:-1], self._repeated(letters[-1])]) if letters else Row([])
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
        if match is not None and int(match[1] or match[2], 16) <= LAST_POINT:
            self._at = match.end()
            return int(match[1] or match[2], 16)
        raise self._error(f"invalid escape sequence: `\\{following}`")

    def _bracket(self) -> Tree:
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


def _complement(ranges: Sequence[tuple[int, int]]) -> Ranges:
    outside: list[tuple[int, int]] = []
    low = 0
    for first, last in sorted(ranges):
        if first > low:
            outside.append((low, first - 1))
        low = max(low, last + 1)
    if low <= LAST_POINT:
        outside.append((low, LAST_POINT))
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


def holds(ranges: Ranges, point: int) -> bool:
    for first, last in ranges:
        if first <= point <= last:
            return True
    return False
