"""What one rendering may use up: every step and every size is counted, so that a template that loops for ever or explodes ends after
the same count on every machine (models/playbook/sandbox.py asks before each step that can be large).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.errors import Malformed, TooLarge

#: Steps of one rendering: some 30 ms of work at worst. A long message about fifty alerts takes about two thousand.
STEPS_MAX = 100_000
#: Characters of one text: what a template makes, and every text on the way to it. No receiver takes more than 40,000.
TEXT_MAX = 64 * 1024
#: Items of one list, tuple or object that a template makes, those within it counted too.
ITEMS_MAX = 10_000
#: Bits of a whole number: far beyond any measurement, and short of what takes long to write down.
INTEGER_BITS_MAX = 1024
#: Characters that cost as much as one step.
_TEXT_UNIT = 256


class Budget:
    """Steps left. Raises TooLarge when they are used up, or when one value is larger than any may be."""

    __slots__ = ("left",)

    def __init__(self, steps: int = STEPS_MAX) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise TooLarge(
                f"template: more than {STEPS_MAX:,} steps: it loops too long or makes too much text; loop over less"
            )

    def text(self, chars: int) -> None:
        """A text of so many characters is about to be made."""
        if chars > TEXT_MAX:
            raise TooLarge(f"template: a text of more than {TEXT_MAX:,} characters")
        self.spend(1 + chars // _TEXT_UNIT)

    def items(self, count: int) -> None:
        """A list of so many items is about to be made."""
        _few(count)
        self.spend(1 + count)

    def integer(self, bits: int) -> None:
        """A whole number of so many bits is about to be made."""
        if bits > INTEGER_BITS_MAX:
            raise TooLarge(f"template: a number of more than {INTEGER_BITS_MAX} bits")
        self.spend(1)

    def look(self, value: object) -> None:
        """It is about to be read through, without what lies within its items."""
        if isinstance(value, str):
            self.spend(1 + len(value) // _TEXT_UNIT)
        elif isinstance(value, list | tuple | Mapping):
            self.spend(1 + len(value))
        else:
            self.spend(1)

    def look_through(self, value: object) -> int:
        """It is about to be read through, with all that lies within. Returns how many characters it has as text, about. Raises
        Malformed for what is not plain data, and so would be written in Python's terms."""
        chars, waiting = 0, [value]
        while waiting:
            at = waiting.pop()
            self.look(at)
            if isinstance(at, str):
                chars += len(at) + 4  # quotes, a comma and a space
            elif isinstance(at, Mapping):
                waiting.extend(at.keys())
                waiting.extend(at.values())
                chars += 4
            elif isinstance(at, list | tuple):
                waiting.extend(at)
                chars += 4
            elif isinstance(at, int):
                chars += 4 + at.bit_length() // 3
            elif at is None or isinstance(at, float):
                chars += 24
            else:
                raise Malformed("template: only numbers, texts, lists and objects can be written")
        return chars

    def made(self, value: Any) -> Any:
        """A value that a template made. Raises TooLarge when it, with all that lies within, is larger than any may be."""
        if isinstance(value, str):
            self.text(len(value))
        elif isinstance(value, int):
            self.integer(value.bit_length())
        elif isinstance(value, list | tuple | Mapping):
            items, waiting = 0, [value]
            while waiting:
                at = waiting.pop()
                items += len(at)
                _few(items)
                self.spend(1 + len(at))
                within = (*at.keys(), *at.values()) if isinstance(at, Mapping) else at
                waiting.extend(each for each in within if isinstance(each, list | tuple | Mapping))
        return value


def _few(items: int) -> None:
    if items > ITEMS_MAX:
        raise TooLarge(f"template: a list of more than {ITEMS_MAX:,} items, those within it counted")
