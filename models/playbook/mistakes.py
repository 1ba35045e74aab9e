"""What is wrong with a playbook, collected while it is read: a person gets all of it at once, each with its line and the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

from models.errors import Malformed

#: Mistakes that one error names. Somebody who made more has one cause for most of them.
SHOWN_MAX = 20


@dataclass(slots=True)
class Mistakes:
    """Of one file."""

    file: str
    found: list[tuple[int, str]] = field(default_factory=list)
    warned: list[tuple[int, str]] = field(default_factory=list)

    def wrong(self, line: int, where: str, what: str) -> None:
        self.found.append((line, f"{where}: {what}" if where else what))

    def warn(self, line: int, where: str, what: str) -> None:
        self.warned.append((line, f"{where}: {what}" if where else what))

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(f"{self.file}:{line}: {what}" for line, what in sorted(self.warned))

    def raise_any(self) -> None:
        """Raises Malformed with all that is wrong, one a line, in the order of the file."""
        if not self.found:
            return
        lines = [f"{self.file}:{line}: {what}" for line, what in sorted(self.found)]
        if len(lines) > SHOWN_MAX:
            lines = [*lines[:SHOWN_MAX], f"{self.file}: and {len(lines) - SHOWN_MAX} more"]
        raise Malformed("\n".join(lines))


def near(word: str, known: Iterable[str], *, all_of: bool = True) -> str:
    """`; did you mean 'x'?`, or what there is when nothing is near."""
    names = list(known)
    found = difflib.get_close_matches(word, names, 1, 0.6)
    if found:
        return f"; did you mean {found[0]!r}?"
    return f" (there are: {', '.join(names)})" if all_of and 0 < len(names) <= 40 else ""
