"""Filters: which alerts are dropped on their way in, and why. Used by services/ingest/rules.py once for each alert that is new to a
gateway, after relabelling.

Only what fires is dropped. An end always goes on, so that a filter that came later leaves no incident open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from models.alerts.grouping import signal_of
from models.alerts.matchers import Labels, MatcherTuple, test_of, write_matcher
from models.alerts.patterns import Budget
from models.classification.severity import range_of
from models.errors import TooLarge
from models.incidents.incident import Severity

#: Steps of one filter's expressions for one alert, about 4 ms: senders choose the values.
WORK_MAX = 10_000


class Dropped(NamedTuple):
    """A filter that drops an alert. `token` is whose alerts it is about, "" for anybody's; `kind` what of it decided, for metrics;
    `why` says it in words."""

    name: str
    token: str
    kind: str
    why: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Drops, of the alerts of `format` and `token` ("" for any) that all of `match` holds for, those less severe than
    `min_severity` and those with one of `ignored`; with neither, all of them."""

    name: str
    format: str = ""
    token: str = ""
    match: tuple[MatcherTuple, ...] = ()
    min_severity: Severity | None = None
    ignored: tuple[MatcherTuple, ...] = ()


class CompiledFilter:
    """A filter, ready to ask. Raises Malformed, TooLarge for matchers that can't be used."""

    def __init__(self, rule: Filter) -> None:
        self.rule = rule
        self._budget = Budget(f"filter {rule.name}", WORK_MAX)
        self._match = [test_of(matcher, self._budget) for matcher in rule.match]
        self._ignored = [(write_matcher(matcher), test_of(matcher, self._budget)) for matcher in rule.ignored]

    def verdict(self, format_name: str, labels: Labels, annotations: Labels) -> Dropped | None:
        """What it says of an alert; None when it lets it through. So it does what takes too many steps to tell: nothing is dropped
        that might matter."""
        if self.rule.format not in ("", format_name):
            return None
        self._budget.renew()
        try:
            if not all(test(labels) for test in self._match):
                return None
            return self._of_those(labels, annotations)
        except TooLarge:
            return None

    def _of_those(self, labels: Labels, annotations: Labels) -> Dropped | None:
        least = self.rule.min_severity
        for words, test in self._ignored:
            if test(labels):
                return self._dropped("ignored_labels", f"{words} is ignored")
        if least is not None:
            word = signal_of(labels, annotations)
            meaning = range_of(word) if word else None
            if meaning is not None and meaning.usual > least:
                said = "" if word == f"p{int(meaning.usual)}" else f" ({word})"
                return self._dropped(
                    "min_severity", f"P{int(meaning.usual)}{said} is less severe than P{int(least)}"
                )
            return None
        if self._ignored:
            return None
        return self._dropped("match", ", ".join(write_matcher(matcher) for matcher in self.rule.match))

    def _dropped(self, kind: str, why: str) -> Dropped:
        return Dropped(self.rule.name, self.rule.token, kind, why)


#: What drops an alert, in the order of the filters.
Verdict = Callable[[str, Labels, Labels], tuple[Dropped, ...]]


def verdicts_of(filters: Sequence[CompiledFilter]) -> Verdict:
    """All filters that drop an alert of a format with these labels and annotations."""

    def verdict(format_name: str, labels: Labels, annotations: Labels) -> tuple[Dropped, ...]:
        found = (each.verdict(format_name, labels, annotations) for each in filters)
        return tuple(each for each in found if each is not None)

    return verdict
