"""Whose alert it was stands with the series, with each decision and in the history; a delivery id covers what was said."""

from __future__ import annotations

import msgspec
import pytest

from models.alerts.view import alert_view
from models.control.tokens import INGEST, MATCH_MAX, match_of
from models.errors import Malformed
from models.shard.events import CallAnswered, SeriesResolved
from models.shard.messages import AlertsArrived, AlertsReply, Decision, Failed, encode
from models.shard.shard import Shard, Step
from tests.scenario import SETTINGS, Alert, Story, alert, at
from tests.simulation.dump import difference, dump

INF = float("inf")
DOWN = alert("pay", "DBDown")


def sends(story: Story, second: float, who: str, one: Alert, ends: float = INF, **more: object) -> Step:
    call = b"%s-%07.2f" % (who[:8].ljust(8).encode(), second)
    return story.tell(
        at(second),
        msgspec.structs.replace(
            AlertsArrived(call, "default", "v1", [one.key], [ends], [one.body], want_ids=True, sender=who),
            **more,
        ),
    )


def test_a_series_knows_who_began_it_and_who_says_what_it_says_now() -> None:
    story = Story()
    sends(story, 1, "prometheus", DOWN)
    sends(story, 2, "other", alert("pay", "DBDown", summary="nothing to see"))

    view = alert_view(story.shard.state.series, 0)

    assert view.sender == "other"
    assert [*zip([each[0] for each in view.decisions], view.senders, strict=True)] == [
        (Decision.OPENED, "prometheus"),
        (Decision.CHANGED, "other"),
    ]


def test_the_history_names_who_began_and_who_ended_it() -> None:
    story = Story()
    sends(story, 1, "prometheus", DOWN)
    step = sends(story, 2, "ci", DOWN, at(2))

    assert [event.sender for event in step.events if isinstance(event, SeriesResolved)] == ["ci"]
    named = {line.kind: line.actor for line in story.incident.timeline}
    assert (named["Created"], named["Resolved"]) == ("prometheus", "ci")
    assert story.incident.resolution is not None
    assert story.incident.resolution.by == "ci"
    assert story.incident.resolution.method == "Automated"


def test_the_history_names_who_reopened_it() -> None:
    story = Story()
    sends(story, 1, "prometheus", DOWN)
    sends(story, 2, "ci", DOWN, at(2))
    sends(story, 3, "prometheus", DOWN)

    assert [line.actor for line in story.incident.timeline if line.kind == "StateChanged"] == ["prometheus"]


def test_what_ends_by_its_time_is_nobodys_doing() -> None:
    story = Story()
    sends(story, 1, "prometheus", DOWN, at(3))
    story.tick(at(5))

    (resolved,) = [line for line in story.incident.timeline if line.kind == "Resolved"]
    assert resolved.actor == "system"
    assert alert_view(story.shard.state.series, 0).senders[-1] == ""


def test_what_people_do_after_an_alert_is_not_its_senders() -> None:
    story = Story()
    sends(story, 1, "prometheus", alert("pay", "DBDown", ends=30), at(30))
    story.classify(at(2))
    assert {line.actor for line in story.incident.timeline} == {"prometheus", "system"}


def loaded_of(story: Story) -> Shard:
    """A shard that reads a snapshot of another."""
    story.shard.checkpoint.begin()
    records: dict[str, bytes] = {}
    while found := story.shard.checkpoint.slice(1_000_000):
        records |= {key: record for key, record in found if record is not None}
    loaded = Shard("shard/0000", SETTINGS)
    loaded.load(sorted(records.items()))
    loaded.loaded()
    return loaded


def test_senders_survive_a_snapshot() -> None:
    story = Story()
    sends(story, 1, "prometheus", DOWN)
    sends(story, 2, "other", alert("pay", "DBDown", summary="worse"))

    loaded = loaded_of(story)

    assert not difference(dump(story.shard, story.now), dump(loaded, story.now))
    assert (loaded.state.series.openers[0], loaded.state.series.senders[0]) == ("prometheus", "other")


def test_a_name_is_one_string_however_often_it_was_read() -> None:
    story = Story()
    for second in range(6):
        name = "".join(["prome", "theus"])  # as each message brings one of its own
        sends(story, second, name, alert("pay", "DBDown", f"pod-{second % 2}", summary=str(second)))

    for table in (story.shard.state.series, loaded_of(story).state.series):
        notes = [note for series in table.notes.values() for note in series]
        assert len(notes) == 2
        assert len({id(name) for name in (*table.senders[:2], *(note.sender for note in notes))}) == 1


# Delivery ids


def delivered(story: Story, second: float, one: Alert, ends: float, content: bytes, before: Step) -> object:
    return sends(
        story,
        second,
        "ci",
        one,
        ends,
        delivery_id="k",
        content=content,
        delivered_before=encode(before.reply),
    ).reply


def test_the_same_key_and_words_are_a_duplicate_whatever_the_clock_says() -> None:
    story = Story()
    first = sends(story, 1, "ci", DOWN, at(300), delivery_id="k", content=b"c" * 16)

    reply = delivered(story, 2, DOWN, at(301), b"c" * 16, first)

    assert isinstance(reply, AlertsReply)
    assert reply.decision(0) is Decision.DUPLICATE


def test_the_same_key_with_another_end_is_refused() -> None:
    story = Story()
    first = sends(story, 1, "ci", DOWN, delivery_id="k", content=b"c" * 16)

    reply = delivered(story, 2, DOWN, at(2), b"d" * 16, first)

    assert reply == Failed("Refused", "this delivery id was accepted before with other alerts or ends")


def test_a_delivery_of_before_an_upgrade_is_decided_again_and_loses_nothing() -> None:
    story = Story()
    first = sends(story, 1, "ci", DOWN, delivery_id="k", content=b"c" * 16)
    old = msgspec.structs.replace(first, reply=msgspec.structs.replace(first.reply, content=b"8 bytes!"))

    again = delivered(story, 2, DOWN, INF, b"c" * 16, old)
    other = delivered(story, 3, alert("pay", "Other"), INF, b"e" * 16, old)

    assert isinstance(again, AlertsReply)
    assert isinstance(other, AlertsReply)
    assert [again.decision(0), other.decision(0)] == [Decision.REPEATED, Decision.OPENED]


def test_a_delivery_of_which_something_was_refused_is_not_remembered() -> None:
    story = Story()
    sends(story, 1, "ci", DOWN)
    step = story.tell(
        at(2),
        AlertsArrived(
            b"c" * 16,
            "default",
            "v1",
            [DOWN.key, alert("x", "Y").key],
            [INF, INF],
            [alert("collides", "Z").body, alert("x", "Y").body],
            delivery_id="k",
            content=b"c" * 16,
        ),
    )

    assert isinstance(step.reply, AlertsReply)
    assert [step.reply.decision(0), step.reply.decision(1)] == [Decision.COLLIDED, Decision.OPENED]
    assert step.reply.content == b""
    assert [event.delivery_id for event in step.events if isinstance(event, CallAnswered)] == [None]


def test_a_delivery_without_bodies_is_decided_as_a_whole_or_not_at_all() -> None:
    story = Story()
    sends(story, 1, "ci", DOWN)
    other = alert("pay", "Other")

    def tells(call: bytes, bodies: list[bytes], ends: list[float]) -> tuple[Step, list[Decision]]:
        keys = [DOWN.key, other.key]
        step = story.tell(
            at(2),
            AlertsArrived(call * 16, "default", "v1", keys, ends, bodies, delivery_id="k", content=b"c" * 16),
        )
        assert isinstance(step.reply, AlertsReply)
        return step, [step.reply.decision(0), step.reply.decision(1)]

    nothing, wanted = tells(b"a", [b"", b""], [INF, INF])
    assert (wanted, nothing.events) == ([Decision.BODY_WANTED] * 2, [])
    nothing, wanted = tells(b"b", [b"", other.body], [at(2), INF])
    assert (wanted, nothing.events) == ([Decision.BODY_WANTED] * 2, [])
    whole, decided = tells(b"c", [DOWN.body, other.body], [INF, INF])
    assert decided == [Decision.REPEATED, Decision.OPENED]
    assert [event.delivery_id for event in whole.events if isinstance(event, CallAnswered)] == ["k"]
    repeat, decided = tells(b"d", [b"", b""], [INF, INF])
    assert decided == [Decision.REPEATED] * 2 and isinstance(repeat.reply, AlertsReply)
    assert repeat.reply.content == b"c" * 16


# Matchers of a token


def test_matchers_are_kept_as_they_were_written() -> None:
    assert match_of(['team="a"', "env!=prod"], ["ingest:v1", "read"]) == ('team="a"', "env!=prod")
    assert match_of([], ["admin"]) == ()


@pytest.mark.parametrize(
    ("match", "scopes", "words"),
    [
        (["team"], ["ingest:v1"], "match: bad matcher format"),
        (['team=~"("'], ["ingest:v1"], "match: "),
        ([""], ["ingest:v1"], "match: "),
        (['team="a"'], ["ingest:v1", "respond"], "can resolve anything"),
        (['team="a"'], ["admin"], "can resolve anything"),
        (['team="a"'], ["read"], f"begins with {INGEST}"),
        (['team="a"'] * (MATCH_MAX + 1), ["ingest:v1"], "at most"),
        (['team="' + "a" * 2000 + '"'], ["ingest:v1"], "characters"),
    ],
)
def test_what_binds_nothing_is_refused_by_name(match: list[str], scopes: list[str], words: str) -> None:
    with pytest.raises(Malformed, match=r"^match: ") as refused:
        match_of(match, scopes)
    assert words in str(refused.value)
