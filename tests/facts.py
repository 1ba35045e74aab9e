"""Facts of one notification, for who sends or words them."""

from __future__ import annotations

import msgspec

from models.incidents.incident import IncidentState, IncidentType, Severity
from models.incidents.notification import AlertFacts, Facts


def some_facts(**values: object) -> Facts:
    """An incident with one alert that fires; `values` in the place of what it says."""
    labels = {"alertname": "Down", "service": "llm-api"}
    alert = AlertFacts(labels, {"summary": "LLM API is down"}, "http://prom/g", 1.7e9, 0.0, 1.7e9 + 60, True)
    facts = Facts(
        reason="opened",
        incident_id=b"i" * 16,
        tenant="default",
        service="llm-api",
        title="LLM API is down",
        description="",
        severity=Severity.P1,
        type=IncidentType.AVAILABILITY,
        state=IncidentState.TRIAGED,
        created_at=1.7e9,
        resolved_at=0.0,
        group_labels=labels,
        common_labels=labels,
        common_annotations=alert.annotations,
        alerts=[alert],
        total=1,
    )
    return msgspec.structs.replace(facts, **values)
