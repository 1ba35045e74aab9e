"""Situations: incidents of services that depend on each other and began near in time. What is known, as events left it, and which
incidents belong together. Folded and asked by models/topology/topology.py.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from models.incidents.incident import Severity
from models.incidents.relation import Cause, Part, Relation
from models.topology.events import IncidentNews
from models.topology.graph import Graph
from models.topology.ranking import REACH, Sign, rank

#: Incidents of one situation. More than this is an outage of everything, and its cause is known by then.
INCIDENTS_MAX = 500


@dataclass(frozen=True, slots=True)
class Rules:
    """What belongs together: onsets at most `window_s` apart, services at most `hops` dependencies apart. Symptoms of a cause that was
    told are muted if `mutes`, those whose severity is in `mutable`, for `lease_s` at a time."""

    window_s: float = 300.0
    tolerance_s: float = 30.0
    hops: int = 2
    mutes: bool = False
    mutable: frozenset[int] = frozenset((2, 3, 4))
    lease_s: float = 600.0


class Member(msgspec.Struct, array_like=True):
    """An incident, of which partition it is, and its situation (b"": none)."""

    news: IncidentNews
    partition: str
    situation: bytes = b""
    ended_at: float = 0.0


class Situation(msgspec.Struct, array_like=True):
    """Incidents that belong together, oldest first, and what probably causes them. Times in seconds since the epoch; `ended_at` 0
    while one of them is open."""

    id: bytes
    opened_at: float
    incidents: list[bytes]
    causes: list[Cause] = []
    updated_at: float = 0.0
    ended_at: float = 0.0


class Situations:
    """Every incident that is open, those of a situation that is still kept, and the situations."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.members: dict[bytes, Member] = {}
        self.all: dict[bytes, Situation] = {}
        #: When each began, and which it is, in this order: of thousands in a service only those near in time are looked at.
        self._open_by_service: dict[str, list[tuple[float, bytes]]] = {}

    # -- folding -------------------------------------------------------------------------------------------

    def note(self, news: IncidentNews, partition: str, now: float) -> None:
        """An incident is otherwise than before."""
        member = self.members.get(news.id)
        if member is None:
            if not news.is_open:
                return
            member = self.members[news.id] = Member(news, partition)
        self._unfile(member)
        member.news, member.partition = news, partition
        member.ended_at = 0.0 if news.is_open else now
        if news.is_open:
            self._file(member)
        elif not member.situation:
            del self.members[news.id]

    def join(self, situation: bytes, incidents: Iterable[bytes], merged: Iterable[bytes], now: float) -> None:
        found = self.all.get(situation)
        if found is None:
            found = self.all[situation] = Situation(situation, now, [])
        more = [each for other in merged for each in self.all.pop(other).incidents]
        for identity in (*more, *incidents):
            self.members[identity].situation = situation
        together = dict.fromkeys((*found.incidents, *more, *incidents))
        found.incidents = sorted(together, key=lambda each: (self.members[each].news.since, each))
        found.opened_at = min(found.opened_at, self.members[found.incidents[0]].news.since)
        found.updated_at, found.ended_at = now, 0.0

    def drop(self, situation: bytes) -> None:
        """A situation that ended is not kept any more, and with it its incidents."""
        for identity in self.all.pop(situation).incidents:
            member = self.members[identity]
            member.situation = b""
            if not member.news.is_open:
                del self.members[identity]

    def load(self, member: Member) -> None:
        """One of a snapshot."""
        self.members[member.news.id] = member
        if member.news.is_open:
            self._file(member)

    def _file(self, member: Member) -> None:
        insort(self._open_by_service.setdefault(member.news.service, []), (member.news.since, member.news.id))

    def _unfile(self, member: Member) -> None:
        here = self._open_by_service.get(member.news.service, [])
        entry = (member.news.since, member.news.id)
        place = bisect_left(here, entry)
        if here[place : place + 1] == [entry]:
            del here[place]
            if not here:
                del self._open_by_service[member.news.service]

    # -- what belongs together -----------------------------------------------------------------------------

    @property
    def open_services(self) -> Mapping[str, Sequence[tuple[float, bytes]]]:
        """The services in which something is open, with when it began and what it is, oldest first."""
        return self._open_by_service

    def neighbours(self, member: Member, rules: Rules) -> Iterator[Member]:
        """The open incidents that it belongs to: of near services, begun near in time. At most INCIDENTS_MAX."""
        news, count = member.news, 0
        near = self.graph.near(news.service, rules.hops)
        services = self._open_by_service
        # Whichever are fewer.
        for service in near if len(near) < len(services) else [each for each in services if each in near]:
            here = services.get(service, ())
            first = bisect_left(here, (news.since - rules.window_s, b""))
            for since, identity in islice(here, first, None):
                if since - news.since > rules.window_s:
                    break
                if identity == news.id:
                    continue
                yield self.members[identity]
                count += 1
                if count == INCIDENTS_MAX:
                    return

    def opened(self, situation: Situation) -> list[Member]:
        """Those of its incidents that are open."""
        return [member for each in situation.incidents if (member := self.members[each]).news.is_open]

    def causes(self, situation: Situation, rules: Rules) -> list[Cause]:
        """What probably causes it. While something is open, what is open counts; then all of it."""
        members = self.opened(situation) or [self.members[each] for each in situation.incidents]
        first: dict[str, IncidentNews] = {}
        for member in sorted(members, key=lambda each: (each.news.since, each.news.id)):
            first.setdefault(member.news.service, member.news)
        signs = [Sign(each.news.service, each.news.since, _weight(each.news.severity)) for each in members]
        found = rank(self.graph, signs, tolerance_s=rules.tolerance_s, window_s=rules.window_s)
        return [
            Cause(each.service, each.score, [*each.reasons], own.id if own else b"", own.title if own else "")
            for each in found
            for own in (first.get(each.service),)
        ]

    # -- what an incident is told --------------------------------------------------------------------------

    def relation(self, identity: bytes, rules: Rules, now: float) -> Relation | None:
        """What the shard of an incident is to know of it; None when there is nothing."""
        member = self.members.get(identity)
        if member is None or not member.situation:
            return None
        situation = self.all[member.situation]
        news = member.news
        cause = self._cause_of(news, situation, rules)
        is_cause = bool(situation.causes) and situation.causes[0].service == news.service
        part = Part.CAUSE if is_cause else Part.SYMPTOM if cause is not None else Part.RELATED
        mute_until = 0.0
        if cause is not None and self._is_muted(news, cause, rules):
            mute_until = now + rules.lease_s
        return Relation(
            situation.id,
            part,
            len(situation.incidents),
            situation.causes,
            b"" if cause is None else cause.news.id,
            mute_until,
        )

    def _cause_of(self, news: IncidentNews, situation: Situation, rules: Rules) -> Member | None:
        """The incident whose symptom this one is: the most probable cause that its service needs, one that was told before one that
        was not, so that who waits waits for something that somebody knows of."""
        needed = self.graph.reached(news.service, REACH)
        found: Member | None = None
        for each in situation.causes:
            if each.service == news.service:
                break
            cause = self.members.get(each.incident_id)
            if cause is None or not cause.news.is_open or each.service not in needed:
                continue
            if cause.news.told or not rules.mutes:
                return cause
            found = found or cause
        return found

    def _is_muted(self, news: IncidentNews, cause: Member, rules: Rules) -> bool:
        # A P4 that went to a mailbox must not keep a P2 from paging.
        is_as_severe = cause.news.severity <= news.severity
        return (
            rules.mutes
            and news.is_open
            and news.severity in rules.mutable
            and cause.news.told
            and is_as_severe
        )


def _weight(severity: int) -> float:
    """P0 1, P4 0.2."""
    return 1.0 - 0.2 * min(max(severity, Severity.P0), Severity.P4)
