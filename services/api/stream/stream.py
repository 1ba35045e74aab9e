"""GET /v1/stream/incidents: what happens to incidents, as it happens, as server-sent events or by WebSocket.

Both forms send the same JSON objects, told apart by `event`. Where a stream stands is in `cursor`, which is also the id
of a server-sent event. services/feed/watch.py has the streams; here they get their form, and who reads too slowly is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import structlog
from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import Response
from pydantic import TypeAdapter
from starlette.requests import HTTPConnection, Request
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from actors.runtime.ending import end
from models.errors import Busy, Unavailable
from services.api.auth import READ, Caller, is_still_let_in, requires
from services.api.problems import problem
from services.api.stream.bodies import HappeningBody, WordBody, body_of
from services.api.stream.params import SSE, Asked, asked, names_events
from services.api.v1.incidents import PREFIX
from services.feed.watch import StreamedHappening, StreamStatus, Tails, Watch

log = structlog.get_logger()

PATH = f"{PREFIX}/stream/incidents"
#: A client that reads nothing for this long is disconnected. Less than the 20 s after which uvicorn pings a WebSocket.
SLOW_S = 15.0
#: How long a client may take to read the last message, which says why it is disconnected.
LAST_WORD_S = 10.0
#: How often to check that the caller's token is still valid, while there are events and while there are none. A gateway
#: learns of a revocation within a second.
CHECK_S = 0.5
#: How long a browser waits before it reconnects, in milliseconds.
RETRY_MS = 1000
#: The same when the gateway is full.
BUSY_RETRY_MS = 5000
#: Codes a WebSocket is closed with, by the reason in the last message. 4000 and up are free for applications.
CLOSE_CODES = {"leaving": 1001, "token": 4401, "slow": 4408, "matchers": 4413}


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

        async def event(message: StreamedHappening | StreamStatus) -> None:
            name = message.event if isinstance(message, StreamStatus) else "incident"
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
                if not names_events(self._request.headers.get("accept", "")):
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
    async def message(each: StreamedHappening | StreamStatus) -> None:
        await websocket.send_text(body_of(each).decode())

    last = await _tell(watch, caller, websocket, message)
    if last is not None:
        await websocket.close(CLOSE_CODES[last.reason], last.reason)


async def _tell(
    watch: Watch,
    caller: Caller,
    connection: HTTPConnection,
    send: Callable[[StreamedHappening | StreamStatus], Awaitable[None]],
) -> StreamStatus | None:
    """Send events until the client is disconnected. Returns the last message to send, None if the client did not read
    in time."""
    sent = watch.cursor
    checking = asyncio.create_task(_check(watch, connection))
    try:
        async with contextlib.aclosing(watch.messages()) as messages:
            async for message in messages:
                if isinstance(message, StreamStatus) and message.event == "dropped":
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


def _takes_events(accept: str) -> bool:
    """Whether an Accept header accepts an event stream; a missing header accepts everything."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return not accept.strip() or any(kind in (SSE, "text/*", "*/*") for kind in kinds)


def _describe(app: FastAPI, schemas: dict[str, Any]) -> None:
    """Add the messages to OpenAPI's schemas, because no response model does."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            generate()["components"]["schemas"].update(schemas)
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]
