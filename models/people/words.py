"""What names and lines may look like, for everything that people are made of."""

from __future__ import annotations

import re

from models.errors import Malformed, TooLarge

#: What a path, a shell and a person can write without quotes; a receiver's name is one too.
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
_NAME = re.compile(NAME_PATTERN)


def check_name(field: str, name: str) -> None:
    """Raises Malformed."""
    if _NAME.fullmatch(name) is None:
        raise Malformed(
            f"{field}: expected a name of at most 63 letters, digits, dots, dashes and underscores, got {name[:80]!r}"
        )


def check_line(field: str, text: str, chars_max: int) -> None:
    """Raises Malformed, TooLarge."""
    if len(text) > chars_max:
        raise TooLarge(f"{field}: over {chars_max} characters")
    if not text.isprintable():
        raise Malformed(f"{field}: expected one line without control characters")
