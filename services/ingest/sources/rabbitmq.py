"""RabbitMQ: the one consumer of a queue that is there already. What a lost connection left unacknowledged is back at its place in
the queue, so the order stays.
"""

from __future__ import annotations

import asyncio
from typing import Any

from models.errors import Unavailable
from services.brokers.amqp_header import take_any_header
from services.brokers.rabbitmq import RabbitLink
from services.ingest.sources.lane import Lane
from services.ingest.sources.messages import Message
from services.ingest.sources.queue import (
    LAG_S,
    QueueSource,
    header_bytes,
)

#: Between two acknowledgements: one covers all messages before it.
ACK_S = 0.02
#: Of a `message_id`: a longer one is none that a program makes.
NAME_CHARS_MAX = 200


class RabbitSource(QueueSource):
    name = "rabbitmq"

    def __init__(self, needs: Any) -> None:
        super().__init__(needs)
        self._link = RabbitLink(self.messaging, self.password, needs.name)

    async def read(self) -> None:
        import aiormq.exceptions

        take_any_header()
        connection = await self._link.open()
        try:
            await self._consume(connection, self._link.where)
        except (aiormq.exceptions.AMQPError, OSError, TimeoutError) as error:
            raise self._link.in_words(error, self.messaging.ingest) from None
        finally:
            await self._link.close(connection)

    async def _consume(self, connection: Any, where: str) -> None:
        closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def over(_sender: object, why: BaseException | None = None) -> None:
            if not closed.done():
                closed.set_result(str(why or "the connection was closed"))

        channel = await connection.channel(publisher_confirms=False)
        connection.close_callbacks.add(over)
        channel.close_callbacks.add(over)
        await channel.set_qos(prefetch_count=min(self.prefetch, 65535))
        name = self.messaging.ingest
        await channel.get_queue(name, ensure=True)
        reader = _Reader(self, channel, name, self.lane)
        # As they come, not as aio_pika's own objects: to make one raises for some that a stranger may write, and such a message would
        # be acknowledged with those behind it. Exclusive: a second reader would take every other message, and ends overtake their
        # beginnings.
        wire = await channel.get_underlay_channel()
        tag = (await wire.basic_consume(name, reader.arrived, exclusive=True)).consumer_tag
        self.connected()
        others = [
            asyncio.get_running_loop().create_task(each) for each in (reader.acknowledge(), reader.measure())
        ]
        leaving = asyncio.ensure_future(self.leaving.wait())
        try:
            waited: list[asyncio.Future[Any]] = [closed, leaving, *others]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not leaving.done():
                raise Unavailable(f"{where}: {closed.result() if closed.done() else 'the channel was lost'}")
            await wire.basic_cancel(tag)
            await self.end_lane(reader.lane, finish=True)
            await reader.acknowledge_now()
        finally:
            for task in (*others, leaving):
                task.cancel()
            await asyncio.gather(*others, leaving, return_exceptions=True)


class _Reader:
    """What one channel reads."""

    def __init__(self, source: RabbitSource, channel: Any, queue: str, lane: Any) -> None:
        self._source = source
        self._channel = channel
        self._queue = queue
        self.lane: Lane = lane(self._settled)
        #: Messages are settled in the order of their tags: an acknowledgement covers all before it.
        self._tag = self._acked = 0

    async def arrived(self, found: Any) -> None:
        said = found.header.properties
        headers = header_bytes(said.headers)
        if said.content_type:
            headers.setdefault(b"content-type", said.content_type.encode("utf-8", "replace"))
        if said.content_encoding and said.content_encoding.lower() not in ("utf-8", "utf8"):
            headers.setdefault(b"content-encoding", said.content_encoding.encode("utf-8", "replace"))
        queue, named = self._queue, said.message_id
        if named and (len(named) > NAME_CHARS_MAX or not named.isprintable()):
            named = None
        message = Message(
            found.body,
            headers,
            f"{queue} {named or found.delivery_tag}",
            f"{queue}-{named}" if named else None,
            found.delivery_tag,
        )
        self.lane.put([message])

    def _settled(self, message: Message) -> None:
        assert isinstance(message.handle, int)
        self._tag = message.handle

    async def acknowledge(self) -> None:
        while True:
            await asyncio.sleep(ACK_S)
            await self.acknowledge_now()

    async def acknowledge_now(self) -> None:
        tag = self._tag
        if tag > self._acked:
            channel = await self._channel.get_underlay_channel()
            await channel.basic_ack(tag, multiple=True)
            self._acked = tag

    async def measure(self) -> None:
        while True:
            told = await self._channel.declare_queue(self._queue, passive=True)
            waiting = told.declaration_result.message_count
            self._source.set_lag(self._queue, waiting + self.lane.held)
            await asyncio.sleep(LAG_S)
