"""The topology partition: which incidents become a situation, what its incidents are told, and that replay gives the same."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from models.errors import NotFound, TooLarge
from models.incidents.relation import Part, Relation
from models.partition.event import Event
from models.topology import situations as rules_of
from models.topology import topology as machines
from models.topology import views
from models.topology.events import (
    IncidentNews,
    IncidentsNoted,
    SituationGrew,
    SituationRanked,
    SituationsDropped,
    TopologyDeclared,
)
from models.topology.graph import Dependency, Service
from models.topology.messages import (
    DeclareTopology,
    GetPath,
    GetService,
    GetSituation,
    GetTopology,
    IncidentsHeard,
    ListSituations,
    PathPage,
    RemoveDependency,
    RemoveSource,
    ServicePage,
    SetDependency,
    SituationPage,
    Tick,
    TopologyMessage,
    TopologyPage,
)
from models.topology.situations import Rules, Situation
from models.topology.topology import Step, Topology
from models.topology.views import answer

ZERO = 1767225600.0
SHOP = ("web api", "api db", "jobs db")


def links(*pairs: str) -> list[Dependency]:
    return [Dependency(*each.split()) for each in pairs]


class Story:
    """One machine; after each step the replay of all events must equal it."""

    def __init__(self, *pairs: str, rules: Rules | None = None) -> None:
        self.topology = Topology(rules=rules or Rules())
        self.topology.epoch = 1
        self.log: list[tuple[float, list[Event]]] = []
        self.opened: dict[str, IncidentNews] = {}
        self.last: Step = Step([])
        if pairs:
            self.tell(0, DeclareTopology("test", [], links(*pairs), "ada"))

    def tell(self, when: float, message: TopologyMessage) -> Step:
        self.topology.seq += 1
        step = self.topology.handle(message, ZERO + when)
        if step.events:
            self.log.append((self.topology.now, step.events))
        else:
            self.topology.seq -= 1
        assert state(self.replayed()) == state(self.topology)
        self.last = step
        return step

    def replayed(self) -> Topology:
        again = Topology(rules=self.topology.rules)
        for now, events in self.log:
            # As a log has them.
            again.replay([decoded(each) for each in events], now)
        return again

    def hear(self, when: float, *news: IncidentNews, whole: bool = False, seq: int = 0) -> Step:
        self.opened.update((each.service, each) for each in news)
        at = self.topology.positions.get("shard/0000")
        seq = seq or (0 if at is None else at.seq) + 1
        return self.tell(when, IncidentsHeard("shard/0000", seq, b"d" * 8, [*news], whole))

    def open(self, when: float, service: str, severity: int = 2, *, told: bool = False) -> IncidentNews:
        name = f"{service}-{len(self.log)}".encode().ljust(16, b".")[:16]
        news = IncidentNews(name, service, f"{service} is slow", severity, True, ZERO + when, told=told)
        self.hear(when, news)
        return news

    def change(self, when: float, news: IncidentNews, **fields: object) -> IncidentNews:
        after = msgspec.structs.replace(news, **fields)
        self.hear(when, after)
        return after

    @property
    def situations(self) -> list[Situation]:
        return [*self.topology.situations.all.values()]

    @property
    def situation(self) -> Situation:
        [only] = self.situations
        return only

    def services(self) -> list[str]:
        members = self.topology.situations.members
        return [members[each].news.service for each in self.situation.incidents]

    def causes(self) -> list[str]:
        return [each.service for each in self.situation.causes]

    def relation(self, news: IncidentNews, when: float = 1000) -> Relation:
        found = self.topology.relation(news.id, ZERO + when)
        assert found is not None
        return found[1]

    def told(self) -> set[bytes]:
        return {each for effect in self.last.effects for each in effect.incidents}


def decoded(event: Event) -> Event:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=type(event))


def state(topology: Topology) -> object:
    found = topology.situations
    return (
        {key: msgspec.msgpack.encode(each) for key, each in found.members.items()},
        {key: msgspec.msgpack.encode(each) for key, each in found.all.items()},
        {key: [*each] for key, each in found.open_services.items()},
        topology.positions,
        {
            name: (each.services, each.dependencies, each.seen_at)
            for name, each in topology.graph.sources.items()
        },
        [*topology.graph.edges()],
    )


# -- what belongs together -----------------------------------------------------------------------------------


def test_incidents_of_services_that_depend_on_each_other_are_one_situation() -> None:
    story = Story(*SHOP)
    story.open(100, "db")
    story.open(130, "api")
    story.open(140, "web")

    assert story.services() == ["db", "api", "web"]
    assert story.causes()[0] == "db"


def test_what_has_nothing_to_do_with_it_stays_by_itself() -> None:
    story = Story(*SHOP, "mail smtp")
    story.open(100, "db")
    mail = story.open(101, "mail")
    story.open(102, "api")

    assert story.services() == ["db", "api"]
    assert story.topology.relation(mail.id, ZERO + 200) is None


def test_what_begins_long_after_is_something_else() -> None:
    story = Story(*SHOP, rules=Rules(window_s=60))
    story.open(100, "db")
    story.open(161, "api")

    assert story.situations == []


def test_a_service_too_far_away_is_something_else() -> None:
    story = Story("a b", "b c", "c d", rules=Rules(hops=2))
    story.open(100, "a")
    story.open(101, "d")
    assert story.situations == []

    story.open(102, "b")
    assert story.services() == ["a", "d", "b"]


def test_two_incidents_of_one_service_belong_together_and_mute_nobody() -> None:
    story = Story(rules=Rules(mutes=True))
    story.open(100, "db", told=True)
    second = story.open(120, "db")

    assert story.services() == ["db", "db"]
    assert story.relation(second).mute_until == 0.0


def test_who_joins_two_situations_makes_them_one_and_the_older_stays() -> None:
    story = Story("web api", "api db", "jobs db", "jobs queue", rules=Rules(hops=1))
    story.open(100, "web")
    story.open(101, "api")
    story.open(110, "jobs")
    story.open(111, "queue")
    older, younger = sorted(story.situations, key=lambda each: each.opened_at)

    story.open(120, "db")

    assert story.situation.id == older.id != younger.id
    assert story.services() == ["web", "api", "jobs", "queue", "db"]
    assert len(story.told()) == 5


def test_a_situation_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "INCIDENTS_MAX", 3)
    story = Story(*SHOP)
    for number in range(6):
        story.open(100 + number, "db")

    assert all(len(each.incidents) <= 3 for each in story.situations)


def test_one_answer_has_no_more_incidents_than_can_be_looked_at_in_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(views, "MEMBERS_MAX", 5)
    story = Story(*SHOP)
    for number in range(4):
        for service in ("db", "api", "web"):
            story.open(1000 * number, service)
    whole = [each.id for each in story.situations]

    found: list[bytes] = []
    before = None
    while True:
        page = answer(story.topology, ListSituations(before=before))
        assert isinstance(page, SituationPage)
        assert sum(len(each.members) for each in page.items) <= 5
        found += [each.id for each in page.items]
        before = page.next_before
        if before is None:
            break

    assert found == whole[::-1]


def test_a_graph_that_comes_later_brings_together_what_is_open() -> None:
    story = Story()
    story.open(100, "db")
    story.open(110, "api")
    assert story.situations == []

    story.tell(120, SetDependency("manual", Dependency("api", "db"), "ada"))

    assert story.services() == ["db", "api"]
    assert story.causes()[0] == "db"


# -- how it ends ---------------------------------------------------------------------------------------------


def test_a_situation_ends_with_its_last_incident_and_keeps_its_cause() -> None:
    story = Story(*SHOP)
    db, api = story.open(100, "db"), story.open(110, "api")
    story.change(200, db, is_open=False)
    assert story.situation.ended_at == 0

    story.change(210, api, is_open=False)

    assert story.situation.ended_at == ZERO + 210
    assert story.situation.causes != []


def test_an_incident_that_opens_again_goes_on_in_its_situation() -> None:
    story = Story(*SHOP)
    db, api = story.open(100, "db"), story.open(110, "api")
    story.change(200, db, is_open=False)
    api = story.change(210, api, is_open=False)

    story.change(300, api, is_open=True, reopened=1, since=ZERO + 300)

    assert story.situation.ended_at == 0
    assert story.services() == ["db", "api"]


def test_what_ended_long_ago_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(*SHOP)
    db, api = story.open(100, "db"), story.open(110, "api")
    story.change(200, db, is_open=False)
    story.change(200, api, is_open=False)
    story.tell(201, Tick())
    assert len(story.situations) == 1

    step = story.tell(201 + machines.KEPT_S, Tick())

    assert [type(each) for each in step.events] == [SituationsDropped]
    assert story.topology.situations.members == {}


# -- what is heard -------------------------------------------------------------------------------------------


def test_news_that_is_known_makes_no_event() -> None:
    story = Story(*SHOP)
    news = story.open(100, "db")

    assert story.hear(101, news, seq=2).events == []
    assert story.hear(102, seq=3).events == []


def test_how_far_a_log_was_read_is_noted_now_and_then() -> None:
    story = Story()
    story.hear(1, seq=10)

    assert story.hear(2, seq=10 + machines.POSITION_EVERY_FRAMES - 1).events == []
    [noted] = story.hear(3, seq=10 + machines.POSITION_EVERY_FRAMES).events
    assert isinstance(noted, IncidentsNoted)
    assert noted.seq == 1010


def test_what_a_whole_list_does_not_name_is_over() -> None:
    story = Story(*SHOP)
    db, api = story.open(100, "db"), story.open(110, "api")

    story.hear(200, db, whole=True)

    members = story.topology.situations.members
    assert members[db.id].news.is_open
    assert not members[api.id].news.is_open


def test_when_it_began_is_not_forgotten_by_a_reader_that_began_anew() -> None:
    story = Story(*SHOP)
    db = story.open(100, "db", told=True)

    story.hear(200, msgspec.structs.replace(db, since=ZERO + 200, told=False, title="other"), whole=True)

    kept = story.topology.situations.members[db.id].news
    assert (kept.since, kept.told, kept.title) == (ZERO + 100, True, "other")


# -- what is told --------------------------------------------------------------------------------------------


def test_each_incident_is_told_its_part() -> None:
    story = Story(*SHOP)
    db, api, jobs = story.open(100, "db"), story.open(110, "api"), story.open(115, "jobs")

    assert story.relation(db).part is Part.CAUSE
    assert (story.relation(api).part, story.relation(api).symptom_of) == (Part.SYMPTOM, db.id)
    assert story.relation(jobs).causes[0].reasons != []
    assert story.told() == {db.id, api.id, jobs.id}


def test_a_symptom_waits_only_when_its_cause_was_told() -> None:
    story = Story(*SHOP, rules=Rules(mutes=True, lease_s=600))
    db, api = story.open(100, "db"), story.open(110, "api")
    assert story.relation(api).mute_until == 0

    db = story.change(120, db, told=True)
    assert api.id in story.told()
    assert story.relation(api, 130).mute_until == ZERO + 730
    assert story.relation(db, 130).mute_until == 0

    story.change(300, db, is_open=False)
    assert story.relation(api).mute_until == 0


@pytest.mark.parametrize(
    ("cause", "symptom", "waits"), [(2, 2, True), (1, 2, True), (3, 2, False), (0, 1, False)]
)
def test_what_is_more_severe_than_its_cause_or_too_severe_at_all_does_not_wait(
    cause: int, symptom: int, waits: bool
) -> None:
    story = Story(*SHOP, rules=Rules(mutes=True))
    story.open(100, "db", cause, told=True)
    api = story.open(110, "api", symptom)

    assert bool(story.relation(api).mute_until) is waits


def test_nobody_waits_where_it_is_not_wanted() -> None:
    story = Story(*SHOP)
    story.open(100, "db", told=True)

    assert story.relation(story.open(110, "api")).mute_until == 0


def test_after_a_start_all_that_is_open_is_told_again() -> None:
    story = Story(*SHOP)
    db, api = story.open(100, "db"), story.open(110, "api")

    [effect] = story.replayed().started("test", ZERO + 200).effects

    assert {*effect.incidents} == {db.id, api.id}


# -- the graph -----------------------------------------------------------------------------------------------


def test_saying_the_same_again_makes_no_event_until_an_hour_has_passed() -> None:
    story = Story(*SHOP)
    again = DeclareTopology("test", [], links(*reversed(SHOP)), "ada")

    assert story.tell(10, again).events == []
    story.tell(machines.SEEN_EVERY_S, again)
    assert story.topology.graph.sources["test"].seen_at == ZERO + machines.SEEN_EVERY_S


def test_what_is_refused_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(*SHOP)

    assert isinstance(story.tell(1, RemoveSource("nobody", "ada")).reply, NotFound)
    assert isinstance(story.tell(1, RemoveDependency("test", "db", "web", "ada")).reply, NotFound)
    monkeypatch.setattr("models.topology.graph.DEPENDENCIES_MAX", 2)
    assert isinstance(story.tell(1, DeclareTopology("more", [], links("a b"), "ada")).reply, TooLarge)
    assert len(story.log) == 1


def test_it_answers_what_people_ask() -> None:
    story = Story(*SHOP)
    story.tell(1, DeclareTopology("cmdb", [Service("alone")], [], "ada"))
    db, api = story.open(100, "db"), story.open(110, "api")
    ask = story.topology

    page = answer(ask, GetTopology(limit=2))
    assert isinstance(page, TopologyPage)
    assert ([each.name for each in page.services], page.next_after) == (["alone", "api"], "api")
    assert (page.service_count, page.dependency_count) == (5, 3)
    around = answer(ask, GetService("db", 5))
    assert isinstance(around, ServicePage)
    assert around.reached_by == {"api": 1, "jobs": 1, "web": 2}
    assert around.service is not None
    assert around.service.open_incidents == [db.id]
    way = answer(ask, GetPath("web", "db"))
    assert isinstance(way, PathPage)
    assert [(each.caller, each.callee) for each in way.edges] == [("web", "api"), ("api", "db")]
    assert answer(ask, GetPath("web", "x")) == PathPage([], ["x"])
    situations = answer(ask, ListSituations())
    assert isinstance(situations, SituationPage)
    [one] = situations.items
    assert [(each.news.id, each.part) for each in one.members] == [(db.id, "cause"), (api.id, "symptom")]
    assert answer(ask, GetSituation(one.id)) == SituationPage([one])
    assert answer(ask, ListSituations(is_open=False)) == SituationPage([])


# -- replay --------------------------------------------------------------------------------------------------

SERVICES = ("web", "api", "db", "jobs", "mail")
steps = st.lists(
    st.tuples(
        st.sampled_from(("open", "end", "again", "told", "graph", "whole", "tick")),
        st.sampled_from(SERVICES),
        st.sampled_from(SERVICES),
        st.integers(0, 400),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(steps)
def test_replay_and_snapshots_give_what_was_decided(todo: Sequence[tuple[str, str, str, int]]) -> None:
    story, when = Story(*SHOP, rules=Rules(mutes=True)), 0
    for what, service, other, more_s in todo:
        when += more_s
        known = story.opened.get(service)
        if what == "open":
            story.open(when, service, more_s % 5)
        elif what == "graph" and service != other:
            story.tell(when, SetDependency("manual", Dependency(service, other), "ada"))
        elif what == "whole":
            story.hear(when, *([] if known is None else [known]), whole=True)
        elif what == "tick":
            story.tell(when + machines.KEPT_S, Tick())
        elif known is not None and what == "end":
            story.change(when, known, is_open=False)
        elif known is not None and what == "again":
            story.change(when, known, is_open=True, reopened=known.reopened + 1, since=ZERO + when)
        elif known is not None:
            story.change(when, known, told=True)

    assert state(loaded(story.topology)) == state(story.topology)
    for situation in story.situations:
        assert len(situation.incidents) <= rules_of.INCIDENTS_MAX
        for identity in situation.incidents:
            assert story.topology.situations.members[identity].situation == situation.id


def loaded(topology: Topology) -> Topology:
    """Another one of its snapshot."""
    records: dict[str, bytes | None] = {}
    topology.checkpoint.begin()
    while taken := topology.checkpoint.slice(1 << 20):
        records.update(taken)
    again = Topology(rules=topology.rules)
    again.load(sorted((key, record) for key, record in records.items() if record is not None))
    again.loaded()
    return again


def test_events_are_what_people_would_look_for_in_a_log() -> None:
    story = Story(*SHOP)
    story.open(100, "db")
    story.open(110, "api")

    kinds = [type(each) for _now, events in story.log for each in events]
    assert kinds == [TopologyDeclared, IncidentsNoted, IncidentsNoted, SituationGrew, SituationRanked]
