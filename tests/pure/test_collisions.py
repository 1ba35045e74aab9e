"""No alert hides another: a key is cryptographic, a body under a known key is compared, and keys of old logs are known."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import msgspec
import pytest

from models.alerts.alert import OLD_KEY_BYTES, Content, alert_key, old_series_id, series_id
from models.alerts.series import FIRING
from models.incidents.incident import Incident
from models.incidents.verbs import Split
from models.shard.events import AlertsSetAside
from models.shard.intake import Intake
from models.shard.messages import AlertsArrived, AlertsReply, Command, CommandDone, Decision
from models.shard.settings import ShardSettings
from models.shard.shard import Shard, Step
from services.ingest.formats import remembered
from tests.pure.test_released_logs import VERSIONS, frames
from tests.scenario import SETTINGS, ZERO, Story, alert, at
from tests.simulation.dump import difference, dump, unsound

#: Their keys are as 0.2.0 and older made them.
OLD = [folder for folder in VERSIONS if folder.name in ("v0.1.0", "v0.2.0")]
released = pytest.mark.parametrize("folder", OLD, ids=lambda folder: folder.name)


class Upgraded:
    """A released version's log, gone on with by the present program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shard, self.replayed = self._replay(), self._replay()
        self.shard.epoch = 9
        self.now = self.shard.now
        self._calls = 0

    def _replay(self) -> Shard:
        shard = Shard("shard/0000", SETTINGS)
        for frame in frames(self.folder)["shard/0000"]:
            shard.seq = frame.seq
            for event in frame.events:
                shard.apply(event, frame.now)
        return shard

    def arrives(self, content: Content, ends: float = float("inf"), *, has_start: bool = True) -> Decision:
        """The same alert as a gateway of today sends it."""
        self._calls += 1
        key = alert_key("default", content, content.starts_at if has_start else 0.0)
        body = msgspec.msgpack.encode(content)
        step = self.took(
            AlertsArrived(b"up%014d" % self._calls, "default", "v1", [key], [ends], [body], want_ids=True)
        )
        assert isinstance(step.reply, AlertsReply)
        return step.reply.decision(0)

    def took(self, message: AlertsArrived | Command) -> Step:
        self.shard.seq += 1
        step = self.shard.handle(message, self.now)
        for event in step.events:
            self.replayed.apply(event, self.shard.now)
        assert not difference(dump(self.shard, self.now), dump(self.replayed, self.now))
        assert not unsound(self.shard, is_of_now=False)
        return step

    def firing(self) -> list[int]:
        return [n for n in range(self.shard.state.series.used) if self.shard.state.series.status[n] == FIRING]


def opened(shard: Shard) -> dict[bytes, Incident]:
    return {identity: each for identity, each in shard.state.incidents.items() if each.is_open}


def test_a_key_is_as_long_as_it_says() -> None:
    assert len(alert("api", "Down").key) == 32
    assert len(old_series_id("default", {"a": "b"})) + 8 == OLD_KEY_BYTES


def test_a_series_id_is_that_of_no_other_program() -> None:
    """Logs hold it: another digest here, and every alert that fires over an upgrade opens a second incident."""
    assert series_id("default", {"b": "2", "a": "1"}).hex() == "c0c2db3fbbfe73ac6b8d559db907c1e6"


def test_what_a_gateway_remembers_is_keyed_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    one = remembered.seen_digest((b"{}", b"x"))
    assert one == remembered.seen_digest((b"{}", b"x"))
    assert len(one) == 16
    monkeypatch.setattr(remembered, "_seen", blake2b(b"another process", digest_size=16))

    assert remembered.seen_digest((b"{}", b"x")) != one


@pytest.mark.parametrize("ends", [float("inf"), ZERO + 1000.0, ZERO - 1.0], ids=["fires", "ends", "ended"])
def test_another_label_set_under_a_known_key_is_refused_by_name_and_kept(ends: float) -> None:
    story = Story()
    given, second = alert("pay", "DBDown", severity="critical"), alert("other", "Noise")
    story.push(at(1), second)

    step = story.tell(
        at(2), AlertsArrived(b"c" * 16, "default", "v1", [second.key], [ends], [given.body], want_ids=True)
    )

    assert isinstance(step.reply, AlertsReply)
    assert step.reply.decision(0) is Decision.COLLIDED
    (kept,) = [event for event in step.events if isinstance(event, AlertsSetAside)]
    assert kept.bodies == [given.body]
    assert story.incident.firing == 1


def test_a_collision_does_not_cost_its_neighbours() -> None:
    story = Story()
    one, two = alert("pay", "Down"), alert("pay", "Slow")
    story.push(at(1), one, two)

    reply = story.tell(
        at(2),
        AlertsArrived(
            b"c" * 16,
            "default",
            "v1",
            [one.key, two.key],
            [float("inf")] * 2,
            [alert("x", "Other").body, two.body],
        ),
    ).reply

    assert isinstance(reply, AlertsReply)
    assert [reply.decision(0), reply.decision(1)] == [Decision.COLLIDED, Decision.REPEATED]


def test_a_body_that_only_has_its_labels_in_another_order_is_the_same() -> None:
    story = Story()
    one = alert("pay", "Down")
    story.push(at(1), one)
    turned = msgspec.msgpack.encode(Content(dict(reversed(one.labels.items())), {}, ZERO, "", "test"))

    reply = story.tell(
        at(2), AlertsArrived(b"c" * 16, "default", "v1", [one.key], [float("inf")], [turned])
    ).reply

    assert isinstance(reply, AlertsReply)
    assert reply.decision(0) is Decision.REPEATED


def test_a_body_that_is_none_under_a_known_key_is_unreadable() -> None:
    story = Story()
    one = alert("pay", "Down")
    story.push(at(1), one)

    reply = story.tell(
        at(2), AlertsArrived(b"c" * 16, "default", "v1", [one.key], [float("inf")], [b"\xc1"])
    ).reply

    assert isinstance(reply, AlertsReply)
    assert reply.decision(0) is Decision.UNREADABLE


@released
@pytest.mark.parametrize("has_start", [True, False])
def test_what_fires_over_an_upgrade_is_known_by_its_repeats(folder: Path, has_start: bool) -> None:
    system = Upgraded(folder)
    before, firing = opened(system.shard).keys(), system.firing()
    assert firing
    contents = [system.shard.state.series.content(number) for number in firing]

    decided = [system.arrives(each, has_start=has_start) for each in [*contents, *contents]]

    assert set(decided) == {Decision.REPEATED}
    assert opened(system.shard).keys() == before
    assert [len(system.shard.state.series.keys[number]) for number in firing] == [32] * len(firing)
    assert [system.shard.state.series.notes.get(n) for n in firing] == [
        system.replayed.state.series.notes.get(n) for n in firing
    ]


@released
def test_what_fires_over_an_upgrade_can_change_and_end(folder: Path) -> None:
    system = Upgraded(folder)
    number = system.firing()[0]
    content = system.shard.state.series.content(number)
    worse = msgspec.structs.replace(content, annotations={"summary": "worse than ever"})

    assert system.arrives(worse) is Decision.CHANGED
    assert system.arrives(worse, system.now) is Decision.RESOLVED
    assert system.arrives(worse, system.now) is Decision.REPEATED
    assert system.firing() == [each for each in system.firing() if each != number]


@released
def test_the_first_word_after_an_upgrade_may_be_the_end(folder: Path) -> None:
    system = Upgraded(folder)
    before = len(system.shard.state.incidents)

    decided = [
        system.arrives(system.shard.state.series.content(number), system.now) for number in system.firing()
    ]

    assert set(decided) == {Decision.RESOLVED}
    assert not system.firing()
    assert len(system.shard.state.incidents) == before


@released
def test_an_end_said_again_after_an_upgrade_is_a_repeat(folder: Path) -> None:
    system = Upgraded(folder)
    table = system.shard.state.series
    for number in system.firing():
        # As the old program ended it: its key is of the old kind still.
        system.shard.events = []
        system.shard.of(Intake)._resolve_series(number, system.now, False, b"", b"", system.now)
        for event in system.shard.events:
            system.replayed.apply(event, system.now)
        assert system.shard.state.series.old_keys

        assert system.arrives(table.content(number), system.now) is Decision.REPEATED


@released
def test_a_collision_under_an_old_id_opens_a_series_of_its_own(folder: Path) -> None:
    """The old hash can be made to collide: labels decide, not the id."""
    system = Upgraded(folder)
    number = system.firing()[0]
    content = msgspec.structs.replace(
        system.shard.state.series.content(number), labels={"alertname": "Given", "service": "pay"}
    )
    for shard in (system.shard, system.replayed):
        shard.state.series.by_series[old_series_id("default", content.labels)] = number

    assert system.arrives(content) in (Decision.OPENED, Decision.OVERFLOWED)


def test_a_series_of_before_an_upgrade_can_be_split_off() -> None:
    system = Upgraded(next(folder for folder in VERSIONS if folder.name == "v0.1.0"))
    incident = next(
        each
        for each in system.shard.state.incidents.values()
        if each.is_open and len(system.shard.state.members[each.id]) > 1
    )
    system.shard.settings = system.replayed.settings = ShardSettings()
    number = system.shard.state.members[incident.id][0]
    identity = series_id("default", system.shard.state.series.content(number).labels)

    reply = system.took(
        Command(b"c" * 16, "default", "ann", incident.id, Split([identity], title="Alone"))
    ).reply

    assert isinstance(reply, CommandDone)
    assert [*system.shard.state.members[reply.incident_id]] == [number]


@released
def test_old_keys_are_counted_alike_after_a_snapshot(folder: Path) -> None:
    system = Upgraded(folder)
    system.arrives(system.shard.state.series.content(system.firing()[0]))
    loaded = Shard("shard/0000", SETTINGS)
    system.shard.checkpoint.begin()
    records: dict[str, bytes] = {}
    while found := system.shard.checkpoint.slice(1_000_000):
        records |= {key: record for key, record in found if record is not None}
    loaded.load(sorted(records.items()))
    loaded.loaded()

    assert loaded.state.series.old_keys == system.shard.state.series.old_keys
    assert not difference(dump(system.shard, system.now), dump(loaded, system.now))
