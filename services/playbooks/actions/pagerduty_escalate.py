"""Action pagerduty_escalate: pages by PagerDuty at the highest severity. Events API v2 knows no escalation policies: the policy is that
of the service whose receiver is told, so one named after the policy is preferred.
"""

from __future__ import annotations

from models.incidents.incident import Severity
from models.incidents.notification import Note
from models.playbook.catalog import CATALOG
from models.playbook.parameters import PagerdutyEscalate
from models.playbook.work import Done
from services.playbooks.actions.say import done_of, incident_id_of, receiver_for
from services.playbooks.kind import Asked, PlaybookAction
from services.playbooks.tools import Receiver, Tools


def _receiver(tools: Tools, params: PagerdutyEscalate) -> Receiver | str:
    return receiver_for(tools, "pagerduty", params.receiver, params.policy, params.service)


def _check(tools: Tools, asked: Asked, params: PagerdutyEscalate) -> str:
    found = _receiver(tools, params)
    return found if isinstance(found, str) else ""


async def _escalate(tools: Tools, asked: Asked, params: PagerdutyEscalate) -> Done:
    receiver = _receiver(tools, params)
    assert isinstance(receiver, Receiver)
    title = str(asked.incident.get("title") or "")
    by = f" (policy {params.policy})" if params.policy else ""
    note = Note(
        text=params.message or f"Escalated{by}: {title}",
        title=f"Escalated: {title}",
        severity=Severity.P0,
        incident_id=incident_id_of(asked),
    )
    return done_of(await tools.say(receiver, asked.key, note, asked.trace), receiver)


ACTION = PlaybookAction(CATALOG["pagerduty_escalate"], _escalate, _check)
