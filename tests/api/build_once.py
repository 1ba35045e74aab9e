"""An application of ours is built in a quarter of a second, nearly all of it pydantic's: a validator for each parameter and body of
each route, from types that never change. The tests start some hundred systems a lane, so each is made once a process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import fastapi._compat.v2
from pydantic import TypeAdapter

from services.api.v1 import requests

_made: dict[tuple[str, str], TypeAdapter[Any]] = {}


@contextmanager
def adapters_made_once() -> Iterator[None]:
    """Around what builds an application."""
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
