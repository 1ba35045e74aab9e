"""Times as people type them: a span ("30m", "2h", "1d12h", "1w") or an RFC 3339 time. Nothing cleverer, so nothing is guessed."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from services.cli.shared.exits import ExitCode, Failure

_UNIT_S = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_SPAN = re.compile(r"(?:(\d{1,3})w)?(?:(\d{1,5})d)?(?:(\d{1,6})h)?(?:(\d{1,8})m)?(?:(\d{1,10})s)?")
#: Longer ones would leave the years that a time is taken from (1970 to 2100).
_SPAN_MAX_S = 366 * 86_400


def is_span(text: str) -> bool:
    """Whether it is meant as a span rather than a time."""
    return bool(text) and _SPAN.fullmatch(text) is not None


def span_s(text: str, option: str) -> int:
    """Seconds of a span. Raises Failure for what is none."""
    found = _SPAN.fullmatch(text)
    seconds = sum(int(n or 0) * _UNIT_S[unit] for n, unit in zip(found.groups(), _UNIT_S)) if found else 0
    if not 0 < seconds <= _SPAN_MAX_S:
        raise Failure(
            f"{option}: {text!r} is not a duration; expected something like 30m, 2h, 1d12h or 1w, up to a year",
            ExitCode.USAGE,
        )
    return seconds


def span(text: str, option: str) -> str:
    """A span as the server reads it, which takes one unit only. Raises Failure for what is none."""
    return f"{span_s(text, option)}s"


def past(text: str, option: str) -> str:
    """RFC 3339 of a time, or of a span ago."""
    return _rfc3339(time.time() - span_s(text, option)) if is_span(text) else _time(text, option)


def future(text: str, option: str) -> str:
    """RFC 3339 of a time, or of a span from now."""
    return _rfc3339(time.time() + span_s(text, option)) if is_span(text) else _time(text, option)


def _time(text: str, option: str) -> str:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Failure(
            f"{option}: {text!r} is not a time; expected a duration like 30m or 2h, or RFC 3339 with its offset, "
            "like 2026-01-31T12:00:00Z",
            ExitCode.USAGE,
        )
    return at.isoformat().replace("+00:00", "Z")


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
