"""Which incidents a list shows, and in what order: the same in a shard and over the archive. Pure; used by models/incidents/views.py
and services/api.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum

import msgspec

from models.alerts.matchers import MatcherTuple, compile_matchers
from models.incidents.incident import Incident

#: The position of an incident in a list: its sort value, creation time, and id.
Position = tuple[float, float, bytes]

#: The assignee that stands for "nobody works on it".
NOBODY = ""


class Sort(StrEnum):
    """The order of a list. Each pair is the other way round exactly; `severity` is the worst first, then the newest."""

    NEWEST = "-created_at"
    OLDEST = "created_at"
    LATELY_UPDATED = "-updated_at"
    LONG_UNTOUCHED = "updated_at"
    WORST = "severity"
    MILDEST = "-severity"

    @property
    def goes_down(self) -> bool:
        """Whether the greatest place comes first."""
        return self in _GOING_DOWN

    @property
    def is_by_creation(self) -> bool:
        """Whether the moment of creation alone decides: a place names it twice."""
        return self in (Sort.NEWEST, Sort.OLDEST)

    def comes_after(self, one: Position, other: Position) -> bool:
        """Whether `one` stands behind `other`."""
        return one < other if self.goes_down else one > other


_GOING_DOWN = frozenset({Sort.NEWEST, Sort.LATELY_UPDATED, Sort.WORST})


class IncidentFilter(msgspec.Struct, frozen=True, array_like=True):
    """What a list is narrowed to; empty means any. Different filters must all match, several values of one mean any of
    them.

    Times are seconds since the epoch, `after` inclusive, `before` exclusive, 0 not given. `assignees` name who is
    assigned or has a role (NOBODY: nobody). `matchers` look at the incident's labels, and at its service when no label is
    called so. `text` is text in the title, ignoring case. Children of merged incidents are left out unless `with_children`.
    """

    states: list[str] = []
    severities: list[int] = []
    types: list[str] = []
    services: list[str] = []
    assignees: list[str] = []
    matchers: list[MatcherTuple] = []
    text: str = ""
    created_after: float = 0.0
    created_before: float = 0.0
    updated_after: float = 0.0
    updated_before: float = 0.0
    with_children: bool = False


def place_of(incident: Incident, sort: Sort) -> Position:
    """Where an incident stands in a list of this order."""
    match sort:
        case Sort.NEWEST | Sort.OLDEST:
            return incident.created_at, incident.created_at, incident.id
        case Sort.LATELY_UPDATED | Sort.LONG_UNTOUCHED:
            return incident.updated_at, incident.created_at, incident.id
        case Sort.WORST | Sort.MILDEST:
            return -float(incident.severity), incident.created_at, incident.id


def compile_filter(wanted: IncidentFilter) -> Callable[[Incident], bool]:
    """The filter as a function of an incident; unused filters cost nothing. Raises Malformed for invalid matchers."""
    tests: list[Callable[[Incident], bool]] = []
    if not wanted.with_children:
        tests.append(lambda incident: not incident.merged_into)
    if wanted.states:
        states = frozenset(wanted.states)
        tests.append(lambda incident: incident.state in states)
    if wanted.severities:
        severities = frozenset(wanted.severities)
        tests.append(lambda incident: incident.severity in severities)
    if wanted.types:
        types = frozenset(wanted.types)
        tests.append(lambda incident: incident.type in types)
    if wanted.services:
        services = frozenset(wanted.services)
        tests.append(lambda incident: incident.service in services)
    if wanted.assignees:
        assignees = frozenset(wanted.assignees)
        tests.append(lambda incident: not assignees.isdisjoint(_workers(incident)))
    if wanted.created_after or wanted.created_before:
        first, end = wanted.created_after, wanted.created_before or math.inf
        tests.append(lambda incident: first <= incident.created_at < end)
    if wanted.updated_after or wanted.updated_before:
        since, until = wanted.updated_after, wanted.updated_before or math.inf
        tests.append(lambda incident: since <= incident.updated_at < until)
    if wanted.text:
        text = wanted.text.casefold()
        tests.append(lambda incident: text in incident.title.casefold())
    if wanted.matchers:
        matches = compile_matchers(wanted.matchers)
        tests.append(lambda incident: matches(_labels(incident)))

    def holds(incident: Incident) -> bool:
        for test in tests:
            if not test(incident):
                return False
        return True

    return holds


def _workers(incident: Incident) -> list[str]:
    """Who is assigned to an incident or has a role in it; NOBODY when nobody is and has."""
    handling = incident.handling
    roles = [] if handling is None else [person for person in handling.roles.values() if person]
    return [*incident.assignees, *roles] or [NOBODY]


def _labels(incident: Incident) -> dict[str, str]:
    labels = incident.labels
    return labels if "service" in labels else {**labels, "service": incident.service}
