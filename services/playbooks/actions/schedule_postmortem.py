"""Action schedule_postmortem: a post-incident task, due at `due_date` ("+24h" from now, or a time)."""

from __future__ import annotations

from models.playbook.catalog import CATALOG
from models.playbook.parameters import SchedulePostmortem
from models.playbook.work import Done, IncidentEffect
from services.playbooks.kind import Asked, PlaybookAction, failed, succeeded
from services.playbooks.tools import Tools
from services.playbooks.words import moment_of
from services.times import timestamp


async def _schedule(tools: Tools, asked: Asked, params: SchedulePostmortem) -> Done:
    try:
        due_at = moment_of(params.due_date, tools.clock.now())
        due = timestamp(due_at)
    except (ValueError, OverflowError) as error:
        return failed(f"due_date: {error}", final=True, reached=False)
    what = "Write the post-incident review"
    if params.template:
        what = f"{what} ({params.template})"
    return succeeded(
        f"post-incident task due {due}", {"due_at": due}, effects=(IncidentEffect("task", what, due_at),)
    )


ACTION = PlaybookAction(CATALOG["schedule_postmortem"], _schedule)
