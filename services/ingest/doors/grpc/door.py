"""gRPC in a gateway: each has a server of its own on `server.grpc_port`, and the kernel spreads connections over them (SO_REUSEPORT).
So Serve starts, watches and drains these servers as it does gateways, and no proxy stands in the way (docs/decisions/0023-grpc.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from actors.runtime.ending import end
from models.errors import Busy, Unavailable
from services.ingest.arrival import Sender
from services.ingest.body import Room
from services.ingest.doors.door import Door, Needs
from services.ingest.doors.grpc.strangers import Strangers
from services.ingest.doors.grpc.tls_listener import TlsListener
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
        self._strangers = Strangers()
        #: Of those that were turned away, how many since it was told, and where the last one came from.
        self._turned_away, self._turned_away_from = 0, ""
        #: Connections, by whose they are.
        self._homes = Shares()
        self.services: dict[str, Service] = {}
        self.routes: dict[bytes, tuple[Service, Handler]] = {}
        self.connections: set[Connection] = set()
        self._host, self._port = section.http_host, section.grpc_port
        #: With which connections speak TLS that come from now on, while those that are open go on; None: clear text, from the start on.
        self.tls: ssl.SSLContext | None = None
        self._server: asyncio.Server | TlsListener | None = None
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
        from services.ingest.doors.grpc.connection import Connection

        loop = asyncio.get_running_loop()
        try:
            if self.tls is None:
                self._server = await loop.create_server(
                    lambda: Connection(self), self._host, self._port, reuse_port=True
                )
            else:
                self._server = TlsListener(self._context, lambda: Connection(self))
                await self._server.start(self._host, self._port)
        except OSError as error:
            raise Unavailable(f"can't listen for gRPC on {self._host}:{self._port}: {error}") from error
        self._looking = loop.create_task(self._look())
        self.health.begin()

    async def stop(self) -> None:
        """No call is taken any more; what was taken is answered."""
        if self._server is None:
            return
        server, self._server = self._server, None
        if (closing := server.close()) is not None:
            await closing
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

    def _context(self) -> ssl.SSLContext:
        assert self.tls is not None
        return self.tls

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for connection in [*self.connections]:
                connection.look()
            if self._turned_away:
                log.warning(
                    "gRPC connections turned away: they showed no token, and others needed their places",
                    connections=self._turned_away,
                    last_from=self._turned_away_from,
                )
                self._turned_away = 0
            self._measure()

    # -- for connections and calls -------------------------------------------------------------------------

    def take_in(self, connection: Connection) -> bool:
        """Whether there is room for another connection."""
        is_full = len(self.connections) >= CONNECTIONS_MAX and not self._strangers.make_room()
        if self._server is None or is_full:
            self.count_refused("busy")
            return False
        self.connections.add(connection)
        self._strangers.add(connection)
        self._measure()
        return True

    def let_go(self, connection: Connection) -> None:
        """It is over, or is to be: it has no place any more. Safe to call twice."""
        if connection in self.connections:
            self.connections.discard(connection)
            self._strangers.drop(connection)
            self._homes.drop(connection.owner or "", 1)
            self._measure()

    def has_room_for_open_call(self, connection: Connection) -> bool:
        """Whether a call that needs no token may begin on it. When their places are taken, the other stranger that has most of them is
        turned away: who asks whether we serve must hear it, whoever keeps asking."""
        if self.open_calls < self.max_open_calls:
            return True
        others = [
            each for each in self.connections if each.owner is None and each.calls and each is not connection
        ]
        if not others:
            return False
        self._strangers.turn_away(max(others, key=lambda each: len(each.calls)))
        return True

    def turned_away(self, connection: Connection) -> None:
        """A stranger had to go."""
        self._turned_away += 1
        self._turned_away_from = connection.address
        self.count_refused("no token shown")
        self.let_go(connection)

    def recognise(self, connection: Connection, sender: Sender) -> None:
        """A connection is no stranger any more. Raises Busy for a sender that has too many of them."""
        if connection not in self.connections:
            return
        # The places of strangers are free for who is none.
        known = len(self.connections) - len(self._strangers)
        if self._homes.is_over(sender.name, 1, CONNECTIONS_MAX - known):
            raise Busy(f"{sender.name} has too many connections open already", retry_after_s=1.0)
        connection.owner = sender.name
        self._homes.add(sender.name, 1)
        self._strangers.drop(connection)

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
        self.needs.meter.set("llm_im_grpc_strangers", len(self._strangers))
        self.needs.meter.set("llm_im_grpc_calls", self.calls)
