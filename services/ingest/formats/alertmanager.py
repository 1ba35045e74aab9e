"""Alertmanager's POST /api/v2/alerts: a JSON array of alerts, as Prometheus sends it. Fields: FIELD.md 4.1.

An unknown field is passed over, as Alertmanager does. One bad alert never costs its neighbours.
"""

from __future__ import annotations

import msgspec

from models.alert import Content
from models.errors import Malformed
from services.ingest.formats import common
from services.ingest.formats.common import Fault, Memory, Reading, Remembered

NAME = "alertmanager"
#: Alerts in one request; Prometheus sends 64 or 256.
ALERTS_MAX = 100_000
URL_MAX_BYTES = 8192

_NONE = msgspec.Raw()


class Posted(msgspec.Struct, gc=False):
    """One alert as sent, not looked into yet."""

    labels: msgspec.Raw = _NONE
    annotations: msgspec.Raw = _NONE
    startsAt: msgspec.Raw = _NONE  # noqa: N815 - the wire's own spelling
    endsAt: msgspec.Raw = _NONE  # noqa: N815
    generatorURL: msgspec.Raw = _NONE  # noqa: N815


_all_decoder = msgspec.json.Decoder(list[Posted])
_raws_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_one_decoder = msgspec.json.Decoder(Posted)


class AlertmanagerReader:
    """Reads requests of one tenant. Keeps what it learned; not for two threads at once."""

    name = NAME

    def __init__(self, remembered: Remembered, resolve_timeout_s: float) -> None:
        self._remembered = remembered
        self._resolve_timeout_s = resolve_timeout_s

    def read(self, body: bytes, now: float) -> Reading:
        """The alerts in a request received at `now`. Raises Malformed when the body is no JSON array at all."""
        try:
            posted: list[Posted | Fault] = [*_all_decoder.decode(body)]
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            posted = _one_by_one(body, error)
        if len(posted) > ALERTS_MAX:
            raise Malformed(f"{len(posted)} alerts in one request, at most {ALERTS_MAX} are taken")
        places: list[int] = []
        memories: list[Memory] = []
        ends: list[float] = []
        faults: list[Fault] = []
        find, time, digest = self._remembered.find, self._remembered.time, common.seen_digest
        defaults = now + self._resolve_timeout_s
        for place, alert in enumerate(posted):
            if isinstance(alert, Fault):
                faults.append(alert)
                continue
            try:
                seen = digest(alert.labels, alert.annotations, alert.startsAt, alert.generatorURL)
                memory = find(seen) or self._learn(seen, alert, now)
                end = time(bytes(alert.endsAt), "endsAt") or defaults
                if memory.starts > end:
                    raise Malformed("start time must be before end time")
            except Malformed as error:
                faults.append(Fault(place, str(error), _bytes_of(alert)))
                continue
            places.append(place)
            memories.append(memory)
            ends.append(end)

        def make_body(column: int) -> bytes:
            alert = posted[places[column]]
            if isinstance(alert, Fault):
                raise TypeError("a fault has no body")
            # An alert without a start began when it ended, else now, as in Alertmanager.
            starts = memories[column].starts or min(now, ends[column])
            return common.encode_body(_content(alert, starts))

        return Reading(len(posted), places, memories, ends, make_body, faults)

    def _learn(self, seen: bytes, alert: Posted, now: float) -> Memory:
        starts = common.read_time(bytes(alert.startsAt), "startsAt")
        return self._remembered.learn(seen, _content(alert, starts or now), has_start=bool(starts))


def _content(alert: Posted, starts: float) -> Content:
    labels = common.read_pairs(bytes(alert.labels), "labels", common.LABEL_VALUE_MAX_BYTES)
    if not labels:
        raise Malformed("at least one label pair required")
    return Content(
        labels,
        common.read_pairs(bytes(alert.annotations), "annotations", common.ANNOTATION_VALUE_MAX_BYTES),
        starts,
        common.read_string(bytes(alert.generatorURL), "generatorURL", URL_MAX_BYTES),
        NAME,
    )


def _one_by_one(body: bytes, error: Exception) -> list[Posted | Fault]:
    """The array's elements apart, so that one of a wrong shape costs only itself."""
    try:
        raws = _raws_decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Malformed(common.json_error(error)) from None
    found: list[Posted | Fault] = []
    for index, raw in enumerate(raws):
        try:
            found.append(_one_decoder.decode(raw))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as reason:
            found.append(Fault(index, common.json_error(reason), bytes(raw)))
    return found


def _bytes_of(alert: Posted) -> bytes:
    return b'{"labels":%b,"annotations":%b,"startsAt":%b,"endsAt":%b,"generatorURL":%b}' % (
        bytes(alert.labels) or b"null",
        bytes(alert.annotations) or b"null",
        bytes(alert.startsAt) or b"null",
        bytes(alert.endsAt) or b"null",
        bytes(alert.generatorURL) or b"null",
    )
