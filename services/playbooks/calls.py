"""Calls of playbooks' actions, each by way of its target (actors/targets.py): a host that fails, or that is called too often, is left
alone for a while, and costs no place of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from actors.targets import Targets
from models.ports import ActionResult
from models.response.target import NotNow
from services.actions.outbound import MAX_ANSWER_BYTES, Answer, CallFailed, Method, Outbound, place_of

#: Too many requests, and a proxy that gave up waiting: the host is there, and has no room.
_NO_ROOM = frozenset({408, 429})


class NotCalled(CallFailed):
    """The target is left alone for now. Nothing was sent; it makes sense again after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, reached=False)
        self.retry_after_s = retry_after_s


class Calls:
    """An Outbound with targets. Owns the Outbound."""

    def __init__(self, outbound: Outbound, targets: Targets | None = None) -> None:
        self._outbound = outbound
        self._targets = targets

    async def call(
        self,
        method: Method,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float | None = None,
        max_bytes: int = MAX_ANSWER_BYTES,
        trusted: bool = False,
        probing: bool = False,
    ) -> Answer:
        """As Outbound.call(). `probing`: it is asked because it may be away, so that its failures say nothing new. Raises NotCalled
        too."""
        asked: dict[str, Any] = {
            "headers": headers, "body": body, "timeout_s": timeout_s, "max_bytes": max_bytes, "trusted": trusted,
        }  # fmt: skip
        if self._targets is None or probing:
            return await self._outbound.call(method, url, **asked)
        name = host_target(url)
        period = self._targets.may_i(name)
        if isinstance(period, NotNow):
            raise NotCalled(f"{place_of(url)}: {period.detail}", period.wait_s)
        result: ActionResult | None = None
        try:
            answer = await self._outbound.call(method, url, **asked)
            result = _as_result(answer)
            return answer
        except CallFailed as error:
            result = ActionResult(ok=False, detail=str(error), reached=error.reached)
            raise
        finally:
            # A call that the guard refused, or that was abandoned, says nothing of the target.
            self._targets.over(name, period, result)

    def take(self, given: Mapping[str, Any]) -> None:
        """Use the changed settings: what URLs of strangers may lead to."""
        self._outbound.take(given)

    async def close(self) -> None:
        await self._outbound.close()


def host_target(url: str) -> str:
    """The name of the target that a URL's host is."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return f"host:{(parts.hostname or '?').lower()}:{port}"
    except ValueError:
        return "host:?"


def _as_result(answer: Answer) -> ActionResult:
    fine = answer.status < 500 and answer.status not in _NO_ROOM
    return ActionResult(ok=fine, detail=f"answered {answer.status}")
