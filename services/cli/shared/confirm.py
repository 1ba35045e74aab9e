"""Asking a person before something is done to several incidents: on their terminal, whatever goes through the pipes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from services.cli.shared import terminal as look
from services.cli.shared.output import Row

#: Of what a question is about, so many are shown.
SHOWN = 10


def terminal() -> str | None:
    """Where a person can be asked, None where nobody is. Ids may come by stdin while somebody sits before the screen."""
    if not (sys.stdin.isatty() or sys.stdout.isatty()):
        return None
    try:
        with open("/dev/tty", encoding="utf-8"):
            return "/dev/tty"
    except OSError:
        return None


def agrees(place: str, verb: str, count: int, rows: Sequence[Row]) -> bool:
    """Whether the person at this terminal says yes; the first incidents are shown to them."""
    lines = [
        f"{look.plain(row['id'])}  {look.plain(row['severity'])} {look.plain(row['state'])}  {look.plain(row['title'])}"
        for row in rows[:SHOWN]
    ]
    lines += [f"and {count - SHOWN:,} more"] if count > SHOWN else []
    number = "this incident" if count == 1 else f"all {count:,} incidents"
    with open(place, "w", encoding="utf-8", errors="replace") as person:
        person.write("\n".join([*lines, f"{verb.capitalize()} {number}? [y/N] "]))
    with open(place, encoding="utf-8", errors="replace") as person:
        return person.readline().strip().lower() in ("y", "yes")
