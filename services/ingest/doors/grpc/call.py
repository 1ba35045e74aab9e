"""One call: the messages that came, and the answers. What a handler of a service gets (service.py); connection.py feeds it.

What came and was not given back by release() (or by the next read()) is held against the client's window and against the room of
the gateway: a handler that has enough stops taking, and HTTP/2 slows the client down.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from models.errors import Busy, Malformed, TooLarge
from models.trace import context_of
from services.ingest.arrival import ANONYMOUS, Sender
from services.ingest.body import TooSlow
from services.ingest.doors.grpc.framing import HEAD_BYTES, framed, unpacked
from services.ingest.doors.grpc.status import Code, Ended, Header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.ingest.body import Room

#: What a client may send on one stream before we gave room back: a second of alerts of a busy sender.
STREAM_WINDOW = 1024 * 1024
#: Answers of one call that wait for its client to read them, before write() waits too.
UNREAD_MAX_BYTES = 64 * 1024
#: What a call that needs no token may hold: a request of health or reflection is a name.
OPEN_MAX_BYTES = 64 * 1024


class Home(Protocol):
    """What a call needs of its connection (connection.py)."""

    @property
    def room(self) -> Room: ...
    @property
    def max_message_bytes(self) -> int: ...
    @property
    def message_timeout_s(self) -> float: ...
    def has_answers(self, call: Call) -> None:
        """There is something to send."""

    def widen(self, call: Call, size: int) -> None:
        """Let the client send so much more."""

    async def readmit(self, call: Call) -> Sender:
        """Who calls, if it still may. Raises Unauthorized, Forbidden."""


class Call:
    """`sender` is who calls, `metadata` what it said (names in lower case), `trace` the context of its traceparent."""

    def __init__(
        self,
        home: Home,
        stream: int,
        scope: str,
        path: str,
        headers: Sequence[Header],
        certificate: bytes | None = None,
    ) -> None:
        self.path = path
        #: The client certificate of its connection (DER), which TLS has checked.
        self.certificate = certificate
        #: The format whose scope it needs, "" for none.
        self.scope = scope
        self.metadata: Mapping[bytes, bytes] = dict(headers)
        self.trace = context_of(headers) if b"traceparent" in self.metadata else None
        self.sender: Sender = ANONYMOUS
        #: Set when the gateway stops: read() and take() give no more.
        self.is_leaving = False
        #: No answer can reach the client any more.
        self.is_gone = False
        self.task: asyncio.Task[None] | None = None
        self.stream = stream
        self.out = bytearray()
        self.has_begun = False
        #: How the call ended, once it has, until the client was told.
        self.ended: Ended | None = None
        self._home = home
        self._room = home.room
        self._max_bytes = home.max_message_bytes
        self._encoding = self.metadata.get(b"grpc-encoding", b"identity")
        self._buffer = bytearray()
        #: A message, whether it is compressed, and the bytes of the window that it still takes.
        self._messages: deque[tuple[bytes, bool, int]] = deque()
        #: Bytes of the message under way that were given back before it was there.
        self._lent = 0
        self._is_complete = False
        self._why: Exception | None = None
        self._news = asyncio.Event()
        self._drained = asyncio.Event()
        #: Bytes of the window and of the room, of each message that a handler has.
        self._given: deque[tuple[int, int]] = deque()
        self._held = 0
        #: Whose share of the room it is, once that is known.
        self.owner = ""
        #: Bytes that came and for which the client was given no new window yet.
        self._owed = 0

    # -- for handlers --------------------------------------------------------------------------------------

    async def read(self) -> bytes | None:
        """The next message, once the one before was dealt with; None at the end. Raises Malformed, TooLarge for one that can't
        be read, Busy when there is no room, Unauthorized or Forbidden when the token is no longer good."""
        self.release(len(self._given))
        found = await self.take(1)
        return found[0] if found else None

    async def only(self) -> bytes:
        """The message of a call that has one. Raises as read()."""
        wait_s = self._home.message_timeout_s
        try:
            async with asyncio.timeout(wait_s):
                found = await self.read()
                if found is None:
                    raise Malformed("expected one message, got none")
                if await self.take(1):
                    raise Malformed("expected one message, got several")
                return found
        except TimeoutError:
            raise TooSlow(f"the message took over {wait_s:g} s") from None

    async def take(self, most: int) -> list[bytes]:
        """The messages that have come, at most so many; waits for the first. None at the end. They are held until release().
        Raises as read()."""
        while not self._messages:
            if self._why is not None:
                raise self._why
            if self._is_complete or self.is_leaving:
                return []
            self._news.clear()
            await self._news.wait()
        if self.is_leaving:
            return []
        if self.scope:
            self.sender = await self._home.readmit(self)
        found: list[bytes] = []
        while self._messages and len(found) < most:
            message, is_packed, took = self._messages[0]
            held = HEAD_BYTES + len(message)
            if is_packed:
                if found:
                    break  # One at a time: what comes before it is not lost if it is bad.
                message = unpacked(message, self._encoding, self._max_bytes)
                self._hold(len(message))
                held += len(message)
            self._messages.popleft()
            self._given.append((took, held))
            found.append(message)
        return found

    def release(self, count: int) -> None:
        """The first so many of the messages that it has are dealt with."""
        for _ in range(0 if self.is_gone else count):
            took, held = self._given.popleft()
            self._let_go(held)
            self._give_back(took)

    def send(self, *messages: bytes) -> None:
        """Send answers, without waiting for the client to read them. Nothing happens when the call is over."""
        if self.is_gone or self.ended is not None:
            return
        for message in messages:
            self.out += framed(message)
        self._home.has_answers(self)

    async def has_read(self) -> None:
        """Until the client has read all but a little of the answers."""
        while len(self.out) > UNREAD_MAX_BYTES and not self.is_gone:
            self._drained.clear()
            await self._drained.wait()

    async def write(self, *messages: bytes) -> None:
        """send(), and wait while the client does not read."""
        self.send(*messages)
        await self.has_read()

    @property
    def is_over(self) -> bool:
        """Whether all messages came and were taken."""
        return self._is_complete and not self._messages

    # -- for its connection --------------------------------------------------------------------------------

    def belongs_to(self, sender: Sender) -> None:
        """Who calls was found out."""
        self.sender, self.owner = sender, sender.name
        self._room.shares.add(self.owner, self._held)

    def feed(self, data: bytes, flow: int) -> None:
        """Data came, that took `flow` bytes of the window."""
        if self._why is not None or self.ended is not None:
            return
        buffer = self._buffer
        buffer += data
        self._owed += flow - len(data)
        try:
            self._hold(len(data))
            at = 0
            while len(buffer) - at >= HEAD_BYTES:
                flag, size = buffer[at], int.from_bytes(buffer[at + 1 : at + HEAD_BYTES], "big")
                if flag > 1:
                    raise Malformed(f"a message begins with {flag}: expected 0 or 1")
                if size > self._max_bytes:
                    raise TooLarge(
                        f"a message of {size} bytes, at most {self._max_bytes} are allowed (server.max_body_bytes)"
                    )
                end = at + HEAD_BYTES + size
                if len(buffer) < end:
                    break
                self._messages.append(
                    (bytes(buffer[at + HEAD_BYTES : end]), flag == 1, HEAD_BYTES + size - self._lent)
                )
                self._lent = 0
                at = end
            if at:
                del buffer[:at]
        except (Malformed, TooLarge, Busy) as error:
            self._why = error
        if len(buffer) > STREAM_WINDOW // 2:
            # It would never come to its end otherwise.
            self._lent += len(data)
            self._give_back(len(data))
        self._news.set()

    def complete(self) -> None:
        """The client has said all."""
        if self._buffer and self._why is None:
            self._why = Malformed("the stream ends in the middle of a message")
        self._is_complete = True
        self._news.set()

    def leave(self) -> None:
        """The gateway stops."""
        self.is_leaving = True
        self._news.set()

    def drained(self) -> None:
        """The client has read."""
        self._drained.set()

    def forget(self) -> None:
        """The call is over: nothing of it is held any more."""
        self.is_gone = True
        self._let_go(self._held)
        self._given.clear()
        self._messages.clear()
        self._buffer.clear()
        self._drained.set()

    def _hold(self, size: int) -> None:
        room, shares = self._room, self._room.shares
        if not self.scope and self._held + size > OPEN_MAX_BYTES:
            raise TooLarge(f"over {OPEN_MAX_BYTES} bytes of messages that are not dealt with yet")
        if room.held + size > room.max_bytes:
            raise Busy(f"{room.held} bytes of messages are in memory already", retry_after_s=1.0)
        if shares.held_by(self.owner) > self._held and shares.is_over(
            self.owner, size, room.max_bytes - room.held
        ):
            raise Busy(f"{self.owner} has too many bytes of messages in memory already", retry_after_s=1.0)
        shares.add(self.owner, size)
        room.held += size
        self._held += size

    def _let_go(self, size: int) -> None:
        self._room.held -= size
        self._room.shares.drop(self.owner, size)
        self._held -= size

    def _give_back(self, size: int) -> None:
        self._owed += size
        if self._owed >= STREAM_WINDOW // 4:
            self._home.widen(self, self._owed)
            self._owed = 0


def cancelled(call: Call) -> Ended:
    """How a call ends that was cut short."""
    if call.is_leaving:
        return Ended(Code.UNAVAILABLE, LEAVING, 1.0)
    return Ended(Code.DEADLINE_EXCEEDED, "the deadline of the call has passed")


LEAVING = "the gateway stops: what is not answered may be sent again"
