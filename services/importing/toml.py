"""Writes settings as TOML, with a comment above each table that says where it comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Inline(dict[str, object]):
    """A table within a line: a secret's place."""


@dataclass(slots=True)
class Table:
    """`[name]`, or `[[name]]` of a list. Empty ones are written too if they have a comment."""

    name: tuple[str, ...]
    values: Mapping[str, object]
    comment: str = ""
    is_of_list: bool = False


@dataclass(slots=True)
class Document:
    head: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def add(
        self, *name: str, values: Mapping[str, object], comment: str = "", is_of_list: bool = False
    ) -> None:
        self.tables.append(Table(name, values, comment, is_of_list))

    def text(self) -> str:
        parts = ["".join(f"# {line}\n" if line else "#\n" for line in self.head)]
        for table in self.tables:
            name = ".".join(map(_key, table.name))
            lines = [f"# {table.comment}"] if table.comment else []
            lines.append(f"[[{name}]]" if table.is_of_list else f"[{name}]")
            lines += [f"{_key(key)} = {written(value)}" for key, value in table.values.items()]
            parts.append("\n".join(lines) + "\n")
        return "\n".join(part for part in parts if part)


def written(value: object) -> str:
    """A value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {written(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    # JSON's escapes are TOML's. DEL is none of JSON's, and what is half a character is none of either.
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else written(name)
