"""Which Alertmanagers answer at one address, by what they say at `/api/v2/status`. Used by alertmanager.py.

An Alertmanager keeps no alerts on disk: it starts with an empty list, and Prometheus sends again within some minutes what fires. A list
does not say whose it is. So whoever polls asks for the status again and again, and a list is believed at once only while one
Alertmanager answers here, which has run for long enough, and with it all that it calls its cluster: those may stand behind the same
address, and may not have been met yet.
"""

from __future__ import annotations

import msgspec

from models.errors import Malformed
from services.ingest.formats.values import time_of

#: Starts that are remembered: of more at one address nothing is believed at once anyway.
SEEN_MAX = 16
#: Members of a cluster that are looked at; real ones have three.
PEERS_MAX = 100
#: How a ULID is written, which members of a cluster are called by: its first ten characters are the time at which it was made.
_DIGITS = {digit: value for value, digit in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_ULID_CHARS, _TIME_CHARS = 26, 10


class _Status(msgspec.Struct, gc=False):
    uptime: str
    cluster: msgspec.Raw = msgspec.Raw(b"{}")


class _Member(msgspec.Struct, gc=False):
    name: str = ""


class _Cluster(msgspec.Struct, gc=False):
    status: str = ""
    peers: list[_Member] | None = None


_status_decoder = msgspec.json.Decoder(_Status)
_cluster_decoder = msgspec.json.Decoder(_Cluster)
_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


class Instances:
    """Those at one address. `settle_s` is how long one must have run before its list is whole."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        #: When each that answered was started, by its own clock, and when it answered last, by ours.
        self._seen: dict[float, float] = {}
        #: Until when a member of the cluster is too young, by our clock.
        self._young_until = 0.0

    def saw(self, status: bytes, there: float, now: float) -> bool:
        """One of them said this, at `there` by its clock and `now` by ours. Whether it has settled. Raises Malformed when it does not
        say since when it runs."""
        try:
            said = _status_decoder.decode(status)
        except _UNREADABLE:
            raise Malformed("expected a status with its uptime") from None
        started = time_of(said.uptime, "uptime")
        if not started:
            raise Malformed("uptime: it is missing")
        self._seen.pop(started, None)
        self._seen[started] = now
        if len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        self._young_until = max(self._young_until, now + self._until_settled(bytes(said.cluster), there))
        return there - started >= self._settle_s

    def is_one(self, now: float) -> bool:
        """Whether only one answered in the last time, and no other can be expected to answer with a list that is not whole."""
        self._seen = {
            started: last for started, last in self._seen.items() if now - last < max(self._settle_s, 1.0)
        }
        return len(self._seen) == 1 and now >= self._young_until

    def _until_settled(self, cluster: bytes, there: float) -> float:
        """How long until all members of a cluster have settled; 0.0 when they have, or nothing is known of them."""
        try:
            said = _cluster_decoder.decode(cluster)
        except _UNREADABLE:
            return 0.0
        starts = [_made_at(each.name) for each in (said.peers or ())[:PEERS_MAX]]
        ages = [there - each for each in starts if each is not None]
        left = [self._settle_s - age for age in ages if -self._settle_s < age < self._settle_s]
        # It has just joined, or is looking for the others.
        return max([*left, self._settle_s if said.status == "settling" else 0.0], default=0.0)


def _made_at(name: str) -> float | None:
    """When a ULID was made, in seconds since the epoch; None for a name that is none."""
    if len(name) != _ULID_CHARS or not all(digit in _DIGITS for digit in name):
        return None
    value = 0
    for digit in name[:_TIME_CHARS]:
        value = value * len(_DIGITS) + _DIGITS[digit]
    return value / 1000
