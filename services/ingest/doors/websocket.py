"""Alerts over one long WebSocket, GET /v1/stream/alerts: many alerts a frame, an answer to each frame by its id.

The client sends {"id": ..., "alerts": [...]}, alerts as POST /v1/alerts takes them, and gets {"id": ..., "status": ..., "body": ...}:
what POST /v1/alerts would have answered. Frames are taken in their order; the answers of those that only fire may come in
another. Whoever names the connection (`?stream=NAME`) may send a frame again after a break: with the same id it is stored once, and
answered alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import parse_qs

import msgspec
import structlog

from actors.runtime.ending import end
from models.errors import Busy, Forbidden, Malformed, RateLimited, TooLarge, Unauthorized
from services.ingest.arrival import Arrival, Sender
from services.ingest.body import MESSAGE_MAX_BYTES, PLAIN, Receive, Scope, Send
from services.ingest.doors.door import Door, Needs
from services.ingest.formats.answers import REFUSING, Answer, Refusal, problem, refusal_of
from services.ingest.formats.format import Format, Request
from services.ingest.formats.items import UNREADABLE
from services.ingest.formats.json_text import json_error
from services.ingest.formats.reading import Fault, Reading
from services.ingest.formats.v1 import V1Format
from services.ingest.headers import CHALLENGE, IDEMPOTENCY_KEY_MAX_BYTES
from services.ingest.intake import AT_ONCE_BYTES
from services.ingest.shares import Shares
from services.ingest.submit import Receipt

if TYPE_CHECKING:
    from models.settings.server import Server

log = structlog.get_logger()

PATH = "/v1/stream/alerts"
#: Connections of one gateway. Each holds a few kilobytes while it is idle.
CONNECTIONS_MAX = 1024
#: Frames of one connection whose answers are not sent yet. Past it nothing more is read, and TCP slows the sender down: a few
#: more than it takes to fill the time of an append.
WINDOW = 16
#: A client that does not read its answers for so long is disconnected. Less than the 20 s after which uvicorn pings.
SLOW_S = 15.0
#: A gateway that stops sends the answers of what it took, for so long.
LEAVE_S = 5.0
#: Why a connection ends, as the code that it is closed with. 4000 and up are free for applications.
LEAVING, BUG, TOKEN = 1001, 1011, 4401

_NAME = re.compile(r"[\x21-\x7e]{1,100}\Z")
_NONE = msgspec.Raw()


class Plain(Protocol):
    """A connection that sends messages as they are (services/machine/websocket_protocol.py)."""

    writable: asyncio.Event

    def send_plain(self, message: bytes) -> None:
        """Now. Raises OSError when the connection is closed."""


class Frame(msgspec.Struct, forbid_unknown_fields=True):
    """What a client sends."""

    alerts: msgspec.Raw
    id: str | int | None = None


class _Id(msgspec.Struct):
    id: str | int | None = None


class _Answered(msgspec.Struct):
    """What it gets."""

    id: str | int | None
    status: int
    body: msgspec.Raw
    retry_after_s: int | msgspec.UnsetType = msgspec.UNSET


class _Ready(msgspec.Struct):
    """The first message: the client may send, and have `window` frames unanswered."""

    ready: bool
    window: int
    max_frame_bytes: int


_frames = msgspec.json.Decoder(Frame)
_ids = msgspec.json.Decoder(_Id)
_encode = msgspec.json.Encoder().encode


class WebSocketDoor(Door):
    """Handles the connections for which `takes` is true; the gateway's host passes them."""

    name = "websocket"
    section = "server"

    def __init__(self, needs: Needs, section: Server) -> None:
        self.needs = needs
        self.form: Format = needs.formats[V1Format.name]
        self.max_frame_bytes = min(MESSAGE_MAX_BYTES, section.max_body_bytes)
        self._connections: set[_Connection] = set()
        self._shares = Shares()
        self._is_open = False

    async def start(self) -> None:
        self._is_open = True

    async def stop(self) -> None:
        """No frame is taken any more; what was taken is answered."""
        self._is_open = False
        connections = [*self._connections]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await asyncio.gather(*[each.leave(LEAVING, "the gateway stops") for each in connections])

    def takes(self, scope: Scope) -> bool:
        """Whether a connection is for this door."""
        return scope["type"] == "websocket" and scope["path"] == PATH

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection until it ends."""
        await receive()  # websocket.connect
        headers: Mapping[bytes, bytes] = dict(cast(Any, scope["headers"]))
        try:
            # Before the token: a page of another site learns nothing of it.
            self.needs.doorman.admit_page(headers)
            sender = await self.needs.doorman.admit_to_door(headers, self.form.name)
            stream = _stream(cast(bytes, scope.get("query_string", b"")))
            if not self._is_open or len(self._connections) >= CONNECTIONS_MAX:
                raise Busy(f"{CONNECTIONS_MAX} connections are open, the most at once", retry_after_s=1.0)
            if self._shares.is_over(sender.name, 1, CONNECTIONS_MAX - len(self._connections)):
                raise Busy(f"{sender.name} has too many connections open already", retry_after_s=1.0)
        except (Unauthorized, Forbidden, Malformed, Busy) as error:
            await self._deny(send, scope, refusal_of(error))
            return
        await send({"type": "websocket.accept"})
        plain = cast(Mapping[str, object], scope.get("extensions") or {}).get(PLAIN)
        connection = _Connection(self, receive, send, cast("Plain | None", plain), headers, sender, stream)
        self._connections.add(connection)
        self._shares.add(sender.name, 1)
        self._count()
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
            self._shares.drop(sender.name, 1)
            self._count()

    async def _deny(self, send: Send, scope: Scope, refusal: Refusal) -> None:
        reason = refusal.title.lower()
        self.needs.meter.count("llm_im_requests_refused_total", door=self.name, reason=reason)
        if refusal.status == 401:
            refusal.challenge = CHALLENGE
        if "websocket.http.response" not in cast(Mapping[str, object], scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
            return
        answer = problem(refusal, PATH)
        headers = [(b"content-type", answer.content_type), *answer.headers]
        start: dict[str, object] = {
            "type": "websocket.http.response.start",
            "status": answer.status,
            "headers": headers,
        }
        await send(start)
        await send({"type": "websocket.http.response.body", "body": answer.body})

    def _count(self) -> None:
        self.needs.meter.set("llm_im_alert_streams", len(self._connections))


class _Connection:
    """One client's."""

    def __init__(
        self,
        door: WebSocketDoor,
        receive: Receive,
        send: Send,
        plain: Plain | None,
        headers: Mapping[bytes, bytes],
        sender: Sender,
        stream: str | None,
    ) -> None:
        self._door = door
        self._needs = door.needs
        self._form = door.form
        self._receive = receive
        self._send = send
        self._plain = plain
        self._headers = headers
        self._credentials = door.needs.doorman.credentials(headers)
        self._sender = sender
        self._stream = stream
        #: A frame that was taken has a place until its answer is sent.
        self._places = asyncio.Semaphore(WINDOW)
        #: An id with an answer, or with what is put into words when its turn comes; None is the end.
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self.is_over = asyncio.Event()
        #: Frames on their way to their shards, and whether there are none.
        self._under_way = 0
        self._nothing_under_way = asyncio.Event()
        self._nothing_under_way.set()
        self._reading: asyncio.Task[None] | None = None
        #: The code to close with, and why; None when the client closed.
        self._close: tuple[int, str] | None = (1000, "")

    async def serve(self) -> None:
        """Until the client is gone, or was told why it must go. What was taken is stored in any case."""
        loop = asyncio.get_running_loop()
        reading = self._reading = loop.create_task(self._read())
        telling = loop.create_task(self._tell())
        try:
            await asyncio.wait((reading, telling), return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not reading.cancelled() and (bug := reading.exception()) is not None:
                log.error("bug: an alert stream ends", sender=self._sender.name, exc_info=bug)
                self._close = (BUG, "a bug of the server: what is not answered may be sent again")
            await self._nothing_under_way.wait()
            self._answers.put_nowait(None)
            await telling
        finally:
            await end([reading, telling])
            self.is_over.set()

    async def leave(self, code: int, why: str) -> None:
        """Take no more frames, answer those that were taken, and close."""
        self._close = (code, why)
        if self._reading is not None:
            await end([self._reading])
        await self.is_over.wait()

    async def _read(self) -> None:
        while True:
            await self._places.acquire()
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._close = None
                return
            said = message.get("text") or message.get("bytes") or b""
            data = said.encode("utf-8", "surrogatepass") if isinstance(said, str) else cast(bytes, said)
            if not await self._is_let_in():
                self._close = (TOKEN, "the token is no longer valid")
                return
            # Nothing is read meanwhile: TCP slows the sender down.
            await self._needs.intake.admitted(self._sender)
            await self._take(data)

    async def _is_let_in(self) -> bool:
        doorman = self._needs.doorman
        if (sender := doorman.admitted(self._credentials, self._form.name)) is None:
            try:
                sender = await doorman.admit_to_door(self._headers, self._form.name)
            except (Unauthorized, Forbidden):
                return False
        self._sender = sender
        return True

    async def _take(self, data: bytes) -> None:
        """Have a frame stored. What only fires may overlap with what came before it; all else waits for that, so that an end
        never overtakes its beginning."""
        needs, form = self._needs, self._form
        begun, now = needs.clock.monotonic(), needs.clock.now()
        try:
            frame = self._decoded(data)
            delivery = self._delivery(frame.id)
        except REFUSING as error:
            request = Request(PATH, data, now, "GET", b"", {}, "application/json", self._sender)
            needs.intake.bury(form, request, [Fault(-1, str(error), data)])
            self._answer(_id_of(data), form.refused(refusal_of(error)))
            return
        body = bytes(frame.alerts)
        request = Request(PATH, body, now, "GET", b"", {}, "application/json", self._sender)
        arrival = Arrival(needs.intake.tenant, form.name, self._sender, now, form.wants_ids, delivery)
        is_plain = len(body) <= AT_ONCE_BYTES and not self._sender.match
        reading = needs.intake.read_at_once(form, request) if is_plain else None

        def observe() -> None:
            needs.meter.observe(
                "llm_im_ingest_seconds", needs.clock.monotonic() - begun, door=self._door.name
            )

        if reading is not None and not reading.said and min(reading.ends, default=0.0) > now:
            self._under_way += 1
            self._nothing_under_way.clear()

            def stored(reading: Reading, receipt: Receipt) -> None:
                # First, so that no bug elsewhere leaves the connection waiting.
                self._answers.put_nowait((frame.id, reading, receipt))
                self._took()
                observe()

            try:
                needs.intake.begin(reading, arrival, stored)
            except RateLimited as error:
                self._took()
                self._answer(frame.id, form.refused(refusal_of(error)))
            return
        await self._nothing_under_way.wait()
        with needs.tracer.span(f"FRAME {PATH}", None, {}, kind="server") as span:
            try:
                answer = await form.stored(*await needs.intake.take(form, request, arrival, span))
            except REFUSING as error:
                answer = form.refused(refusal_of(error))
        observe()
        self._answer(frame.id, answer)

    def _took(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._nothing_under_way.set()

    def _decoded(self, data: bytes) -> Frame:
        if len(data) > self._door.max_frame_bytes:
            raise TooLarge(f"a frame of {len(data)} bytes, at most {self._door.max_frame_bytes} are allowed")
        try:
            return _frames.decode(data)
        except UNREADABLE as error:
            raise Malformed(f'expected {{"id": ..., "alerts": [...]}}: {json_error(error)}') from None

    def _delivery(self, frame_id: str | int | None) -> str | None:
        if self._stream is None:
            return None
        if frame_id is None:
            raise Malformed("id: expected one in every frame of a connection with a name (?stream=)")
        delivery = f"{self._stream}/{frame_id}"
        if len(delivery) > IDEMPOTENCY_KEY_MAX_BYTES or not delivery.isprintable():
            raise Malformed(
                f"id: expected printable characters, with the name {IDEMPOTENCY_KEY_MAX_BYTES} at most"
            )
        return delivery

    def _answer(self, frame_id: str | int | None, answer: Answer) -> None:
        self._answers.put_nowait((frame_id, answer))

    async def _tell(self) -> None:
        """Send the answers, and the reason at the end. Ends early when the client reads nothing, or is gone."""
        try:
            await self._write(_encode(_Ready(True, WINDOW, self._door.max_frame_bytes)))
            while (found := await self._answers.get()) is not None:
                frame_id, *rest = found
                answer = rest[0] if len(rest) == 1 else await self._form.stored(*rest)
                await self._write(_encode(_answered(frame_id, answer)))
                self._places.release()
            if self._close is not None:
                code, reason = self._close
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except TimeoutError:
            # Nor would it read why.
            log.info("alert stream disconnected: it reads no answers", sender=self._sender.name)
        except (OSError, RuntimeError):
            # A connection that the other side closed: uvicorn has both ways to say it.
            return

    async def _write(self, data: bytes) -> None:
        plain = self._plain
        if plain is None:
            async with asyncio.timeout(SLOW_S):
                await self._send({"type": "websocket.send", "text": data.decode()})
            return
        # Compressing an answer takes as long as reading its alerts, and saves a few kilobytes of a network that has gigabits.
        plain.send_plain(data)
        if not plain.writable.is_set():
            async with asyncio.timeout(SLOW_S):
                await plain.writable.wait()


def _answered(frame_id: str | int | None, answer: Answer) -> _Answered:
    wait_s = dict(answer.headers).get(b"retry-after")
    body = msgspec.Raw(answer.body or b"null")
    return _Answered(frame_id, answer.status, body, msgspec.UNSET if wait_s is None else int(wait_s))


def _id_of(data: bytes) -> str | int | None:
    """The id of a frame that is wrong otherwise, if it can be read."""
    try:
        return _ids.decode(data).id
    except UNREADABLE:
        return None


def _stream(query: bytes) -> str | None:
    """The name of the connection. Raises Malformed."""
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=10).get("stream")
    if given is None:
        return None
    if len(given) > 1 or not _NAME.match(given[0]):
        raise Malformed("stream: expected a name of 1 to 100 visible ASCII characters")
    return given[0]
