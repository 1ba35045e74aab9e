"""How good a model is, in figures: on examples that it was not trained on, beside the rules on the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

#: Between probabilities of a tenth each, what is said is compared with what is so.
BINS = 10


class Figures(msgspec.Struct, frozen=True, array_like=True):
    """Of one head (severity or type), over `count` examples that somebody stood behind, none of whose service the model knew.

    accuracy, macro_f1         of the model alone
    rules_accuracy, rules_f1   of the rules alone
    both_accuracy, both_f1     of what would be said: the model where it is sure, else the rules
    sure                       the share of examples where the model is sure enough
    sure_accuracy              its accuracy there; 0 where it never is
    calibration_error          by how much what it says of its certainty is off on the average (expected calibration error)
    confusion                  (what is so, what would be said, how often), the most frequent first
    """

    count: int
    accuracy: float
    macro_f1: float
    rules_accuracy: float
    rules_f1: float
    both_accuracy: float
    both_f1: float
    sure: float
    sure_accuracy: float
    calibration_error: float
    confusion: list[tuple[str, str, int]]


class Evaluation(msgspec.Struct, frozen=True, array_like=True):
    """`heads` by name. `split_by`: what the examples were held out by ("service" or "alertname", "given" for a set that was given).
    `confidence` is how sure the model had to be."""

    heads: dict[str, Figures]
    split_by: str
    groups: int
    confidence: float


Pair = tuple[str, str]


def figures(
    gold: Sequence[str],
    model: Sequence[str],
    confidence: Sequence[float],
    rules: Sequence[str],
    both: Sequence[str],
    least: float,
) -> Figures:
    """Of sequences that go together, one item an example. `least`: how sure the model must be."""
    alone, ruled, mixed = [*zip(gold, model)], [*zip(gold, rules)], [*zip(gold, both)]
    sure = [pair for pair, chance in zip(alone, confidence) if chance >= least]
    confusion = Counter(mixed)
    return Figures(
        len(gold),
        accuracy(alone),
        macro_f1(alone),
        accuracy(ruled),
        macro_f1(ruled),
        accuracy(mixed),
        macro_f1(mixed),
        len(sure) / len(gold) if gold else 0.0,
        accuracy(sure),
        calibration_error(alone, confidence),
        [
            (so, said, count)
            for (so, said), count in sorted(confusion.items(), key=lambda each: (-each[1], each[0]))
        ],
    )


def accuracy(pairs: Sequence[Pair]) -> float:
    return sum(gold == said for gold, said in pairs) / len(pairs) if pairs else 0.0


def macro_f1(pairs: Sequence[Pair]) -> float:
    """The mean F1 over the classes that occur in gold."""
    scores = []
    for label in sorted({gold for gold, _ in pairs}):
        hits = sum(gold == label == said for gold, said in pairs)
        wrong = sum(gold != said and label in (gold, said) for gold, said in pairs)
        scores.append(2 * hits / (2 * hits + wrong) if hits else 0.0)
    return sum(scores) / len(scores) if scores else 0.0


def calibration_error(pairs: Sequence[Pair], confidence: Sequence[float]) -> float:
    """Expected calibration error: Guo et al. 2017, equation 3, with BINS equal bins. Where the model says nothing (0), nothing is off."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for (gold, said), chance in zip(pairs, confidence):
        if not chance:
            continue
        bins[min(BINS - 1, int(chance * BINS))].append((chance, gold == said))
    off = sum(abs(sum(right for _, right in each) - sum(chance for chance, _ in each)) for each in bins)
    spoken = sum(map(bool, confidence))
    return off / spoken if spoken else 0.0
