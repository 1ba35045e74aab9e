"""Label matchers as Alertmanager writes and reads them. The API parses `filter=` with it, the shard applies it.

A matcher is read by the rules that Alertmanager had before it took names in UTF-8; what these refuse is read by the
newer ones: `service.name=x`, `"a name"="x"`. That is what Alertmanager itself does by default, so that no existing
matcher changes its meaning.

Its regular expressions can't be made to hang: models/alerts/patterns.py. What Alertmanager supports and we do not is
refused with the reason, never matched differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from models.alerts.patterns import PATTERN_CHARS_MAX, Budget, Pattern
from models.errors import Malformed, TooLarge

#: Matchers in one query. A person writes three, a dashboard with every variable set perhaps twenty.
MATCHERS_MAX = 64
#: Characters of one matcher: the longest pattern, and its label.
MATCHER_CHARS_MAX = PATTERN_CHARS_MAX

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

    Raises Malformed for an invalid matcher. The predicate raises TooLarge past WORK_MAX of models/alerts/patterns.py:
    make a new one for each page of a query.
    """
    budget = Budget("filter")
    tests = [test_of(matcher, budget) for matcher in matchers]
    if len(tests) == 1:
        return tests[0]

    def holds(labels: Labels) -> bool:
        return all(test(labels) for test in tests)

    return holds


def test_of(
    matcher: MatcherTuple, budget: Budget, pattern: Callable[[str, Budget], Pattern] = Pattern
) -> Callable[[Labels], bool]:
    """Whether one matcher holds. Raises Malformed, TooLarge; so does what it returns, past the budget."""
    name, operator, value = matcher
    match operator:
        case "=":
            return lambda labels: labels.get(name, "") == value
        case "!=":
            return lambda labels: labels.get(name, "") != value
        case "=~":
            wanted = pattern(value, budget)
            return lambda labels: wanted.matches(labels.get(name, ""))
        case "!~":
            unwanted = pattern(value, budget)
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
