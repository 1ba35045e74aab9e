"""What an alert is: its labels are its identity, and the service among them decides which shard it goes to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import chain

import msgspec
import xxhash

#: Prometheus' names before its version 3. Such a name needs no quotes wherever labels are written.
PLAIN_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
#: Bytes of a series id.
SERIES_ID_BYTES = 16
#: Bytes of the keys that 0.2.0 and older made, with xxh3. Logs and snapshots hold them; only their length tells them
#: from keys of today.
OLD_KEY_BYTES = 24

#: Fingerprints remembered in a process that reads alerts: 200 to 450 bytes each, since a label set of more than
#: WHOLE_MAX_BYTES is remembered by its digest.
FINGERPRINTS_MAX = 131_072
WHOLE_MAX_BYTES = 256
#: Below this many, computing them together costs more than one by one.
TOGETHER_LEAST = 32
#: Longer label sets are computed one by one: together, each is padded to the longest, times eight.
TOGETHER_MAX_BYTES = 1024

_fingerprints: dict[bytes, str] = {}
_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3
_SEPARATOR = b"\xff"
_identity_encoder = msgspec.msgpack.Encoder()


class Content(msgspec.Struct, frozen=True, array_like=True):
    """The content of an alert except its end. Times are seconds since the epoch, UTC. `starts_at` is by its sender's
    clock, 0 if the sender gave none: then it starts when it reaches its shard. (In older bodies it is then the time of
    arrival.)
    """

    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: float
    generator_url: str = ""
    source: str = ""


class _Labels(msgspec.Struct, array_like=True, gc=False):
    """A Content of which only the labels are needed, not decoded yet."""

    labels: msgspec.Raw


_labels_decoder = msgspec.msgpack.Decoder(_Labels)
_pairs_decoder = msgspec.msgpack.Decoder(dict[str, str])


def service_of(labels: Mapping[str, str], names: Sequence[str]) -> str:
    """The service an alert belongs to: the first of `names` that it has, else its alertname, else "unknown". Total."""
    for name in names:
        value = labels.get(name)
        if value:
            return value
    return labels.get("alertname") or "unknown"


def series_id(tenant: str, labels: Mapping[str, str]) -> bytes:
    """16 bytes that name a label set within a tenant, whatever the order of its labels.

    blake2b-128 over MessagePack of tenant and sorted pairs, in which no two label sets look alike. Never changes: logs
    hold it. Cryptographic, because somebody who finds a second label set for an id could hide the alert with the first.
    """
    return key_digest(_identity_encoder.encode((tenant, sorted(labels.items()))))


def old_series_id(tenant: str, labels: Mapping[str, str]) -> bytes:
    """The same as 0.2.0 and older made it. For series that logs and snapshots hold, never for new ones."""
    return xxhash.xxh3_128_digest(_identity_encoder.encode((tenant, sorted(labels.items()))))


def alert_key(tenant: str, content: Content, starts: float) -> bytes:
    """32 bytes that identify an alert's content except its end: the series id, then a digest of the rest. `starts` is 0
    where the sender gave no start: such an alert keeps its key from one request to the next."""
    return series_id(tenant, content.labels) + said_digest(content, starts)


def said_digest(content: Content, starts: float) -> bytes:
    """The second half of an alert key: of all but the labels."""
    said = (sorted(content.annotations.items()), content.generator_url, content.source, starts)
    return key_digest(_identity_encoder.encode(said))


def key_digest(data: bytes) -> bytes:
    """Half of an alert key: 16 bytes for which nobody can find other data."""
    return blake2b(data, digest_size=SERIES_ID_BYTES).digest()


def same_labels(one: bytes, other: bytes) -> bool:
    """Whether two bodies (MessagePack of Content) have the same labels. Raises what msgspec does for what is no body."""
    if one == other:
        return True
    mine, theirs = _labels_decoder.decode(one).labels, _labels_decoder.decode(other).labels
    # As bytes they differ also when only their order does.
    return bytes(mine) == bytes(theirs) or _pairs_decoder.decode(mine) == _pairs_decoder.decode(theirs)


def content_digest(*parts: bytes) -> bytes:
    """8 bytes that change when any of `parts` changes. Only for comparing what one caller sent twice: it is not a
    cryptographic hash."""
    return xxhash.xxh3_64_digest(_SEPARATOR.join(parts))


def fingerprint(labels: Mapping[str, str]) -> str:
    """Alertmanager's fingerprint: 16 hex digits of FNV-1a 64 over sorted `name 0xFF value 0xFF`.

    13 us in Python, so it is computed when an alert is read, never when one arrives, and then remembered.
    """
    return fingerprints([labels])[0]


def fingerprints(label_sets: Sequence[Mapping[str, str]]) -> list[str]:
    """fingerprint() of each, in order. Many new ones are computed together: 1.5 us each."""
    said = [_said(labels) for labels in label_sets]
    # The zero tells a digest from a label set, which ends in 0xFF.
    names = [each if len(each) <= WHOLE_MAX_BYTES else key_digest(each) + b"\0" for each in said]
    unknown = {name: each for name, each in zip(names, said, strict=True) if name not in _fingerprints}
    if len(_fingerprints) + len(unknown) > FINGERPRINTS_MAX:
        _fingerprints.clear()
        unknown = dict(zip(names, said, strict=True))
    together = {name: each for name, each in unknown.items() if len(each) <= TOGETHER_MAX_BYTES}
    if len(together) >= TOGETHER_LEAST:
        for name, value in zip(together, _fnv1a_together([*together.values()]), strict=True):
            _fingerprints[name] = f"{value:016x}"
    for name, each in unknown.items():
        if name not in _fingerprints:
            _fingerprints[name] = f"{_fnv1a(each):016x}"
    return [_fingerprints[name] for name in names]


def _said(labels: Mapping[str, str]) -> bytes:
    # An escaped surrogate is the byte 0xFF, which no UTF-8 holds: joined and encoded at once.
    return ("\udcff".join(chain.from_iterable(sorted(labels.items()))) + "\udcff").encode(
        "utf-8", "surrogateescape"
    )


def _fnv1a(text: bytes) -> int:
    value = _FNV_OFFSET
    for byte in text:
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return value


def _fnv1a_together(texts: Sequence[bytes]) -> list[int]:
    """_fnv1a() of each: a byte of all at a time, the longest first, so that those under way are always the first ones."""
    # Here, because most processes never need it and it takes 0.1 s.
    import numpy as np

    order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
    lengths = [len(texts[place]) for place in order]
    rows = b"".join(texts[place].ljust(lengths[0]) for place in order)
    columns = np.frombuffer(rows, np.uint8).reshape(len(texts), lengths[0]).T.astype(np.uint64)
    values = np.full(len(texts), _FNV_OFFSET, np.uint64)
    prime, under_way = np.uint64(_FNV_PRIME), len(texts)
    for place, column in enumerate(columns):
        while lengths[under_way - 1] <= place:
            under_way -= 1
        values[:under_way] ^= column[:under_way]
        values[:under_way] *= prime  # overflow is what FNV wants: the product's last 64 bits
    found = [0] * len(texts)
    for place, value in zip(order, values.tolist(), strict=True):
        found[place] = value
    return found
