"""What sections are made of: the types of settings, the base of every section, and the marks that a setting may bear.

The sections are the files beside this one, listed in models/settings/all.py; those in models/settings/later.py are not
active yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, get_args

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic.config import JsonDict

from models.durations import duration_s, per_second

#: A hundred years: anything longer is a typo, and this is far below what a clock in seconds can hold.
DURATION_MAX_S = 100 * 365 * 86400.0
#: Stricter than AnyHttpUrl, which silently repairs what browsers repair: http:///path, or a backslash for a slash.
_URL = re.compile(r"https?://(?P<place>[^/?#\\]+)([/?#].*)?", re.IGNORECASE)
#: A host name or address. A leftover placeholder of a template (`$HOST`, `{{ host }}`) is neither.
_HOST = re.compile(
    r"(?=.{1,254}\Z)([A-Za-z0-9_]([\w-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([\w-]{0,61}[A-Za-z0-9_])?\.?|\[[\da-fA-F:.]+\]",
    re.ASCII,
)
#: How to write "no duration", in settings that allow it.
NONE = "none"

#: Marks in a setting's json_schema_extra, so that the schema shows them too.
LIVE_MARK, LATER_MARK, MACHINE_MARK = "x-reload", "x-not-active-yet", "x-by-machine"
#: Changed by `llm-im config reload`, without a restart.
LIVE: JsonDict = {LIVE_MARK: True}
#: Accepted, but its feature is not built yet.
LATER: JsonDict = {LATER_MARK: True}
#: Its default depends on the machine: services/settings/load.py has it.
BY_MACHINE: JsonDict = {MACHINE_MARK: True}


class WrongAt(ValueError):
    """A mistake that shows only beside other settings. `at`: its place within the section that is checked, as one writes it."""

    def __init__(self, at: str, wrong: str) -> None:
        super().__init__(wrong)
        self.at = at


def _none_or(value: object) -> object:
    return None if value == NONE else value


_SCHEMA = {"anyOf": [{"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d|w)\s*$"}, {"type": "number", "minimum": 0}]}  # fmt: skip
Duration = Annotated[
    float,
    BeforeValidator(duration_s),
    Field(ge=0, le=DURATION_MAX_S, allow_inf_nan=False),
    WithJsonSchema(_SCHEMA),
]
MaybeDuration = Annotated[
    Duration | None,
    BeforeValidator(_none_or),
    WithJsonSchema({"anyOf": [*_SCHEMA["anyOf"], {"const": NONE}, {"type": "null"}]}),
]


def _absolute(path: str) -> str:
    if (path and not path.startswith("/")) or "\0" in path:
        raise ValueError(
            f"expected an absolute path, not {path[:80]!r}: every process has a working folder of its own"
        )
    return path


#: A file or a folder that a process reads while it runs. Empty where that means none.
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
#: How often, as "5000/s".
Rate = Annotated[str, Field(pattern=r"^\d+/(s|m|h)$", description="A rate, such as 5000/s.")]


def some_rate(rate: str | None) -> str | None:
    """For validators: raises ValueError for one that lets nothing pass."""
    if rate is not None and not per_second(rate):
        raise ValueError('expected at least "1/h"')
    return rate


class Section(BaseModel):
    """A table of settings. Unknown keys are refused."""

    # A ValidationError shows what it was given, which may be a secret.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        """What processes of this kind (models/settings/processes.py) go by: plain values by name, secrets as Secret. They get
        it when they start, and again, without what holds a secret, when a LIVE setting was changed. To a gateway, which has
        all settings without secrets, the secrets that it needs. A bound of the whole system is shared by `partitions`."""
        return {}

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        # pydantic takes true for 1.
        if isinstance(value, bool) and info.field_name is not None:
            field = cls.model_fields[info.field_name]
            kinds = (field.annotation, *get_args(field.annotation))
            # A duration's own validator says more.
            is_bare = not any(isinstance(each, BeforeValidator) for each in field.metadata)
            if bool not in kinds and is_bare and (int in kinds or float in kinds):
                what = "a whole number" if int in kinds else "a number"
                raise ValueError(f"expected {what}, not {str(value).lower()}")
        return value


def wrong_url(url: str) -> str:
    """What is wrong with an http or https URL that will be called exactly as written, "" if nothing is. Never repeats the
    URL: it may be a secret."""
    if any(character <= " " or character == "\x7f" for character in url):
        return "expected a URL without spaces or control characters: percent-encode them, as in %20"
    found = _URL.fullmatch(url)
    if found is None:
        return "expected an http:// or https:// URL with a host, as in https://example.org/hook"
    try:
        parsed = AnyHttpUrl(url)
    except ValidationError:
        parsed = None
    place = found["place"].rpartition("@")[2]
    # ASCII names as written; a name in another script in the form that is looked up.
    host = place.partition("]")[0] + "]" if place.startswith("[") else place.partition(":")[0]
    if parsed is not None and not host.isascii():
        host = parsed.host or ""
    if parsed is None or not parsed.port or place.endswith(":") or not _HOST.fullmatch(host):
        return "expected a valid host name, and a port of 1 to 65535 or none"
    if "#" in url:
        return "expected a URL without #, because what follows it is never sent: write it as %23"
    return ""
