"""Routes of one kind as a table: a row says where a route is, what it answers, what can go wrong, and who may call it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from fastapi import Depends, FastAPI

from services.api.auth import requires
from services.api.problems import AWAY, REFUSED, problems


class Route(NamedTuple):
    """`failures` by status, beside those that any route has; `asks` describes the body (asks_for()); `words` stand in for the
    endpoint's docstring where one endpoint is made for several routes."""

    path: str
    endpoint: Callable[..., Any]
    method: str
    status: int
    body: type[object] | None
    failures: Mapping[str, str]
    asks: dict[str, Any] | None
    scope: str
    words: str = ""


def add_routes(app: FastAPI, tag: str, routes: Iterable[Route]) -> None:
    for each in routes:
        app.add_api_route(
            each.path,
            each.endpoint,
            methods=[each.method],
            name=f"{each.method.lower()} {each.path}" if each.words else None,
            description=each.words or None,
            status_code=each.status,
            response_model=each.body,
            responses=problems(REFUSED, each.failures, AWAY),
            dependencies=[Depends(requires(each.scope))],
            openapi_extra=each.asks,
            tags=[tag],
        )
