"""Which receivers are told of an incident, and why: the tree of routes, walked from its root. Used by shards
(models/shard/audience.py), and by `llm-im routes test` through the gateway.

As in Alertmanager: an incident goes down the tree as deep as routes take it. Of the routes below one, they are asked in
their order, and the first that takes it is the last to be asked, unless it says `continue`. What no route below takes is
the route's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from models.alerts.matchers import Labels, MatcherTuple, test_of, write_matcher
from models.alerts.patterns import Budget
from models.errors import TooLarge
from models.incidents.incident import IncidentType, Severity
from models.routes.route import Route

#: Steps that the patterns of one route may take for one incident, some 10 ms: it is asked whenever something is to be told.
WORK_MAX = 25_000
#: Characters of a value in a reason.
_SHOWN_CHARS = 60


class Subject(msgspec.Struct, frozen=True):
    """What routes look at. `labels` are those that the incident's alerts share."""

    labels: Labels
    severity: Severity
    type: IncidentType
    service: str


class Chosen(msgspec.Struct, frozen=True):
    """A receiver that is told, by which route, and what that route asked."""

    receiver: str
    route: Route
    why: str


class Step(msgspec.Struct, frozen=True):
    """One route on the way: whether it took the incident, and why or why not."""

    route: Route
    depth: int
    took: bool
    why: str


class Choice(msgspec.Struct, frozen=True):
    """Who is told, each receiver once (the first route that names it counts); and the route that discards it, None unless
    nobody is told because of that."""

    told: tuple[Chosen, ...] = ()
    discarded: Route | None = None

    @property
    def escalations(self) -> tuple[Chosen, ...]:
        """Who else is told when nobody acknowledged it in time: nobody of those that are told anyway."""
        known = {chosen.receiver for chosen in self.told}
        found: dict[str, Chosen] = {}
        for route in {chosen.route.name: chosen.route for chosen in self.told}.values():
            for receiver in route.escalate_to:
                if receiver not in known:
                    found.setdefault(receiver, Chosen(receiver, route, f"route {route.name} escalates to it"))
        return tuple(found.values())

    @property
    def escalation(self) -> tuple[str, Route] | None:
        """The policy by which people are paged, and the route that names it: the first that does."""
        return next(
            ((each.route.escalation, each.route) for each in self.told if each.route.escalation), None
        )


class Router:
    """A tree, ready to be asked. Raises Malformed or TooLarge for matchers that are none."""

    def __init__(self, root: Route) -> None:
        self.root = root
        self.by_name = {route.name: route for _depth, route in root.walk()}
        self._tests = {
            route.name: [_Matcher(route.name, each) for each in route.matchers]
            for route in self.by_name.values()
        }

    def choose(self, subject: Subject) -> Choice:
        """Who is told of it."""
        return self._choice(subject, None)

    def explain(self, subject: Subject) -> tuple[Choice, list[Step]]:
        """The same, with each route that was asked, in order."""
        steps: list[Step] = []
        return self._choice(subject, steps), steps

    def _choice(self, subject: Subject, steps: list[Step] | None) -> Choice:
        takers: list[Route] = []
        self._walk(self.root, 0, subject, takers, steps)
        told: dict[str, Chosen] = {}
        for route in takers:
            for receiver in () if route.discards else route.receivers:
                told.setdefault(receiver, Chosen(receiver, route, reason_of(route)))
        discarded = None if told else next((route for route in takers if route.discards), None)
        return Choice(tuple(told.values()), discarded)

    def _walk(
        self, route: Route, depth: int, subject: Subject, takers: list[Route], steps: list[Step] | None
    ) -> bool:
        misses = self._misses(route, subject)
        if steps is not None:
            steps.append(Step(route, depth, not misses, misses or reason_of(route)))
        if misses:
            return False
        before = len(takers)
        for below in route.routes:
            if self._walk(below, depth + 1, subject, takers, steps) and not below.continues:
                break
        if len(takers) == before:
            takers.append(route)
        return True

    def _misses(self, route: Route, subject: Subject) -> str:
        """Why a route does not take it, "" if it does."""
        if route.severities and subject.severity not in route.severities:
            return f"severity is {subject.severity.name}, not {_or([each.name for each in route.severities])}"
        if route.types and subject.type not in route.types:
            return f"type is {subject.type.value}, not {_or([each.value for each in route.types])}"
        if route.services and subject.service not in route.services:
            return (
                f"service is {_shown(subject.service)}, not {_or([_shown(each) for each in route.services])}"
            )
        for matcher in self._tests[route.name]:
            if why := matcher.misses(subject.labels):
                return why
        return ""


class _Matcher:
    """One matcher of a route."""

    __slots__ = ("_budget", "_holds", "_matcher")

    def __init__(self, route: str, matcher: MatcherTuple) -> None:
        self._matcher = matcher
        self._budget = Budget(f"route {route}", WORK_MAX)
        self._holds: Callable[[Labels], bool] = test_of(matcher, self._budget)

    def misses(self, labels: Labels) -> str:
        self._budget.renew()
        try:
            if self._holds(labels):
                return ""
        except TooLarge:
            # The next route, or the root, takes it: nothing is lost, and no alert's label holds a shard up.
            return f"{write_matcher(self._matcher)} takes too long for the label's value"
        name, value = self._matcher[0], labels.get(self._matcher[0])
        there = f"there is no label {name}" if value is None else f"{name} is {_shown(value)}"
        return f"{write_matcher(self._matcher)} does not hold: {there}"


def reason_of(route: Route) -> str:
    """What a route asks, in words."""
    asks = [write_matcher(each) for each in route.matchers]
    if route.severities:
        asks.append(f"severity {_or([each.name for each in route.severities])}")
    if route.types:
        asks.append(f"type {_or([each.value for each in route.types])}")
    if route.services:
        asks.append(f"service {_or([_shown(each) for each in route.services])}")
    return f"route {route.name}: {', '.join(asks)}" if asks else f"route {route.name}: takes everything"


def _or(words: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _shown(value: str) -> str:
    return f'"{value}"' if len(value) <= _SHOWN_CHARS else f'"{value[:_SHOWN_CHARS]}..."'
