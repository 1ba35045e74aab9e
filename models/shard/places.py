"""Where each incident stands by its severity and by its last change, so that a page in these orders looks at what is on it and
not at all incidents. Derived from the state, and in no log: ShardState makes it, models/incidents/listing.py reads it.

An incident is put in its place when a Tick watches over what changed, or a list is asked for before that. 3 to 5 us each time,
and 180 bytes each, beside the 3.4 kB of the incident itself. After a recovery a stretch is placed at each tick, so that answering
again does not wait for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from models.incidents.filters import IncidentFilter, Position, Sort
from models.incidents.incident import Incident, Severity
from models.partition.ordered import Ordered, behind
from models.partition.parted import Parted

#: Incidents placed at one tick after a recovery: 3 to 5 ms.
STRETCH = 1000

#: When it was created, and its id.
Created = tuple[float, bytes]
#: Where an incident stands: its last change, its creation, its id, and its severity.
_Place = tuple[float, float, bytes, int]


class Places:
    """The incidents of a shard in every order that a list may have. `created` is the order that the state keeps itself."""

    def __init__(self, created: Ordered[Created]) -> None:
        self.created = created
        self._changed: Ordered[_Place] = Ordered()
        self._of_severity: list[Ordered[Created]] = [Ordered() for _ in Severity]
        self._placed: Parted[_Place] = Parted()
        #: Those created before this bound have their places; None: all have.
        self._placed_to: tuple[Any, ...] | None = None

    def begin(self, created: Ordered[Created]) -> None:
        """No incident has its place yet: go_on() gives it to some at a time."""
        self.build(created, ())
        self._placed_to = ()

    def go_on(self, incidents: Mapping[bytes, Incident]) -> None:
        """Put the next stretch of incidents in their places, if some have none since begin()."""
        if self._placed_to is None:
            return
        stretch = [*islice(self.created.up(self._placed_to), STRETCH)]
        self._placed_to = behind(stretch[-1]) if len(stretch) == STRETCH else None
        for _created_at, identity in stretch:
            self.put(incidents[identity])

    def finish(self, incidents: Mapping[bytes, Incident]) -> None:
        """Put all that have no place yet in theirs."""
        if self._placed_to is not None:
            self.build(self.created, incidents.values())

    def build(self, created: Ordered[Created], incidents: Iterable[Incident]) -> None:
        """Put all incidents in their places at once."""
        self.created = created
        self._placed_to = None
        self._placed = Parted()
        places: list[_Place] = []
        by_severity: list[list[Created]] = [[] for _ in Severity]
        for incident in incidents:
            place = self._placed[incident.id] = _place_of(incident)
            places.append(place)
            by_severity[place[3]].append(place[1:3])
        self._changed = Ordered(places)
        self._of_severity = [*map(Ordered, by_severity)]

    def put(self, incident: Incident) -> None:
        """An incident is here, and may have changed."""
        if self._placed_to is not None and (incident.created_at, incident.id) >= self._placed_to:
            return  # go_on() will come to it
        before = self._placed.get(incident.id)
        if before is not None:
            if before[0] == incident.updated_at and before[3] == incident.severity:
                return
            self._changed.remove(before)
        place = self._placed[incident.id] = _place_of(incident)
        self._changed.add(place)
        if before is None:
            self._of_severity[place[3]].add(place[1:3])
        elif before[3] != place[3]:
            self._of_severity[before[3]].remove(before[1:3])
            self._of_severity[place[3]].add(place[1:3])

    def drop(self, identity: bytes) -> None:
        """An incident is not here any more."""
        before = self._placed.pop(identity)
        if before is not None:
            self._changed.remove(before)
            self._of_severity[before[3]].remove(before[1:3])

    def walk(self, sort: Sort, wanted: IncidentFilter, after: Position | None) -> Iterator[bytes]:
        """The ids of incidents in this order, strictly after a place, as narrow as the order can tell what is wanted."""
        down = sort.goes_down
        created = wanted.created_after, wanted.created_before
        severities = [each for each in Severity if not wanted.severities or each in wanted.severities]
        match sort:
            case Sort.LATELY_UPDATED | Sort.LONG_UNTOUCHED:
                for place in _run(
                    self._changed, wanted.updated_after, wanted.updated_before, after or (), down
                ):
                    yield place[2]
            case Sort.WORST | Sort.MILDEST:
                for severity in severities if down else reversed(severities):
                    # As filters.place_of() has it.
                    first = -float(severity)
                    if after is not None and (first > after[0] if down else first < after[0]):
                        continue
                    within = after[1:] if after is not None and first == after[0] else ()
                    for _at, identity in _run(self._of_severity[severity], *created, within, down):
                        yield identity
            case Sort.NEWEST | Sort.OLDEST:
                orders = (
                    [self._of_severity[each] for each in severities] if wanted.severities else [self.created]
                )
                runs = [_run(each, *created, () if after is None else after[1:], down) for each in orders]
                for _at, identity in runs[0] if len(runs) == 1 else heapq.merge(*runs, reverse=down):
                    yield identity


def _place_of(incident: Incident) -> _Place:
    # A plain number: what holds a member of an enum is looked at by every garbage collection.
    return incident.updated_at, incident.created_at, incident.id, int(incident.severity)


def _run(
    order: Ordered[Any], since: float, until: float, after: tuple[Any, ...], down: bool
) -> Iterator[tuple[Any, ...]]:
    """What stands between two times (0: not given) and strictly after a place."""
    low: tuple[Any, ...] = (since,) if since else ()
    high: tuple[Any, ...] | None = (until,) if until else None
    if not after:
        return order.down(low, high) if down else order.up(low, high)
    if down:
        return order.down(low, after if high is None else min(high, after))
    return order.up(max(low, behind(after)), high)
