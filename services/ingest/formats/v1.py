"""Our own POST /v1/alerts: one object, an array, or NDJSON. An unknown field is refused by name: it is a typo.

    {"labels": {"alertname": "...", "service": "..."},   required, at least one
     "annotations": {...},
     "starts_at": "2026-01-31T12:00:00Z", "ends_at": ...,  also startsAt, endsAt
     "status": "firing" | "resolved",                      resolved without ends_at ends now
     "source": "llm-sentinel", "generator_url": "..."}     also generatorURL
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from models.alert import Content
from models.errors import Malformed
from services.ingest.formats import common
from services.ingest.formats.alertmanager import ALERTS_MAX, URL_MAX_BYTES
from services.ingest.formats.common import Fault, Memory, Reading, Remembered

NAME = "v1"
SOURCE_MAX_BYTES = 256

_NONE = msgspec.Raw()
_WHITE = b" \t\r\n"


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


_raws_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_one_decoder = msgspec.json.Decoder(Posted)


class V1Reader:
    """Reads requests of one tenant. Keeps what it learned; not for two threads at once."""

    name = NAME

    def __init__(self, remembered: Remembered, expires_after_s: float | None) -> None:
        self._remembered = remembered
        self._expires_after_s = expires_after_s

    def read(self, body: bytes, now: float) -> Reading:
        """The alerts in a request received at `now`. Raises Malformed when the body is none of the three shapes."""
        raws = _split(body)
        if len(raws) > ALERTS_MAX:
            raise Malformed(f"{len(raws)} alerts in one request, at most {ALERTS_MAX} are taken")
        places: list[int] = []
        memories: list[Memory] = []
        ends: list[float] = []
        alerts: list[Posted] = []
        faults: list[Fault] = []
        for place, raw in enumerate(raws):
            try:
                alert = _decode(raw)
                memory = self._memory(alert, now)
                end = self._remembered.time(bytes(alert.ends_at) or bytes(alert.endsAt), "ends_at")
                if not end:
                    end = now if alert.status == "resolved" else self._default_end(now)
                if memory.starts > end:
                    raise Malformed("ends_at: expected a time after starts_at")
            except Malformed as error:
                faults.append(Fault(place, str(error), raw))
                continue
            places.append(place)
            memories.append(memory)
            ends.append(end)
            alerts.append(alert)

        def make_body(column: int) -> bytes:
            starts = memories[column].starts or min(now, ends[column])
            return common.encode_body(_content(alerts[column], starts))

        return Reading(len(raws), places, memories, ends, make_body, faults)

    def _default_end(self, now: float) -> float:
        return math.inf if self._expires_after_s is None else now + self._expires_after_s

    def _memory(self, alert: Posted, now: float) -> Memory:
        raw_starts = bytes(alert.starts_at) or bytes(alert.startsAt)
        seen = common.seen_digest(
            NAME.encode(),
            alert.labels,
            alert.annotations,
            raw_starts,
            bytes(alert.generator_url) or bytes(alert.generatorURL),
            alert.source,
        )
        memory = self._remembered.find(seen)
        if memory is None:
            starts = common.read_time(raw_starts, "starts_at")
            memory = self._remembered.learn(seen, _content(alert, starts or now), has_start=bool(starts))
        return memory


def _decode(raw: bytes) -> Posted:
    try:
        return _one_decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Malformed(common.json_error(error)) from None


def _content(alert: Posted, starts: float) -> Content:
    labels = common.read_pairs(bytes(alert.labels), "labels", common.LABEL_VALUE_MAX_BYTES)
    if not labels:
        raise Malformed("labels: at least one label is required")
    return Content(
        labels,
        common.read_pairs(bytes(alert.annotations), "annotations", common.ANNOTATION_VALUE_MAX_BYTES),
        starts,
        common.read_string(bytes(alert.generator_url) or bytes(alert.generatorURL), "generator_url", URL_MAX_BYTES),
        common.read_string(bytes(alert.source), "source", SOURCE_MAX_BYTES) or NAME,
    )


def _split(body: bytes) -> list[bytes]:
    """The alerts of a body, apart and not looked into. Raises Malformed."""
    start = body.lstrip(_WHITE)[:1]
    if start == b"[":
        try:
            return [bytes(raw) for raw in _raws_decoder.decode(body)]
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise Malformed(common.json_error(error)) from None
    if start != b"{":
        raise Malformed(f"expected a JSON object, an array of objects, or one object a line; got {common.echo(body)!r}")
    lines = [line for line in body.split(b"\n") if line.strip(_WHITE)]
    if len(lines) > 1:
        # NDJSON, or one object written over several lines: a first line that is a whole object tells.
        try:
            msgspec.json.decode(lines[0], type=msgspec.Raw)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return [body]
        return lines
    return [body]
