"""Calls of one receiver's HTTP API: several in one attempt, with headers that hold secrets, and answers that are read. What an
answer means, unless a channel knows better: services/actions/answers.py. Used by every channel by HTTP.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import msgspec

from models.ports import ActionResult
from models.trace import headers_of
from services.actions.answers import (
    FINAL,
    MAX_RETRY_AFTER_S,
    cleaned_of_secrets,
    result_of,
    result_of_error,
    secrets_of,
)
from services.actions.outbound import MAX_ANSWER_BYTES, CallFailed, CallRefused, Method, Outbound

#: Parts of a header shorter than this are not secrets, and removing them would mangle the detail.
_SECRET_CHARS = 4
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Answer:
    """What came of one call. `status` is 0 when there was no answer; `text` is what was said: it may hold secrets, `result` does
    not. `headers` by lower-case name."""

    result: ActionResult
    status: int = 0
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.result.ok

    @cached_property
    def value(self) -> Any:
        """The JSON that was said; None when it was none, or more than was read."""
        try:
            return msgspec.json.decode(self.text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None

    @property
    def json(self) -> dict[str, Any]:
        """The JSON object that was said; {} when it was none."""
        said = self.value
        return said if isinstance(said, dict) else {}

    def text_of(self, name: str) -> str:
        """A field of the JSON object as text, "" when it is not there: receivers write ids as numbers or as text."""
        found = self.json.get(name)
        return str(found) if isinstance(found, str | int) and not isinstance(found, bool) else ""


class HttpCall:
    """One receiver's HTTP API. Safe to use from many tasks of one loop; how many at once is its caller's to bound."""

    def __init__(
        self,
        *,
        timeout_s: float = 10.0,
        headers: Mapping[str, str] = _NOTHING,
        secrets: Iterable[str] = (),
        final: frozenset[int] = FINAL,
        ca_file: str = "",
    ) -> None:
        """`headers` go along with every call; their values and `secrets` are never told. `timeout_s` covers one attempt, whatever
        it consists of. `ca_file` as in Outbound. Opens nothing yet."""
        self.timeout_s = timeout_s
        self._headers = dict(headers)
        # "Bearer abc": what is echoed may be the token alone.
        values = {each for value in headers.values() for each in (value, value.partition(" ")[2])}
        self._secrets = {each for each in {*secrets, *values} if len(each) >= _SECRET_CHARS}
        self._final = final
        self._outbound = Outbound(timeout_s=timeout_s, ca_file=ca_file)

    def attempt(self, key: str, trace: str | None = None) -> Attempt:
        """One attempt, of one call or several: `key` is the Idempotency-Key of them all, and their time is counted together."""
        return Attempt(self, key, trace)

    async def call(
        self,
        method: Method,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        max_bytes: int,
    ) -> Answer:
        """Used by Attempt. Never raises for the receiver's faults; cancelling abandons the request."""
        try:
            said = await self._outbound.call(
                method,
                url,
                headers={**self._headers, **headers},
                body=body,
                timeout_s=timeout_s,
                max_bytes=max_bytes,
                trusted=True,
            )
        except (CallFailed, CallRefused) as error:
            return Answer(result_of_error(error))
        result = result_of(url, said, self._secrets, final=self._final)
        return Answer(result, said.status, said.text, said.headers)

    def cleaned(self, said: str, url: str) -> str:
        """What a receiver said, as one short line without any secret."""
        return cleaned_of_secrets(said, (*secrets_of(url), *self._secrets))

    async def close(self) -> None:
        """Close idle connections. Safe to call twice."""
        await self._outbound.close()


class Attempt:
    """One attempt at one receiver."""

    def __init__(self, api: HttpCall, key: str, trace: str | None) -> None:
        self._api = api
        self._headers = {"Idempotency-Key": key} | (headers_of(trace) if trace is not None else {})
        self._until = time.monotonic() + api.timeout_s

    async def call(
        self,
        method: Method,
        url: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] = _NOTHING,
        media_type: str = "application/json",
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """One call, within what is left of the attempt's time. `url` is sent as it is written."""
        about = {"Content-Type": media_type} if body is not None else {}
        # To a tenth of a second, as it is told when it has passed; and never 0, which is no limit.
        left_s = max(math.ceil((self._until - time.monotonic()) * 10) / 10, 0.1)
        return await self._api.call(
            method, url, {**about, **self._headers, **headers}, body, left_s, max_bytes
        )

    def refused(
        self,
        answer: Answer,
        url: str,
        said: str,
        *,
        final: bool = False,
        retry_after_s: float = 0.0,
        reached: bool = False,
    ) -> ActionResult:
        """The result of a call that was answered 2xx and failed all the same: `said` is the receiver's word for it."""
        detail = f"{answer.result.detail}, but failed: {self._api.cleaned(said, url)}"
        return ActionResult(
            ok=False, detail=detail, final=final, retry_after_s=retry_after_s, reached=reached
        )


def with_ref(result: ActionResult, ref: str) -> ActionResult:
    """The same with what the receiver calls what it made."""
    return replace(result, ref=ref)


def bounded_wait(wait_s: float) -> float:
    """A wait that a receiver asks for, as one that is kept: never below 0, at most a day."""
    return min(max(round(wait_s, 1), 0.0), MAX_RETRY_AFTER_S)
