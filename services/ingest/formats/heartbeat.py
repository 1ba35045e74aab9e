"""Beats of heartbeats: what a cron job says with curl, and what Opsgenie calls a ping. No alerts: a beat goes to the shard that waits
for it, before the answer (services/ingest/heartbeats.py).

    /v1/heartbeats/{name}/beat   GET, HEAD or POST; a body means nothing
    /v1/heartbeats/{name}/fail   the same, of something that went wrong; the body says what
    /v1/heartbeats/beat          POST {"heartbeats": ["a", "b"]}
    /v2/heartbeats/{name}/ping   as Opsgenie has it
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from urllib.parse import parse_qs, unquote

import msgspec

from models.errors import Forbidden, Malformed
from services.ingest.formats.answers import Answer, Refusal, encode_json, problem
from services.ingest.formats.format import Format, Request
from services.ingest.formats.items import UNREADABLE
from services.ingest.formats.json_text import json_error
from services.ingest.formats.openapi import PROBLEM, REFUSALS, RETRY_AFTER, Description, Json
from services.ingest.formats.paths import pattern_of
from services.ingest.formats.reading import Reading
from services.ingest.submit import Receipt

BEAT, FAIL = "/v1/heartbeats/{name}/beat", "/v1/heartbeats/{name}/fail"
PING = "/v2/heartbeats/{name}/ping"
#: Heartbeats of one request.
NAMES_MAX = 1000
#: Bytes of what a failed job says that are read; the incident shows less (NOTE_CHARS_MAX of models/shard/heartbeats.py).
NOTE_MAX_BYTES = 16 * 1024
METHODS = ("POST", "GET", "HEAD")
_PINGS = ("POST", "GET", "PUT", "PATCH")
_SUMMARIES = {
    "/v1/heartbeats/beat": "Several heartbeats were heard",
    BEAT: "A heartbeat was heard",
    FAIL: "What a heartbeat stands for failed: opens an incident at once, which the next beat resolves",
    PING: "A heartbeat was heard, as Opsgenie's API has it",
}


class _Names(msgspec.Struct, forbid_unknown_fields=True):
    heartbeats: list[str]


_names_decoder = msgspec.json.Decoder(_Names)


class HeartbeatFormat(Format):
    name = "heartbeat"
    path = "/v1/heartbeats/beat"
    more_paths = {BEAT: METHODS, FAIL: METHODS, PING: _PINGS}
    finds_token = True
    prepares = True

    @classmethod
    def describe(cls) -> Description:
        more: dict[str, dict[str, Json]] = {
            path: {method.lower(): _operation(method, path) for method in methods}
            for path, methods in cls.more_paths.items()
        }
        return Description({"post": _operation("POST", cls.path)}, more_paths=more)

    def takes_type(self, content_type: str, headers: Mapping[bytes, bytes]) -> bool:
        # A page that a browser shows may make it beat as well with a GET, which cron jobs need; a report of a failure is a line of
        # text from curl, which says that it is a form.
        return True

    def token_of(self, request: Request) -> str:
        return parse_qs(request.query.decode("latin-1")).get("token", [""])[0]

    async def prepare(self, request: Request) -> None:
        assert self.shared.beats is not None, "a station has them"
        if request.sender.match:
            raise Forbidden(
                f"the token {request.sender.name!r} is bound to alerts with certain labels, which a beat does not have"
            )
        if len(request.body) > NOTE_MAX_BYTES and request.path != self.path:
            request = msgspec.structs.replace(request, body=request.body[:NOTE_MAX_BYTES])
        failed = pattern_of(FAIL).fullmatch(request.path) is not None
        note = request.body.decode("utf-8", "replace") if failed else ""
        await self.shared.beats.beat(_names_of(request), failed=failed, note=note)

    def steps(self, request: Request) -> Generator[None, None, Reading]:
        yield
        words = "PONG" if pattern_of(PING).fullmatch(request.path) else ""
        return Reading(0, [], [], [], lambda _column: b"", [], lambda _column: b"", note=words)

    def refused(self, refusal: Refusal) -> Answer:
        return problem(refusal, self.path)

    async def stored(self, reading: Reading, receipt: Receipt) -> Answer:
        if reading.note:
            body: dict[str, object] = {
                "result": "PONG - Heartbeat received",
                "took": 0.0,
                "requestId": "00000000-0000-0000-0000-000000000000",
            }
            return Answer(202, b"application/json", encode_json(body))
        return Answer(200, b"text/plain; charset=utf-8", b"OK\n")


def _names_of(request: Request) -> list[str]:
    """Raises Malformed."""
    if request.path != HeartbeatFormat.path:
        return [unquote(request.path.split("/")[3])]
    try:
        names = _names_decoder.decode(request.body).heartbeats
    except UNREADABLE as error:
        raise Malformed(f'expected {{"heartbeats": ["name", ...]}}: {json_error(error)}') from None
    if not 1 <= len(names) <= NAMES_MAX:
        raise Malformed(f"heartbeats: expected 1 to {NAMES_MAX} names, got {len(names)}")
    return names


def _operation(method: str, path: str) -> Json:
    problem_ = {"content": PROBLEM}
    named = [
        {
            "name": "name",
            "in": "path",
            "required": True,
            "description": "Of the heartbeat.",
            "schema": {"type": "string"},
        }
    ]
    token = {
        "name": "token",
        "in": "query",
        "description": "A token, for what can be given nothing but a URL.",
        "schema": {"type": "string"},
    }
    names = {"type": "object", "required": ["heartbeats"], "properties": {"heartbeats": {"type": "array", "items": {"type": "string"}, "maxItems": NAMES_MAX}}}  # fmt: skip
    body: Json = {"required": True, "content": {"application/json": {"schema": names}}}
    if path == FAIL:
        body = {"required": False, "content": {"text/plain": {"schema": {"type": "string"}}}}
    own = method == "POST" and path in (FAIL, HeartbeatFormat.path)
    return {
        "tags": ["heartbeats"],
        "summary": _SUMMARIES[path],
        "description": "docs/heartbeats.md says how to use it.",
        "operationId": f"{method}_{path}".lower().translate(str.maketrans("/", "_", "{}")).strip("_"),
        "parameters": [*(named if "{" in path else []), token],
        **({"requestBody": body} if own else {}),
        "responses": {
            "202" if path == PING else "200": {"description": "It was heard."},
            "400": {"description": "The names can't be read.", **problem_},
            **{code: {"description": words, **problem_} for code, words in REFUSALS.items()},
            "404": {"description": "There is no such heartbeat.", **problem_},
            "503": {
                "description": "It could not be stored: sending again is safe.",
                "headers": RETRY_AFTER,
                **problem_,
            },
        },
    }
