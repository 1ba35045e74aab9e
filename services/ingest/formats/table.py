"""The formats there are: who posts to which path. A new one is a file beside this and a line here (format.py).

What a package of somebody else brings counts too: an entry point of the group EXTENSIONS that names a Format.
"""

from __future__ import annotations

from functools import cache

import structlog

from models.errors import Broken
from services.ingest.formats.alertmanager import AlertmanagerFormat
from services.ingest.formats.format import Format, Shared
from services.ingest.formats.v1 import V1Format
from services.wiring.extensions import extended

log = structlog.get_logger()

FORMATS: tuple[type[Format], ...] = (
    AlertmanagerFormat,
    V1Format,
)
EXTENSIONS = "llm_incident_manager.formats"


def all_formats() -> dict[str, type[Format]]:
    """Every format by its name, ours first. Raises Broken when two of ours have one name or path; an extension that can't be
    used is logged and left out, since one bad package must not keep everybody from sending."""
    found: dict[str, type[Format]] = {}
    paths: dict[str, str] = {}
    for kind in FORMATS:
        if kind.name in found or kind.path in paths:
            raise Broken(f"two formats with the name {kind.name!r} or the path {kind.path}")
        found[kind.name] = kind
        paths[kind.path] = kind.name
    for name, kind in _third_parties(tuple(found)).items():
        if kind.path in paths:
            why = f"{kind.path} is the path of {paths[kind.path]}"
            log.error("extension refused: its name or path is taken", group=EXTENSIONS, name=name, why=why)
            continue
        found[name] = kind
        paths[kind.path] = name
    return found


def open_formats(shared: Shared) -> dict[str, Format]:
    """One of each, by its name, for one gateway."""
    return {name: kind(shared) for name, kind in all_formats().items()}


@cache
def _third_parties(ours: tuple[str, ...]) -> dict[str, type[Format]]:
    """Loaded once a process: an import has effects, and its error is worth one line."""
    rows = extended(EXTENSIONS, type, dict.fromkeys(ours, Format))
    found: dict[str, type[Format]] = {}
    for name, kind in rows.items():
        if name in ours:
            continue
        if not issubclass(kind, Format) or kind.name != name:
            why = f"expected a subclass of Format with the name {name!r}, got {kind.__name__}"
            log.error("extension can't be loaded, skipped", group=EXTENSIONS, name=name, why=why)
            continue
        found[name] = kind
    return found
