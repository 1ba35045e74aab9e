"""Answers one GraphQL request: parses, checks bounds, validates, executes, and tells errors as problems. Made at the first
request, since the library and the schema take a while that no start should. Used by route.py.

Parsing, validation and the schema's description of itself run in a thread: they are all calculation, and the gateway also
takes alerts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    execute,
    execute_sync,
    parse,
    validate,
)
from starlette.requests import Request

from models.errors import IncidentManagerError, Unavailable
from services.api.auth import RESPOND, Caller, allow
from services.api.graphql.asked import Asked
from services.api.graphql.bounds import ERRORS_MAX, TIME_MAX_S, TOKENS_MAX
from services.api.graphql.ground import Ground
from services.api.graphql.schema import ARGUMENTS, build
from services.api.graphql.types import camel
from services.api.graphql.weight import Scale, check, fragments_of, is_of_schema
from services.api.problems import FieldProblem, fields_in, malformed_fields, told_as, type_of
from services.api.traced import current_id
from services.api.v1.incidents import NoSuchIncident
from services.api.v1.requests import BadFields

log = structlog.get_logger()

#: Queries that are kept parsed: those of an interface, and of its other versions.
KEPT_MAX = 100
#: Longer ones are parsed each time: parsed, a query takes fifty times its size.
KEPT_CHARS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent. `is_bad`: the request itself can't be answered, and nothing was done."""

    body: dict[str, Any]
    is_bad: bool = False


class Engine:
    """One gateway's."""

    def __init__(self) -> None:
        self.schema = build()
        self._kept: dict[str, DocumentNode] = {}
        #: One description of the schema at a time: each takes a thread a tenth of a second.
        self._describing = asyncio.Lock()

    async def answer(
        self,
        query: str,
        variables: Mapping[str, Any],
        operation: str | None,
        ground: Ground,
        caller: Caller,
        request: Request,
    ) -> Answer:
        """Raises Forbidden when the caller may not change anything and asks to, Unavailable when it takes too long."""
        document: DocumentNode | list[GraphQLError] | None = self._kept.get(query)
        if document is None:
            document = await asyncio.to_thread(self._read, query)
        if isinstance(document, list):
            return Answer({"errors": told(document)}, is_bad=True)
        if len(query) <= KEPT_CHARS_MAX:
            while len(self._kept) >= KEPT_MAX:
                del self._kept[next(iter(self._kept))]
            self._kept[query] = document
        chosen = _chosen(document, operation)
        is_change = chosen is not None and chosen.operation is OperationType.MUTATION
        if is_change:
            allow(caller, RESPOND)
        asked = Asked(ground, request)
        try:
            async with asyncio.timeout(TIME_MAX_S):
                result = await self._execute(document, chosen, variables, operation, asked)
        except TimeoutError:
            raise Unavailable(
                f"the answer took over {TIME_MAX_S:g} s: "
                + (
                    "what was asked may have been done; look, or send it again with the same Idempotency-Key"
                    if is_change
                    else "ask for less at once"
                )
            ) from None
        errors = result.errors or []
        if result.data is None and errors:
            # Nothing was executed: a variable is wrong, or there is no such operation.
            return Answer({"errors": told(errors)}, is_bad=True)
        body: dict[str, Any] = {"data": result.data}
        return Answer({**body, "errors": told(errors)} if errors else body)

    def _read(self, query: str) -> DocumentNode | list[GraphQLError]:
        try:
            document = parse(query, max_tokens=TOKENS_MAX)
            check(document)
        except GraphQLError as error:
            return [error]
        except IncidentManagerError as error:
            return [GraphQLError(str(error), original_error=error)]
        except RecursionError:
            return [GraphQLError("the query is nested too deeply")]
        return validate(self.schema, document, max_errors=ERRORS_MAX) or document

    async def _execute(
        self,
        document: DocumentNode,
        chosen: OperationDefinitionNode | None,
        variables: Mapping[str, Any],
        operation: str | None,
        asked: Asked,
    ) -> ExecutionResult:
        given = dict(variables)
        scale = Scale(fragments_of(document))
        if chosen is not None and any(map(is_of_schema, scale.roots(chosen.selection_set.selections))):
            async with self._describing:
                return await asyncio.to_thread(
                    execute_sync, self.schema, document, None, asked, given, operation
                )
        result = execute(self.schema, document, None, asked, given, operation)
        return result if isinstance(result, ExecutionResult) else await result


def _chosen(document: DocumentNode, name: str | None) -> OperationDefinitionNode | None:
    """The operation to be executed; None if it can't be told, which execution says."""
    found = [
        each
        for each in document.definitions
        if isinstance(each, OperationDefinitionNode)
        and (name is None or (each.name is not None and each.name.value == name))
    ]
    return found[0] if len(found) == 1 else None


def told(errors: list[GraphQLError]) -> list[dict[str, Any]]:
    """Errors as GraphQL shows them, each with its problem type as of /v1 in `extensions`."""
    return [_told(each) for each in errors[:ERRORS_MAX]]


def _told(error: GraphQLError) -> dict[str, Any]:
    shown: dict[str, Any] = dict(error.formatted)
    cause = error.original_error
    status, kind, title, fields = 400, "malformed", "The request cannot be read", list[FieldProblem]()
    if isinstance(cause, BadFields):
        fields = [*map(_spelled, cause.fields)]
        shown["message"] = malformed_fields(fields)
    elif isinstance(cause, NoSuchIncident):
        status, kind, title = 404, "no-such-incident", "No such incident"
    elif isinstance(cause, IncidentManagerError):
        status, kind, title = told_as(cause)
        if fields := [*map(_spelled, fields_in(cause))]:
            shown["message"] = malformed_fields(fields)
    elif cause is not None and not isinstance(cause, GraphQLError):
        status, kind, title = 500, "broken", "Internal error"
        log.error(
            "bug: request failed", method="POST", path="/graphql", why=type(cause).__name__, exc_info=cause
        )
    if status == 500:
        shown["message"] = title
    problem: dict[str, Any] = {"type": type_of(kind), "title": title, "status": status}
    if fields:
        problem["errors"] = [{"field": each.field, "detail": each.detail} for each in fields]
    if trace_id := current_id():
        problem["trace_id"] = trace_id
    return {**shown, "extensions": problem}


def _spelled(problem: FieldProblem) -> FieldProblem:
    """With its field as it is called here."""
    name = ARGUMENTS.get(problem.field) or ".".join(map(camel, problem.field.split(".")))
    return FieldProblem(name, problem.detail)
