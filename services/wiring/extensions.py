"""Rows that other packages add to our tables, by entry points: formats, actions. Called by the tables' own files.

A package that is installed beside ours declares what it adds in its pyproject.toml; the name it gives is the row's key:

    [project.entry-points."llm_incident_manager.actions"]
    pager = "acme_pager:ACTION"
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TypeVar

import structlog

log = structlog.get_logger()

T = TypeVar("T")


def extended(group: str, kind: type[T], ours: Mapping[str, T]) -> dict[str, T]:
    """`ours`, and what entry points of `group` add to it: objects of `kind`, by the entry point's name.

    Never raises for an extension's faults, or one bad package would keep everybody from being notified. One that can't be
    imported or is no `kind` is logged and skipped. So is a name that we have, or that two packages give: which of them
    acts must not depend on what was installed last.
    """
    found = [each for each in entry_points(group=group)]
    given = Counter(each.name for each in found)
    rows = dict(ours)
    for each in sorted(found, key=lambda each: (each.name, each.value)):
        about = {"group": group, "name": each.name, "value": each.value}
        if each.name in ours or given[each.name] > 1:
            why = "built in" if each.name in ours else "another package's too"
            log.error("extension refused: its name or path is taken", **about, why=why)
            continue
        try:
            row = each.load()
        except Exception as error:  # noqa: BLE001  # whatever a stranger's module does when it is imported
            log.error("extension can't be loaded, skipped", **about, why=repr(error))
            continue
        if not isinstance(row, kind):
            why = f"expected {kind.__name__}, got {type(row).__name__}"
            log.error("extension can't be loaded, skipped", **about, why=why)
            continue
        rows[each.name] = row
    return rows
