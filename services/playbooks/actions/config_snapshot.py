"""Action config_snapshot: a service's configuration as it is now, kept with the incident."""

from __future__ import annotations

import msgspec

from models.playbook.catalog import CATALOG
from models.playbook.parameters import ConfigSnapshot
from models.playbook.work import Capture, Done
from services.playbooks.kind import Asked, PlaybookAction, succeeded
from services.playbooks.tools import Tools


def _check(tools: Tools, asked: Asked, params: ConfigSnapshot) -> str:
    found = tools.means_of(asked.service_or(params.service))
    return found if isinstance(found, str) else ""


async def _snapshot(tools: Tools, asked: Asked, params: ConfigSnapshot) -> Done:
    service = asked.service_or(params.service)
    found = tools.means_of(service)
    assert not isinstance(found, str)
    means, given = found
    snapshot = await means.snapshot(service, given, asked.timeout_s)
    text = msgspec.json.format(msgspec.json.encode(snapshot)).decode()
    return succeeded(
        f"configuration of {service}",
        {"config": snapshot},
        captures=(Capture(f"config of {service}", "application/json", text),),
    )


ACTION = PlaybookAction(CATALOG["config_snapshot"], _snapshot, _check)
