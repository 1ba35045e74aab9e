"""uvicorn's WebSockets with what it leaves open: a text that is no UTF-8 is no fault of ours to be told with a traceback, pieces of a
message that hold nothing are not kept, and a message may be sent as it is. Put beside http_protocol.py into every replica.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import structlog
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from services.ingest.body import PLAIN
from services.ingest.headers import sender_of

if TYPE_CHECKING:
    from websockets.frames import Frame
    from websockets.http11 import Request

log = structlog.get_logger()

#: A text message in one frame, as its first byte; and the code of a close for one that is no UTF-8 (RFC 6455).
_TEXT, _NO_UTF8 = 0x81, 1007


class Protocol(WebSocketsSansIOProtocol):
    """One connection."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            cast(dict[str, object], self.scope["extensions"])[PLAIN] = self

    def send_plain(self, message: bytes) -> None:
        """Send a text now, uncompressed though its client takes compressed ones (RFC 7692 leaves that to us). Raises OSError when
        nobody would get it."""
        if self.close_sent or self.transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        size = len(message)
        if size < 126:
            head = bytes((_TEXT, size))
        elif size < 65_536:
            head = bytes((_TEXT, 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((_TEXT, 127)) + size.to_bytes(8, "big")
        self.transport.write(head + message)

    def handle_cont(self, event: Frame) -> None:
        if event.data:
            self.frames.append(event.data)  # type: ignore[arg-type]
        if event.fin:
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            data = b"".join(self.frames)
            self.frames = [data]
            try:
                data.decode()
            except UnicodeDecodeError as error:
                self.frames = []
                self._refuse(f"{error.reason} (byte {error.start})")
                return
        super().send_receive_event_to_app()

    def _refuse(self, why: str) -> None:
        log.warning(
            "WebSocket closed: a text message is no UTF-8",
            sender=sender_of(dict(self.scope["headers"]), self.client),
            path=str(self.scope["path"]),
            why=why,
        )
        if self.conn.close_sent is None:
            self.conn.send_close(_NO_UTF8, "a text message is no UTF-8")
        self.handle_parser_exception()
