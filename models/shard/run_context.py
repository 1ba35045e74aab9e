"""An incident as expressions and templates of playbooks see it: as the API shows it, with `metadata`."""

from __future__ import annotations

from typing import Any

from models.incidents.incident import Incident, id_text
from models.incidents.notification import rfc3339


def incident_context(incident: Incident) -> dict[str, Any]:
    """Plain data. `metadata` has annotations, and labels where there is no annotation of that name."""
    handling = incident.handling
    acknowledged = None if handling is None else handling.acknowledged
    return {
        "id": id_text(incident.id),
        "created_at": rfc3339(incident.created_at),
        "updated_at": rfc3339(incident.updated_at),
        "state": str(incident.state),
        "severity": incident.severity.name,
        "incident_type": str(incident.type),
        "type": str(incident.type),
        "source": incident.source,
        "title": incident.title,
        "description": incident.description,
        "affected_resources": [incident.service],
        "service": incident.service,
        "tenant": incident.tenant,
        "labels": dict(incident.labels),
        "annotations": dict(incident.annotations),
        "metadata": {**incident.labels, **incident.annotations},
        "group_labels": incident.present_group_labels,
        "group_key": incident.group_key,
        "impact": incident.impact,
        "confidence": incident.confidence,
        "assignees": list(incident.assignees),
        "roles": {} if handling is None else dict(handling.roles),
        "acknowledged_by": "" if acknowledged is None else acknowledged.by,
        "alerts_firing": incident.firing,
        "alerts": incident.series_seen,
        "reopened": incident.reopened,
        "is_open": incident.is_open,
        "opened_at": rfc3339(incident.opened_at or incident.created_at),
        "related_incidents": [id_text(each) for each in incident.related],
    }
