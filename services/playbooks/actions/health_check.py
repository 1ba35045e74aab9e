"""Action health_check: asks an endpoint, or the `health_url` that the settings name for a service, whether all is well.

An endpoint that answers otherwise than expected, or not at all, is not well: that failure is what a playbook waits for. One that
must not be asked, or that nobody named, is no answer at all, and is final.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.playbook.catalog import CATALOG
from models.playbook.parameters import HealthCheck
from models.playbook.work import Done
from services.actions.outbound import CallFailed, place_of
from services.playbooks.expecting import statuses_of, why_unexpected
from services.playbooks.kind import Asked, PlaybookAction, failed, succeeded
from services.playbooks.tools import Tools

#: Read of an answer to look for `contains`.
ANSWER_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`trusted`: the settings name this URL."""

    url: str
    trusted: bool


def endpoint_of(tools: Tools, asked: Asked, endpoint: str, service: str) -> Endpoint | str:
    """What to ask, or why there is nothing: the endpoint that is given, else what the settings name for the service."""
    found = tools.services.find(asked.service_or(service))
    known = found.health_url if found is not None else ""
    if endpoint:
        if not endpoint.startswith(("http://", "https://")):
            return "endpoint: expected an http:// or https:// URL"
        return Endpoint(endpoint, endpoint == known)
    if known:
        return Endpoint(known, True)
    return "endpoint: expected a URL, or a service with a health_url in [playbooks.services]"


async def ask(
    tools: Tools,
    asked: Asked,
    endpoint: Endpoint,
    *,
    method: Any = "GET",
    expect: Any = 200,
    contains: str = "",
) -> Done:
    """Once. Raises Refused when the endpoint must not be asked, ValueError for an `expect` that can't be read."""
    place = place_of(endpoint.url)
    try:
        answer = await tools.outbound.call(
            method,
            endpoint.url,
            timeout_s=asked.timeout_s,
            max_bytes=ANSWER_MAX,
            trusted=endpoint.trusted,
            probing=True,
        )
    except CallFailed as error:
        return failed(f"not well: {error}", reached=False, outputs={"healthy": False, "status": 0})
    wrong = why_unexpected(answer, expect, contains)
    outputs = {"healthy": not wrong, "status": answer.status}
    if wrong:
        return failed(f"not well: {place} {wrong}", reached=False, outputs=outputs)
    return succeeded(f"{place} answered {answer.status}", outputs)


def _check(tools: Tools, asked: Asked, params: HealthCheck) -> str:
    try:
        statuses_of(params.expect)
    except ValueError as error:
        return str(error)
    found = endpoint_of(tools, asked, params.endpoint, params.service)
    return found if isinstance(found, str) else ""


async def _health(tools: Tools, asked: Asked, params: HealthCheck) -> Done:
    endpoint = endpoint_of(tools, asked, params.endpoint, params.service)
    assert isinstance(endpoint, Endpoint)
    return await ask(
        tools, asked, endpoint, method=params.method, expect=params.expect, contains=params.contains
    )


ACTION = PlaybookAction(CATALOG["health_check"], _health, _check)
