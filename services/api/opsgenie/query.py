"""Opsgenie's search queries, as far as we have what they ask for: `status:open AND (tag:eu OR priority:P1)`.

Conditions are `field:value` or `field=value`; times and counts also take < > <= >=; a word alone is looked for in the message.
They are joined by AND (which may be left out), OR, NOT and parentheses. In a value * stands for anything. Case counts only in an
alias and an id.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from models.alerts.matchers import MatcherTuple
from models.errors import Malformed, TooLarge
from services.ingest.formats.opsgenie import alert_id_of

#: Characters of a query, as in Opsgenie.
QUERY_CHARS_MAX = 1000
#: Parentheses and NOTs within each other: nobody writes more, and each is a call of the parser.
DEPTH_MAX = 16


class Alert(msgspec.Struct, frozen=True):
    """An alert as Opsgenie's clients see it. Times are seconds since the epoch; `ended_at` 0 while it is open."""

    id: str
    alias: str
    message: str
    description: str
    entity: str
    source: str
    priority: str
    tags: Sequence[str]
    details: dict[str, str]
    count: int
    created_at: float
    last_occurred_at: float
    ended_at: float
    #: The sender's token.
    sender: str
    closed_by: str
    incident_id: bytes
    acknowledged_by: str = ""
    acknowledged_at: float = 0.0
    owner: str = ""

    @property
    def status(self) -> str:
        return "closed" if self.ended_at else "open"

    @property
    def updated_at(self) -> float:
        return max(self.last_occurred_at, self.ended_at)


Test = Callable[[Alert], bool]

_TEXTS: dict[str, Callable[[Alert], Sequence[str]]] = {
    "status": lambda alert: (alert.status,),
    "priority": lambda alert: (alert.priority,),
    "entity": lambda alert: (alert.entity,),
    "source": lambda alert: (alert.source,),
    "tag": lambda alert: alert.tags,
    "tags": lambda alert: alert.tags,
    "owner": lambda alert: (alert.owner,),
    "acknowledgedby": lambda alert: (alert.acknowledged_by,),
    "closedby": lambda alert: (alert.closed_by,),
    "acknowledged": lambda alert: (str(bool(alert.acknowledged_by)).lower(),),
    "details.key": lambda alert: tuple(alert.details),
    "details.value": lambda alert: tuple(alert.details.values()),
}
_EXACT: dict[str, Callable[[Alert], str]] = {
    "alias": lambda alert: alert.alias,
    "id": lambda alert: alert.id,
    "alertid": lambda alert: alert.id,
}
_SENTENCES: dict[str, Callable[[Alert], str]] = {
    "message": lambda alert: alert.message,
    "description": lambda alert: alert.description,
}
_NUMBERS: dict[str, Callable[[Alert], float]] = {
    # Opsgenie's times are milliseconds.
    "createdat": lambda alert: alert.created_at * 1000,
    "updatedat": lambda alert: alert.updated_at * 1000,
    "lastoccurredat": lambda alert: alert.last_occurred_at * 1000,
    "count": lambda alert: alert.count,
}
_COMPARE = {
    ":": operator.eq,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
#: What the incident knows, and the alert does not.
_OF_INCIDENT = frozenset({"acknowledged", "acknowledgedby", "owner"})
FIELDS = (
    "acknowledged, acknowledgedBy, alias, closedBy, count, createdAt, description, details.key, details.value, entity, id, "
    "lastOccurredAt, message, owner, priority, source, status, tag, updatedAt"
)
_TOKEN = re.compile(
    r"\s*(?:(?P<paren>[()])|(?P<field>[A-Za-z][\w.]*)\s*(?P<op><=|>=|[:=<>])\s*(?:\"(?P<quoted>[^\"]*)\"|(?P<plain>[^\s()\"]+))"
    r"|\"(?P<phrase>[^\"]*)\"|(?P<word>[^\s()\"]+))"
)


@dataclass(frozen=True, slots=True)
class Query:
    """What alerts must be like. `matchers` and `firing_only` are what shards can leave out already."""

    test: Test
    asks_incidents: bool = False
    matchers: tuple[MatcherTuple, ...] = ()
    firing_only: bool = False


EVERYTHING = Query(lambda _alert: True)


def read_query(text: str) -> Query:
    """What a query asks for. Raises Malformed, which says what is supported; TooLarge."""
    if len(text) > QUERY_CHARS_MAX:
        raise TooLarge(f"query: over {QUERY_CHARS_MAX} characters")
    if not text.strip():
        return EVERYTHING
    reader = _Reader(_tokens(text))
    query = reader.either(0)
    if reader.left:
        raise Malformed("query: a ) without its (")
    return query


def _tokens(text: str) -> list[re.Match[str]]:
    found, place = [], 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None:
            raise Malformed(f'query: cannot be read from {text[place : place + 40]!r} on: is a " missing?')
        found.append(match)
        place = match.end()
    return found


class _Reader:
    def __init__(self, tokens: list[re.Match[str]]) -> None:
        self._tokens = tokens
        self._place = 0

    @property
    def left(self) -> bool:
        return self._place < len(self._tokens)

    def either(self, depth: int) -> Query:
        found = [self._all(depth)]
        while self._takes("word", "OR"):
            found.append(self._all(depth))
        if len(found) == 1:
            return found[0]
        tests = [each.test for each in found]
        return Query(
            lambda alert: any(test(alert) for test in tests), any(each.asks_incidents for each in found)
        )

    def _all(self, depth: int) -> Query:
        found = [self._one(depth)]
        while self._takes("word", "AND") or (
            self.left and not self._is("paren", ")") and not self._is("word", "OR")
        ):
            found.append(self._one(depth))
        if len(found) == 1:
            return found[0]
        tests = [each.test for each in found]
        return Query(
            lambda alert: all(test(alert) for test in tests),
            any(each.asks_incidents for each in found),
            tuple(matcher for each in found for matcher in each.matchers),
            any(each.firing_only for each in found),
        )

    def _one(self, depth: int) -> Query:
        if depth > DEPTH_MAX:
            raise TooLarge(f"query: more than {DEPTH_MAX} parentheses within each other")
        if self._takes("word", "NOT"):
            inner = self._one(depth + 1)
            return Query(lambda alert: not inner.test(alert), inner.asks_incidents)
        if self._takes("paren", "("):
            query = self.either(depth + 1)
            if not self._takes("paren", ")"):
                raise Malformed("query: a ( without its )")
            return query
        if not self.left or self._is("paren", ")") or self._is("word", "AND") or self._is("word", "OR"):
            raise Malformed("query: expected a condition, such as status:open")
        token = self._tokens[self._place]
        self._place += 1
        if token["field"] is None:
            return Query(_within("message", token["word"] if token["phrase"] is None else token["phrase"]))
        return _condition(
            token["field"], token["op"], token["plain"] if token["quoted"] is None else token["quoted"]
        )

    def _is(self, kind: str, text: str) -> bool:
        return self.left and self._tokens[self._place][kind] == text

    def _takes(self, kind: str, text: str) -> bool:
        found = self._is(kind, text)
        self._place += found
        return found


def _condition(field: str, sign: str, value: str) -> Query:
    name = field.lower()
    if name in _NUMBERS:
        try:
            bound = float(value)
        except ValueError:
            expected = "a number" if name == "count" else "milliseconds since the epoch"
            raise Malformed(f"query: {field}: expected {expected}, got {value[:40]!r}") from None
        number, compare = _NUMBERS[name], _COMPARE[sign]
        return Query(lambda alert: compare(number(alert), bound))
    if name not in _TEXTS and name not in _EXACT and name not in _SENTENCES:
        raise Malformed(f"query: {field[:40]} is not supported here; supported are {FIELDS}")
    if sign not in ":=":
        raise Malformed(f"query: {field} takes : or =, not {sign}")
    if name in _SENTENCES:
        return Query(_within(name, value))
    if name in _EXACT:
        exact = _EXACT[name]
        if "*" in value:
            return Query(lambda alert: _is_like(exact(alert), value))
        alert_id = alert_id_of(value) if name == "alias" else value
        return Query(lambda alert: exact(alert) == value, matchers=(("alert_id", "=", alert_id),))
    texts, pattern = _TEXTS[name], value.lower()
    return Query(
        lambda alert: any(_is_like(text.lower(), pattern) for text in texts(alert)),
        asks_incidents=name in _OF_INCIDENT,
        firing_only=name == "status" and pattern == "open",
    )


def _within(name: str, value: str) -> Test:
    sentence, wanted = _SENTENCES[name], f"*{value.lower()}*"
    return lambda alert: _is_like(sentence(alert).lower(), wanted)


def _is_like(text: str, pattern: str) -> bool:
    """Whether a text is what a pattern says, in which * is anything. Each part is looked for once, behind the one before."""
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    if not text.startswith(first):
        return False
    place, last = len(first), others.pop()
    for part in others:
        found = text.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return len(text) - place >= len(last) and text.endswith(last)
