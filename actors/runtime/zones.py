"""Time zones by their names, as this machine has them."""

from __future__ import annotations

import functools
import zoneinfo
from datetime import tzinfo

from models.errors import Malformed

#: Of the longest name there is, twice.
NAME_MAX = 64


@functools.cache
def names() -> frozenset[str]:
    """Those that can be named."""
    return frozenset(zoneinfo.available_timezones())


def zone_of(name: str) -> tzinfo:
    """Raises Malformed for one that there is not."""
    if len(name) > NAME_MAX or (name != "UTC" and name not in names()):
        raise Malformed(f"time_zone: expected a name such as Europe/Berlin or UTC, got {name[:NAME_MAX]!r}")
    return zoneinfo.ZoneInfo(name)
