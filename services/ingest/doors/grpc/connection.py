"""One HTTP/2 connection of a gRPC client: h2 keeps the protocol, this makes calls of its streams (call.py) and sends their answers.

Everything that came in one piece is dealt with in one turn, and all answers of a turn go out in one piece: that is what makes
a message cost a tenth of what it costs with grpc.aio (docs/decisions/0023-grpc.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Protocol, cast

import structlog
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from models.errors import IncidentManagerError, Malformed
from services.ingest.body import TooSlow
from services.ingest.doors.grpc.call import STREAM_WINDOW, Call, cancelled
from services.ingest.doors.grpc.framing import ACCEPTED, ENCODINGS
from services.ingest.doors.grpc.status import Code, Ended, Header, ended_by, trailers
from services.ingest.doors.grpc.strangers import STRANGER_S, address_of
from services.ingest.headers import refuse_repeated

if TYPE_CHECKING:
    from services.ingest.arrival import Sender
    from services.ingest.body import Room
    from services.ingest.doors.grpc.service import Handler, Service

log = structlog.get_logger()

#: All metadata of a call. gRPC's own clients refuse more than 8 KiB of ours.
METADATA_MAX_BYTES = 16 * 1024
#: HTTP/2's own default, which we leave as it is.
FRAME_MAX_BYTES = 16_384
#: Of the connection as a whole: how fast a client may send. What is held is bounded by stream, and by the gateway's room.
CONNECTION_WINDOW = 8 * 1024 * 1024
#: Frames that carry nothing (pings, settings, resets, priorities, empty data) that a client may send a second. Clients that
#: measure their connection ping with every burst of data.
EMPTY_FRAMES_A_SECOND = 5000
#: What a reset costs of these: a stream that was opened and reset made us more work than a ping.
RESET_COST = 20
#: A connection that never says what it is, and one on which nothing is asked.
GREETING_S, IDLE_S = 10.0, 300.0
#: After so long without a sound a client is pinged, and after so long without an answer to that it is gone.
PING_AFTER_S, PONG_S = 60.0, 20.0
#: A client that has answers to read and reads none for so long is disconnected.
SLOW_S = 15.0

_HEADERS: list[Header] = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", ACCEPTED),
]
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_UNTOLD: frozenset[type] = frozenset(
    {
        events.PingReceived,
        events.RemoteSettingsChanged,
        events.PriorityUpdated,
        events.UnknownFrameReceived,
        events.WindowUpdated,
    }
)


class Server(Protocol):
    """What connections need of their door (door.py)."""

    max_streams: int
    max_calls: int
    max_message_bytes: int
    message_timeout_s: float
    room: Room
    calls: int
    open_calls: int
    max_open_calls: int
    routes: dict[bytes, tuple[Service, Handler]]

    def take_in(self, connection: Connection) -> bool: ...
    def let_go(self, connection: Connection) -> None: ...
    async def admit(self, call: Call) -> None: ...
    def has_room_for_open_call(self, connection: Connection) -> bool: ...
    def turned_away(self, connection: Connection) -> None: ...
    def recognise(self, connection: Connection, sender: Sender) -> None: ...
    def is_over(self, call: Call) -> None: ...
    async def readmit(self, call: Call) -> Sender: ...
    def count_refused(self, reason: str) -> None: ...


class Arriving(Protocol):
    """A connection whose TLS is still to come (tls_listener.py)."""

    peer: object

    def abort(self) -> None: ...


class Connection(asyncio.Protocol):
    """Made by the door for each connection."""

    def __init__(self, door: Server) -> None:
        self.door = door
        self.room = door.room
        self.max_message_bytes = door.max_message_bytes
        self.message_timeout_s = door.message_timeout_s
        self.readmit = door.readmit
        self._h2 = _protocol(door.max_streams)
        self._loop = asyncio.get_running_loop()
        #: While its TLS begins, how that is ended; and what we speak by, once that can be.
        self._arriving: Arriving | None = None
        self._transport: asyncio.Transport | None = None
        #: Where it comes from.
        self.address = ""
        #: The sender whose it is; None: no call has shown one yet.
        self.owner: str | None = None
        #: What the client presented (DER), if it did.
        self._certificate: bytes | None = None
        self.calls: dict[int, Call] = {}
        self.is_over = asyncio.Event()
        #: Calls that have something to send, those for which there was no window, and whether a turn to send is planned.
        self._ready: dict[int, Call] = {}
        self._blocked: dict[int, Call] = {}
        self._is_planned = False
        #: Bytes that came and for which the client was given no new window yet.
        self._owed = 0
        self._is_paused = False
        self._is_leaving = False
        now = self._loop.time()
        self._begun_at = self._heard_at = self._busy_at = self._read_at = now
        self._pinged_at = 0.0
        self._has_greeted = False
        #: Of EMPTY_FRAMES_A_SECOND.
        self._allowed, self._allowed_at = float(EMPTY_FRAMES_A_SECOND), now

    # -- asyncio.Protocol ----------------------------------------------------------------------------------

    def arrived(self, arriving: Arriving) -> bool:
        """It has come, and its TLS is still to come. Whether there is a place for it."""
        self._arriving = arriving
        self.address = address_of(arriving.peer)
        return self.door.take_in(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._arriving is None:
            self.address = address_of(transport.get_extra_info("peername"))
            if not self.door.take_in(self):
                self._transport.abort()
                return
        self._arriving = None
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            self._certificate = tls.getpeercert(binary_form=True)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - 65_535)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            came = 0
            for event in self._h2.receive_data(data):
                kind = type(event)
                if kind is events.DataReceived:
                    came += self._data(cast(events.DataReceived, event))
                elif kind in _UNTOLD:
                    self._pay(1)
                    if kind is events.WindowUpdated or kind is events.RemoteSettingsChanged:
                        self._unblock()
                    self._has_greeted = True
                else:
                    self._other(event)
            self._owed += came
            if self._owed > CONNECTION_WINDOW // 4:
                self._h2.increment_flow_control_window(self._owed)
                self._owed = 0
            begun = self._h2.incoming_buffer._data
            if len(begun) >= 3 and int.from_bytes(begun[:3], "big") > FRAME_MAX_BYTES:
                # h2 would gather all of a frame, 16 MiB perhaps, before it looks at its size.
                self._h2.close_connection(6)  # FRAME_SIZE_ERROR
                raise ProtocolError(f"a frame of over {FRAME_MAX_BYTES} bytes")
        except ProtocolError as error:
            # What h2 has to say of it is among its bytes to send.
            self.door.count_refused("protocol")
            log.info("gRPC connection closed: its client breaks the protocol", why=str(error)[:200])
            self._send()
            self.close()
            return
        self._plan()

    def pause_writing(self) -> None:
        self._is_paused = True
        self._read_at = self._loop.time()
        # What is refused is answered at once, and pings are: whoever reads nothing would have us keep all of that.
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_paused = False
        self._read_at = self._loop.time()
        if self._transport is not None:
            self._transport.resume_reading()
        self._plan()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = self._arriving = None
        for call in [*self.calls.values()]:
            self._abandon(call)
        self.is_over.set()
        self.door.let_go(self)

    # -- for calls -----------------------------------------------------------------------------------------

    def has_answers(self, call: Call) -> None:
        if not call.is_gone:
            self._ready[call.stream] = call
            self._plan()

    def widen(self, call: Call, size: int) -> None:
        """Let the client send so much more on a stream."""
        if call.is_gone or call.ended is not None:
            return
        try:
            self._h2.increment_flow_control_window(size, call.stream)
        except ProtocolError:
            return  # the client has closed its half: it needs no window
        self._plan()

    # -- for the door --------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Take no further calls, have those under way end, and close."""
        self._is_leaving = True
        if self._transport is None:
            self.abort()  # its TLS is not there yet
        elif not self._transport.is_closing():
            # Not h2's own: after that it would send no answers either.
            last = self._h2.highest_inbound_stream_id
            self._transport.write(GoAwayFrame(0, last_stream_id=last, error_code=0).serialize())
        for call in [*self.calls.values()]:
            call.leave()
        self._close_if_over()

    def turn_away(self) -> None:
        """Its place is needed, and it has shown no token."""
        if self._transport is not None and not self._is_paused:
            with contextlib.suppress(ProtocolError):
                self._h2.close_connection(
                    11, b"no token was shown, and others need the place"
                )  # ENHANCE_YOUR_CALM
            self._send()
            self.close()
        else:
            self.abort()
        self.door.turned_away(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if (found := self._transport or self._arriving) is not None:
            found.abort()

    def look(self) -> None:
        """What takes too long. Called every few seconds."""
        now = self._loop.time()
        if not self.calls and not self._has_greeted and now - self._begun_at > GREETING_S:
            self.abort()
        elif (self._blocked or self._is_paused) and now - self._read_at > SLOW_S:
            log.info("gRPC connection closed: its client reads no answers", calls=len(self.calls))
            self.door.count_refused("slow reader")
            self.abort()
        elif self._pinged_at > self._heard_at and now - self._pinged_at > PONG_S:
            self.abort()
        elif not self.calls and now - self._busy_at > (STRANGER_S if self.owner is None else IDLE_S):
            self.leave()
        elif now - self._heard_at > PING_AFTER_S and self._pinged_at <= self._heard_at:
            self._pinged_at = now
            self._h2.ping(b"llm-im\0\0")
            self._plan()

    # -- what comes ----------------------------------------------------------------------------------------

    def _data(self, event: events.DataReceived) -> int:
        flow = event.flow_controlled_length or 0
        call = self.calls.get(event.stream_id or 0)
        if call is not None:
            if event.data:
                call.feed(event.data, flow)
            elif event.stream_ended is None:
                self._pay(1)
        return flow

    def _other(self, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            self._has_greeted = True
            self._request(event.stream_id or 0, cast(Any, event.headers))
        elif isinstance(event, events.StreamEnded):
            if (call := self.calls.get(event.stream_id or 0)) is not None:
                call.complete()
        elif isinstance(event, events.StreamReset):
            self._pay(RESET_COST)
            if (call := self.calls.get(event.stream_id or 0)) is not None:
                self._abandon(call)
        elif isinstance(event, events.ConnectionTerminated):
            self._is_leaving = True  # it opens no more streams; what it has is answered
            self._close_if_over()

    def _pay(self, cost: int) -> None:
        """Raises ProtocolError for a client that sends more empty frames than any honest one."""
        self._allowed -= cost
        if self._allowed < 0:
            now = self._loop.time()
            self._allowed += (now - self._allowed_at) * EMPTY_FRAMES_A_SECOND
            self._allowed = min(self._allowed, float(EMPTY_FRAMES_A_SECOND))
            self._allowed_at = now
            if self._allowed < 0:
                self._h2.close_connection(11)  # ENHANCE_YOUR_CALM
                raise ProtocolError(f"over {EMPTY_FRAMES_A_SECOND} frames a second that carry nothing")

    def _request(self, stream: int, headers: list[Header]) -> None:
        named = dict(headers)
        if not named.get(b"content-type", b"").startswith(b"application/grpc"):
            refused = [(b":status", b"415"), (b"accept-post", b"application/grpc")]
            self._refuse(stream, refused)
            return
        try:
            service, handler = self._found(named)
            refuse_repeated(headers)
        except (Ended, Malformed) as error:
            ended = ended_by(error)
            self.door.count_refused(ended.code.name.lower().replace("_", " "))
            self._refuse(stream, [*_HEADERS, *trailers(ended)])
            return
        path = named[b":path"].decode("latin-1")
        call = Call(self, stream, service.scope, path, headers, self._certificate)
        self.calls[stream] = call
        self.door.calls += 1
        self.door.open_calls += not service.scope
        limit = _seconds(named.get(b"grpc-timeout", b""))
        call.task = self._loop.create_task(self._serve(call, handler, limit))

    def _refuse(self, stream: int, headers: list[Header]) -> None:
        try:
            self._h2.send_headers(stream, headers, end_stream=True)
            self._reset_half(stream)
        except ProtocolError:
            return  # its client has given it up in the same piece: that is no fault of the connection

    def _found(self, headers: dict[bytes, bytes]) -> tuple[Service, Handler]:
        """Who serves a request. Raises Ended."""
        path = headers.get(b":path", b"")
        if headers.get(b":method") != b"POST" or (found := self.door.routes.get(path)) is None:
            raise Ended(Code.UNIMPLEMENTED, f"there is no method {path[:200].decode('latin-1')!r}")
        if (encoding := headers.get(b"grpc-encoding", b"identity")) not in ENCODINGS:
            raise Ended(
                Code.UNIMPLEMENTED,
                f"grpc-encoding: expected one of {ACCEPTED.decode()}, got {encoding[:40].decode('latin-1')!r}",
            )
        if self._is_leaving:
            raise Ended(Code.UNAVAILABLE, "the gateway stops", 1.0)
        if self.door.calls >= self.door.max_calls:
            raise Ended(Code.UNAVAILABLE, f"{self.door.max_calls} calls are under way, the most at once", 1.0)
        if not found[0].scope and not self.door.has_room_for_open_call(self):
            why = f"{self.door.max_open_calls} calls without a token are under way, the most at once"
            raise Ended(Code.UNAVAILABLE, why, 1.0)
        return found

    # -- a call --------------------------------------------------------------------------------------------

    async def _serve(self, call: Call, handler: Handler, limit_s: float | None) -> None:
        late = self._loop.call_later(limit_s, self._late, call) if limit_s is not None else None
        try:
            if limit_s is not None and limit_s <= 0:
                raise cancelled(call)
            if call.scope:
                await self.door.admit(call)
                if self.owner is None:
                    self.door.recognise(self, call.sender)
            await handler(call)
            ended = Ended(Code.OK, "")
            if call.is_leaving and not call.is_over:
                ended = cancelled(call)
        except asyncio.CancelledError:
            ended = cancelled(call)
        except (Ended, IncidentManagerError, TooSlow) as error:
            ended = ended_by(error)
        except Exception:
            log.exception("bug: a gRPC call ends", call=call.path, sender=call.sender.name)
            ended = Ended(Code.INTERNAL, "a bug of the server: what is not answered may be sent again", 1.0)
        finally:
            if late is not None:
                late.cancel()
        if ended.code is not Code.OK and not call.is_gone:
            self.door.count_refused(ended.code.name.lower().replace("_", " "))
        call.ended = ended
        self.has_answers(call)

    def _late(self, call: Call) -> None:
        if call.task is not None and call.ended is None:
            call.task.cancel()

    def _abandon(self, call: Call) -> None:
        """The client has given it up, or is gone: what was taken is stored in any case, and nobody is told."""
        self._over(call)
        if call.task is not None and call.ended is None:
            call.task.cancel()

    def _over(self, call: Call) -> None:
        if self.calls.pop(call.stream, None) is None:
            return
        self._ready.pop(call.stream, None)
        self._blocked.pop(call.stream, None)
        self.door.is_over(call)
        self._busy_at = self._loop.time()
        call.forget()
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self._is_leaving and not self.calls:
            self._send()
            self.close()

    # -- what goes -----------------------------------------------------------------------------------------

    def _plan(self) -> None:
        if not self._is_planned:
            self._is_planned = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Send all that is ready, in one piece."""
        self._is_planned = False
        if self._transport is None:
            return
        if not self._is_paused:
            ready, self._ready = self._ready, {}
            for call in ready.values():
                self._tell(call)
        self._send()

    def _tell(self, call: Call) -> None:
        h2, stream, out = self._h2, call.stream, call.out
        try:
            if not call.has_begun and (out or call.ended is None):
                call.has_begun = True
                h2.send_headers(stream, _HEADERS)
            while out:
                room = min(h2.local_flow_control_window(stream), h2.max_outbound_frame_size, len(out))
                if room <= 0:
                    if not self._blocked:
                        self._read_at = self._loop.time()
                    self._blocked[stream] = call
                    return
                h2.send_data(stream, bytes(out[:room]))
                del out[:room]
            call.drained()
            if call.ended is not None:
                said = trailers(call.ended)
                h2.send_headers(stream, said if call.has_begun else [*_HEADERS, *said], end_stream=True)
                self._reset_half(stream)
                self._over(call)
        except ProtocolError:
            self._abandon(call)  # its client has closed the stream meanwhile

    def _reset_half(self, stream: int) -> None:
        """End a stream whose answer is complete, though its client may not have said all."""
        found = self._h2.streams.get(stream)
        if found is not None and not found.closed:
            self._h2.reset_stream(stream, 0)

    def _unblock(self) -> None:
        if self._blocked:
            self._read_at = self._loop.time()
            self._ready.update(self._blocked)
            self._blocked.clear()

    def _send(self) -> None:
        if self._transport is not None and (data := self._h2.data_to_send()):
            self._transport.write(data)


def _protocol(max_streams: int) -> H2Connection:
    configuration = H2Configuration(
        client_side=False,
        header_encoding=None,
        # They are ours, and right.
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
    )
    found = H2Connection(configuration)
    found.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: METADATA_MAX_BYTES,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        },
    )
    found.decoder.max_header_list_size = METADATA_MAX_BYTES
    return found


def _seconds(timeout: bytes) -> float | None:
    """grpc-timeout; None without one, or one that nobody can read."""
    digits, unit = timeout[:-1], timeout[-1:]
    if not digits.isdigit() or len(digits) > 8 or unit not in _UNITS:
        return None
    return int(digits) * _UNITS[unit]
