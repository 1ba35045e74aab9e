"""The month (UTC) that an incident's id says it was made in: what archives are divided by. Used by
services/stores/sqlite/archive_files.py and services/stores/postgres/archive_months.py.

A UUIDv7 begins with its millisecond, so whoever has an id knows where it is, and an incident that is put again meets
itself.
"""

from __future__ import annotations

from datetime import UTC, datetime

#: The last time that a name can say; ids of later ones share its month.
_LAST_MS = 253_402_300_799_999
#: Before and behind every id.
_LEAST, _MOST = b"", b"\xff" * 17


def month_of(incident_id: bytes) -> str:
    """The month, like 2026-11, of an id or of its beginning."""
    at_ms = int.from_bytes(incident_id[:6].ljust(6, b"\0"), "big")
    return f"{datetime.fromtimestamp(min(at_ms, _LAST_MS) / 1000, UTC):%Y-%m}"


def ids_of(month: str) -> tuple[bytes, bytes]:
    """(first, end): the ids of a month are those with first <= id < end, and every id is of one month."""
    year, number = map(int, month.split("-"))
    following = f"{year + number // 12:04d}-{number % 12 + 1:02d}"
    return _LEAST if month == "1970-01" else _begins(month), _MOST if month == "9999-12" else _begins(
        following
    )


def _begins(month: str) -> bytes:
    year, number = map(int, month.split("-"))
    return int(datetime(year, number, 1, tzinfo=UTC).timestamp() * 1000).to_bytes(6, "big")
