"""Kafka: an idempotent producer, each message confirmed by all replicas that are in sync. The key is the incident's id.

librdkafka has threads of its own; one of ours asks it for confirmations and passes them to the event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any

from models.errors import Malformed, TooLarge, Unavailable
from services.brokers.common import CONNECT_S, brokers_of, refused
from services.brokers.kafka import config_of, in_words, silent
from services.feed.announcements import Announcement
from services.feed.writers.writer import CONFIRM_S, Writer, headers_of

#: A call of the thread into librdkafka returns after this at the latest.
POLL_S = 0.1
#: Errors that are remembered while it connects, to tell the one that says most.
ERRORS_MAX = 20


class KafkaWriter(Writer):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._producer: Any = None
        self._over = threading.Event()

    async def open(self) -> None:
        from confluent_kafka import KafkaException, Producer

        loop = asyncio.get_running_loop()
        said: deque[Any] = deque(maxlen=ERRORS_MAX)
        try:
            self._producer = producer = Producer(
                {
                    **config_of(self.messaging, self.password, self.name),
                    "enable.idempotence": True,
                    "acks": "all",
                    # Of what the broker got within this nothing is lost; a message that waits longer is sent anew.
                    "message.timeout.ms": int(CONFIRM_S * 1000 * 0.9),
                    "linger.ms": 2,
                    # As the clients of others distribute keys.
                    "partitioner": "murmur2_random",
                    "error_cb": said.append,
                },
                logger=silent(),
            )
            self._over = over = threading.Event()
            for topic in self.topics:
                found = await loop.run_in_executor(None, producer.list_topics, topic, CONNECT_S)
                if (error := found.topics[topic].error) is not None:
                    raise Malformed(self._words(error, topic))
        except KafkaException as error:
            self._producer.poll(0)
            words = [self._words(each, self.topics[0]) for each in (*said, error.args[0])]
            # A refusal says more than that it can't be reached.
            raise Unavailable(
                next((each for each in words if "can't reach" not in each), words[-1])
            ) from None
        threading.Thread(target=_poll, args=(producer, over), name="kafka-writer", daemon=True).start()

    async def send(self, message: Announcement) -> None:
        from confluent_kafka import KafkaError, KafkaException

        producer = self._producer
        if producer is None:
            raise Unavailable(f"{brokers_of(self.messaging)}: the connection was lost")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def confirmed(error: Any, _message: object) -> None:
            loop.call_soon_threadsafe(_set, done, error)

        headers = [(name, value.encode()) for name, value in headers_of(message).items()]
        try:
            producer.produce(
                message.topic, message.body, message.key.encode(), headers=headers, on_delivery=confirmed
            )
            async with asyncio.timeout(CONFIRM_S):
                error = await done
        except KafkaException as failed:
            error = failed.args[0]
        except (BufferError, TimeoutError):
            raise Unavailable(f"can't reach {brokers_of(self.messaging)}") from None
        if error is None:
            return
        if error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE):
            raise TooLarge(f"{brokers_of(self.messaging)} takes none so large")
        raise Unavailable(self._words(error, message.topic))

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge(in_queue=True, in_flight=True, blocking=False)
            self._over.set()

    def _words(self, error: Any, topic: str) -> str:
        words = in_words(self.messaging, error, topic, "write to")
        return words or str(refused(error.str(), brokers_of(self.messaging)))


def _poll(producer: Any, over: threading.Event) -> None:
    while not over.is_set():
        producer.poll(POLL_S)


def _set(done: asyncio.Future[Any], error: object) -> None:
    if not done.done():
        done.set_result(error)
