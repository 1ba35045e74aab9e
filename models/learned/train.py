"""Makes a model of examples: which features it knows, how sure it may be, and how good it is on services it has not seen.

The one thing that is not here is the fitting of weights, which is given as `fit` (services/learning/fitting.py): the rest is the
same examples in, the same model out.

    examples --> FOLDS parts, no service in two of them --> each part's answers by a model of the others
                                                              |
                      temperature (how sure it may be) <------+------> evaluation, beside the rules
    all examples ------------------------------------------------------> the model
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.classification.rules import Ruling
from models.errors import Conflict
from models.learned.evaluate import Evaluation, Figures, figures
from models.learned.examples import SEEN, Example
from models.learned.features import features_of
from models.learned.judging import decided
from models.learned.model import (
    CLASSES,
    FAMILIAR_MIN,
    FEATURES_MAX,
    NEVER,
    SEVERITY,
    TYPE,
    Guess,
    Head,
    Model,
    probabilities,
)
from models.shard.effects import Classify

#: Parts that examples are held out in. Fitting is repeated for each.
FOLDS = 4
#: Of a class with fewer examples nothing can be learned that would hold for the next one.
CLASS_MIN = 3
#: A feature of one example alone says nothing of others.
SEEN_IN_MIN = 2
#: Temperatures that are tried: from surer than the fit says to three times as unsure as a coin.
_TEMPERATURES = tuple(2.0 ** (step / 4) for step in range(-8, 25))

Floats = NDArray[np.float32]
Features = Mapping[int, str]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Sparse rows (CSR): row i has values[starts[i]:starts[i+1]] in columns places[...] of `width`."""

    values: Floats
    places: NDArray[np.int32]
    starts: NDArray[np.int32]
    width: int

    def scores(self, weights: Floats, bias: Floats) -> Floats:
        """float32 (rows, classes)."""
        found = np.tile(bias, (len(self.starts) - 1, 1))
        np.add.at(found, self._owners(), weights[self.places] * self.values[:, None])
        return found

    def are_familiar(self) -> NDArray[np.bool_]:
        """Of each row whether enough of it is known: what Model.guess() asks."""
        known = np.zeros(len(self.starts) - 1, np.float32)
        np.add.at(known, self._owners(), self.values**2)
        return known >= FAMILIAR_MIN

    def _owners(self) -> NDArray[np.intp]:
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


class Fit(Protocol):
    def __call__(
        self, rows: Rows, labels: NDArray[np.int32], weights: Floats, classes: int
    ) -> tuple[Floats, Floats]:
        """Weights (width, classes) and bias (classes,) of a linear classifier. Each of the classes has a row. Repeatable."""


@dataclass(frozen=True, slots=True)
class Trained:
    """`skipped`: by head, why there is none."""

    model: Model
    evaluation: Evaluation
    skipped: Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class _Vocabulary:
    hashes: NDArray[np.uint32]
    rarity: Floats
    unknown: float

    @classmethod
    def of(cls, read: Sequence[Features]) -> _Vocabulary:
        found = Counter(each for features in read for each in features)
        kept = [each for each, count in found.items() if count >= SEEN_IN_MIN]
        # Ties are broken by the hash, so that the order of examples does not show.
        kept = sorted(sorted(kept, key=lambda each: (-found[each], each))[:FEATURES_MAX])
        rarity = [math.log((1 + len(read)) / (1 + found[each])) + 1 for each in kept]
        return cls(np.array(kept, np.uint32), np.array(rarity, np.float32), math.log(1 + len(read)) + 1.0)

    def model(self, heads: Mapping[str, Head]) -> Model:
        return Model(self.hashes, self.rarity, self.unknown, heads)

    def rows(self, read: Sequence[Features]) -> Rows:
        model = self.model({})
        values, places, starts = [], [], [0]
        for features in read:
            at, counts = model.known(features)
            is_known = counts > 0.0
            values.append(counts[is_known])
            places.append(at[is_known])
            starts.append(starts[-1] + len(values[-1]))
        return Rows(
            np.concatenate(values),
            np.concatenate(places).astype(np.int32),
            np.array(starts, np.int32),
            len(self.hashes),
        )


def train(
    examples: Sequence[Example],
    rule: Callable[[Classify], Ruling],
    fit: Fit,
    *,
    confidence: float,
    least: int,
) -> Trained:
    """A model of these examples. Raises Conflict that says what is missing where they are too few, or too much alike."""
    if len(examples) < least:
        raise Conflict(f"{len(examples)} examples: expected at least {least} (learning.min_examples)")
    split_by, groups = _groups(examples)
    folds = _folds(groups)
    read = [features_of(each.question) for each in examples]
    rulings = [rule(each.question) for each in examples]
    vocabulary = _Vocabulary.of(read)
    if not len(vocabulary.hashes):
        raise Conflict("no two examples have a word in common: there is nothing to learn")
    heads: dict[str, Head] = {}
    found: dict[str, Figures] = {}
    skipped: dict[str, str] = {}
    for name in (SEVERITY, TYPE):
        labels, weights = _labels(examples, name)
        counts = Counter(label for label, weight in zip(labels, weights) if weight)
        classes = tuple(each for each in CLASSES[name] if counts[each] >= CLASS_MIN)
        if len(classes) < 2:
            skipped[name] = f"{len(classes)} with {CLASS_MIN} examples or more: expected two or more"
            continue
        taught = [index for index, label in enumerate(labels) if label in classes and weights[index]]
        scores, familiar = _held_out_scores(read, labels, weights, taught, folds, classes, fit)
        if not familiar.any():
            skipped[name] = "no two groups of examples have enough words in common to try it"
            continue
        gold = np.array([classes.index(labels[index]) for index in taught])
        weight = np.array([weights[index] for index in taught])
        temperature = _temperature(scores[familiar], gold[familiar], weight[familiar])
        # Laplace's rule of succession, for one that was never wrong.
        ceiling = 1.0 - 1.0 / (int(familiar.sum()) + 2)
        made = _head(vocabulary, read, labels, weights, taught, classes, fit, temperature)
        heads[name] = replace(made, ceiling=ceiling)
        # As guess() has it: nothing is said of what is not familiar.
        chances = np.minimum(probabilities(scores, temperature), ceiling) * familiar[:, None]
        best = scores.argmax(axis=1)
        judged = [place for place, index in enumerate(taught) if weights[index] >= SEEN]
        found[name] = _figures(name, classes, judged, taught, labels, best, chances, rulings, confidence)
    if not heads:
        raise Conflict(
            "nothing to tell apart: "
            + "; ".join(f"{name}: {why}" for name, why in skipped.items())
            + f". Correct some incidents first: llm-im incidents severity, or set a type ({CLASS_MIN} of each)"
        )
    return Trained(vocabulary.model(heads), Evaluation(found, split_by, len({*groups}), confidence), skipped)


def evaluate(
    model: Model, examples: Sequence[Example], rule: Callable[[Classify], Ruling], confidence: float
) -> Evaluation:
    """A model on a set that it was not trained on, beside the rules."""
    heads: dict[str, Figures] = {}
    asked = [(each, rule(each.question), model.guess(features_of(each.question))) for each in examples]
    for name in model.heads:
        gold, said, sure, ruled, both = [], [], [], [], []
        for example, ruling, guesses in asked:
            label = _label(example, name)
            if label is None:
                continue
            gold.append(label)
            said.append(guesses[name].label)
            sure.append(guesses[name].confidence)
            ruled.append(_said(ruling, name))
            both.append(_said(decided(ruling, guesses, 0, confidence), name))
        heads[name] = figures(gold, said, sure, ruled, both, confidence)
    return Evaluation(heads, "given", 0, confidence)


# -- parts that have no group in common ------------------------------------------------------------------------


def _groups(examples: Sequence[Example]) -> tuple[str, list[str]]:
    """What examples are held out by, and the group of each. Raises Conflict where they are all of one."""
    for name in ("service", "alertname"):
        groups = [
            each.question.service if name == "service" else each.question.labels.get(name, "")
            for each in examples
        ]
        if len({*groups}) >= FOLDS:
            return name, groups
    raise Conflict(
        f"the examples are of fewer than {FOLDS} services and {FOLDS} alert names: a model could not be tried on any that it has not seen"
    )


def _folds(groups: Sequence[str]) -> list[int]:
    """The fold of each example: the largest group first, into the fold that has the fewest."""
    sizes = Counter(groups)
    filled = [0] * FOLDS
    fold_of: dict[str, int] = {}
    for group in sorted(sizes, key=lambda each: (-sizes[each], each)):
        fold_of[group] = filled.index(min(filled))
        filled[fold_of[group]] += sizes[group]
    return [fold_of[each] for each in groups]


def _held_out_scores(
    read: Sequence[Features],
    labels: Sequence[str],
    weights: Sequence[float],
    taught: Sequence[int],
    folds: Sequence[int],
    classes: tuple[str, ...],
    fit: Fit,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Of each taught example the scores by a model of the folds that it is not in, float32 (taught, classes), and whether it was
    familiar to that."""
    scores = np.zeros((len(taught), len(classes)), np.float32)
    familiar = np.zeros(len(taught), np.bool_)
    by_fold: dict[int, list[int]] = defaultdict(list)
    for place, index in enumerate(taught):
        by_fold[folds[index]].append(place)
    for fold, places in by_fold.items():
        others = [index for index in taught if folds[index] != fold]
        vocabulary = _Vocabulary.of([read[index] for index in others])
        if not len(vocabulary.hashes):
            continue
        head = _head(vocabulary, read, labels, weights, others, classes, fit, 1.0)
        rows = vocabulary.rows([read[taught[place]] for place in places])
        scores[places], familiar[places] = rows.scores(head.weights, head.bias), rows.are_familiar()
    return scores, familiar


def _head(
    vocabulary: _Vocabulary,
    read: Sequence[Features],
    labels: Sequence[str],
    weights: Sequence[float],
    taught: Sequence[int],
    classes: tuple[str, ...],
    fit: Fit,
    temperature: float,
) -> Head:
    """Weights of all `classes`, where some may have no example among the taught."""
    present = [
        each for each in range(len(classes)) if any(labels[index] == classes[each] for index in taught)
    ]
    full = np.zeros((len(vocabulary.hashes), len(classes)), np.float32)
    bias = np.full(len(classes), NEVER, np.float32)
    if len(present) < 2:
        bias[present] = 0.0
    else:
        numbers = np.array([present.index(classes.index(labels[index])) for index in taught], np.int32)
        counts = np.array([weights[index] for index in taught], np.float32)
        rows = vocabulary.rows([read[index] for index in taught])
        found, offsets = fit(rows, numbers, counts, len(present))
        full[:, present], bias[present] = found, offsets
    return Head(classes, full, bias, temperature)


# -- how sure, and how good ------------------------------------------------------------------------------------


def _temperature(scores: Floats, gold: NDArray[np.intp], weights: NDArray[np.float64]) -> float:
    """The one by which what is said of held-out examples is most probable (Guo et al. 2017, temperature scaling)."""

    def loss(temperature: float) -> float:
        chances = probabilities(scores, temperature)[np.arange(len(gold)), gold]
        return float(-(weights * np.log(np.maximum(chances, 1e-12))).sum())

    best: float = min(_TEMPERATURES, key=loss)
    return best


def _figures(
    name: str,
    classes: tuple[str, ...],
    judged: Sequence[int],
    taught: Sequence[int],
    labels: Sequence[str],
    bests: NDArray[np.intp],
    chances: NDArray[np.float64],
    rulings: Sequence[Ruling],
    confidence: float,
) -> Figures:
    gold, said, sure, ruled, both = [], [], [], [], []
    for place in judged:
        index, best = taught[place], int(bests[place])
        guess = Guess(classes[best], float(chances[place][best]), ())
        gold.append(labels[index])
        said.append(guess.label)
        sure.append(guess.confidence)
        ruled.append(_said(rulings[index], name))
        both.append(_said(decided(rulings[index], {name: guess}, 0, confidence), name))
    return figures(gold, said, sure, ruled, both, confidence)


def _labels(examples: Sequence[Example], name: str) -> tuple[list[str], list[float]]:
    """Of each example its class and how much it counts; "" and 0 where it has none."""
    labels = [_label(each, name) or "" for each in examples]
    weights = [each.severity_weight if name == SEVERITY else each.type_weight for each in examples]
    return labels, [weight if label else 0.0 for label, weight in zip(labels, weights)]


def _label(example: Example, name: str) -> str | None:
    if name == SEVERITY:
        return None if example.severity is None else example.severity.name
    return None if example.type is None else example.type.value


def _said(ruling: Ruling, name: str) -> str:
    return ruling.severity.name if name == SEVERITY else ruling.type.value
