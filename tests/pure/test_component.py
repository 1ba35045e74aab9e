"""A component is one file and one line: this one stands beside the others in a shard, and nothing else knows of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest

from models.errors import Broken
from models.incidents.incident import Incident
from models.incidents.lines import SYSTEM, Around, Description, Line, line_of
from models.incidents.summaries import summary_of
from models.incidents.verbs import AnyVerb
from models.partition.checkpoint import RecordKind
from models.partition.event import Event
from models.shard.assembly import COMPONENTS, Assembly
from models.shard.changes import Opened
from models.shard.component import Component, RecordOf, on
from models.shard.core import Core
from models.shard.effects import Effect
from models.shard.messages import Done, Message, Reply, Tick
from models.shard.shard import Shard
from models.stream.happenings import about, line
from tests.scenario import SETTINGS, Story, alert, at

BELLS = RecordKind("bells", has_ids=True, version=2)
WAIT_S = 7.0


class BellRung(Event, frozen=True):
    incident_id: bytes
    nth: int


class BellHeard(Message, frozen=True):
    incident_id: bytes


class Ring(Effect, frozen=True):
    incident_id: bytes


def _line(event: BellRung, _around: Around) -> Line:
    return line_of("BellRung", SYSTEM, f"the bell rang {event.nth} times", "it is open", nth=str(event.nth))


class Bells(Component):
    """A bell rings WAIT_S after an incident opened, until somebody heard it."""

    name = "bells"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        self.rung: dict[bytes, int] = {}
        self.opened: list[bytes] = []
        self._unheard: dict[bytes, None] = {}

    def _opened(self, change: Opened, _now: float) -> None:
        self.opened.append(change.incident.id)

    def next_at(self, incident: Incident) -> float:
        return 0.0 if incident.id in self.rung else incident.created_at + WAIT_S

    def due(self, incident: Incident, now: float) -> None:
        self.shard.do(BellRung(incident.id, 1), now)
        self._unheard[incident.id] = None

    def owed(self, now: float) -> Iterator[Effect]:
        yield from map(Ring, self._unheard)
        self._unheard.clear()

    def ask_again(self, effect: Ring) -> None:
        self._unheard[effect.incident_id] = None

    def _heard(self, message: BellHeard, now: float) -> Reply:
        self.shard.do(BellRung(message.incident_id, 2), now)
        return Done()

    def _fold(self, event: BellRung, now: float) -> None:
        self.state.changing(event.incident_id)
        self.state.checkpoint.touch(BELLS, event.incident_id)
        self.rung[event.incident_id] = event.nth

    def _capture(self, identity: int | bytes) -> bytes | None:
        nth = self.rung.get(bytes(identity)) if isinstance(identity, bytes) else None
        return None if nth is None else b"n%d" % nth

    def _load(self, identity: int | bytes, record: bytes, version: int) -> None:
        assert isinstance(identity, bytes)
        self.rung[identity] = int(record[1:] if version == 2 else record)

    messages = {BellHeard: _heard}
    reactions = {Opened: _opened}
    effects = (Ring,)
    records = (RecordOf(BELLS, _capture, _load),)
    events = (on(BellRung, _fold, Description(("BellRung",), _line)),)


ASSEMBLY = Assembly((*COMPONENTS, Bells))


class _Story(Story):
    def __init__(self) -> None:
        super().__init__()
        self.shard = Shard("shard/0000", SETTINGS, ASSEMBLY)
        self.shard.epoch = 1
        self.replayed = Shard("shard/0000", SETTINGS, ASSEMBLY)


def rung() -> _Story:
    story = _Story()
    story.push(at(0), alert("llm-api", "Down"))
    story.ticks(at(1), at(8))
    return story


def records_of(shard: Shard) -> dict[str, bytes]:
    shard.checkpoint.begin()
    records: dict[str, bytes] = {}
    while written := shard.checkpoint.slice(1_000_000):
        records.update((key, record) for key, record in written if record is not None)
    return records


def test_it_reacts_is_due_and_owes() -> None:
    story = rung()

    assert story.shard.of(Bells).opened == [story.incident.id]
    assert [(when, event.nth) for when, event in story.events if isinstance(event, BellRung)] == [(at(7), 1)]
    assert [effect for _when, effect in story.asked if isinstance(effect, Ring)] == [Ring(story.incident.id)]


def test_its_effect_is_asked_again_when_it_could_not_be_delivered() -> None:
    story = rung()

    story.shard.ask_again(Ring(story.incident.id))

    assert Ring(story.incident.id) in story.tell(at(9), Tick()).effects


def test_its_message_is_read_from_the_wire_and_taken() -> None:
    story = rung()
    encoded = b"\x92\xa9BellHeard\xc4\x10" + story.incident.id

    story.tell(at(9), ASSEMBLY.decode_message(encoded))

    assert story.shard.of(Bells).rung == {story.incident.id: 2}


def test_replay_knows_what_it_knows() -> None:
    story = rung()

    assert story.replayed.of(Bells).rung == story.shard.of(Bells).rung != {}


def test_a_snapshot_holds_its_records() -> None:
    story = rung()
    loaded = Shard("shard/0000", SETTINGS, ASSEMBLY)

    loaded.load(sorted(records_of(story.shard).items()))
    loaded.loaded()

    assert loaded.of(Bells).rung == story.shard.of(Bells).rung


def test_a_record_of_an_earlier_version_is_read_and_written_anew() -> None:
    story = rung()
    records = records_of(story.shard)
    name = story.incident.id.hex()
    assert records.pop(f"bells@2/{name}") == b"n1"
    loaded = Shard("shard/0000", SETTINGS, ASSEMBLY)
    loaded.load(sorted({**records, f"bells/{name}": b"1"}.items()))
    loaded.loaded()

    loaded.checkpoint.begin()
    written = dict(loaded.checkpoint.slice(1_000_000))

    assert loaded.of(Bells).rung == {story.incident.id: 1}
    assert written[f"bells/{name}"] is None
    assert written[f"bells@2/{name}"] == b"n1"


def test_the_timeline_and_the_stream_tell_it_in_the_same_words() -> None:
    story = rung()
    event = BellRung(story.incident.id, 1)
    summary = summary_of(story.incident)

    written = story.incident.timeline[-1]
    streamed = line(event, 0, at(7), summary, summary, ASSEMBLY)

    assert about(event, ASSEMBLY) == (story.incident.id,)
    assert streamed is not None
    assert (written.kind, written.text, written.details) == (
        streamed.kind,
        streamed.text,
        streamed.all_details,
    )
    assert "BellRung" in ASSEMBLY.kinds


def test_two_owners_of_one_event_are_refused() -> None:
    class More(Component):
        name = "more bells"
        events = (on(BellRung, Bells._fold),)

    with pytest.raises(Broken, match="both Bells and More own"):
        Assembly((*COMPONENTS, Bells, More))


def test_every_verb_is_decided_about_by_a_component() -> None:
    assert {kind for each in COMPONENTS for kind in each.verbs} == {*get_args(AnyVerb)}
