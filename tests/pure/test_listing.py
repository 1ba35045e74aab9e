"""A shard's lists and counts: whatever is asked, no answer looks at more than a stretch, and together they miss nothing."""

from __future__ import annotations

import random
from array import array

import pytest

from models.incidents import listing
from models.incidents.filters import IncidentFilter, Sort, compile_filter, place_of
from models.incidents.incident import Incident, IncidentState, Severity, incident_id
from models.incidents.query import (
    INCIDENT_SCAN_MAX,
    CountIncidents,
    FindIncidents,
    IncidentCounts,
    IncidentPage,
    IncidentPlaces,
    ListIncidents,
)
from models.incidents.views import answer
from models.shard.settings import ShardSettings
from models.shard.shard import Shard

TARGETS = ShardSettings(acknowledge_within_s=(60.0,) * 5, resolve_within_s=(600.0,) * 5)


def shard_with(count: int) -> Shard:
    """A shard of incidents of all kinds; many share a moment."""
    shard, chance = Shard("shard/0000", TARGETS), random.Random(4)
    for number in range(count):
        at = 1000.0 + chance.randrange(1 + count // 3)
        one = Incident(
            incident_id(1, at, 1, number, ""), 1, chance.choice(["default", "other"]), chance.choice("ab"), "", {},
            chance.choice(["one", "two"]), "", "", {"team": chance.choice("xy")}, {}, at, at + chance.randrange(50),
            severity=chance.choice(list(Severity)),
            state=chance.choice([IncidentState.TRIAGED, IncidentState.RESOLVED]),
        )  # fmt: skip
        shard.state.incidents[one.id] = one
        shard.state.members[one.id] = array("I")
        shard.state.order.append((one.created_at, one.id))
    shard.state.order.sort()
    return shard


@pytest.fixture(scope="module")
def shard() -> Shard:
    return shard_with(300)


WANTED = [
    IncidentFilter(),
    IncidentFilter(text="TWO", severities=[0, 1]),
    IncidentFilter(created_after=1010.0, created_before=1050.0),
    IncidentFilter(services=["a"], matchers=[("team", "=", "x")], updated_after=1040.0),
    IncidentFilter(text="nothing"),
]


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("sort", [Sort.NEWEST, Sort.OLDEST])
def test_pages_join_without_gaps_or_repeats(
    shard: Shard, wanted: IncidentFilter, sort: Sort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "INCIDENT_SCAN_MAX", 20)
    holds = compile_filter(wanted)

    met: list[bytes] = []
    page = IncidentPage([])
    while True:
        found = answer(shard, ListIncidents("default", 7, page.next_after, wanted, sort))
        assert isinstance(found, IncidentPage)
        page = found
        met += [view.incident.id for view in page.items]
        if page.next_after is None:
            break

    expected = sorted(
        (each for each in shard.state.incidents.values() if each.tenant == "default" and holds(each)),
        key=lambda each: place_of(each, sort),
        reverse=sort.goes_down,
    )
    assert met == [each.id for each in expected]


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("sort", [Sort.WORST, Sort.MILDEST, Sort.LATELY_UPDATED, Sort.LONG_UNTOUCHED])
def test_the_first_places_of_all_stretches_are_the_first_of_all(
    shard: Shard, wanted: IncidentFilter, sort: Sort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "INCIDENT_SCAN_MAX", 20)
    holds = compile_filter(wanted)
    everyone = sorted(
        (
            place_of(each, sort)
            for each in shard.state.incidents.values()
            if each.tenant == "default" and holds(each)
        ),
        reverse=sort.goes_down,
    )
    after = everyone[3] if len(everyone) > 3 else None

    places = []
    found = IncidentPlaces([])
    while True:
        one = answer(shard, FindIncidents("default", sort, 5, after, wanted, found.looked))
        assert isinstance(one, IncidentPlaces)
        found = one
        places += found.places
        if found.looked is None:
            break

    assert sorted(places, reverse=sort.goes_down)[:5] == everyone[4:9]


def test_counts_of_all_stretches_together_are_those_of_all(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answer(shard, CountIncidents("default", 2000.0, 0.0))
    monkeypatch.setattr(listing, "INCIDENT_SCAN_MAX", 20)

    total, looked = 0, None
    while True:
        part = answer(shard, CountIncidents("default", 2000.0, 0.0, looked=looked))
        assert isinstance(part, IncidentCounts)
        total += sum(part.states.values())
        looked = part.looked
        if looked is None:
            break

    assert isinstance(whole, IncidentCounts) and whole.looked is None
    assert (
        total
        == sum(whole.states.values())
        == sum(each.tenant == "default" for each in shard.state.incidents.values())
    )


def test_an_open_incident_past_one_of_its_targets_is_overdue(shard: Shard) -> None:
    def overdue(now: float) -> int:
        found = answer(shard, CountIncidents("default", now, 0.0))
        assert isinstance(found, IncidentCounts)
        return found.overdue

    mine = [each for each in shard.state.incidents.values() if each.tenant == "default" and each.is_open]
    assert overdue(1000.0) == 0
    assert overdue(5000.0) == len(mine)
    assert 0 < overdue(1100.0) < len(mine)


def test_a_view_says_when_its_targets_are_due(shard: Shard) -> None:
    page = answer(shard, ListIncidents("default", 1000))
    assert isinstance(page, IncidentPage)

    for view in page.items:
        due = (view.acknowledge_due_at, view.resolve_due_at)
        at = view.incident.created_at
        assert due == ((at + 60.0, at + 600.0) if view.incident.is_open else (0.0, 0.0))


@pytest.mark.parametrize(
    "query",
    [
        ListIncidents("default", wanted=IncidentFilter(text="nothing")),
        FindIncidents("default", Sort.WORST),
        CountIncidents("default", 0.0, 0.0),
    ],
)
def test_no_answer_looks_at_more_than_a_stretch(
    query: ListIncidents | FindIncidents | CountIncidents,
) -> None:
    shard = shard_with(2 * INCIDENT_SCAN_MAX)
    looked_at = 0

    class Counting(dict[bytes, Incident]):
        def __getitem__(self, identity: bytes) -> Incident:
            nonlocal looked_at
            looked_at += 1
            return super().__getitem__(identity)

    shard.state.incidents = Counting(shard.state.incidents)
    answer(shard, query)

    assert looked_at == INCIDENT_SCAN_MAX
