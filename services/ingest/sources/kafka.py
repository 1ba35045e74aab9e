"""Kafka: a member of a consumer group. Each partition that it was assigned is a lane of its own.

librdkafka is used by one thread, which polls all the time, so that the group never takes us for dead; messages go to the event loop, and
what is settled comes back as offsets to commit. A partition whose lane is full is paused.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import operator
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from models.errors import Unavailable
from services.brokers.common import refused
from services.brokers.kafka import config_of, in_words, is_of_one, silent
from services.ingest.sources.lane import FINISH_S, Lane
from services.ingest.sources.messages import Message
from services.ingest.sources.queue import HELD_MAX_BYTES, QueueSource, header_bytes

log = structlog.get_logger()

#: A call of the thread into librdkafka returns after this, with what there is.
POLL_S = 0.1
#: Most messages of one call.
POLL_MAX = 100
#: Between two commits: what a crash makes come again.
COMMIT_S = 0.2
#: How often the lag is computed, and a broker that is away is asked for.
LOOK_S = 2.0
#: How long a look waits.
LOOK_TIMEOUT_S = 1.0
#: Kilobytes that librdkafka itself fetches ahead.
FETCHED_KBYTES = 16 * 1024
#: Leaving the group takes a round trip or two.
CLOSE_S = 5.0
#: A header is a name and a value.
_PAIR = 2
_ASK = operator.methodcaller("headers")


class KafkaSource(QueueSource):
    name = "kafka"

    async def read(self) -> None:
        reader = _Reader(self, asyncio.get_running_loop())
        reader.thread.start()
        over = reader.over
        leaving = asyncio.ensure_future(self.leaving.wait())
        try:
            await asyncio.wait((over, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not over.done():
                # While the thread goes on: the group must not take us for dead meanwhile.
                await asyncio.gather(*[part.lane.finish() for part in [*reader.parts.values()] if part.lane])
        finally:
            leaving.cancel()
            reader.leave.set()
            await asyncio.wait([over], timeout=FINISH_S + CLOSE_S)
        if (why := over.result() if over.done() else "it does not end") and not self.leaving.is_set():
            raise Unavailable(why)

    def config(self) -> dict[str, Any]:
        """What librdkafka is told. Holds the password."""
        return {
            **config_of(self.messaging, self.password, self.needs.name),
            "group.id": self.messaging.consumer_group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # A group that is new reads what is there.
            "auto.offset.reset": "earliest",
            # Those who stay keep their partitions when one comes or goes.
            "partition.assignment.strategy": "cooperative-sticky",
            "queued.max.messages.kbytes": FETCHED_KBYTES,
            # One larger than that is a dead letter, not the end of reading.
            "fetch.message.max.bytes": min(self.needs.settings.server.max_body_bytes, FETCHED_KBYTES * 1024),
        }


class _Part:
    """A partition while it is ours. `lane` is made by the loop; the thread reads and sets the numbers."""

    def __init__(self, name: str, partition: int) -> None:
        self.name = name
        self.partition = partition
        self.lane: Lane | None = None
        self.is_ours = True
        self.is_paused = False
        #: Handed to the loop, and settled by it: messages, and bytes of bodies.
        self.given = self.given_bytes = 0
        self.settled = self.settled_bytes = 0
        #: The offset behind the last that was settled, and behind the last that was committed.
        self.next = self.committed = -1

    @property
    def held(self) -> int:
        return self.given - self.settled

    @property
    def held_bytes(self) -> int:
        return self.given_bytes - self.settled_bytes


class _Reader:
    """One consumer and its thread. `over` is done with why it ended, "" when it was told to."""

    def __init__(self, source: KafkaSource, loop: asyncio.AbstractEventLoop) -> None:
        self._source = source
        self._loop = loop
        self._topic = source.messaging.ingest
        self.parts: dict[int, _Part] = {}
        self.leave = threading.Event()
        self.over: asyncio.Future[str] = loop.create_future()
        self.thread = threading.Thread(target=self._run, name="kafka", daemon=True)
        self._consumer: Any = None
        self._dropping: set[asyncio.Task[None]] = set()
        #: What is wrong now, "" if nothing is; and whether it was ever well.
        self._fault = "connecting"
        self._commit_at = self._look_at = 0.0

    # -- the thread

    def _run(self) -> None:
        why = ""
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - told by the loop, which starts anew
            why = str(refused(error, self._source.where))
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._ended, why)

    def _work(self) -> None:
        from confluent_kafka import Consumer

        self._consumer = consumer = Consumer(
            {**self._source.config(), "error_cb": self._error}, logger=silent()
        )
        try:
            consumer.subscribe(
                [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )
            while not self.leave.is_set():
                self._give(consumer.consume(min(POLL_MAX, self._source.prefetch), POLL_S))
                now = time.monotonic()
                self._flow()
                if now >= self._commit_at:
                    self._commit(asynchronous=True)
                    self._commit_at = now + COMMIT_S
                if now >= self._look_at:
                    self._look()
                    self._look_at = now + LOOK_S
            self._commit(asynchronous=False)
        finally:
            # Leaves the group: the others need not wait until we are taken for dead.
            consumer.close()

    def _give(self, found: list[Any]) -> None:
        messages: dict[int, list[Message]] = {}
        for each in found:
            if (error := each.error()) is not None:
                self._error(error)
                continue
            part = self.parts.get(each.partition())
            if part is None:
                continue
            topic, offset, body = each.topic(), each.offset(), each.value() or b""
            part.given += 1
            part.given_bytes += len(body)
            messages.setdefault(part.partition, []).append(
                Message(
                    body,
                    _headers_of(each),
                    f"{topic}/{part.partition}/{offset}",
                    f"{topic}-{part.partition}-{offset}",
                    offset,
                )
            )
        if messages:
            self._loop.call_soon_threadsafe(
                self._put, [(self.parts[name], its) for name, its in messages.items()]
            )
            if self._fault:
                self._well()

    def _flow(self) -> None:
        """Pause partitions that hold their share, resume those that hold half of it."""
        from confluent_kafka import TopicPartition

        parts = [*self.parts.values()]
        if not parts:
            return
        share = max(1, self._source.prefetch // len(parts))
        share_bytes = HELD_MAX_BYTES // len(parts)
        for part in parts:
            is_full = part.held >= share or part.held_bytes >= share_bytes
            is_low = part.held <= share // 2 and part.held_bytes <= share_bytes // 2
            place = [TopicPartition(self._topic, part.partition)]
            if is_full and not part.is_paused:
                self._consumer.pause(place)
                part.is_paused = True
            elif is_low and part.is_paused:
                self._consumer.resume(place)
                part.is_paused = False

    def _commit(self, *, asynchronous: bool) -> None:
        from confluent_kafka import KafkaException, TopicPartition

        news = [part for part in self.parts.values() if part.next > part.committed and part.is_ours]
        if not news:
            return
        places = [TopicPartition(self._topic, part.partition, part.next) for part in news]
        try:
            self._consumer.commit(offsets=places, asynchronous=asynchronous)
        except KafkaException as error:
            # They come again, and are told by their names.
            log.info(
                "offsets are not committed, and their messages come again", source="kafka", why=str(error)
            )
            return
        for part, place in zip(news, places, strict=True):
            part.committed = place.offset

    def _look(self) -> None:
        from confluent_kafka import KafkaException, TopicPartition

        if self._fault:
            try:
                topic = self._consumer.list_topics(self._topic, LOOK_TIMEOUT_S).topics[self._topic]
            except KafkaException as error:
                self._error(error.args[0])
            else:
                if topic.error is not None:
                    self._error(topic.error)
                else:
                    self._well()
        for part in [*self.parts.values()]:
            place = TopicPartition(self._topic, part.partition)
            try:
                _low, high = self._consumer.get_watermark_offsets(place, cached=True)
                read = self._consumer.position([place])[0].offset
            except KafkaException:
                continue
            if high >= 0 and read >= 0:
                self._loop.call_soon_threadsafe(self._set_lag, part, high - read + part.held)

    def _error(self, error: Any) -> None:
        why = in_words(self._source.messaging, error, self._topic)
        if why.startswith("can't reach") and (len(self._source.messaging.places) > 1 and is_of_one(error)):
            return  # there are others
        if why.startswith("can't reach") and "does not accept" in self._fault:
            return  # the connection broke because of the refusal
        if why and why != self._fault:
            self._fault = why
            self._loop.call_soon_threadsafe(self._source.lost, why)

    def _well(self) -> None:
        self._fault = ""
        self._loop.call_soon_threadsafe(self._source.connected)

    def _assigned(self, _consumer: Any, places: list[Any]) -> None:
        for place in places:
            part = self.parts[place.partition] = _Part(f"{place.topic}/{place.partition}", place.partition)
            self._loop.call_soon_threadsafe(self._begin, part)

    def _revoked(self, _consumer: Any, places: list[Any]) -> None:
        """They still are ours until this returns: what is settled is committed. What is under way comes again, to somebody else."""
        self._commit(asynchronous=False)
        self._lost(_consumer, places)

    def _lost(self, _consumer: Any, places: list[Any]) -> None:
        for place in places:
            if (part := self.parts.pop(place.partition, None)) is not None:
                part.is_ours = False
                self._loop.call_soon_threadsafe(self._drop, part)

    # -- the loop

    def _begin(self, part: _Part) -> None:
        if part.is_ours:
            part.lane = self._source.lane(_settling(part))

    def _put(self, found: list[tuple[_Part, list[Message]]]) -> None:
        for part, messages in found:
            if part.is_ours and part.lane is not None:
                part.lane.put(messages)

    def _drop(self, part: _Part) -> None:
        self._source.forget_lag(part.name)
        if part.lane is not None:
            task = self._loop.create_task(self._source.end_lane(part.lane, finish=False))
            self._dropping.add(task)
            task.add_done_callback(self._dropping.discard)

    def _set_lag(self, part: _Part, lag: int) -> None:
        if part.is_ours:
            self._source.set_lag(part.name, lag)

    def _ended(self, why: str) -> None:
        for part in self.parts.values():
            part.is_ours = False
            self._source.forget_lag(part.name)
        if not self.over.done():
            self.over.set_result(why)


def _headers_of(found: Any) -> Mapping[bytes, bytes]:
    """None of a message one of whose headers has a name that is no UTF-8: the library gives none then, and it must hold nobody up.

    It gives such names as holes in its tuples, beside an exception that a call from Python code, once specialised, does not look for:
    reading a hole ends the process. `_ASK` calls from C, which looks; and who collects garbage in between may lose the exception.
    """
    try:
        pairs = _ASK(found) or ()
    except Exception:  # noqa: BLE001 - what a C library makes of a stranger's bytes
        return {}
    if any(len(gc.get_referents(pair)) != _PAIR for pair in pairs):
        return {}
    return header_bytes(dict(pairs))


def _settling(part: _Part) -> Callable[[Message], None]:
    def settled(message: Message) -> None:
        assert isinstance(message.handle, int)
        part.settled += 1
        part.settled_bytes += len(message.body)
        part.next = message.handle + 1

    return settled
