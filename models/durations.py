"""Durations as people write them: "30s", "5m", "90d". Used by settings and by the parameters of playbooks' actions."""

from __future__ import annotations

import re

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*\Z")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def duration_s(value: object) -> object:
    """Seconds from "30s", "5m", "90d". "1h30m" is not supported: one number, one unit. Numbers are seconds already."""
    if isinstance(value, str):
        match = _DURATION.match(value)
        if match is None:
            raise ValueError(f'expected a duration such as "30s", "5m", "1h" or "90d", not {value!r}')
        return float(match[1]) * _UNIT_S[match[2]]
    if isinstance(value, bool):
        raise ValueError(f'expected a duration such as "30s", not {str(value).lower()}')
    return value


def duration_text(seconds: float) -> str:
    """The shortest way to write a duration exactly: 300.0 is "5m"."""
    for unit in ("d", "h", "m", "s", "ms"):
        count = seconds / _UNIT_S[unit]
        if count >= 1 and abs(count - round(count)) < 1e-9 * count:
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"


def per_second(rate: str) -> float:
    """A rate as people write it, "60/m", in times a second."""
    count, _, unit = rate.partition("/")
    return int(count) / _UNIT_S[unit]
