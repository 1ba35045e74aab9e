"""Bodies that came before, and the alerts that they hold: nothing of such a body is read again but its digest. Used by webhook.py.

What a sender repeats is the same to the byte, and reading JSON that somebody else made up costs 20 to 100 us an alert; a digest
costs one for each kilobyte. Only what the bytes say is kept, as bytes: rules, shards and senders have their say each time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

import msgspec

#: Bytes kept, in each of two generations: some 8,000 alerts of a kilobyte, more than a sender has open that says them again. Beside
#: what a gateway remembers of alerts (remembered.py) it is little.
KEPT_MAX_BYTES = 8 * 1024 * 1024
#: One body may have so much of that, or a few large ones would push all others out.
BODY_KEPT_MAX_BYTES = KEPT_MAX_BYTES // 16
#: A longer body is not looked for: its digest would hold up the others for longer than 0.3 ms, and 300 alerts fit.
BODY_MAX_BYTES = 256 * 1024
#: What a kept alert and a kept body take beside what is said in them.
ALERT_BYTES, BODY_BYTES = 200, 400
#: Digests of bodies that came once, 100 bytes each. Two that are alike cost a little memory and nothing else.
MET_MAX = 32_768

#: Keyed by chance, as in remembered.py: nobody can make a body that is taken for another one.
_seen = blake2b(os.urandom(32), digest_size=16)
_encode = msgspec.msgpack.Encoder().encode


class KnownAlert(msgspec.Struct, frozen=True, gc=False):
    """An alert that fires: what it says, as WebhookFormat.take() encodes it, and its end as written."""

    said: bytes
    ends: bytes


class Fired(NamedTuple):
    """What an alert is found by at its end, and the very labels that open_alerts.py holds under that."""

    key: tuple[str, ...]
    labels: Mapping[str, str]


class KnownBody(msgspec.Struct, frozen=True, gc=False):
    """What a body holds. `note` is what its format wants to know again when it answers."""

    alerts: tuple[KnownAlert, ...]
    fired: tuple[Fired, ...]
    note: str

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        said = sum(len(alert.said) + len(alert.ends) for alert in self.alerts)
        return BODY_BYTES + said + ALERT_BYTES * (len(self.alerts) + len(self.fired))


class KnownBodies:
    """One a gateway. Two generations: the young one is full -> the old one is dropped. All of it goes when settings change."""

    def __init__(self, max_bytes: int = KEPT_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._young: dict[bytes, KnownBody] = {}
        self._old: dict[bytes, KnownBody] = {}
        self._young_bytes = 0
        self._met: set[int] = set()
        self._settings: object = None

    def find(self, digest: bytes, settings: object) -> KnownBody | None:
        """What was kept under these settings."""
        if settings is not self._settings:
            self._settings = settings
            self._young, self._old, self._young_bytes = {}, {}, 0
            return None
        known = self._young.get(digest)
        if known is None:
            known = self._old.pop(digest, None)
            if known is not None:
                self._put(digest, known)
        return known

    def came_before(self, digest: bytes) -> bool:
        """Whether this was asked before. Most of what is new comes once, and is not worth keeping."""
        mark = hash(digest)
        if mark in self._met:
            return True
        if len(self._met) >= MET_MAX:
            self._met.clear()
        self._met.add(mark)
        return False

    def keep(self, digest: bytes, known: KnownBody, settings: object) -> None:
        """Keep what was read under these settings."""
        if settings is self._settings and known.size <= min(BODY_KEPT_MAX_BYTES, self._max_bytes):
            self._put(digest, known)

    def _put(self, digest: bytes, known: KnownBody) -> None:
        before = self._young.pop(digest, None)
        if before is not None:
            self._young_bytes -= before.size
        if self._young_bytes + known.size > self._max_bytes:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        self._young[digest] = known
        self._young_bytes += known.size


def body_digest(said: tuple[object, ...], body: bytes) -> bytes:
    """16 bytes for a body and what is `said` beside it that matters to its format."""
    digest = _seen.copy()
    # MessagePack says itself where it ends.
    digest.update(_encode(said))
    digest.update(body)
    return digest.digest()
