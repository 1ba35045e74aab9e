"""Trains a model of a tenant's incidents: reads them, fits and evaluates. Used by actors/trainer.py, in a process of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.classification.rules import Classifier
from models.control.model_versions import Counted, KeepModel, Training
from models.learned.evaluate import Evaluation, Figures
from models.learned.examples import Example
from models.learned.model import encode_model
from models.learned.train import Trained, train
from services.api.asking import Asking
from services.learning.fitting import check_installed, fit
from services.learning.gather import gather

#: Examples that a model must have been tried on before it may promote itself, of each part that it decides.
PROMOTE_MIN = 50
#: By how much it must be better than the rules: less may be chance.
BETTER_BY = 0.01


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the settings say of training."""

    least: int
    most: int
    confidence: float
    promotes: bool

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Bounds:
        return cls(
            given["min_examples"],
            given["max_examples"],
            given["model_confidence"],
            given["promote_when_better"],
        )


class TenantLearner:
    """actors.trainer.Learner. `asking` reads the incidents of a tenant; `rules` are those that a model is compared with."""

    def __init__(
        self, asking: Callable[[str], Asking], rules: Classifier, bounds: Bounds, close: Callable[[], Any]
    ) -> None:
        self._asking = asking
        self._close = close
        self.rules = rules
        self.bounds = bounds

    async def learn(self, training: Training) -> KeepModel:
        check_installed()
        began = time.monotonic()
        examples = await gather(self._asking(training.tenant), self.bounds.most)
        rules, bounds = self.rules, self.bounds
        # In a thread, so that this process goes on answering.
        found = await asyncio.to_thread(_trained, examples, rules, bounds)
        counted = Counted(
            len(examples),
            sum(each.is_corrected for each in examples),
            sum(each.is_seen and not each.is_corrected for each in examples),
        )
        return KeepModel(
            training.id,
            encode_model(found.model),
            time.monotonic() - began,
            counted,
            found.evaluation,
            dict(found.skipped),
        )

    def may_promote(self, found: KeepModel) -> str:
        return why_better(found.evaluation) if self.bounds.promotes else ""

    async def close(self) -> None:
        await self._close()


def _trained(examples: list[Example], rules: Classifier, bounds: Bounds) -> Trained:
    return train(examples, rules.rule, fit, confidence=bounds.confidence, least=bounds.least)


def why_better(evaluation: Evaluation) -> str:
    """In words, why a model is better than the rules: in something by BETTER_BY, in nothing worse, and tried on enough. "" if not."""
    heads = evaluation.heads
    if not heads or any(each.count < PROMOTE_MIN or _gain(each) < 0.0 for each in heads.values()):
        return ""
    gains = {name: _gain(each) for name, each in heads.items() if _gain(each) >= BETTER_BY}
    return ", ".join(
        f"{name} right {heads[name].both_accuracy:.1%} of the time instead of {heads[name].rules_accuracy:.1%}"
        for name in gains
    )


def _gain(found: Figures) -> float:
    """How much better it is than the rules, by whichever of its two figures is worse."""
    return min(found.both_accuracy - found.rules_accuracy, found.both_f1 - found.rules_f1)
