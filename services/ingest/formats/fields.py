"""The fields of an alert: times, strings, labels and annotations, each within its bounds. Used by the formats and by /v1."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import msgspec

from models.errors import Malformed
from services.ingest.formats.json_text import echo, json_error

#: Prometheus alerts have about ten labels; more than this is no alert but an attack or a bug.
LABELS_MAX = 256
#: Prometheus' own default limit for names is none; 1 KiB is fifty times the longest in its mixins.
NAME_MAX_BYTES = 1024
#: A label value is an identity, kept in memory for every series.
LABEL_VALUE_MAX_BYTES = 16 * 1024
#: An annotation may hold a stack trace.
ANNOTATION_VALUE_MAX_BYTES = 64 * 1024
URL_MAX_BYTES = 8192
#: Labels of one alert, or annotations, as JSON. How large it may be as a whole: lifecycle.max_alert_bytes.
ALERT_MAX_BYTES = 256 * 1024
#: Times before 1970-01-01 are mistakes of unit or clock; so are later ones than 2100-01-01, but for an end that is never
#: meant to come.
TIME_MAX = 4102444800.0
TIME_EXPECTED = "expected a time between 1970 and 2100"
#: What Go writes for "no time".
UNSET_TIME = "0001-01-01T00:00:00Z"
#: The longest time that anybody writes is 40 characters; each may be an escape of six.
TIME_MAX_BYTES = 256
#: Names that were found good before: all senders together use a few hundred.
GOOD_NAMES_MAX = 4096

_good_names: set[str] = set()
_UNSET = -62135596800.0
_time_decoder: msgspec.json.Decoder[datetime] = msgspec.json.Decoder(
    Annotated[datetime, msgspec.Meta(tz=True)]
)
_zoneless_decoder: msgspec.json.Decoder[datetime] = msgspec.json.Decoder(
    Annotated[datetime, msgspec.Meta(tz=False)]
)
_string_decoder = msgspec.json.Decoder(str)
_pairs_decoder = msgspec.json.Decoder(dict[str, str])
_raw_pairs_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
#: A time that may be after year 9999 in UTC, which no datetime is.
_LAST_DAY = re.compile(
    rb'"9999-12-31[Tt ]([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)?"'
)
#: The second of a time of day.
_SECOND_60 = re.compile(rb"(?<=:\d\d):60(?=[^:]*\Z|[.Zz+-])")
T = TypeVar("T")


def read_time(raw: bytes, field: str) -> float:
    """Seconds since the epoch from a JSON string of RFC 3339; 0.0 when empty, null or Go's zero time, inf for one after
    2100, by which senders mean never. Raises Malformed."""
    if raw in (b"", b"null", b'""'):
        return 0.0
    try:
        if len(raw) > TIME_MAX_BYTES:
            raise ValueError
        at = _read_datetime(raw).timestamp() if b":60" not in raw else _read_leap_second(raw)
    except (msgspec.MsgspecError, RecursionError, OverflowError, ValueError):
        if _LAST_DAY.fullmatch(raw):
            return math.inf
        raise Malformed(f'{field}: expected a time such as "2026-01-31T12:00:00Z", got {echo(raw)}') from None
    if at == _UNSET:
        return 0.0
    if at < 0.0:
        raise Malformed(f"{field}: {TIME_EXPECTED}, got {echo(raw)}")
    return at if at <= TIME_MAX else math.inf


def _read_datetime(raw: bytes) -> datetime:
    try:
        return _time_decoder.decode(raw)
    except msgspec.ValidationError:
        # Without a zone it is UTC, as for Alertmanager.
        return _zoneless_decoder.decode(raw).replace(tzinfo=UTC)


def _read_leap_second(raw: bytes) -> float:
    """A second 60 is the one after second 59: no other clock has it. (An offset may be +01:60 to nobody.)"""
    second_59, found = _SECOND_60.subn(b":59", raw, 1)
    return _read_datetime(second_59).timestamp() + found


def read_string(raw: bytes, field: str, max_bytes: int) -> str:
    """The string in `raw`, "" when absent. Raises Malformed."""
    if raw in (b"", b"null"):
        return ""
    if len(raw) > max_bytes + 2:
        raise Malformed(f"{field}: {len(raw)} bytes, at most {max_bytes} are allowed")
    return _decode(_string_decoder, raw, field, "a string")


def read_pairs(
    raw: bytes, field: str, value_max_bytes: int, *, bad_name: str = "", keep_empty: bool = False
) -> dict[str, str]:
    """Names and values of labels or annotations; the last of two equal names wins, empty values are left out unless
    kept (Alertmanager keeps them in annotations). Raises Malformed, naming the field; for what is wrong with a name
    `bad_name` stands in its place."""
    if raw in (b"", b"null"):
        return {}
    if len(raw) > ALERT_MAX_BYTES:
        raise Malformed(f"{field}: {len(raw)} bytes, at most {ALERT_MAX_BYTES} are allowed")
    try:
        pairs = _pairs_decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Malformed(_why_no_pairs(raw, field, error)) from None
    if len(pairs) > LABELS_MAX:
        raise Malformed(f"{field}: {len(pairs)} entries, at most {LABELS_MAX} are allowed")
    for name, value in pairs.items():
        if name not in _good_names:
            _check_name(name, field, bad_name)
        # A character is four bytes at most: only a long value needs counting.
        if len(value) * 4 > value_max_bytes and len(value.encode()) > value_max_bytes:
            raise Malformed(f"{field}.{name}: over {value_max_bytes} bytes")
    if not keep_empty and "" in pairs.values():
        return {name: value for name, value in pairs.items() if value}
    return pairs


def _check_name(name: str, field: str, bad_name: str) -> None:
    if not name:
        raise Malformed(f'{bad_name or field}: invalid name ""')
    if len(name.encode()) > NAME_MAX_BYTES:
        raise Malformed(
            f"{field}: a name of {len(name.encode())} bytes, at most {NAME_MAX_BYTES} are allowed"
        )
    if len(_good_names) < GOOD_NAMES_MAX:
        _good_names.add(name)


def _why_no_pairs(raw: bytes, field: str, error: Exception) -> str:
    """The words for labels or annotations that can't be read: which of them, when it is one."""
    try:
        for name, value in _raw_pairs_decoder.decode(raw).items():
            try:
                _string_decoder.decode(value)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as reason:
                return f"{field}.{echo(name.encode())}: expected a string: {json_error(reason)}"
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        pass  # it is no object, or a name is at fault
    return f"{field}: expected an object of strings: {json_error(error)}"


def _decode(decoder: msgspec.json.Decoder[T], raw: bytes, field: str, expected: str) -> T:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Malformed(f"{field}: expected {expected}: {json_error(error)}") from None
