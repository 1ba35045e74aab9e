"""The filters of a list of incidents, as parameters of a path and as the `where` of a bulk call: the same names, the same
checks. An unknown name is refused: ignoring a filter would show, or change, too much."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from models.alerts.matchers import MatcherTuple, parse_filters
from models.errors import Malformed, TooLarge
from models.incidents.filters import NOBODY, IncidentFilter, Sort
from models.incidents.query import PAGE_MAX
from services.api.v1.cursors import CURSOR_CHARS_MAX
from services.api.v1.fields import NameOrNone, SeverityWord, State, TypeWord, WrittenTime, any_case, time_of

#: Incidents or alerts on a page when the caller names no limit.
PAGE_DEFAULT = 100
#: Values of one filter; the longest natural list is all services of a team.
FILTER_VALUES_MAX = 100
#: Characters of a service's name, or of a part of a title, that somebody looks for.
LOOKED_FOR_CHARS_MAX = 1024
#: The longest matcher (models/alerts/matchers.py) with room for its name.
MATCHER_CHARS_MAX = 8192


def _as_list(value: object) -> object:
    """In JSON a single value may stand for a list of one."""
    return value if isinstance(value, list) else [value]


_LookedFor = Annotated[str, Field(max_length=LOOKED_FOR_CHARS_MAX)]

Limit = Annotated[int, Field(ge=1, le=PAGE_MAX, description="Items per page.")]
Cursor = Annotated[
    str | None,
    Field(max_length=CURSOR_CHARS_MAX, description='The "next" of an earlier page of the same list.'),
]

Firing = Annotated[bool | None, Field(description="true: firing ones; false: ended ones. Default: both.")]


class FilterParams(BaseModel):
    """What a list is narrowed to. Several values of one filter mean any of them; different filters must all match."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[
        list[State],
        Field(max_length=FILTER_VALUES_MAX, description="Any of these, ignoring case."),
        BeforeValidator(_as_list),
    ] = []
    severity: Annotated[
        list[SeverityWord],
        Field(max_length=FILTER_VALUES_MAX, description="Any of these, ignoring case."),
        BeforeValidator(_as_list),
    ] = []
    type: Annotated[
        list[TypeWord],
        Field(max_length=FILTER_VALUES_MAX, description="Any of these, ignoring case."),
        BeforeValidator(_as_list),
    ] = []
    service: Annotated[
        list[_LookedFor],
        Field(max_length=FILTER_VALUES_MAX, description="Any of these, exactly."),
        BeforeValidator(_as_list),
    ] = []
    match: Annotated[
        list[Annotated[str, Field(max_length=MATCHER_CHARS_MAX)]],
        Field(
            max_length=FILTER_VALUES_MAX,
            description='Label matchers, all of which must hold: `team="inference"`, `region=~"eu-.*"`, operators '
            "`=` `!=` `=~` `!~`. A label that is missing counts as empty.",
        ),
        BeforeValidator(_as_list),
    ] = []
    assignee: Annotated[
        list[NameOrNone],
        Field(
            max_length=FILTER_VALUES_MAX,
            description="Assigned to any of these people, or one of them has a role in it. Empty: nobody is working on it.",
        ),
        BeforeValidator(_as_list),
    ] = []
    text: Annotated[
        str, Field(max_length=LOOKED_FOR_CHARS_MAX, description="Text in the title, ignoring case.")
    ] = ""
    created_after: Annotated[
        WrittenTime | None, Field(description="Created at or after this time, RFC 3339.")
    ] = None
    created_before: Annotated[
        WrittenTime | None, Field(description="Created before this time, RFC 3339.")
    ] = None
    updated_after: Annotated[
        WrittenTime | None, Field(description="Updated at or after this time, RFC 3339.")
    ] = None
    updated_before: Annotated[
        WrittenTime | None, Field(description="Not updated since this time, RFC 3339.")
    ] = None
    merged: Annotated[
        bool,
        Field(
            description="Whether to list the children of merged incidents too. Default: only their parents."
        ),
    ] = False

    def wanted(self) -> IncidentFilter:
        """The filter. Raises Malformed for times and matchers that are none."""
        return IncidentFilter(
            [str(state) for state in self.state],
            [int(name.severity) for name in self.severity],
            [str(kind) for kind in self.type],
            list(self.service),
            [name.strip() or NOBODY for name in self.assignee],
            matchers_of(self.match),
            self.text,
            _time(self.created_after, "created_after"),
            _time(self.created_before, "created_before"),
            _time(self.updated_after, "updated_after"),
            _time(self.updated_before, "updated_before"),
            self.merged,
        )


class ListParams(FilterParams):
    """A page of a filtered list."""

    sort: Annotated[
        Sort,
        Field(
            description="`-created_at` newest first, `created_at` oldest first, `severity` worst first, then newest, `-severity` the other way round, `updated_at` and `-updated_at` by the last change."
        ),
        BeforeValidator(any_case(Sort)),
    ] = Sort.NEWEST
    limit: Limit = PAGE_DEFAULT
    cursor: Cursor = None


class IncidentAlertParams(BaseModel):
    """A page of an incident's alerts."""

    model_config = ConfigDict(extra="forbid")

    firing: Firing = None
    limit: Limit = PAGE_DEFAULT
    cursor: Cursor = None


class AlertParams(IncidentAlertParams):
    """A page of all alerts."""

    match: Annotated[
        list[Annotated[str, Field(max_length=MATCHER_CHARS_MAX)]],
        Field(
            max_length=FILTER_VALUES_MAX,
            description='Label matchers, all of which must hold: `job=~"llm-.*"`.',
        ),
    ] = []


class NoParams(BaseModel):
    """No parameters."""

    model_config = ConfigDict(extra="forbid")


Filters = Annotated[FilterParams, Query()]
List = Annotated[ListParams, Query()]
AlertList = Annotated[AlertParams, Query()]
IncidentAlertList = Annotated[IncidentAlertParams, Query()]
Nothing = Annotated[NoParams, Query()]


def matchers_of(texts: list[str]) -> list[MatcherTuple]:
    """The matchers of `match`. Raises Malformed or TooLarge, which name it."""
    try:
        return parse_filters(texts)
    except TooLarge as error:
        raise TooLarge(f"match: {str(error).removeprefix('filter: ')}") from None
    except Malformed as error:
        raise Malformed(f"match: {error}") from None


def _time(text: str | None, field: str) -> float:
    return 0.0 if text is None else time_of(text, field)
