"""Problem documents (RFC 9457): the form of every error of /v1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from fastapi.responses import Response
from pydantic import Field

from models.errors import (
    Busy,
    Conflict,
    Forbidden,
    IncidentManagerError,
    Malformed,
    NotFound,
    Refused,
    Stale,
    TooLarge,
    Unavailable,
)
from services.api.traced import current_id
from services.api.v1.fields import PATTERN_WORDS

#: Most fields named in one problem: a thousand alike help nobody.
FIELDS_TOLD_MAX = 100


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field of a request."""

    field: Annotated[str, Field(description="Parameter, header or field; one in another as `labels.team`.")]
    detail: Annotated[str, Field(description="What was expected.")]


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document (RFC 9457). `errors` names the fields, when it is about fields. `trace_id` is there if the
    request belongs to a trace; our log lines about it have the same one."""

    type: Annotated[str, Field(description="Which problem, for programs: `urn:llm-im:problem:stale` ...")]
    title: Annotated[str, Field(description="A short title for people.")]
    status: Annotated[int, Field(description="The HTTP status.")]
    detail: Annotated[str, Field(description="What happened, and what to do about it.")]
    instance: Annotated[str, Field(description="The path of the request.")]
    errors: Annotated[list[FieldProblem], Field(description="The fields that are wrong.")]
    trace_id: Annotated[
        str, Field(description="The trace that the request belongs to; absent without one.")
    ] = ""


_PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}

#: What can be said of the statuses that several routes share.
REFUSED = {"4XX": "The request was refused; the problem names the field."}
NOT_FOUND = {"404": "No incident has this id."}
NOT_NOW = {"503": "This gateway is starting or stopping; try again."}
AWAY = {"503": "A shard or the archive cannot answer; the problem names it."}


def problems(*described: Mapping[str, str]) -> dict[int | str, dict[str, object]]:
    """OpenAPI's description of problems, by status."""
    return {
        code: {
            "description": text,
            "content": _PROBLEM_CONTENT,
            **({"headers": _RETRY_AFTER} if code == "503" else {}),
        }
        for some in described
        for code, text in some.items()
    }


def problem(
    status: int, kind: str, title: str, detail: str, path: str, fields: Sequence[FieldProblem] = ()
) -> Response:
    """A problem document as an answer. `kind` names it within our own problem types."""
    body = Problem(type_of(kind), title, status, detail, path, list(fields), current_id() or "")
    document = msgspec.to_builtins(body)
    if not body.trace_id:
        del document["trace_id"]
    return Response(_encoder.encode(document), status, media_type="application/problem+json")


def problem_of(error: IncidentManagerError, path: str) -> Response:
    """The problem document of one of our errors: what the caller can change is 4xx, what passes is 503."""
    status, kind, title = told_as(error)
    if status == 500:
        return problem(500, kind, title, type(error).__name__, path)
    response = problem(status, kind, title, str(error), path, fields_in(error))
    if status == 503:
        wait_s = error.retry_after_s if isinstance(error, Busy) else 1.0
        response.headers["Retry-After"] = str(max(1, round(wait_s)))
    return response


def type_of(kind: str) -> str:
    """A problem's type, for programs."""
    return f"urn:llm-im:problem:{kind}"


def fields_in(error: IncidentManagerError) -> list[FieldProblem]:
    """The field that an error of ours is about, if it says so."""
    if not isinstance(error, Malformed | TooLarge | NotFound | Conflict):
        return []
    field, colon, why = str(error).partition(": ")
    return [FieldProblem(field, why)] if colon and _is_field(field) else []


def told_as(error: IncidentManagerError) -> tuple[int, str, str]:
    """Status, kind and title of one of our errors."""
    for kind_of_error, told in _TOLD_AS:
        if isinstance(error, kind_of_error):
            return told
    return 500, "broken", "Internal error"


def field_problems(errors: Iterable[Mapping[str, object]], *, skip: int = 0) -> list[FieldProblem]:
    """pydantic's findings as ours. `skip` leaves out the first parts of a place: FastAPI's "query"."""
    found: list[FieldProblem] = []
    for each in errors:
        place = each["loc"]
        assert isinstance(place, tuple)
        # ("labels", "bad name", "[key]"): the name itself is what is wrong.
        named = ".".join(str(part) for part in place[skip:] if part != "[key]")
        detail = str(each["msg"]).removeprefix("Value error, ")
        if each["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            detail = "there is no such field"
        elif each["type"] == "string_pattern_mismatch":
            context = each["ctx"]
            assert isinstance(context, Mapping)
            detail = PATTERN_WORDS.get(str(context["pattern"]), detail)
        found.append(FieldProblem(named or "body", detail))
        if len(found) == FIELDS_TOLD_MAX:
            break
    return found


def malformed(fields: Sequence[FieldProblem], path: str) -> Response:
    """A request with wrong fields."""
    return problem(400, "malformed", "The request cannot be read", malformed_fields(fields), path, fields)


def malformed_fields(fields: Sequence[FieldProblem]) -> str:
    """Wrong fields in words."""
    return "; ".join(f"{each.field}: {each.detail}" for each in fields)


def _is_field(word: str) -> bool:
    return bool(word) and all(
        part.replace("-", "_").isidentifier() or part.isdigit() for part in word.split(".")
    )


#: Subclasses before their base.
_TOLD_AS: tuple[tuple[type[IncidentManagerError], tuple[int, str, str]], ...] = (
    (Malformed, (400, "malformed", "The request cannot be read")),
    (TooLarge, (400, "too-large", "The request asks for too much")),
    (Forbidden, (403, "forbidden", "The token lacks the scope for this")),
    (NotFound, (404, "not-found", "Not found")),
    (Conflict, (409, "conflict", "Its state does not allow this")),
    (Stale, (412, "stale", "It was changed in the meantime")),
    (Busy, (503, "busy", "Busy")),
    (Refused, (422, "refused", "Refused")),
    (Unavailable, (503, "unavailable", "A part of the system cannot answer")),
)
_encoder = msgspec.json.Encoder(order="deterministic")
