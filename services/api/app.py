"""Every route except the hot one, as one ASGI application. Built inside the gateway, from what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from models import VERSION
from models.errors import Forbidden, IncidentManagerError
from models.ports import Clock
from models.settings.all import Settings
from services.api.alertmanager import answers as alertmanager
from services.api.alertmanager.reads import add_alertmanager_routes
from services.api.alertmanager.silences import add_silence_routes as add_alertmanager_silences
from services.api.answers import Answers
from services.api.auth import refuse_unnamed
from services.api.dead_letters import LetterDesk
from services.api.graphql.ground import Ground
from services.api.graphql.route import add_graphql_route
from services.api.health import HealthGather, add_health_routes
from services.api.heartbeats import HeartbeatDesk
from services.api.ingest_docs import add_formats_to_openapi
from services.api.models import ModelDesk
from services.api.opsgenie import answers as opsgenie
from services.api.opsgenie.reads import add_opsgenie_routes
from services.api.people import PeopleDesk
from services.api.playbooks import PlaybookDesk, RunReads
from services.api.problems import field_problems, malformed, problem, problem_of
from services.api.reads import Reads
from services.api.silences import SilenceDesk
from services.api.stream.stream import add_stream_routes
from services.api.topology import TopologyDesk
from services.api.v1.analytics import add_analytics_routes
from services.api.v1.commands import Commands
from services.api.v1.config import Reload, add_config_routes
from services.api.v1.dead_letters import add_dead_letter_routes
from services.api.v1.edge import add_edge_routes
from services.api.v1.heartbeats import add_heartbeat_routes
from services.api.v1.incidents import NoSuchIncident
from services.api.v1.models import add_model_routes
from services.api.v1.oncall import add_oncall_routes
from services.api.v1.people import add_people_routes
from services.api.v1.playbooks import add_playbook_routes
from services.api.v1.repairs import add_repair_routes
from services.api.v1.reports import Reporting, add_report_route
from services.api.v1.requests import BadFields, BodyReader
from services.api.v1.rest import add_rest_routes
from services.api.v1.routing import ReceiverDesk, add_routing_routes
from services.api.v1.runs import add_run_routes
from services.api.v1.silences import add_silence_routes
from services.api.v1.situations import add_situation_routes
from services.api.v1.targets import TargetDesk, add_target_routes
from services.api.v1.tokens import add_token_routes
from services.api.v1.topology import add_topology_routes
from services.api.v1.verb_doing import Doing
from services.api.v1.whoami import add_whoami_route
from services.edge.agents import EdgeAgents
from services.feed.watch import Tails
from services.identity.tokens import TokenDesk
from services.ingest.doors.http import smooth
from services.ingest.formats.paths import paths_of, pattern_of
from services.ingest.formats.table import all_formats


def build_app(
    reads: Reads,
    commands: Commands,
    health: HealthGather,
    tails: Tails,
    settings: Callable[[], Settings],
    *,
    clock: Clock,
    tokens: TokenDesk,
    silences: SilenceDesk,
    targets: TargetDesk,
    receivers: ReceiverDesk,
    playbooks: PlaybookDesk,
    edge: EdgeAgents,
    heartbeats: HeartbeatDesk,
    people: PeopleDesk,
    letters: LetterDesk,
    topology: TopologyDesk,
    models: ModelDesk,
    reload: Reload,
) -> FastAPI:
    """The application: Alertmanager's reads, /v1 and its stream, /graphql, health, metrics, /openapi.json. No documentation
    pages: they would load scripts from elsewhere. Errors have the shape of the API that was called. Raises Broken for a
    route that declares no scope."""
    app = FastAPI(
        title="LLM-Incident-Manager",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # _add_openapi_route
        redirect_slashes=False,
    )
    app.add_middleware(Answers)
    add_alertmanager_routes(app, reads, settings, clock.now())
    add_alertmanager_silences(app, silences, settings().server.body_timeout)
    add_opsgenie_routes(app, reads)
    bodies = BodyReader(settings().server.body_timeout)
    add_rest_routes(app, reads, commands, bodies, clock)
    add_stream_routes(app, tails)
    add_whoami_route(app)
    add_token_routes(app, tokens, bodies)
    add_silence_routes(app, silences, reads, bodies, settings)
    add_heartbeat_routes(app, heartbeats, bodies)
    add_people_routes(app, people, bodies)
    add_oncall_routes(app, people, bodies)
    add_dead_letter_routes(app, letters, bodies)
    add_topology_routes(app, topology, bodies)
    add_situation_routes(app, topology)
    add_target_routes(app, targets)
    add_model_routes(app, models, bodies)
    add_routing_routes(app, receivers, settings, bodies)
    add_playbook_routes(app, playbooks, bodies, settings, clock)
    add_run_routes(app, RunReads(reads), commands, bodies)
    add_repair_routes(app, RunReads(reads))
    add_edge_routes(app, edge, bodies)
    add_analytics_routes(app, reads, clock)
    add_report_route(app, Reporting(reads, RunReads(reads), clock, settings))
    ground = Ground(reads, RunReads(reads), silences, heartbeats, Doing(reads, commands, clock), clock)
    add_graphql_route(app, ground, bodies)
    add_config_routes(app, reload, bodies)
    add_health_routes(app, reads, health, clock)
    _describe_tokens(app)
    add_formats_to_openapi(app)
    _add_openapi_route(app)
    _answer_errors(app)
    refuse_unnamed(app)
    return app


_SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of POST /v1/tokens or `llm-im tokens`.",
    },
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The same token as the password; any user name.",
    },
}


def _answer_errors(app: FastAPI) -> None:
    # What the HTTP door takes before the application is asked; 405 names these methods too.
    taken = [
        (pattern_of(path), frozenset(methods))
        for kind in all_formats().values()
        for path, methods in paths_of(kind).items()
    ]

    def taken_at(path: str) -> frozenset[str]:
        return frozenset().union(*(methods for pattern, methods in taken if pattern.fullmatch(path)))

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        if opsgenie.is_opsgenies(path):
            # As it was sent: an alias may have a slash in it.
            sent = smooth(request.scope["raw_path"].decode("latin-1"))
            return opsgenie.not_supported(request.method, sent, taken_at(sent))
        # A format's path has nothing else here.
        by_formats = taken_at(path) if error.status_code in (404, 405) else frozenset()
        if error.status_code == 405 or by_formats:
            allowed = sorted(_allowed(app, request) | by_formats)
            if _is_alertmanagers(path):
                return alertmanager.not_allowed(request.method, allowed)
            detail = f"{path} takes {', '.join(allowed)}, not {request.method}"
            response = problem(405, "method-not-allowed", "Method not allowed", detail, path)
            response.headers["Allow"] = ",".join(allowed)
            return response
        if error.status_code == 404:
            if _is_alertmanagers(path):
                return alertmanager.not_found(path)
            return problem(404, "not-found", "Not found", f"there is no {path}", path)
        response = problem(error.status_code, "refused", "The request was refused", str(error.detail), path)
        response.headers.update(error.headers or {})
        return response

    async def of_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError | WebSocketRequestValidationError)
        # ("query", "limit"), ("query", "state", 0), ("path", "incident_id"): the second names it.
        return malformed(field_problems(error.errors(), skip=1), request.url.path)

    async def of_fields(request: Request, error: Exception) -> Response:
        assert isinstance(error, BadFields)
        return malformed(error.fields, request.url.path)

    async def of_ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, IncidentManagerError)
        if isinstance(error, Forbidden) and _is_alertmanagers(request.url.path):
            return alertmanager.validation_error(403, 403, str(error))
        if opsgenie.is_opsgenies(request.url.path):
            return opsgenie.refused(error)
        return problem_of(error, request.url.path)

    async def of_missing(request: Request, error: Exception) -> Response:
        return problem(404, "no-such-incident", "No such incident", str(error), request.url.path)

    async def of_bug(request: Request, error: Exception) -> Response:
        # Starlette raises it again once this is sent, so that the server's log has the traceback.
        return problem(500, "broken", "Internal error", type(error).__name__, request.url.path)

    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(BadFields, of_fields)
    # Before a WebSocket is taken its refusal is an HTTP answer too.
    app.add_exception_handler(WebSocketRequestValidationError, of_validation)
    app.add_exception_handler(NoSuchIncident, of_missing)
    app.add_exception_handler(IncidentManagerError, of_ours)
    app.add_exception_handler(Exception, of_bug)


def _is_alertmanagers(path: str) -> bool:
    return path.startswith(f"{alertmanager.PREFIX}/")


def _allowed(app: FastAPI, request: Request) -> set[str]:
    """Every method that some route takes for this path; Starlette itself names only the first route's."""
    methods: set[str] = set()
    for route in app.router.routes:
        if route.matches(request.scope)[0] != Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    # HEAD is implied by GET, as in Alertmanager's answers.
    return methods - {"HEAD"}


def _add_openapi_route(app: FastAPI) -> None:
    making, made = asyncio.Lock(), list[bytes]()

    async def openapi(_request: Request) -> Response:
        async with making:
            if not made:
                # In a thread, because it takes the better part of a second, and alerts come by this process.
                made.append(await asyncio.to_thread(lambda: msgspec.json.encode(app.openapi())))
        return Response(made[0], media_type="application/json")

    app.add_route("/openapi.json", openapi, include_in_schema=False)


def _describe_tokens(app: FastAPI) -> None:
    """Describe in OpenAPI how to send a token."""
    generate = app.openapi

    def openapi() -> dict[str, object]:
        new = app.openapi_schema is None
        document = generate()
        if new:
            document["components"]["securitySchemes"] = _SECURITY_SCHEMES
            # Any of them; none while there are no tokens.
            document["security"] = [{"bearer": []}, {"basic": []}, {}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
