"""The formats there are: who posts to which path. A new one is a file beside this and a line here (format.py).

What a package of somebody else brings counts too: an entry point of the group EXTENSIONS that names a Format.
"""

from __future__ import annotations

import re
from functools import cache

from models.control.tokens import FORMAT_PATTERN
from models.errors import Broken
from services.ingest.formats.alertmanager import AlertmanagerFormat
from services.ingest.formats.format import Format, Shared
from services.ingest.formats.v1 import V1Format
from services.wiring import extensions

FORMATS: tuple[type[Format], ...] = (
    AlertmanagerFormat,
    V1Format,
)
EXTENSIONS = "llm_incident_manager.formats"
NAME = re.compile(FORMAT_PATTERN)
PATH = re.compile(r"(/[A-Za-z0-9_-]+)+")


def all_formats() -> dict[str, type[Format]]:
    """Every format by its name, ours first. Raises Broken when two have one name or path, one of these can't be written into a
    scope or a rule of HAProxy, or an extension is no Format."""
    found: dict[str, type[Format]] = {}
    paths: dict[str, str] = {}
    for kind in (*FORMATS, *_third_parties()):
        if not (NAME.fullmatch(kind.name) and PATH.fullmatch(kind.path)):
            raise Broken(f"no name or path that a format may have: {kind.name!r}, {kind.path!r}")
        other = kind.name if kind.name in found else paths.get(kind.path)
        if other is not None:
            raise Broken(f"two formats with the name {kind.name!r} or the path {kind.path}: {other!r} is one")
        found[kind.name] = kind
        paths[kind.path] = kind.name
    return found


def open_formats(shared: Shared) -> dict[str, Format]:
    """One of each, by its name, for one gateway."""
    return {name: kind(shared) for name, kind in all_formats().items()}


@cache
def _third_parties() -> tuple[type[Format], ...]:
    found = []
    for name, kind in extensions.load(EXTENSIONS).items():
        if not (isinstance(kind, type) and issubclass(kind, Format)):
            raise Broken(
                f"the extension {name!r} of {EXTENSIONS} is no format: expected a subclass of Format"
            )
        found.append(kind)
    return tuple(found)
