"""Who is calling, and what they may do: every route declares the scope it needs. Used by the routes of services/api.

The guard (services/api/guard.py) puts a Caller into the ASGI scope; while there are no tokens everybody on loopback may
do everything, under the name in the header X-Actor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.requests import HTTPConnection

from models.control import tokens
from models.errors import Broken, Forbidden, Malformed
from models.incidents.verbs import NAME_MAX
from services.ingest.arrival import ANONYMOUS as ANONYMOUS_SENDER
from services.ingest.arrival import Sender

#: What a caller without a token calls itself; nobody checks it.
ACTOR_HEADER = "x-actor"
ANONYMOUS = ANONYMOUS_SENDER.name
READ, RESPOND, ADMIN = tokens.READ, tokens.RESPOND, tokens.ADMIN
EVERYTHING = frozenset({READ, RESPOND, ADMIN})
METRICS_PATH = "/metrics"
#: Paths that need no token: probes of load balancers, which have none to give, and the description of the API, which is
#: the same for everybody.
OPEN_PATHS = frozenset({"/health/live", "/health/ready", "/-/healthy", "/-/ready", "/openapi.json"})


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller: the token's name and scopes. `name` is the actor of every event it causes. `sender` is the same
    to the doors for alerts."""

    name: str
    scopes: frozenset[str]
    sender: Sender = ANONYMOUS_SENDER


def caller_of(connection: HTTPConnection) -> Caller:
    """The caller of a request or a WebSocket. Raises Malformed for an invalid name."""
    found = connection.scope.get("state", {}).get("caller")
    if isinstance(found, Caller):
        return found
    name = connection.headers.get(ACTOR_HEADER, ANONYMOUS).strip() or ANONYMOUS
    if len(name) > NAME_MAX or not name.isprintable():
        raise Malformed(f"X-Actor: expected up to {NAME_MAX} printable characters")
    return Caller(name, EVERYTHING)


def proven_name(connection: HTTPConnection) -> str:
    """The name on the caller's token, "" without one: what a header says proves nothing."""
    found = connection.scope.get("state", {}).get("caller")
    return found.name if isinstance(found, Caller) else ""


async def is_still_let_in(connection: HTTPConnection) -> bool:
    """Whether the caller of a long-lived connection is still allowed: its token may have been revoked or have expired.
    The guard puts the check into the ASGI scope."""
    ask = connection.scope.get("state", {}).get("still_let_in")
    return True if ask is None else bool(await ask())


def allow(caller: Caller, scope: str) -> None:
    """Raises Forbidden, naming the scope, when the caller does not have it."""
    if scope not in caller.scopes:
        raise Forbidden(f"this needs a token with the scope {scope!r}, which {caller.name!r} does not have")


class Requires:
    """A dependency of a route: its caller, who has `scope`. Raises Forbidden otherwise."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    async def __call__(self, connection: HTTPConnection) -> Caller:
        caller = caller_of(connection)
        allow(caller, self.scope)
        return caller


def requires(scope: str) -> Requires:
    """`Depends(requires(READ))`: the route is for callers with this scope, and gets the caller if it asks for it."""
    return Requires(scope)


def scopes_of_routes(app: FastAPI) -> Iterator[tuple[str, str, str | None]]:
    """(method, path, scope) of every route. The scope is "" where none is needed and None where none is named."""
    for route in app.routes:
        path = str(getattr(route, "path_format", getattr(route, "path", route)))
        dependant = getattr(route, "dependant", None)
        named = [
            each.call.scope
            for each in getattr(dependant, "dependencies", ())
            if isinstance(each.call, Requires)
        ]
        scope = named[0] if named else None
        for method in sorted(getattr(route, "methods", None) or {"WEBSOCKET"}):
            yield method, path, "" if path in OPEN_PATHS else scope


def refuse_unnamed(app: FastAPI) -> None:
    """Raises Broken for a route that names no scope: it would be open to whoever holds any token."""
    unnamed = [f"{method} {path}" for method, path, scope in scopes_of_routes(app) if scope is None]
    if unnamed:
        raise Broken(f"no scope is declared for {', '.join(unnamed)}: add Depends(requires(...))")
