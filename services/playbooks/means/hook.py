"""Changes a service by POSTing what is to be done to a URL of the operator's: a deployer, a job runner, a small service of one's own.

    POST url                                 Idempotency-Key: KEY
    {"action": "restart", "service": "llm-api", "incident_id": "...", "key": "...", "parameters": {...}, "timeout_seconds": 60}

Any 2xx: it is done, or will be. `status_url?key=KEY` (if there is one) answers {"status": "succeeded" | "running" | "failed" |
"unknown"}, with a `detail`; it is asked before a change that may have been made is asked for again, and while `wait_for_healthy`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from models.errors import Conflict, Unavailable
from models.playbook.work import Done
from services.actions.outbound import Answer, place_of
from services.playbooks.calls import Calls, host_target
from services.playbooks.given import ServiceGiven
from services.playbooks.kind import failed, succeeded
from services.playbooks.means.means import Change

ANSWER_MAX = 64 * 1024
#: Statuses that concern this one request.
_FINAL = frozenset({400, 404, 405, 409, 410, 413, 415, 422})
#: Longest wait for an answer about the state; the change itself may take all the time of its action.
STATUS_TIMEOUT_S = 10.0


class HookMeans:
    """Port of services/playbooks/means/means.py."""

    def __init__(self, outbound: Calls) -> None:
        self._outbound = outbound

    def why_not(self, change: Change) -> str:
        return ""

    def target(self, change: Change) -> str:
        return host_target(change.given.url or "")

    async def make(self, change: Change) -> Done:
        if change.again and change.given.status_url and (known := await self._asked(change)) is not None:
            return known
        assert change.given.url is not None
        url = change.given.url.replace("{action}", quote(change.what, safe=""))
        body = msgspec.json.encode(
            {
                "action": change.what,
                "service": change.service,
                "incident_id": change.incident_id,
                "key": change.identity,
                "parameters": change.params,
                "timeout_seconds": change.timeout_s,
            }
        )
        headers = {"Content-Type": "application/json", "Idempotency-Key": change.identity}
        answer = await self._outbound.call(
            "POST",
            url,
            headers={**headers, **_authorized(change.given)},
            body=body,
            timeout_s=change.timeout_s,
            max_bytes=ANSWER_MAX,
            trusted=True,
        )
        place = place_of(url)
        said = _object(answer)
        if 200 <= answer.status < 300:
            if said.get("status") == "failed" or said.get("ok") is False or said.get("error"):
                detail = str(said.get("detail") or said.get("error") or "")[:200]
                return failed(f"{place} answered {answer.status}, and that it failed: {detail}".rstrip(": "))
            outputs = said.get("outputs")
            return succeeded(
                f"{place} answered {answer.status}", outputs if isinstance(outputs, dict) else {}
            )
        if 300 <= answer.status < 400:
            return failed(
                f"{place} answered {answer.status}: a redirect, which is not followed",
                final=True,
                reached=False,
            )
        detail = str(said.get("detail") or said.get("error") or "")[:200]
        return failed(
            f"{place} answered {answer.status}: {detail}".rstrip(": "),
            final=answer.status in _FINAL,
            reached=answer.status >= 500 or answer.status == 408,
        )

    async def settled(self, change: Change) -> str:
        status, detail = await self._status(change)
        if status == "failed":
            raise Conflict(f"it failed: {detail}".rstrip(": "))
        return "" if status == "succeeded" else f"it is {status}"

    def knows_when_settled(self, change: Change) -> bool:
        return bool(change.given.status_url)

    async def snapshot(self, service: str, given: ServiceGiven, timeout_s: float) -> dict[str, Any]:
        raise Conflict(f"service {service!r} is changed by a hook, which tells no configuration")

    async def close(self) -> None:
        """The client is its maker's."""

    async def _asked(self, change: Change) -> Done | None:
        """What became of it, None when it is not known there: then it was not made."""
        status, detail = await self._status(change)
        match status:
            case "succeeded" | "running":
                return succeeded(f"it was made before: {status}")
            case "failed":
                return failed(f"it was tried before, and failed: {detail}".rstrip(": "))
            case _:
                return None

    async def _status(self, change: Change) -> tuple[str, str]:
        assert change.given.status_url is not None
        url = change.given.status_url.replace("{action}", quote(change.what, safe=""))
        answer = await self._outbound.call(
            "GET",
            f"{url}{'&' if '?' in url else '?'}key={quote(change.identity, safe='')}",
            headers=_authorized(change.given),
            timeout_s=min(STATUS_TIMEOUT_S, change.timeout_s),
            max_bytes=ANSWER_MAX,
            trusted=True,
        )
        if answer.status == 404:
            return "unknown", ""
        said = _object(answer)
        status = said.get("status")
        if answer.status != 200 or status not in ("succeeded", "running", "failed", "unknown"):
            raise Unavailable(f"{place_of(url)} answered {answer.status}, and no known status")
        return str(status), str(said.get("detail") or "")[:200]


def _authorized(given: ServiceGiven) -> dict[str, str]:
    return {"Authorization": f"Bearer {given.token}"} if given.token else {}


def _object(answer: Answer) -> dict[str, Any]:
    try:
        decoded = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}
