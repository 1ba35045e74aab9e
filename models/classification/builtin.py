"""The built-in rules: what labels and words make of an incident when no rule of the settings says more. Their order is in
rules.py, which asks them."""

from __future__ import annotations

from models.classification.reading import Reading
from models.classification.severity import DEFAULT_SEVERITY, SIGNAL_CHARS, Range, impact_of, range_of
from models.classification.vocabulary import TYPE_LABELS, TYPE_NAMES
from models.incidents.incident import IncidentType, Severity
from models.shard.effects import Classify

#: How sure a verdict's severity is, by what gave it. Rough figures, not fitted: a label is the author's own word
#: (the same alert name has the same severity in 3 of 4 repositories), words are right a little over half the time.
CONFIDENCE_LABEL = 0.9
CONFIDENCE_WORDS = 0.6
CONFIDENCE_DEFAULT = 0.3

#: What gave an impact that goes with the severity.
BY_SEVERITY = "severity"

#: Labels that carry a severity word when the incident has no signals, as senders name them.
SEVERITY_LABELS = ("severity", "priority", "level", "sev", "urgency", "criticality", "alert_severity")


def severity_by(effect: Classify, reading: Reading) -> tuple[Severity, str, float]:
    """The severity, by what it was given, and how sure that is."""
    words = list(effect.signals)
    # The labels are the first series' own, so they speak only when no signal does.
    if not any(map(range_of, words)):
        words = [effect.labels[name] for name in SEVERITY_LABELS if name in effect.labels]
    best: tuple[Severity, Severity, str] | None = None
    for word in words:
        meaning = range_of(word)
        if meaning is not None:
            # Ties are broken by the word itself, so that the order of signals does not show in `by`.
            candidate = (_place(meaning, reading.severity), meaning.usual, word)
            best = candidate if best is None else min(best, candidate)
    if best is not None:
        return best[0], f"label ({best[2]})", CONFIDENCE_LABEL
    if reading.severity is not None:
        return reading.severity, f"words ({', '.join(reading.severity_terms)})", CONFIDENCE_WORDS
    return DEFAULT_SEVERITY, "default", CONFIDENCE_DEFAULT


def _place(meaning: Range, by_words: Severity | None) -> Severity:
    """Where in a range the words put it. Words of the middle (P2) neither raise nor lower."""
    if by_words is None or by_words == DEFAULT_SEVERITY:
        return meaning.usual
    return max(meaning.worst, min(meaning.best, by_words))


def type_by(effect: Classify, reading: Reading) -> tuple[IncidentType, str]:
    """The type, and by what it was given."""
    for name in TYPE_LABELS:
        value = effect.labels.get(name)
        if value:
            named = TYPE_NAMES.get(value.casefold()) if len(value) <= SIGNAL_CHARS else None
            if named is not None:
                return named, f"label ({name})"
    if reading.type is not None:
        return reading.type, f"words ({', '.join(reading.type_terms)})"
    return IncidentType.UNKNOWN, "default"


def impact_by(effect: Classify, reading: Reading, severity: Severity) -> tuple[str, str]:
    """The impact, and by what it was given."""
    value = effect.labels.get("impact")
    if value:
        meaning = range_of(value)
        if meaning is not None:
            return impact_of(meaning.usual), "label (impact)"
    if reading.impact is not None:
        return reading.impact, f"words ({reading.impact_term})"
    return impact_of(severity), BY_SEVERITY
