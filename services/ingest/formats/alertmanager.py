"""Alertmanager's POST /api/v2/alerts: a JSON array of alerts, as Prometheus sends it. Fields: docs/http-api.md.

An unknown field is passed over, as Alertmanager does. One bad alert never costs its neighbours.
"""

from __future__ import annotations

from collections.abc import Generator

import msgspec

from models.alerts.alert import Content
from models.errors import Malformed, TooLarge
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
_one_decoder = msgspec.json.Decoder(Posted)


class AlertmanagerReader:
    """Reads requests of one tenant. Keeps what it learned; not for two threads at once."""

    name = NAME

    def __init__(self, remembered: Remembered, resolve_timeout_s: float) -> None:
        self._remembered = remembered
        self.resolve_timeout_s = resolve_timeout_s

    def read(self, body: bytes, now: float) -> Reading:
        """The alerts in a request received at `now`. Raises Malformed when the body is no JSON array at all, TooLarge
        when it holds too many."""
        return common.at_once(self.steps(body, now))

    def steps(self, body: bytes, now: float) -> Generator[None, None, Reading]:
        """read() in steps of a few milliseconds, so that a large body does not hold up other requests."""
        places: list[int] = []
        memories: list[Memory] = []
        ends: list[float] = []
        alerts: list[Posted] = []
        learned: dict[int, Content] = {}
        faults: list[Fault] = []
        find, time, digest = self._remembered.find, self._remembered.time, common.seen_digest
        defaults = now + self.resolve_timeout_s
        place = -1
        try:
            for elements in common.array_slices(common.without_mark(body), _elements):
                if place + len(elements) >= ALERTS_MAX:
                    raise TooLarge(f"over {ALERTS_MAX} alerts in one request")
                young = self._remembered.young
                for element in elements:
                    place += 1
                    try:
                        alert = element if isinstance(element, Posted) else _decode(element)
                        seen = digest((alert.labels, alert.annotations, alert.startsAt, alert.generatorURL))
                        memory = young.get(seen) or find(seen)
                        content = None
                        if memory is None:
                            memory, content = self._learn(seen, alert)
                        end = time(bytes(alert.endsAt), "endsAt")
                        if not end:
                            end = defaults
                        elif memory.starts > end:
                            raise Malformed("start time must be before end time")
                    except Malformed as error:
                        faults.append(Fault(place, str(error), _bytes_of(element)))
                        continue
                    if content is not None:
                        # What was just read for checking need not be read again when its shard asks for it.
                        learned[len(places)] = content
                    places.append(place)
                    memories.append(memory)
                    ends.append(end)
                    alerts.append(alert)
                yield
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise Malformed(common.json_error(error)) from None

        def body_of(column: int) -> bytes:
            if column in learned:
                return common.encode_body(learned[column])
            return common.encode_body(_content(alerts[column], memories[column].starts))

        def said_end(column: int) -> bytes:
            return bytes(alerts[column].endsAt)

        return Reading(place + 1, places, memories, ends, body_of, faults, said_end, now)

    def _learn(self, seen: bytes, alert: Posted) -> tuple[Memory, Content]:
        # One evaluation of a rule begins all its alerts at one time.
        starts = self._remembered.start(bytes(alert.startsAt), "startsAt")
        content = _content(alert, starts)
        return self._remembered.learn(seen, content), content


def _content(alert: Posted, starts: float) -> Content:
    labels = common.read_pairs(
        bytes(alert.labels), "labels", common.LABEL_VALUE_MAX_BYTES, bad_name="invalid label set"
    )
    if not labels:
        raise Malformed("at least one label pair required")
    return Content(
        labels,
        common.read_pairs(
            bytes(alert.annotations),
            "annotations",
            common.ANNOTATION_VALUE_MAX_BYTES,
            bad_name="invalid annotations",
            keep_empty=True,
        ),
        starts,
        common.read_string(bytes(alert.generatorURL), "generatorURL", URL_MAX_BYTES),
        NAME,
    )


def _elements(array: bytes) -> list[Posted | msgspec.Raw]:
    """The elements of a JSON array, left as they are when one is of a wrong shape. Raises what msgspec does for no
    JSON."""
    try:
        return [*_all_decoder.decode(array)]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return [*common.raw_elements(array)]


def _decode(raw: msgspec.Raw) -> Posted:
    try:
        return _one_decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Malformed(common.json_error(error)) from None


def _bytes_of(alert: Posted | msgspec.Raw) -> bytes:
    if isinstance(alert, msgspec.Raw):
        return bytes(alert)
    return b'{"labels":%b,"annotations":%b,"startsAt":%b,"endsAt":%b,"generatorURL":%b}' % (
        bytes(alert.labels) or b"null",
        bytes(alert.annotations) or b"null",
        bytes(alert.startsAt) or b"null",
        bytes(alert.endsAt) or b"null",
        bytes(alert.generatorURL) or b"null",
    )
