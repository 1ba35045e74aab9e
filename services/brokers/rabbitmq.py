"""RabbitMQ: a connection to one of its nodes, and what errors mean."""

from __future__ import annotations

import asyncio
from typing import Any

from models.errors import Malformed, Unavailable
from models.settings.messaging import Messaging
from services.brokers.common import CONNECT_S, brokers_of, refused, tls_of

#: The broker and we notice a dead connection within twice this.
HEARTBEAT_S = 10


class RabbitLink:
    """One connection; after one that failed the next node is tried."""

    def __init__(self, messaging: Messaging, password: str | None, name: str) -> None:
        self._messaging = messaging
        self._password = password
        self._name = name
        self._node = 0
        #: The node that was connected to last, for a person.
        self.where = brokers_of(messaging)

    async def open(self) -> Any:
        """Connect. Raises Unavailable, Malformed."""
        import aio_pika
        import aiormq.exceptions
        from yarl import URL

        messaging = self._messaging
        host, port = messaging.places[self._node % len(messaging.places)]
        self.where = f"{host}:{port}"
        url = URL.build(
            scheme="amqps" if messaging.tls else "amqp",
            user=messaging.user or "guest",
            password=self._password or "guest",
            host=host,
            port=port,
            path="/" + ("" if messaging.virtual_host == "/" else messaging.virtual_host),
            query={"heartbeat": str(HEARTBEAT_S), "name": self._name},
        )
        try:
            return await aio_pika.connect(url, timeout=CONNECT_S, ssl_context=tls_of(messaging))
        except (aiormq.exceptions.ProbableAuthenticationError, aiormq.exceptions.AuthenticationError):
            who = messaging.user or "guest"
            raise Unavailable(f"{self.where} does not accept user {who!r} with this password") from None
        except (aiormq.exceptions.AMQPError, OSError, TimeoutError) as error:
            self._node += 1  # the next one
            raise self.in_words(error, "") from None

    async def close(self, connection: Any) -> None:
        async with asyncio.timeout(CONNECT_S):
            await connection.close()

    def in_words(self, error: BaseException, queue: str) -> Unavailable | Malformed:
        """What an error means for who uses this queue."""
        import aiormq.exceptions as amqp

        if isinstance(error, amqp.ChannelNotFoundEntity):
            return Malformed(
                f"{self.where}: there is no queue {queue}. Create one: "
                f"rabbitmqadmin declare queue name={queue} durable=true"
            )
        if isinstance(error, amqp.ChannelAccessRefused):
            return Unavailable(
                f"{self.where}: the queue {queue} is read by another consumer, or may not be used by user "
                f"{self._messaging.user or 'guest'!r}: {error}"
            )
        if isinstance(error, OSError | TimeoutError | amqp.AMQPConnectionError):
            return Unavailable(
                f"can't reach {self.where}: {error}" if str(error) else f"can't reach {self.where}"
            )
        return refused(error, self.where)
