"""A learned classifier beside the rules: asks the model where no rule of the settings has spoken, and takes what it is sure of.

    a rule of the settings  >  the active model, where it is sure  >  the built-in rules

What a person said of an incident is above all of them, and kept by its shard. Evaluation decides by the same function as the
classifier does: what it measures is what would happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from models.classification.builtin import BY_SEVERITY
from models.classification.rules import Classifier, Ruling, verdict_of
from models.classification.severity import impact_of
from models.incidents.incident import IncidentType, Severity
from models.learned.bounds import CONFIDENCE
from models.learned.features import features_of
from models.learned.model import SEVERITY, TYPE, Guess, Model
from models.shard.effects import Classify
from models.shard.messages import Classification


@dataclass(frozen=True, slots=True)
class Versioned:
    """A model and what it is called."""

    version: int
    model: Model


def decided(ruling: Ruling, guesses: Mapping[str, Guess], version: int, confidence: float) -> Ruling:
    """The rules' word, or the model's where it is sure and no rule of the settings has spoken."""
    severity, type_ = guesses.get(SEVERITY), guesses.get(TYPE)
    if severity is not None and severity.confidence >= confidence and not ruling.is_severity_set:
        rated = Severity[severity.label]
        ruling = ruling._replace(
            severity=rated, severity_by=_by(severity, version), confidence=round(severity.confidence, 3)
        )
        if ruling.impact_by == BY_SEVERITY:
            ruling = ruling._replace(impact=impact_of(rated))
    if type_ is not None and type_.confidence >= confidence and not ruling.is_type_set:
        ruling = ruling._replace(type=IncidentType(type_.label), type_by=_by(type_, version))
    return ruling


def _by(guess: Guess, version: int) -> str:
    words = ", ".join(guess.words)
    return (
        f"model {version}, {guess.confidence:.0%} sure ({words})"
        if words
        else f"model {version}, {guess.confidence:.0%} sure"
    )


def given_by_model(by: str, part: str) -> bool:
    """Whether a verdict's `by` says that a model gave its `part` (SEVERITY or TYPE)."""
    return f"{part}: model " in by


class LearnedClassifier:
    """Answers by the active model and the rules; asks the shadow too, which only `compared` hears of.

    A model that fails is not asked again: `failed` is told which and why, and the rules go on.
    """

    def __init__(
        self,
        rules: Classifier,
        active: Versioned | None = None,
        shadow: Versioned | None = None,
        *,
        confidence: float = CONFIDENCE,
        compared: Callable[[int, Ruling, Ruling], None] = lambda _version, _given, _shadow: None,
        failed: Callable[[int, str], None] = lambda _version, _why: None,
    ) -> None:
        self._rules = rules
        self._active = active
        self._shadow = shadow
        self._confidence = confidence
        self._compared = compared
        self._failed = failed

    def classify(self, effect: Classify) -> Classification:
        """One verdict; `by` says which part the model gave, how sure it was, and by which words."""
        ruling = self._rules.rule(effect)
        if self._active is None and self._shadow is None:
            return verdict_of(ruling, effect)
        features = features_of(effect)
        given = ruling
        if self._active is not None:
            given = self._asked(self._active, features, ruling)
        if self._shadow is not None:
            version = self._shadow.version
            would = self._asked(self._shadow, features, ruling)
            if self._shadow is not None:
                self._compared(version, given, would)
        return verdict_of(given, effect)

    def _asked(self, asked: Versioned, features: Mapping[int, str], ruling: Ruling) -> Ruling:
        try:
            return decided(ruling, asked.model.guess(features), asked.version, self._confidence)
        # Whatever a model does wrong, the rules have spoken
        except Exception as error:  # noqa: BLE001
            if self._active is asked:
                self._active = None
            if self._shadow is asked:
                self._shadow = None
            self._failed(asked.version, type(error).__name__)
            return ruling
