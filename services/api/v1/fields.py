"""The kinds of values that /v1 accepts and shows: words in any case, names, texts, times, each with its OpenAPI
description.

What people write is bounded by models/incidents/verbs.py. Control characters are refused: on a terminal they would move
the reader's cursor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, TypeVar
from uuid import UUID

import msgspec
from pydantic import BeforeValidator, Field

from models.durations import duration_s
from models.errors import Malformed
from models.incidents.incident import IncidentState, IncidentType, Severity
from models.incidents.verbs import LABEL_VALUE_MAX, NAME_MAX, REASON_MAX, TEXT_MAX, TITLE_MAX
from services.ingest.formats.fields import TIME_EXPECTED, TIME_MAX, read_time
from services.ingest.formats.json_text import echo

#: No control characters: one line.
LINE = r"^[^\x00-\x1f\x7f-\x9f]*$"
#: A line with something to see in it.
FILLED_LINE = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
#: Several lines: tab and line ends are taken.
LINES = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"
FILLED_LINES = (
    r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"
)
FINGERPRINT = "^[0-9a-f]{16}$"
DURATION = r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d|w)$"
#: What each of these patterns asks for, in words.
PATTERN_WORDS = {
    LINE: "expected one line without control characters",
    FILLED_LINE: "expected one line without control characters, and not empty",
    LINES: "expected text without control characters",
    FILLED_LINES: "expected text without control characters, and not empty",
    DURATION: 'expected a duration such as "30s", "5m", "1h" or "90d"',
    FINGERPRINT: "expected an alert's fingerprint: 16 hexadecimal digits",
}
#: Characters of the longest time or duration that anybody writes.
TIME_CHARS_MAX = 40

_E = TypeVar("_E", bound=StrEnum)


def says(text: str) -> object:
    """What OpenAPI says of a field."""
    return Field(description=text)


def any_case(kind: type[_E]) -> Callable[[object], object]:
    """A word of `kind` in any case, as its member; anything else as it is, for pydantic to refuse."""
    by_lower = {member.value.lower(): member for member in kind}

    def read(value: object) -> object:
        return by_lower.get(value.lower(), value) if isinstance(value, str) else value

    return read


class SeverityName(StrEnum):
    """models.incidents.incident.Severity as people write it."""

    P0 = "P0"
    P1 = "P1"
    P2 = "P2"
    P3 = "P3"
    P4 = "P4"

    @property
    def severity(self) -> Severity:
        return Severity[self.value]


State = Annotated[IncidentState, BeforeValidator(any_case(IncidentState))]
SeverityWord = Annotated[SeverityName, BeforeValidator(any_case(SeverityName))]
TypeWord = Annotated[IncidentType, BeforeValidator(any_case(IncidentType))]


class ClearableName(StrEnum):
    """What of a person's word can be taken back: models.incidents.verbs.CLEARABLE under the names of the API."""

    SEVERITY = "severity"
    INCIDENT_TYPE = "incident_type"
    IMPACT = "impact"


class MethodName(StrEnum):
    """models.incidents.verbs.METHODS."""

    MANUAL = "Manual"
    ASSISTED = "AutoAssistedManual"
    AUTOMATED = "Automated"


ClearableWord = Annotated[ClearableName, BeforeValidator(any_case(ClearableName))]
MethodWord = Annotated[MethodName, BeforeValidator(any_case(MethodName))]

Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX, pattern=FILLED_LINE)]
NameOrNone = Annotated[str, Field(max_length=NAME_MAX, pattern=LINE)]
Title = Annotated[str, Field(min_length=1, max_length=TITLE_MAX, pattern=FILLED_LINE)]
Text = Annotated[str, Field(min_length=1, max_length=TEXT_MAX, pattern=FILLED_LINES)]
TextOrNone = Annotated[str, Field(max_length=TEXT_MAX, pattern=LINES)]
Why = Annotated[str, Field(max_length=REASON_MAX, pattern=LINES, description="Why; kept in the timeline.")]
LabelName = Annotated[str, Field(max_length=NAME_MAX, pattern=FILLED_LINE)]
LabelValue = Annotated[str, Field(max_length=LABEL_VALUE_MAX, pattern=LINES)]
#: A time that somebody gives. Read by time_of: JSON knows no times.
WrittenTime = Annotated[str, Field(max_length=TIME_CHARS_MAX, json_schema_extra={"format": "date-time"})]
#: A length of time that somebody gives. Read by duration_of.
WrittenDuration = Annotated[str, Field(max_length=TIME_CHARS_MAX, pattern=DURATION)]
#: A UUID that comes in JSON, where pydantic's strict mode wants an instance.
Id = Annotated[UUID, Field(strict=False)]

#: A time that is shown.
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


def time_of(text: str, field: str) -> float:
    """Seconds since the epoch from RFC 3339. Raises Malformed naming the field."""
    at = _time_or_never(text, field)
    if at == math.inf:
        raise Malformed(f"{field}: {TIME_EXPECTED}, got {echo(text.encode())}")
    return at


def _time_or_never(text: str, field: str) -> float:
    """The same, and inf for a time so late that never is meant."""
    at = read_time(msgspec.json.encode(text), field)
    if not at:
        raise Malformed(f'{field}: expected a time such as "2026-01-31T12:00:00Z", not an empty one')
    return at


def duration_of(text: str, field: str) -> float:
    """Seconds from "30m". Raises Malformed naming the field."""
    try:
        seconds = duration_s(text)
    except ValueError as error:
        raise Malformed(f"{field}: {error}") from None
    assert isinstance(seconds, float)
    return seconds


def time_to_come(until: str | None, within: str | None, fields: tuple[str, str], now: float) -> float:
    """The moment that is given by itself or as a time from now; 0 when neither is, or when it is after 2100, by which people
    mean never. Raises Malformed."""
    if until is not None and within is not None:
        raise Malformed(f"{fields[1]}: give {fields[0]} or {fields[1]}, not both")
    if within is not None:
        at, field = now + duration_of(within, fields[1]), fields[1]
    elif until is not None:
        at, field = _time_or_never(until, fields[0]), fields[0]
        if at == math.inf:
            return 0.0
    else:
        return 0.0
    if not now < at <= TIME_MAX:
        raise Malformed(f"{field}: expected a time in the future, before 2100")
    return at
