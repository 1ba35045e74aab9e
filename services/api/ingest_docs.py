"""Describes in /openapi.json the paths that FastAPI does not serve: those of the formats
(services/ingest/formats/table.py). Called by app.py."""

from __future__ import annotations

from fastapi import FastAPI

from services.ingest.formats.openapi import Json
from services.ingest.formats.table import all_formats


def describe_formats(schema: Json) -> None:
    """Add every format's operations, and the schemas they name, to an OpenAPI document."""
    components = schema.setdefault("components", {})
    paths = schema.setdefault("paths", {})
    assert isinstance(components, dict)
    assert isinstance(paths, dict)
    for kind in all_formats().values():
        description = kind.describe()
        components.setdefault("schemas", {}).update(description.schemas)
        paths.setdefault(kind.path, {}).update(description.operations)
        for path, operations in description.more_paths.items():
            paths.setdefault(path, {}).update(operations)


def add_formats_to_openapi(app: FastAPI) -> None:
    """Have /openapi.json name the formats too."""
    generate = app.openapi

    def openapi() -> Json:
        new = app.openapi_schema is None
        schema = generate()
        if new:
            describe_formats(schema)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
