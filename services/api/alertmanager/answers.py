"""How Alertmanager 0.34 answers what it can't give, and reads parameters: what all of its paths share.

Two error shapes, like the original: what the request asks for is a bare JSON string, what its form breaks is
{"code", "message"}.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from fastapi.responses import Response

from models.errors import Busy, Refused, Unavailable

#: The prefix of every path here.
PREFIX = "/api/v2"
#: go-openapi's idea of true; everything else is false, and an empty value is the default.
_TRUE = frozenset({"true", "1", "yes", "ok", "y", "on", "selected", "checked", "t", "enabled"})

_json = msgspec.json.Encoder(order="deterministic")


def refused(error: Refused | Unavailable) -> Response:
    """The bare JSON string of what an alert query cannot be given."""
    if isinstance(error, Busy):
        return answer(str(error), 503, retry_after_s=error.retry_after_s)
    if isinstance(error, Unavailable):
        return answer(str(error), 503, retry_after_s=1)
    return answer(str(error), 400)


def answer(value: object, status: int = 200, *, retry_after_s: float | None = None) -> Response:
    """JSON as Alertmanager writes it."""
    headers = None if retry_after_s is None else {"Retry-After": str(max(1, round(retry_after_s)))}
    return Response(_json.encode(value) + b"\n", status, headers, media_type="application/json")


def validation_error(status: int, code: int, message: str) -> Response:
    """Alertmanager's answer to a request whose form is wrong."""
    return answer({"code": code, "message": message}, status)


def not_found(path: str) -> Response:
    """Alertmanager's answer for a path that it does not have."""
    return validation_error(404, 404, f"path {path} was not found")


def not_allowed(method: str, allowed: Sequence[str]) -> Response:
    """Alertmanager's answer for a method that a path does not take."""
    names = ",".join(sorted(allowed))
    response = validation_error(405, 405, f"method {method} is not allowed, but [{names}] are")
    response.headers["Allow"] = names
    return response


def flag(value: str | None) -> bool:
    """A parameter that is true unless it says otherwise."""
    return not value or value.lower() in _TRUE
