"""Action comment: a comment in the incident's timeline."""

from __future__ import annotations

from models.playbook.catalog import CATALOG
from models.playbook.parameters import Comment
from models.playbook.work import Done, IncidentEffect
from services.playbooks.kind import Asked, PlaybookAction, failed, succeeded
from services.playbooks.tools import Tools


async def _comment(tools: Tools, asked: Asked, params: Comment) -> Done:
    if not params.text.strip():
        return failed("text: expected some", final=True, reached=False)
    return succeeded("commented", effects=(IncidentEffect("comment", params.text),))


ACTION = PlaybookAction(CATALOG["comment"], _comment)
