"""GET /v1/stream/incidents: what happens to incidents, as it happens, as server-sent events or by WebSocket.

Both forms send the same JSON objects, distinguished by `event`. The position of a stream is its `cursor`, which is also
the id of a server-sent event. services/feed/tail.py has the streams; this file formats them and disconnects clients
that read too slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any
from uuid import UUID

import msgspec
import structlog
from fastapi import Depends, FastAPI, Header, Query, WebSocket
from fastapi.responses import Response
from pydantic import BeforeValidator, Field, TypeAdapter
from starlette.requests import HTTPConnection, Request
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from actors.runtime.ending import end
from models.alerts.matchers import MATCHERS_MAX, parse_filters
from models.errors import Busy, Malformed, TooLarge, Unavailable
from models.incidents.incident import IncidentState, IncidentType, Severity
from models.incidents.summaries import bytes_of
from models.stream.cursor import CURSOR_CHARS_MAX
from models.stream.filter import StreamFilter
from models.stream.happenings import KINDS, Happening
from services.api.auth import READ, Caller, is_still_let_in, requires
from services.api.problems import problem
from services.api.v1.fields import SeverityName, any_case, says
from services.api.v1.incidents import PREFIX
from services.api.v1.list_params import FILTER_VALUES_MAX
from services.feed.tail import Said, Tails, Told, Watch
from services.times import timestamp

log = structlog.get_logger()

PATH = f"{PREFIX}/stream/incidents"
SSE = "text/event-stream"
#: A client that reads nothing for this long is disconnected. Less than the 20 s after which uvicorn pings a WebSocket.
SLOW_S = 15.0
#: How long a client may take to read the last message, which says why it is disconnected.
LAST_WORD_S = 10.0
#: How often to check that the caller's token is still valid, while there are events and while there are none. A gateway
#: learns of a revocation within a second.
CHECK_S = 0.5
#: Events of an incident with more text than this are encoded for each client separately, so that little has to be cached.
REMEMBERED_BYTES = 8192
#: How long a browser waits before it reconnects, in milliseconds.
RETRY_MS = 1000
#: The same when the gateway is full.
BUSY_RETRY_MS = 5000
#: Codes a WebSocket is closed with, by the reason in the last message. 4000 and up are free for applications.
CLOSE_CODES = {"leaving": 1001, "token": 4401, "slow": 4408, "matchers": 4413}

KindName = StrEnum("KindName", {kind: kind for kind in KINDS})  # type: ignore[misc]

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


@dataclass(frozen=True, slots=True)
class StreamIncidentBody:
    """The incident right after the event. If `updated_at` is later than the message's `at`, it shows something newer:
    the client was away, or the gateway saw the incident for the first time."""

    id: Annotated[UUID, says("Its id.")]
    service: Annotated[str, says("The service it belongs to.")]
    title: Annotated[str, says("Its title.")]
    severity: Annotated[str, says("P0 to P4, P0 is the worst.")]
    state: Annotated[IncidentState, says("Its state.")]
    incident_type: Annotated[IncidentType, says("Its type: what kind of problem it is.")]
    labels: Annotated[dict[str, str], says("Its labels.")]
    assignees: Annotated[list[str], says("Who works on it.")]
    version: Annotated[int, says("Increases with every change that people can make; also its ETag.")]
    updated_at: Annotated[Time, says("When it last changed.")]


@dataclass(frozen=True, slots=True)
class HappeningBody:
    """`event` is "incident": something happened to an incident. `kind` is the event_type of its line in the timeline."""

    event: Annotated[str, says('Always "incident".')]
    cursor: Annotated[str, says("The position after this message: to continue here, send it as `cursor`.")]
    at: Annotated[Time, says("When it happened.")]
    kind: Annotated[str, says("What happened: an event_type, as in the timeline.")]
    incident: Annotated[StreamIncidentBody, says("The incident after the change.")]
    actor: Annotated[str, says("Who did it.")]
    text: Annotated[str, says("What happened, in words.")]
    reason: Annotated[str, says("Why; may be empty.")]
    details: Annotated[dict[str, str], says("Details for programs.")]
    trace_id: Annotated[str | None, says("The trace it belongs to, if any.")]


@dataclass(frozen=True, slots=True)
class WordBody:
    """A message about the stream itself. `event` is one of

    ready      the first message: what happens from now on comes after it
    heartbeat  nothing was to be told for a while. `stalled` names partitions that can't be followed now, and why;
               `behind` counts frames of the logs that are still to be looked at
    reset      something was missed, `reason` says why: slots, unknown, truncated or behind. List the incidents again
    dropped    the last message: slow, leaving, token or matchers is the `reason`, or, of an event stream that could not even
               begin, busy or unavailable. Connect again with `cursor`
    """

    event: Annotated[str, says("ready, heartbeat, reset or dropped.")]
    cursor: Annotated[str, says("The position of the stream.")]
    at: Annotated[Time, says("When this message was sent.")]
    reason: Annotated[str, says("Why, in a word; empty for ready and heartbeat.")]
    detail: Annotated[str, says("Why, in a sentence.")]
    stalled: Annotated[dict[str, str], says("Partitions that can't be followed now, and why.")]
    behind: Annotated[int, says("How many frames of the logs have not been read yet.")]


_Kind = Annotated[KindName, BeforeValidator(any_case(KindName))]
_State = Annotated[IncidentState, BeforeValidator(any_case(IncidentState))]
_SeverityName = Annotated[SeverityName, BeforeValidator(any_case(SeverityName))]
_Type = Annotated[IncidentType, BeforeValidator(any_case(IncidentType))]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which events a client wants, and from which position on. `forgives`: an invalid cursor leads to a reset instead
    of 400, because a browser would never reconnect after 400. The cursor may be from before a reshard."""

    wanted: StreamFilter
    cursor: str | None
    forgives: bool


def asked(
    connection: HTTPConnection,
    state: Annotated[
        list[_State], Query(max_length=FILTER_VALUES_MAX, description="Any of these, ignoring case.")
    ] = [],  # noqa: B006 - FastAPI reads the default and never changes it
    severity: Annotated[
        list[_SeverityName], Query(max_length=FILTER_VALUES_MAX, description="Any of these.")
    ] = [],  # noqa: B006
    type: Annotated[
        list[_Type], Query(max_length=FILTER_VALUES_MAX, description="Any of these, ignoring case.")
    ] = [],  # noqa: B006
    service: Annotated[
        list[str], Query(max_length=FILTER_VALUES_MAX, description="Any of these, exactly.")
    ] = [],  # noqa: B006
    match: Annotated[
        list[str],
        Query(max_length=MATCHERS_MAX, description='A matcher of labels, like `team=~"a.*"`. All must hold.'),
    ] = [],  # noqa: B006
    kind: Annotated[
        list[_Kind],
        Query(max_length=FILTER_VALUES_MAX, description="Any of these kinds of events, ignoring case."),
    ] = [],  # noqa: B006
    cursor: Annotated[
        str | None,
        Query(
            max_length=CURSOR_CHARS_MAX,
            description="The cursor of the last message you read. Without it the stream starts now.",
        ),
    ] = None,
    last_event_id: Annotated[
        str | None,
        Header(
            description="The same, as browsers send it when they reconnect. Wins over `cursor`.",
        ),
    ] = None,
) -> Asked:
    """The stream that a request's parameters describe. Raises Malformed, TooLarge."""
    try:
        matchers = parse_filters(match)
    except Malformed as error:
        raise Malformed(f"match: {error}") from None
    except TooLarge as error:
        raise TooLarge(f"match: {error}") from None
    wanted = StreamFilter(
        frozenset(state),
        frozenset(Severity[name.value] for name in severity),
        frozenset(type),
        frozenset(service),
        frozenset(each.value for each in kind),
        tuple(matchers),
    )
    names_events = _names_events(connection.headers.get("accept", ""))
    return Asked(wanted, last_event_id or cursor, names_events or bool(last_event_id))


def add_stream_routes(app: FastAPI, tails: Tails) -> None:
    """GET /v1/stream/incidents, and the WebSocket on the same path."""

    async def incidents(
        request: Request,
        asks: Annotated[Asked, Depends(asked)],
        caller: Annotated[Caller, Depends(requires(READ))],
    ) -> Response:
        """What happens to incidents, as it happens: an endless stream of server-sent events.

        Each event's name is the `event` of its JSON, its id is the `cursor`. `incident` is about an incident
        (HappeningBody); `ready`, `heartbeat`, `reset` and `dropped` are about the stream (WordBody). A filter passes an
        event if the incident matched before or after it, so that you also see an incident stop matching.

        A WebSocket to the same path, with the same parameters, gets the same JSON objects as text messages. It is closed
        with 1001 (leaving), 4401 (token), 4408 (slow) or 4413 (matchers) after the message that says so.
        """
        if not _takes_events(request.headers.get("accept", "")):
            detail = f"this is a stream of {SSE}: send Accept: {SSE}, or use WebSocket"
            return problem(406, "not-acceptable", "Not acceptable", detail, PATH)
        return _EventStream(tails, asks, caller, request)

    async def by_websocket(
        websocket: WebSocket,
        asks: Annotated[Asked, Depends(asked)],
        caller: Annotated[Caller, Depends(requires(READ))],
    ) -> None:
        async with tails.watching(asks.wanted, asks.cursor, forgives=asks.forgives) as watch:
            await websocket.accept()
            with contextlib.suppress(WebSocketDisconnect, OSError):
                await _until_gone(_left(websocket), _by_websocket(websocket, watch, caller))

    failures = {
        "4XX": "The request was refused; the problem names the field.",
        "503": "Too many clients are watching through this gateway, or a log cannot be read: try again. A request that names "
        "text/event-stream in Accept is answered 200, `dropped` and an end instead: an EventSource would not come back from 503.",
    }
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    schema = TypeAdapter(HappeningBody | WordBody).json_schema(ref_template="#/components/schemas/{model}")
    schemas: dict[str, Any] = schema.pop("$defs")
    app.add_api_route(
        PATH,
        incidents,
        methods=["GET"],
        response_class=Response,
        responses={
            200: {"description": "The stream.", "content": {SSE: {"schema": schema}}},
            **{code: {"description": text, "content": content} for code, text in failures.items()},
        },
        tags=["incidents"],
    )
    app.add_api_websocket_route(PATH, by_websocket)
    _describe(app, schemas)


class _EventStream(Response):
    """Server-sent events. A refusal comes before the response begins, and becomes a problem document."""

    def __init__(self, tails: Tails, asks: Asked, caller: Caller, request: Request) -> None:
        # Without this, nginx would buffer events until its buffer is full.
        super().__init__(media_type=SSE, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._tails = tails
        self._asks = asks
        self._caller = caller
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def part(body: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": more})

        async def event(message: Told | Said) -> None:
            name = message.event if isinstance(message, Said) else "incident"
            await part(
                b"event: %b\nid: %b\ndata: %b\n\n"
                % (name.encode(), message.cursor.encode(), body_of(message))
            )

        async def stream() -> None:
            await part(b"retry: %d\n\n" % RETRY_MS)
            if await _tell(watch, self._caller, self._request, event):
                await part(b"", more=False)

        async with contextlib.AsyncExitStack() as stack:
            begin = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            try:
                watch = await stack.enter_async_context(
                    self._tails.watching(self._asks.wanted, self._asks.cursor, forgives=self._asks.forgives)
                )
            except (Busy, Unavailable) as error:
                # An EventSource stops for good after any answer other than 200; after an end of the stream it
                # reconnects by itself.
                if not _names_events(self._request.headers.get("accept", "")):
                    raise
                last = self._tails.refusal(error, self._asks.cursor)
                await send(begin)
                # Without an id: its position stays what it was.
                await part(
                    b"retry: %d\nevent: dropped\ndata: %b\n\n" % (BUSY_RETRY_MS, body_of(last)), more=False
                )
                return
            await send(begin)
            await _until_gone(_disconnected(receive), stream())


async def _by_websocket(websocket: WebSocket, watch: Watch, caller: Caller) -> None:
    async def message(each: Told | Said) -> None:
        await websocket.send_text(body_of(each).decode())

    last = await _tell(watch, caller, websocket, message)
    if last is not None:
        await websocket.close(CLOSE_CODES[last.reason], last.reason)


async def _tell(
    watch: Watch,
    caller: Caller,
    connection: HTTPConnection,
    send: Callable[[Told | Said], Awaitable[None]],
) -> Said | None:
    """Send events until the client is disconnected. Returns the last message to send, None if the client did not read
    in time."""
    sent = watch.cursor
    checking = asyncio.create_task(_check(watch, connection))
    try:
        async with contextlib.aclosing(watch.messages()) as messages:
            async for message in messages:
                if isinstance(message, Said) and message.event == "dropped":
                    last = message
                    break
                try:
                    # A server waits for room before it writes, so what timed out was not sent.
                    async with asyncio.timeout(SLOW_S):
                        await send(message)
                except TimeoutError:
                    last = watch.dropped("slow", f"nothing was read for {SLOW_S:g} s", sent)
                    break
                sent = message.cursor
    finally:
        await end([checking])
    log.info("stream client disconnected", caller=caller.name, reason=last.reason, behind=watch.behind)
    try:
        async with asyncio.timeout(LAST_WORD_S):
            await send(last)
    except TimeoutError:
        return None
    return last


async def _check(watch: Watch, connection: HTTPConnection) -> None:
    """Disconnect the client as soon as its token is no longer valid, whether or not there are events to send."""
    is_let_in = True
    while is_let_in:
        await asyncio.sleep(CHECK_S)
        is_let_in = await is_still_let_in(connection)
    watch.let_go("token", "the token is no longer valid")


async def _until_gone(gone: Awaitable[None], work: Awaitable[None]) -> None:
    """`work` until it ends or the client is gone."""
    tasks = [asyncio.ensure_future(gone), asyncio.ensure_future(work)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _left(websocket: WebSocket) -> None:
    # What a client sends is ignored; it is read only to notice that the client has gone.
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


_encoder = msgspec.json.Encoder()
_HEAD = b'{"event":"incident","cursor":"'


def body_of(message: Told | Said) -> bytes:
    """A message as JSON."""
    if isinstance(message, Told):
        return _HEAD + message.cursor.encode() + _rest_of(message.happening)
    return _encoder.encode(
        WordBody(
            message.event,
            message.cursor,
            timestamp(message.at),
            message.reason,
            message.detail,
            message.stalled,
            message.behind,
        )
    )


def _rest_of(happening: Happening) -> bytes:
    is_long = bytes_of(happening.after) > REMEMBERED_BYTES
    return _rest.__wrapped__(happening) if is_long else _rest(happening)


@lru_cache(maxsize=512)  # clients that keep up get the same bytes
def _rest(happening: Happening) -> bytes:
    """Everything after the cursor, which differs for each client."""
    head, line = happening.after, happening.line
    incident = StreamIncidentBody(
        UUID(bytes=head.id),
        head.service,
        head.title,
        head.counts.severity.name,
        head.state,
        head.counts.type,
        head.labels,
        head.assignees,
        head.version,
        timestamp(head.updated_at),
    )
    body = HappeningBody(
        "incident",
        "",
        timestamp(happening.at),
        line.kind,
        incident,
        line.actor,
        line.text,
        line.reason,
        line.details,
        happening.trace_id,
    )
    return _encoder.encode(body)[len(_HEAD) :]


def _takes_events(accept: str) -> bool:
    """Whether an Accept header accepts an event stream; a missing header accepts everything."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return not accept.strip() or any(kind in (SSE, "text/*", "*/*") for kind in kinds)


def _names_events(accept: str) -> bool:
    """Whether an Accept header asks for a stream of events by name, as an EventSource's does."""
    return any(part.partition(";")[0].strip().lower() == SSE for part in accept.split(","))


def _describe(app: FastAPI, schemas: dict[str, Any]) -> None:
    """Add the messages to OpenAPI's schemas, because no response model does."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            generate()["components"]["schemas"].update(schemas)
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]
