"""Whose an event is: of each kind something says it, and a step of several tenants is a frame of each."""

from __future__ import annotations

import math

import pytest

from models.alerts.alert import key_digest, series_id
from models.errors import Broken
from models.incidents.incident import IncidentState, IncidentType, Severity
from models.partition.event import Event
from models.partition.frames import EVERYONE
from models.shard.assembly import Assembly
from models.shard.component import Component, on
from models.shard.events import (
    ClockSetBack,
    IncidentStateChanged,
    ShardStarted,
)
from models.shard.messages import AlertsArrived, Classification, Classified, Message, Tick
from models.shard.settings import ShardSettings
from models.shard.shard import Shard, Step
from models.shard.tenants import by_tenant
from tests.scenario import alert
from tests.simulation.dump import difference, dump, unsound

TENANTS = ("red", "blue")
START = 1_800_000_000.0
SETTINGS = ShardSettings(expiry_grace_s=0.0)


class Stray(Event, frozen=True):
    """Names no incident."""


def test_an_event_that_does_not_say_whose_it_is_is_refused_when_the_program_starts() -> None:
    class Straying(Component):
        name = "straying"
        events = (on(Stray, lambda *_: None),)

    with pytest.raises(Broken, match="Stray of Straying has no incident_id"):
        Assembly([Straying])


class Two:
    """A shard of two tenants, and what its log gives after each frame."""

    def __init__(self) -> None:
        self.shard, self.mirror = Shard("shard/0000", SETTINGS), Shard("shard/0000", SETTINGS)
        self.events: list[tuple[float, Event]] = []
        self.calls = 0
        self.log(None, self.shard.started("test", START), START)

    def log(self, message: Message | None, step: Step, now: float) -> list[tuple[str, list[Event]]]:
        frames = [(tenant, [*events]) for tenant, events in by_tenant(self.shard, message, step.events)]
        for _tenant, events in frames:
            for event in events:
                self.mirror.apply(event, self.shard.now)
                self.events.append((self.shard.now, event))
            assert not unsound(self.mirror)
        assert not difference(dump(self.mirror, now), dump(self.shard, now))
        return frames

    def tell(self, message: Message, after_s: float) -> list[tuple[str, list[Event]]]:
        now = START + after_s
        return self.log(message, self.shard.handle(message, now), now)

    def push(
        self, tenant: str, *services: str, after_s: float = 1.0, lasts_s: float = math.inf
    ) -> list[tuple[str, list[Event]]]:
        self.calls += 1
        alerts = [alert(service, "Down") for service in services]
        keys = [series_id(tenant, each.labels) + key_digest(each.body) for each in alerts]
        ends = [START + after_s + lasts_s] * len(alerts)
        bodies = [each.body for each in alerts]
        return self.tell(AlertsArrived(b"%016d" % self.calls, tenant, "test", keys, ends, bodies), after_s)


def test_one_tick_is_a_frame_for_each_tenant_in_which_its_incidents_end_wholly() -> None:
    two = Two()
    for service in ("api", "db"):
        for tenant in TENANTS:
            two.push(tenant, service, lasts_s=10.0)

    frames = two.tell(Tick(), 20.0)

    assert sorted(whose for whose, _events in frames if whose != EVERYONE) == sorted(TENANTS)
    for whose, events in frames:
        ended = [each for each in events if isinstance(each, IncidentStateChanged)]
        assert len(ended) == (0 if whose == EVERYONE else 2)


def test_a_log_that_ends_between_two_tenants_frames_leaves_the_others_due_as_before() -> None:
    two = Two()
    for tenant in TENANTS:
        two.push(tenant, "api", lasts_s=10.0)
    _first, (last, rest) = two.tell(Tick(), 20.0)

    early = Shard("shard/0000", SETTINGS)
    for now, event in two.events[: -len(rest)]:
        early.apply(event, now)
    early.started("test", START + 21.0)
    step = early.handle(Tick(), START + 22.0)

    ((whose, events),) = by_tenant(early, Tick(), step.events)
    assert whose == last and [type(each) for each in events] == [type(each) for each in rest]
    assert {each.state for each in early.state.incidents.values()} == {IncidentState.RESOLVED}
    assert not unsound(early)


def test_verdicts_of_several_tenants_stay_in_their_order_within_each() -> None:
    two = Two()
    for service in ("api", "db"):
        for tenant in TENANTS:
            two.push(tenant, service)
    incidents = [*two.shard.state.incidents.values()]

    frames = two.tell(Classified([verdict(each.id) for each in incidents]), 2.0)

    assert [whose for whose, _events in frames] == [*TENANTS]
    for whose, events in frames:
        met = list(dict.fromkeys(getattr(each, "incident_id") for each in events))  # noqa: B009
        assert met == [each.id for each in incidents if each.tenant == whose]


def test_what_a_clock_has_to_say_before_a_request_is_everyones() -> None:
    two = Two()
    ((whose, _events),) = two.push("red", "api", after_s=500.0)

    (first, events), (second, _rest) = two.push("blue", "api", after_s=1.0)

    assert (whose, first, second) == ("red", EVERYONE, "blue")
    assert [type(each) for each in events] == [ClockSetBack]


def test_a_start_is_everyones() -> None:
    shard = Shard("shard/0000", SETTINGS)

    ((whose, events),) = by_tenant(shard, None, shard.started("test", START).events)

    assert whose == EVERYONE and isinstance(events[0], ShardStarted)


def verdict(identity: bytes) -> Classification:
    return Classification(identity, Severity.P1, IncidentType.DATA, "major", "test", 1.0, 1)
