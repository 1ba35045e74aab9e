"""All of /v1 but its door for alerts: which routes there are, and what OpenAPI says of their bodies."""

from __future__ import annotations

from fastapi import FastAPI

from models.ports import Clock
from services.api.problems import Problem
from services.api.reads import Reads
from services.api.v1.bulk import BulkBody, add_bulk_route
from services.api.v1.commands import Commands
from services.api.v1.incidents import add_incident_routes
from services.api.v1.requests import BodyReader, describe_bodies
from services.api.v1.stats import add_stats_route
from services.api.v1.verb_bodies import CreateBody
from services.api.v1.verb_routes import add_verb_routes
from services.api.v1.verb_table import VERBS


def add_rest_routes(app: FastAPI, reads: Reads, commands: Commands, bodies: BodyReader, clock: Clock) -> None:
    """Incidents, alerts, figures; what people do, one by one and in bulk."""
    add_incident_routes(app, reads)
    add_stats_route(app, reads, clock)
    add_bulk_route(app, reads, commands, bodies, clock)
    add_verb_routes(app, reads, commands, bodies, clock)
    describe_bodies(app, Problem, CreateBody, BulkBody, *(verb.body for verb in VERBS))
