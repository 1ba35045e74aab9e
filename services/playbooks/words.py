"""Words that playbooks write and several actions read: severities, names of people, moments."""

from __future__ import annotations

import re
from typing import Any

from models.durations import duration_s
from models.incidents.incident import Severity

#: PagerDuty's and common words, as services/ingest reads them from senders.
_SEVERITIES = {
    "critical": Severity.P0, "emergency": Severity.P0, "fatal": Severity.P0,
    "error": Severity.P1, "high": Severity.P1, "major": Severity.P1,
    "warning": Severity.P2, "medium": Severity.P2, "moderate": Severity.P2,
    "low": Severity.P3, "minor": Severity.P3,
    "info": Severity.P4, "informational": Severity.P4,
}  # fmt: skip
#: People that one action names.
NAMES_MAX = 100
_RELATIVE = re.compile(r"\+\s*(\S+)")


def severity_of(text: str) -> Severity | None:
    """P0 to P4, or a common word for one; None for anything else."""
    plain = text.strip()
    if plain.upper() in Severity.__members__:
        return Severity[plain.upper()]
    return _SEVERITIES.get(plain.lower())


def names_in(value: Any) -> list[str]:
    """Names out of a name, names by comma, or a list of either; each once, in their order."""
    if value is None:
        return []
    parts = value if isinstance(value, list | tuple) else [value]
    found = [name.strip() for part in parts for name in str(part).split(",")]
    return [*dict.fromkeys(name for name in found if name)][:NAMES_MAX]


def moment_of(text: str, now: float) -> float:
    """Seconds since the epoch of "+24h", or of an RFC 3339 time. Raises ValueError."""
    from datetime import UTC, datetime

    if (relative := _RELATIVE.fullmatch(text.strip())) is not None:
        return now + float(str(duration_s(relative[1])))
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"expected a time such as +24h or 2026-01-31T12:00:00Z, not {text[:40]!r}") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
