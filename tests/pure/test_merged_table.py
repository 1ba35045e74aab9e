"""The table of merged incidents in docs/concepts.md, cell by cell: what happens to the parent and to the child, and what their
receivers hear. Each in a shard of its own, so that the one hears of the other by messages."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import msgspec
import pytest

from models.incidents import verbs
from models.incidents.incident import Incident, IncidentState, IncidentType, Severity
from models.incidents.verbs import (
    Acknowledge,
    AnyVerb,
    ApproveRun,
    Assign,
    CancelRun,
    Close,
    Comment,
    HoldRun,
    Label,
    Link,
    Merge,
    Reclassify,
    Reopen,
    Resend,
    Resolve,
    Split,
    StartRun,
    Unacknowledge,
    Unlink,
    Unmerge,
    Update,
)
from models.shard.lifecycle import STILL_FIRING_S
from models.shard.settings import ShardSettings
from tests.scenario import SETTINGS, Alert, Refusal, Story, alert, at

PARENTS, CHILDS = alert("llm-api", "Slow"), alert("vector-db", "Down")
ANOTHER = alert("vector-db", "Down", "b", severity="critical")
RESOLVED, TRIAGED = IncidentState.RESOLVED, IncidentState.TRIAGED
#: `opened` is sent at once from P1 on, of P2 after 10 s.
LATER_S = 11


class Two:
    """A parent and the incident that becomes its child. `heard` is what the receiver took, of each, in order."""

    def __init__(
        self,
        settings: ShardSettings = SETTINGS,
        *,
        parent: Severity = Severity.P2,
        child: Severity = Severity.P2,
    ) -> None:
        self.here, self.there = Story(settings), Story(settings)
        self.there.shard.epoch = 7
        self.second = 1.0
        self.heard: dict[Story, list[str]] = {self.here: [], self.there: []}
        for story, first, severity in ((self.here, PARENTS, parent), (self.there, CHILDS, child)):
            story.push(at(0), first)
            story.classify(at(1), severity)
        self.parent_id, self.child_id = self.here.incident.id, self.there.incident.id

    @property
    def parent(self) -> Incident:
        return self.here.shard.state.incidents[self.parent_id]

    @property
    def child(self) -> Incident:
        return self.there.shard.state.incidents[self.child_id]

    @property
    def of_parent(self) -> list[str]:
        return self.heard[self.here]

    @property
    def of_child(self) -> list[str]:
        return self.heard[self.there]

    def wait(self, seconds: float = 1) -> Two:
        """Time goes by; notes and notifications arrive at once."""
        for _ in range(int(seconds)):
            self.second += 1
            self.settle(tick=True)
        return self

    def leap(self, seconds: float) -> Two:
        """The same, with one tick at the end."""
        self.second += seconds - 1
        return self.wait()

    def settle(self, *, tick: bool = False) -> None:
        stories = [self.here, self.there]
        for story in stories:
            if tick:
                story.tick(at(self.second))
        self.here.carry(at(self.second), [self.there])
        for story in stories:
            while sent := story.sent():
                self.heard[story].append(sent[0][1])
                story.receive(at(self.second))

    def merge(self) -> Two:
        return self.person(Merge(self.child_id))

    def unmerge(self) -> Two:
        return self.person(Unmerge(self.child_id))

    def person(self, verb: AnyVerb) -> Two:
        """Somebody does this to the parent."""
        self.here.do(at(self.second), verb, self.parent_id)
        self.settle()
        return self

    def push(self, story: Story, *alerts: Alert, severity: Severity = Severity.P2) -> Two:
        story.push(at(self.second), *alerts)
        if story.asked:
            story.classify(at(self.second), severity)
        self.settle()
        return self

    def ends(self, which: Alert) -> Two:
        story = self.here if which is PARENTS else self.there
        return self.push(story, which.ended(self.second))


# -- they are merged -------------------------------------------------------------------------------------------


def test_the_parent_becomes_as_severe_as_its_most_severe_open_child() -> None:
    two = Two(child=Severity.P0).merge()
    assert two.parent.severity is Severity.P0

    two.ends(CHILDS)
    assert (two.child.state, two.parent.severity) == (RESOLVED, Severity.P2)


def test_but_not_where_a_person_set_the_parents_severity() -> None:
    two = Two(child=Severity.P0).person(Reclassify(Severity.P3)).merge()

    assert two.parent.severity is Severity.P3


def test_a_child_of_which_opened_was_not_sent_sends_nothing_any_more() -> None:
    two = Two().wait(3).merge().wait(LATER_S).ends(CHILDS).wait(LATER_S)

    assert two.of_child == []


def test_a_child_of_which_opened_was_sent_sends_its_end_and_nothing_else() -> None:
    two = Two().wait(LATER_S).merge()
    two.push(two.there, ANOTHER, severity=Severity.P0).wait(LATER_S)
    assert two.of_child == ["opened"]

    two.push(two.there, CHILDS.ended(two.second), ANOTHER.ended(two.second)).wait(LATER_S)
    assert two.of_child == ["opened", "resolved"]


# -- alerts end ------------------------------------------------------------------------------------------------


def test_the_parent_resolves_once_its_own_alerts_and_its_child_have_ended_in_either_order() -> None:
    for first, second in ((PARENTS, CHILDS), (CHILDS, PARENTS)):
        two = Two().merge().ends(first)
        assert two.parent.is_open
        assert two.child.is_open == (first is PARENTS)

        two.ends(second)
        assert (two.parent.state, two.child.state) == (RESOLVED, RESOLVED)


def test_the_end_of_the_parents_own_alerts_changes_nothing_for_the_child() -> None:
    two = Two().merge()
    before = msgspec.msgpack.encode(two.child)

    two.ends(PARENTS)

    assert msgspec.msgpack.encode(two.child) == before


# -- a person resolves the parent ------------------------------------------------------------------------------


def test_a_person_who_resolves_the_parent_resolves_the_child_and_the_parents_end_is_sent() -> None:
    two = Two().wait(3).merge().wait(LATER_S).person(Resolve()).wait()

    assert (two.parent.state, two.child.state) == (RESOLVED, RESOLVED)
    assert (two.of_parent, two.of_child) == (["opened", "resolved"], [])


# -- the child goes on -----------------------------------------------------------------------------------------


def test_a_child_that_fires_again_in_time_reopens_the_parent_which_alone_says_so() -> None:
    two = Two().wait(LATER_S).merge().ends(PARENTS).ends(CHILDS).wait()
    assert (two.of_parent, two.of_child) == (["opened", "resolved"], ["opened", "resolved"])

    two.push(two.there, CHILDS).wait(LATER_S)

    assert two.parent.is_open and two.child.is_open and two.child.merged_into == two.parent_id
    assert (two.of_parent, two.of_child) == (
        ["opened", "resolved", "reopened"],
        ["opened", "resolved"],
    )


def test_when_it_is_too_late_for_the_parent_the_child_leaves_it_and_notifies_for_itself() -> None:
    two = Two(msgspec.structs.replace(SETTINGS, close_after_s=600)).wait(LATER_S).merge()
    two.ends(PARENTS).ends(CHILDS).wait()
    two.leap(SETTINGS.reopen_window_s - 2)
    # In time for the child; its word comes when the parent has been over for too long.
    two.there.push(at(two.second), CHILDS)
    two.second += 5
    two.settle()
    two.wait(LATER_S)

    assert two.parent.state is RESOLVED and two.parent.children == {}
    assert two.child.is_open and two.child.merged_into == b""
    assert two.of_parent == ["opened", "resolved"]
    assert two.of_child == ["opened", "resolved", "unmerged"]


def test_a_parent_that_a_person_closed_stays_closed_and_the_child_leaves_it() -> None:
    two = Two().wait(3).merge().wait(LATER_S).ends(PARENTS).ends(CHILDS).wait().person(Close())

    two.push(two.there, CHILDS).wait(LATER_S)

    assert two.parent.state is IncidentState.CLOSED
    assert two.child.is_open and two.child.merged_into == b""
    assert two.of_child == ["opened"]


@pytest.mark.parametrize("closed", [False, True])
def test_what_a_person_resolved_and_still_fires_goes_on_after_half_an_hour(closed: bool) -> None:
    close_after_s = STILL_FIRING_S / 2 if closed else STILL_FIRING_S * 2
    two = Two(msgspec.structs.replace(SETTINGS, close_after_s=close_after_s)).wait(LATER_S).merge()
    two.ends(PARENTS).person(Resolve()).wait().leap(STILL_FIRING_S / 2)
    assert (two.parent.state is IncidentState.CLOSED, two.child.state) == (closed, RESOLVED)

    two.leap(STILL_FIRING_S / 2).wait(LATER_S)

    assert two.child.is_open and two.child.firing == 1
    if closed:
        assert (two.parent.state, two.child.merged_into) == (IncidentState.CLOSED, b"")
        assert two.of_parent == ["opened", "resolved"]
        assert two.of_child == ["opened", "resolved", "unmerged"]
    else:
        assert (two.parent.state, two.child.merged_into) == (TRIAGED, two.parent_id)
        assert two.of_parent == ["opened", "resolved", "reopened"]
        assert two.of_child == ["opened", "resolved"]


# -- people ----------------------------------------------------------------------------------------------------

_ALLOWED: tuple[AnyVerb, ...] = (Comment("hello"), Label({"a": "b"}), Link(b"\1" * 16))
_REFUSED: tuple[AnyVerb, ...] = (
    Acknowledge(), Unacknowledge(), Assign(["ann"]), Reclassify(Severity.P1, IncidentType.DATA), Merge(b"\1" * 16),
    Unmerge(b"\1" * 16), Split([]), Resolve(), Close(), Reopen(), Update("customers", "soon"),
    Resend(), StartRun("restart"), HoldRun(b"\1" * 16, True), CancelRun(b"\1" * 16), ApproveRun(b"\1" * 16),
)  # fmt: skip


@pytest.mark.parametrize("verb", _REFUSED, ids=lambda verb: type(verb).__name__)
def test_of_a_child_this_is_refused_and_the_error_names_the_parent(verb: AnyVerb) -> None:
    two = Two().merge()

    with pytest.raises(Refusal, match=f"Conflict: .*{UUID(bytes=two.parent_id)}"):
        two.there.do(at(two.second), verb, two.child_id)


@pytest.mark.parametrize("verb", _ALLOWED, ids=lambda verb: type(verb).__name__)
def test_of_a_child_this_can_be_done_as_of_any_other(verb: AnyVerb) -> None:
    two = Two().merge()

    two.there.do(at(two.second), verb, two.child_id)

    assert two.child.merged_into == two.parent_id


def test_every_verb_is_in_one_of_the_two_lists() -> None:
    named = {type(verb) for verb in (*_ALLOWED, *_REFUSED)} | {Unlink, verbs.Create}

    assert named == {
        each for each in vars(verbs).values() if isinstance(each, type) and verbs.Verb in each.__bases__
    }


# -- severity and targets --------------------------------------------------------------------------------------


def test_a_child_that_becomes_more_severe_raises_the_parent_which_alone_says_so() -> None:
    two = Two().wait(LATER_S).merge()

    two.push(two.there, ANOTHER, severity=Severity.P0).wait()

    assert (two.child.severity, two.parent.severity) == (Severity.P0, Severity.P0)
    assert (two.of_parent, two.of_child) == (["opened", "severity changed"], ["opened"])


def test_response_targets_pass_for_the_parent_and_not_for_the_child() -> None:
    targets = (5.0, 5.0, 5.0, 0.0, 0.0)
    two = Two(msgspec.structs.replace(SETTINGS, acknowledge_within_s=targets, resolve_within_s=targets))

    two.merge().wait(LATER_S)

    assert two.here.kinds(two.parent).count("TargetPassed") == 4
    assert "TargetPassed" not in two.there.kinds(two.child)


# -- they are unmerged -----------------------------------------------------------------------------------------


def test_an_unmerged_child_takes_its_severity_along() -> None:
    two = Two(child=Severity.P0).merge().unmerge()

    assert (two.parent.severity, two.parent.children) == (Severity.P2, {})
    assert (two.child.severity, two.child.merged_into) == (Severity.P0, b"")


def test_a_parent_of_which_nothing_else_is_open_resolves_when_its_child_leaves() -> None:
    two = Two().merge().ends(PARENTS)
    assert two.parent.is_open

    two.unmerge()

    assert two.parent.state is RESOLVED and two.child.is_open


def test_a_parent_that_fires_itself_stays_open_when_its_child_leaves() -> None:
    assert Two().merge().unmerge().parent.is_open


def _opened(two: Two) -> None:
    two.wait(LATER_S)


def _opened_and_over(two: Two) -> None:
    two.wait(LATER_S)
    two.ends(CHILDS).wait()
    two.push(two.there, CHILDS)


@pytest.mark.parametrize(
    ("before", "heard"),
    [
        (lambda two: None, ["opened"]),
        (_opened, ["opened", "unmerged"]),
        (_opened_and_over, ["opened", "resolved", "unmerged"]),
    ],
    ids=["never told of", "told of", "told that it was over"],
)
def test_an_unmerged_child_notifies_for_itself_by_what_was_heard_of_it(
    before: Callable[[Two], None], heard: list[str]
) -> None:
    two = Two()
    before(two)
    two.merge().wait().unmerge().wait(LATER_S)

    assert two.of_child == heard


def test_an_unmerged_child_that_is_over_says_nothing() -> None:
    two = Two().wait(LATER_S).merge().ends(CHILDS).wait().unmerge().wait(LATER_S)

    assert (two.child.state, two.of_child) == (RESOLVED, ["opened", "resolved"])


# -- what stands below the table -------------------------------------------------------------------------------


def test_the_parent_must_be_open() -> None:
    two = Two().ends(PARENTS)

    with pytest.raises(Refusal, match="Conflict: it is Resolved: reopen it first"):
        two.merge()


def test_what_can_not_become_a_child_stays_as_it_was_and_the_parent_says_why() -> None:
    two = Two(msgspec.structs.replace(SETTINGS, close_after_s=5.0, reopen_window_s=5.0))
    two.ends(CHILDS).wait(LATER_S)
    assert two.child.state is IncidentState.CLOSED

    two.merge()

    assert two.parent.children == {} and two.child.merged_into == b""
    assert (two.parent.timeline[-1].kind, "it is closed" in two.parent.timeline[-1].text) == (
        "MergeRefused",
        True,
    )
