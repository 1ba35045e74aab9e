"""An application of ours is built in a quarter of a second, nearly all of it FastAPI's and pydantic's: a validator for each
parameter and body of each route, and what a route depends on, from functions and types that never change. The tests start some
hundred systems a lane, and most ask for three routes of a hundred. So the first application of a process is built whole, as always;
in those after it a validator that was made before is taken again, and a route is made when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import fastapi._compat.v2
from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.routing import compile_path

from services.api import app
from services.api.v1 import requests

_made: dict[tuple[str, str], TypeAdapter[Any]] = {}
_is_first = True
_add = APIRouter.add_api_route


@contextmanager
def built_from_what_was_made() -> Iterator[None]:
    """Around what builds an application."""
    global _is_first
    with _adapters_made_once():
        if _is_first:
            yield
            _is_first = False
            return
        # That every route names its scope looks into all of them, and was seen at the first.
        with (
            patch.object(APIRouter, "add_api_route", _add_late),
            patch.object(app, "refuse_unnamed", lambda _app: None),
        ):
            yield


class LateRoute(APIRoute):
    """Knows what it is asked for, and makes the rest of itself when somebody wants that."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self.path, self.endpoint = path, endpoint
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)
        self.methods = {method.upper() for method in options["methods"] or ["GET"]}
        self.include_in_schema = options["include_in_schema"]
        self._options = options

    def __getattr__(self, name: str) -> Any:
        options = self.__dict__.pop("_options", None)
        if options is None:
            raise AttributeError(name)
        with _adapters_made_once():
            super().__init__(self.path, self.endpoint, **options)
        return getattr(self, name)


def _add_late(self: APIRouter, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
    _add(self, path, endpoint, **{**options, "route_class_override": LateRoute})


@contextmanager
def _adapters_made_once() -> Iterator[None]:
    with (
        patch.object(fastapi._compat.v2, "TypeAdapter", _adapter),
        patch.object(requests, "TypeAdapter", _adapter),
    ):
        yield


def _adapter(kind: Any, *, config: Any = None) -> TypeAdapter[Any]:
    # By what it reads as: FastAPI puts the annotation of a parameter together anew for each application. A function within it
    # shows its address, which stays its own as long as the adapter is kept.
    key = (repr(kind), repr(config))
    if key not in _made:
        _made[key] = TypeAdapter(kind, config=config)
    return _made[key]
