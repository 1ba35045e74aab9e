"""Which incidents: matchers as people type them (severity=P0 service=~"llm-.*" state!=Closed), as REST's parameters.

All matchers must hold. State, severity and type have few values, so every matcher on them becomes the list of values that
it leaves. What the server can't be asked is refused by name: filtering here would silently look at one page only.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from models.errors import Malformed, TooLarge
from services.cli.shared.exits import ExitCode, Failure

#: What models/incidents/incident.py has; written here again because importing it takes as long as a command. A test compares.
VALUES = {
    "state": ("Detected", "Triaged", "Investigating", "Remediating", "Resolved", "Closed"),
    "severity": ("P0", "P1", "P2", "P3", "P4"),
    "type": (
        "Infrastructure", "Application", "Security", "Data", "Performance", "Availability", "Compliance", "Unknown",
    ),
}  # fmt: skip
OPEN_STATES = VALUES["state"][:4]
#: Names that look like fields of an incident, and what asks for them.
_INSTEAD = {
    "title": "--text WORDS finds part of a title",
    "text": "--text WORDS finds part of a title",
    "id": "llm-im incidents show ID",
    "created": "--since and --until",
    "created_at": "--since and --until",
    "updated": "--changed-since and --changed-until",
    "updated_at": "--changed-since and --changed-until",
    "incident_type": "use type",
    "merged": "--merged lists the children of merged incidents too",
}
FIELDS = (*VALUES, "service", "assignee")
_OPERATOR = re.compile(r"=|!~")

Matcher = tuple[str, str, str]
Query = list[tuple[str, str]]


@dataclass(slots=True)
class Filters:
    """What was asked for. `labels` are the names that were taken for labels."""

    query: Query = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def hint(self) -> str:
        """What may have been meant when nothing was found: a label that is nearly a field's name."""
        for name in self.labels:
            if near := difflib.get_close_matches(name, FIELDS, 1, 0.75):
                return f"{name} was taken for a label; did you mean {near[0]}?"
        return ""


def is_matcher(word: str) -> bool:
    """Whether a word of the command line is a matcher; ids hold none of its operators."""
    return _OPERATOR.search(word) is not None


def names_state(words: Iterable[str]) -> bool:
    """Whether one of these matchers says which states are meant."""
    return any(re.match(r"\s*state\s*[=!]", word) for word in words)


def read(words: Iterable[str], any_of: dict[str, Sequence[str]] | None = None) -> Filters:
    """The query of matchers, and of fields of which any of some values is wanted. Raises Failure (usage)."""
    made = Filters()
    left: dict[str, list[str]] = {}
    services: list[str] | None = None
    for name, values in (any_of or {}).items():
        if values and name in VALUES:
            left[name] = [value_of(name, value) for value in values]
        elif values:
            services = list(values)
    for name, operator, value in map(_matcher, words):
        if name in VALUES:
            left[name] = _leave(name, left.get(name, list(VALUES[name])), operator, value)
        elif name == "service" and operator == "=" and value:
            if services is not None and value not in services:
                raise Failure(
                    f'an incident has only one service; to match either: service=~"{value}|..."',
                    ExitCode.USAGE,
                )
            services = [value]
        elif name == "assignee":
            if operator != "=" or any(given == name for given, _ in made.query):
                raise Failure(
                    "only one assignee=NAME is possible, or assignee= for nobody",
                    ExitCode.USAGE,
                )
            made.query.append((name, value))
        elif name in _INSTEAD:
            raise Failure(f"{name} can't be matched: {_INSTEAD[name]}", ExitCode.USAGE)
        else:
            if name != "service":
                made.labels.append(name)
            made.query.append(("match", as_text((name, operator, value))))
    made.query[:0] = [
        *(
            (name, value)
            for name, values in left.items()
            if len(values) < len(VALUES[name])
            for value in values
        ),
        *(("service", value) for value in services or ()),
    ]
    return made


def labels(words: Iterable[str]) -> Query:
    """Matchers that are all of labels, as for alerts."""
    return [("match", as_text(_matcher(word))) for word in words]


def as_text(matcher: Matcher) -> str:
    """A matcher as the server reads it, whatever its name and value hold."""
    from models.alerts.matchers import write_matcher

    return write_matcher(matcher)


def _matcher(word: str) -> Matcher:
    from models.alerts.matchers import compile_matchers, parse_matcher

    try:
        matcher = parse_matcher(word)
        compile_matchers([matcher])
    except (Malformed, TooLarge) as error:
        raise Failure(
            f'{word!r}: {error}; expected NAME=VALUE, or !=, =~, !~ and a value, as in service=~"llm-.*"',
            ExitCode.USAGE,
        ) from error
    return matcher


def _leave(name: str, values: list[str], operator: str, value: str) -> list[str]:
    """Those of `values` for which the matcher holds."""
    from models.alerts.matchers import compile_matchers

    if operator in ("=", "!="):
        value = value_of(name, value)
    holds = compile_matchers([(name, operator, value)])
    kept = [each for each in values if holds({name: each})]
    if not kept:
        raise Failure(
            f"no {name} matches all of these filters; values of {name}: {', '.join(VALUES[name])}",
            ExitCode.USAGE,
        )
    return kept


def value_of(name: str, given: str) -> str:
    """A value of a field as the server spells it."""
    for value in VALUES[name]:
        if value.casefold() == given.casefold():
            return value
    near = difflib.get_close_matches(given.capitalize(), VALUES[name], 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise Failure(
        f"{name}: {given!r} is not valid; expected one of {', '.join(VALUES[name])}{meant}", ExitCode.USAGE
    )
