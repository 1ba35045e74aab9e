"""Secrets of a file that is imported: one in a file stays there; one that stands in the text is not copied, but gets the name of an
environment variable, and the report says which."""

from __future__ import annotations

import re

from models.playbook.document import Node
from services.importing.given import Given, Report
from services.importing.toml import Inline

#: Ours begin with LLM_IM_, and there one that is no setting is refused.
PREFIX = "NOTIFY_"


class Secrets:
    """Names the variables. The same place in the file, asked for twice, has the same one."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._names: dict[int, str] = {}

    def of(self, given: Given, key: str, owner: str, *, file_key: str = "") -> Inline | None:
        """Where the secret under `key` is, or under its sibling `KEY_file`; None if neither is there. `owner` and the key make its
        name."""
        file = given.text(file_key or f"{key}_file")
        if file:
            given.get(key)
            return Inline(file=file)
        node = given.get(key)
        return None if node is None else self.of_node(node, key, owner)

    def of_node(self, node: Node, key: str, owner: str) -> Inline:
        """The same for a secret at a place of the file."""
        name = self._names.get(id(node))
        if name is None:
            name = self._new_name(f"{owner}_{key}")
            self._names[id(node)] = name
            self._report.say(
                node.line, f"{key}: a secret, not copied: put it into the environment variable {name}"
            )
        return Inline(env=name)

    def by_hand(self, line: int, key: str, owner: str, why: str) -> Inline:
        """A secret that must be made anew."""
        name = self._new_name(f"{owner}_{key}")
        self._report.say(line, f"{why}: put it into the environment variable {name}")
        return Inline(env=name)

    def _new_name(self, text: str) -> str:
        bare = PREFIX + re.sub(r"[^A-Z0-9]+", "_", text.upper()).strip("_")
        taken, name, number = set(self._names.values()), bare, 2
        while name in taken:
            name, number = f"{bare}_{number}", number + 1
        return name
