"""Connections that begin with TLS: the door knows each, and its address, before its handshake. asyncio's own servers tell nobody of a
handshake that is under way. Used by door.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from actors.runtime.ending import end

if TYPE_CHECKING:
    import ssl

    from services.ingest.doors.grpc.connection import Connection

log = structlog.get_logger()

#: Longest TLS handshake: two messages of each side.
HANDSHAKE_S = 10.0
#: A connection that we close waits so long for its client to say that it has read the end. asyncio gives it half a minute, and a thousand
#: strangers that were turned away and say nothing would hold as many file descriptors for that time.
CLOSE_S = 1.0
#: Connections that the kernel holds until they are accepted, as asyncio has it.
BACKLOG = 100
#: After a connection that can't be accepted: there is no file descriptor left, and some have to be closed first.
PAUSE_S = 1.0


class _Arriving:
    """A connection whose handshake is under way."""

    def __init__(self, sock: socket.socket, peer: object) -> None:
        self.peer = peer
        self._socket = sock

    def abort(self) -> None:
        """End it. Whoever shakes hands there reads its end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class TlsListener:
    """One address, from start() to close(). `context` says with what the next connection speaks TLS, `make` makes who has it."""

    def __init__(self, context: Callable[[], ssl.SSLContext], make: Callable[[], Connection]) -> None:
        self._context = context
        self._make = make
        self._listening: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> None:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        # asyncio finds the addresses and binds them; to accept is left to us.
        bound = await loop.create_server(
            asyncio.Protocol, host, port, reuse_port=True, start_serving=False, backlog=BACKLOG
        )
        self._listening = [each.dup() for each in bound.sockets]
        bound.close()
        for each in self._listening:
            each.setblocking(False)
            each.listen(BACKLOG)
        self._accepting = [loop.create_task(self._accept(each)) for each in self._listening]

    async def close(self) -> None:
        """Accept nothing more. Who ends the connections ends their handshakes too."""
        await end(self._accepting)
        for each in self._listening:
            each.close()
        self._listening = []

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(listening)
            except OSError as error:
                log.error("can't accept gRPC connections, retrying", why=str(error))
                await asyncio.sleep(PAUSE_S)
                continue
            connection = self._make()
            if connection.arrived(_Arriving(sock, peer)):
                task = loop.create_task(self._shake_hands(connection, sock))
                self._handshakes.add(task)
                task.add_done_callback(self._handshakes.discard)
            else:
                sock.close()

    async def _shake_hands(self, connection: Connection, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=self._context(),
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=CLOSE_S,
            )
        except OSError:
            # No TLS, a certificate that one of the two does not take, too slow, or gone.
            with contextlib.suppress(OSError):
                sock.close()
            connection.connection_lost(None)
