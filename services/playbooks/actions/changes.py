"""Actions that change a service: service_restart, rollback, scale, config_change, traffic_shift, isolate. How each service is changed
stands in the settings ([playbooks.services]); services/playbooks/means/ has the ways.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from models.errors import Refused, Unavailable
from models.playbook.catalog import CATALOG
from models.playbook.parameters import Params, Scale, ServiceRestart, TrafficShift
from models.playbook.work import SUCCEEDED, Done
from services.playbooks.actions.health_check import Endpoint, ask, endpoint_of
from services.playbooks.kind import Asked, PlaybookAction, failed
from services.playbooks.means.means import CONFIGURE, ISOLATE, RESTART, ROLLBACK, SCALE, SHIFT, Change, Means
from services.playbooks.tools import Tools

#: Between two looks at a service that is being changed.
POLL_S = 1.0
#: Of an action's time, what is left to say that the service did not become well in time.
_SHARE = 0.95
#: What a backend of a traffic split may weigh (Gateway API).
WEIGHT_MAX = 1_000_000

_WHAT = {
    "service_restart": RESTART,
    "rollback": ROLLBACK,
    "scale": SCALE,
    "config_change": CONFIGURE,
    "traffic_shift": SHIFT,
    "isolate": ISOLATE,
}


def _change(tools: Tools, asked: Asked, params: Any) -> tuple[Means, Change] | str:
    service = asked.service_or(params.service)
    found = tools.means_of(service)
    if isinstance(found, str):
        return found
    means, given = found
    values = {name: value for name, value in msgspec.to_builtins(params).items() if name != "service"}
    change = Change(
        _WHAT[asked.type], asked.key, service, given, values, str(asked.incident.get("id") or ""), asked.timeout_s, asked.again
    )  # fmt: skip
    why = means.why_not(change)
    return why or (means, change)


def _check(tools: Tools, asked: Asked, params: Params) -> str:
    match params:
        case Scale(replicas=None, by=None):
            return "expected `replicas` or `by`"
        case Scale(replicas=int(), by=int()):
            return "expected `replicas` or `by`, not both"
        case Scale(replicas=int(replicas)) if replicas < 0:
            return f"replicas: expected 0 or more, not {replicas}"
        case TrafficShift(weights=weights) if not weights or any(
            not 0 <= each <= WEIGHT_MAX for each in weights.values()
        ):
            return f"weights: expected at least one backend, each with 0 to {WEIGHT_MAX}"
        case TrafficShift(weights=weights) if not any(weights.values()):
            return "weights: expected one above 0: nobody would get the traffic"
        case ServiceRestart(max_attempts=most) if 0 < most <= asked.attempt:
            return f"not tried again: max_attempts is {most}"
    found = _change(tools, asked, params)
    if isinstance(found, str):
        return found
    means, change = found
    if getattr(params, "wait_for_healthy", False) and not means.knows_when_settled(change):
        endpoint = _health(tools, asked, change)
        if isinstance(endpoint, str):
            return (
                "wait_for_healthy needs a health_url or a status_url of the service in [playbooks.services]"
            )
    return ""


def _target(tools: Tools, asked: Asked, params: Params) -> str:
    found = _change(tools, asked, params)
    return "" if isinstance(found, str) else found[0].target(found[1])


async def _make(tools: Tools, asked: Asked, params: Params) -> Done:
    until = tools.clock.monotonic() + asked.timeout_s * _SHARE
    found = _change(tools, asked, params)
    assert not isinstance(found, str)
    means, change = found
    done = await means.make(change)
    if done.status != SUCCEEDED or not getattr(params, "wait_for_healthy", False):
        return done
    why = await _not_well(tools, asked, means, change, until)
    if why:
        return failed(f"{done.detail}, and it is not well: {why}", outputs=done.outputs)
    return msgspec.structs.replace(done, detail=f"{done.detail}, and it is well")


async def _not_well(tools: Tools, asked: Asked, means: Means, change: Change, until: float) -> str:
    """Waits until the service is well: "" then, else why it is not when the time is over."""
    endpoint = _health(tools, asked, change)
    while True:
        try:
            why = await means.settled(change) if means.knows_when_settled(change) else ""
            if not why and isinstance(endpoint, Endpoint):
                done = await ask(tools, asked, endpoint)
                why = "" if done.status == SUCCEEDED else done.detail
        except Unavailable as error:
            why = str(error)
        except Refused as error:
            return str(error)
        if not why or tools.clock.monotonic() + POLL_S > until:
            return why
        await asyncio.sleep(POLL_S)


def _health(tools: Tools, asked: Asked, change: Change) -> Endpoint | str:
    """Where the service says whether it is well: by the settings, else by the incident's annotation."""
    annotated = str((asked.incident.get("metadata") or {}).get("health_url") or "")
    found = endpoint_of(tools, asked, "", change.service)
    return (
        endpoint_of(tools, asked, annotated, change.service)
        if isinstance(found, str) and annotated
        else found
    )


def changes(name: str) -> PlaybookAction:
    return PlaybookAction(CATALOG[name], _make, _check, asks=True, calls=_target)
