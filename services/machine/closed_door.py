"""Answers 503 with Retry-After in place of a system under maintenance, so that senders try again. Used by
`llm-im store reshard`."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

#: What a sender is told to wait before it asks again.
RETRY_AFTER_S = 5
#: A request that is slower than this is answered before it was read whole.
READ_S = 1.0
#: Of a request only its end matters; a sender that sends more is answered and cut.
READ_BYTES = 64 * 1024
#: What an EventSource waits, in milliseconds.
STREAM_RETRY_MS = 5000

_BODY = b'{"error":"unavailable","message":"this system is being resharded; send it again"}'
_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: %d\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (RETRY_AFTER_S, len(_BODY), _BODY)
)
#: An EventSource stops for good after a 503, but reconnects by itself after a stream that ended
#: (services/machine/haproxy.py).
_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"Connection: close\r\n\r\nretry: %d\n\n" % STREAM_RETRY_MS
)
_ASKS_FOR_STREAM = re.compile(rb"\r\naccept:[^\r\n]*text/event-stream", re.IGNORECASE)


@contextlib.asynccontextmanager
async def closed_door(host: str, port: int) -> AsyncIterator[bool]:
    """Hold the port meanwhile. Yields whether that worked: another program on it is left alone."""
    try:
        server = await asyncio.start_server(_answer, host, port)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        server.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = b""
    try:
        with contextlib.suppress(TimeoutError):
            # Read first: a connection closed over unread bytes is reset, and the answer with it.
            async with asyncio.timeout(READ_S):
                request = await reader.read(READ_BYTES)
        writer.write(_STREAM if _ASKS_FOR_STREAM.search(request) else _ANSWER)
        await writer.drain()
        writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READ_S):
                await reader.read(READ_BYTES)
    except OSError:
        pass
    finally:
        writer.close()
