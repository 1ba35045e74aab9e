"""Incidents as a verb needs them. Used by the tests of the verbs and of what the documents show of them."""

from __future__ import annotations

import asyncio
import json
from itertools import count

from tests.api.gateway_in_process import FIRST_SHARD_SERVICE, SECOND_SHARD_SERVICE, System, alert

_numbers = count()
CLASSIFIED_WITHIN_S = 10.0
#: What must have been done before a verb has something to do.
_BEFORE = {"unlink": "link", "unmerge": "merge", "close": "resolve", "reopen": "resolve"}


async def opened(ours: System, service: str = FIRST_SHARD_SERVICE, alerts: int = 1) -> str:
    """A new incident of `service` with so many alerts: its id."""
    name = f"Opened{next(_numbers)}"
    answer = await ours.post("/v1/alerts", [alert(name, service, pod=str(pod)) for pod in range(alerts)])
    identity = str(answer.items[0]["incident_id"])
    # Its classification is a change too, and would come between two looks of a test.
    async with asyncio.timeout(CLASSIFIED_WITHIN_S):
        while json.loads((await ours.get(f"/v1/incidents/{identity}")).body)["state"] == "Detected":
            await asyncio.sleep(0.005)
    return identity


async def ready_for(ours: System, verb: str) -> tuple[str, str, str]:
    """An incident that `verb` can be done to, another one in another shard, and the fingerprint of an alert of the first."""
    one, other = await opened(ours, alerts=2), await opened(ours, SECOND_SHARD_SERVICE)
    name = str((await ours.get(f"/v1/incidents/{one}/alerts?limit=1")).items[0]["fingerprint"])
    before = _BEFORE.get(verb)
    if before == "resolve":
        # Nothing of it may fire when it is closed.
        made = await ours.post("/v1/incidents", {"service": FIRST_SHARD_SERVICE, "title": "by hand"})
        one = made.headers["location"].rpartition("/")[2]
    if before is not None:
        body = {} if before == "resolve" else {"incident": other}
        answer = await ours.post(f"/v1/incidents/{one}/{before}", body)
        assert answer.status == 200, answer
    return one, other, name
