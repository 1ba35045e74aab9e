"""A shard's lists and counts: whatever is asked, no answer looks at more than a stretch, and together they miss nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.incidents import listing
from models.incidents.filters import IncidentFilter, Sort, compile_filter, place_of
from models.incidents.incident import Incident, IncidentState, Severity, incident_id
from models.incidents.query import (
    INCIDENT_SCAN_MAX,
    CountIncidents,
    IncidentCounts,
    IncidentPage,
    ListIncidents,
)
from models.incidents.views import answer
from models.shard import places
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
        shard.state.enter(one)
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
@pytest.mark.parametrize("sort", Sort)
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


@pytest.mark.parametrize("sort", Sort)
def test_a_page_looks_at_what_is_on_it_alone(sort: Sort) -> None:
    """Whatever the order: the incidents that it skips cost nothing."""
    shard = shard_with(1000)
    looked_at = counted(shard)
    wanted = IncidentFilter(severities=[3], with_children=True)
    narrow = IncidentFilter() if sort in (Sort.LATELY_UPDATED, Sort.LONG_UNTOUCHED) else wanted

    page = answer(shard, ListIncidents("default", 10, wanted=narrow, sort=sort))

    assert isinstance(page, IncidentPage) and len(page.items) == 10
    assert sum(looked_at) < 100  # half are another tenant's


@pytest.mark.parametrize(
    "query",
    [
        ListIncidents("default", wanted=IncidentFilter(text="nothing")),
        ListIncidents("default", wanted=IncidentFilter(text="nothing"), sort=Sort.WORST),
        CountIncidents("default", 0.0, 0.0),
    ],
)
def test_no_answer_looks_at_more_than_a_stretch(
    query: ListIncidents | CountIncidents,
) -> None:
    shard = shard_with(2 * INCIDENT_SCAN_MAX)
    looked_at = counted(shard)

    answer(shard, query)

    assert sum(looked_at) == INCIDENT_SCAN_MAX


def counted(shard: Shard) -> list[int]:
    """A one for each time that an incident is looked at from now on."""
    looked_at: list[int] = []

    class Counting(dict[bytes, Incident]):
        def __getitem__(self, identity: bytes) -> Incident:
            looked_at.append(1)
            return super().__getitem__(identity)

    shard.watch()
    shard.state.incidents = Counting(shard.state.incidents)
    return looked_at


#: What may happen to the incidents of a shard: (what, to which, when or how bad).
Happening = tuple[str, int, int]
HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(
            ["opens", "changes", "changes", "is judged", "leaves", "a tick", "time was wrong", "recovers"]
        ),
        st.integers(0, 30),
        st.integers(0, 4),
    ),
    max_size=60,
)
FILTERS = st.builds(
    IncidentFilter,
    severities=st.lists(st.integers(0, 4), max_size=3),
    services=st.lists(st.sampled_from("ab"), max_size=1),
    created_after=st.sampled_from([0.0, 1005.0, 1020.0]),
    created_before=st.sampled_from([0.0, 1006.0, 1030.0]),
    updated_after=st.sampled_from([0.0, 1010.0]),
    updated_before=st.sampled_from([0.0, 1015.0]),
)


def test_after_a_recovery_each_tick_places_a_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "STRETCH", 100)
    shard = shard_with(250)
    shard.started("a", 5000.0)

    placed = []
    for _ in range(4):
        shard.watch()
        placed.append(len(shard.state.places._placed))

    assert placed == [100, 200, 250, 250]


@settings(deadline=None, max_examples=150)
@given(HAPPENINGS, FILTERS, st.sampled_from(Sort), st.integers(0, 5))
def test_a_list_is_what_a_look_at_all_incidents_gives(
    happenings: list[Happening], wanted: IncidentFilter, sort: Sort, after: int
) -> None:
    shard = Shard("shard/0000", TARGETS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "STRETCH", 2)
        happen(shard, happenings)
    holds = compile_filter(wanted)

    everyone = sorted(
        (each for each in shard.state.incidents.values() if holds(each)),
        key=lambda each: place_of(each, sort),
        reverse=sort.goes_down,
    )
    place = place_of(everyone[after], sort) if after < len(everyone) else None
    page = answer(shard, ListIncidents("default", 5, place, wanted, sort))

    assert isinstance(page, IncidentPage)
    expected = everyone if place is None else everyone[after + 1 :]
    assert [view.incident.id for view in page.items] == [each.id for each in expected[:5]]
    assert (page.next_after is None) == (len(expected) <= 5)


def happen(shard: Shard, happenings: list[Happening]) -> None:
    """Incidents come, change and go as the folds of events make them."""
    state, now = shard.state, 1000.0
    for number, (what, which, value) in enumerate(happenings):
        now += value
        there = [*state.incidents]
        if what == "opens":
            identity = incident_id(1, now, 1, number, "")
            service = "ab"[which % 2]
            state.enter(Incident(identity, 1, "default", service, "", {}, "", "", "", {}, {}, now, now))
        elif what == "a tick":
            shard.watch()
        elif what == "recovers":
            state.places.begin(state.order)
        elif what == "time was wrong":
            for identity in there:
                incident = state.incidents[identity]
                incident.created_at, incident.updated_at = min(incident.created_at, now - 9), now - 9
            state.times_moved(now)
        elif there:
            incident = state.changing(there[which % len(there)])
            if what == "changes":
                incident.updated_at = now
            elif what == "is judged":
                incident.severity = Severity(value)
            else:
                shard.forget(incident)
