"""What is learned from: incidents with the severity and type that stood in the end, and how much each counts.

A person's word counts most. What somebody worked on and left as it was counts less. What nobody looked at counts little, and
nothing where a model had spoken: a model must not learn from itself.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from models.incidents.incident import Incident, IncidentState, IncidentType, Severity
from models.learned.judging import given_by_model
from models.learned.model import SEVERITY, TYPE
from models.shard.effects import Classify

T = TypeVar("T")

#: How much an example counts, by who stands behind its label.
CORRECTED, SEEN, UNSEEN = 3.0, 1.0, 0.1


class Example(msgspec.Struct, frozen=True):
    """An incident as a classifier would be asked of it. `severity` and `type` are what stood in the end, None where nothing can be
    learned; the weights are CORRECTED, SEEN or UNSEEN."""

    question: Classify
    at: float
    severity: Severity | None
    severity_weight: float
    type: IncidentType | None
    type_weight: float

    @property
    def is_corrected(self) -> bool:
        return CORRECTED in (self.severity_weight, self.type_weight)

    @property
    def is_seen(self) -> bool:
        return max(self.severity_weight, self.type_weight) >= SEEN


def example_of(incident: Incident) -> Example | None:
    """What an incident teaches; None for one that teaches nothing (yet)."""
    handling = incident.handling
    if incident.is_by_hand or not incident.is_classified or incident.merged_into:
        return None
    said_severity = None if handling is None else handling.override.severity
    said_type = None if handling is None else handling.override.type
    is_over = incident.state in (IncidentState.RESOLVED, IncidentState.CLOSED)
    if said_severity is None and said_type is None and not is_over:
        return None  # somebody may still correct it
    is_seen = incident.is_attended or (handling is not None and handling.answered_at > 0.0)
    # Not what counts now, which may be that of a child or of what a playbook did.
    judged = incident.counts if handling is None else handling.verdict
    severity, severity_weight = _taught(
        said_severity, judged.severity, is_seen, given_by_model(incident.classified_by, SEVERITY)
    )
    type_, type_weight = _taught(
        said_type, judged.type, is_seen, given_by_model(incident.classified_by, TYPE)
    )
    if type_ is IncidentType.UNKNOWN:
        type_, type_weight = None, 0.0
    if severity is None and type_ is None:
        return None
    question = Classify(
        incident.id,
        incident.tenant,
        incident.service,
        incident.source,
        incident.title,
        incident.description,
        incident.labels,
        incident.annotations,
        [*incident.signals],
        len(incident.signals),
    )
    return Example(question, incident.updated_at, severity, severity_weight, type_, type_weight)


def _taught(said: T | None, judged: T, is_seen: bool, by_model: bool) -> tuple[T | None, float]:
    if said is not None:
        return said, CORRECTED
    if is_seen:
        return judged, SEEN
    return (None, 0.0) if by_model else (judged, UNSEEN)
