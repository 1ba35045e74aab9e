"""Rules classification: severity, type and impact of an incident from its labels, source and words.

Called by actors/classifier.py. The settings' rules are asked first, then the built-in ones; of severity, type
and impact each is taken from the first rule that gives it, and the verdict's `by` names those rules.

The built-in rules, in order:
    label   a severity word (Classify.signals, else the labels of SEVERITY_LABELS) gives a range, words place it
            within the range: Prometheus' "critical" is P0 or P1. Of several the most severe counts.
            A label of TYPE_LABELS may name the type, the label `impact` the impact.
    words   weighted terms of title, alert name, description and source (vocabulary.py), title double. The
            service's own name is no evidence.
    default P2, Unknown.
Impact is a word for how much of the service its users have lost: "critical" (all of it or all of them), "major"
(a part is gone), "minor" (it works, worse than it should), "none" (nobody notices; planned or over).
Unless a rule or label says it, it follows the severity (P0 .. P2, then none).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from models.alerts.patterns import Budget, Pattern, rule_pattern
from models.classification import builtin
from models.classification.builtin import BY_SEVERITY, CONFIDENCE_DEFAULT
from models.classification.reading import TERMS_NAMED, read, text_of
from models.classification.severity import DEFAULT_SEVERITY, impact_of
from models.errors import TooLarge
from models.incidents.incident import IncidentType, Severity
from models.shard.effects import Classify
from models.shard.messages import Classification

#: How sure a verdict is of a severity that a rule of the settings gives; those of the built-in rules are beside them.
CONFIDENCE_RULE = 0.95


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A settings rule, ready to ask. It applies when all its conditions hold."""

    name: str
    labels: tuple[tuple[str, Pattern], ...]
    words: Pattern | None
    source: Pattern | None
    severity: Severity | None
    type: IncidentType | None
    impact: str | None
    budget: Budget

    def applies(self, effect: Classify, text: str) -> bool:
        """`text` is what `words` searches. Raises TooLarge when its patterns need more than WORK_MAX steps for this."""
        self.budget.renew()
        for name, pattern in self.labels:
            # An absent label reads as empty, as in Prometheus matchers.
            if not pattern.matches(effect.labels.get(name, "")):
                return False
        if self.source is not None and not self.source.matches(effect.source):
            return False
        return self.words is None or self.words.matches(text)


def compile_rule(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    words: str | None = None,
    source: str | None = None,
    severity: str | None = None,
    type: str | None = None,
    impact: str | None = None,
) -> CompiledRule:
    """A CompiledRule from the plain values of models.settings.classification.Rule (`compile_rule(**rule.model_dump())`).

    `labels` and `source` must match all of the value, case counts; `words` is searched in alert name, title and
    description, case does not. Raises ValueError naming the rule when a value is none or an expression is wrong.
    """
    budget = Budget(f"classification rule {name!r}")
    try:
        return CompiledRule(
            name=name,
            labels=tuple((label, rule_pattern(text, budget)) for label, text in (labels or {}).items()),
            words=None if words is None else rule_pattern(words, budget, search=True),
            source=None if source is None else rule_pattern(source, budget),
            severity=None if severity is None else Severity[severity],
            type=None if type is None else IncidentType(type),
            impact=impact,
            budget=budget,
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"classification rule {name!r}: {error}") from error


class Ruling(NamedTuple):
    """A verdict part by part, each with the rule that gave it. `is_severity_set`, `is_type_set`: by a rule of the settings.
    `note`: what else is to be said of how it came about."""

    severity: Severity
    severity_by: str
    confidence: float
    type: IncidentType
    type_by: str
    impact: str
    impact_by: str
    is_severity_set: bool
    is_type_set: bool
    note: str


class Classifier:
    """Settings rules, then the built-in ones. Same question, same answer; never raises for what senders say.

    A settings rule's regular expression takes time linear in the text (models/alerts/patterns.py). One that was made to explode
    is given up for that incident: the rule does not apply, and the verdict's `by` says so.
    """

    def __init__(self, rules: Sequence[CompiledRule] = (), *, builtin: bool = True) -> None:
        self._rules = tuple(rules)
        self._builtin = builtin

    def classify(self, effect: Classify) -> Classification:
        """One incident's verdict. `by` reads "severity: <rule>; type: <rule>; impact: <rule>"."""
        return verdict_of(self.rule(effect), effect)

    def rule(self, effect: Classify) -> Ruling:
        """The same, part by part."""
        severity: Severity | None = None
        type_: IncidentType | None = None
        impact: str | None = None
        severity_by = type_by = impact_by = "default"
        given_up: list[str] = []
        confidence = CONFIDENCE_DEFAULT

        if self._rules:
            text = text_of(effect)
            for rule in self._rules:
                try:
                    if not rule.applies(effect, text):
                        continue
                except TooLarge:
                    given_up.append(rule.name)
                    continue
                if severity is None and rule.severity is not None:
                    severity, severity_by, confidence = rule.severity, rule.name, CONFIDENCE_RULE
                if type_ is None and rule.type is not None:
                    type_, type_by = rule.type, rule.name
                if impact is None and rule.impact is not None:
                    impact, impact_by = rule.impact, rule.name
                if severity is not None and type_ is not None and impact is not None:
                    break
        is_severity_set, is_type_set = severity is not None, type_ is not None

        if self._builtin and (severity is None or type_ is None or impact is None):
            reading = read(effect)
            if severity is None:
                severity, severity_by, confidence = builtin.severity_by(effect, reading)
            if type_ is None:
                type_, type_by = builtin.type_by(effect, reading)
            if impact is None:
                impact, impact_by = builtin.impact_by(effect, reading, severity)

        if severity is None:
            severity = DEFAULT_SEVERITY
        if impact is None:
            impact, impact_by = impact_of(severity), BY_SEVERITY
        return Ruling(
            severity,
            severity_by,
            confidence,
            type_ if type_ is not None else IncidentType.UNKNOWN,
            type_by,
            impact,
            impact_by,
            is_severity_set,
            is_type_set,
            _named(given_up),
        )


def verdict_of(ruling: Ruling, effect: Classify) -> Classification:
    """A ruling as the answer to the question."""
    by = f"severity: {ruling.severity_by}; type: {ruling.type_by}; impact: {ruling.impact_by}{ruling.note}"
    return Classification(
        incident_id=effect.incident_id,
        severity=ruling.severity,
        type=ruling.type,
        impact=ruling.impact,
        by=by,
        confidence=ruling.confidence,
        asked=effect.asked,
    )


def _named(given_up: list[str]) -> str:
    return f"; gave up: {', '.join(given_up[:TERMS_NAMED])}" if given_up else ""


def failed_verdict(incident_id: bytes, asked: int, reason: str) -> Classification:
    """The verdict of an incident that could not be read or classified: the defaults, sure of nothing."""
    return Classification(
        incident_id=incident_id,
        severity=DEFAULT_SEVERITY,
        type=IncidentType.UNKNOWN,
        impact=impact_of(DEFAULT_SEVERITY),
        by=f"error: {reason}",
        confidence=0.0,
        asked=asked,
    )
