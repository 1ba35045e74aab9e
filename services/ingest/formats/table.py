"""The formats there are: who posts to which path. A new one is a file beside this and a line here (format.py).

What a package of somebody else brings counts too: an entry point of the group EXTENSIONS that names a Format.
"""

from __future__ import annotations

import re
from functools import cache
from inspect import isabstract

import structlog

from models.control.tokens import FORMAT_PATTERN
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
#: A name becomes a scope, and a path a rule of HAProxy's.
NAME = re.compile(FORMAT_PATTERN)
PATH = re.compile(r"(/[A-Za-z0-9_-]+)+")


def all_formats() -> dict[str, type[Format]]:
    """Every format by its name, ours first. Raises Broken for one of ours that can't be used; a bad extension is logged
    and left out, since one bad package must not keep everybody from sending."""
    found: dict[str, type[Format]] = {}
    paths: dict[str, str] = {}
    for kind in FORMATS:
        if why := _unusable(kind) or _taken(kind, found, paths):
            raise Broken(f"the format {kind.name!r}: {why}")
        found[kind.name] = kind
        paths[kind.path] = kind.name
    return {**found, **_third_parties(FORMATS)}


def open_formats(shared: Shared) -> dict[str, Format]:
    """One of each, by its name, for one gateway."""
    return {name: kind(shared) for name, kind in all_formats().items()}


@cache
def _third_parties(ours: tuple[type[Format], ...]) -> dict[str, type[Format]]:
    """Loaded once a process: an import has effects, and its error is worth one line."""
    built_in = {kind.name: kind for kind in ours}
    paths = {kind.path: kind.name for kind in ours}
    found: dict[str, type[Format]] = {}
    for name, kind in extended(EXTENSIONS, type, built_in).items():
        if name in built_in:
            continue
        about = {"group": EXTENSIONS, "name": name}
        if not issubclass(kind, Format) or getattr(kind, "name", "") != name:
            why = f"expected a subclass of Format with the name {name!r}, got {kind.__name__}"
            log.error("extension can't be loaded, skipped", **about, why=why)
        elif why := _unusable(kind):
            log.error("extension can't be loaded, skipped", **about, why=why)
        elif why := _taken(kind, found, paths):
            log.error("extension refused: its name or path is taken", **about, why=why)
        else:
            found[name] = kind
            paths[kind.path] = name
    return found


def _unusable(kind: type[Format]) -> str:
    """Why a format can't be served, "" if it can."""
    if isabstract(kind):
        return f"it lacks {', '.join(sorted(kind.__abstractmethods__))}"
    if not NAME.fullmatch(kind.name):
        return f"its name must match {FORMAT_PATTERN}"
    path = getattr(kind, "path", "")
    return "" if PATH.fullmatch(path) else f"its path must match {PATH.pattern}, not {path!r}"


def _taken(kind: type[Format], found: dict[str, type[Format]], paths: dict[str, str]) -> str:
    """What is wrong when another format has its name or its path, "" when none has."""
    if kind.name in found:
        return "there are two of this name"
    return f"{kind.path} is the path of {paths[kind.path]!r}" if kind.path in paths else ""
