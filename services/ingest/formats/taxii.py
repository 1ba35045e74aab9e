"""A TAXII 2.1 inbox: one API root with one collection, which can be written to and not read. What is added is STIX, and becomes alerts
as in stix.py; objects that only give context are accepted and make none.

A status is complete when it is given, and nothing is kept of it: its id says how many objects succeeded and failed, so that any gateway
answers who asks for it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from uuid import UUID

from services.ingest.formats.answers import Answer, Refusal, encode_json, error_of, retry_after, status_of
from services.ingest.formats.format import Request
from services.ingest.formats.reading import Fault, Reading
from services.ingest.formats.stix import StixFormat
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Item
from services.ingest.submit import Receipt

MEDIA_TYPE = "application/taxii+json"
_VERSIONED = b"application/taxii+json;version=2.1"
DISCOVERY, ROOT = "/taxii2", "/taxii2/llm-im"
COLLECTIONS = f"{ROOT}/collections"
COLLECTION_ID = "b5e3a2f0-6d0f-4d55-9a53-6c6d2d1c7b10"
COLLECTION = f"{COLLECTIONS}/{COLLECTION_ID}"
STATUS = f"{ROOT}/status/{{status_id}}"
_COLLECTION = {
    "id": COLLECTION_ID,
    "title": "Alerts",
    "description": "Objects that are added become alerts.",
    "can_read": False,
    "can_write": True,
    "media_types": ["application/stix+json;version=2.1"],
}
#: What is read at each path. The largest request is stix.BUNDLE_MAX_BYTES.
_RESOURCES: dict[str, object] = {
    DISCOVERY: {"title": "LLM-Incident-Manager", "default": f"{ROOT}/", "api_roots": [f"{ROOT}/"]},
    ROOT: {"title": "Alerts", "versions": [_VERSIONED.decode()], "max_content_length": StixFormat.max_bytes},
    COLLECTIONS: {"collections": [_COLLECTION]},
    COLLECTION: _COLLECTION,
}


class TaxiiFormat(StixFormat):
    name = "taxii"
    path = f"{COLLECTION}/objects"
    more_paths = dict.fromkeys((*_RESOURCES, STATUS), ("GET",))
    content_types = (MEDIA_TYPE, "application/json")
    summary = "TAXII 2.1: a collection to add STIX objects to"
    summaries = {
        **dict.fromkeys(_RESOURCES, "What a TAXII client asks before it adds objects"),
        STATUS: "What became of objects that were added",
    }
    shape = "objects with spec_version, and no type"

    def handshake(self, request: Request) -> Answer | None:
        if request.method != "GET":
            return None
        found = _RESOURCES.get(request.path) or _status(request.path.rpartition("/")[2])
        if found is None:
            words = "no request has this status id"
            return _answer(404, {"title": "Not found", "description": words, "http_status": "404"})
        return _answer(200, found)

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        return self.objects(Fields(body))

    def objects(self, bundle: Fields) -> Iterable[Item]:
        names = self.names_of(bundle)
        return self.each(bundle.members("objects"), lambda one: self.object_of(one, names))

    def note(self, body: object, request: Request) -> str:
        # Context too has been added, though it made no alert.
        return str(len(Fields(body).items("objects")))

    def refused(self, refusal: Refusal) -> Answer:
        answer = _answer(
            refusal.status,
            {"title": refusal.title, "description": refusal.detail, "http_status": str(refusal.status)},
        )
        answer.headers = refusal.headers
        return answer

    async def stored(self, reading: Reading, receipt: Receipt) -> Answer:
        if (error := error_of(receipt)) is not None:
            status = status_of(error)
            answer = _answer(
                status, {"title": "Not stored", "description": str(error), "http_status": str(status)}
            )
            answer.headers = retry_after(error)
            return answer
        total, failed = int(reading.note), len(reading.faults)
        if failed and failed == total:
            words = "; ".join(fault.message for fault in reading.faults[:10])
            return _answer(400, {"title": "Malformed", "description": words, "http_status": "400"})
        said = b"".join(memory.key for memory in reading.memories) + reading.note.encode()
        body = _complete(_status_id(said, total, failed), total, failed)
        if (failures := _failures(reading.faults)) is not None:
            body["failures"] = failures
        return _answer(202, body)

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        objects = body.get("objects") if isinstance(body, dict) and "type" not in body else None
        return isinstance(objects, list) and any(
            isinstance(each, dict) and "spec_version" in each for each in objects
        )


def _answer(status: int, body: object) -> Answer:
    return Answer(status, _VERSIONED, encode_json(body))


def _status_id(said: bytes, total: int, failed: int) -> UUID:
    """An id of which _status() can tell what it is of. `said` tells requests apart."""
    told = blake2b(said, digest_size=4).digest() + total.to_bytes(3, "big") + failed.to_bytes(3, "big")
    return _marked(told)


def _marked(told: bytes) -> UUID:
    mark = blake2b(told, digest_size=6, person=b"taxii status").digest()
    # The six bits that say which kind of UUID it is stand where the mark is.
    whole = bytearray(told[:6] + mark[:4] + told[6:] + mark[4:])
    whole[6], whole[8] = whole[6] & 0x0F | 0x80, whole[8] & 0x3F | 0x80
    return UUID(bytes=bytes(whole))


def _status(identity: str) -> dict[str, object] | None:
    """The status with this id; None when it is none of ours."""
    try:
        raw = UUID(identity).bytes
    except ValueError:
        return None
    told = raw[:6] + raw[10:14]
    total, failed = int.from_bytes(told[4:7], "big"), int.from_bytes(told[7:10], "big")
    return _complete(UUID(identity), total, failed) if _marked(told) == UUID(identity) else None


def _complete(identity: UUID, total: int, failed: int) -> dict[str, object]:
    return {
        "id": str(identity),
        "status": "complete",
        "total_count": total,
        "success_count": total - failed,
        "failure_count": failed,
        "pending_count": 0,
    }


def _failures(faults: Sequence[Fault]) -> list[dict[str, str]] | None:
    """Which objects failed, and why. None when one has no id to name it by: a list must have all."""
    found = []
    for fault in faults:
        one = json.loads(fault.raw or b"null")
        identity = one.get("id") if isinstance(one, dict) else None
        if not isinstance(identity, str):
            return None
        version = one.get("modified") or one.get("created")
        named = {"id": identity, "version": version if isinstance(version, str) else ""}
        found.append({**named, "message": fault.message})
    return found
