"""What each kind of action takes, as a playbook writes it: one class a kind, named by models/playbook/catalog.py. A parameter
may always be a template instead; what it renders to must then be of the type that stands here.

Names, types and defaults here are what docs/actions.md says, which a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

from models.durations import duration_s

#: Longest wait that a parameter may ask for: what takes longer is a step of its own, with a timer.
SECONDS_MAX = 7 * 86_400.0


#: What every action takes: how long it may last. It stays among the parameters only when it is a template.
TIMEOUT = "timeout"


class Seconds(float):
    """A duration: "30s", "15m", or a number of seconds."""


Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class Params(msgspec.Struct, frozen=True):
    """Of no action in particular. Unknown names are refused: a misspelt parameter must not be ignored at three in the morning."""


P = TypeVar("P", bound=Params)


class Http(Params, frozen=True):
    url: str
    method: Method = "GET"
    headers: dict[str, str] = {}
    body: Any = None
    expect: Any = "2xx"
    contains: str = ""
    capture: bool = False
    stands_for: str = ""


class Script(Params, frozen=True):
    script: str
    args: list[str] = []
    stdin: str = ""
    capture: bool = True
    stands_for: str = ""


class HealthCheck(Params, frozen=True):
    endpoint: str = ""
    service: str = ""
    method: Method = "GET"
    expect: Any = 200
    contains: str = ""


class Wait(Params, frozen=True):
    duration: Seconds


class VerifyResolution(Params, frozen=True):
    check: Literal["health_check", "metric"] = "health_check"
    endpoint: str = ""
    service: str = ""
    expect: Any = None
    contains: str = ""
    query: str = ""
    above: float | None = None
    below: float | None = None
    within: Seconds = Seconds(0.0)
    interval: Seconds = Seconds(2.0)


class MetricsSnapshot(Params, frozen=True):
    query: str
    source: Literal["prometheus"] = "prometheus"
    duration: Seconds = Seconds(900.0)
    step: Seconds = Seconds(0.0)


class LogsCapture(Params, frozen=True):
    query: str
    source: Literal["loki"] = "loki"
    duration: Seconds = Seconds(900.0)
    max_lines: int = 1000


class ConfigSnapshot(Params, frozen=True):
    service: str = ""


class ServiceRestart(Params, frozen=True):
    service: str = ""
    method: Literal["rolling"] = "rolling"
    wait_for_healthy: bool = False
    max_attempts: int = 0


class Rollback(Params, frozen=True):
    service: str = ""
    to_revision: int = 0
    wait_for_healthy: bool = False


class Scale(Params, frozen=True):
    service: str = ""
    replicas: int | None = None
    by: int | None = None
    wait_for_healthy: bool = False


class ConfigChange(Params, frozen=True):
    data: dict[str, Any]
    service: str = ""
    wait_for_healthy: bool = False


class TrafficShift(Params, frozen=True):
    weights: dict[str, int]
    service: str = ""


class Isolate(Params, frozen=True):
    service: str = ""
    release: bool = False


class SeverityIncrease(Params, frozen=True):
    from_: str = msgspec.field(name="from", default="")
    to: str = ""


class Assign(Params, frozen=True):
    to: Any


class Comment(Params, frozen=True):
    text: str


class IncidentResolve(Params, frozen=True):
    method: str = "automated"
    notes: str = ""


class SchedulePostmortem(Params, frozen=True):
    due_date: str = "+24h"
    template: str = ""


class Say(Params, frozen=True):
    message: str = ""
    template: str = ""
    text: str = ""
    title: str = ""
    severity: str = ""
    channel: str = ""
    to: str = ""
    mention: str = ""
    receiver: str = ""
    service: str = ""
    resolves: bool = False


class PagerdutyEscalate(Params, frozen=True):
    policy: str = ""
    message: str = ""
    receiver: str = ""
    service: str = ""


class CreateWarRoom(Params, frozen=True):
    platform: str = "slack"
    name: str = ""
    invite: Any = None
    message: str = ""


def checked(kind: type[Params], values: Mapping[str, Any]) -> dict[str, Any]:
    """These parameters as their types, by field; any may be missing. Raises ValueError, which names the parameter and what was
    expected."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    converted = {}
    for name, value in values.items():
        if name not in fields:
            there_are = ", ".join(fields) or "none"
            raise ValueError(f"{name}: there is no such parameter (there are: {there_are})")
        try:
            converted[fields[name].name] = msgspec.convert(
                value, fields[name].type, strict=False, dec_hook=_own_types
            )
        except msgspec.ValidationError as error:
            raise ValueError(f"{name}: {_in_our_words(str(error))}") from None
    return converted


def convert(kind: type[P], values: Mapping[str, Any]) -> P:
    """The parameters of an action, from what templates rendered to. Raises ValueError, which names the parameter and what was
    expected."""
    converted = checked(kind, values)
    for name in missing_from(kind, values):
        raise ValueError(f"{name}: expected, and not given")
    return kind(**converted)


def names_of(kind: type[Params]) -> set[str]:
    """What its parameters are called in a playbook."""
    return {field.encode_name for field in msgspec.structs.fields(kind)}


def missing_from(kind: type[Params], values: Mapping[str, Any]) -> list[str]:
    """The names of parameters that must be given and are not."""
    return [
        field.encode_name
        for field in msgspec.structs.fields(kind)
        if field.required and field.encode_name not in values
    ]


def _own_types(kind: type, value: object) -> object:
    if kind is not Seconds:
        raise NotImplementedError
    if isinstance(value, str) and value.strip().replace(".", "", 1).isdigit():
        # A template renders to text, also where it stands for a number of seconds.
        value = float(value)
    seconds = duration_s(value)
    if not isinstance(seconds, int | float):
        raise ValueError(f'expected a duration such as "30s", not {type(value).__name__}')
    if not 0.0 <= seconds <= SECONDS_MAX:
        raise ValueError(f"expected a duration of 0 to {SECONDS_MAX:.0f} s")
    return Seconds(seconds)


def _in_our_words(said: str) -> str:
    """Without the library's quotes and its root, which is this parameter: `Expected `int`, got `str``."""
    what, _, place = said.replace("`", "").partition(" - at $")
    what = what[:1].lower() + what[1:]
    return f"{what} at {place.lstrip('.')}" if place else what
