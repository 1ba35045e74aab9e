"""NATS JetStream: a connection, the stream of a subject, and what errors mean."""

from __future__ import annotations

import asyncio
from typing import Any

from models.errors import Malformed, Unavailable
from models.settings.messaging import Messaging
from services.brokers.common import CONNECT_S, brokers_of, refused, tls_of


class NatsLink:
    """One connection; another one after it was lost. `said` holds what the server said of its own accord."""

    def __init__(self, messaging: Messaging, password: str | None, name: str) -> None:
        self._messaging = messaging
        self._password = password
        self._name = name
        self._said: list[Exception] = []
        self.client: Any = None
        #: Set when the connection is over: the client lets what waits for an answer wait on.
        self.over = asyncio.Event()

    @property
    def where(self) -> str:
        return brokers_of(self._messaging)

    async def open(self) -> None:
        """Connect. Raises Unavailable, Malformed."""
        import nats
        from nats import errors

        messaging = self._messaging
        who: dict[str, Any] = {}
        if messaging.user:
            who = {"user": messaging.user, "password": self._password}
        elif self._password is not None:
            who = {"token": self._password}
        scheme = "tls" if messaging.tls else "nats"
        self._said = []

        async def told(error: Exception) -> None:
            self._said.append(error)

        async def closed() -> None:
            self.over.set()

        try:
            async with asyncio.timeout(2 * CONNECT_S):
                self.client = await nats.connect(
                    [f"{scheme}://{host}:{port}" for host, port in messaging.places],
                    name=self._name,
                    error_cb=told,
                    closed_cb=closed,
                    disconnected_cb=closed,
                    # We do that ourselves, and say why.
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=int(CONNECT_S),
                    tls=tls_of(messaging),
                    **who,
                )
        except (errors.Error, OSError, TimeoutError) as error:
            raise self.in_words(error) from None

    async def close(self) -> None:
        if self.client is not None:
            await self.client.close()

    async def stream_of(self, subject: str) -> str:
        """The stream that keeps what is sent to a subject. Raises Malformed when there is none, Unavailable, and the client's errors."""
        from nats.js.errors import NoStreamResponseError, NotFoundError, ServiceUnavailableError

        try:
            found: str = await self.client.jetstream(timeout=CONNECT_S).find_stream_name_by_subject(subject)
        except NotFoundError:
            raise Malformed(
                f"{self.where}: no stream has the subject {subject}. Create one: "
                f"nats stream add INCIDENTS --subjects {subject} --storage file"
            ) from None
        except (NoStreamResponseError, ServiceUnavailableError):
            raise Unavailable(f"{self.where}: JetStream is not enabled, or not ready") from None
        return found

    def in_words(self, error: Exception) -> Unavailable:
        """What an error of the client means, or what the server said before it."""
        from nats import errors

        if isinstance(error, errors.TimeoutError) and self.client is not None:
            return Unavailable(f"{self.where} does not answer within {CONNECT_S:g} s")
        if self._said and (self.client is None or isinstance(error, errors.ConnectionClosedError)):
            error = self._said[-1]
        messaging, text = self._messaging, str(error)
        if isinstance(error, errors.ConnectionClosedError):
            text = "the connection was lost"
        if "Authorization" in text or "Authentication" in text:
            who = f"user {messaging.user!r}" if messaging.user else "the token"
            if not messaging.user and self._password is None:
                return Unavailable(f"{self.where} asks for a user: set messaging.user and messaging.password")
            return Unavailable(f"{self.where} does not accept {who} with this password")
        if isinstance(error, OSError | TimeoutError) or "no servers available" in text or "EOF" in text:
            return Unavailable(f"can't reach {self.where}")
        return refused(text, self.where)
