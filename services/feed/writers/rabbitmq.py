"""RabbitMQ: to queues by their names, through the default exchange, persistent, each confirmed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from models.errors import Unavailable
from services.brokers.rabbitmq import RabbitLink
from services.feed.announcements import Announcement
from services.feed.writers.writer import CONFIRM_S, Writer, headers_of


class RabbitWriter(Writer):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._link = RabbitLink(self.messaging, self.password, self.name)
        self._connection: Any = None
        self._channel: Any = None

    async def open(self) -> None:
        import aiormq.exceptions

        self._connection = await self._link.open()
        topic = ""
        try:
            self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            for topic in self.topics:
                await self._channel.get_queue(topic, ensure=True)
        except (aiormq.exceptions.AMQPError, OSError, TimeoutError) as error:
            raise self._link.in_words(error, topic) from None

    async def send(self, message: Announcement) -> None:
        import aio_pika
        import aiormq.exceptions

        if self._channel is None or self._channel.is_closed:
            raise Unavailable(f"{self._link.where}: the connection was lost")
        headers = headers_of(message)
        content_type = headers.pop("content-type")
        try:
            async with asyncio.timeout(CONFIRM_S):
                await self._channel.default_exchange.publish(
                    aio_pika.Message(
                        message.body,
                        headers={**headers, "key": message.key},
                        content_type=content_type,
                        message_id=message.id,
                        type=message.kind,
                        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    ),
                    message.topic,
                    # What no queue takes is an error, not lost.
                    mandatory=True,
                )
        except aiormq.exceptions.PublishError:
            raise self._link.in_words(aiormq.exceptions.ChannelNotFoundEntity(), message.topic) from None
        except aiormq.exceptions.DeliveryError:
            raise Unavailable(
                f"{self._link.where}: the queue {message.topic} takes no more messages"
            ) from None
        except (aiormq.exceptions.AMQPError, RuntimeError, OSError, TimeoutError) as error:
            raise self._link.in_words(error, message.topic) from None

    async def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await self._link.close(connection)
