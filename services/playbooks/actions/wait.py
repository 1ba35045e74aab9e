"""Action wait: the run goes on after `duration`. The shard waits, durably; nobody here does."""

from __future__ import annotations

from models.playbook.catalog import CATALOG
from models.playbook.parameters import Wait
from models.playbook.work import WAIT, Done
from services.playbooks.kind import Asked, PlaybookAction
from services.playbooks.tools import Tools


async def _wait(tools: Tools, asked: Asked, params: Wait) -> Done:
    return Done(WAIT, f"waits {params.duration:g} s", wait_s=float(params.duration), reached=False)


ACTION = PlaybookAction(CATALOG["wait"], _wait)
