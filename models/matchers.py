"""Label matchers as Alertmanager writes and reads them. The API parses `filter=` with it, the shard applies it.

A matcher is read by the rules that Alertmanager had before it took names in UTF-8; what these refuse is read by the
newer ones: `service.name=x`, `"a name"="x"`. That is what Alertmanager itself does unless told otherwise, so that no
matcher that people have written means another thing.

A regular expression here is written by whoever can reach the API and runs in the shard, the single writer of
its partition: a pattern that backtracks for a minute would stop ingest for a minute. Python's `re`
backtracks, so it is not used. What was weighed: a length bound and a ban on nested quantifiers leaves
`.*a.*a.*a.*b`, cubic and more in the value's length, and refuses harmless patterns; google-re2 is a compiled
dependency for one query parameter. Instead the pattern becomes an automaton whose transitions are worked out
when first needed: time is linear in the value, the work of one compiled filter has a bound (WORK_MAX), and
past it the query is refused by name. The syntax is the part of RE2's that has a use in a fully anchored
match, so what Alertmanager takes and we refuse (`\\b`, `\\p{..}`, flag m, octal escapes) is refused by name
too, never matched otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from models.errors import Malformed, TooLarge

#: Matchers in one query. A person writes three, a dashboard with every variable set perhaps twenty.
MATCHERS_MAX = 64
#: Characters of one matcher. Room for a dashboard's alternation of a few hundred service names.
MATCHER_CHARS_MAX = 8192
#: States of all automata of one filter, about one a character. Bounds what `(a{1000}){1000}` asks for: 20 ms
#: to build.
STATES_MAX = 10_000
#: State visits that one compiled filter may spend on new transitions, about 0.1 s. A page of 1,000 alerts
#: under `.*foo.*` spends 3,000, under 300 alternatives 50,000; only a pattern made to explode reaches it.
WORK_MAX = 250_000
#: Groups within groups. Reading and building recurse a few frames a level.
NESTING_MAX = 50
#: The highest count in {n,m}, as in RE2.
REPEAT_MAX = 1000

#: A label matcher as (name, operator, value); operator is one of = != =~ !~.
MatcherTuple = tuple[str, str, str]
Labels = Mapping[str, str]

_SPACE = "\t\n\f\r "
_OLD_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_HEAD = re.compile(rf"({_OLD_NAME})[\t\n\f\r ]*(=~|!=|!~|=)")
#: The newer rules: name and value are a run without reserved characters, or a string as Go writes it.
_BARE_OR_QUOTED = r"""(?:[^\s{}!=~,\\"'`]+|"(?:[^"\\\n]|\\.)*")"""
_NEWER = re.compile(rf"({_BARE_OR_QUOTED})\s*(=~|!=|!~|=)\s*({_BARE_OR_QUOTED})\Z")
_GO_ESCAPE = re.compile(
    r"""\\(?:([abfnrtv\\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.|\Z))"""
)
_GO_SIMPLE = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"',
}  # fmt: skip


def parse_filters(texts: Sequence[str]) -> list[MatcherTuple]:
    """The matchers of all `filter=` parameters of one request; all must hold. Raises Malformed with
    Alertmanager's text, TooLarge past MATCHERS_MAX.

    A text is one matcher: `a=b,c=d` is a value with a comma in it. Several stand in braces, `{a="b",c=~"d"}`.
    """
    matchers: list[MatcherTuple] = []
    for text in texts:
        bare = text.strip(_SPACE)
        if bare.startswith("{") and bare.endswith("}") and bare[1:-1].strip(_SPACE):
            matchers.extend(parse_matcher(part) for part in _split(bare[1:-1]))
        else:
            matchers.append(parse_matcher(text))
        if len(matchers) > MATCHERS_MAX:
            raise TooLarge(f"filter: more than {MATCHERS_MAX} matchers in one query")
    compile_matchers(matchers)
    return matchers


def parse_matcher(text: str) -> MatcherTuple:
    """One matcher: name, operator, value; the value bare or in double quotes, with \\" \\n \\\\ as escapes; a name
    other than Prometheus' old ones bare or in double quotes too. Raises Malformed with Alertmanager's text. A pattern
    is not read here: compile_matchers does."""
    if len(text) > MATCHER_CHARS_MAX:
        raise TooLarge(f"filter: a matcher is longer than {MATCHER_CHARS_MAX} characters")
    bare = text.strip(_SPACE)
    try:
        head = _HEAD.match(bare)
        if head is None:
            raise Malformed(f"bad matcher format: {text}")
        return (head[1], head[2], _unquote(bare[head.end() :].lstrip(_SPACE)))
    except Malformed:
        newer = _parse_newer(bare)
        if newer is None:
            raise
        return newer


def write_matcher(matcher: MatcherTuple) -> str:
    """A matcher as parse_matcher() reads it back, whatever its name and value hold."""
    name, operator, value = matcher
    return f"{name if re.fullmatch(_OLD_NAME, name) else _quoted(name)}{operator}{_quoted(value)}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _parse_newer(bare: str) -> MatcherTuple | None:
    """By the rules since names may be any UTF-8; None for what these refuse too."""
    found = _NEWER.match(bare)
    if found is None:
        return None
    name, value = _go_unquote(found[1]), _go_unquote(found[3])
    return (name, found[2], value) if name and value is not None else None


def _go_unquote(written: str) -> str | None:
    """A word as meant: Go's escapes when it stands in quotes. None when an escape is none, or makes no UTF-8."""
    if not written.startswith('"'):
        return written
    wrong = False

    def meant(found: re.Match[str]) -> str:
        nonlocal wrong
        if found[1]:
            return _GO_SIMPLE[found[1]]
        if found[6] is not None:
            wrong = True
            return ""
        if found[2] or found[3]:  # a byte; several of them may make a character
            code = int(found[2], 16) if found[2] else int(found[3], 8)
            wrong = wrong or code > 0xFF
            return chr(code) if code < 0x80 else chr(0xDC00 + (code & 0xFF))
        code = int(found[4] or found[5], 16)
        wrong = wrong or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF
        return "" if wrong else chr(code)

    text = _GO_ESCAPE.sub(meant, written[1:-1])
    try:
        return None if wrong else text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        return None


def compile_matchers(matchers: Sequence[MatcherTuple]) -> Callable[[Labels], bool]:
    """A predicate that is true for labels that every matcher holds for; a label that is missing counts as "".

    Raises Malformed when a matcher is none. The predicate raises TooLarge past WORK_MAX: make a new one for
    each page of a query.
    """
    spent = _Spent()
    tests = [_compile(name, operator, value, spent) for name, operator, value in matchers]
    if len(tests) == 1:
        return tests[0]

    def holds(labels: Labels) -> bool:
        return all(test(labels) for test in tests)

    return holds


def _compile(name: str, operator: str, value: str, spent: _Spent) -> Callable[[Labels], bool]:
    match operator:
        case "=":
            return lambda labels: labels.get(name, "") == value
        case "!=":
            return lambda labels: labels.get(name, "") != value
        case "=~":
            wanted = Pattern(value, spent)
            return lambda labels: wanted.matches(labels.get(name, ""))
        case "!~":
            unwanted = Pattern(value, spent)
            return lambda labels: not unwanted.matches(labels.get(name, ""))
        case _:
            raise Malformed(f"matcher of {name}: operator must be one of = != =~ !~, not {operator!r}")


def _split(text: str) -> list[str]:
    """The parts between commas that stand outside quotes. A last empty part is left out: `{a="b",}` is
    fine."""
    parts: list[str] = []
    start, quoted, escaped = 0, False, False
    for index, char in enumerate(text):
        if char == "," and not quoted:
            parts.append(text[start:index])
            start = index + 1
        elif char == '"' and not escaped:
            quoted = not quoted
        escaped = char == "\\" and not escaped
    if text[start:].strip(_SPACE):
        parts.append(text[start:])
    return parts


def _unquote(written: str) -> str:
    """The value as meant. A backslash before anything but n, " and \\ stands for itself, as does a last
    one."""
    quoted = written.startswith('"')
    body = written[1:] if quoted else written
    value: list[str] = []
    index, closed = 0, False
    while index < len(body):
        char = body[index]
        last = index == len(body) - 1
        if char == "\\" and not last:
            index += 1
            value.append({"n": "\n", '"': '"', "\\": "\\"}.get(body[index], "\\" + body[index]))
        elif char == '"':
            if not (quoted and last):
                raise Malformed(f"matcher value contains unescaped double quote: {written}")
            closed = True
        else:
            value.append(char)
        index += 1
    if quoted and not closed:
        raise Malformed(f"matcher value contains unescaped double quote: {written}")
    return "".join(value)


# ---- regular expressions ----


class _Spent:
    """What the patterns of one filter have used of STATES_MAX and WORK_MAX together."""

    __slots__ = ("states", "work")

    def __init__(self) -> None:
        self.states = 0
        self.work = 0


class Pattern:
    """A fully anchored regular expression in RE2's syntax, matched in time linear in the value.

    Raises Malformed when `text` is none (the message begins as Alertmanager's does), TooLarge when it needs
    too many states. How: the syntax tree becomes an automaton with empty moves (Thompson); a set of its
    states is one state of the lazy deterministic automaton, which remembers every transition it has worked
    out (as RE2 does, swtch.com/~rsc/regexp/regexp1.html).
    """

    __slots__ = ("_accepts", "_edges", "_final", "_seen", "_spent", "_start", "_states", "_text")

    def __init__(self, text: str, spent: _Spent | None = None) -> None:
        self._text = text
        self._spent = spent if spent is not None else _Spent()
        if len(text) > MATCHER_CHARS_MAX:
            raise TooLarge(f"a pattern is longer than {MATCHER_CHARS_MAX} characters")
        self._states: list[_State] = []
        self._final = self._new()
        tree = _Parser(text).parse()
        first = self._build(tree, self._final)
        #: Deterministic states met so far and their known transitions.
        self._edges: dict[frozenset[int], dict[str, frozenset[int]]] = {}
        self._accepts: dict[frozenset[int], bool] = {}
        #: Label values repeat far more than they differ.
        self._seen: dict[str, bool] = {}
        self._start = self._closure([first], at_start=True, at_end=False)

    def matches(self, value: str) -> bool:
        """Whether the whole of `value` matches. Raises TooLarge past WORK_MAX, counted since this was
        made."""
        known = self._seen.get(value)
        if known is None:
            known = self._seen[value] = self._run(value)
        return known

    def _run(self, value: str) -> bool:
        current = self._start
        for char in value:
            edges = self._edges.get(current)
            if edges is None:
                edges = self._edges[current] = {}
            following = edges.get(char)
            if following is None:
                following = edges[char] = self._step(current, char)
            if not following:
                return False
            current = following
        if not value:
            return self._final in self._closure(current, at_start=True, at_end=True)
        accepted = self._accepts.get(current)
        if accepted is None:
            accepted = self._accepts[current] = self._final in self._closure(
                current, at_start=False, at_end=True
            )
        return accepted

    def _step(self, current: frozenset[int], char: str) -> frozenset[int]:
        self._spend(len(current))
        point = ord(char)
        ahead = [state.next for state in map(self._states.__getitem__, current) if _holds(state.chars, point)]
        return self._closure(ahead, at_start=False, at_end=False)

    def _closure(
        self, states: Sequence[int] | frozenset[int], *, at_start: bool, at_end: bool
    ) -> frozenset[int]:
        """All states that empty moves lead to. `^` is passed only at the start, `$` only at the end."""
        reached: set[int] = set()
        todo = list(states)
        while todo:
            number = todo.pop()
            if number in reached:
                continue
            reached.add(number)
            state = self._states[number]
            if state.only_at is None or (at_start if state.only_at == "start" else at_end):
                todo.extend(state.empty)
        self._spend(len(reached))
        return frozenset(reached)

    def _spend(self, visits: int) -> None:
        self._spent.work += visits
        if self._spent.work > WORK_MAX:
            raise TooLarge(f"filter: the pattern `{self._text[:80]}` takes more than {WORK_MAX} steps")

    def _new(
        self, *, chars: _Ranges = (), next: int = -1, empty: Sequence[int] = (), only_at: str | None = None
    ) -> int:
        self._spent.states += 1
        if self._spent.states > STATES_MAX:
            raise TooLarge(f"filter: the pattern `{self._text[:80]}` needs more than {STATES_MAX} states")
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
_REPEAT = re.compile(r"\{([0-9]+)(,([0-9]*))?\}")
_HEX = re.compile(r"x(?:([0-9a-fA-F]{2})|\{([0-9a-fA-F]{1,8})\})")
_GROUP = re.compile(r"\(\?(?:P?<([A-Za-z0-9_]+)>|([a-zA-Z]*)(?:-([a-zA-Z]+))?([:)]))")
_POSIX_CLASS = re.compile(r"\[:(\^?)([a-z]+):\]")
#: Widest range whose letters are folded one by one under (?i); a wider one already holds most cases of its
#: letters.
_FOLD_MAX = 0x400


class _Parser:
    """Reads RE2's syntax into a tree. Greedy or not makes no difference to whether a value matches."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._fold = False
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
            raise TooLarge(f"filter: the pattern nests more than {NESTING_MAX} groups")
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
        if following in ("A", "z"):
            self._at += 2
            return _Edge("start" if following == "A" else "end")
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


def _holds(ranges: _Ranges, point: int) -> bool:
    for first, last in ranges:
        if first <= point <= last:
            return True
    return False
