"""Alertmanager's matchers: read as 0.25 reads them, and no pattern can hold a shard up."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.alerts.matchers import (
    MATCHER_CHARS_MAX,
    MATCHERS_MAX,
    compile_matchers,
    parse_filters,
    write_matcher,
)
from models.alerts.patterns import KEPT_MAX, SEEN_MAX, Budget, Pattern
from models.errors import Malformed, TooLarge

#: text -> matcher; each pair is what Debian's Alertmanager 0.25 does with `filter=`.
READ = {
    "alertname=A": ("alertname", "=", "A"),
    " alertname = A ": ("alertname", "=", "A"),
    'alertname="A"': ("alertname", "=", "A"),
    "alertname='A'": ("alertname", "=", "'A'"),
    "alertname=": ("alertname", "=", ""),
    'alertname=""': ("alertname", "=", ""),
    "alertname!=A": ("alertname", "!=", "A"),
    'alertname=~"a|b"': ("alertname", "=~", "a|b"),
    "alertname!~a.*": ("alertname", "!~", "a.*"),
    "a:b=c": ("a:b", "=", "c"),
    "a==b": ("a", "=", "=b"),
    "a=b,c=d": ("a", "=", "b,c=d"),
    "a=b c": ("a", "=", "b c"),
    r'a="x\"y"': ("a", "=", 'x"y'),
    r'a="x\ny"': ("a", "=", "x\ny"),
    r'a="x\\"': ("a", "=", "x\\"),
    r"a=x\dy": ("a", "=", r"x\dy"),
    "a=\\": ("a", "=", "\\"),
    "a=A}": ("a", "=", "A}"),
}

#: What 0.25 refuses and those since 0.28 take: names in UTF-8, bare or in quotes as Go writes strings.
NEWER = {
    "1a=b": ("1a", "=", "b"),
    "a-b=c": ("a-b", "=", "c"),
    "é=a": ("é", "=", "a"),
    '"a"=b': ("a", "=", "b"),
    "service.name=x": ("service.name", "=", "x"),
    'k8s.pod.name =~ "p-.*"': ("k8s.pod.name", "=~", "p-.*"),
    '"a name"!="b c"': ("a name", "!=", "b c"),
    r'"quo\"te\\"!~"\t\x41\u00e9\U0001F525"': ('quo"te\\', "!~", "\tAé🔥"),
    r'"\303\251"=x': ("é", "=", "x"),
    r'a="\u00e9\x"': ("a", "=", r"\u00e9\x"),  # taken by the older rules, so it is read by them
}

#: text -> error; the words are those of Debian's Alertmanager 0.25.
REFUSED = {
    "": "bad matcher format: ",
    "[bad": "bad matcher format: [bad",
    "alertname": "bad matcher format: alertname",
    ",a=b": "bad matcher format: ,a=b",
    "{}": "bad matcher format: {}",
    "{a=b": "bad matcher format: {a=b",
    '""=b': 'bad matcher format: ""=b',
    '"a=b': 'bad matcher format: "a=b',
    'a b="c"': 'bad matcher format: a b="c"',
    "a.b=c d": "bad matcher format: a.b=c d",
    'a.b="\\x"': 'bad matcher format: a.b="\\x"',
    'a.b="\\xff"': 'bad matcher format: a.b="\\xff"',
    'a.b="\\ud800"': 'bad matcher format: a.b="\\ud800"',
    'a="b': 'matcher value contains unescaped double quote: "b',
    'a=b"': 'matcher value contains unescaped double quote: b"',
    'a="b\\"': 'matcher value contains unescaped double quote: "b\\"',
    'a="b"c': 'matcher value contains unescaped double quote: "b"c',
    'a="': 'matcher value contains unescaped double quote: "',
    "a=~(": "error parsing regexp: missing closing ): `^(?:()$`",
    "a=~b{1,2000}": "error parsing regexp: invalid repeat count: `{1,2000}`",
    "a=~b\\1": "error parsing regexp: invalid escape sequence: `\\1`",
    "a=~(?=b)": "error parsing regexp: invalid or unsupported Perl syntax: `(?=`",
    "a=~b++": "error parsing regexp: invalid nested repetition operator: `++`",
    "a=~*": "error parsing regexp: missing argument to repetition operator: `*`",
}


@pytest.mark.parametrize("text", READ)
def test_a_matcher_is_read_as_alertmanager_reads_it(text: str) -> None:
    assert parse_filters([text]) == [READ[text]]


@pytest.mark.parametrize("text", NEWER)
def test_a_name_in_utf8_is_taken_as_alertmanager_takes_it_since_0_28(text: str) -> None:
    assert parse_filters([text]) == [NEWER[text]]
    assert parse_filters([f"{{{text}}}"]) == [NEWER[text]]


@given(st.text(min_size=1), st.sampled_from(["=", "!="]), st.text())
def test_a_matcher_that_was_written_is_read_back(name: str, operator: str, value: str) -> None:
    assert parse_filters([write_matcher((name, operator, value))]) == [(name, operator, value)]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_matcher_is_refused_in_alertmanagers_words(text: str) -> None:
    with pytest.raises(Malformed) as refusal:
        parse_filters([text])

    assert str(refusal.value) == REFUSED[text]


def test_several_matchers_may_stand_in_braces() -> None:
    found = parse_filters(['{a="b,}",c=~"d|e" , f!=g,}'])

    assert found == [("a", "=", "b,}"), ("c", "=~", "d|e"), ("f", "!=", "g")]


@pytest.mark.parametrize(
    ("text", "labels", "holds"),
    [
        ("gone=", {}, True),
        ("gone=x", {}, False),
        ("gone!=x", {}, True),
        ('gone=~""', {}, True),
        ("gone=~.+", {}, False),
        ("gone!~x", {}, True),
        ("a=~b", {"a": "abc"}, False),
        ("a=~.*b.*", {"a": "abc"}, True),
        ("a!~b", {"a": "abc"}, True),
        ("a=~(?i)ABC", {"a": "abc"}, True),
        (r"a=~\Qa.c\E", {"a": "abc"}, False),
        ("a=~[[:alpha:]]+", {"a": "abc"}, True),
        ("a=~a.c", {"a": "a\nc"}, False),
        ("a=~(?s)a.c", {"a": "a\nc"}, True),
        ("a=~b|", {"a": ""}, True),
    ],
)
def test_a_matcher_holds_for_the_whole_value_and_a_missing_label_is_empty(
    text: str, labels: dict[str, str], holds: bool
) -> None:
    assert compile_matchers(parse_filters([text]))(labels) is holds


def test_all_matchers_must_hold() -> None:
    holds = compile_matchers(parse_filters(["a=1", "b=~2|3"]))

    assert holds({"a": "1", "b": "3"})
    assert not holds({"a": "1", "b": "4"})


def test_no_matchers_hold_for_anything() -> None:
    assert compile_matchers([])({})


_ATOMS = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^a]", "[a-c]", r"\d", r"\D", "^", "$", "(?:)", r"\.", r"\b", r"\B"]
)
_PATTERNS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{1,}", "*?"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=8,
)


@given(_PATTERNS, st.lists(st.text("abc1._ é", max_size=6), max_size=5))
def test_a_pattern_matches_what_pythons_own_engine_matches(pattern: str, values: list[str]) -> None:
    judge = re.compile(pattern.replace("$", r"\Z"), re.ASCII)
    ours, anywhere = Pattern(pattern), Pattern(pattern, search=True)

    for value in values:
        if value or r"\B" not in pattern:  # Python before 3.14 finds no \B in an empty text, RE2 and Go do
            assert ours.matches(value) == bool(judge.fullmatch(value))
            assert anywhere.matches(value) == bool(judge.search(value))


@pytest.mark.parametrize(
    ("pattern", "value", "is_there"),
    [
        ("payment", "a Payment failed", True),
        (r"\bpay\b", "to pay, now", True),
        (r"\bpay\b", "payment", False),
        ("^high", "High latency", True),
        ("^high", "very high", False),
        ("straße", "STRAßE gesperrt", True),
        ("a)(b", "", None),
        ("", "", True),
    ],
)
def test_a_pattern_is_searched_in_any_case(pattern: str, value: str, is_there: bool | None) -> None:
    if is_there is None:
        with pytest.raises(Malformed):
            Pattern(pattern, search=True, fold=True)
    else:
        assert Pattern(pattern, search=True, fold=True).matches(value) is is_there


def test_a_pattern_that_lives_long_keeps_little_and_goes_on() -> None:
    budget = Budget("rule", 1_000_000)
    pattern = Pattern("(a|b)*a(a|b){10}", budget)

    for number in range(300):
        budget.renew()
        value = f"{number * 7919:030b}".replace("0", "a").replace("1", "b")
        assert pattern.matches(value) == bool(re.fullmatch("[ab]*a[ab]{10}", value))

    assert pattern._kept <= KEPT_MAX and len(pattern._seen) <= SEEN_MAX


@given(st.text(max_size=30))
def test_any_text_is_a_matcher_or_refused_by_name(text: str) -> None:
    for written in (text, f"a=~{text}", f"{{{text}}}"):
        try:
            compile_matchers(parse_filters([written]))({"a": text})
        except (Malformed, TooLarge):
            pass


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|aa)*b", "(a|a)*b", ".*a.*a.*a.*a.*a.*b", "(.*)*(.*)*b"])
def test_a_pattern_that_makes_others_backtrack_is_matched_in_no_time(pattern: str) -> None:
    begun = time.perf_counter()

    assert not Pattern(pattern).matches("a" * 5000)

    # Milliseconds; the bound only tells them from for ever.
    assert time.perf_counter() - begun < 2


@pytest.mark.parametrize(
    "pattern",
    ["((a{100}){100}){100}", "(((){1000}){1000}){1000}", "(" * 500 + ")" * 500, "a" * MATCHER_CHARS_MAX],
)
def test_a_pattern_that_asks_for_too_much_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(TooLarge, match="filter"):
        parse_filters([f"a=~{pattern}"])


def test_a_pattern_that_explodes_over_many_values_is_stopped() -> None:
    holds = compile_matchers([("a", "=~", "(a|b)*a(a|b){300}")])

    with pytest.raises(TooLarge, match="steps"):
        for number in range(1000):
            holds({"a": f"{number:b}".replace("0", "a").replace("1", "b") * 50})


def test_too_many_matchers_are_refused_by_name() -> None:
    with pytest.raises(TooLarge, match=str(MATCHERS_MAX)):
        parse_filters(["a=b"] * (MATCHERS_MAX + 1))
