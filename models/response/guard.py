"""Which addresses a URL that somebody else wrote may lead to. Pure: who resolves names is services/actions/outbound.py.

Such a URL comes with an alert, an annotation or a template. It may name a public address; what is private, of the machine
itself or of a cloud's metadata service is refused unless the operator allows it (`[outbound] allow`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from models.settings.origins import host_and_port

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: Where clouds give out credentials to whoever asks from inside. The last one is public by number.
_METADATA: tuple[Network, ...] = tuple(
    map(
        ip_network,
        ("169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
         "100.100.100.200", "192.0.0.192", "168.63.129.16"),
    )
)  # fmt: skip
#: Hold an IPv4 address in their last 32 bits: NAT64's well-known prefix (RFC 6052), and "compatible" (RFC 4291).
_HOLDS_V4_LAST = tuple(map(IPv6Network, ("64:ff9b::/96", "::/96")))
#: Not public, whatever this Python's tables say: shared space of providers, NAT64 of a site (RFC 8215), site-local (retired by
#: RFC 3879, and still routed inside), Teredo and other protocol assignments, benchmarks, discard-only.
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "fec0::/10",
            "64:ff9b:1::/48",
            "100.64.0.0/10",
            "192.0.0.0/24",
            "198.18.0.0/15",
            "100::/64",
            "2001::/23",
        ),
    )
)
#: getaddrinfo reads these as addresses: 127.1, 2130706433, 0x7f.0.0.1, 017700000001.
_NUMERIC_NAME = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator allows beside public addresses. A name or suffix allows the addresses that it resolves to, except a
    cloud's metadata service, multicast and 0.0.0.0: those must be allowed by their number."""

    networks: tuple[Network, ...] = ()
    names: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()

    @staticmethod
    def of(entries: Iterable[str]) -> Allowed:
        """Raises ValueError with what is wrong with an entry."""
        networks: list[Network] = []
        names: set[str] = set()
        suffixes: list[str] = []
        for entry in entries:
            text = entry.strip()
            if (network := _network(text)) is not None:
                networks.append(network)
            elif text.startswith((".", "*.")):
                suffixes.append("." + _name(text.removeprefix("*")[1:], entry))
            else:
                names.add(_name(text, entry))
        return Allowed(tuple(networks), frozenset(names), tuple(suffixes))

    def knows(self, host: str) -> bool:
        """Whether this host may have a private address."""
        name = host.lower().rstrip(".")
        return name in self.names or name.endswith(self.suffixes)


def why_refused(host: str, address: Address, allowed: Allowed) -> str:
    """Why `address`, to which `host` resolved, may not be called; "" if it may. What counts is where packets to it end up."""
    end = _end_of(address)
    if any(end in network for network in allowed.networks if network.version == end.version):
        return ""
    kind = _kind(end)
    if not kind or (kind not in _BY_NUMBER_ONLY and allowed.knows(host)):
        return ""
    return f"{address} is {kind}"


def literal(host: str) -> Address | None:
    """The address that a URL's host is itself, without brackets; None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


_MULTICAST, _METADATA_SERVICE, _UNSPECIFIED = (
    "a multicast address",
    "a cloud's metadata service",
    "no host's address",
)
_BY_NUMBER_ONLY = (_MULTICAST, _METADATA_SERVICE, _UNSPECIFIED)


def _kind(address: Address) -> str:
    """What keeps an address from being public, "" if nothing does."""
    if any(address in network for network in _METADATA if network.version == address.version):
        return _METADATA_SERVICE
    if address.is_multicast:
        return _MULTICAST
    if address.is_unspecified:
        return _UNSPECIFIED
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address"
    hidden = any(address in network for network in _NOT_PUBLIC if network.version == address.version)
    if hidden or address.is_reserved or not address.is_global:
        return "a private or reserved address"
    return ""


def _end_of(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for; any other without its zone, which networks don't know."""
    if isinstance(address, IPv4Address):
        return address
    held = address.ipv4_mapped or address.sixtofour
    if held is not None:
        return held
    if not (address.is_loopback or address.is_unspecified) and any(
        address in each for each in _HOLDS_V4_LAST
    ):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return IPv6Address(int(address))


def _network(text: str) -> Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _name(text: str, entry: str) -> str:
    place = host_and_port(text)
    if place is None or place[1] is not None or ":" in place[0] or _NUMERIC_NAME.fullmatch(place[0]):
        raise ValueError(
            f"{entry!r}: expected an address (10.1.2.3), a network (10.0.0.0/8), a host name, or a suffix (.svc.cluster.local)"
        )
    return place[0]
