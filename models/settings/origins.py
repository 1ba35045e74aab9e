"""Hosts and web origins as browsers and programs write them, made comparable: `LOCALHOST.` is `localhost`, `https://a` is
`https://a:443`, `[0::1]` is `[::1]`."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

import msgspec

#: Ports that are left out where they are written.
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PORT_MAX = 65535
#: A name, its last dot and a port. What is longer is no host, and not worth remembering.
_HOST_CHARS_MAX = 264
_AUTHORITY = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::(?P<port>[0-9]{0,5}))?"
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,30}")


class Origin(msgspec.Struct, frozen=True):
    """A page's origin. `port` is None where neither the text nor the scheme names one."""

    scheme: str
    host: str
    port: int | None

    @property
    def text(self) -> str:
        """As a browser writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_default = self.port is None or self.port == _DEFAULT_PORTS.get(self.scheme)
        return f"{self.scheme}://{host}" + ("" if is_default else f":{self.port}")


def host_and_port(text: str) -> tuple[str, int | None] | None:
    """What a Host header or the rest of an origin says: the host in its one spelling and the port, if it names one. None for
    what is no host."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return None
    port = int(found["port"]) if found["port"] else None
    if port is not None and port > _PORT_MAX:
        return None
    if found["six"] is not None:
        try:
            return ipaddress.IPv6Address(found["six"]).compressed, port
        except ValueError:
            return None
    name = found["name"].lower().removesuffix(".")
    return (name, port) if name else None


def parse_origin(text: str) -> Origin | None:
    """An Origin header, or one that a setting names. None for what is none, and for "null"."""
    scheme, _, rest = text.partition("://")
    place = host_and_port(rest)
    scheme = scheme.lower()
    if place is None or _SCHEME.fullmatch(scheme) is None:
        return None
    host, port = place
    return Origin(scheme, host, _DEFAULT_PORTS.get(scheme) if port is None else port)


def is_same_place(origin: Origin, host: str) -> bool:
    """Whether a page of this origin came from where the Host header `host` leads. What TLS ends in front of us is not seen
    here, so a port that Host leaves out is the one of the origin's scheme."""
    place = host_and_port(host)
    if place is None or origin.scheme not in _DEFAULT_PORTS:
        return False
    name, port = place
    return origin.host == name and origin.port == (_DEFAULT_PORTS[origin.scheme] if port is None else port)


def own_name(host: str) -> str | None:
    """The name in a Host header that somebody else could own, so that it might lead here unasked; "" for an address and for
    names of the machine itself, None for what is no host."""
    return _own_name(host) if len(host) <= _HOST_CHARS_MAX else None


@lru_cache(maxsize=1024)  # a sender names the same host each time
def _own_name(host: str) -> str | None:
    place = host_and_port(host)
    if place is None:
        return None
    name = place[0]
    if name == "localhost" or name.endswith(".localhost"):
        return ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name
    return ""
