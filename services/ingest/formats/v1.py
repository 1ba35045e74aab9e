"""Our own POST /v1/alerts: one object, an array, or NDJSON. An unknown field is refused by name: it is a typo.

{"labels": {"alertname": "...", "service": "..."},   required, at least one
 "annotations": {...},
 "starts_at": "2026-01-31T12:00:00Z", "ends_at": ...,  also startsAt, endsAt
 "status": "firing" | "resolved",                      resolved ends at ends_at, now at the latest
 "source": "llm-sentinel", "generator_url": "..."}     also generatorURL
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterator
from difflib import get_close_matches
from typing import Literal

import msgspec

from models.alerts.alert import Content
from models.errors import Malformed, TooLarge
from models.shard.messages import Claim
from services.ingest.formats import common
from services.ingest.formats.alertmanager import ALERTS_MAX, URL_MAX_BYTES
from services.ingest.formats.common import Fault, Memory, Reading, Remembered

NAME = "v1"
SOURCE_MAX_BYTES = 256

#: Lines of a request: each alert may have blank ones around it.
LINES_MAX = 4 * ALERTS_MAX

_NONE = msgspec.Raw()
_UNKNOWN_FIELD = re.compile(r"unknown field `(.*)`", re.DOTALL)


class Posted(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One alert as sent, not looked into yet."""

    labels: msgspec.Raw = _NONE
    annotations: msgspec.Raw = _NONE
    starts_at: msgspec.Raw = _NONE
    startsAt: msgspec.Raw = _NONE  # noqa: N815 - Alertmanager's spelling is welcome
    ends_at: msgspec.Raw = _NONE
    endsAt: msgspec.Raw = _NONE  # noqa: N815
    generator_url: msgspec.Raw = _NONE
    generatorURL: msgspec.Raw = _NONE  # noqa: N815
    source: msgspec.Raw = _NONE
    status: Literal["firing", "resolved"] = "firing"


_one_decoder = msgspec.json.Decoder(Posted)


class V1Reader:
    """Reads requests of one tenant. Keeps what it learned; not for two threads at once."""

    name = NAME

    def __init__(self, remembered: Remembered, expires_after_s: float | None) -> None:
        self._remembered = remembered
        self.expires_after_s = expires_after_s

    def read(self, body: bytes, now: float) -> Reading:
        """The alerts in a request received at `now`. Raises Malformed when the body is none of the three shapes,
        TooLarge when it holds too many."""
        return common.at_once(self.steps(body, now))

    def steps(self, body: bytes, now: float) -> Generator[None, None, Reading]:
        """read() in steps of a few milliseconds, so that a large body does not hold up other requests."""
        places: list[int] = []
        memories: list[Memory] = []
        ends: list[float] = []
        alerts: list[Posted] = []
        said = bytearray()
        faults: list[Fault] = []
        place = -1
        try:
            for raws in _split(common.without_mark(body)):
                if place + len(raws) >= ALERTS_MAX:
                    raise TooLarge(f"over {ALERTS_MAX} alerts in one request")
                for raw in raws:
                    place += 1
                    try:
                        alert = _decode(raw)
                        memory = self._memory(alert)
                        end = self._remembered.time(bytes(alert.ends_at) or bytes(alert.endsAt), "ends_at")
                        word = Claim.NOTHING
                        if alert.status == "resolved":
                            # Whatever its times: they may be by a clock that is ahead of ours, or was just put right.
                            word = Claim.RESOLVED if 0.0 < end <= now else Claim.RESOLVED_NOW
                            end = min(end or now, now)
                        elif not end:
                            end = self._default_end(now)
                        elif memory.starts > end:
                            raise Malformed("ends_at: expected a time after starts_at")
                    except Malformed as error:
                        faults.append(Fault(place, str(error), bytes(raw)))
                        continue
                    places.append(place)
                    memories.append(memory)
                    ends.append(end)
                    alerts.append(alert)
                    said.append(word)
                yield
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise Malformed(common.json_error(error)) from None

        def body_of(column: int) -> bytes:
            return common.encode_body(_content(alerts[column], memories[column].starts))

        def said_end(column: int) -> bytes:
            alert = alerts[column]
            return alert.status.encode() + (bytes(alert.ends_at) or bytes(alert.endsAt))

        words = bytes(said) if any(said) else b""
        return Reading(place + 1, places, memories, ends, body_of, faults, said_end, now, words)

    def _default_end(self, now: float) -> float:
        return math.inf if self.expires_after_s is None else now + self.expires_after_s

    def _memory(self, alert: Posted) -> Memory:
        raw_starts = bytes(alert.starts_at) or bytes(alert.startsAt)
        seen = common.seen_digest(
            (
                NAME.encode(),
                alert.labels,
                alert.annotations,
                raw_starts,
                bytes(alert.generator_url) or bytes(alert.generatorURL),
                alert.source,
            )
        )
        memory = self._remembered.find(seen)
        if memory is None:
            starts = self._remembered.start(raw_starts, "starts_at")
            memory = self._remembered.learn(seen, _content(alert, starts))
        return memory


def _decode(raw: bytes | msgspec.Raw) -> Posted:
    try:
        return _one_decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        whole = common.without_halves(raw) if isinstance(raw, bytes) else None
        if whole is not None:
            return _decode(whole)
        words = common.json_error(error)
        unknown = _UNKNOWN_FIELD.search(str(error))
        if unknown is not None:
            words = f"{common.echo(unknown[1].encode())}: not a field of an alert"
            near = get_close_matches(unknown[1][: common.ECHO_MAX], Posted.__struct_fields__, 1)
            words += f"; did you mean {near[0]}?" if near else ""
        raise Malformed(words) from None


def _content(alert: Posted, starts: float) -> Content:
    labels = common.read_pairs(bytes(alert.labels), "labels", common.LABEL_VALUE_MAX_BYTES)
    if not labels:
        raise Malformed("labels: at least one label is required")
    return Content(
        labels,
        common.read_pairs(bytes(alert.annotations), "annotations", common.ANNOTATION_VALUE_MAX_BYTES),
        starts,
        common.read_string(
            bytes(alert.generator_url) or bytes(alert.generatorURL), "generator_url", URL_MAX_BYTES
        ),
        common.read_string(bytes(alert.source), "source", SOURCE_MAX_BYTES) or NAME,
    )


def _split(body: bytes) -> Iterator[list[msgspec.Raw] | list[bytes]]:
    """The alerts of a body, apart and not looked into, some at a time. Raises Malformed, and what msgspec does for an
    array that is no JSON."""
    start = body.lstrip(common.WHITE)[:1]
    if start == b"[":
        yield from common.array_slices(body, common.raw_elements)
        return
    if body.count(b"\n") > LINES_MAX:
        raise TooLarge(f"over {LINES_MAX} lines in one request")
    # Files that were put together have a mark within.
    lines = [line for line in map(common.without_mark, body.split(b"\n")) if line.strip(common.WHITE)]
    objects = sum(line.lstrip(common.WHITE)[:1] == b"{" for line in lines) if len(lines) > 1 else 0
    if start == b"{" and (objects < 2 or _is_json(body)):
        # One object, be it over several lines.
        yield [body]
        return
    if not objects:
        raise Malformed(
            f"expected a JSON object, an array of objects, or one object a line; got {common.echo(body)!r}"
        )
    # One object a line, though any line may be no JSON: it costs only itself.
    for first in range(0, len(lines), common.SLICE_ALERTS):
        yield lines[first : first + common.SLICE_ALERTS]


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(common.without_halves(body) or body, type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False
    return True
