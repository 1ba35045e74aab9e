"""What every format shares: an alert's bytes become an Item, checked once and remembered.

Nine of ten alerts in an outage were sent before, to the byte. So a reader takes an alert apart into raw slices,
hashes them (1.4 us), and finds what it learned when it met those bytes first: key and slot. Only bytes never
met are decoded and checked (6 us). Remembered bytes were valid, so a hit needs no check.
"""

from __future__ import annotations

import math
import os
import re
import sys
from codecs import BOM_UTF8
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, TypeVar

import msgspec

from models.alerts.alert import Content, alert_key, service_of
from models.errors import Malformed
from models.partition.sharding import slot_of

#: Prometheus alerts have about ten labels; more than this is no alert but an attack or a bug.
LABELS_MAX = 256
#: Prometheus' own default limit for names is none; 1 KiB is fifty times the longest in its mixins.
NAME_MAX_BYTES = 1024
#: A label value is an identity, kept in memory for every series.
LABEL_VALUE_MAX_BYTES = 16 * 1024
#: An annotation may hold a stack trace.
ANNOTATION_VALUE_MAX_BYTES = 64 * 1024
#: Labels of one alert, or annotations, as JSON. How large it may be as a whole: lifecycle.max_alert_bytes.
ALERT_MAX_BYTES = 256 * 1024
#: Times before 1970-01-01 are mistakes of unit or clock; so are later ones than 2100-01-01, but for an end that is never
#: meant to come.
TIME_MAX = 4102444800.0
TIME_EXPECTED = "expected a time between 1970 and 2100"
#: What Go writes for "no time".
UNSET_TIME = "0001-01-01T00:00:00Z"
#: Alerts a gateway remembers, in each of two generations: about 300 bytes each.
REMEMBERED_MAX = 262_144
#: Services whose slot is remembered: a few megabytes. That of a longer name is worked out each time.
SERVICES_MAX = 16_384
SERVICE_CHARS_MAX = 128
#: End times remembered: one evaluation of a rule group gives all its alerts one.
TIMES_MAX = 16_384
#: The longest time that anybody writes is 40 characters; each may be an escape of six.
TIME_MAX_BYTES = 256
#: Characters of a sender's text that an error repeats.
ECHO_MAX = 80
#: Characters of a parser's words that an error repeats: some echo the sender's text.
WORDS_MAX = 240
#: Alerts read before other requests get a turn: about 3 ms when none was met before.
SLICE_ALERTS = 256
#: A longer JSON array is decoded piece by piece, so that 16 MiB of it hold up nobody: 8 million small elements at
#: once took 32 s and 2.5 GB. Above what Prometheus sends, 256 alerts.
WHOLE_BYTES = 256 * 1024
#: Bytes of a piece.
PIECE_BYTES = 128 * 1024
#: Escapes of surrogates looked at to find halves: about a microsecond each.
ESCAPES_MAX = 50_000

#: Characters of a sender's name.
SOURCE_NAME_MAX = 120
#: Names that were found good before: all senders together use a few hundred.
GOOD_NAMES_MAX = 4096

_good_names: set[str] = set()
#: Keyed by a random beginning: blake2b has no length extension, so that is as good as its own key, which would fill a
#: block of its own with each alert. Copied, not made anew, which saves a third of the time.
_seen = blake2b(os.urandom(32), digest_size=16)
_UNSET = -62135596800.0
#: What JSON calls white space.
WHITE = b" \t\r\n"
_EMPTY = b""


class Memory(msgspec.Struct, gc=False):
    """What a gateway learned of some bytes: their key and slot, their start (0.0: none given), whether their
    shard has confirmed to know the key, so that the rest need not be sent again, and where they say they come from.

    Out of the garbage collector's sight: half a million of these made its full collections a fifth of the
    gateway's time.
    """

    key: bytes
    slot: int
    starts: float
    is_known: bool = False
    source: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one item of a request can't be taken. `index` -1 means the request as a whole. `status` is HTTP's."""

    index: int
    message: str
    raw: bytes = b""
    status: int = 400


@dataclass(frozen=True, slots=True)
class Reading:
    """What a request of `count` alerts holds: columns of those that can be taken, and what can't be, with why.

    places    where each stood in the request
    memories  where each goes
    ends      when each ends; inf when it does not say
    body(i)   the MessagePack of column i's alert.Content, made only when its shard asks
    said_end(i)  what column i says of its end, as it was written: `ends` fills in what is left open
    received_at and said are as in messages.AlertsArrived
    """

    count: int
    places: list[int]
    memories: list[Memory]
    ends: list[float]
    body: Callable[[int], bytes]
    faults: list[Fault]
    said_end: Callable[[int], bytes]
    received_at: float = 0.0
    said: bytes = b""


class Remembered:
    """Memory by what was sent. Two generations: the young one is full -> the old one is dropped."""

    def __init__(
        self, tenant: str, service_labels: tuple[str, ...], max_alert_bytes: int = ALERT_MAX_BYTES
    ) -> None:
        self.tenant = tenant
        self.max_alert_bytes = max_alert_bytes
        self.service_labels = service_labels
        #: find() of most alerts, for who has no time for a call.
        self.young: dict[bytes, Memory] = {}
        self._old: dict[bytes, Memory] = {}
        self._times: dict[bytes, float] = {}
        self._slots: dict[str, int] = {}
        self._newest: Memory | None = None

    def find(self, seen: bytes) -> Memory | None:
        memory = self.young.get(seen)
        if memory is None:
            memory = self._old.get(seen)
            if memory is not None:
                self._put(seen, memory)
        return memory

    def learn(self, seen: bytes, content: Content) -> Memory:
        """Remember a checked alert. One without a start of its own keeps its key from one request to the next. Raises
        Malformed for one that is too large."""
        if (size := len(_body_encoder.encode(content))) > self.max_alert_bytes:
            raise Malformed(
                f"labels and annotations: {size} bytes together, at most {self.max_alert_bytes} are allowed "
                "(lifecycle.max_alert_bytes)"
            )
        starts = content.starts_at
        key = alert_key(self.tenant, content, starts)
        slot = self._slot(service_of(content.labels, self.service_labels))
        memory = Memory(key, slot, starts, source=source_of(content))
        self._put(seen, memory)
        if self._newest is None or starts > self._newest.starts:
            self._newest = memory
        return memory

    def take_newest(self) -> Memory | None:
        """What began last of all that was learned since this was asked the last time."""
        newest, self._newest = self._newest, None
        return newest

    def _slot(self, service: str) -> int:
        slot = self._slots.get(service)
        if slot is None:
            slot = slot_of(self.tenant, service)
            if len(self._slots) < SERVICES_MAX and len(service) <= SERVICE_CHARS_MAX:
                self._slots[service] = slot
        return slot

    def time(self, raw: bytes, field: str) -> float:
        """read_time(), remembered: an evaluation gives all its alerts one end. Raises Malformed."""
        found = self._times.get(raw)
        if found is None:
            found = read_time(raw, field)
            if len(self._times) >= TIMES_MAX:
                self._times.clear()
            self._times[raw] = found
        return found

    def start(self, raw: bytes, field: str) -> float:
        """The same of what can't be never. Raises Malformed."""
        at = self.time(raw, field)
        if at == math.inf:
            raise Malformed(f"{field}: {TIME_EXPECTED}, got {echo(raw)}")
        return at

    def _put(self, seen: bytes, memory: Memory) -> None:
        if len(self.young) >= REMEMBERED_MAX:
            self._old, self.young = self.young, {}
        self.young[seen] = memory


_time_decoder: msgspec.json.Decoder[datetime] = msgspec.json.Decoder(
    Annotated[datetime, msgspec.Meta(tz=True)]
)
_zoneless_decoder: msgspec.json.Decoder[datetime] = msgspec.json.Decoder(
    Annotated[datetime, msgspec.Meta(tz=False)]
)
_string_decoder = msgspec.json.Decoder(str)
_pairs_decoder = msgspec.json.Decoder(dict[str, str])
_raw_pairs_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_body_encoder = msgspec.msgpack.Encoder()
_raws_decoder = msgspec.json.Decoder(list[msgspec.Raw])
#: An escape: a surrogate pair, one half of a pair (the group), or any other.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u([dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
#: A time that may be after year 9999 in UTC, which no datetime is.
_LAST_DAY = re.compile(
    rb'"9999-12-31[Tt ]([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)?"'
)
#: The second of a time of day.
_SECOND_60 = re.compile(rb"(?<=:\d\d):60(?=[^:]*\Z|[.Zz+-])")
#: The end of an object, a comma, and the beginning of another: seldom anything but two elements of the array.
_BETWEEN = re.compile(rb"\}[ \t\r\n]*,(?=[ \t\r\n]*\{)")
#: The end of a piece, where a place to cut is looked for.
_TAIL_BYTES = 16 * 1024
_BYTE = re.compile(r"\(byte (\d+)\)")
T = TypeVar("T")


def at_once(steps: Generator[None, None, T]) -> T:
    """What a reader's steps() come to, with no pause."""
    while True:
        try:
            next(steps)
        except StopIteration as over:
            return over.value  # type: ignore[no-any-return]


def without_mark(body: bytes) -> bytes:
    """A body or a line without the byte order mark that editors and shells of Windows put in front of UTF-8. Files that were
    put together may have a blank line before it."""
    text = body.lstrip(WHITE)
    return text.removeprefix(BOM_UTF8) if text.startswith(BOM_UTF8) else body


def array_slices(body: bytes, decode: Callable[[bytes], list[T]]) -> Iterator[list[T]]:
    """The elements of a JSON array, at most SLICE_ALERTS of them at a time.

    A large array is cut at commas and each piece decoded as an array of its own. A comma inside a string or an
    element leaves a quote or a bracket open, so `decode` fails and another comma is tried, then a larger piece.
    Raises what `decode` raises for what is no JSON, with the place in the whole body.
    """
    for piece in _pieces(body, decode):
        if len(piece) <= SLICE_ALERTS:
            yield piece
        else:
            for start in range(0, len(piece), SLICE_ALERTS):
                yield piece[start : start + SLICE_ALERTS]


def _pieces(body: bytes, decode: Callable[[bytes], list[T]]) -> Iterator[list[T]]:
    if len(body) <= WHOLE_BYTES or body.lstrip(b" \t\r\n")[:1] != b"[":
        yield decode(body)
        return
    first = start = body.index(b"[") + 1
    size = PIECE_BYTES
    while start + size < len(body):
        found: list[T] = []
        for cut in _cuts(body, start, start + size):
            try:
                found = decode(b"[" + body[start:cut] + b"]")
            except (msgspec.DecodeError, RecursionError):
                continue
            break
        if not found:  # none fits, or nothing stands before the comma: the larger piece will tell
            size *= 2
            continue
        yield found
        start, size = cut + 1, PIECE_BYTES
    try:
        found = decode(b"[" + body[start:])
    except msgspec.DecodeError as error:
        words = _BYTE.sub(lambda place: f"(byte {int(place[1]) + start - 1})", str(error))
        raise msgspec.DecodeError(words) from None
    if not found and start > first:
        raise msgspec.DecodeError(f"JSON is malformed: trailing comma in array (byte {start - 1})")
    yield found


def _cuts(body: bytes, start: int, end: int) -> Iterator[int]:
    """Where an array may be cut: the last comma between two objects, else the last of all."""
    found = [between.end() - 1 for between in _BETWEEN.finditer(body, max(start, end - _TAIL_BYTES), end)]
    if found:
        yield found[-1]
    last = body.rfind(b",", start, end)
    if last > start:
        yield last


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


def raw_elements(array: bytes) -> list[msgspec.Raw]:
    """The elements of a JSON array, not looked into. Raises what msgspec does for no JSON."""
    try:
        return _raws_decoder.decode(array)
    except msgspec.DecodeError:
        whole = without_halves(array)
        if whole is None:
            raise
        return _raws_decoder.decode(whole)


def without_halves(raw: bytes) -> bytes | None:
    """`raw` with each half of a surrogate pair that stands alone (\\ud800) as the bytes UTF-8 forbids for it; None when
    there is none (or there are too many to look at). For msgspec such an escape is the end of all JSON around it; those bytes cost only their string."""
    if not 0 < raw.count(b"\\ud") + raw.count(b"\\uD") <= ESCAPES_MAX:
        return None
    whole = _ESCAPE.sub(
        lambda found: (
            found[0] if found[1] is None else chr(int(found[1], 16)).encode("utf-8", "surrogatepass")
        ),
        raw,
    )
    return None if whole == raw else whole


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


def source_of(content: Content) -> str:
    """What the sender of an alert is called: the host in the link that it gives, else the source that it names."""
    host = content.generator_url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    return sys.intern((host or content.source)[:SOURCE_NAME_MAX])


def encode_body(content: Content) -> bytes:
    return _body_encoder.encode(content)


def seen_digest(raws: Iterable[bytes | msgspec.Raw]) -> bytes:
    """16 bytes by which a gateway knows what it met before. Its key is random and never stored: nobody can make an alert
    that is taken for another one."""
    digest = _seen.copy()
    digest.update(b"\xff".join(raws))
    return digest.digest()


def echo(raw: bytes) -> str:
    """What a sender wrote, short enough for an error."""
    text = raw[: ECHO_MAX * 4].decode("utf-8", "replace")
    return text if len(text) <= ECHO_MAX else text[:ECHO_MAX] + "..."


def json_error(error: Exception) -> str:
    """msgspec's words for a person."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8, or half of a surrogate pair: {error.reason} (byte {error.start})"
    words = str(error)
    # Where it is stands at the end.
    return words if len(words) <= WORDS_MAX else f"{words[: WORDS_MAX // 2]}...{words[-WORDS_MAX // 2 :]}"


def _decode(decoder: msgspec.json.Decoder[T], raw: bytes, field: str, expected: str) -> T:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Malformed(f"{field}: expected {expected}: {json_error(error)}") from None
