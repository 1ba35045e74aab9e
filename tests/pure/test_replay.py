"""Replay equals live: whatever a shard is told, in whatever order, its events alone give the same state again."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from models.alerts.alert import SERIES_ID_BYTES
from models.incidents.incident import IncidentType, Severity
from models.incidents.verbs import (
    Acknowledge,
    AnyVerb,
    Assign,
    Close,
    Comment,
    Create,
    Label,
    Link,
    Merge,
    Reclassify,
    Reopen,
    Resolve,
    Split,
    Unacknowledge,
    Unlink,
    Unmerge,
    Update,
)
from models.partition.event import Event
from models.shard.effects import Act, Archive, Classify, Effect, SendPeerMessage
from models.shard.messages import (
    ActionOutcome,
    AlertsArrived,
    Archived,
    Classification,
    Classified,
    Command,
    Failed,
    GapEnded,
    Message,
    PeerMessageAnswered,
    PeerMessageArrived,
    Tick,
)
from models.shard.settings import ShardSettings
from models.shard.shard import Shard, Step
from models.shard.slot_transfer import SlotLeft, arrived, by_slot, leaving
from tests.scenario import ZERO, Story, alert
from tests.simulation.dump import difference, dump, unsound


def whole(shard: Shard, slot: int) -> dict[bytes, object]:
    """All that a shard knows of a slot, whatever the numbers of its series."""
    table = shard.state.series
    return {
        identity: (
            msgspec.msgpack.encode(shard.state.incidents[identity]),
            sorted(msgspec.msgpack.encode(table.moved(number)) for number in shard.state.members[identity]),
            {
                key: shard.state.incidents[identity] is incident
                for key, incident in shard.state.by_group.items()
                if key[1] == shard.state.incidents[identity].group_key
            },
            [
                table.by_series[table.keys[number][:SERIES_ID_BYTES]] == number
                for number in sorted(shard.state.members[identity], key=lambda number: table.keys[number])
            ],
        )
        for identity in by_slot(shard).get(slot, [])
    }


SETTINGS = ShardSettings(
    reopen_window_s=30.0,
    close_after_s=40.0,
    expiry_grace_s=20.0,
    max_open=4,
    notify=True,
    wait_s=(0.0, 0.0, 5.0, 10.0, 20.0),
    give_up_after_s=60.0,
    acknowledge_within_s=(10.0, 20.0, 30.0, 0.0, 0.0),
    resolve_within_s=(20.0, 40.0, 60.0, 0.0, 0.0),
    given_ends_s=(30.0,),
)

_alerts = st.builds(
    lambda service, name, instance, version, ends_in: (service, name, instance, version, ends_in),
    st.sampled_from(["api", "db"]),
    st.sampled_from(["Down", "Slow"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["", "worse"]),
    st.sampled_from([float("inf"), 30.0, 5.0, 0.0, 0.0, -3.0, -100.0]),
)


def _verbs(others: st.SearchStrategy[bytes], series: list[bytes], now: float) -> st.SearchStrategy[AnyVerb]:
    """Everything a person may ask, sensible or not."""
    return st.one_of(
        st.builds(Acknowledge, st.sampled_from([0.0, now + 5.0, now - 5.0])),
        st.just(Unacknowledge()),
        st.builds(
            Assign, st.just(["ann"]), st.just([]), st.sampled_from([{}, {"scribe": "bob"}, {"scribe": ""}])
        ),
        st.just(Assign(remove=["ann"])),
        st.just(Comment("hm")),
        st.builds(Label, st.sampled_from([{}, {"team": "ml"}]), st.sampled_from([[], ["severity"]])),
        st.builds(
            Reclassify, st.sampled_from([None, *Severity]), st.just(None), st.sampled_from([None, "none"])
        ),
        st.builds(Reclassify, clear=st.sampled_from([["severity"], ["impact", "type"], ["title"]])),
        st.builds(Link, others),
        st.builds(Unlink, others),
        st.builds(Merge, others),
        st.builds(Unmerge, others),
        st.builds(Split, st.lists(st.sampled_from([*series, b"\2" * 16]), max_size=2)),
        st.builds(Resolve, notes=st.sampled_from(["", "fixed"])),
        st.just(Close()),
        st.just(Reopen()),
        st.builds(Update, st.just("all"), st.just("soon"), st.sampled_from([0.0, now + 5.0])),
        st.builds(
            Create,
            st.sampled_from(["api", "db"]),
            st.just("by hand"),
            severity=st.sampled_from([None, *Severity]),
        ),
    )


class ShardMachine(RuleBasedStateMachine):
    """`live` is told things; `events` is its log. Snapshots are taken in slices between other rules."""

    def __init__(self) -> None:
        super().__init__()
        self.live = Shard("shard/0000", SETTINGS)
        self.live.epoch = 1
        self.replayed = Shard("shard/0000", SETTINGS)
        self.now = ZERO
        self.events: list[tuple[float, Event]] = []
        self.asked: list[Effect] = []
        self.calls: list[AlertsArrived] = []
        self.commands = 0
        #: What the store has: key -> record; `writing` is the snapshot under way and where its tail begins.
        self.stored: dict[str, bytes] = {}
        self.writing: dict[str, bytes | None] = {}
        self.begun_at = 0

    def tell(self, message: Message) -> Step:
        self.live.seq += 1
        return self.took(self.live.handle(message, self.now))

    def took(self, step: Step) -> Step:
        # As from a log; fresh() applies one event after the other.
        self.replayed.replay(step.events, self.live.now)
        self.events += [(self.live.now, event) for event in step.events]
        self.asked += step.effects
        return step

    @initialize()
    def start(self) -> None:
        self.took(self.live.started("shard-0000-a", self.now))

    @rule(
        found=st.lists(_alerts, min_size=1, max_size=4),
        want_ids=st.booleans(),
        sender=st.sampled_from(["", "prometheus", "ci"]),
    )
    def alerts_arrive(
        self, found: list[tuple[str, str, str, str, float]], want_ids: bool, sender: str
    ) -> None:
        alerts = [
            alert(service, name, instance, severity="page" if instance == "b" else "", summary=version)
            for service, name, instance, version, _ends in found
        ]
        message = AlertsArrived(
            b"%016d" % len(self.calls),
            "default",
            "test",
            [each.key for each in alerts],
            [self.now + ends for *_rest, ends in found],
            [each.body for each in alerts],
            want_ids,
            sender=sender,
        )
        self.calls.append(message)
        self.tell(message)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def a_call_is_repeated(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.calls[-3:]))
        known = message.call_id in self.live.state.calls
        step = self.tell(message)
        assert not (known and step.events)

    @precondition(lambda self: self.calls)
    @rule()
    def an_alert_comes_without_its_body(self) -> None:
        last = self.calls[-1]
        self.tell(
            AlertsArrived(
                b"x%015d" % len(self.events), "default", "test", last.keys, last.ends, [b""] * len(last.keys)
            )
        )

    @rule(
        seconds=st.sampled_from([0.1, 1.0, 1.0, 6.0, 25.0, 45.0, 130.0, 3600.0, -1.0, -5.0, -50.0, -3600.0]),
        in_gap=st.booleans(),
    )
    def time_passes(self, seconds: float, in_gap: bool) -> None:
        self.now += seconds
        self.tell(Tick(in_gap))

    @precondition(lambda self: self.live.state.incidents)
    @rule(data=st.data(), actor=st.sampled_from(["ann", "bob"]))
    def a_person_does_something(self, data: st.DataObject, actor: str) -> None:
        incident = data.draw(st.sampled_from([*self.live.state.incidents]))
        others = st.sampled_from([*self.live.state.incidents, b"\1" * 16])
        verb = data.draw(_verbs(others, self._series_of(incident), self.now))
        self.commands += 1
        self.tell(Command(b"%016d" % (10**9 + self.commands), "default", actor, incident, verb, "why not"))

    def _series_of(self, incident: bytes) -> list[bytes]:
        table = self.live.state.series
        return [table.keys[number][:16] for number in self.live.state.members[incident]]

    @rule(lost=st.booleans())
    def a_message_is_brought(self, lost: bool) -> None:
        owed = [effect for effect in self.asked if isinstance(effect, SendPeerMessage)]
        if not owed:
            return
        sent = owed[0]
        reply = self.tell(
            PeerMessageArrived(sent.tenant, sent.sender, sent.number, sent.to, sent.message)
        ).reply
        if not lost:
            self.asked.remove(sent)
            refused = reply.detail if isinstance(reply, Failed) else ""
            self.tell(PeerMessageAnswered(sent.sender, sent.number, refused))

    @rule()
    def it_hears_again(self) -> None:
        self.tell(GapEnded(self.now - 10.0, "no gateway called"))

    @rule(severity=st.sampled_from(Severity), stale=st.booleans())
    def the_classifier_answers(self, severity: Severity, stale: bool) -> None:
        questions = [effect for effect in self.asked if isinstance(effect, Classify)]
        verdicts = [
            Classification(
                q.incident_id, severity, IncidentType.DATA, "minor", "test", 0.5, max(0, q.asked - stale)
            )
            for q in questions
        ]
        if not stale:
            self.asked = [effect for effect in self.asked if not isinstance(effect, Classify)]
        self.tell(Classified(verdicts))

    @rule(ok=st.booleans(), final=st.booleans(), lost=st.booleans())
    def the_receiver_answers(self, ok: bool, final: bool, lost: bool) -> None:
        acts = [effect for effect in self.asked if isinstance(effect, Act)]
        if not acts:
            return
        if not lost:
            self.asked.remove(acts[0])
        self.tell(
            ActionOutcome(acts[0].incident_id, acts[0].number, acts[0].attempt, ok, "test", final and not ok)
        )

    @rule(stale=st.sampled_from([0, 0, 1]))
    def the_archive_answers(self, stale: int) -> None:
        ids = [
            identity
            for effect in self.asked
            if isinstance(effect, Archive)
            for identity in effect.incident_ids
        ]
        found = [self.live.state.incidents.get(each) for each in ids]
        versions = [0 if each is None else each.version - stale for each in found]
        self.tell(Archived([*ids, b"unknown"], [*versions, 0]))

    @rule()
    def an_effect_is_not_delivered(self) -> None:
        if self.asked:
            self.live.ask_again(self.asked.pop())

    @precondition(lambda self: not self.live.checkpoint.is_running)
    @rule()
    def a_snapshot_begins(self) -> None:
        self.live.checkpoint.begin()
        self.writing = {}
        self.begun_at = len(self.events)

    @precondition(lambda self: self.live.checkpoint.is_running)
    @rule(size=st.sampled_from([1, 1, 500, 1_000_000]))
    def a_slice_is_written(self, size: int) -> None:
        records = self.live.checkpoint.slice(size)
        self.writing.update(records)
        if records:
            return
        for key, record in self.writing.items():
            if record is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = record
        self.live.checkpoint.closed()
        loaded = Shard("shard/0000", SETTINGS)
        loaded.load(sorted(self.stored.items()))
        loaded.loaded()
        for then, event in self.events[self.begun_at :]:
            loaded.apply(event, then)
        self.same(loaded)

    @precondition(lambda self: self.live.checkpoint.is_running)
    @rule(size=st.sampled_from([1, 500]))
    def a_slice_is_lost_and_the_snapshot_given_up(self, size: int) -> None:
        self.live.checkpoint.slice(size)
        self.live.checkpoint.abandon()

    @rule()
    def the_process_is_started_anew(self) -> None:
        self.live = self.fresh()
        self.live.epoch += 1
        self.live.seq = len(self.events)
        # Nothing is stored but what a mark names; the new one writes all it replays.
        self.stored = {}
        self.asked = []
        self.took(self.live.started("shard-0000-a", self.now))

    @precondition(lambda self: self.live.state.incidents)
    @rule(data=st.data(), limit_bytes=st.sampled_from([1, 2000, 1_000_000]))
    def a_slot_goes_elsewhere_and_comes_back(self, data: st.DataObject, limit_bytes: int) -> None:
        slot = data.draw(st.sampled_from([*by_slot(self.live)]))
        before = whole(self.live, slot)
        there = Shard("shard/0001", SETTINGS)

        left = self.move(self.live, there, slot, limit_bytes)
        assert slot not in by_slot(self.live)
        assert whole(there, slot) == before
        assert not unsound(there) and not unsound(self.live)

        came = self.move(there, self.live, slot, limit_bytes)
        assert not there.state.incidents and not len(there.state.series)
        assert whole(self.live, slot) == before
        for event in (*left, *map(arrived, came)):
            self.events.append((self.live.now, event))
            self.replayed.apply(event, self.live.now)

    def move(self, here: Shard, there: Shard, slot: int, limit_bytes: int) -> list[SlotLeft]:
        events: list[SlotLeft] = []
        for event in leaving(here, slot, by_slot(here)[slot], 2, limit_bytes):
            here.apply(event, self.live.now)
            there.apply(arrived(event), self.live.now)
            events.append(event)
        return events

    @invariant()
    def replay_equals_live(self) -> None:
        self.same(self.replayed)
        assert not unsound(self.live)

    def teardown(self) -> None:
        self.same(self.fresh())

    def fresh(self) -> Shard:
        shard = Shard("shard/0000", SETTINGS)
        for then, event in self.events:
            shard.apply(event, then)
        return shard

    def same(self, other: Shard) -> None:
        late = self.live.now + 10.0
        assert not difference(dump(self.live, late), dump(other, late))


TestReplayEqualsLive = ShardMachine.TestCase
TestReplayEqualsLive.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)


@pytest.mark.parametrize("ends", [(30.0,), (math.inf,), (30.0, 40.5, math.inf, 30.2)])
def test_many_new_series_are_replayed_at_once_and_lead_to_the_same_state(
    ends: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story()
    story.push(ZERO, alert("api", "Down"), alert("db", "Down"))
    many = [
        alert(("api", "db")[nth % 3 == 0], "Down", f"i{nth}", ends=ends[nth % len(ends)])
        for nth in range(600)
    ]
    with monkeypatch.context() as patched:
        patched.setattr(story.replayed.state.series, "open", None)  # it has no need of it
        story.push(ZERO + 1, *many)
    live, replayed = story.shard.state.series, story.replayed.state.series
    assert replayed.due(ZERO + 35, 1000) == live.due(ZERO + 35, 1000)
    assert sorted(replayed.due(ZERO + 50, 1000)) == sorted(live.due(ZERO + 50, 1000))


def test_new_series_in_the_places_of_old_ones_are_replayed_too() -> None:
    story = Story()
    story.push(ZERO, *[alert("api", "Down", f"i{nth}", ends=1.0) for nth in range(300)])
    story.classify(ZERO, Severity.P1)
    story.receive(ZERO)
    story.tick(ZERO + 400)
    story.receive(ZERO + 400)
    story.tick(ZERO + 20_000)
    story.archive(ZERO + 20_001)
    assert len(story.shard.state.series) == 0

    story.push(ZERO + 20_002, *[alert("api", "Down", f"j{nth}") for nth in range(400)])

    assert len(story.replayed.state.series) == 400


def test_replay_keeps_the_calls_of_the_window_only() -> None:
    story = Story()
    for second in range(0, 1000, 5):
        story.push(ZERO + second, alert("api", "Down"))

    assert len(story.replayed.state.calls) < 40


def test_a_call_that_comes_again_after_the_window_can_be_captured() -> None:
    story = Story()
    story.push(ZERO, alert("api", "Down"), call=b"again")
    story.tick(ZERO + 200)
    story.push(ZERO + 201, alert("api", "Down"), call=b"again")
    story.restart(ZERO + 202)
    story.tick(ZERO + 203)

    story.shard.checkpoint.begin()
    while story.shard.checkpoint.slice(1000):
        pass
