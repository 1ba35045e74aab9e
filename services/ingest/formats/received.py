"""The answer to alerts that says of each what became of it: of /v1/alerts, and of every format whose sender expects no other."""

from __future__ import annotations

import asyncio
from uuid import UUID

from models.shard.messages import REASONS, Decision
from services.ingest.formats.answers import (
    Answer,
    encode_json,
    error_of,
    retry_after,
    status_of,
    status_of_faults,
)
from services.ingest.formats.reading import Reading
from services.ingest.submit import Receipt

#: Items of an answer made before other requests get a turn: about a millisecond.
ITEMS_SLICE = 500
#: What is said of an alert that a filter of the settings dropped. Accepted: it must not be sent again.
FILTERED = "filtered"


async def received(reading: Reading, receipt: Receipt, format_name: str = "") -> Answer:
    """202 all stored or filtered, 207 some, 400 none could be read, 403 none was allowed, 503 none could be stored. With `format_name` it
    names the format that the alerts were read by. Needs the incidents' ids (`Format.wants_ids`)."""
    columns = {place: column for column, place in enumerate(reading.places)}
    faults = {fault.index: fault for fault in reading.faults}
    stored = 0
    encoded: list[bytes] = []
    alike: dict[tuple[Decision, bytes], bytes] = {}
    for first in range(0, reading.count, ITEMS_SLICE):
        if first:
            await asyncio.sleep(0)
        items: list[bytes] = []
        for place in range(first, min(first + ITEMS_SLICE, reading.count)):
            column = columns.get(place)
            if column is None and place in reading.filtered:
                items.append(_item(place, _taken(FILTERED, reading.filtered[place], b"")))
                continue
            if column is None:
                fault = faults[place]
                items.append(_item(place, {"status": fault.status, "error": fault.message}))
                continue
            decision = receipt.decisions[column]
            if decision is None:
                failed = receipt.errors[column]
                items.append(_item(place, {"status": status_of(failed), "error": str(failed)}))
                continue
            stored += 1
            identity = receipt.incident_ids[column]
            said = alike.get((decision, identity))
            if said is None:
                # Most of a request is of a few incidents.
                said = encode_json(_taken(decision.name.lower(), REASONS[decision], identity))[1:]
                alike[decision, identity] = said
            items.append(b'{"index":%d,%b' % (place, said))
        encoded.append(b",".join(items))
    error = error_of(receipt)
    filtered = len(reading.filtered)
    if stored + filtered == reading.count:
        status = 202
    elif stored or filtered:
        status = 207
    else:
        status = status_of_faults(reading) if error is None else status_of(error)
    body = b'{%b"stored":%d,%b"refused":%d,"failed":%d,"items":[%b]}' % (
        b'"format":%b,' % encode_json(format_name) if format_name else b"",
        stored,
        b'"filtered":%d,' % filtered if filtered else b"",
        len(reading.faults),
        len(receipt.errors),
        b",".join(encoded),
    )
    return Answer(status, b"application/json", body, retry_after(error))


def _taken(decision: str, reason: str, identity: bytes) -> dict[str, object]:
    incident_id = str(UUID(bytes=identity)) if identity else None
    return {"status": 202, "decision": decision, "reason": reason, "incident_id": incident_id}


def _item(place: int, said: dict[str, object]) -> bytes:
    return encode_json({"index": place, **said})
