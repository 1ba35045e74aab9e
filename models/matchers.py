"""Label matchers as Alertmanager 0.25 writes and reads them. The API parses `filter=` with it, the shard
applies it.

Its regular expressions can't be made to hang: models/patterns.py. What Alertmanager takes and we refuse is refused by name,
never matched otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from models.errors import Malformed, TooLarge
from models.patterns import PATTERN_CHARS_MAX, Budget, Pattern

#: Matchers in one query. A person writes three, a dashboard with every variable set perhaps twenty.
MATCHERS_MAX = 64
#: Characters of one matcher: the longest pattern, and its label.
MATCHER_CHARS_MAX = PATTERN_CHARS_MAX

#: A label matcher as (name, operator, value); operator is one of = != =~ !~.
MatcherTuple = tuple[str, str, str]
Labels = Mapping[str, str]

_SPACE = "\t\n\f\r "
_HEAD = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)[\t\n\f\r ]*(=~|!=|!~|=)")


def parse_filters(texts: Sequence[str]) -> list[MatcherTuple]:
    """The matchers of all `filter=` parameters of one request; all must hold. Raises Malformed with
    Alertmanager's text, TooLarge past MATCHERS_MAX.

    A text is one matcher, as Alertmanager 0.25 reads it: `a=b,c=d` is a value with a comma in it. Beyond it
    we take several in braces, `{a="b",c=~"d"}`, which 0.25 refuses.
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
    """One matcher: name, operator, value; the value bare or in double quotes, with \\" \\n \\\\ as escapes.
    Raises Malformed with Alertmanager's text. A pattern is not read here: compile_matchers does."""
    if len(text) > MATCHER_CHARS_MAX:
        raise TooLarge(f"filter: a matcher is longer than {MATCHER_CHARS_MAX} characters")
    bare = text.strip(_SPACE)
    head = _HEAD.match(bare)
    if head is None:
        raise Malformed(f"bad matcher format: {text}")
    name, operator = head[1], head[2]
    return (name, operator, _unquote(bare[head.end() :].lstrip(_SPACE)))


def compile_matchers(matchers: Sequence[MatcherTuple]) -> Callable[[Labels], bool]:
    """A predicate that is true for labels that every matcher holds for; a label that is missing counts as "".

    Raises Malformed when a matcher is none. The predicate raises TooLarge past WORK_MAX of models/patterns.py: make a new one for
    each page of a query.
    """
    budget = Budget("filter")
    tests = [_compile(name, operator, value, budget) for name, operator, value in matchers]
    if len(tests) == 1:
        return tests[0]

    def holds(labels: Labels) -> bool:
        return all(test(labels) for test in tests)

    return holds


def _compile(name: str, operator: str, value: str, budget: Budget) -> Callable[[Labels], bool]:
    match operator:
        case "=":
            return lambda labels: labels.get(name, "") == value
        case "!=":
            return lambda labels: labels.get(name, "") != value
        case "=~":
            wanted = Pattern(value, budget)
            return lambda labels: wanted.matches(labels.get(name, ""))
        case "!~":
            unwanted = Pattern(value, budget)
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
