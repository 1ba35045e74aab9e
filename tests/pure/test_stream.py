"""The live stream tells what the timelines tell, each thing once, and shows incidents as their shard has them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import invariant

from models.errors import Malformed, TooLarge
from models.incidents.incident import (
    Incident,
    IncidentState,
    IncidentType,
    Severity,
    TimelineEntry,
    Verdict,
)
from models.incidents.query import GetSummaries, Summary, SummaryPage, decode_query, encode
from models.incidents.summaries import fold, opened, set_back, split_off, summary_of
from models.partition.frames import NO_DIGEST, encode_frame
from models.shard.assembly import ASSEMBLY
from models.shard.events import ClockSetBack, IncidentOpened
from models.shard.shard import Step
from models.shard.splitting import IncidentSplit
from models.stream.cursor import Cursor, decode_cursor, encode_cursor
from models.stream.filter import Sieve, StreamFilter
from models.stream.happenings import CHANGED, DESCRIBED, KINDS, Happening, Line
from services.feed.follow import Follower
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from tests.pure.test_replay import ShardMachine
from tests.scenario import Story, alert, at

NEVER = 10_000


@dataclass
class Recorded:
    """A log as it grew, and beside each frame what the shard showed after it."""

    frames: list[bytes] = field(default_factory=list)
    digest: bytes = NO_DIGEST
    summaries: list[dict[bytes, Summary]] = field(default_factory=list)
    lines: dict[bytes, list[TimelineEntry]] = field(default_factory=dict)
    gone: dict[bytes, Incident] = field(default_factory=dict)

    def took(self, step: Step, now: float, incidents: dict[bytes, Incident]) -> None:
        if not step.events:
            return
        frame, self.digest = encode_frame(
            len(self.frames) + 1, now, "default", None, step.events, self.digest
        )
        self.frames.append(frame)
        self.summaries.append({identity: summary_of(incident) for identity, incident in incidents.items()})
        self.gone |= incidents
        self.lines |= {identity: list(incident.timeline) for identity, incident in incidents.items()}

    def folded(self) -> list[dict[bytes, Summary]]:
        """The summaries after each frame, made from its events alone; of those incidents that the shard still had."""
        summaries: dict[bytes, Summary] = {}
        found = []
        for seq, frame in enumerate(self.frames, 1):
            skimmed = ASSEMBLY.frames.skim("", frame, seq, DESCRIBED | {b"ClockSetBack"})
            if skimmed is not None:
                for _number, event in skimmed.events:
                    summaries = _after(summaries, event, skimmed.now)
            found.append({identity: summaries[identity] for identity in self.summaries[seq - 1]})
        return found

    def follow(self, after: int = 0) -> list[Happening]:
        """What a follower tells who begins after that frame, with the shard and the archive as they are now."""
        return asyncio.run(self._follow(after))

    async def _follow(self, after: int) -> list[Happening]:
        event_log = MemoryEventLog(MemoryStore(), "shard/0000")
        opened = await event_log.open("test", 0.0, 10.0)
        if self.frames:
            await event_log.append(opened.epoch, 1, self.frames)
        now = self.summaries[-1] if self.summaries else {}

        async def ask(query: bytes) -> bytes:
            asked = decode_query(query)
            assert after, "who follows from the beginning need not ask"
            assert isinstance(asked, GetSummaries)
            return encode(
                SummaryPage(len(self.frames), [now[each] for each in asked.incident_ids if each in now])
            )

        async def archived(identity: bytes) -> Incident | None:
            return self.gone.get(identity)

        follower = Follower(event_log, ask, archived, "default", after, NEVER)
        found: list[Happening] = []
        while (page := await follower.read()).seq < len(self.frames):
            found += page.happenings
        await event_log.close()
        return found + page.happenings


class StreamMachine(ShardMachine):
    """The shard of test_replay.py, followed."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded = Recorded()
        #: After which frame the clock was set back, and to when.
        self.set_back: list[tuple[int, float]] = []

    def took(self, step: Step) -> Step:
        super().took(step)
        self.recorded.took(step, self.live.now, self.live.state.incidents)
        seq = len(self.recorded.frames)
        self.set_back += [(seq, event.after) for event in step.events if isinstance(event, ClockSetBack)]
        return step

    @invariant()
    def replay_equals_live(self) -> None:
        """test_replay.py sees to that."""

    def teardown(self) -> None:
        recorded = self.recorded
        told = recorded.follow()
        by_incident: dict[bytes, list[Happening]] = {identity: [] for identity in recorded.lines}
        for each in told:
            if each.line.kind == CHANGED:
                assert each.before is None or each.before.labels != each.after.labels
                continue
            assert each.line.kind in KINDS
            by_incident[each.after.id].append(each)
        for identity, lines in recorded.lines.items():
            assert [shown(each.line) for each in by_incident[identity]] == [
                (line.kind, line.actor, line.text) for line in lines
            ]
            for each, line in zip(by_incident[identity], lines, strict=True):
                # What was told by a clock that was ahead has its right time in the timeline alone.
                assert line.at == min(
                    [
                        each.at,
                        *(after for seq, after in self.set_back if seq > each.seq and line.at < each.at),
                    ]
                )
                assert line.details == each.line.all_details
        assert recorded.folded() == recorded.summaries
        times = [
            ASSEMBLY.frames.decode("", frame, seq, None).now for seq, frame in enumerate(recorded.frames, 1)
        ]
        for after in range(1, len(recorded.frames), 1 + len(recorded.frames) // 3):
            later = {(each.seq, each.place): each for each in recorded.follow(after)}
            for each in told:
                if each.seq > after:
                    found = later[each.seq, each.place]
                    assert (found.after.id, found.line.actor) == (each.after.id, each.line.actor)
                    if found.sure and times.count(each.at) == 1:
                        assert found.after.version >= each.after.version


def shown(line: Line) -> tuple[str, str, str]:
    return (line.kind, line.actor, line.text)


TestStreamEqualsTimeline = StreamMachine.TestCase
TestStreamEqualsTimeline.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


def happening(
    kind: str = "StateChanged",
    before: Summary | None = None,
    after: Summary | None = None,
    *,
    sure: bool = True,
) -> Happening:
    return Happening(1, 0, 0.0, None, Line(kind, "ann", ""), before, after or summary(), sure)


def summary(
    state: IncidentState = IncidentState.TRIAGED,
    severity: Severity = Severity.P2,
    labels: Mapping[str, str] | None = None,
) -> Summary:
    judged = Verdict(severity, IncidentType.DATA, "")
    return Summary(b"i", "api", "Down", state, dict(labels or {}), [], 1, 0.0, True, judged, judged)


def _after(summaries: dict[bytes, Summary], event: Any, now: float) -> dict[bytes, Summary]:
    """The summaries once an event is folded in."""
    if isinstance(event, ClockSetBack):
        return {identity: set_back(summary, event) for identity, summary in summaries.items()}
    if isinstance(event, IncidentOpened):
        return {**summaries, event.incident_id: opened(event, now)}
    made = {}
    if isinstance(event, IncidentSplit):
        made[event.made] = split_off(event, summaries[event.incident_id], now)
    return {**summaries, **made, event.incident_id: fold(summaries[event.incident_id], event, now)}


P0 = StreamFilter(severities=frozenset({Severity.P0}))


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (StreamFilter(), True),
        (StreamFilter(states=frozenset({IncidentState.TRIAGED})), True),
        (StreamFilter(states=frozenset({IncidentState.CLOSED})), False),
        (StreamFilter(types=frozenset({IncidentType.DATA})), True),
        (StreamFilter(types=frozenset({IncidentType.SECURITY})), False),
        (StreamFilter(services=frozenset({"api", "db"})), True),
        (StreamFilter(services=frozenset({"db"})), False),
        (StreamFilter(kinds=frozenset({"StateChanged"})), True),
        (StreamFilter(kinds=frozenset({"Created"})), False),
        (StreamFilter(matchers=(("team", "=~", "m.*"),)), True),
        (StreamFilter(matchers=(("team", "=", "ml"), ("zone", "!=", ""))), False),
        (P0, False),
    ],
)
def test_each_part_of_a_filter_must_hold(wanted: StreamFilter, told: bool) -> None:
    assert Sieve(wanted).takes(happening(after=summary(labels={"team": "ml"}))) is told


def test_an_incident_is_seen_entering_and_leaving_a_filter() -> None:
    worst, better = summary(severity=Severity.P0), summary(severity=Severity.P3)
    sieve = Sieve(P0)

    assert sieve.takes(happening("Reclassified", better, worst))
    assert sieve.takes(happening("Reclassified", worst, better))
    assert not sieve.takes(happening("Reclassified", better, better))


def test_what_can_not_be_told_for_certain_is_told() -> None:
    sieve = Sieve(P0)

    assert sieve.takes(happening("CommentAdded", sure=False))
    assert sieve.takes(happening("Reclassified", None))
    assert not sieve.takes(happening("CommentAdded", None))
    assert not Sieve(StreamFilter(services=frozenset({"db"}))).takes(happening(sure=False))


def test_matchers_that_are_too_much_work_are_refused_by_name() -> None:
    sieve = Sieve(StreamFilter(matchers=(("text", "=~", ".*(a|b|c)(.{40}){20}"),)))
    labels = [{"text": "abc" * 900 + str(number)} for number in range(200)]

    with pytest.raises(TooLarge):
        for each in labels:
            sieve.takes(happening(after=summary(labels=each)))


@given(
    st.integers(0, 2**40),
    st.lists(st.integers(0, 2**60), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 1000)), max_size=2),
)
def test_a_cursor_comes_back_as_it_was(slots: int, seqs: list[int], inside: list[tuple[int, int]]) -> None:
    cursor = Cursor(slots, tuple(seqs), tuple(each for each in inside if each[0] < len(seqs)))

    assert decode_cursor(encode_cursor(cursor), len(seqs)) == cursor


@given(st.one_of(st.text(), st.binary().map(lambda data: encode_cursor(Cursor(1, (1, 2)))[: len(data)])))
def test_a_text_that_is_no_cursor_is_refused_by_name(text: str) -> None:
    with pytest.raises(Malformed, match=r"^cursor: "):
        decode_cursor(text, 3)


@pytest.mark.parametrize(
    "cursor", [Cursor(1, (1,)), Cursor(1, (1, -1)), Cursor(-1, (1, 1)), Cursor(1, (1, 1), ((2, 1),)),
               Cursor(1, (2**63, 1)), Cursor(1, (1, 1), ((0, -1),))],
)  # fmt: skip
def test_a_cursor_of_no_place_of_ours_is_refused(cursor: Cursor) -> None:
    with pytest.raises(Malformed, match=r"^cursor: "):
        decode_cursor(encode_cursor(cursor), 2)


def test_a_frame_is_skimmed_for_what_is_wanted_only() -> None:
    story = Story()
    step = story.push(at(1), *[alert("api", f"Alert{number}") for number in range(60)])
    stored, _digest = encode_frame(1, at(1), "default", "trace", step.events, NO_DIGEST)

    skimmed = ASSEMBLY.frames.skim("shard/0000", stored, 1, frozenset({b"IncidentOpened"}))

    assert skimmed is not None
    assert skimmed.trace_id == "trace"
    assert [
        (place, event) for place, event in enumerate(step.events) if isinstance(event, IncidentOpened)
    ] == (skimmed.events)
    assert ASSEMBLY.frames.skim("shard/0000", stored, 1, frozenset({b"CommentAdded"})) is None
