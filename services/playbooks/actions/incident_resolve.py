"""Action incident_resolve: the incident is resolved, with `notes` in its timeline."""

from __future__ import annotations

from models.playbook.catalog import CATALOG
from models.playbook.parameters import IncidentResolve
from models.playbook.work import Done, IncidentEffect
from services.playbooks.kind import Asked, PlaybookAction, succeeded
from services.playbooks.tools import Tools


async def _resolve(tools: Tools, asked: Asked, params: IncidentResolve) -> Done:
    notes = params.notes or f"resolved by a playbook ({params.method})"
    return succeeded(notes, effects=(IncidentEffect("resolve", notes),))


ACTION = PlaybookAction(CATALOG["incident_resolve"], _resolve)
