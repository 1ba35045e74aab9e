"""Relabelling and what it is made of: what groups take, what rules change, and what they leave alone."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.alerts.alert import Content
from models.alerts.extract import TEXT_CHARS_MAX, Extractor
from models.alerts.relabel import LABELS_MAX, CompiledRelabel, Relabel, Relabelling, Step
from models.errors import Malformed, TooLarge

# Of what senders call things; an empty value is a label that is not there.
NAMES = st.sampled_from(["service", "pod", "team", "env", "a b", "日本", "severity"])
VALUES = st.sampled_from(["x", "api-7d9f-x2x1z", "dev", '"', "$1", "${x}", "\n", "é" * 3, "\U0001f525"])
LABELS = st.dictionaries(NAMES, VALUES, min_size=1)


def content(labels: dict[str, str], **annotations: str) -> Content:
    return Content(labels, annotations, 0.0, "", "v1")


def applied(labels: dict[str, str], *rules: Relabel, **annotations: str) -> Content:
    return Relabelling([CompiledRelabel(each) for each in rules]).applied(
        "v1", content(labels, **annotations)
    )


# -- what groups take ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        r"(.+)-[0-9a-f]+-[a-z0-9]{5}",
        r"(a|ab)(c|bcd)(d*)",
        r"(a*)(a*)",
        r"(a*?)(a*)",
        r"(?:(a)|b)*",
        r"(\w+)\b(.*)",
        r"(?i)(API)-(.*)",
        r"((a+)(b+))+",
        r"(a{1,2}){1,3}",
        r"^(.*?)(?:-(\d+))?$",
    ],
)
@pytest.mark.parametrize(
    "text", ["llm-api-7d9f8c6b5-x2x1z", "abcd", "aaa", "aab", "bab", "api-12", "API-x", "aabab", "", "ab-7"]
)
def test_groups_take_what_perl_would(expression: str, text: str) -> None:
    found, theirs = Extractor(expression, "test").groups_of(text), re.fullmatch(expression, text)

    assert (found is None) == (theirs is None)
    if found is not None and theirs is not None:
        assert [found[str(number + 1)] for number in range(theirs.re.groups)] == [
            each or "" for each in theirs.groups()
        ]


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.sampled_from(["a", "b", ".", "[ab]", "a?", "b+"]),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
            inner.map(lambda one: f"({one})"),
        ),
        max_leaves=8,
    ),
    st.text("ab", max_size=8),
)
def test_any_expression_takes_what_perl_would(expression: str, text: str) -> None:
    found, theirs = Extractor(expression, "test").groups_of(text), re.fullmatch(expression, text)

    assert (found is None) == (theirs is None)
    if found is not None and theirs is not None:
        assert [found[str(at + 1)] for at in range(theirs.re.groups)] == [
            each or "" for each in theirs.groups()
        ]


def test_a_group_may_have_a_name() -> None:
    assert Extractor(r"(?P<of>.+)-(?P<pod>\w+)", "test").groups_of("api-x1") == {
        "0": "api-x1", "1": "api", "of": "api", "2": "x1", "pod": "x1",
    }  # fmt: skip


def test_no_expression_and_no_text_make_it_hang() -> None:
    began = time.monotonic()
    for expression in (r"(a*)*b", r"((a|a)*)*c", r"(\w+-?)+!", r"(.*)(.*)(.*)(.*)x"):
        for text in ("a" * TEXT_CHARS_MAX, "a" * (TEXT_CHARS_MAX - 1) + "x"):
            try:
                Extractor(expression, "test").groups_of(text)
            except TooLarge:
                pass

    # Backtracking would take longer than the universe has; this takes a tenth of it.
    assert time.monotonic() - began < 20


def test_what_is_too_large_is_refused() -> None:
    with pytest.raises(TooLarge, match="states"):
        Extractor("(a{100}){100}", "test")
    with pytest.raises(TooLarge, match="groups"):
        Extractor("(a)" * 21, "test")
    with pytest.raises(TooLarge, match="characters"):
        Extractor("(.*)", "test").groups_of("a" * (TEXT_CHARS_MAX + 1))


# -- what rules do ---------------------------------------------------------------------------------------------

POD = Relabel(
    "pod", read="pod", extract=r"(.+)-[0-9a-f]{6,10}-[a-z0-9]{5}", set={"service": "$1", "by": "${1}$$"}
)


def test_extract_fills_labels_and_keeps_what_does_not_match() -> None:
    found = applied({"pod": "llm-api-7d9f8c6b5-x2x1z", "service": "unknown"}, POD)

    assert found.labels == {"pod": "llm-api-7d9f8c6b5-x2x1z", "service": "llm-api", "by": "llm-api$"}
    assert found.annotations == {"relabelled": "service was unknown"}
    other = content({"pod": "llm-api", "service": "unknown"})
    assert Relabelling([CompiledRelabel(POD)]).applied("v1", other) is other


def test_extract_reads_annotations_and_titles_too() -> None:
    by = Relabel("t", read="title", extract=".*on (?P<host>[\\w.]+)", set={"host": "${host}"})
    note = Relabel("n", read="annotations.runbook", extract="https://([^/]+)/.*", set={"docs": "$1"})

    found = applied({"a": "b"}, by, note, summary="disk full on db1.example", runbook="https://wiki/x")

    assert found.labels == {"a": "b", "host": "db1.example", "docs": "wiki"}


def test_a_map_gives_the_labels_of_its_row_and_nothing_for_what_it_lacks() -> None:
    rule = CompiledRelabel(Relabel("m", read="service", map="/t.csv"), {"api": {"team": "ml", "tier": "1"}})
    relabelling = Relabelling([rule])

    assert relabelling.applied("v1", content({"service": "api"})).labels == {
        "service": "api", "team": "ml", "tier": "1",
    }  # fmt: skip
    assert relabelling.applied("v1", content({"service": "db"})).labels == {"service": "db"}


def test_two_labels_can_change_places() -> None:
    assert applied({"a": "1", "b": "2"}, Relabel("r", rename={"a": "b", "b": "a"})).labels == {
        "a": "2",
        "b": "1",
    }


def test_drop_says_nothing_of_what_was_dropped_so_that_replicas_are_one_alert() -> None:
    rule = Relabel("d", drop=("replica", "nothing"))

    one, other = (applied({"service": "api", "replica": each}, rule) for each in "ab")

    assert one == other == content({"service": "api"})


def test_each_rule_sees_what_those_before_it_made() -> None:
    first = Relabel("1", rename={"app": "service"})
    second = Relabel("2", match=(("service", "=", "api"),), set={"team": "ml"})

    assert applied({"app": "api"}, first, second).labels == {"service": "api", "team": "ml"}
    assert applied({"app": "api"}, second, first).labels == {"service": "api"}


def test_a_rule_is_for_its_format_only() -> None:
    rule = CompiledRelabel(Relabel("r", format="falco", set={"a": "b"}))

    assert Relabelling([rule]).applied("v1", content({"x": "y"})).labels == {"x": "y"}
    assert Relabelling([rule]).applied("falco", content({"x": "y"})).labels == {"x": "y", "a": "b"}


def test_what_a_rule_may_not_do_is_left_out_and_named() -> None:
    steps: list[Step] = []
    too_long = Relabel("long", read="a", extract="(.*)", set={"b": "$1" * 40})
    last = Relabel("last", drop=("a",))
    many = Relabel("many", set={f"n{at}": "x" for at in range(LABELS_MAX)})
    relabelling = Relabelling([CompiledRelabel(each) for each in (too_long, last, many)])
    alert = content({"a": "x" * 1000})

    assert relabelling.applied("v1", alert, steps) is alert
    assert [(step.rule, step.failed) for step in steps] == [
        ("long", "it would make b longer than 16384 bytes"),
        ("last", "it would leave no label at all"),
        ("many", "it would make over 256 labels"),
    ]


@pytest.mark.parametrize("wrong", ["$2", "${pod}", "a$", "$x"])
def test_a_template_names_what_it_can_not_fill(wrong: str) -> None:
    with pytest.raises(Malformed, match=re.escape(repr(wrong))):
        CompiledRelabel(Relabel("r", read="a", extract="(.*)", set={"b": wrong}))


RULES = [
    Relabel("rename", rename={"pod": "service"}),
    Relabel("drop", drop=("env", "a b")),
    Relabel("set", match=(("env", "=~", "dev|test"),), set={"severity": "info"}),
    POD,
]


@settings(max_examples=200, deadline=None)
@given(LABELS, st.permutations(RULES))
def test_relabelling_is_pure_and_leaves_a_good_alert(labels: dict[str, str], rules: list[Relabel]) -> None:
    before = dict(labels)
    once, twice = applied(labels, *rules), applied(labels, *rules)

    assert once == twice and labels == before
    assert once.labels and all(once.labels.values())


@settings(max_examples=200, deadline=None)
@given(LABELS)
def test_each_kind_of_rule_changes_nothing_the_second_time(labels: dict[str, str]) -> None:
    for rule in RULES:
        once = applied(labels, rule)
        again = Relabelling([CompiledRelabel(rule)]).applied("v1", once)
        assert again.labels == once.labels


@settings(max_examples=100, deadline=None)
@given(LABELS)
def test_steps_say_what_changed(labels: dict[str, str]) -> None:
    steps: list[Step] = []
    found = Relabelling([CompiledRelabel(each) for each in RULES]).applied("v1", content(labels), steps)

    told = dict(labels)
    for step in steps:
        for name, (before, after) in step.changed.items():
            assert told.get(name, "") == before
            told[name] = after
    assert {name: value for name, value in told.items() if value} == found.labels
