"""What a gateway learned about alerts that it has seen before: key and slot, found by the bytes that were sent.

Nine of ten alerts in an outage were sent before, to the byte. So a format cuts an alert into raw slices, hashes them
(1.4 us), and finds what it learned when it first saw those bytes: key and slot. Only new bytes are decoded and checked
(6 us). Remembered bytes were valid, so a hit needs no check.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from models.alerts.alert import Content, said_digest, series_id, service_of
from models.errors import Malformed
from models.partition.sharding import slot_of
from services.ingest.formats.fields import (
    ALERT_MAX_BYTES,
    LABEL_VALUE_MAX_BYTES,
    TIME_EXPECTED,
    read_pairs,
    read_time,
)
from services.ingest.formats.json_text import echo
from services.ingest.rules import Ruled, Rules

#: Alerts a gateway remembers, in each of two generations, unless the settings say (server.remembered_alerts): about 300 bytes
#: each.
REMEMBERED_MAX = 262_144
#: Label sets remembered in each of two generations, as a part of the alerts, and how long one may be as it was sent: 1.2 kB
#: each.
LABELS_PART = 16
LABELS_MAX_BYTES = 1024
#: Services whose slot is remembered: a few megabytes. That of a longer name is worked out each time.
SERVICES_MAX = 16_384
SERVICE_CHARS_MAX = 128
#: End times remembered: one evaluation of a rule group gives all its alerts one.
TIMES_MAX = 16_384
#: Characters of a sender's name.
SOURCE_NAME_MAX = 120

#: Keyed by a random beginning: blake2b has no length extension, so that is as good as its own key, which would fill a
#: block of its own with each alert. Copied, not made anew, which saves a third of the time.
_seen = blake2b(os.urandom(32), digest_size=16)
_body_encoder = msgspec.msgpack.Encoder()


class Memory(msgspec.Struct, gc=False):
    """What a gateway learned of some bytes: their key and slot, their start (0.0: none given), whether their
    shard has confirmed to know the key, so that the rest need not be sent again, where they say they come from, and what
    the rules made of them (None: there are no rules).

    Out of the garbage collector's sight: half a million of these made its full collections a fifth of the
    gateway's time.
    """

    key: bytes
    slot: int
    starts: float
    is_known: bool = False
    source: str = ""
    ruled: Ruled | None = None


class KnownLabels(msgspec.Struct, gc=False):
    """A label set that was read and, once an alert with it was learned, its series id and slot."""

    pairs: dict[str, str]
    series: bytes = b""
    slot: int = 0


class Remembered:
    """Memory by what was sent. Two generations: the young one is full -> the old one is dropped."""

    def __init__(
        self,
        tenant: str,
        service_labels: tuple[str, ...],
        max_alert_bytes: int = ALERT_MAX_BYTES,
        max_alerts: int = REMEMBERED_MAX,
    ) -> None:
        self.tenant = tenant
        self._max_alerts = max_alerts
        self.max_alert_bytes = max_alert_bytes
        self.service_labels = service_labels
        #: find() of most alerts, for who has no time for a call.
        self.young: dict[bytes, Memory] = {}
        self._old: dict[bytes, Memory] = {}
        #: time() of most, likewise.
        self.times: dict[bytes, float] = {}
        self._slots: dict[str, int] = {}
        self._newest: Memory | None = None
        self._labels: dict[bytes, KnownLabels] = {}
        self._old_labels: dict[bytes, KnownLabels] = {}
        #: Hashes of labels that were read once. Two that are alike cost a little memory and nothing else.
        self._labels_met: set[int] = set()
        self._labels_read = KnownLabels({})
        #: Relabelling and filters; None when there are none.
        self.rules: Rules | None = None

    def go_by(self, rules: Rules | None) -> None:
        """Forget what was learned by other rules."""
        self.rules = rules
        self.young, self._old = {}, {}

    def find(self, seen: bytes) -> Memory | None:
        memory = self.young.get(seen)
        if memory is None:
            memory = self._old.get(seen)
            if memory is not None:
                self._put(seen, memory)
        return memory

    def learn(self, seen: bytes, content: Content, size: int, ruled: Ruled | None = None) -> Memory:
        """Remember a checked alert; its body has `size` bytes. One without a start of its own keeps its key from one request to the next. Raises
        Malformed for one that is too large."""
        if size > self.max_alert_bytes:
            raise Malformed(
                f"labels and annotations: {size} bytes together, at most {self.max_alert_bytes} are allowed "
                "(lifecycle.max_alert_bytes)"
            )
        memory = self.place(content, ruled)
        self._put(seen, memory)
        if self._newest is None or memory.starts > self._newest.starts:
            self._newest = memory
        return memory

    def place(self, content: Content, ruled: Ruled | None = None) -> Memory:
        """What learn() remembers of an alert: where it goes."""
        starts = content.starts_at
        labels = self._labels_read
        if content.labels is not labels.pairs:
            labels = KnownLabels(content.labels)
        if not labels.series:
            labels.series = series_id(self.tenant, content.labels)
            labels.slot = self._slot(service_of(content.labels, self.service_labels))
        key = labels.series + said_digest(content, starts)
        return Memory(key, labels.slot, starts, False, source_of(content), ruled)

    def take_newest(self) -> Memory | None:
        """What began last of all that was learned since this was asked the last time."""
        newest, self._newest = self._newest, None
        return newest

    def labels(self, raw: bytes, *, bad_name: str = "") -> dict[str, str]:
        """read_pairs() of labels, remembered: what says something new mostly does so by labels that were sent before. Nobody
        may change them. Raises Malformed."""
        known = self._labels.get(raw)
        if known is None:
            known = self._old_labels.get(raw)
            met_before = known is not None
            if known is None:
                known = KnownLabels(read_pairs(raw, "labels", LABEL_VALUE_MAX_BYTES, bad_name=bad_name))
                # Kept when they come again: most of a flood of new series never do, or as the same bytes.
                mark = hash(raw)
                met_before = mark in self._labels_met
                if not met_before:
                    if len(self._labels_met) >= self._max_alerts:
                        self._labels_met.clear()
                    self._labels_met.add(mark)
            if met_before and len(raw) <= LABELS_MAX_BYTES:
                if len(self._labels) >= self._max_alerts // LABELS_PART:
                    self._old_labels, self._labels = self._labels, {}
                self._labels[raw] = known
        self._labels_read = known
        return known.pairs

    def _slot(self, service: str) -> int:
        slot = self._slots.get(service)
        if slot is None:
            slot = slot_of(self.tenant, service)
            if len(self._slots) < SERVICES_MAX and len(service) <= SERVICE_CHARS_MAX:
                self._slots[service] = slot
        return slot

    def time(self, raw: bytes, field: str) -> float:
        """read_time(), remembered: an evaluation gives all its alerts one end. Raises Malformed."""
        found = self.times.get(raw)
        if found is None:
            found = read_time(raw, field)
            if len(self.times) >= TIMES_MAX:
                self.times.clear()
            self.times[raw] = found
        return found

    def start(self, raw: bytes, field: str) -> float:
        """The same of what can't be never. Raises Malformed."""
        at = self.time(raw, field)
        if at == math.inf:
            raise Malformed(f"{field}: {TIME_EXPECTED}, got {echo(raw)}")
        return at

    def _put(self, seen: bytes, memory: Memory) -> None:
        if len(self.young) >= self._max_alerts:
            self._old, self.young = self.young, {}
        self.young[seen] = memory


def source_of(content: Content) -> str:
    """The name of an alert's sender: the host in its link, else its source."""
    if not content.generator_url:
        return sys.intern(content.source[:SOURCE_NAME_MAX])
    host = content.generator_url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    return sys.intern((host or content.source)[:SOURCE_NAME_MAX])


def encode_body(content: Content) -> bytes:
    return _body_encoder.encode(content)


def seen_digest(raws: Iterable[bytes | msgspec.Raw]) -> bytes:
    """16 bytes by which a gateway recognizes what it has seen before. Its key is random and never stored: nobody can
    craft an alert that is mistaken for another."""
    digest = _seen.copy()
    digest.update(b"\xff".join(raws))
    return digest.digest()
