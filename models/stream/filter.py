"""Which happenings somebody wants to hear of. One that changes an incident is told when the incident is wanted before
or after it, so that a watcher sees it come and go."""

from __future__ import annotations

import msgspec

from models.alerts.matchers import MatcherTuple, compile_matchers
from models.incidents.incident import IncidentState, IncidentType, Severity
from models.incidents.query import Summary
from models.shard.assembly import ASSEMBLY
from models.stream.happenings import Happening

#: Incidents looked at with one compiled set of matchers. A pattern may spend so much work and then no more
#: (models/alerts/matchers.py), and keeps what it learned: a new one begins afresh.
LOOKS_MAX = 4096
#: Kinds that can make an incident leave or enter a filter. What it was before may not be known to the follower.
CHANGING = ASSEMBLY.sifting


class StreamFilter(msgspec.Struct, frozen=True):
    """Empty means any; different fields must all hold."""

    states: frozenset[IncidentState] = frozenset()
    severities: frozenset[Severity] = frozenset()
    types: frozenset[IncidentType] = frozenset()
    services: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    matchers: tuple[MatcherTuple, ...] = ()


class Sieve:
    """A filter at work, for one follower."""

    def __init__(self, wanted: StreamFilter) -> None:
        self._wanted = wanted
        self._holds = compile_matchers(wanted.matchers)
        self._looks = 0

    def takes(self, happening: Happening) -> bool:
        """Whether it is wanted. When what would decide is not known, it is: better one too many than one missed.
        Raises TooLarge when the matchers are too much work."""
        wanted, after = self._wanted, happening.after
        kind = happening.line.kind
        if wanted.kinds and kind not in wanted.kinds:
            return False
        if wanted.services and after.service not in wanted.services:
            return False
        if not happening.sure or self._fits(after):
            return True
        before = happening.before
        if before is not None:
            return self._fits(before)
        return kind in CHANGING

    def _fits(self, summary: Summary) -> bool:
        wanted = self._wanted
        return (
            (not wanted.states or summary.state in wanted.states)
            and (not wanted.severities or summary.counts.severity in wanted.severities)
            and (not wanted.types or summary.counts.type in wanted.types)
            and (not wanted.matchers or self._matches(summary.labels))
        )

    def _matches(self, labels: dict[str, str]) -> bool:
        self._looks += 1
        if self._looks % LOOKS_MAX == 0:
            self._holds = compile_matchers(self._wanted.matchers)
        return self._holds(labels)
