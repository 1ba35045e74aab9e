"""Fields of JSON that somebody else made up, each read with its name at hand: what is wrong is told as "alert.title: expected a
string, got a list". Used by the formats of services/ingest/formats that are built on webhook.py.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice

from models.errors import Malformed, TooLarge
from services.ingest.formats.fields import TIME_EXPECTED, TIME_MAX
from services.ingest.formats.json_text import WORDS_MAX, echo, without_mark

#: A body of one sender's event: the largest of theirs, Opsgenie's and PagerDuty's, may have half of it.
BODY_MAX_BYTES = 1024 * 1024
#: Names of nested fields that become annotations, and how deep they are looked for.
FLAT_MAX = 48
FLAT_DEPTH = 4
#: Numbers of seconds, milli-, micro- and nanoseconds since 1970 are told apart by their size.
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (math.inf, 1e9))
#: A time in words is remembered, and a longer one is none: any number of digits may stand behind a second.
TIME_CHARS_MAX = 64
_NUMBER = re.compile(r"-?\d{1,19}(\.\d{1,9})?")
#: What Go prints for a time: "2025-02-15 14:59:03.26 +0000 UTC".
#: And what PagerDuty's client for Python does: "2026-01-31T12:00:00+00:00Z".
_GO_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d+)?) ?([+-]\d\d:?\d\d|Z)?(?: [A-Z]{2,5}|Z)?"
)
_UNSET = ("0001-01-01", "1970-01-01T00:00:00Z")


def read_json(body: bytes, max_bytes: int = BODY_MAX_BYTES) -> object:
    """The JSON value of a body. Raises Malformed, also for a name that is there twice, of which nobody knows which counts, and
    TooLarge."""
    if len(body) > max_bytes:
        raise TooLarge(f"{len(body)} bytes in one request, at most {max_bytes} are allowed")
    try:
        found: object = _decoder.decode(without_mark(body).decode("utf-8"))
        if b"\\ud" in body or b"\\uD" in body:
            # Half of a surrogate pair, in a name or a value: no answer and no log could hold it.
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeEncodeError:
        raise Malformed("the body: half of a surrogate pair, which no UTF-8 holds") from None
    except RecursionError:
        raise Malformed("the body: nested too deeply") from None
    except UnicodeDecodeError as error:
        raise Malformed(f"the body: expected UTF-8: {error.reason} (byte {error.start})") from None
    except ValueError as error:
        raise Malformed(f"the body: expected JSON: {str(error)[:WORDS_MAX]}") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        met: set[str] = set()  # not list.count(): a body of 100,000 names would take minutes
        twice = next(name for name, _value in pairs if name in met or met.add(name))  # type: ignore[func-returns-value]
        raise Malformed(f"{echo(twice.encode('utf-8', 'replace'))}: expected this name once in an object")
    return found


def _no_number(word: str) -> object:
    raise Malformed(f"the body: {word} is no number of JSON")


#: json.loads() makes one each time.
_decoder = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)

#: A value and where it stands.
Member = tuple[object, str]


class Fields:
    """An object of a sender's JSON. Of a name with dots each part is looked up in turn, unless the whole is a name itself."""

    __slots__ = ("_path", "values")

    def __init__(self, values: object, path: str = "") -> None:
        if not isinstance(values, dict):
            raise Malformed(f"{path or 'the body'}: expected an object, got {kind_of(values)}")
        self.values: dict[str, object] = values
        self._path = path

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def path(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def get(self, name: str) -> object:
        """The value as it is; None when it is not there."""
        value = self.values.get(name)
        if value is not None or "." not in name or name in self.values:
            return value
        first, _, rest = name.partition(".")
        inner = self.values.get(first)
        return Fields(inner, self.path(first)).get(rest) if inner is not None else None

    def text(self, *names: str) -> str:
        """The first of these that says something; "" when none does. A number or a boolean is taken as it is written."""
        values = self.values
        for name in names:
            value = values.get(name)
            if value is None:
                if "." not in name or (value := self.get(name)) is None:
                    continue
            elif type(value) is str and value.isascii():
                # Most are: what follows only for the rest.
                if said := value.strip():
                    return said
                continue
            if said := text_of(value, self.path(name)):
                return said
        return ""

    def need(self, *names: str) -> str:
        """text() of what must be there."""
        if said := self.text(*names):
            return said
        wanted = " or ".join(self.path(name) for name in names)
        raise Malformed(f"{wanted}: expected a string, it is missing or empty")

    def one_of(self, name: str, choices: Mapping[str, object] | tuple[str, ...], default: str = "") -> str:
        """A word of `choices`, in lower case."""
        said = (self.text(name) or default).strip().lower()
        if said not in choices:
            got = f"got {echo(said.encode())}" if said else "it is missing"
            raise Malformed(f"{self.path(name)}: expected one of {', '.join(choices)}; {got}")
        return said

    def inner(self, name: str) -> Fields:
        """An object; one without fields when it is not there."""
        value = self.get(name)
        return Fields({} if value is None else value, self.path(name))

    def need_inner(self, name: str) -> Fields:
        if self.get(name) is None:
            raise Malformed(f"{self.path(name)}: expected an object, it is missing")
        return self.inner(name)

    def items(self, name: str) -> list[object]:
        """The elements of an array; none when it is not there."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise Malformed(f"{self.path(name)}: expected an array, got {kind_of(value)}")
        return value

    def members(self, name: str) -> Iterator[Member]:
        """The elements of an array, not looked into."""
        path = self.path(name)
        for place, value in enumerate(self.items(name)):
            yield value, f"{path}[{place}]"

    def objects(self, name: str) -> Iterator[Fields]:
        for value, path in self.members(name):
            yield Fields(value, path)

    def texts(self, name: str) -> list[str]:
        """An array of strings, or one string with commas between them."""
        value = self.get(name)
        if isinstance(value, str):
            return [part.strip() for part in text_of(value, self.path(name)).split(",") if part.strip()]
        return [
            said
            for place, each in enumerate(self.items(name))
            if (said := text_of(each, f"{self.path(name)}[{place}]"))
        ]

    def time(self, *names: str) -> float:
        """Seconds since the epoch of the first that is set; 0.0 when none is."""
        for name in names:
            if at := time_of(self.get(name), self.path(name)):
                return at
        return 0.0

    def number(self, name: str) -> float | None:
        """A number, or a string that is one; None when it is not there."""
        value = self.get(name)
        if value is None or value == "":
            return None
        try:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError
            found = float(value)
            if not math.isfinite(found):
                raise ValueError
        except (ValueError, OverflowError):
            raise Malformed(f"{self.path(name)}: expected a number, got {shown(value)}") from None
        return found

    def pairs(self, name: str = "") -> dict[str, str]:
        """What an object says as names and texts, nested ones with dots; for labels and annotations."""
        found: dict[str, str] = {}
        _flatten(self.get(name) if name else self.values, "", FLAT_DEPTH, found)
        return found


def _flatten(value: object, path: str, depth: int, found: dict[str, str]) -> None:
    """Put what an object says into `found`."""
    if not isinstance(value, dict):
        return
    for inner, each in islice(value.items(), FLAT_MAX):
        name = f"{path}.{inner}" if path else str(inner)
        if isinstance(each, dict) and depth > 1:
            _flatten(each, name, depth - 1, found)
        elif not name:
            continue
        elif isinstance(each, dict | list):
            if each:
                found[name] = json.dumps(each, ensure_ascii=True, separators=(",", ":"))
        elif each is not None and (said := text_of(each, name)):
            found[name] = said


def text_of(value: object, path: str) -> str:
    """A string, number or boolean as text. Raises Malformed for anything else, and for what no UTF-8 holds."""
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Malformed(f"{path}: half of a surrogate pair, which no UTF-8 holds") from None
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return repr(value)
    if isinstance(value, float):
        return json.dumps(value)
    if value is None:
        return ""
    raise Malformed(f"{path}: expected a string, got {kind_of(value)}")


def time_of(value: object, path: str) -> float:
    """Seconds since the epoch: of a number in any unit down to nanoseconds, of RFC 3339, or of what is near it. 0.0 for what
    senders write for no time."""
    if value is None or value == "":
        return 0.0
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        at = _moment(value)
        if not 0.0 <= at <= TIME_MAX:
            raise Malformed(f"{path}: {TIME_EXPECTED}, got {shown(value)}")
        return at
    except (ValueError, OverflowError):
        expected = 'a time such as "2026-01-31T12:00:00Z", or a number of seconds since 1970'
        raise Malformed(f"{path}: expected {expected}, got {shown(value)}") from None


def _moment(value: float | str) -> float:
    if isinstance(value, str):
        if len(value) > TIME_CHARS_MAX:
            raise ValueError
        text = value.strip()
        if text.startswith(_UNSET):
            return 0.0
        if not _NUMBER.fullmatch(text):
            return _of_text(text)
        value = float(text)
    if not math.isfinite(value):  # 1e999 is one in JSON
        raise ValueError
    unit = next(unit for below, unit in _UNITS if abs(value) < below)
    return value / unit


@lru_cache(maxsize=1024)  # The alerts of one request have a few times among them.
def _of_text(text: str) -> float:
    """A time in words. Raises ValueError."""
    found = _GO_TIME.fullmatch(text)
    if found is not None:
        text = "".join(part or "" for part in (found[1], "T", found[2], found[3]))
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def kind_of(value: object) -> str:
    """What a value of JSON is called."""
    if value is None:
        return "null"
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "a boolean"),
        (dict, "an object"),
        (list, "an array"),
        (str, "a string"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "a number")


def shown(value: object) -> str:
    """A value, short enough for an error."""
    return (
        echo(json.dumps(value, ensure_ascii=True)[:400].encode())
        if not isinstance(value, dict | list)
        else kind_of(value)
    )
