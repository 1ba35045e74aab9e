"""What an alert is: labels make its identity, the service among them decides its place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec
import xxhash

#: Prometheus' data model: label names other than these are refused, as Alertmanager does.
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
#: Bytes of a series id.
SERIES_ID_BYTES = 16
#: Bytes of an alert key: the series id, then 8 bytes that change with anything else an alert says except its end.
ALERT_KEY_BYTES = 24

#: Fingerprints remembered in a process that reads alerts: about 300 bytes each.
FINGERPRINTS_MAX = 131_072

_fingerprints: dict[bytes, str] = {}
_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3
_SEPARATOR = b"\xff"
_identity_encoder = msgspec.msgpack.Encoder()


class Content(msgspec.Struct, frozen=True, array_like=True):
    """All that an alert says except when it ends. Times are seconds since the epoch, UTC.

    `starts_at` is never 0: a sender that gives none gets the time of arrival.
    """

    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: float
    generator_url: str = ""
    source: str = ""


def service_of(labels: Mapping[str, str], names: Sequence[str]) -> str:
    """The service an alert belongs to: the first of `names` that it has, else its alertname, else "unknown". Total."""
    for name in names:
        value = labels.get(name)
        if value:
            return value
    return labels.get("alertname") or "unknown"


def series_id(tenant: str, labels: Mapping[str, str]) -> bytes:
    """16 bytes that name a label set within a tenant, whatever the order of its labels.

    xxh3_128 over MessagePack of tenant and sorted pairs, in which no two label sets look alike. Never changes:
    logs hold it. Not for use where an attacker gains by a collision: the audit chain has blake2b.
    """
    return xxhash.xxh3_128_digest(_identity_encoder.encode((tenant, sorted(labels.items()))))


def content_digest(*parts: bytes) -> bytes:
    """8 bytes that change when any of `parts` changes."""
    return xxhash.xxh3_64_digest(_SEPARATOR.join(parts))


def fingerprint(labels: Mapping[str, str]) -> str:
    """Alertmanager's fingerprint: 16 hex digits of FNV-1a 64 over sorted `name 0xFF value 0xFF`.

    13 us in Python, so it is computed when an alert is read, never when one arrives, and then remembered.
    """
    identity = _identity_encoder.encode(sorted(labels.items()))
    found = _fingerprints.get(identity)
    if found is None:
        if len(_fingerprints) >= FINGERPRINTS_MAX:
            _fingerprints.clear()
        found = _fingerprints[identity] = _fnv1a(labels)
    return found


def _fnv1a(labels: Mapping[str, str]) -> str:
    value = _FNV_OFFSET
    for name in sorted(labels):
        for byte in name.encode() + _SEPARATOR + labels[name].encode() + _SEPARATOR:
            value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"
