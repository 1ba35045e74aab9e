"""POSTs what an action renders to one URL, and reports the result: services/actions/http_call.py says what an answer means."""

from __future__ import annotations

from collections.abc import Mapping

from models.ports import ActionResult
from services.actions.http_call import HttpCall


class HttpPost:
    """One URL. Safe to use from many tasks of one loop; how many at once is its caller's to bound."""

    def __init__(
        self, url: str, *, timeout_s: float = 10.0, headers: Mapping[str, str] | None = None
    ) -> None:
        """`url` is sent as it is written: what is percent-encoded stays so. `timeout_s` covers one post from connecting
        to the end of the answer. The values of `headers` are never told. Opens nothing yet."""
        self._url = url
        self._call = HttpCall(timeout_s=timeout_s, headers=headers or {})

    async def post(
        self,
        key: str,
        body: bytes,
        trace: str | None = None,
        *,
        media_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> ActionResult:
        """POST `body` once, with `key` as its Idempotency-Key and the trace context. Never raises for the receiver's faults;
        cancelling abandons the request."""
        attempt = self._call.attempt(key, trace)
        answer = await attempt.call("POST", self._url, body, headers=headers or {}, media_type=media_type)
        return answer.result

    async def close(self) -> None:
        """Close idle connections. Safe to call twice."""
        await self._call.close()
