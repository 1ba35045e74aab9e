"""Action assign: the incident is assigned to these people, beside those that it has."""

from __future__ import annotations

from models.playbook.catalog import CATALOG
from models.playbook.parameters import Assign
from models.playbook.work import Done, IncidentEffect
from services.playbooks.kind import Asked, PlaybookAction, failed, succeeded
from services.playbooks.tools import Tools
from services.playbooks.words import names_in


async def _assign(tools: Tools, asked: Asked, params: Assign) -> Done:
    names = names_in(params.to)
    if not names:
        return failed("to: expected at least one name", final=True, reached=False)
    return succeeded(
        f"assigned to {', '.join(names)}",
        {"assignees": names},
        effects=(IncidentEffect("assign", ",".join(names)),),
    )


ACTION = PlaybookAction(CATALOG["assign"], _assign)
