"""Calls of playbooks' actions, each by way of its target (actors/targets.py): a host that fails, or that is called too often, is left
alone for a while, and costs no place of others.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from actors.targets import Targets
from models.ports import ActionResult
from models.response.target import NotNow, Why
from services.actions.outbound import MAX_ANSWER_BYTES, Answer, CallFailed, Method, Outbound, place_of

#: Too many requests, and a proxy that gave up waiting: the host is there, and has no room.
_NO_ROOM = frozenset({408, 429})
#: Of a call's time, how much it waits for its turn where many call one host. What remains is for the call.
_SHARE_FOR_TURN = 0.8
#: The time of a call that has none of its own.
_TIMEOUT_S = 10.0


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
        #: Who waits for a place at a host, in the order in which they came.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = defaultdict(deque)

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
        """As Outbound.call(), once it is its turn at its host. `probing`: it is asked because it may be away, so that its failures say
        nothing new. Raises NotCalled too: at once for a host that fails."""
        asked: dict[str, Any] = {
            "headers": headers, "body": body, "timeout_s": timeout_s, "max_bytes": max_bytes, "trusted": trusted,
        }  # fmt: skip
        if self._targets is None or probing:
            return await self._outbound.call(method, url, **asked)
        name = host_target(url)
        period = await self._turn(self._targets, name, url, timeout_s or _TIMEOUT_S)
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
            self._wake_next(name)

    async def _turn(self, targets: Targets, name: str, url: str, timeout_s: float) -> int:
        """Wait for a place: that many runs call one host at once is no failure of any of them. What Target.may_i() gives."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s * _SHARE_FOR_TURN
        while isinstance(period := targets.may_i(name), NotNow):
            left = until - loop.time()
            if period.why is Why.OPEN or left <= 0:
                raise NotCalled(f"{place_of(url)}: {period.detail}", period.wait_s)
            turn = loop.create_future()
            self._waiting[name].append(turn)
            try:
                await asyncio.wait((turn,), timeout=min(period.wait_s, left))
            finally:
                if not turn.done():
                    self._waiting[name].remove(turn)
                if not self._waiting[name]:
                    del self._waiting[name]
        return period

    def _wake_next(self, name: str) -> None:
        waiting = self._waiting.get(name)
        if waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
        if not waiting:
            self._waiting.pop(name, None)

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
