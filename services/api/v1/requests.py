"""Requests of /v1 that change something: bodies within bounds, conditions (If-Match), and Idempotency-Keys. Used by the
routes of the verbs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

import msgspec
from fastapi import FastAPI, Header, Request
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from models.alerts.alert import content_digest
from models.errors import Malformed, TooLarge
from services.api.auth import caller_of
from services.api.problems import FieldProblem, field_problems
from services.api.traced import current
from services.ingest.body import Disconnected, Hold, Room, TooSlow, Unsupported, read_body, unpacked
from services.ingest.formats.json_text import without_mark
from services.ingest.headers import IDEMPOTENCY_KEY_MAX_BYTES, idempotency_key

#: Bytes of a body, also unpacked: the longest text with every character escaped is 100 kB, 5,000 fingerprints as much.
BODY_MAX_BYTES = 256 * 1024
#: How much the bodies of all requests in progress in a gateway may use together.
BODIES_MAX = 64
#: Versions that one If-Match may name.
TAGS_MAX = 20
SCHEMA_REF = "#/components/schemas/{model}"

_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"\Z')
_T = TypeVar("_T")

IfMatch = Annotated[
    str | None,
    Header(
        max_length=1024,
        description='The version this is meant for, as its ETag says: `"7"`. Another one is answered 412 and nothing is '
        "changed. Weak ones count as strong ones, several mean any, `*` any version at all.",
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=IDEMPOTENCY_KEY_MAX_BYTES,
        pattern="^[!-~]+$",
        description="Identifies this request. If the same caller sends it again to the same path within dedup_window, nothing more changes and the answer is the same; with a different body it is 422.",
    ),
]


class BadFields(Exception):
    """A body whose fields are wrong."""

    def __init__(self, fields: list[FieldProblem]) -> None:
        super().__init__("; ".join(f"{each.field}: {each.detail}" for each in fields))
        self.fields = fields


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a change comes from, and the trace context (models/trace.py) of its request. `delivery_id` is its Idempotency-Key, which means nothing outside caller and path, nor outside the tenant, which the command
    names."""

    actor: str
    delivery_id: str | None
    trace: str | None


class BodyReader:
    """Reads the bodies of one gateway."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._room = Room(BODIES_MAX * BODY_MAX_BYTES)

    async def read(self, request: Request, kind: BodyKind[_T]) -> _T:
        """The body as `kind`. Raises HTTPException, Malformed, Busy, BadFields."""
        headers: Mapping[bytes, bytes] = dict(request.scope["headers"])
        content_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        # A missing type is refused too: a web page can make a browser send that anywhere.
        if content_type != b"application/json":
            raise HTTPException(415, "Content-Type: expected application/json")
        hold = Hold(self._room)
        try:
            sent = await read_body(request.receive, headers, kind.max_bytes, self._timeout_s, hold)
            return kind.read(without_mark(await unpacked(sent, headers, kind.max_bytes, hold)))
        except TooSlow:
            raise HTTPException(
                408, f"the body took over {self._timeout_s:g} s", {"Connection": "close"}
            ) from None
        except TooLarge as error:
            raise HTTPException(413, str(error)) from None
        except Unsupported as error:
            raise HTTPException(415, str(error)) from None
        except Disconnected:
            raise HTTPException(400, "the body ended early") from None
        finally:
            hold.release()


class BodyKind(Generic[_T]):
    """A dataclass or model that bodies are read as."""

    max_bytes = BODY_MAX_BYTES

    def __init__(self, kind: type[_T]) -> None:
        self.kind = kind
        self._adapter: TypeAdapter[_T] = TypeAdapter(kind)

    def read(self, body: bytes) -> _T:
        """No body is an empty object. Raises BadFields."""
        try:
            return self._adapter.validate_json(body or b"{}")
        except ValidationError as error:
            raise BadFields(field_problems(error.errors(include_url=False, include_input=False))) from None


def has_body(request: Request) -> bool:
    """Whether the headers speak of one."""
    said = request.headers
    return "content-type" in said or "transfer-encoding" in said or said.get("content-length", "0") != "0"


def asks_for(body: type, example: dict[str, object], *, required: bool = True) -> dict[str, object]:
    """What OpenAPI says of a route that reads its body itself; describe_bodies() must know `body` too."""
    content = {"schema": {"$ref": SCHEMA_REF.format(model=body.__name__)}, "example": example}
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def describe_bodies(app: FastAPI, *kinds: type) -> None:
    """Put among OpenAPI's schemas what routes name by reference."""
    generate = app.openapi

    def openapi() -> dict[str, object]:
        if app.openapi_schema is None:
            schemas = generate()["components"]["schemas"]
            for kind in kinds:
                schema = TypeAdapter(kind).json_schema(ref_template=SCHEMA_REF)
                parts = schema.pop("$defs", {})
                schemas.update({kind.__name__: schema, **parts})
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]


def origin_of(request: Request) -> Origin:
    """Who sends a request, and its Idempotency-Key. Raises Malformed."""
    headers: dict[bytes, bytes] = dict(request.scope["headers"])
    actor, key = caller_of(request).name, idempotency_key(headers)
    # Neither a name nor a path holds a line end.
    scoped = None if key is None else f"command\n{actor}\n{request.url.path}\n{key}"
    return Origin(actor, scoped, current())


def versions_of(if_match: str | None) -> list[int] | None:
    """The versions that If-Match names, which need not be ours; None if any will do. Raises Malformed."""
    if if_match is None or if_match.strip() == "*":
        return None
    versions: list[int] = []
    tags = if_match.split(",")
    if len(tags) > TAGS_MAX:
        raise Malformed(f"If-Match: expected at most {TAGS_MAX} ETags")
    for tag in tags:
        found = _TAG.match(tag.strip())
        if found is None:
            raise Malformed('If-Match: expected an ETag such as "7", with its quotes, or *')
        if found[1].isascii() and found[1].isdigit() and len(found[1]) < 19:
            versions.append(int(found[1]))
    return versions


def refuse_condition(if_match: str | None) -> None:
    """For requests that are about no single incident. Raises Malformed."""
    if if_match is not None:
        raise Malformed("If-Match: only possible for a request that changes a single incident")


def digest_of(name: str, incident_id: bytes, body: object) -> bytes:
    """Distinguishes two requests with the same Idempotency-Key: by their content, not by the time they were sent."""
    return content_digest(name.encode(), incident_id, msgspec.msgpack.encode(body))
