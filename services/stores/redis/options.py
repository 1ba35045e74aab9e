"""Where a Redis is and what is asked of it. Made from the settings by services/stores/choice.py; imports no Redis client.

    redis://[user:password@]host[:port][/db]                                  one server
    redis+sentinel://[user:password@]host[:port],host[:port].../service[/db]  the primary that Sentinels name
    redis+cluster://[user:password@]host[:port],host[:port]...                the node that has the partition's slot

`rediss` instead of `redis` is TLS. Further parts of the URL are in `QUERY`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from models.errors import Malformed

REDIS_PORT = 6379
SENTINEL_PORT = 26379
#: What may stand behind the question mark: files for TLS, and who we are to the Sentinels.
QUERY = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "sentinel_username", "sentinel_password"})

Kind = Literal["single", "sentinel", "cluster"]
_KINDS: dict[str, Kind] = {"": "single", "sentinel": "sentinel", "cluster": "cluster"}
_EXPECTED = (
    "expected redis://host:port/db, redis+sentinel://host:port,host:port/service"
    " or redis+cluster://host:port,host:port (rediss for TLS)"
)
_ESCAPED = "within user and password write / ? # @ : % [ ] as %2F %3F %23 %40 %3A %25 %5B %5D"
#: A brace would move the hash tag, and with it the partition's slot.
_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Address:
    """A URL taken apart. Its repr shows no secret."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    service: str = ""
    db: int = 0
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    query: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """Everything the Redis adapters are told."""

    url: str = field(repr=False)
    prefix: str = "llm-im"
    #: Replicas that must have a write before it is answered.
    replicas: int = 0
    #: Take a Redis that may forget what was acknowledged.
    allow_volatile: bool = False
    connect_timeout_s: float = 2.0
    timeout_s: float = 5.0
    replica_timeout_s: float = 1.0
    #: The section of the settings that says all this: errors name it.
    section: str = "state.redis"

    @property
    def address(self) -> Address:
        """Raises Malformed, which never shows the password."""
        return parse_url(self.url, f"{self.section}.url")

    def check(self) -> RedisOptions:
        """Itself, once everything in it can be read. Raises Malformed."""
        parse_url(self.url, f"{self.section}.url")
        if not _PREFIX.fullmatch(self.prefix):
            raise Malformed(
                f"{self.section}.prefix: expected 1 to 64 letters, digits or _.:-, not {self.prefix!r}"
            )
        return self


def key_of(options: RedisOptions, partition: str, name: str) -> str:
    """A key of a partition. The braces are Redis Cluster's hash tag: all keys of a partition are in one slot, so one
    script can change them together."""
    return f"{options.prefix}:{{{quote(partition, safe='/')}}}:{name}"


def parse_url(url: str, setting: str = "state.redis.url") -> Address:
    """Raises Malformed naming what was expected. The message never holds the URL: it may hold a password."""
    try:
        parts = urlsplit(url)
    except ValueError:  # its words may hold the password
        raise Malformed(f"{setting}: {_EXPECTED}; {_ESCAPED}") from None
    # One of those that was not written so ends the host too early, and what comes after it would be told, or left out.
    if parts.fragment or ("@" not in parts.netloc and "@" in parts.path + parts.query):
        raise Malformed(f"{setting}: {_ESCAPED}")
    scheme, _, kind = parts.scheme.partition("+")
    if scheme not in ("redis", "rediss") or kind not in _KINDS or not parts.netloc:
        raise Malformed(f"{setting}: {_EXPECTED}")
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    path = [unquote(part) for part in parts.path.split("/") if part]
    query = dict(parse_qsl(parts.query))
    if unknown := sorted(set(query) - QUERY):
        raise Malformed(f"{setting}: {unknown[0]!r} is not known; expected {', '.join(sorted(QUERY))}")
    service = ""
    if _KINDS[kind] == "sentinel":
        if not path:
            raise Malformed(f"{setting}: the Sentinel service name is missing; {_EXPECTED}")
        service = path.pop(0)
    if len(path) > 1 or (path and not path[0].isdecimal()):
        raise Malformed(f"{setting}: the database must be a number; {_EXPECTED}")
    db = int(path[0]) if path else 0
    if _KINDS[kind] == "cluster" and db:
        raise Malformed(f"{setting}: a Redis Cluster has database 0 only")
    port = SENTINEL_PORT if _KINDS[kind] == "sentinel" else REDIS_PORT
    found = tuple(_host(each, port, setting) for each in hosts.split(","))
    if _KINDS[kind] == "single" and len(found) > 1:
        raise Malformed(f"{setting}: several hosts are possible only with Sentinel or Cluster; {_EXPECTED}")
    return Address(
        _KINDS[kind], found, service, db, scheme == "rediss", unquote(user) or None, unquote(password) or None,
        query,
    )  # fmt: skip


def _host(text: str, port: int, setting: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]\s]+)(?::(\d{1,5}))?", text)
    if match is None or not 0 < int(match[2] or port) < 65536:
        raise Malformed(f"{setting}: a host can't be read; {_EXPECTED}")
    return match[1].strip("[]"), int(match[2] or port)
