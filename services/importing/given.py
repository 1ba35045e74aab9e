"""What an importer reads: maps of a YAML file that know which of their keys were used, and the report of what has no counterpart.
Used by the files beside this one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from models.durations import duration_text
from models.playbook.document import Node

#: Go's and Prometheus' durations: 5m, 1h30m, 1d.
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w|y)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31_536_000.0}
#: YAML 1.1, by which Go reads it, and 1.2.
_TRUE, _FALSE = ("true", "yes", "on", "y"), ("false", "no", "off", "n")


@dataclass(slots=True)
class Report:
    """Lines for a person: where, and what has no counterpart or must be done by hand. No secret is in it."""

    file: str
    said: list[tuple[int, str]] = field(default_factory=list)

    def say(self, line: int, what: str) -> None:
        if (line, what) not in self.said:
            self.said.append((line, what))

    @property
    def lines(self) -> list[str]:
        """In the order of the file."""
        return [f"{self.file}:{line}: {what}" for line, what in sorted(self.said, key=lambda each: each[0])]


class Given:
    """A map of the file. What is never asked for is reported by unused()."""

    def __init__(self, node: Node | None, report: Report) -> None:
        self.node = node if node is not None and node.kind == "map" else Node("map", node.line if node else 1)
        self.report = report
        self._used: set[str] = set()
        if node is not None and node.kind != "map" and node.value is not None:
            report.say(node.line, f"expected a map, not {node.kind_in_words}; left out")

    @property
    def line(self) -> int:
        return self.node.line

    def line_of(self, key: str) -> int:
        return self.node.lines.get(key, self.line)

    def get(self, key: str) -> Node | None:
        """What stands under a key, None if nothing does."""
        self._used.add(key)
        found = self.node.entries.get(key)
        return None if found is None or (found.kind == "scalar" and found.value is None) else found

    def has(self, key: str) -> bool:
        return self.get(key) is not None

    def text(self, key: str) -> str:
        """A text as it was written, "" if there is none."""
        found = self.get(key)
        if found is None:
            return ""
        if found.kind != "scalar":
            self.report.say(found.line, f"{key}: expected a text, not {found.kind_in_words}; left out")
            return ""
        return found.text

    def flag(self, key: str, default: bool) -> bool:
        text = self.text(key).lower()
        return True if text in _TRUE else False if text in _FALSE else default

    def number(self, key: str) -> int:
        text = self.text(key)
        return int(text) if text.isascii() and text.isdigit() else 0

    def duration(self, key: str) -> str:
        """A duration as our settings write it, "" if there is none."""
        text = self.text(key)
        if not text or text == "0":
            return "0s" if text else ""
        parts = _DURATION.findall(text)
        if "".join(count + unit for count, unit in parts) != text:
            self.report.say(self.line_of(key), f"{key}: expected a duration such as 5m; left out")
            return ""
        return duration_text(sum(float(count) * _UNIT_S[unit] for count, unit in parts))

    def inner(self, key: str) -> Given:
        return Given(self.get(key), self.report)

    def pairs(self, key: str) -> Iterator[tuple[str, Node]]:
        """The entries of a map of texts."""
        found = self.get(key)
        if found is not None and found.kind == "map":
            yield from found.entries.items()

    def items(self, key: str) -> list[Node]:
        found = self.get(key)
        if found is None:
            return []
        return found.items if found.kind == "list" else [found]

    def maps(self, key: str) -> list[Given]:
        return [Given(each, self.report) for each in self.items(key)]

    def ignore(self, *keys: str) -> None:
        """These make no difference here."""
        self._used.update(keys)

    def unused(self, where: str = "") -> None:
        """Report what nobody asked for."""
        for key in self.node.entries:
            if (key not in self._used and self.node.entries[key].value is not None) or (
                key not in self._used and self.node.entries[key].kind != "scalar"
            ):
                self.report.say(self.line_of(key), f"{where}{key}: no counterpart; left out")
