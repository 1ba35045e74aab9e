"""How a moment is written wherever programs read it: the API, the live stream, the feed in Redis."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

_ZERO_TIME = "0001-01-01T00:00:00.000Z"


@lru_cache(maxsize=16_384)  # 150 bytes each. The alerts of an evaluation share their times.
def timestamp(at: float) -> str:
    """RFC 3339 in UTC with milliseconds; 0 is Go's zero time, which clients read as not set."""
    if at == 0:
        return _ZERO_TIME
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
