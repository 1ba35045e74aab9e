"""Time zones by their names, as this machine has them."""

from __future__ import annotations

import zoneinfo
from datetime import tzinfo

from models.errors import Malformed

#: Of the longest name there is, twice.
NAME_MAX = 64


def zone_of(name: str) -> tzinfo:
    """Raises Malformed for one that there is not."""
    try:
        if len(name) <= NAME_MAX:
            return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass  # nothing of that name, or no name at all
    raise Malformed(f"time_zone: expected a name such as Europe/Berlin or UTC, got {name[:NAME_MAX]!r}")
