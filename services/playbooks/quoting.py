"""What templates of queries see: the same, but no text can end the string of PromQL or LogQL that it stands in. Labels come with
alerts, from whoever may send them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def quoted(value: Any) -> Any:
    """The same with every text in it escaped for a string in any quotes: by number, which all of them understand; in a raw string
    the escape stays as it is, and ends nothing either."""
    if isinstance(value, str):
        return _escaped(value)
    if isinstance(value, Mapping):
        return {name: quoted(each) for name, each in value.items()}
    return [quoted(each) for each in value] if isinstance(value, list | tuple) else value


def _escaped(text: str) -> str:
    if text.isalnum():
        return text
    for character in "\\\"'`\n\r":
        if character in text:
            text = text.replace(character, f"\\x{ord(character):02x}")
    return text
