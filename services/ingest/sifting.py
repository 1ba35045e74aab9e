"""What the rules of the settings (rules.py) do to a request that was read: alerts that filters drop go, and ends are told to what began by
former rules too. Called by intake.py, when there are rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import NamedTuple

import msgspec
import structlog

from models.alerts.alert import SERIES_ID_BYTES
from models.alerts.filters import Dropped
from models.alerts.matchers import Labels, compile_matchers
from models.errors import TooLarge
from models.metrics import Meter
from models.shard.messages import Decision
from services.ingest.arrival import Arrival
from services.ingest.formats.json_arrays import SLICE_ALERTS
from services.ingest.formats.reading import Reading
from services.ingest.formats.remembered import Remembered, encode_body
from services.ingest.rules import Rules
from services.ingest.submit import Receipt

log = structlog.get_logger()


def sifted(reading: Reading, arrival: Arrival, meter: Meter) -> Reading:
    """`reading` without what filters drop, which is counted, and told in `filtered`."""
    now, sender = arrival.received_at, arrival.sender.name
    dropped: dict[int, Dropped] = {}
    for column, memory in enumerate(reading.memories):
        if memory.ruled is None or not memory.ruled.drops or reading.ends_at(column, now):
            continue
        found = next((each for each in memory.ruled.drops if each.token in ("", sender)), None)
        if found is not None:
            dropped[column] = found
    if not dropped:
        return reading
    for (name, kind), count in Counter((each.name, each.kind) for each in dropped.values()).items():
        meter.count("llm_im_alerts_filtered_total", count, door=arrival.format, filter=name, reason=kind)
        log.debug(
            "alerts filtered", filter=name, reason=kind, alerts=count, door=arrival.format, token=sender
        )
    kept = [column for column in range(len(reading.memories)) if column not in dropped]
    why = {
        reading.places[column]: f"dropped by the filter {each.name!r}: {each.why}"
        for column, each in dropped.items()
    }
    return replace(reading.only(kept), filtered={**reading.filtered, **why})


class Ends(NamedTuple):
    """Ends for what began by former rules: a reading of them, and the column of the request that each belongs to."""

    reading: Reading
    columns: list[int]


def former_ends(
    reading: Reading, arrival: Arrival, rules: Rules, remembered: Remembered
) -> Generator[None, None, Ends | None]:
    """The ends of a request as former rules would have labelled them, where that makes another series; in steps, as each costs a few
    tens of microseconds. None when there are none."""
    match = arrival.sender.match
    # Its bound holds for what its alerts are called, by whichever rules.
    may: Callable[[Labels], bool] = compile_matchers(match) if match else lambda _labels: True
    memories, columns, bodies = [], [], []
    for column, memory in enumerate(reading.memories):
        if column % SLICE_ALERTS == SLICE_ALERTS - 1:
            yield
        if not reading.ends_at(column, arrival.received_at):
            continue
        met = {memory.key[:SERIES_ID_BYTES]}
        for former in rules.former:
            content = reading.content_by(column, former.relabelling)
            if content is None or not _may(may, content.labels):
                continue
            other = remembered.place(content)
            series = other.key[:SERIES_ID_BYTES]
            if series in met or rules.was_told(series):
                continue
            met.add(series)
            memories.append(other)
            columns.append(column)
            bodies.append(encode_body(content))
    if not columns:
        return None
    return Ends(
        Reading(
            len(columns),
            [*range(len(columns))],
            memories,
            [reading.ends[column] for column in columns],
            bodies.__getitem__,
            [],
            lambda place: reading.said_end(columns[place]),
            bytes([reading.said[column] for column in columns]) if reading.said else b"",
        ),
        columns,
    )


def unnamed(arrival: Arrival) -> Arrival:
    """The same without a delivery id: that stands for what the request itself says, and an end may come twice."""
    return msgspec.structs.replace(arrival, delivery_id=None)


def _may(may: Callable[[Labels], bool], labels: Labels) -> bool:
    try:
        return may(labels)
    except TooLarge:
        return False


def merge(receipt: Receipt, ends: Ends, found: Receipt, rules: Rules, now: float) -> None:
    """Put the results of former ends into the request's own: what ended there ended, and what could not be told must be sent again."""
    for place, column in enumerate(ends.columns):
        if place not in found.errors:
            rules.told(ends.reading.memories[place].key[:SERIES_ID_BYTES], now)
        if (error := found.errors.get(place)) is not None:
            receipt.decisions[column] = None
            receipt.errors[column] = error
        elif (
            found.decisions[place] is Decision.RESOLVED
            and receipt.decisions[column] is Decision.UNKNOWN_RESOLVE
        ):
            receipt.decisions[column] = Decision.RESOLVED
            if receipt.incident_ids:
                receipt.incident_ids[column] = found.incident_ids[place]
