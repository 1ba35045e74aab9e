"""A shard's memory is bounded in bytes, as a whole and for each sender; what is kept is counted alike however it came about."""

from __future__ import annotations

import msgspec
import pytest

from models.alerts.alert import WHOLE_MAX_BYTES, _fingerprints, fingerprint, fingerprints
from models.alerts.room import INCIDENT_BYTES, SERIES_BYTES
from models.alerts.room import bytes_of as room_of
from models.classification import severity
from models.incidents.summaries import SUMMARY_BYTES, Summaries, bytes_of, summary_of
from models.shard.intake import Intake
from models.shard.messages import AlertsArrived, AlertsReply, Decision
from models.shard.settings import ShardSettings
from models.shard.shard import Shard
from models.stream.happenings import Happening, Line
from services.feed.tail import HELD_MAX_BYTES, LogTail
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from tests.pure.test_released_logs import VERSIONS, frames
from tests.scenario import SETTINGS, ZERO, Alert, Story, alert, at
from tests.simulation.dump import difference, dump

INF = float("inf")
SMALL = msgspec.structs.replace(SETTINGS, max_open=1000, max_bytes=400_000, sender_bytes=300_000)


def told(story: Story, second: float, who: str, *alerts: Alert, ends: float = INF) -> list[Decision]:
    story._calls += 1
    step = story.last = story.tell(  # type: ignore[attr-defined]
        at(second),
        AlertsArrived(
            b"%016d" % story._calls,
            "default",
            "v1",
            [each.key for each in alerts],
            [ends] * len(alerts),
            [each.body for each in alerts],
            want_ids=True,
            sender=who,
        ),
    )
    assert isinstance(step.reply, AlertsReply)
    return [step.reply.decision(place) for place in range(len(alerts))]


def fat(name: str, size: int = 10_000, service: str = "pay") -> Alert:
    return alert(service, name, "i", note="x" * size)


def fill(story: Story, who: str, name: str = "Fat") -> Decision:
    """Send until it is refused; what was said then."""
    for number in range(1000):
        (decided,) = told(story, 1, who, fat(f"{name}{number}"))
        if decided is not Decision.OPENED:
            assert not story.last.events  # type: ignore[attr-defined]
            return decided
    raise AssertionError("nothing was refused")


def test_a_sender_is_refused_at_its_share_and_others_have_room() -> None:
    story = Story(SMALL)

    assert fill(story, "greedy") is Decision.SENDER_FULL
    assert story.shard.state.series.room.by_sender["greedy"] <= SMALL.sender_bytes
    assert told(story, 2, "prometheus", alert("db", "Down")) == [Decision.OPENED]


def test_a_full_shard_refuses_everybody_and_never_holds_more() -> None:
    story = Story(SMALL)
    fill(story, "one")

    assert fill(story, "two", "Other") is Decision.SHARD_FULL
    assert story.shard.state.series.room.held <= SMALL.max_bytes


def test_of_one_request_what_fits_is_stored() -> None:
    story = Story(SMALL)
    fill(story, "greedy")

    decided = told(story, 2, "greedy", fat("Fat0"), fat("More", 250_000), alert("pay", "Small"))

    assert decided[:2] == [Decision.REPEATED, Decision.SENDER_FULL]


def test_a_full_share_ends_nothing_and_keeps_nothing_from_ending() -> None:
    story = Story(SMALL)
    fill(story, "greedy")
    firing = len(story.shard.state.series.firing)

    assert told(story, 2, "greedy", fat("Fat0")) == [Decision.REPEATED]
    assert told(story, 3, "greedy", fat("Fat0", 250_000), ends=at(50)) == [Decision.SENDER_FULL]
    assert len(story.shard.state.series.firing) == firing
    assert story.shard.state.series.ends[0] == at(50)
    assert told(story, 4, "greedy", fat("Fat0", 250_000), ends=at(4)) == [Decision.RESOLVED]
    assert story.shard.state.series.content(0).annotations == {"note": "x" * 10_000}


def test_who_makes_anothers_alert_larger_pays_for_it() -> None:
    story = Story(SMALL)
    told(story, 1, "prometheus", alert("db", "Down"))
    fill(story, "greedy")

    assert told(story, 2, "greedy", alert("db", "Down", note="x" * 100_000)) == [Decision.SENDER_FULL]
    assert story.shard.state.series.senders[0] == "prometheus"


def test_an_incident_is_charged_for_what_it_says_now() -> None:
    story = Story(SMALL)
    told(story, 1, "one", alert("pay", "Down", "a"))
    told(story, 2, "one", alert("pay", "Down", "b", note="x" * 10_000))

    told(story, 3, "one", alert("pay", "Down", "a"), ends=at(3))

    assert story.incident.annotations == {"note": "x" * 10_000}
    assert story.incident.held_bytes == room_of(story.incident)


def test_alerts_that_end_do_not_fill_a_shard_with_what_the_others_say() -> None:
    story = Story(SMALL)
    names = [f"Down{number}" for number in range(20)]
    told(story, 1, "one", *[alert("pay", name, "a", note="short") for name in names])
    told(story, 2, "one", *[alert("pay", name, "b", note="x" * 10_000) for name in names])

    told(story, 3, "one", *[alert("pay", name, "a", note="short") for name in names], ends=at(3))

    room, incidents = story.shard.state.series.room, story.shard.state.incidents.values()
    assert room.by_sender == {"one": room.held} and room.held <= SMALL.sender_bytes
    held = [incident for incident in incidents if incident.annotations]
    assert held and len(held) < len(incidents)
    assert sum(each.held_bytes for each in incidents) == sum(map(room_of, incidents))


def test_room_comes_back_when_an_incident_is_archived() -> None:
    story = Story(SMALL)
    fill(story, "greedy")
    for number in range(len(story.shard.state.series)):
        told(story, 2, "greedy", fat(f"Fat{number}"), ends=at(2))
    while story.sent():
        story.receive(at(3))
    story.classify(at(3))
    story.ticks(at(130), at(132))
    while story.sent():
        story.receive(at(133))
    story.archive(at(134))

    assert not story.shard.state.incidents
    assert (story.shard.state.series.room.held, story.shard.state.series.room.by_sender) == (0, {})
    assert told(story, 140, "greedy", fat("Fat0")) == [Decision.OPENED]


def test_what_is_held_is_the_price_of_series_and_incident() -> None:
    story = Story(SMALL)
    one = alert("db", "Down")
    told(story, 1, "p", one)

    held = story.shard.state.series.room.held - SERIES_BYTES - len(one.body) - INCIDENT_BYTES

    assert 0 < held < 500


def test_a_wide_character_counts_as_wide() -> None:
    plain, wide = Story(SMALL), Story(SMALL)
    told(plain, 1, "p", alert("db", "Down", summary="x" * 1000))
    told(wide, 1, "p", alert("db", "Down", summary="x" * 999 + "\U0001f525"))

    assert wide.shard.state.series.room.held - plain.shard.state.series.room.held > 2900


def test_a_million_series_fit_into_a_shard_as_it_comes() -> None:
    """README's numbers: 1,000,000 series of 500 bytes, and as many incidents as a shard of two may have open."""
    settings = ShardSettings()
    series, incidents = 1_000_000 * (SERIES_BYTES + 520), 100_000 * (INCIDENT_BYTES + 700)

    assert series + incidents < settings.sender_bytes < settings.max_bytes


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_an_old_log_is_counted_too_and_a_snapshot_of_it_alike(folder: object) -> None:
    shard = Shard("shard/0000", SETTINGS)
    for frame in frames(folder)["shard/0000"]:  # type: ignore[arg-type]
        for event in frame.events:
            shard.apply(event, frame.now)
    shard.checkpoint.begin()
    records: dict[str, bytes] = {}
    while found := shard.checkpoint.slice(1_000_000):
        records |= {key: record for key, record in found if record is not None}
    loaded = Shard("shard/0000", SETTINGS)
    loaded.load(sorted(records.items()))
    loaded.loaded()

    assert shard.state.series.room.held > 0
    assert not difference(dump(shard, shard.now), dump(loaded, shard.now))


# Caches are bounded in bytes


def test_fingerprints_of_large_label_sets_are_remembered_in_few_bytes() -> None:
    large = [{"alertname": "A", "l": f"{number}" + "x" * 16_000} for number in range(40)]
    _fingerprints.clear()

    found = fingerprints([*large, {"a": "b"}])

    assert found == [fingerprint(labels) for labels in [*large, {"a": "b"}]]
    assert max(map(len, _fingerprints)) <= WHOLE_MAX_BYTES
    assert len(_fingerprints) == 41


def test_long_group_keys_are_not_remembered() -> None:
    story = Story(SMALL)
    told(story, 1, "p", alert("s" * 2000, "Down"), alert("db", "Down"))

    assert [key for key, _labels in story.shard.of(Intake)._groups.values()] == [
        '{service="db", alertname="Down", cluster="", namespace=""}'
    ]


def test_few_summaries_with_long_texts_are_remembered() -> None:
    known = Summaries(100)
    for number in range(100):
        story = Story(SMALL)
        told(story, 1, "p", alert("db", f"A{number}", note="x", summary="y"))
        head = summary_of(story.incident)
        known.put((1, 0), msgspec.structs.replace(head, id=b"%016d" % number, labels={"l": "x" * 10_000}))
        known.trim()

    assert (
        sum(known.get(b"%016d" % number) is not None for number in range(100))
        == 100 * SUMMARY_BYTES // 10_100
    )


def test_words_that_are_too_long_to_mean_anything_are_not_remembered() -> None:
    before = severity._range_of.cache_info().currsize
    assert severity.range_of("x" * 16_000) is None
    assert severity._range_of.cache_info().currsize == before


def test_a_tail_holds_few_happenings_of_large_incidents() -> None:
    story = Story(SMALL)
    told(story, 1, "p", alert("db", "Down"))
    head = msgspec.structs.replace(summary_of(story.incident), labels={"l": "x" * 1_000_000})
    tail = LogTail(MemoryEventLog(MemoryStore(), "shard/0000"), lambda _seq, _most: None)  # type: ignore[arg-type,return-value]

    for seq in range(1, 101):
        tail._hold([Happening(seq, 0, ZERO, None, Line("Created", "p", ""), None, head, True)], seq)
        assert tail._held_bytes <= HELD_MAX_BYTES

    assert tail._held_bytes == len(tail._held) * bytes_of(head)
    assert [each.seq for each in tail._held] == list(range(tail.floor + 1, 101))
    assert tail.floor > 0
