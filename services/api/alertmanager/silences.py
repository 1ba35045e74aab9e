"""Alertmanager's silences: /api/v2/silences and /api/v2/silence/{id}, as 0.34 answers them. amtool, Grafana and karma ask here."""

from __future__ import annotations

import math
import re
from uuid import uuid4

import msgspec
from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response

from models.alerts.matchers import MatcherTuple, parse_filters
from models.control.silences import SetSilence, Silence, SilenceState
from models.errors import Malformed, NotFound, Refused, TooLarge, Unavailable
from services.api.alertmanager.answers import PREFIX, answer, flag, refused, validation_error
from services.api.auth import READ, RESPOND, caller_of, proven_name, requires
from services.api.silences import SilenceDesk
from services.ingest.body import Disconnected, Hold, Room, TooSlow, Unsupported, read_body, unpacked
from services.ingest.formats.fields import ANNOTATION_VALUE_MAX_BYTES, TIME_MAX, read_pairs, read_time
from services.ingest.formats.json_text import json_error, without_mark
from services.times import timestamp

#: Bytes of one body: four times the largest silence, with every character escaped.
BODY_MAX_BYTES = 128 * 1024
#: Bytes of the bodies of all requests under way.
BODIES_MAX_BYTES = 64 * BODY_MAX_BYTES
JSON = "application/json"

_UUID = re.compile(r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}\Z")
_ORDER = (SilenceState.ACTIVE, SilenceState.PENDING, SilenceState.EXPIRED)
_OPERATORS = {(True, False): "=", (False, False): "!=", (True, True): "=~", (False, True): "!~"}
_MEANING = {operator: meaning for meaning, operator in _OPERATORS.items()}


class State(msgspec.Struct, frozen=True):
    state: str


class Matcher(msgspec.Struct, frozen=True, rename="camel"):
    is_equal: bool
    is_regex: bool
    name: str
    value: str


class GettableSilence(msgspec.Struct, frozen=True, rename="camel"):
    """One silence as Alertmanager shows it, fields in its order."""

    id: str
    status: State
    updated_at: str
    annotations: dict[str, str]
    comment: str
    created_by: str
    ends_at: str
    matchers: list[Matcher]
    starts_at: str


class _Matcher(msgspec.Struct, rename="camel"):
    name: str | None = None
    value: str | None = None
    is_regex: bool | None = None
    is_equal: bool | None = True


class _Posted(msgspec.Struct, rename="camel"):
    """What is posted, before it is known whether all is there."""

    id: str | None = ""
    matchers: list[_Matcher] | None = None
    starts_at: msgspec.Raw = msgspec.Raw()
    ends_at: msgspec.Raw = msgspec.Raw()
    created_by: str | None = None
    comment: str | None = None
    annotations: msgspec.Raw = msgspec.Raw()


_decoder = msgspec.json.Decoder(_Posted)


class _Invalid(Exception):
    """A body whose form is wrong, with Alertmanager's status and code for it."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.response = validation_error(status, code, message)


def add_silence_routes(app: FastAPI, desk: SilenceDesk, body_timeout_s: float) -> None:
    """The four routes."""
    room = Room(BODIES_MAX_BYTES)

    async def silences(request: Request) -> Response:
        params = request.query_params
        try:
            wanted = parse_filters(params.getlist("filter"))
        except Refused as error:
            return refused(error)
        states = {state for state in _ORDER if flag(params.get(state.value))}
        now = desk.now
        found = [
            each for each in await desk.all() if each.state(now) in states and has_matchers(each, wanted)
        ]
        found.sort(key=lambda each: _place(each, now))
        return answer([_gettable(each, now) for each in found])

    async def add(request: Request) -> Response:
        try:
            wanted = _read(await _body(request, room, body_timeout_s))
        except _Invalid as invalid:
            return invalid.response
        except (Refused, Unavailable) as error:
            return refused(error)
        starts_at, ends_at = wanted.starts_at or desk.now, wanted.ends_at
        if starts_at >= ends_at:
            return answer("Failed to create silence: start time must be before end time", 400)
        if ends_at < desk.now:
            return answer("Failed to create silence: end time can't be in the past", 400)
        # Whoever proves who it is by a token is the author, whatever is written.
        author = proven_name(request) or wanted.created_by
        try:
            made = await desk.set(msgspec.structs.replace(wanted, created_by=author))
        except NotFound as error:
            return answer(str(error), 404)
        except (Refused, Unavailable) as error:
            return refused(error)
        return answer({"silenceID": made.id})

    async def silence(silence_id: str) -> Response:
        if _UUID.match(silence_id) is None:
            return _no_uuid(silence_id)
        try:
            return answer(_gettable(await desk.find(silence_id.lower()), desk.now))
        except NotFound:
            return Response(status_code=404)

    async def expire(silence_id: str, request: Request) -> Response:
        if _UUID.match(silence_id) is None:
            return _no_uuid(silence_id)
        try:
            await desk.expire(silence_id.lower(), caller_of(request).name)
        except NotFound:
            return Response(status_code=404)
        except (Refused, Unavailable) as error:
            return refused(error)
        return Response(status_code=200)

    one = f"{PREFIX}/silence/{{silence_id}}"
    for path, endpoint, method, scope in (
        (f"{PREFIX}/silences", silences, "GET", READ),
        (f"{PREFIX}/silences", add, "POST", RESPOND),
        (one, silence, "GET", READ),
        (one, expire, "DELETE", RESPOND),
    ):
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            dependencies=[Depends(requires(scope))],
            include_in_schema=False,
        )


def has_matchers(silence: Silence, wanted: list[MatcherTuple]) -> bool:
    """Whether a silence has each of these matchers, to the letter: Alertmanager's filter of silences."""
    return all(each in silence.matchers for each in wanted)


def _place(silence: Silence, now: float) -> tuple[int, float]:
    """Alertmanager's order: what ends next, what begins next, what ended last."""
    state = silence.state(now)
    at = {
        SilenceState.ACTIVE: silence.ends_at,
        SilenceState.PENDING: silence.starts_at,
        SilenceState.EXPIRED: -silence.ends_at,
    }[state]
    return _ORDER.index(state), at


def _gettable(silence: Silence, now: float) -> GettableSilence:
    return GettableSilence(
        silence.id,
        State(silence.state(now)),
        timestamp(silence.updated_at),
        silence.annotations,
        silence.comment,
        silence.created_by,
        timestamp(silence.ends_at),
        [Matcher(*_MEANING[operator], name, value) for name, operator, value in silence.matchers],
        timestamp(silence.starts_at),
    )


async def _body(request: Request, room: Room, timeout_s: float) -> bytes:
    """Raises _Invalid, Busy, Malformed."""
    headers: dict[bytes, bytes] = dict(request.scope["headers"])
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    if content_type.split(";")[0].strip().lower() != JSON:
        shown = content_type or "application/octet-stream"
        raise _Invalid(415, 415, f'unsupported media type "{shown}", only [{JSON}] are allowed')
    hold = Hold(room)
    try:
        sent = await read_body(request.receive, headers, BODY_MAX_BYTES, timeout_s, hold)
        return without_mark(await unpacked(sent, headers, BODY_MAX_BYTES, hold))
    except TooLarge as error:
        raise _Invalid(413, 413, str(error)) from None
    except Unsupported as error:
        raise _Invalid(415, 415, str(error)) from None
    except TooSlow:
        raise _Invalid(408, 408, f"the body took over {timeout_s:g} s") from None
    except Disconnected:
        raise _Invalid(400, 400, "the body ended early") from None
    finally:
        hold.release()


def _read(body: bytes) -> SetSilence:
    """Checked in Alertmanager's order. Raises _Invalid."""
    if not body.strip():
        raise _Invalid(422, 602, "silence in body is required")
    try:
        posted = _decoder.decode(body)
        starts_at = read_time(bytes(posted.starts_at), "startsAt")
        ends_at = read_time(bytes(posted.ends_at), "endsAt")
        annotations = read_pairs(
            bytes(posted.annotations), "annotations", ANNOTATION_VALUE_MAX_BYTES, keep_empty=True
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _unparsed(json_error(error)) from None
    except Malformed as error:
        raise _unparsed(str(error)) from None
    for name, value in (
        ("comment", posted.comment),
        ("createdBy", posted.created_by),
        ("endsAt", bytes(posted.ends_at) not in (b"", b"null") or None),
        ("matchers", posted.matchers),
        ("startsAt", bytes(posted.starts_at) not in (b"", b"null") or None),
    ):
        if value is None:
            raise _Invalid(422, 602, f"{name} in body is required")
    if not posted.matchers:
        raise _Invalid(422, 612, "matchers in body should have at least 1 items")
    matchers: list[MatcherTuple] = []
    for place, each in enumerate(posted.matchers):
        if each.is_regex is None or each.name is None or each.value is None:
            missing = "isRegex" if each.is_regex is None else "name" if each.name is None else "value"
            raise _Invalid(422, 602, f"matchers.{place}.{missing} in body is required")
        matchers.append((each.name, _OPERATORS[each.is_equal is not False, each.is_regex], each.value))
    return SetSilence(
        str(uuid4()),
        matchers,
        min(starts_at, TIME_MAX),
        TIME_MAX if math.isinf(ends_at) else ends_at,
        posted.created_by or "",
        posted.comment or "",
        (posted.id or "").lower(),
        annotations,
    )


def _unparsed(why: str) -> _Invalid:
    return _Invalid(400, 400, f'parsing silence body from "" failed, because {why}')


def _no_uuid(given: str) -> Response:
    return validation_error(422, 601, f'silenceID in path must be of type uuid: "{given}"')
