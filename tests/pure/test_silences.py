"""Silences: how they are made, changed and ended, and the index that finds those of an alert."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.alerts.matchers import MatcherTuple, compile_matchers
from models.alerts.mute_index import WORK_MAX, MuteIndex
from models.control import silencing as module
from models.control.control import ControlState, decode_message, encode_message
from models.control.section import ONLY
from models.control.silences import (
    RETENTION_S,
    ExpireSilence,
    SetSilence,
    Silence,
    SilenceExpired,
    SilenceSet,
    SilenceState,
    size_of,
)
from models.control.silencing import Silences
from models.errors import Malformed, NotFound, TooLarge

API: list[MatcherTuple] = [("service", "=", "api")]


def wanted(new_id: str = "a", **changes: object) -> SetSilence:
    fields: dict[str, object] = {
        "new_id": new_id, "matchers": API, "starts_at": 100.0, "ends_at": 200.0, "created_by": "ada", "comment": "deploy",
    }  # fmt: skip
    return SetSilence(**{**fields, **changes})  # type: ignore[arg-type]


def made() -> Silences:
    return Silences(lambda _key: None)


def done(silences: Silences, message: SetSilence | ExpireSilence, now: float) -> list[str]:
    events = silences.decide(message, now)
    for event in events:
        silences.apply(event, now)
    return [type(event).__name__ for event in events]


# -- a silence's life --


def test_a_silence_is_pending_then_active_then_expired() -> None:
    silences = made()
    done(silences, wanted(starts_at=150.0), 100.0)

    found = silences.all["a"]
    states = [found.state(at) for at in (149.9, 150.0, 199.9, 200.0)]

    assert states == [
        SilenceState.PENDING, SilenceState.ACTIVE, SilenceState.ACTIVE, SilenceState.EXPIRED,
    ]  # fmt: skip


def test_one_that_was_to_begin_before_now_begins_now() -> None:
    silences = made()

    done(silences, wanted(starts_at=1.0), 100.0)

    assert silences.all["a"].starts_at == 100.0


def test_a_message_that_comes_twice_makes_one_silence() -> None:
    silences = made()

    first, again = done(silences, wanted(), 100.0), done(silences, wanted(), 101.0)

    assert (first, again, len(silences.all)) == (["SilenceSet"], [], 1)


def test_an_active_silence_is_made_longer_under_its_id() -> None:
    silences = made()
    done(silences, wanted(), 100.0)

    told = done(silences, wanted("b", id="a", ends_at=500.0), 150.0)

    assert told == ["SilenceSet"]
    assert list(silences.all) == ["a"] and silences.all["a"].ends_at == 500.0


@pytest.mark.parametrize(
    ("change", "now"),
    [
        ({"matchers": [("service", "=", "db")]}, 150.0),
        ({"starts_at": 120.0}, 150.0),
        ({"ends_at": 300.0}, 250.0),
    ],
)
def test_what_would_change_the_past_makes_a_new_silence(change: dict[str, object], now: float) -> None:
    silences = made()
    done(silences, wanted(), 100.0)

    told = done(silences, wanted("b", id="a", **{"ends_at": 300.0, **change}), now)

    assert set(silences.all) == {"a", "b"}
    assert silences.all["a"].state(now) is SilenceState.EXPIRED
    assert silences.all["b"].starts_at == now
    assert told[-1] == "SilenceSet"


def test_a_pending_one_may_begin_at_another_time_to_come() -> None:
    silences = made()
    done(silences, wanted(starts_at=150.0), 100.0)

    done(silences, wanted("b", id="a", starts_at=170.0), 120.0)

    assert list(silences.all) == ["a"] and silences.all["a"].starts_at == 170.0


def test_expiring_is_safe_to_repeat_and_ends_a_pending_one_too() -> None:
    silences = made()
    done(silences, wanted(starts_at=150.0), 100.0)

    first, again = (done(silences, ExpireSilence("a", "ada"), at) for at in (120.0, 130.0))

    found = silences.all["a"]
    assert (first, again) == (["SilenceExpired"], [])
    assert (found.starts_at, found.ends_at, found.updated_at) == (120.0, 120.0, 120.0)


@pytest.mark.parametrize("message", [ExpireSilence("x", "ada"), wanted(id="x")])
def test_what_is_not_there_is_not_found(message: SetSilence | ExpireSilence) -> None:
    with pytest.raises(NotFound, match=r"^silence not found$"):
        made().decide(message, 100.0)


def test_one_of_another_tenant_is_not_there() -> None:
    silences = made()
    done(silences, wanted(), 100.0)

    with pytest.raises(NotFound):
        silences.decide(ExpireSilence("a", "eve", tenant="other"), 110.0)


def test_a_change_that_is_told_again_after_somebody_ended_it_changes_nothing() -> None:
    silences = made()
    done(silences, wanted("a"), 100.0)
    longer = wanted("b", id="a", ends_at=900.0)
    assert done(silences, longer, 110.0) == ["SilenceSet"]
    assert done(silences, ExpireSilence("a", "bob"), 120.0) == ["SilenceExpired"]

    assert done(silences, longer, 130.0) == []
    assert [each.id for each in silences.in_force(130.0)] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"matchers": []}, "invalid silence: at least one matcher required"),
        ({"matchers": [("a", "=", "")]}, "at least one matcher must not match the empty string"),
        ({"matchers": [("a", "=~", ".*")]}, "at least one matcher must not match the empty string"),
        ({"matchers": [("", "=", "x")]}, 'invalid label matcher 0: invalid label name ""'),
        ({"matchers": [("a", "=~", "(")]}, 'invalid label matcher 0: invalid regular expression "("'),
        ({"ends_at": 0.0}, "invalid zero end timestamp"),
        ({"ends_at": 99.0}, "end time must not be before start time"),
        ({"comment": "x" * 20_000}, "silence exceeded maximum size"),
        ({"matchers": [("a", "=", "x")] * 65}, "65 matchers"),
    ],
)
def test_what_is_no_silence_is_refused_in_alertmanagers_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises((Malformed, TooLarge)) as refused:
        made().decide(wanted(**changes), 50.0)

    assert words in str(refused.value)


def test_names_in_any_script_are_taken() -> None:
    silences = made()

    done(silences, wanted(matchers=[("служба.имя", "=~", "а|б")]), 100.0)

    assert silences.all["a"].matchers[0][0] == "служба.имя"


def test_there_are_no_more_silences_than_a_shard_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCES_MAX", 2)
    silences = made()
    done(silences, wanted("a"), 100.0)
    done(silences, wanted("b"), 100.0)

    with pytest.raises(TooLarge, match="exceeded maximum number of silences"):
        silences.decide(wanted("c"), 100.0)
    # One that ends makes room.
    done(silences, ExpireSilence("a", "ada"), 110.0)
    assert done(silences, wanted("c", starts_at=120.0), 120.0) == ["SilenceSet"]


def test_an_expired_silence_is_forgotten_after_five_days() -> None:
    silences = made()
    done(silences, wanted("a"), 100.0)

    late = 200.0 + RETENTION_S
    shown_before = [each.id for each in silences.shown(late - 1)]
    shown_after = [each.id for each in silences.shown(late)]
    done(silences, wanted("b", starts_at=late, ends_at=late + 100), late)

    assert (shown_before, shown_after, list(silences.all)) == (["a"], [], ["b"])
    assert silences.bytes == sum(size_of(each) for each in silences.all.values())


def test_who_follows_hears_what_changed_since_or_that_it_must_ask_for_all() -> None:
    silences = made()
    done(silences, wanted("a"), 100.0)
    seen = silences.version
    done(silences, wanted("b"), 100.0)
    done(silences, ExpireSilence("a", "ada"), 110.0)

    def ids(version: int) -> set[str] | None:
        changed = silences.since(version)
        return None if changed is None else {each.id for each in changed}

    assert (ids(silences.version), ids(seen), ids(0)) == (set(), {"a", "b"}, {"a", "b"})
    assert ids(silences.version + 1) is None, "a version that never was"
    done(silences, wanted("c", starts_at=RETENTION_S + 500, ends_at=RETENTION_S + 600), RETENTION_S + 500)
    assert ids(seen) is None, "a silence that it may still believe in is forgotten"


def test_the_control_partition_decides_and_folds_silences() -> None:
    state = ControlState()
    message = decode_message(encode_message(wanted(annotations={"ticket": "OPS-1"})))

    events = state.decide(message, 100.0)
    for event in events:
        state.apply(event, 100.0)

    assert isinstance(events[0], SilenceSet)
    assert state.of(Silences).all["a"].annotations == {"ticket": "OPS-1"}
    (ended,) = state.decide(ExpireSilence("a", "bob"), 150.0)
    assert ended == SilenceExpired("a", 150.0, "bob")


def test_a_snapshot_brings_back_the_same_silences() -> None:
    silences, again = made(), made()
    done(silences, wanted("b"), 100.0)
    done(silences, wanted("a"), 100.0)

    for key in sorted([ONLY, *(each.encode() for each in silences.all)]):
        record = silences.capture(key)
        assert record is not None
        again.load(key, record)
    again.loaded()

    assert again.all == silences.all and list(again.all) == list(silences.all)
    assert (again.bytes, again.version) == (silences.bytes, silences.version)
    assert again.since(again.version) == [] and again.since(0) is None


# -- the index --

_NAMES = ["service", "pod", "team", "имя"]
_VALUES = ["", "api", "db", "a|b", "pod-1", "ы"]
_labels = st.dictionaries(st.sampled_from(_NAMES), st.sampled_from(_VALUES[1:]))
_matcher = st.tuples(
    st.sampled_from(_NAMES),
    st.sampled_from(["=", "!=", "=~", "!~"]),
    st.sampled_from([*_VALUES, "api|db", ".*", ".+", "pod-[0-9]", "(api)?", "a.i"]),
)
_silences = st.lists(st.lists(_matcher, min_size=1, max_size=3), max_size=8)


@settings(max_examples=300, deadline=None)
@given(_silences, st.lists(_labels, min_size=1, max_size=4), st.sets(st.integers(0, 7)))
def test_the_index_finds_what_trying_every_silence_finds(
    silences: list[list[MatcherTuple]], alerts: list[dict[str, str]], removed: set[int]
) -> None:
    index = MuteIndex()
    for number, matchers in enumerate(silences):
        index.add(f"{number}", matchers)
    for number in removed:
        index.remove(f"{number}")

    for labels in alerts:
        wanted = [
            f"{number}"
            for number, matchers in enumerate(silences)
            if number not in removed and compile_matchers(matchers)(labels)
        ]
        assert index.of(labels) == wanted
    for number in range(len(silences)):
        index.remove(f"{number}")
    assert (index._by_value, index._by_name, index._rest, len(index)) == ({}, {}, {}, 0)


def test_a_silence_is_asked_about_only_when_an_alert_has_what_it_demands() -> None:
    index = MuteIndex()
    for number in range(1000):
        index.add(f"{number}", [("service", "=", "api"), ("pod", "=", f"pod-{number}")])
    asked: list[str] = []

    def counting(
        identity: str, tests: list[Callable[[Mapping[str, str]], bool]]
    ) -> Callable[[Mapping[str, str]], bool]:
        def test(labels: Mapping[str, str]) -> bool:
            asked.append(identity)
            return all(each(labels) for each in tests)

        return test

    for each in index._filed.values():
        each.tests = [counting(each.identity, each.tests)]

    assert list(index.of({"service": "api", "pod": "pod-7"})) == ["7"]
    assert len(asked) <= 2  # its own, and that filed by the service, before there were others of it


def test_a_pattern_that_would_take_too_long_mutes_nothing() -> None:
    index = MuteIndex()
    index.add("slow", [("a", "=~", "(x?){900}y")])

    assert index.of({"a": "x" * 2000 + "y"}) == []
    assert WORK_MAX < 250_000
    assert index.of({"a": "y"}) == ["slow"]


def test_a_silence_can_be_written_and_read() -> None:
    silences = made()
    done(silences, wanted(), 100.0)

    found = silences.all["a"]

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Silence) == found
