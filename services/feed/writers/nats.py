"""NATS JetStream: the stream confirms each message, and drops one that it has got within its window of duplicates."""

from __future__ import annotations

import asyncio
from typing import Any

from actors.runtime.ending import end
from models.errors import TooLarge, Unavailable
from services.brokers.nats import NatsLink
from services.feed.announcements import Announcement
from services.feed.writers.writer import CONFIRM_S, Writer, headers_of


class NatsWriter(Writer):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._link: NatsLink | None = None
        self._stream: Any = None
        self._streams: dict[str, str] = {}

    async def open(self) -> None:
        from nats import errors

        self._link = link = NatsLink(self.messaging, self.password, self.name)
        await link.open()
        try:
            self._streams = {topic: await link.stream_of(topic) for topic in self.topics}
        except (errors.Error, OSError) as error:
            raise link.in_words(error) from None
        self._stream = link.client.jetstream(timeout=CONFIRM_S)

    async def send(self, message: Announcement) -> None:
        from nats import errors

        link = self._link
        if link is None or link.over.is_set():
            raise Unavailable("the connection was lost")
        if len(message.body) > link.client.max_payload:
            raise TooLarge(f"{link.where} takes at most {link.client.max_payload} bytes")
        sending = asyncio.ensure_future(
            self._stream.publish(
                message.topic,
                message.body,
                stream=self._streams[message.topic],
                headers={"Nats-Msg-Id": message.id, **headers_of(message)},
            )
        )
        over = asyncio.ensure_future(link.over.wait())
        try:
            async with asyncio.timeout(CONFIRM_S):
                await asyncio.wait((sending, over), return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise errors.ConnectionClosedError
            sending.result()
        except (errors.Error, OSError, TimeoutError) as error:
            raise link.in_words(error) from None
        finally:
            await end([sending, over])

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()
