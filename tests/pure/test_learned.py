"""The learned classifier as arrays: features, the file of a model, what it decides beside the rules, training and evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import UUID

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.classification.rules import Classifier, Ruling, compile_rule
from models.errors import Conflict, Malformed
from models.incidents.incident import (
    Handling,
    Incident,
    IncidentState,
    IncidentType,
    Override,
    Severity,
    Verdict,
)
from models.learned.evaluate import calibration_error, figures
from models.learned.examples import CORRECTED, SEEN, UNSEEN, Example, example_of
from models.learned.features import features_of
from models.learned.judging import LearnedClassifier, Versioned
from models.learned.model import FILE_BYTES_MAX, SEVERITY, TYPE, Head, Model, decode_model, encode_model
from models.learned.train import Floats, Rows, Trained, evaluate, train
from models.shard.effects import Classify

ID = UUID(int=7).bytes


def question(title: str, description: str = "", service: str = "api", **labels: str) -> Classify:
    return Classify(ID, "default", service, "", title, description, {"alertname": "Odd", **labels}, {}, [], 0)


def fit(rows: Rows, labels: NDArray[np.int32], weights: Floats, classes: int) -> tuple[Floats, Floats]:
    """Logistic regression by plain gradient descent: enough for the few words of these tests."""
    found, bias = np.zeros((rows.width, classes), np.float32), np.zeros(classes, np.float32)
    owners = np.repeat(np.arange(len(labels)), np.diff(rows.starts))
    for _ in range(150):
        scores = rows.scores(found, bias)
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        chances[np.arange(len(labels)), labels] -= 1.0
        pull = (chances * (weights / weights.sum())[:, None]).astype(np.float32)
        step = np.zeros_like(found)
        np.add.at(step, rows.places, pull[owners] * rows.values[:, None])
        found -= 20.0 * step
        bias -= 5.0 * pull.sum(axis=0)
    return found, bias


def taught() -> list[Example]:
    """Six services in each of which people found the quota's end urgent and the nightly report not."""
    found = []
    for number in range(6):
        for _ in range(4):
            for title, severity, type_ in (
                ("Token quota exhausted for tenants", Severity.P0, IncidentType.COMPLIANCE),
                ("Nightly report job ran long", Severity.P4, IncidentType.DATA),
            ):
                asked = question(title, service=f"service-{number}")
                found.append(Example(asked, 0.0, severity, CORRECTED, type_, CORRECTED))
    return found


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(taught(), Classifier().rule, fit, confidence=0.7, least=10)


# -- features ----------------------------------------------------------------------------------------------------


@given(st.text(), st.text(), st.dictionaries(st.text(max_size=20), st.text(max_size=100), max_size=60))
@settings(max_examples=50)
def test_any_text_gives_bounded_features_and_the_same_each_time(
    title: str, description: str, labels: dict[str, str]
) -> None:
    asked = Classify(ID, "t", "s", "", title * 50, description * 500, labels, {}, ["x"] * 99, 0)

    found = features_of(asked)

    assert found == features_of(asked)
    assert len(found) < 2000
    assert all(0 <= each < 2**32 for each in found)


def test_numbers_that_pass_and_the_services_name_are_no_features() -> None:
    first = question("api: request 123456 took 98765 ms", pod="api-1")
    second = question("other: request 777777 took 11111 ms", service="other", pod="other-2")

    assert features_of(first).keys() == features_of(second).keys()


# -- the file ----------------------------------------------------------------------------------------------------


def test_a_model_comes_back_from_its_file_as_it_was(trained: Trained) -> None:
    file = encode_model(trained.model)

    back = decode_model(file)

    assert encode_model(back) == file
    asked = features_of(question("Token quota exhausted"))
    assert back.guess(asked) == trained.model.guess(asked)


def test_a_damaged_file_is_refused_wherever_it_is_damaged(trained: Trained) -> None:
    file = encode_model(trained.model)

    for place in range(0, len(file), max(1, len(file) // 97)):
        with pytest.raises(Malformed):
            decode_model(file[:place] + bytes([file[place] ^ 1]) + file[place + 1 :])
        with pytest.raises(Malformed):
            decode_model(file[:place])


def _file(*stored: object) -> bytes:
    body = msgspec.msgpack.encode([*stored])
    return b"LIM1" + hashlib.sha256(body).digest() + body


HASHES, RARITY = np.array([1, 5], "<u4").tobytes(), np.ones(2, "<f4").tobytes()
HEAD = ["severity", ["P0", "P1"], np.ones(4, "<f4").tobytes(), np.ones(2, "<f4").tobytes(), 1.0]


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (b"", "not a model"),
        (b"\x80\x04." * 30, "not a model"),
        (b"x" * (FILE_BYTES_MAX + 1), "at most"),
        (_file(2, HASHES, RARITY, 1.0, [HEAD]), "train it again"),
        (_file(1, HASHES[:-1], RARITY, 1.0, [HEAD]), "no whole number"),
        (_file(1, HASHES[4:] + HASHES[:4], RARITY, 1.0, [HEAD]), "ascending"),
        (_file(1, HASHES, RARITY[:4], 1.0, [HEAD]), "rarity: expected 2"),
        (_file(1, HASHES, np.array([1, np.nan], "<f4").tobytes(), 1.0, [HEAD]), "finite"),
        (_file(1, HASHES, RARITY, 0.0, [HEAD]), "unknown"),
        (_file(1, HASHES, RARITY, 1.0, []), "heads"),
        (_file(1, HASHES, RARITY, 1.0, [HEAD, HEAD]), "heads"),
        (_file(1, HASHES, RARITY, 1.0, [["mood", *HEAD[1:]]]), "no classes"),
        (_file(1, HASHES, RARITY, 1.0, [["severity", ["P0", "P9"], *HEAD[2:]]]), "two or more of"),
        (_file(1, HASHES, RARITY, 1.0, [[*HEAD[:4], 0.0]]), "temperature"),
        (_file(1, HASHES, RARITY, 1.0, [[*HEAD, 1.5]]), "ceiling"),
        (_file(1, HASHES, RARITY, 1.0, [[*HEAD[:2], HEAD[3], *HEAD[3:]]]), "weights of severity"),
        (_file(1, HASHES), "can't be read"),
    ],
)  # fmt: skip
def test_a_file_whose_content_makes_no_model_is_refused(file: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        decode_model(file)


# -- deciding ----------------------------------------------------------------------------------------------------


def test_a_sure_model_speaks_and_says_by_which_words(trained: Trained) -> None:
    judge = LearnedClassifier(Classifier(), Versioned(3, trained.model))

    verdict = judge.classify(question("Token quota exhausted for tenants", service="new"))

    assert (verdict.severity, verdict.type, verdict.impact) == (
        Severity.P0,
        IncidentType.COMPLIANCE,
        "critical",
    )
    assert verdict.by.startswith("severity: model 3, ") and "quota" in verdict.by.partition(";")[0]
    assert verdict.confidence >= 0.7


def test_a_model_that_is_unsure_leaves_it_to_the_rules(trained: Trained) -> None:
    asked = question("Disk of the vector index is full", "a new kind of thing altogether")

    verdict = LearnedClassifier(Classifier(), Versioned(3, trained.model)).classify(asked)

    assert verdict == Classifier().classify(asked)


def test_a_model_says_nothing_of_what_it_has_never_seen_however_common_one_class_is() -> None:
    rare = [each for each in taught() if each.severity is Severity.P0][::4]
    common = [each for each in taught() if each.severity is Severity.P4] * 5
    model = train(rare + common, Classifier().rule, fit, confidence=0.7, least=10).model

    guessed = model.guess(features_of(question("Disk of the vector index is full", alertname="Full")))

    assert guessed[SEVERITY].confidence == 0.0
    assert model.guess(features_of(question("Nightly report job ran long")))[SEVERITY].confidence > 0.9


def test_a_rule_of_the_settings_wins_over_the_model(trained: Trained) -> None:
    rules = Classifier([compile_rule("ours", words="quota", severity="P3")])

    verdict = LearnedClassifier(rules, Versioned(3, trained.model)).classify(
        question("Token quota exhausted for tenants")
    )

    assert (verdict.severity, verdict.type) == (Severity.P3, IncidentType.COMPLIANCE)
    assert verdict.by.startswith("severity: ours; type: model 3")


def test_a_model_that_fails_is_not_asked_again_and_the_rules_go_on() -> None:
    broken = Model(
        np.array([1], np.uint32), np.ones(1, np.float32), 1.0,
        {SEVERITY: Head(("P0", "P1"), np.ones((1, 2), np.float32), np.ones(3, np.float32), 1.0)},
    )  # fmt: skip
    failed: list[tuple[int, str]] = []
    judge = LearnedClassifier(Classifier(), Versioned(9, broken), failed=lambda *told: failed.append(told))
    asked = question("Latency is high")

    first, second = judge.classify(asked), judge.classify(asked)

    assert first == second == Classifier().classify(asked)
    assert failed == [(9, "ValueError")]


def test_a_shadow_is_compared_and_decides_nothing(trained: Trained) -> None:
    compared: list[tuple[int, Ruling, Ruling]] = []
    judge = LearnedClassifier(
        Classifier(), None, Versioned(4, trained.model), compared=lambda *told: compared.append(told)
    )
    asked = question("Token quota exhausted for tenants")

    verdict = judge.classify(asked)

    assert verdict == Classifier().classify(asked)
    ((version, given, shadow),) = compared
    assert (version, given.severity, shadow.severity) == (4, verdict.severity, Severity.P0)


# -- examples ----------------------------------------------------------------------------------------------------


def incident(**fields: object) -> Incident:
    made = Incident(ID, 1, "default", "api", "key", {"service": "api"}, "Latency", "", "", {}, {}, 0.0, 0.0)
    made.classified_by, made.severity, made.type = (
        "severity: default; type: words (latency)",
        Severity.P2,
        IncidentType.PERFORMANCE,
    )
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def handling(override: Override = Override(), answered_at: float = 0.0) -> Handling:  # noqa: B008
    return Handling(
        Verdict(Severity.P2, IncidentType.PERFORMANCE, "minor"), override=override, answered_at=answered_at
    )


@pytest.mark.parametrize(
    ("made", "severity", "type_"),
    [
        (incident(state=IncidentState.CLOSED), UNSEEN, UNSEEN),
        (
            incident(
                state=IncidentState.CLOSED, classified_by="severity: model 2, 90% sure (x); type: default"
            ),
            0.0,
            UNSEEN,
        ),
        (incident(state=IncidentState.CLOSED, handling=handling(answered_at=5.0)), SEEN, SEEN),
        (incident(handling=handling(Override(Severity.P0))), CORRECTED, UNSEEN),
    ],
)
def test_who_stood_behind_a_verdict_says_how_much_it_counts(
    made: Incident, severity: float, type_: float
) -> None:
    found = example_of(made)

    assert found is not None
    assert (found.severity_weight, found.type_weight) == (severity, type_)


@pytest.mark.parametrize(
    "made",
    [
        incident(),
        incident(state=IncidentState.CLOSED, group_key=""),
        incident(state=IncidentState.CLOSED, classified_by=""),
    ],
)
def test_what_is_open_or_made_by_hand_or_was_never_judged_teaches_nothing(made: Incident) -> None:
    assert example_of(made) is None


# -- training ----------------------------------------------------------------------------------------------------


def test_it_is_evaluated_on_services_that_it_has_not_seen_beside_the_rules(trained: Trained) -> None:
    found = trained.evaluation

    assert (found.split_by, found.groups) == ("service", 6)
    for name in (SEVERITY, TYPE):
        head = found.heads[name]
        assert head.count == 48
        assert head.both_accuracy == 1.0 > head.rules_accuracy
        assert sum(count for *_, count in head.confusion) == 48


def test_the_same_examples_make_the_same_model_in_whatever_order(trained: Trained) -> None:
    again = train(taught()[::-1], Classifier().rule, fit, confidence=0.7, least=10)

    assert again.model.hashes.tolist() == trained.model.hashes.tolist()
    assert encode_model(
        train(taught(), Classifier().rule, fit, confidence=0.7, least=10).model
    ) == encode_model(trained.model)


@pytest.mark.parametrize(
    ("examples", "why"),
    [
        (taught()[:5], "5 examples: expected at least 10"),
        ([each for each in taught() if each.question.service == "service-1"] * 2, "fewer than 4 services"),
        ([each for each in taught() if each.severity is Severity.P0], "nothing to tell apart"),
    ],
)
def test_examples_that_teach_nothing_are_refused_with_what_is_missing(
    examples: Sequence[Example], why: str
) -> None:
    with pytest.raises(Conflict, match=why):
        train(examples, Classifier().rule, fit, confidence=0.7, least=10)


def test_one_service_is_held_out_by_alert_name_instead() -> None:
    examples = [
        msgspec.structs.replace(each, question=question(each.question.title, alertname=f"Alert{number % 5}"))
        for number, each in enumerate(taught())
    ]

    assert (
        train(examples, Classifier().rule, fit, confidence=0.7, least=10).evaluation.split_by == "alertname"
    )


def test_it_is_never_surer_than_the_number_of_its_trials_allows(trained: Trained) -> None:
    guessed = trained.model.guess(
        features_of(question("Token quota exhausted for tenants", service="service-1"))
    )

    assert 0.9 < guessed[SEVERITY].confidence <= 1 - 1 / (48 + 2)


def test_a_given_set_is_evaluated_without_training(trained: Trained) -> None:
    found = evaluate(trained.model, taught(), Classifier().rule, 0.7)

    assert found.heads[SEVERITY].both_accuracy == 1.0


def test_figures_of_a_model_that_knows_when_it_is_right() -> None:
    found = figures(["a", "a", "b"], ["a", "b", "b"], [1.0, 0.0, 1.0], ["a", "a", "a"], ["a", "a", "b"], 0.7)

    assert (found.accuracy, found.rules_accuracy, found.both_accuracy) == (2 / 3, 2 / 3, 1.0)
    assert (found.sure, found.sure_accuracy, found.calibration_error) == (2 / 3, 1.0, 0.0)
    assert found.confusion == [("a", "a", 2), ("b", "b", 1)]


def test_a_model_that_is_surer_than_right_is_miscalibrated() -> None:
    assert calibration_error([("a", "b"), ("a", "a")], [0.9, 0.9]) == pytest.approx(0.4)
