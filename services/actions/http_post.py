"""POSTs what an action renders to one URL, and reports the result. For every action that uses HTTP.

What an answer means:
    2xx              taken
    400, 413, 422    final: the receiver speaks of this body, which will not change
    all else         try again; Retry-After goes along as retry_after_s. Also 401, 403 and 404: a token is rotated, an
                     ingress is reloaded, and minutes later the same request is taken
Redirects are not followed: a notification must not wander to another host. Only 5xx, 408 and trouble after the
connection was made may have reached somebody anyway (ActionResult.reached). No secret leaves this file: a detail names
scheme, host and port only, and what the receiver says is cut and cleaned of the URL's parts.
"""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, urlsplit

import aiohttp
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


class HttpPost:
    """One URL. Safe to use from many tasks of one loop; how many at once is its caller's to bound."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        """`url` is sent as it is written: what is percent-encoded stays so. `timeout_s` covers one post from connecting
        to the end of the answer. Opens nothing yet."""
        self._url = url
        self._timeout_s = timeout_s
        self._place = _place_of(url)
        self._secrets = _secrets_of(url)
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self, key: str, body: bytes, trace: str | None = None, *, media_type: str = "application/json"
    ) -> ActionResult:
        """POST `body` once, with `key` as its Idempotency-Key and the trace context. Never raises for the receiver's faults;
        cancelling abandons the request."""
        headers = {"Content-Type": media_type, "Idempotency-Key": key}
        if trace is not None:
            headers |= headers_of(trace)
        try:
            url = _as_written(self._url)
            async with self._open().post(url, data=body, headers=headers, allow_redirects=False) as response:
                said = await _read(response)
                return self._result(response.status, response.headers.get("Retry-After"), said)
        except aiohttp.ClientConnectorError as error:
            # Before ValueError, which a certificate that is not trusted is as well.
            return ActionResult(ok=False, detail=f"{self._place}: {_network_fault(error)}", reached=False)
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError):
            # ValueError: a host or header that can't be written. Its text may hold the URL, so it is not repeated.
            return ActionResult(
                ok=False, detail=f"{self._place}: the URL or the key can't be used", reached=False
            )
        except TimeoutError:
            return ActionResult(ok=False, detail=f"{self._place}: no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return ActionResult(ok=False, detail=f"{self._place}: {_network_fault(error)}")

    async def close(self) -> None:
        """Close idle connections. Safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        # Made at the first post: a session belongs to the loop it is made in.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                connector=aiohttp.TCPConnector(
                    limit=0
                ),  # the responder bounds calls; a second queue here would hide it
                headers={"User-Agent": f"llm-incident-manager/{VERSION}"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _result(self, status: int, retry_after: str | None, said: str) -> ActionResult:
        answered = f"{self._place} answered {status}"
        if 200 <= status < 300:
            return ActionResult(ok=True, detail=answered)
        if 300 <= status < 400:
            return ActionResult(
                ok=False, detail=f"{answered}: a redirect, which is not followed", reached=False
            )
        cleaned = self._cleaned(said)
        return ActionResult(
            ok=False,
            detail=f"{answered}: {cleaned}" if cleaned else answered,
            final=status in FINAL,
            retry_after_s=_seconds(retry_after),
            reached=status >= 500 or status == REQUEST_TIMEOUT,
        )

    def _cleaned(self, said: str) -> str:
        # Cleaned before it is cut, or a secret across the cut would stay in part; decoded before it is cleaned,
        # because receivers echo URLs in other encodings than they got.
        said = unquote(said).replace("\\/", "/")
        for secret in self._secrets:
            said = said.replace(secret, "***")
        line = " ".join("".join(c if c.isprintable() else " " for c in said).split())
        return line[:DETAIL_CHARS]


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


def _seconds(retry_after: str | None) -> float:
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
    return min(max(round(wait_s, 1), 0.0), MAX_RETRY_AFTER_S)


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


def _secrets_of(url: str) -> tuple[str, ...]:
    """The parts of a URL that must not be shown, longest first, as written and decoded."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return (url,)
    found = {url, parts.query, parts.username or "", parts.password or "", parts.fragment}
    found.update(value for _, value in parse_qsl(parts.query))
    found.update(part for part in parts.path.split("/") if len(part) >= _SECRET_PATH_CHARS)
    found |= {decoded for part in found for decoded in (unquote(part), unquote_plus(part))}
    return tuple(sorted((part for part in found if len(part) >= _SECRET_CHARS), key=len, reverse=True))
