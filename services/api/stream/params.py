"""What the parameters of a request for the stream of incidents ask for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Header, Query
from pydantic import BeforeValidator
from starlette.requests import HTTPConnection

from models.alerts.matchers import MATCHERS_MAX, parse_filters
from models.errors import Malformed, TooLarge
from models.incidents.incident import IncidentState, IncidentType, Severity
from models.stream.cursor import CURSOR_CHARS_MAX
from models.stream.filter import StreamFilter
from models.stream.happenings import KINDS
from services.api.v1.fields import SeverityName, any_case
from services.api.v1.list_params import FILTER_VALUES_MAX

SSE = "text/event-stream"

KindName = StrEnum("KindName", {kind: kind for kind in KINDS})  # type: ignore[misc]
_Kind = Annotated[KindName, BeforeValidator(any_case(KindName))]
_State = Annotated[IncidentState, BeforeValidator(any_case(IncidentState))]
_SeverityName = Annotated[SeverityName, BeforeValidator(any_case(SeverityName))]
_Type = Annotated[IncidentType, BeforeValidator(any_case(IncidentType))]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which events a client wants, and from which position on. `forgives`: an invalid cursor leads to a reset instead
    of 400, because a browser would never reconnect after 400. The cursor may be from before a reshard."""

    wanted: StreamFilter
    cursor: str | None
    forgives: bool


def asked(
    connection: HTTPConnection,
    state: Annotated[
        list[_State], Query(max_length=FILTER_VALUES_MAX, description="Any of these, ignoring case.")
    ] = [],  # noqa: B006 - FastAPI reads the default and never changes it
    severity: Annotated[
        list[_SeverityName], Query(max_length=FILTER_VALUES_MAX, description="Any of these.")
    ] = [],  # noqa: B006
    type: Annotated[
        list[_Type], Query(max_length=FILTER_VALUES_MAX, description="Any of these, ignoring case.")
    ] = [],  # noqa: B006
    service: Annotated[
        list[str], Query(max_length=FILTER_VALUES_MAX, description="Any of these, exactly.")
    ] = [],  # noqa: B006
    match: Annotated[
        list[str],
        Query(max_length=MATCHERS_MAX, description='A matcher of labels, like `team=~"a.*"`. All must hold.'),
    ] = [],  # noqa: B006
    kind: Annotated[
        list[_Kind],
        Query(max_length=FILTER_VALUES_MAX, description="Any of these kinds of events, ignoring case."),
    ] = [],  # noqa: B006
    cursor: Annotated[
        str | None,
        Query(
            max_length=CURSOR_CHARS_MAX,
            description="The cursor of the last message you read. Without it the stream starts now.",
        ),
    ] = None,
    last_event_id: Annotated[
        str | None,
        Header(
            description="The same, as browsers send it when they reconnect. Wins over `cursor`.",
        ),
    ] = None,
) -> Asked:
    """The stream that a request's parameters describe. Raises Malformed, TooLarge."""
    try:
        matchers = parse_filters(match)
    except Malformed as error:
        raise Malformed(f"match: {error}") from None
    except TooLarge as error:
        raise TooLarge(f"match: {error}") from None
    wanted = StreamFilter(
        frozenset(state),
        frozenset(Severity[name.value] for name in severity),
        frozenset(type),
        frozenset(service),
        frozenset(each.value for each in kind),
        tuple(matchers),
    )
    forgives = bool(last_event_id) or names_events(connection.headers.get("accept", ""))
    return Asked(wanted, last_event_id or cursor, forgives)


def names_events(accept: str) -> bool:
    """Whether an Accept header asks for a stream of events by name, as an EventSource's does."""
    return any(part.partition(";")[0].strip().lower() == SSE for part in accept.split(","))
