"""What other packages bring: entry points of a group, loaded. Asked by the tables that third parties may add to."""

from __future__ import annotations

from importlib.metadata import entry_points

from models.errors import Broken


def load(group: str) -> dict[str, object]:
    """What the installed packages name in this group, by name. Raises Broken for one that can't be imported, naming it."""
    found: dict[str, object] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        try:
            found[point.name] = point.load()
        except Exception as error:
            raise Broken(
                f"the extension {point.name!r} ({point.value}) of {group} can't be loaded: {error!r}"
            ) from error
    return found
