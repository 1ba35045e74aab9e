"""YAML into a tree that knows the line of everything, within bounds. What playbooks are written in (models/playbook/reading.py).

Plain words mean what YAML 1.2 says: `on`, `off`, `yes` and `no` are texts, and so is 010; what was written stays known, so that a
version 1.0 is not a number. Refused are keys that stand twice, tags, merge keys, more than one document; an alias is counted as
often as it is used, so that a few lines can't become millions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from models.errors import Malformed, TooLarge

#: Characters of one file. Our longest playbook has 6,000.
CHARS_MAX = 128 * 1024
#: Levels of lists and maps. A rollback's parameters stand at level ten.
DEPTH_MAX = 32
#: Values, keys and lists of one file, aliases counted as often as they are used.
NODES_MAX = 10_000

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,17}|[0-9]{1,17}\.[0-9]{0,17})([eE][-+]?[0-9]{1,2})?\Z")
_WORDS: dict[str, object] = {
    "null": None, "Null": None, "NULL": None, "~": None, "": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass(slots=True)
class Node:
    """A value and the line where it begins, counted from 1. `text` is what a scalar was written as; `value` is what it means."""

    kind: Literal["scalar", "list", "map"]
    line: int
    value: Any = None
    text: str = ""
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Node] = field(default_factory=dict)
    #: The line of each key.
    lines: dict[str, int] = field(default_factory=dict)
    size: int = 1

    def plain(self) -> Any:
        """As plain data."""
        if self.kind == "list":
            return [item.plain() for item in self.items]
        if self.kind == "map":
            return {key: each.plain() for key, each in self.entries.items()}
        return self.value

    @property
    def kind_in_words(self) -> str:
        """For errors: what stands there."""
        if self.kind != "scalar":
            return f"a {self.kind}"
        names = {bool: "true or false", int: "a number", float: "a number", type(None): "nothing"}
        return names.get(type(self.value), "a text")


def read_document(
    text: str, file: str, *, what: str = "playbook", chars_max: int = CHARS_MAX, nodes_max: int = NODES_MAX
) -> Node:
    """The one document of a YAML text; `what` it should hold, for errors. Raises Malformed with file and line, TooLarge over a
    bound."""
    if len(text) > chars_max:
        raise TooLarge(f"{file}: more than {chars_max:,} characters")
    try:
        return _Builder(file, what, nodes_max).build(text)
    except UnicodeError as error:
        raise Malformed(f"{file}: not UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"{file}:{mark.line + 1}" if mark is not None else file
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it can't be read"
        raise Malformed(f"{where}: not YAML: {what}") from error


@dataclass(slots=True)
class _Builder:
    """Makes the tree from the parser's events, without recursion: it stops at a bound before the parser goes on."""

    file: str
    what: str
    nodes_max: int
    open: list[tuple[Node, str | None]] = field(default_factory=list)
    anchors: dict[str, Node] = field(default_factory=dict)
    root: Node | None = None
    size: int = 0
    documents: int = 0
    #: The key whose value comes next, in the innermost map.
    key: str | None = None

    def build(self, text: str) -> Node:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            mark = event.start_mark
            line = 1 if mark is None else mark.line + 1
            match event:
                case yaml.DocumentStartEvent():
                    self.documents += 1
                    if self.documents > 1:
                        raise Malformed(
                            f"{self.file}:{line}: a second document; one file holds one {self.what}"
                        )
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._refuse_tag(event, line)
                    self._start(
                        Node("map" if isinstance(event, yaml.MappingStartEvent) else "list", line),
                        event.anchor,
                    )
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    node, self.key = self.open.pop()
                    self._add(node, opened=True)
                case yaml.ScalarEvent():
                    self._scalar(event, line)
                case yaml.AliasEvent():
                    target = self.anchors.get(event.anchor or "")
                    if target is None:
                        raise Malformed(f"{self.file}:{line}: *{event.anchor} is not defined before")
                    if any(target is node for node, _ in self.open):
                        raise Malformed(f"{self.file}:{line}: *{event.anchor} contains itself")
                    self._count(target.size, line)
                    self._add(target)
        if self.root is None:
            raise Malformed(f"{self.file}: it is empty; a {self.what} was expected")
        return self.root

    def _start(self, node: Node, anchor: str | None) -> None:
        self._is_key(node)
        if len(self.open) >= DEPTH_MAX:
            raise TooLarge(f"{self.file}:{node.line}: more than {DEPTH_MAX} levels of lists and maps")
        self._count(1, node.line)
        if anchor:
            self.anchors[anchor] = node
        self.open.append((node, self.key))
        self.key = None

    def _scalar(self, event: Any, line: int) -> None:
        self._refuse_tag(event, line)
        text = str(event.value)
        is_plain = event.implicit[0] and event.tag is None
        node = Node("scalar", line, _meant(text) if is_plain else text, text)
        self._count(1, line)
        if self.open and self.open[-1][0].kind == "map" and self.key is None:
            self._take_key(node)
            return
        if event.anchor:
            self.anchors[event.anchor] = node
        self._add(node)

    def _take_key(self, node: Node) -> None:
        inside, key = self.open[-1][0], node.text
        if key == "<<":
            raise Malformed(f"{self.file}:{node.line}: << is not supported; write out what is to be merged")
        if key in inside.entries:
            raise Malformed(
                f"{self.file}:{node.line}: {key!r} stands twice (before in line {inside.lines[key]}); keep one of the two"
            )
        inside.lines[key] = node.line
        self.key = key

    def _is_key(self, node: Node) -> None:
        if self.open and self.open[-1][0].kind == "map" and self.key is None:
            hint = "; put {{ }} in quotes" if node.kind == "map" else ""
            raise Malformed(f"{self.file}:{node.line}: a name was expected, not a {node.kind}{hint}")

    def _add(self, node: Node, *, opened: bool = False) -> None:
        if not opened:
            self._is_key(node)
        if not self.open:
            self.root = node
            return
        inside = self.open[-1][0]
        inside.size += node.size
        if inside.kind == "list":
            inside.items.append(node)
        else:
            assert self.key is not None
            inside.entries[self.key] = node
            self.key = None

    def _count(self, more: int, line: int) -> None:
        self.size += more
        if self.size > self.nodes_max:
            raise TooLarge(
                f"{self.file}:{line}: more than {self.nodes_max:,} values, aliases counted as often as used"
            )

    def _refuse_tag(self, event: Any, line: int) -> None:
        if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
            raise Malformed(f"{self.file}:{line}: tag {event.tag[:60]!r} is not supported; leave it out")


def _meant(text: str) -> object:
    """What a plain word means."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.match(text):
        return int(text)
    return float(text) if _FLOAT.match(text) else text
