"""Rules classification: what labels, words and settings make of an incident. Pure."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.classification.reading import without
from models.classification.rules import Classifier, compile_rule, failed_verdict
from models.classification.severity import SEVERITY_WORDS, range_of
from models.classification.vocabulary import LEXICON
from models.incidents.incident import IncidentType, Severity
from models.shard.effects import Classify


def ask(
    title: str = "",
    description: str = "",
    *,
    signals: list[str] | None = None,
    labels: dict[str, str] | None = None,
    source: str = "",
) -> Classify:
    return Classify(
        incident_id=b"i" * 16,
        tenant="default",
        service="llm-api",
        source=source,
        title=title,
        description=description,
        labels=labels or {},
        annotations={},
        signals=signals or [],
        asked=len(signals or []),
    )


@pytest.mark.parametrize(
    ("signal", "severity"),
    [
        ("P0", "P0"),
        ("p1", "P1"),
        ("P4", "P4"),
        ("P1 - Critical", "P1"),
        ("Sev 2", "P2"),
        ("SEV-0", "P0"),
        ("S3", "P3"),
        ("critical", "P1"),
        ("CRITICAL", "P1"),
        ("page", "P1"),
        ("emergency", "P0"),
        ("disaster", "P0"),
        ("fatal", "P1"),
        ("high", "P1"),
        ("major", "P1"),
        ("error", "P2"),
        ("average", "P2"),
        ("warning", "P2"),
        ("minor", "P3"),
        ("low", "P3"),
        ("info", "P4"),
        ("Information", "P4"),
        ("notice", "P4"),
        ("none", "P4"),
        ("debug", "P4"),
    ],
)
def test_a_severity_word_means_what_its_senders_mean(signal: str, severity: str) -> None:
    verdict = Classifier().classify(ask("Something", signals=[signal]))

    assert verdict.severity.name == severity
    assert verdict.confidence == 0.9
    assert f"label ({signal})" in verdict.by


@pytest.mark.parametrize(
    ("signal", "title", "severity"),
    [
        ("critical", "Complete outage of all regions", Severity.P0),
        ("critical", "Disk is almost full", Severity.P1),
        ("warning", "Data loss: the cluster is down", Severity.P2),
        ("warning", "Deprecated configuration, update available", Severity.P3),
        ("info", "llm-api is down", Severity.P3),
        ("P3", "Complete outage of all regions", Severity.P3),
    ],
)
def test_words_move_a_label_only_within_its_range(signal: str, title: str, severity: Severity) -> None:
    verdict = Classifier().classify(ask(title, signals=[signal]))

    assert verdict.severity == severity


def test_the_most_severe_of_several_signals_counts() -> None:
    verdict = Classifier().classify(ask("Latency", signals=["info", "critical", "warning"]))

    assert verdict.severity == Severity.P1


def test_a_severity_label_speaks_when_there_are_no_signals() -> None:
    verdict = Classifier().classify(ask("Latency", labels={"priority": "P1"}))

    assert verdict.severity == Severity.P1


def test_a_signal_nobody_knows_leaves_the_words_to_decide() -> None:
    verdict = Classifier().classify(ask("llm-api is down", signals=["banana", ""]))

    assert verdict.severity == Severity.P1
    assert verdict.by.startswith("severity: words (down)")
    assert verdict.confidence == 0.6


def test_an_incident_that_says_nothing_is_p2_and_unknown() -> None:
    verdict = Classifier().classify(ask())

    assert (verdict.severity, verdict.type, verdict.impact) == (Severity.P2, IncidentType.UNKNOWN, "minor")
    assert verdict.by == "severity: default; type: default; impact: severity"
    assert verdict.confidence == 0.3


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("Prompt injection detected in chat gateway", "Security"),
        ("PII leak in completions", "Security"),
        ("Guardrail block rate is high", "Security"),
        ("Toxicity above content policy", "Compliance"),
        ("GDPR retention policy violation", "Compliance"),
        ("Embedding drift on the RAG index", "Data"),
        ("Nightly backup failed", "Data"),
        ("Time to first token above 2 s", "Performance"),
        ("KV cache usage is high", "Performance"),
        ("Provider rate limit: 429 from upstream", "Performance"),
        ("Token cost spike for tenant acme", "Performance"),
        ("HighRequestLatency", "Performance"),
        ("GPU Xid error on node 7", "Infrastructure"),
        ("NVLink errors", "Infrastructure"),
        ("Power supply failed", "Infrastructure"),
        ("Hallucination rate regression in answers", "Application"),
        ("Context length exceeded", "Application"),
        ("KubePodCrashLooping", "Application"),
        ("High 5xx error rate", "Application"),
        ("InstanceDown", "Availability"),
        ("Container registry is unreachable", "Availability"),
        ("Query execution is slow", "Performance"),
        ("Pod does not respond: requests failed", "Application"),
        ("Model endpoint is unreachable", "Availability"),
    ],
)
def test_words_of_operations_give_the_type(title: str, kind: str) -> None:
    verdict = Classifier().classify(ask(title))

    assert verdict.type == kind, verdict.by


def test_a_type_label_wins_over_words() -> None:
    verdict = Classifier().classify(ask("Latency is high", labels={"category": "Security"}))

    assert verdict.type == IncidentType.SECURITY
    assert "type: label (category)" in verdict.by


def test_impact_follows_the_severity_unless_words_or_a_label_say_it() -> None:
    classifier = Classifier()

    assert classifier.classify(ask("x", signals=["P1"])).impact == "major"
    assert classifier.classify(ask("All users affected", signals=["P1"])).impact == "critical"
    assert classifier.classify(ask("Scheduled maintenance", signals=["P1"])).impact == "none"
    assert classifier.classify(ask("x", labels={"impact": "major"}, signals=["P3"])).impact == "major"


def test_settings_rules_are_asked_first_and_may_leave_the_rest_to_others() -> None:
    rules = [
        compile_rule("drills", labels={"env": "drill-.*"}, severity="P4"),
        compile_rule(
            "payments", words="pay(ment|out)s?", source="stripe|adyen", severity="P0", impact="revenue"
        ),
        compile_rule("all payments", words="payment", type="Compliance", severity="P3"),
    ]

    verdict = Classifier(rules).classify(ask("PAYMENT latency", source="stripe", signals=["info"]))

    assert (verdict.severity, verdict.type, verdict.impact) == (
        Severity.P0,
        IncidentType.COMPLIANCE,
        "revenue",
    )
    assert verdict.by == "severity: payments; type: all payments; impact: payments"
    assert verdict.confidence == 0.95


@pytest.mark.parametrize(
    "question",
    [
        ask("payment", labels={"env": "production"}),
        ask("payment", labels={}),
        ask("something", labels={"env": "prod"}),
        ask("payment", labels={"env": "prod"}, source="other"),
    ],
)
def test_a_settings_rule_applies_only_when_all_its_conditions_hold(question: Classify) -> None:
    rule = compile_rule("r", labels={"env": "prod"}, words="payment", source="|stripe", severity="P0")

    assert Classifier([rule]).classify(question).severity != Severity.P0


def test_without_builtin_rules_only_settings_speak() -> None:
    classifier = Classifier([compile_rule("r", words="x", severity="P1")], builtin=False)

    assert classifier.classify(ask("x")).severity == Severity.P1
    assert classifier.classify(ask("outage", signals=["critical"])).severity == Severity.P2


@pytest.mark.parametrize(
    "values", [{"words": "("}, {"severity": "P9"}, {"type": "Weather"}, {"labels": {"a": "["}}]
)
def test_a_rule_that_cannot_be_compiled_is_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="'broken one'"):
        compile_rule("broken one", **values)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (r"(\w+-?)+", "a" * 40 + "!"),
        ("(a+)+b", "a" * 16_000),
        ("(a|aa)+", "a" * 16_000 + "b"),
        (".*a.*a.*a.*a.*a.*a.*b", "a" * 16_000),
        ("(.*)*(.*)*b", "a" * 16_000),
        ("(a|b)*a(a|b){300}", "ab" * 5 + "a" * 8_000),
    ],
)
def test_no_value_keeps_a_rule_busy(pattern: str, value: str) -> None:
    rules = [
        compile_rule("label", labels={"v": pattern}, severity="P0"),
        compile_rule("source", source=pattern, severity="P0"),
        compile_rule("words", words=f"{pattern}END", severity="P0"),
        compile_rule("other", labels={"env": "prod"}, severity="P1"),
    ]
    started = time.perf_counter()

    verdict = Classifier(rules).classify(
        ask(value, value, source=value, labels={"v": value, "alertname": value, "env": "prod"})
    )

    # Some tenths of a second at most; the bound only tells them from for ever.
    assert time.perf_counter() - started < 5
    assert verdict.severity == Severity.P1


def test_a_rule_that_explodes_is_given_up_by_name_and_for_that_incident_alone() -> None:
    rule = compile_rule("boom", labels={"v": "(a|b)*a(a|b){100}"}, severity="P0")
    classifier = Classifier([rule])
    exploding = "".join(random.Random(1).choices("ab", k=5_000))

    given_up = classifier.classify(ask("x", labels={"v": exploding}))
    matched = classifier.classify(ask("x", labels={"v": "a" * 101}))

    assert given_up.severity == Severity.P2 and given_up.by.endswith("; gave up: boom")
    assert matched.severity == Severity.P0 and "gave up" not in matched.by


@pytest.mark.parametrize(
    "pattern", ["a(?=b)", "(?!a)b", r"(a)\1", r"a\Z", "(?m)^a", "a{,3}", "(?#x)a", "a++"]
)
def test_what_only_pythons_expressions_know_is_refused_and_not_read_otherwise(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"'r': expected a regular expression in RE2's syntax"):
        compile_rule("r", words=pattern)


def test_templates_in_unrendered_texts_say_nothing() -> None:
    verdict = Classifier().classify(ask("Thing", "{{ $labels.down }} {{ outage }}"))

    assert verdict.severity == Severity.P2


def test_every_term_of_the_vocabulary_can_be_found() -> None:
    for term in LEXICON:
        assert term.count(" ") <= 1
        verdict = Classifier().classify(ask(term))
        assert "words" in verdict.by, term


def test_a_huge_text_costs_no_more_than_a_long_one() -> None:
    huge = ask("aB" * 5_000_000, "x y " * 5_000_000, signals=["critical" * 1_000_000])
    started = time.perf_counter()

    Classifier().classify(huge)

    assert time.perf_counter() - started < 0.1


def test_a_failed_verdict_names_the_error() -> None:
    verdict = failed_verdict(b"i" * 16, 3, "ValidationError")

    assert (verdict.severity, verdict.asked, verdict.confidence) == (Severity.P2, 3, 0.0)
    assert verdict.by == "error: ValidationError"


# Laws.

anything = st.text(max_size=200)
wild = st.text(alphabet=st.characters(), max_size=60)  # surrogates too
labels = st.dictionaries(
    st.one_of(st.sampled_from(["alertname", "severity", "type", "impact", "component"]), wild),
    wild,
    max_size=5,
)
known_signal = st.sampled_from(sorted(word for word in SEVERITY_WORDS if word))
texts = st.lists(st.one_of(st.sampled_from(sorted(LEXICON)), wild), max_size=8).map(" ".join)
CLASSIFIER = Classifier(
    [compile_rule("r", labels={"severity": ".*x"}, words="a+b", source="s", severity="P3")]
)


@given(wild | texts, wild | texts, labels, st.lists(wild, max_size=4), wild)
def test_classify_never_raises_and_says_the_same_again(
    title: str, description: str, labels: dict[str, str], signals: list[str], source: str
) -> None:
    question = ask(title, description, labels=labels, signals=signals, source=source)

    first, second = CLASSIFIER.classify(question), Classifier(CLASSIFIER._rules).classify(question)

    assert first == second
    assert 0.0 <= first.confidence <= 1.0
    assert first.impact


@given(texts, st.lists(known_signal | wild, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_signals_does_not_matter(title: str, signals: list[str], chance: random.Random) -> None:
    shuffled = list(signals)
    chance.shuffle(shuffled)

    assert Classifier().classify(ask(title, signals=signals)) == Classifier().classify(
        ask(title, signals=shuffled)
    )


@settings(max_examples=300)
@given(texts, known_signal, st.lists(known_signal | wild, max_size=4), known_signal | wild)
def test_another_signal_never_lowers_a_labelled_severity(
    title: str, one: str, others: list[str], more: str
) -> None:
    before = Classifier().classify(ask(title, signals=[one, *others]))
    after = Classifier().classify(ask(title, signals=[one, *others, more]))

    assert after.severity <= before.severity


@given(wild)
def test_any_text_is_a_severity_word_or_none(word: str) -> None:
    meaning = range_of(word)

    assert meaning is None or meaning.worst <= meaning.usual <= meaning.best


@pytest.mark.parametrize(
    ("service", "title"),
    [
        ("after-migration", "after-migration is down"),
        ("after-migration", "HighErrors (after-migration)"),
        ("After_Migration", "HighErrors (after_migration)"),
        ("index", "HighErrors: index"),
    ],
)
def test_the_services_own_name_is_no_evidence(service: str, title: str) -> None:
    asked = msgspec.structs.replace(ask(title, f"Errors of {service}.", source=service), service=service)
    plain = msgspec.structs.replace(
        ask(title.lower().replace(service.lower(), "it"), "Errors of it."), service="it"
    )

    found, wanted = Classifier().classify(asked), Classifier().classify(plain)

    assert found.type is not IncidentType.DATA
    assert (found.type, found.severity, found.impact) == (wanted.type, wanted.severity, wanted.impact)


def test_a_service_that_has_its_name_from_the_alert_does_not_silence_it() -> None:
    asked = ask("IndexCorruption", labels={"alertname": "IndexCorruption"})

    found = Classifier().classify(msgspec.structs.replace(asked, service="IndexCorruption"))

    assert found.type is IncidentType.DATA


def test_a_word_that_only_begins_like_the_service_counts() -> None:
    asked = msgspec.structs.replace(ask("data-migration failed"), service="data")

    assert Classifier().classify(asked).type is IncidentType.DATA


@given(
    st.text(alphabet="aAb-_. 4\u00e9\u00c9", max_size=30),
    st.text(alphabet="aAb-_. 4\u00e9", min_size=1, max_size=3),
)
def test_a_name_is_taken_out_where_an_expression_of_it_would_match(text: str, name: str) -> None:
    expression = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)
    assert without(text, name) == expression.sub(" . ", text)


def test_a_letter_that_is_two_in_lower_case_shifts_nothing() -> None:
    assert without("\u0130zmir api is down", "api") == "\u0130zmir  .  is down"
