"""Calls of an HTTP API, and what an answer means. For every action that uses HTTP.

What an answer means, unless a channel knows better:
    2xx              taken
    400, 413, 422    final: the receiver speaks of this body, which will not change
    all else         try again; Retry-After goes along as retry_after_s. Also 401, 403 and 404: a token is rotated, an
                     ingress is reloaded, and minutes later the same request is taken
Redirects are not followed: a notification must not wander to another host. Only 5xx, 408 and trouble after the
connection was made may have reached somebody anyway (ActionResult.reached). No secret leaves this file: a detail names
scheme, host and port only, and what the receiver says is cut and cleaned of the URL's parts and the headers' secrets.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, urlsplit

import aiohttp
import msgspec
from yarl import URL

from models import VERSION
from models.ports import ActionResult
from models.trace import headers_of

#: Read of an answer, so that its connection can be used again; a longer answer costs its connection.
MAX_ANSWER_BYTES = 64 * 1024
#: Characters of a refusal that are kept as its detail: enough for "invalid_token" or a JSON error.
DETAIL_CHARS = 200
#: A Retry-After over a day counts as a day: a notification not accepted for that long is given up anyway.
MAX_RETRY_AFTER_S = 86_400.0
#: Statuses that concern this one body: malformed, too large, not understood.
FINAL = frozenset({400, 413, 422})
#: Request timeout: a proxy in front may have passed it on. All other 3xx and 4xx mean that it was not accepted.
REQUEST_TIMEOUT = 408
#: Parts of a URL shorter than this are not secrets, and removing them would mangle the detail.
_SECRET_CHARS = 4
#: Path parts are secret only when they are long: "alerts" is a place, a chat webhook's 24 letters are a password.
_SECRET_PATH_CHARS = 12
#: Of a URL, what comes before the path.
_AUTHORITY = re.compile(r"[A-Za-z]+://[^/?#]*")
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Answer:
    """What came of one call. `status` is 0 when there was no answer; `text` is what was said, at most MAX_ANSWER_BYTES of it:
    it may hold secrets, `result` does not. `headers` is case-insensitive."""

    result: ActionResult
    status: int = 0
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.result.ok

    @cached_property
    def json(self) -> dict[str, Any]:
        """The JSON object that was said; {} when it was none."""
        said = self.value
        return said if isinstance(said, dict) else {}

    @cached_property
    def value(self) -> Any:
        """The JSON that was said; None when it was none."""
        try:
            return msgspec.json.decode(self.text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None

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
    ) -> None:
        """`headers` go along with every call; their values and `secrets` are never told. `timeout_s` covers one attempt,
        whatever it consists of. Opens nothing yet."""
        self.timeout_s = timeout_s
        self._headers = dict(headers)
        self._secrets = {*secrets, *headers.values()}
        # "Bearer abc": what is echoed may be the token alone.
        self._secrets |= {value.partition(" ")[2] for value in headers.values()}
        self._final = final
        self._session: aiohttp.ClientSession | None = None

    def attempt(self, key: str, trace: str | None = None) -> Attempt:
        """One attempt, of one call or several: `key` is the Idempotency-Key of them all, and their time is counted together."""
        return Attempt(self, key, trace)

    async def call(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float) -> Answer:  # fmt: skip
        """Used by Attempt. `url` is sent as it is written: what is percent-encoded stays so. Never raises for the receiver's
        faults; cancelling abandons the request."""
        place = _place_of(url)
        try:
            request = self._open().request(
                method,
                _as_written(url),
                data=body,
                headers={**self._headers, **headers},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            )
            async with request as response:
                said = await _read(response)
                result = self._result(url, response.status, response.headers.get("Retry-After"), said)
                return Answer(result, response.status, said, response.headers)
        except aiohttp.ClientConnectorError as error:
            # Before ValueError, which a certificate that is not trusted is as well.
            return _failed(f"{place}: {_network_fault(error)}", reached=False)
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError):
            # ValueError: a host or header that can't be written. Its text may hold the URL, so it is not repeated.
            return _failed(f"{place}: the URL or the key can't be used", reached=False)
        except TimeoutError:
            return _failed(f"{place}: no answer within {self.timeout_s:g} s", reached=True)
        except (aiohttp.ClientError, OSError) as error:
            return _failed(f"{place}: {_network_fault(error)}", reached=True)

    async def close(self) -> None:
        """Close idle connections. Safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def cleaned(self, said: str, url: str) -> str:
        """What a receiver said, as one short line without any secret."""
        # Cleaned before it is cut, or a secret across the cut would stay in part; decoded before it is cleaned,
        # because receivers echo URLs in other encodings than they got.
        said = unquote(said).replace("\\/", "/")
        secrets = {each for each in self._secrets if len(each) >= _SECRET_CHARS}.union(_secrets_of(url))
        for secret in sorted(secrets, key=len, reverse=True):
            said = said.replace(secret, "***")
        line = " ".join("".join(c if c.isprintable() else " " for c in said).split())
        return line[:DETAIL_CHARS]

    def _open(self) -> aiohttp.ClientSession:
        # Made at the first call: a session belongs to the loop it is made in.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_connector(),
                headers={"User-Agent": f"llm-incident-manager/{VERSION}"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _result(self, url: str, status: int, retry_after: str | None, said: str) -> ActionResult:
        answered = f"{_place_of(url)} answered {status}"
        if 200 <= status < 300:
            return ActionResult(ok=True, detail=answered)
        if 300 <= status < 400:
            return ActionResult(
                ok=False, detail=f"{answered}: a redirect, which is not followed", reached=False
            )
        cleaned = self.cleaned(said, url)
        return ActionResult(
            ok=False,
            detail=f"{answered}: {cleaned}" if cleaned else answered,
            final=status in self._final,
            retry_after_s=seconds_of(retry_after),
            reached=status >= 500 or status == REQUEST_TIMEOUT,
        )


class Attempt:
    """One attempt at one receiver."""

    def __init__(self, api: HttpCall, key: str, trace: str | None) -> None:
        self._api = api
        self._headers = {"Idempotency-Key": key} | (headers_of(trace) if trace is not None else {})
        self._until = time.monotonic() + api.timeout_s

    async def call(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] = _NOTHING,
        media_type: str = "application/json",
    ) -> Answer:
        """One call, within what is left of the attempt's time."""
        about = {"Content-Type": media_type} if body is not None else {}
        left_s = max(self._until - time.monotonic(), 0.001)  # aiohttp takes 0 for "no limit"
        return await self._api.call(method, url, {**about, **self._headers, **headers}, body, left_s)

    def refused(self, answer: Answer, url: str, said: str, *, final: bool = False, retry_after_s: float = 0.0, reached: bool = False) -> ActionResult:  # fmt: skip
        """The result of a call that was answered 2xx and failed all the same: `said` is the receiver's word for it."""
        detail = f"{answer.result.detail}, but failed: {self._api.cleaned(said, url)}"
        return ActionResult(
            ok=False, detail=detail, final=final, retry_after_s=retry_after_s, reached=reached
        )


def with_ref(result: ActionResult, ref: str) -> ActionResult:
    """The same with what the receiver calls what it made."""
    return replace(result, ref=ref)


def seconds_of(retry_after: str | None) -> float:
    """Retry-After in seconds, given as a number or a date; 0 when absent or unreadable."""
    if not retry_after:
        return 0.0
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER_S)
    try:
        wait_s = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return bounded_wait(wait_s)


def bounded_wait(wait_s: float) -> float:
    """A wait that a receiver asks for, as one that is kept: never below 0, at most a day."""
    return min(max(round(wait_s, 1), 0.0), MAX_RETRY_AFTER_S)


def _connector() -> aiohttp.BaseConnector:
    # The responder bounds calls; a second queue here would hide it.
    return aiohttp.TCPConnector(limit=0)


def _failed(detail: str, *, reached: bool) -> Answer:
    return Answer(ActionResult(ok=False, detail=detail, reached=reached))


async def _read(response: aiohttp.ClientResponse) -> str:
    """The answer's text, bounded. Its status has been decided, so trouble here is no failure."""
    data = bytearray()
    try:
        while len(data) < MAX_ANSWER_BYTES:
            chunk = await response.content.read(MAX_ANSWER_BYTES - len(data))
            if not chunk:
                return data.decode("utf-8", "replace")
            data += chunk
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    response.close()
    return data.decode("utf-8", "replace")


def _network_fault(error: Exception) -> str:
    """What went wrong, without what the library adds to it (host, port, sometimes the URL)."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    words = getattr(cause, "strerror", None)
    name = type(error).__name__
    return (
        f"{name} ({words})"
        if isinstance(words, str) and words and not isinstance(cause, aiohttp.ClientError)
        else name
    )


def _as_written(url: str) -> URL:
    """Decoding and encoding again would change a signed URL. Only what is not ASCII is encoded. Raises ValueError."""
    if not url.isascii():
        end = _AUTHORITY.match(url)
        split = end.end() if end else 0
        url = str(URL(url[:split])) + quote(url[split:], safe=_ASCII)
    return URL(url, encoded=True)


def _place_of(url: str) -> str:
    """Scheme, host and port: the part of a URL that may be shown."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        host = parts.hostname or "?"
        return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"
    except ValueError:
        return "the webhook"


def _secrets_of(url: str) -> set[str]:
    """The parts of a URL that must not be shown, as written and decoded."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return {url}
    found = {url, parts.query, parts.username or "", parts.password or "", parts.fragment}
    found.update(value for _, value in parse_qsl(parts.query))
    found.update(part for part in parts.path.split("/") if len(part) >= _SECRET_PATH_CHARS)
    found |= {decoded for part in found for decoded in (unquote(part), unquote_plus(part))}
    return {part for part in found if len(part) >= _SECRET_CHARS}
