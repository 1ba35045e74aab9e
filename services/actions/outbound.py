"""The one HTTP client by which responders call out, guarded (models/response/guard.py). Used by services/actions and
services/playbooks.

Whoever writes a URL decides what may be called by it. A URL that stands in the operator's settings is `trusted`. Any other,
from an alert or a template, may only lead to public addresses and to what `[outbound] allow` names. A name is looked up once, its
addresses are judged, and only those that passed are connected to: what a name resolves to a moment later does not matter.

Redirects are not followed: they are an answer like another. Answers are read up to a bound, and no environment variable names a
proxy behind our back.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from models import VERSION
from models.errors import Refused, Unavailable
from models.response.guard import Allowed, literal, why_refused

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

#: Read of an answer unless the caller wants more: most say little.
MAX_ANSWER_BYTES = 64 * 1024
TIMEOUT_S = 10.0
#: How long what a name resolved to is used again. New connections soon after each other ask once.
DNS_CACHE_S = 10
#: Names that are looked up at once, of trusted URLs and of others each. One takes milliseconds, or half a minute when its server is
#: away; a second connection to the same host waits for the first one's.
LOOKUPS_MAX = 16
#: Of a URL, what comes before the path.
_AUTHORITY = re.compile(r"[A-Za-z]+://[^/?#]*")
_ASCII = "".join(map(chr, range(0x21, 0x7F)))


class CallFailed(Unavailable):
    """There was no answer. `reached`: the request may have arrived all the same. The text holds no secret."""

    def __init__(self, message: str, *, reached: bool) -> None:
        super().__init__(message)
        self.reached = reached


class CallRefused(Refused):
    """Nothing was sent: the address is none that this URL may lead to. The text says why, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` by lower-case name. `cut`: there was more than `body`, or the rest did not come in time."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool = False

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


class Outbound:
    """Calls out. Safe to use from many tasks of one loop; how many at once is its caller's to bound."""

    def __init__(
        self,
        *,
        allow: Allowed | None = None,
        ca_file: str = "",
        own_cert: tuple[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`ca_file`: PEM certificates that are trusted beside the system's. `own_cert`: the files of a client certificate and of its
        key. Both are read at the first call, and at the first one after close(). `resolver` looks up names instead of the
        system's. Opens nothing yet."""
        self.allow = allow or Allowed()
        self._ca_file = ca_file
        self._own_cert = own_cert
        self._timeout_s = timeout_s
        self._resolver = resolver
        #: One for trusted URLs and one for others, so that no connection of the first is used by the second.
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    @staticmethod
    def of(given: Mapping[str, Any]) -> Outbound:
        """By what the settings give a responder."""
        return Outbound(allow=Allowed.of(given["outbound_allow"]), ca_file=given["outbound_ca_file"])

    def take(self, given: Mapping[str, Any]) -> None:
        """Use the changed settings, for names that are looked up and connections that are made from now on."""
        self.allow = Allowed.of(given["outbound_allow"])

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
    ) -> Answer:
        """Send one request and read its answer, whatever its status. `url` is sent as it is written: what is percent-encoded
        stays so. `timeout_s` covers it from looking up the name to the end of the answer; what came of an answer whose
        head arrived in time counts. Raises CallFailed and CallRefused; cancelling abandons the request."""
        place = place_of(url)
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            session = self._session(trusted)
        except OSError as error:
            why = error.strerror or type(error).__name__
            files = " or ".join(filter(None, (self._ca_file, *(self._own_cert or ()))))
            raise CallFailed(
                f"{place}: the certificates of {files} can't be used: {why}", reached=False
            ) from None
        try:
            where = _as_written(url)
            if not trusted:
                self._judge_literal(where)
            async with session.request(
                method,
                where,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                said, cut = await _read(response, max_bytes)
                return Answer(
                    response.status,
                    {name.lower(): value for name, value in response.headers.items()},
                    said,
                    cut,
                )
        except CallRefused as refused:
            raise CallRefused(f"{place}: {refused}") from None
        except aiohttp.ClientConnectorError as error:
            # Before ValueError, which a certificate that is not trusted is as well.
            raise CallFailed(f"{place}: {_network_fault(error)}", reached=False) from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError):
            # ValueError: a host or header that can't be written. Its text may hold the URL, so it is not repeated.
            raise CallFailed(f"{place}: the URL or a header can't be used", reached=False) from None
        except TimeoutError:
            raise CallFailed(f"{place}: no answer within {timeout_s:g} s", reached=True) from None
        except (aiohttp.ClientError, OSError) as error:
            raise CallFailed(f"{place}: {_network_fault(error)}", reached=True) from None

    async def close(self) -> None:
        """Close idle connections. Safe to call twice."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def __aenter__(self) -> Outbound:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    def _session(self, trusted: bool) -> aiohttp.ClientSession:
        # Made at the first call: a session belongs to the loop it is made in.
        if trusted not in self._sessions:
            resolver = self._resolver or _Names(trusted)
            self._sessions[trusted] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,  # the responder bounds calls; a second queue here would hide it
                    ssl=self._tls(),
                    resolver=resolver if trusted else _Guarded(resolver, self),
                    ttl_dns_cache=DNS_CACHE_S,
                ),
                headers={"User-Agent": f"llm-incident-manager/{VERSION}"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._sessions[trusted]

    def _tls(self) -> ssl.SSLContext | bool:
        if self._own_cert is None:
            return _trusting(self._ca_file) if self._ca_file else True
        # Not kept: the certificate is renewed long before the process ends.
        context = ssl.create_default_context()
        if self._ca_file:
            context.load_verify_locations(cafile=self._ca_file)
        context.load_cert_chain(*self._own_cert, password=_no_password)
        return context

    def _judge_literal(self, url: URL) -> None:
        """The library asks no resolver about a host that is an address."""
        host = url.raw_host or ""
        address = literal(host)
        if address is not None and (why := why_refused(host, address, self.allow)):
            raise CallRefused(_refusal(why))


class _Names(AbstractResolver):
    """The system's look-up, in threads of its own: a name of a stranger whose server never answers holds up no receiver."""

    def __init__(self, trusted: bool) -> None:
        self._trusted = trusted

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(_lookups(self._trusted), ask)
        return [
            ResolveResult(
                hostname=host,
                host=_with_zone(address),
                port=int(address[1]),
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _type, proto, _name, address in found
            # Python without IPv6 gives such an address in two parts that nobody can connect to.
            if kind in (socket.AF_INET, socket.AF_INET6) and isinstance(address[0], str)
        ]

    async def close(self) -> None:
        """The threads are everybody's."""


@lru_cache(maxsize=2)
def _lookups(trusted: bool) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(LOOKUPS_MAX, f"lookups-{'own' if trusted else 'others'}")


def _with_zone(address: tuple[Any, ...]) -> str:
    zone = address[3] if len(address) > 3 else 0
    return f"{address[0]}%{zone}" if zone else str(address[0])


class _Guarded(AbstractResolver):
    """Gives only addresses that may be called."""

    def __init__(self, resolver: AbstractResolver, owner: Outbound) -> None:
        self._resolver = resolver
        self._owner = owner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        good, whys = [], []
        for found in await self._resolver.resolve(host, port, family):
            address = literal(found["host"])
            why = why_refused(host, address, self._owner.allow) if address else "it resolves to no address"
            if why:
                whys.append(why)
            else:
                good.append(found)
        if not good and whys:
            raise CallRefused(_refusal(whys[0]))
        return good

    async def close(self) -> None:
        await self._resolver.close()


def _refusal(why: str) -> str:
    return f"{why}, which a URL from outside the settings may not call: allow it in [outbound] allow if it should"


@lru_cache(maxsize=16)
def _trusting(ca_file: str) -> ssl.SSLContext:
    """Raises OSError when it can't be read."""
    context = ssl.create_default_context()
    context.load_verify_locations(cafile=ca_file)
    return context


def _no_password() -> str:
    """Or a key with one would be asked for at a terminal."""
    raise OSError(0, "the key has a password")


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> tuple[bytes, bool]:
    """The answer's body, bounded, and whether it was cut. Its status has been decided, so trouble here is no failure."""
    data = bytearray()
    try:
        while len(data) <= max_bytes:
            # One byte more than the bound says whether there is more.
            chunk = await response.content.read(max_bytes + 1 - len(data))
            if not chunk:
                return bytes(data), False
            data += chunk
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    response.close()
    return bytes(data[:max_bytes]), True


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


def place_of(url: str) -> str:
    """Scheme, host and port: the part of a URL that may be shown."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        host = parts.hostname or "?"
        return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"
    except ValueError:
        return "the URL"
