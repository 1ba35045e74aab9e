"""How Opsgenie's API answers: what all of its paths share that are not those of a format (services/ingest/formats/opsgenie.py)."""

from __future__ import annotations

from uuid import uuid4

import msgspec
from fastapi.responses import Response

from models.errors import Busy, Forbidden, IncidentManagerError, NotFound, Unavailable
from services.ingest.formats.opsgenie import OpsgenieFormat
from services.ingest.formats.paths import paths_of

#: The path of the list, which all others begin with.
ALERTS = OpsgenieFormat.path
COUNT = f"{ALERTS}/count"
ONE = f"{ALERTS}/{{identifier}}"
#: What can be read.
READS = (ALERTS, COUNT, ONE)
#: Characters of a path that are repeated in an error.
PATH_CHARS = 200

_json = msgspec.json.Encoder(order="deterministic")


def is_opsgenies(path: str) -> bool:
    """Whether a path is one that Opsgenie's clients ask."""
    return path == ALERTS or path.startswith(f"{ALERTS}/")


def answer(body: dict[str, object], status: int = 200) -> Response:
    """JSON as Opsgenie writes it."""
    whole = {**body, "took": 0.0, "requestId": str(uuid4())}
    return Response(_json.encode(whole), status, media_type="application/json")


def refused(error: IncidentManagerError) -> Response:
    """What can't be given, and why: 422 for what Opsgenie can't process."""
    if isinstance(error, Busy | Unavailable):
        response = answer({"message": str(error)}, 503)
        wait_s = error.retry_after_s if isinstance(error, Busy) else 1.0
        response.headers["Retry-After"] = str(max(1, round(wait_s)))
        return response
    status = 404 if isinstance(error, NotFound) else 403 if isinstance(error, Forbidden) else 422
    return answer({"message": str(error)}, status)


def not_supported(method: str, path: str, taken: frozenset[str]) -> Response:
    """The answer to what Opsgenie has and we have not. `taken`: the methods that a format takes at this path."""
    allowed = sorted(taken | ({"GET"} if path.count("/") <= ONE.count("/") else set()))
    named = [f"GET {each}" for each in READS]
    named += [f"{each} {where}" for where, methods in paths_of(OpsgenieFormat).items() for each in methods]
    detail = f"{method} {path[:PATH_CHARS]} is not supported here; supported are {', '.join(named)}"
    response = answer({"message": detail}, 405 if allowed else 404)
    if allowed:
        response.headers["Allow"] = ",".join(allowed)
    return response
