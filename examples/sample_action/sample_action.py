"""Action feature_flag: turns a feature flag on or off by POSTing to a service of one's own."""

from __future__ import annotations

import json

from models.playbook.catalog import ActionSpec
from models.playbook.parameters import Params
from models.playbook.work import Done
from services.playbooks.kind import Asked, PlaybookAction, failed, succeeded
from services.playbooks.tools import Tools


class FeatureFlag(Params, frozen=True):
    url: str
    flag: str
    on: bool = True


async def _set(tools: Tools, asked: Asked, params: FeatureFlag) -> Done:
    answer = await tools.outbound.call(
        "POST",
        params.url,
        headers={"Content-Type": "application/json", "Idempotency-Key": asked.key},
        body=json.dumps({"flag": params.flag, "on": params.on}).encode(),
        timeout_s=asked.timeout_s,
    )
    if answer.status == 200:
        return succeeded(f"{params.flag} is {'on' if params.on else 'off'}")
    return failed(f"the flag service answered {answer.status}", final=answer.status in (400, 404, 422))


ACTION = PlaybookAction(
    ActionSpec(FeatureFlag, "Turns a feature flag on or off.", changes=True, plan_name="FeatureFlag"), _set
)
