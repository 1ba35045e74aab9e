"""Verbs over two incidents: link, merge, unmerge, split, in one shard and across two."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from models.alerts.alert import series_id
from models.incidents.incident import Incident, IncidentState, Severity
from models.incidents.verbs import (
    LINKS_MAX,
    Acknowledge,
    Close,
    Comment,
    Create,
    Link,
    Merge,
    Reclassify,
    Reopen,
    Resolve,
    Split,
    Unlink,
    Unmerge,
)
from models.shard import peer_messages
from models.shard.lifecycle import STILL_FIRING_S
from models.shard.messages import Decision, PeerMessageAnswered
from models.shard.peer_messages import OWED_MAX
from models.shard.settings import ShardSettings
from tests.scenario import SETTINGS, Alert, Refusal, Story, alert, at

API, DB = alert("llm-api", "Slow"), alert("vector-db", "Down")


class Two:
    """A target and a source, each in a shard of its own."""

    def __init__(self, settings: ShardSettings = SETTINGS) -> None:
        self.here, self.there = Story(settings), Story(settings)
        self.there.shard.epoch = 7
        self.here.push(at(0), API)
        self.here.classify(at(1), Severity.P2)
        self.there.push(at(0), DB)
        self.there.classify(at(1), Severity.P2)
        self.target, self.source = self.here.incident.id, self.there.incident.id

    @property
    def parent(self) -> Incident:
        return self.here.shard.state.incidents[self.target]

    @property
    def child(self) -> Incident:
        return self.there.shard.state.incidents[self.source]

    def carry(self, second: float) -> None:
        stories = [self.here, self.there]
        while any(story.carry_one(at(second), stories) for story in stories):
            pass

    def merge(self, second: float) -> None:
        self.here.do(at(second), Merge(self.source), self.target)
        self.carry(second)


def test_a_merged_incident_is_a_child_of_the_other() -> None:
    two = Two()

    two.merge(5)

    assert two.child.merged_into == two.target
    assert [(child.is_open, child.pending) for child in two.parent.children.values()] == [(True, "")]
    assert two.here.kinds(two.parent)[-1] == two.there.kinds(two.child)[-1] == "Merged"


def test_of_a_child_nobody_is_told() -> None:
    two = Two()
    two.merge(5)

    two.there.ticks(at(6), at(30))

    assert two.there.sent() == []


def test_a_parent_is_resolved_when_its_children_are_too() -> None:
    two = Two()
    two.merge(5)
    two.here.push(at(6), API.ended(6))
    assert two.parent.is_open

    two.there.push(at(7), DB.ended(7))
    two.carry(7)

    assert two.parent.state is IncidentState.RESOLVED


def test_a_child_that_fires_again_opens_its_parent_again() -> None:
    two = Two()
    two.merge(5)
    two.here.push(at(6), API.ended(6))
    two.there.push(at(7), DB.ended(7))
    two.carry(7)

    two.there.push(at(8), DB)
    two.carry(8)

    assert two.parent.is_open and two.parent.firing == 0


def test_a_child_that_goes_on_long_after_its_parent_was_over_is_its_own_again() -> None:
    two = Two()
    two.merge(5)
    two.here.push(at(6), API.ended(6))
    two.there.push(at(7), DB.ended(7))
    two.carry(7)

    two.there.do(at(100), Comment("still a child"), two.source)
    two.there.push(at(100), alert("vector-db", "Down", "b"))
    two.here.tick(at(100))
    two.carry(100)

    # reopen_window is 60 s, and its own 60 s had passed as well: the alert opened another incident.
    assert two.parent.state is IncidentState.RESOLVED
    assert len(two.there.shard.state.incidents) == 2


def test_a_worse_child_makes_its_parent_worse_and_that_is_told() -> None:
    two = Two()
    two.here.ticks(at(2), at(12))
    two.here.receive(at(13))
    two.merge(14)

    two.there.push(at(15), alert("vector-db", "Down", "b", severity="critical"))
    two.there.classify(at(15), Severity.P0)
    two.carry(15)

    assert two.parent.severity is Severity.P0
    assert two.here.sent() == [(15, "severity changed", 0)]


def test_a_persons_severity_of_the_parent_wins_over_its_children() -> None:
    two = Two()
    two.here.do(at(4), Reclassify(severity=Severity.P3), two.target)
    two.merge(5)

    assert two.parent.severity is Severity.P3


def test_resolving_the_parent_resolves_its_children() -> None:
    two = Two()
    two.merge(5)

    two.here.do(at(6), Resolve(notes="done"), two.target, by="ann")
    two.carry(6)

    assert two.child.state is IncidentState.RESOLVED
    assert two.child.resolution is not None and two.child.resolution.by == "ann"
    assert not any(child.is_open for child in two.parent.children.values())


def test_a_child_that_fires_on_half_an_hour_after_its_parent_was_resolved_by_hand_opens_that_again() -> None:
    two = Two(msgspec.structs.replace(SETTINGS, reopen_window_s=STILL_FIRING_S, close_after_s=3600))
    two.merge(5)
    two.here.push(at(6), API.ended(6))
    two.here.do(at(7), Resolve(), two.target)
    two.carry(8)

    # The child was resolved a moment after the parent, and so goes on a moment after the parent's reopen_window.
    two.there.tick(at(8 + STILL_FIRING_S))
    two.carry(9 + STILL_FIRING_S)

    assert two.parent.is_open and two.child.merged_into == two.target


def test_what_a_child_said_before_it_was_ended_does_not_open_the_parent_again() -> None:
    two = Two()
    two.merge(5)
    two.there.push(at(6), alert("vector-db", "Down", "b", severity="critical"))
    two.there.classify(at(6), Severity.P0)

    two.here.do(at(7), Resolve(), two.target)
    # Its word of P0 is on its way; the question to end overtakes it.
    two.here.carry_one(at(7), [two.here, two.there])
    two.carry(7)

    assert (two.parent.state, two.child.state) == (IncidentState.RESOLVED, IncidentState.RESOLVED)
    assert two.parent.reopened == 0


def test_an_unmerged_incident_is_its_own_again_and_told_of() -> None:
    two = Two()
    two.merge(5)

    two.here.do(at(6), Unmerge(two.source), two.target)
    two.carry(6)
    two.there.ticks(at(7), at(17))

    assert (two.child.merged_into, two.parent.children) == (b"", {})
    assert two.there.sent() == [(16, "opened", 0)]


def test_of_two_incidents_that_are_merged_into_each_other_one_refuses() -> None:
    two = Two()

    two.here.do(at(5), Merge(two.source), two.target)
    two.there.do(at(5), Merge(two.target), two.source)
    two.carry(5)

    assert "MergeRefused" in two.here.kinds(two.parent)
    assert (two.parent.merged_into, list(two.parent.children)) == (two.source, [])
    assert (two.child.merged_into, list(two.child.children)) == (b"", [two.target])


def test_a_child_is_not_merged_anywhere_else() -> None:
    two = Two()
    two.merge(5)
    two.here.push(at(6), alert("llm-api", "Down"))
    other = next(each for each in two.here.shard.state.incidents.values() if each.id != two.target)

    two.here.do(at(7), Merge(two.source), other)
    two.carry(7)

    assert other.children == {}
    assert "is already merged into incident" in other.timeline[-1].text


def test_merging_with_what_does_not_exist_is_refused() -> None:
    two = Two()

    two.here.do(at(5), Merge(b"\1" * 16), two.target)
    two.carry(5)

    assert two.parent.children == {}
    assert two.here.kinds(two.parent)[-1] == "MergeRefused"


@pytest.mark.parametrize("verb", [Acknowledge(), Resolve(), Close(), Reopen()])
def test_what_concerns_the_parent_is_refused_of_a_child(verb: Acknowledge) -> None:
    two = Two()
    two.merge(5)

    with pytest.raises(Refusal, match="was merged into incident"):
        two.there.do(at(6), verb, two.source)


@pytest.mark.parametrize("crash", ["target", "source", "both"])
@pytest.mark.parametrize("lose", [False, True])
def test_a_merge_that_a_crash_cuts_in_two_is_finished(crash: str, lose: bool) -> None:
    two = Two()
    stories = [two.here, two.there]
    two.here.do(at(5), Merge(two.source), two.target)
    if lose:
        two.here.carry_one(at(5), stories, lose_answer=True)

    for story in stories:
        if crash in ("both", "target" if story is two.here else "source"):
            story.asked.clear()
            story.restart(at(6))
    if lose and crash == "source":
        # The answer was lost on its way to a target that lives: its errand asks again.
        two.here.shard.ask_again(_owed(two.here, two.target))
        two.here.tick(at(7))
    two.carry(8)

    assert two.child.merged_into == two.target
    assert [child.pending for child in two.parent.children.values()] == [""]


def test_links_are_seen_from_both_sides_and_unlinked_from_either() -> None:
    two = Two()
    two.here.do(at(5), Link(two.source), two.target)
    two.carry(5)
    assert two.parent.handling is not None and two.parent.handling.related == [two.source]
    assert two.child.handling is not None and two.child.handling.related == [two.target]

    two.there.do(at(6), Unlink(two.target), two.source)
    two.carry(6)

    assert (two.parent.handling.related, two.child.handling.related) == ([], [])


def test_a_link_to_nothing_is_taken_back() -> None:
    two = Two()

    two.here.do(at(5), Link(b"\1" * 16), two.target)
    two.carry(5)

    assert two.parent.handling is not None and two.parent.handling.related == []


def test_an_incident_hears_of_so_many_others_and_of_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_messages, "HEARD_MAX", 1)
    two = Two()
    first = two.here.do(at(5), Create("billing", "one"))
    two.here.do(at(6), Link(two.source), first)
    two.carry(6)
    two.here.do(at(7), Unlink(two.source), first)
    two.carry(7)

    two.here.do(at(8), Link(two.source), two.target)
    two.carry(8)

    assert two.child.handling is not None and [*two.child.handling.heard] == [first.id]
    assert two.parent.handling is not None and two.parent.handling.related == []


def test_an_incident_that_owes_a_message_is_not_archived() -> None:
    two = Two()
    two.here.push(at(5), API.ended(5))
    two.here.do(at(6), Link(two.source), two.target)
    two.here.do(at(7), Close(), two.target)
    two.here.archive(at(8))
    assert two.target in two.here.shard.state.incidents

    two.carry(9)
    two.here.tick(at(10))
    two.here.archive(at(10))

    assert two.target not in two.here.shard.state.incidents


def test_split_off_series_have_an_incident_of_their_own() -> None:
    story, first, second = _two_series()

    made = story.do(at(5), Split([_id(second)], title="Only b"), story.shard.state.incidents[first])

    old = story.shard.state.incidents[first]
    assert (old.firing, made.firing, made.title, made.severity) == (1, 1, "Only b", Severity.P2)
    assert made.handling is not None and made.handling.split_from == old.id


def test_what_is_split_off_before_it_was_classified_is_classified_too() -> None:
    story = Story()
    story.push(at(0), API)
    second = alert("llm-api", "Slow", "b")
    story.push(at(1), second)
    made = story.do(at(2), Split([_id(second)]), story.incident)
    story.restart(at(3))
    made = story.shard.state.incidents[made.id]

    story.classify(at(4), Severity.P1)

    assert (made.state, made.severity, made.classified_by) == (IncidentState.TRIAGED, Severity.P1, "test")


def test_a_split_off_series_stays_where_it_was_put() -> None:
    story, first, second = _two_series()
    made = story.do(at(5), Split([_id(second)]), story.shard.state.incidents[first])

    story.push(at(6), second.ended(6))
    assert made.state is IncidentState.RESOLVED
    story.push(at(7), second)

    assert story.decisions == [Decision.REOPENED]
    assert story.reply.incident_ids == [made.id]


def test_new_series_of_the_group_join_the_old_incident() -> None:
    story, first, second = _two_series()
    story.do(at(5), Split([_id(second)]), story.shard.state.incidents[first])

    story.push(at(6), alert("llm-api", "Slow", "c"))

    assert story.reply.incident_ids == [first]


def test_an_incident_from_which_all_that_fires_is_split_off_is_over() -> None:
    story, first, second = _two_series()
    story.push(at(4), API.ended(4))

    story.do(at(5), Split([_id(second)]), story.shard.state.incidents[first])

    assert story.shard.state.incidents[first].state is IncidentState.RESOLVED


@pytest.mark.parametrize(
    ("series", "words"),
    [
        (lambda one, two: [], "alerts: expected at least one"),
        (lambda one, two: [_id(one), _id(two)], "these are all its alerts"),
        (lambda one, two: [b"\1" * 16], "is not in this incident"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(
    series: Callable[[Alert, Alert], list[bytes]], words: str
) -> None:
    story, first, second = _two_series()

    with pytest.raises(Refusal, match=words):
        story.do(at(5), Split(series(API, second)), story.shard.state.incidents[first])


def test_an_incident_by_hand_may_have_children_and_is_still_ended_by_a_person() -> None:
    two = Two()
    made = two.here.do(at(4), Create("llm-api", "All of it"))
    two.here.do(at(5), Merge(two.source), made)
    two.carry(5)

    two.there.push(at(6), DB.ended(6))
    two.carry(6)

    assert made.is_open and not any(child.is_open for child in made.children.values())


def test_an_incident_has_nothing_to_do_with_itself() -> None:
    two = Two()

    for verb in (Link(two.target), Merge(two.target)):
        with pytest.raises(Refusal, match="expected another incident"):
            two.here.do(at(5), verb, two.target)


def _two_series() -> tuple[Story, bytes, Alert]:
    story = Story()
    other = alert("llm-api", "Slow", "b")
    story.push(at(0), API, other)
    story.classify(at(1), Severity.P2)
    return story, story.incident.id, other


def _id(found: Alert) -> bytes:
    return series_id("default", found.labels)


def _owed(story: Story, sender: bytes):  # type: ignore[no-untyped-def]
    from models.shard.effects import SendPeerMessage

    handling = story.shard.state.incidents[sender].handling
    assert handling is not None
    owed = handling.owed[0]
    return SendPeerMessage("default", sender, owed.number, owed.to, owed.message)


def test_a_link_that_is_made_again_is_not_undone_by_the_refusal_of_an_earlier_one() -> None:
    two = Two()
    others = [bytes([1]) + number.to_bytes(15, "big") for number in range(LINKS_MAX)]
    for other in others:
        two.there.do(at(2), Link(other), two.source)
    for verb in (Link(two.source), Unlink(two.source), Link(two.source)):
        two.here.do(at(3), verb, two.target)

    two.here.carry_one(at(4), [two.here, two.there])
    two.there.do(at(5), Unlink(others[0]), two.source)
    while two.here.carry_one(at(6), [two.here, two.there]):
        pass

    assert two.source in two.parent.handled().related
    assert two.target in two.child.handled().related


def test_a_child_that_is_gone_when_it_is_asked_to_end_holds_nothing_open() -> None:
    two = Two()
    two.merge(5)
    two.here.push(at(6), API.ended(6))
    two.here.do(at(7), Resolve(), two.target)

    (asked,) = two.parent.handled().owed
    two.here.tell(at(8), PeerMessageAnswered(two.target, asked.number, "there is no such incident"))

    assert not two.parent.children[two.source].is_open
    assert two.here.do(at(9), Close(), two.target)


def test_what_waits_for_a_shard_that_is_away_is_bounded() -> None:
    two = Two()
    for _ in range(OWED_MAX // 2):
        two.here.do(at(3), Link(two.source), two.target)
        two.here.do(at(3), Unlink(two.source), two.target)

    with pytest.raises(Refusal, match=r"^Busy: \d+ messages to other incidents are waiting"):
        two.here.do(at(4), Link(two.source), two.target)
    with pytest.raises(Refusal, match=r"^Busy"):
        two.here.do(at(4), Merge(two.source), two.target)
    two.carry(5)

    two.here.do(at(6), Link(two.source), two.target)


def test_a_child_that_comes_and_goes_while_its_parent_is_away_owes_its_newest_word_only() -> None:
    two = Two()
    two.merge(5)
    for second in range(10, 40, 2):
        two.there.push(at(second), DB.ended(second))
        two.there.push(at(second + 1), DB)

    assert len(two.child.handled().owed) <= 2
    two.carry(50)
    assert two.parent.children[two.source].is_open
    two.there.push(at(51), DB.ended(51))
    two.carry(52)
    assert not two.parent.children[two.source].is_open


def test_a_child_that_is_freed_while_its_opening_is_on_its_way_is_opened_once() -> None:
    two = Two(msgspec.structs.replace(SETTINGS, wait_s=(0.0,) * 5))
    assert [reason for _at, reason, _attempt in two.there.sent()] == ["opened"]
    two.merge(5)
    two.here.do(at(6), Unmerge(two.source), two.target)
    two.carry(6)

    two.there.receive(at(7))
    two.there.ticks(at(8), at(20))

    assert two.there.sent() == []
