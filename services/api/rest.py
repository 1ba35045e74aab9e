"""All of /v1 but its door for alerts: which routes there are, and what OpenAPI says of their bodies."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import TypeAdapter

from models.config import Settings
from models.ports import Clock
from services.api.bulk import BulkBody, add_bulk_route
from services.api.commands import Commands
from services.api.incidents import add_incident_routes
from services.api.problems import Problem
from services.api.reads import Reads
from services.api.requests import BodyReader
from services.api.stats import add_stats_route
from services.api.verb_bodies import CreateBody
from services.api.verb_routes import add_verb_routes
from services.api.verb_table import VERBS


def add_rest_routes(app: FastAPI, reads: Reads, commands: Commands, settings: Settings, clock: Clock) -> None:
    """Incidents, alerts, figures; what people do, one by one and in bulk."""
    bodies = BodyReader(settings.server.body_timeout)
    add_incident_routes(app, reads)
    add_stats_route(app, reads, clock)
    add_bulk_route(app, reads, commands, bodies, clock)
    add_verb_routes(app, reads, commands, bodies, clock)
    _describe_bodies(app)


def _describe_bodies(app: FastAPI) -> None:
    """Put among OpenAPI's schemas what the routes name by reference: they read their bodies themselves."""
    generate = app.openapi

    def openapi() -> dict[str, object]:
        if app.openapi_schema is None:
            schemas = generate()["components"]["schemas"]
            for kind in (Problem, CreateBody, BulkBody, *(verb.body for verb in VERBS)):
                schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
                parts = schema.pop("$defs", {})
                schemas.update({kind.__name__: schema, **parts})
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]
