"""gRPC in a gateway: each has a server of its own on `server.grpc_port`, and the kernel spreads connections over them (SO_REUSEPORT).
So Serve starts, watches and drains these servers as it does gateways, and no proxy stands in the way (docs/decisions/0023-grpc.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import structlog

from actors.runtime.ending import end
from models.errors import Busy, Unavailable
from services.ingest.arrival import Sender
from services.ingest.body import Room
from services.ingest.doors.door import Door, Needs
from services.ingest.doors.http import BODIES_MAX
from services.ingest.shares import Shares

if TYPE_CHECKING:
    import ssl

    from models.settings.server import Server
    from services.ingest.doors.grpc.call import Call
    from services.ingest.doors.grpc.connection import Connection
    from services.ingest.doors.grpc.service import Handler, Service

log = structlog.get_logger()

#: Connections of one gateway. Each holds a few tens of kilobytes while it is idle.
CONNECTIONS_MAX = 1024
#: Calls that a gateway works on at once. Beyond that clients get UNAVAILABLE.
CALLS_MAX = 2048
#: Of these, calls that need no token (health, reflection): nobody can crowd out alerts with what anybody may call.
OPEN_CALLS_MAX = 256
#: A gateway that stops sends the answers of what it took, for so long.
LEAVE_S = 5.0
#: How often connections are looked at that take too long.
LOOK_S = 2.0
#: Longest TLS handshake: two messages of each side.
HANDSHAKE_S = 10.0


class GrpcDoor(Door):
    """Handles the calls of the services that were added. What it needs is imported when it is made: most gateways have none."""

    name = "grpc"
    section = "server"

    def __init__(self, needs: Needs, section: Server) -> None:
        from services.ingest.doors.grpc.alerts import SentinelAlerts, ShieldIncidents
        from services.ingest.doors.grpc.health import Health
        from services.ingest.doors.grpc.reflection import Reflection, ReflectionV1Alpha

        self.needs = needs
        self.max_streams = section.grpc_max_streams
        self.max_message_bytes = section.max_body_bytes
        self.message_timeout_s = section.body_timeout
        self.max_calls = CALLS_MAX
        #: Bytes of messages, of all connections.
        self.room = Room(BODIES_MAX * section.max_body_bytes)
        #: Calls under way.
        self.calls = 0
        #: Those of them that need no token.
        self.open_calls = 0
        self.max_open_calls = OPEN_CALLS_MAX
        self._shares = Shares()
        self.services: dict[str, Service] = {}
        self.routes: dict[bytes, tuple[Service, Handler]] = {}
        self.connections: set[Connection] = set()
        self._host, self._port = section.http_host, section.grpc_port
        #: With which new connections speak TLS; None: clear text. Set before start(), then by change_tls().
        self.tls: ssl.SSLContext | None = None
        self._servers: list[asyncio.Server] = []
        #: Connections whose handshake is not over, which asyncio forgets when it fails.
        self._greeting: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._looking: asyncio.Task[None] | None = None
        self.health = Health(self.services)
        reflections = (Reflection(self.services), ReflectionV1Alpha(self.services))
        for service in (SentinelAlerts(needs), ShieldIncidents(needs), self.health, *reflections):
            self.add(service)

    @classmethod
    def is_wanted(cls, section: Server) -> bool:
        return section.grpc

    def add(self, service: Service) -> None:
        """Serve this too. To be called before start()."""
        self.services[service.name] = service
        for method, handler in service.methods().items():
            self.routes[f"/{service.name}/{method}".encode()] = (service, handler)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                self._greet, self._host, self._port, reuse_port=True, **self._options()
            )
        except OSError as error:
            raise Unavailable(f"can't listen for gRPC on {self._host}:{self._port}: {error}") from error
        self._servers = [server]
        self._looking = loop.create_task(self._look())
        self.health.begin()

    async def stop(self) -> None:
        """No call is taken any more; what was taken is answered."""
        if not self._servers:
            return
        for server in self._servers:
            server.close()
        self._servers = []
        for service in self.services.values():
            service.stop()
        for connection in [*self.connections]:
            connection.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await asyncio.gather(*[connection.is_over.wait() for connection in [*self.connections]])
        for connection in [*self.connections]:
            connection.abort()
        if self._looking is not None:
            await end([self._looking])

    async def change_tls(self, tls: ssl.SSLContext) -> None:
        """Speak TLS with these certificates from the next connection on; those that are open go on. The sockets stay, with whoever
        waits at them. Raises OSError, and then nothing has changed."""
        self.tls = tls
        loop = asyncio.get_running_loop()
        former = self._servers
        made: list[asyncio.Server] = []
        try:
            for listener in [each for server in former for each in server.sockets]:
                # asyncio closes the socket of a server that ends: this one has its own name for it.
                made.append(await loop.create_server(self._greet, sock=listener.dup(), **self._options()))
        except OSError:
            for server in made:
                server.close()
            raise
        self._servers = made
        for server in former:
            server.close()

    def _options(self) -> dict[str, Any]:
        return {} if self.tls is None else {"ssl": self.tls, "ssl_handshake_timeout": HANDSHAKE_S}

    def _greet(self) -> Connection:
        """For each connection that comes. Raises Busy, and then asyncio closes it."""
        from services.ingest.doors.grpc.connection import Connection

        if self.tls is not None and len(self._greeting) >= CONNECTIONS_MAX:
            self.count_refused("busy")
            raise Busy(f"{CONNECTIONS_MAX} TLS handshakes are under way", retry_after_s=1.0)
        connection = Connection(self)
        if self.tls is not None:
            self._greeting.add(connection)
        return connection

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for connection in [*self.connections]:
                connection.look()
            self._measure()

    # -- for connections and calls -------------------------------------------------------------------------

    def take_in(self, connection: Connection) -> bool:
        """Whether there is room for another connection."""
        self._greeting.discard(connection)
        if not self._servers or len(self.connections) >= CONNECTIONS_MAX:
            self.count_refused("busy")
            return False
        self.connections.add(connection)
        self._measure()
        return True

    def let_go(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._measure()

    async def admit(self, call: Call) -> None:
        """Find out who calls. Raises Unauthorized, Forbidden, and Busy for a sender that has too many calls."""
        sender = await self.needs.doorman.admit_to_door(self._shown(call), call.scope)
        if self._shares.is_over(sender.name, 1, self.max_calls - self.calls):
            raise Busy(f"{sender.name} has too many calls under way already", retry_after_s=1.0)
        if not call.is_gone:
            self._shares.add(sender.name, 1)
            call.belongs_to(sender)

    def is_over(self, call: Call) -> None:
        """A call has ended."""
        self.calls -= 1
        self.open_calls -= not call.scope
        self._shares.drop(call.owner, 1)

    async def readmit(self, call: Call) -> Sender:
        """The same, of who was let in when the call began."""
        doorman = self.needs.doorman
        sender = doorman.admitted(doorman.credentials(self._shown(call)), call.scope)
        if sender is None:
            sender = await doorman.admit_to_door(self._shown(call), call.scope)
        return sender

    def _shown(self, call: Call) -> Mapping[bytes, bytes]:
        """What the doorman is shown. No page can speak gRPC: no Host is needed against those."""
        header = call.metadata.get(b"authorization")
        if header is not None:
            return {b"authorization": header}
        return {} if call.certificate is None else self.needs.doorman.vouched(call.certificate)

    def count_refused(self, reason: str) -> None:
        self.needs.meter.count("llm_im_requests_refused_total", door=self.name, reason=reason)

    def _measure(self) -> None:
        self.needs.meter.set("llm_im_grpc_connections", len(self.connections))
        self.needs.meter.set("llm_im_grpc_calls", self.calls)
