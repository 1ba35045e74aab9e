"""Action verify_resolution: whether the repair helped. `check: health_check` repeats the last health check of the run; `check: metric`
compares the newest values of a query with `below` or `above`. Tried every `interval` until it holds or `within` has passed.
"""

from __future__ import annotations

import asyncio
import math

from models.errors import Refused
from models.playbook import template
from models.playbook.catalog import CATALOG
from models.playbook.parameters import TIMEOUT, HealthCheck, VerifyResolution, convert
from models.playbook.work import FAILED, Done
from services.playbooks import prometheus
from services.playbooks.actions.health_check import Endpoint, ask, endpoint_of
from services.playbooks.expecting import statuses_of
from services.playbooks.kind import Asked, PlaybookAction, failed, succeeded
from services.playbooks.tools import Tools

#: Between two tries, whatever a playbook says: a service under repair is not to be hammered.
INTERVAL_MIN_S = 0.2


def _check(tools: Tools, asked: Asked, params: VerifyResolution) -> str:
    if params.check == "metric":
        if not params.query or (params.above is None and params.below is None):
            return "check: metric needs a query, and `below` or `above`"
        return "" if tools.prometheus.url else prometheus.NOT_SET
    found = _as_health_check(tools, asked, params)
    if isinstance(found, str):
        return found
    try:
        statuses_of(found[1].expect)
    except ValueError as error:
        return str(error)
    return ""


async def _verify(tools: Tools, asked: Asked, params: VerifyResolution) -> Done:
    until = tools.clock.monotonic() + float(params.within)
    while True:
        done = await (_metric if params.check == "metric" else _health)(tools, asked, params)
        interval = max(float(params.interval), INTERVAL_MIN_S)
        if done.status != FAILED or done.final or tools.clock.monotonic() + interval > until:
            return done
        await asyncio.sleep(interval)


async def _health(tools: Tools, asked: Asked, params: VerifyResolution) -> Done:
    found = _as_health_check(tools, asked, params)
    assert not isinstance(found, str)
    endpoint, check = found
    return await ask(
        tools, asked, endpoint, method=check.method, expect=check.expect, contains=check.contains
    )


def _as_health_check(
    tools: Tools, asked: Asked, params: VerifyResolution
) -> tuple[Endpoint, HealthCheck] | str:
    """What to ask: what stands here, beside what the run's last health check had."""
    check = HealthCheck()
    last = (asked.seen["run"].get("last") or {}).get("health_check")
    if last and not params.endpoint and not params.service:
        try:
            written = {name: value for name, value in last.items() if name != TIMEOUT}
            check = convert(HealthCheck, template.render_value(written, asked.seen))
        except (Refused, ValueError) as error:
            return f"the run's last health_check: {error}"
    endpoint = endpoint_of(tools, asked, params.endpoint or check.endpoint, params.service or check.service)
    if isinstance(endpoint, str):
        return endpoint
    expect = check.expect if params.expect is None else params.expect
    return endpoint, HealthCheck(
        method=check.method, expect=expect, contains=params.contains or check.contains
    )


async def _metric(tools: Tools, asked: Asked, params: VerifyResolution) -> Done:
    samples = await prometheus.query(tools, params.query, tools.clock.now(), asked.timeout_s)
    values = []
    for sample in samples:
        try:
            values.append(float(sample["value"][1]))
        except (KeyError, TypeError, IndexError, ValueError):
            return failed("metric: Prometheus answered without a value", reached=False)
    outputs = {"values": [value for value in values if math.isfinite(value)][:100]}
    if not values:
        # Nothing is measured: that is no proof that all is well.
        return failed("metric: the query finds no series", reached=False, outputs=outputs)
    for value in values:
        if params.below is not None and not value < params.below:
            return failed(f"metric: {value:g} is not below {params.below:g}", reached=False, outputs=outputs)
        if params.above is not None and not value > params.above:
            return failed(f"metric: {value:g} is not above {params.above:g}", reached=False, outputs=outputs)
    return succeeded(f"metric: {len(values)} values as expected", outputs)


ACTION = PlaybookAction(CATALOG["verify_resolution"], _verify, _check)
