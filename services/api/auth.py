"""Who calls, and what they may: every route names the scope it asks for. Used by the routes of services/api.

The guard puts a Caller into the ASGI scope; without tokens everybody on loopback may do everything, and is called
what the header X-Actor says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from models.errors import Forbidden, Malformed
from models.verbs import NAME_MAX

#: What a caller without a token calls itself; nobody checks it.
ACTOR_HEADER = "x-actor"
ANONYMOUS = "anonymous"
READ, RESPOND, ADMIN = "read", "respond", "admin"
EVERYTHING = frozenset({READ, RESPOND, ADMIN})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the name on the token, and its scopes. `name` is the actor of every event it causes."""

    name: str
    scopes: frozenset[str]


def caller_of(connection: HTTPConnection) -> Caller:
    """The caller of a request or a WebSocket. Raises Malformed for a name that is none."""
    found = connection.scope.get("state", {}).get("caller")
    if isinstance(found, Caller):
        return found
    name = connection.headers.get(ACTOR_HEADER, ANONYMOUS).strip() or ANONYMOUS
    if len(name) > NAME_MAX or not name.isprintable():
        raise Malformed(f"X-Actor: expected up to {NAME_MAX} printable characters")
    return Caller(name, EVERYTHING)


async def is_still_let_in(connection: HTTPConnection) -> bool:
    """Whether the caller of a connection that lasts is one still: a token may be revoked or expire meanwhile. The guard
    puts into the ASGI scope how to ask."""
    ask = connection.scope.get("state", {}).get("still_let_in")
    return True if ask is None else bool(await ask())


def requires(scope: str) -> Callable[[HTTPConnection], Caller]:
    """A dependency of a route: its caller, who has `scope`. Raises Forbidden otherwise."""

    def check(connection: HTTPConnection) -> Caller:
        caller = caller_of(connection)
        if scope not in caller.scopes:
            raise Forbidden(f"this needs a token with the scope {scope!r}; {caller.name} has none")
        return caller

    return check
