"""Connections of which nobody knows yet whose they are: no call on them has shown a token or a certificate. Used by door.py.

They have a part of the places, and of that one address has a part. Who comes when it is used up takes the place of the one that has
waited longest: so whoever holds connections, somebody with a token always gets in, and has time to show it.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Protocol

#: A quarter of a gateway's places (door.py). An honest client is a stranger for some milliseconds.
STRANGERS_MAX = 256
#: Of one address: clients behind one NAT or proxy that all come in the same second, as after a restart of it.
OF_ONE_MAX = 128
#: A stranger without a call under way goes after so long. A client of gRPC has its first call ready when it connects, and comes
#: again by itself.
STRANGER_S = 10.0


class Stranger(Protocol):
    """A connection, as they need it."""

    @property
    def address(self) -> str: ...

    def turn_away(self) -> None:
        """Its place is another's."""


class Strangers:
    """Those of one door, the one that came first in front."""

    def __init__(self) -> None:
        self._all: dict[Stranger, None] = {}
        self._by_address: dict[str, dict[Stranger, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, stranger: Stranger) -> None:
        """Until drop(). Turns away the one that waited longest where there are too many: of its own address, or of all."""
        its = self._by_address.setdefault(stranger.address, {})
        over = its if len(its) >= OF_ONE_MAX else self._all if len(self._all) >= STRANGERS_MAX else None
        self._all[stranger] = its[stranger] = None
        if over is not None:
            self.turn_away(next(iter(over)))

    def make_room(self) -> bool:
        """Turn away the one that waited longest of all. Whether there was one."""
        oldest = next(iter(self._all), None)
        if oldest is not None:
            self.turn_away(oldest)
        return oldest is not None

    def drop(self, stranger: Stranger) -> None:
        """It is none any more. Safe to call twice."""
        if stranger not in self._all:
            return
        del self._all[stranger]
        its = self._by_address[stranger.address]
        del its[stranger]
        if not its:
            del self._by_address[stranger.address]

    def turn_away(self, stranger: Stranger) -> None:
        """Have it go."""
        self.drop(stranger)
        stranger.turn_away()


def address_of(peer: object) -> str:
    """Who a socket's other end is: of IPv6 the /64, which is what one customer has."""
    if not isinstance(peer, tuple) or not peer:
        return ""
    try:
        found = ip_address(str(peer[0]).partition("%")[0])
    except ValueError:
        return str(peer[0])
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return f"{IPv6Address(int(found) >> 64 << 64)}/64"
    return str(found)
