"""How things look on a terminal, and plainly elsewhere. Colour is for severity and for what is wrong, nothing else.

All text that came from outside goes through `plain`: a label may hold escape sequences that a terminal obeys.
"""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

#: Into a pipe nothing is cut or wrapped: `grep` and `awk` see whole lines.
_PIPE_WIDTH = 4000
SEVERITY_STYLES = {"P0": "bold white on red", "P1": "bold red", "P2": "yellow", "P3": "cyan", "P4": "dim"}
#: Formatting characters that emoji and Persian are written with; they move nothing.
_JOINERS = "\u200c\u200d"
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def console() -> Console:
    """Writes to stdout; as wide as the terminal, or as wide as it takes."""
    from rich.console import Console

    return Console(
        file=sys.stdout,
        width=None if sys.stdout.isatty() else _PIPE_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines. `right` columns hold numbers."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        made.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    return made


def plain(value: object) -> str:
    """Text that can't steer a terminal: control characters become U+FFFD, a line break a space."""
    text = " ".join(str(value).splitlines())
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        "\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in _JOINERS else c for c in text
    )


def severity(name: str) -> Text:
    """P0 to P4, in colour where there is any."""
    from rich.text import Text

    return Text(plain(name), SEVERITY_STYLES.get(name, ""))


def short_id(identity: str) -> str:
    """An incident's id as a table on a terminal shows it: its last group, which is chance (the first is time)."""
    return identity.rpartition("-")[2] if sys.stdout.isatty() else identity


def since(timestamp: str | None, now: float | None = None) -> str:
    """ "3m", "2h 5m": how long ago an RFC 3339 time was; "-" when there is none."""
    if not timestamp:
        return "-"
    try:
        at = datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        return plain(timestamp)
    return duration((time.time() if now is None else now) - at)


def age(timestamp: str) -> str:
    """ "93m", "26h": since() in one unit, of which there are at least two; as narrow as a column should be."""
    try:
        seconds = max(0, int(time.time() - datetime.fromisoformat(timestamp).timestamp()))
    except ValueError:
        return plain(timestamp)
    return next((f"{seconds // size}{unit}" for unit, size in _UNITS if seconds >= 2 * size), f"{seconds}s")


def when(timestamp: str | None) -> str:
    """ "5m ago", "in 2h": an RFC 3339 time as seen from now."""
    try:
        left_s = datetime.fromisoformat(timestamp or "").timestamp() - time.time()
    except ValueError:
        return plain(timestamp or "-")
    return f"in {duration(left_s)}" if left_s > 0 else f"{duration(-left_s)} ago"


def until(timestamp: str) -> str:
    """ "in 5m", "overdue by 32s": what is left of the time until something must have been done."""
    try:
        left_s = datetime.fromisoformat(timestamp).timestamp() - time.time()
    except ValueError:
        return plain(timestamp)
    return f"in {duration(left_s)}" if left_s > 0 else f"overdue by {duration(-left_s)}"


def duration(seconds: float) -> str:
    """The two largest units of a span: "2d 3h", "45s"."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0s"


def clock_time(at: float) -> str:
    """A time of the log, to the millisecond, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def pairs(labels: dict[str, str]) -> str:
    """Labels as `name=value`, sorted, alertname and service first."""
    first = [name for name in ("alertname", "service") if name in labels]
    rest = sorted(name for name in labels if name not in first)
    return " ".join(f"{plain(name)}={plain(labels[name])}" for name in (*first, *rest))


def counted(counts: Mapping[str, int]) -> str:
    """`3 incidents (2 open), 5 series`: how many are open stands behind what they are."""
    told: list[str] = []
    for what, count in counts.items():
        if what == "open" and told:
            told[-1] += f" ({count:,} {what})"
        else:
            told.append(f"{count:,} {what}")
    return ", ".join(told)
