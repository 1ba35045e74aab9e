"""The answer to alerts that says of each what became of it: of /v1/alerts, and of every format whose sender expects no other."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from uuid import UUID

from models.shard.messages import REASONS
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
#: Ids of incidents that are remembered as text: those of some requests.
INCIDENTS_MAX = 4096
#: What is said of an alert that a filter of the settings dropped. Accepted: it must not be sent again.
FILTERED = "filtered"


async def received(reading: Reading, receipt: Receipt, format_name: str = "") -> Answer:
    """202 all stored or filtered, 207 some, 400 none could be read, 403 none was allowed, 503 none could be stored. With `format_name` it
    names the format that the alerts were read by. Needs the incidents' ids (`Format.wants_ids`)."""
    if not (reading.faults or reading.filtered or receipt.errors):
        return await _all_stored(receipt, format_name)
    columns = {place: column for column, place in enumerate(reading.places)}
    faults = {fault.index: fault for fault in reading.faults}
    stored = 0
    encoded: list[bytes] = []
    for first in range(0, reading.count, ITEMS_SLICE):
        if first:
            await asyncio.sleep(0)
        items: list[dict[str, object]] = []
        for place in range(first, min(first + ITEMS_SLICE, reading.count)):
            column = columns.get(place)
            if column is None and place in reading.filtered:
                items.append(
                    {
                        "index": place,
                        "status": 202,
                        "decision": FILTERED,
                        "reason": reading.filtered[place],
                        "incident_id": None,
                    }
                )
                continue
            if column is None:
                fault = faults[place]
                items.append({"index": place, "status": fault.status, "error": fault.message})
                continue
            decision = receipt.decisions[column]
            if decision is None:
                failed = receipt.errors[column]
                items.append({"index": place, "status": status_of(failed), "error": str(failed)})
                continue
            stored += 1
            identity = receipt.incident_ids[column]
            items.append(
                {
                    "index": place,
                    "status": 202,
                    "decision": decision.name.lower(),
                    "reason": REASONS[decision],
                    "incident_id": incident_text(identity).decode() or None,
                }
            )
        encoded.append(encode_json(items)[1:-1])
    error = error_of(receipt)
    filtered = len(reading.filtered)
    if stored + filtered == reading.count:
        status = 202
    elif stored or filtered:
        status = 207
    else:
        status = status_of_faults(reading) if error is None else status_of(error)
    body = b'{%b"stored":%d,%b"refused":%d,"failed":%d,"items":[%b]}' % (
        _named(format_name),
        stored,
        b'"filtered":%d,' % filtered if filtered else b"",
        len(reading.faults),
        len(receipt.errors),
        b",".join(encoded),
    )
    return Answer(status, b"application/json", body, retry_after(error))


@lru_cache(INCIDENTS_MAX)
def incident_text(identity: bytes) -> bytes:
    """The id of an incident as people see it, b"" for none."""
    return str(UUID(bytes=identity)).encode() if identity else b""


async def _all_stored(receipt: Receipt, format_name: str) -> Answer:
    """The answer to a request of which all is stored, which nearly all are: a quarter of what making objects of it takes."""
    decisions, ids, parts = receipt.decisions, receipt.incident_ids, _PARTS
    encoded: list[bytes] = []
    for first in range(0, len(decisions), ITEMS_SLICE):
        if first:
            await asyncio.sleep(0)
        for place in range(first, min(first + ITEMS_SLICE, len(decisions))):
            decision = decisions[place]
            assert decision is not None
            identity = ids[place]
            encoded.append(
                parts[decision] % (place, b'"%b"' % incident_text(identity) if identity else b"null")
            )
    body = b'{%b"stored":%d,"refused":0,"failed":0,"items":[%b]}' % (
        _named(format_name),
        len(decisions),
        b",".join(encoded),
    )
    return Answer(202, b"application/json", body)


def _named(format_name: str) -> bytes:
    return b'"format":%b,' % encode_json(format_name) if format_name else b""


#: An item by its decision, with room for its place and its incident.
_PARTS = {
    decision: b'{"index":%%d,"status":202,"decision":%b,"reason":%b,"incident_id":%%b}'
    % (encode_json(decision.name.lower()), encode_json(reason).replace(b"%", b"%%"))
    for decision, reason in REASONS.items()
}
