"""The paths of a format, and what a segment in braces stands for. Used by services/ingest/doors/http.py, services/api and table.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.ingest.formats.format import Format

_BRACES = re.compile(r"\{[a-z_]+\}")


def paths_of(kind: type[Format]) -> Mapping[str, tuple[str, ...]]:
    """Every path of a format with the methods that it takes there, its own path first."""
    return {kind.path: kind.methods, **kind.more_paths}


@cache
def pattern_of(path: str) -> re.Pattern[str]:
    """What a path with segments in braces matches, as a whole."""
    return re.compile("[^/]+".join(map(re.escape, _BRACES.split(path))))
